//! Secrets that are replaced at the service and in their files while the daemon runs: it goes on without a restart, and
//! shows none of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]

mod support;

use std::os::unix::fs::symlink;
use std::path::Path;

use okta_responder::demo::org::{
    JIRA_USER, SERVICENOW_CLIENT_ID, SERVICENOW_CLIENT_SECRET, SERVICENOW_USER, User, events,
};
use support::ledger::Ledger;
use support::{Daemon, Scene, eventually};

/// An incident, an issue, an alert, a message in Slack and in Teams, and a mail for every sign-in.
const TELL_EVERYBODY: &str = r#"
[[playbook]]
name = "tell-everybody"
on = ["user.session.start"]
step = [
  { name = "incident", action = "servicenow.incident.create", with = { short_description = "{{ user.login }}" } },
  { name = "jira", action = "jira.issue.create", with = { project = "SEC", issue_type = "Task", summary = "{{ user.login }}" } },
  { name = "pagerduty", action = "pagerduty.event.trigger", with = { summary = "{{ user.login }}" } },
  { name = "slack", action = "slack.message.post", with = { channel = "C1", text = "{{ user.login }}" } },
  { name = "teams", action = "teams.message.post", with = { text = "{{ user.login }}" } },
  { name = "mail", action = "email.send", with = { to = "soc@example.com", subject = "s", text = "{{ user.login }}" } },
]
"#;

/// The effects of one event.
const KINDS: [&str; 6] = ["incident.create", "jira.create", "slack.post", "teams.post", "mail", ALERT];

const ALERT: &str = "pagerduty.trigger";

/// Parts of every secret that there ever is in these tests.
const SECRET: &str = "replaced-secret-no";

/// A scene in which each of these services has a secret in a file; where there are two kinds, the other one if `other_ways`.
async fn scene(other_ways: bool) -> (Scene, User) {
    let scene = Scene::new("").await;
    let dir = scene.dir.path().display().to_string();
    let (jira, pagerduty) = (scene.org.jira_url(), scene.org.pagerduty_url());
    let extra = format!(
        "username = \"daemon\"\npassword = {{ file = \"{dir}/smtp-password\" }}\n\
         [jira]\nurl = \"{jira}\"\nusername = \"{JIRA_USER}\"\ntoken = {{ file = \"{dir}/jira-token\" }}\ntimeout = \"2s\"\n\
         [pagerduty]\nurl = \"{pagerduty}\"\nrouting_key = {{ file = \"{dir}/routing-key\" }}\ntimeout = \"2s\"\n\
         [teams]\nwebhook_url = {{ file = \"{dir}/teams-webhook\" }}\ntimeout = \"2s\"\n\
         [poll]\nstart_from = \"1h\"\n[dispatch]\nretry_initial = \"100ms\"\nretry_max = \"200ms\"\n"
    );
    scene.configure(&extra, TELL_EVERYBODY);
    if other_ways {
        let user = format!("username = \"{SERVICENOW_USER}\"");
        let client = format!(
            "{user}\nclient_id = \"{SERVICENOW_CLIENT_ID}\"\nclient_secret = {{ file = \"{dir}/servicenow-client\" }}"
        );
        scene.edit(&user, &client);
        scene.edit(
            &format!("token = {{ file = \"{dir}/slack-token\" }}"),
            &format!("webhook_url = {{ file = \"{dir}/slack-webhook\" }}"),
        );
        scene.edit("channel = \"C1\", ", "");
    }
    scene.secret("servicenow-client", SERVICENOW_CLIENT_SECRET);
    replace_at_the_services(&scene, 0);
    write_files(&scene, 0);
    let user = scene.org.add_user(User::new("Ann", "Miller"));
    (scene, user)
}

/// The secrets of this generation, by the names of their files.
fn secrets(scene: &Scene, generation: usize) -> [(&'static str, String); 9] {
    let word = |name: &str| format!("{SECRET}-{name}-{generation}");
    [
        ("servicenow-password", word("password")),
        ("servicenow-client", word("client")),
        ("jira-token", word("jira")),
        ("routing-key", word("routing")),
        ("slack-token", word("bot")),
        ("slack-webhook", scene.org.slack_webhook_url()),
        ("teams-webhook", scene.org.teams_webhook_url()),
        ("smtp-password", word("mail")),
        ("okta-token", word("okta")),
    ]
}

fn replace_at_the_services(scene: &Scene, generation: usize) {
    let word = |name: &str| format!("{SECRET}-{name}-{generation}");
    scene.org.replace_secrets(|secrets| {
        secrets.okta_token = word("okta");
        secrets.servicenow_password = word("password");
        secrets.servicenow_client_secret = word("client");
        secrets.jira_token = word("jira");
        secrets.pagerduty_routing_key = word("routing");
        secrets.slack_token = word("bot");
        secrets.slack_webhook = word("hook");
        secrets.teams_signature = word("signature");
        secrets.smtp_password = Some(word("mail"));
    });
}

/// Replaces each file by renaming another one over it.
fn write_files(scene: &Scene, generation: usize) {
    for (name, secret) in secrets(scene, generation) {
        scene.secret("new", &format!("{secret}\n"));
        std::fs::rename(scene.dir.path().join("new"), scene.dir.path().join(name)).unwrap();
    }
}

/// Lets an event come and waits until all services have heard of all `events` so far.
async fn tell(scene: &Scene, user: &User, events: usize) {
    scene.org.push_event(events::sign_in(user, "HIGH"));
    eventually(async || {
        let counts = KINDS.map(|kind| scene.org.effects_of(kind).len());
        if counts == [events; KINDS.len()] { Ok(()) } else { Err(format!("{counts:?}")) }
    })
    .await;
}

/// How many requests were refused for their secret so far.
fn refusals(scene: &Scene) -> usize {
    let refused = |status: Option<u16>, path: &str| match status {
        Some(401) => true,
        Some(404) => path.starts_with("/services/"),
        // PagerDuty calls an event with a wrong key invalid.
        Some(400) => path == "/v2/enqueue",
        _ => false,
    };
    scene.org.requests().iter().filter(|request| refused(request.status, &request.path)).count()
}

#[track_caller]
fn check_shows_no_secret(daemon: &Daemon) {
    let log = daemon.log();
    assert!(!log.contains(SECRET), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_secret_may_be_replaced_while_the_daemon_runs_and_nothing_is_sent_twice() {
    for (other_ways, expected) in [
        (false, &["[servicenow] was replaced (`password`)", "[slack] was replaced (`token`)"]),
        (true, &["[servicenow] was replaced (`client_secret`)", "[slack] was replaced (`webhook_url`)"]),
    ] {
        let (scene, user) = scene(other_ways).await;
        let daemon = scene.daemon();
        tell(&scene, &user, 1).await;
        for generation in 1..=2 {
            replace_at_the_services(&scene, generation);
            write_files(&scene, generation);
            tell(&scene, &user, generation + 1).await;
        }
        let ledger = Ledger::of(&scene).await;
        let actions = ledger.at_rest(3).await;
        assert!(
            actions.iter().all(|action| (action.state.as_str(), action.attempts) == ("succeeded", 1)),
            "{actions:?}"
        );
        let always = [
            "[jira] was replaced (`token`)",
            "[pagerduty] was replaced (`routing_key`)",
            "[teams] was replaced (`webhook_url`)",
            "[email] was replaced (`password`)",
        ];
        for words in expected.iter().chain(&always) {
            assert_eq!(daemon.log().matches(words).count(), 2, "{words}\n{}", daemon.log());
        }
        assert_eq!(daemon.log().matches("`okta.token` has a new one").count(), 2, "{}", daemon.log());
        check_shows_no_secret(&daemon);
        assert!(daemon.stop().success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_reads_every_secret_and_no_request_is_refused_for_an_old_one() {
    for other_ways in [false, true] {
        let (scene, user) = scene(other_ways).await;
        let daemon = scene.daemon();
        tell(&scene, &user, 1).await;
        let before = refusals(&scene);
        replace_at_the_services(&scene, 1);
        write_files(&scene, 1);
        daemon.signal("HUP");
        daemon.wait_for_log("the configuration is read again");
        tell(&scene, &user, 2).await;
        assert_eq!(refusals(&scene), before);
        assert!(!daemon.log().contains("was replaced"), "{}", daemon.log());
        check_shows_no_secret(&daemon);
        assert!(daemon.stop().success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_not_there_yet_is_waited_for_and_told_once() {
    let (scene, user) = scene(false).await;
    let daemon = scene.daemon();
    tell(&scene, &user, 1).await;
    replace_at_the_services(&scene, 1);
    for (name, secret) in secrets(&scene, 1) {
        // Truncated, and not written yet. Okta's has to be there, or there would be no event to tell of; and PagerDuty does
        // not say that it is the key that is wrong, so that its action would not wait.
        scene.secret(name, if matches!(name, "okta-token" | "routing-key") { &secret } else { "" });
    }
    scene.org.push_event(events::sign_in(&user, "HIGH"));
    let ledger = Ledger::of(&scene).await;
    eventually(async || {
        let actions = ledger.store.list_actions(Default::default()).await.unwrap();
        let waiting = actions.iter().filter(|action| action.attempts >= 3 && action.state != "succeeded").count();
        if waiting == 5 { Ok(()) } else { Err(format!("{actions:?}")) }
    })
    .await;
    for kind in KINDS.into_iter().filter(|kind| *kind != ALERT) {
        assert_eq!(scene.org.effects_of(kind).len(), 1, "{kind}");
    }
    for words in [
        "`password` of [servicenow]",
        "`token` of [jira]",
        "`token` of [slack]",
        "`webhook_url` of [teams]",
        "`password` of [email]",
    ] {
        let told = format!("{words} was refused, and what there is now cannot take its place: the secret in ");
        assert_eq!(daemon.log().matches(&told).count(), 1, "{told}\n{}", daemon.log());
    }

    write_files(&scene, 1);
    tell(&scene, &user, 3).await;
    let actions = ledger.at_rest(3).await;
    assert!(actions.iter().all(|action| action.state == "succeeded"), "{actions:?}");
    check_shows_no_secret(&daemon);
    assert!(daemon.stop().success());
}

/// Puts a generation of secrets into a directory of its own and turns the link to it, as Kubernetes does with a mounted secret.
fn swap_generation(scene: &Scene, generation: usize) {
    let root = scene.dir.path();
    let own = format!("..{generation}");
    std::fs::create_dir(root.join(&own)).unwrap();
    for (name, secret) in secrets(scene, generation) {
        scene.secret(&format!("{own}/{name}"), &secret);
    }
    symlink(&own, root.join("..data_tmp")).unwrap();
    std::fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_behind_links_that_are_swapped_as_a_whole_are_read_again() {
    let (scene, user) = scene(false).await;
    swap_generation(&scene, 0);
    for (name, _) in secrets(&scene, 0) {
        std::fs::remove_file(scene.dir.path().join(name)).unwrap();
        symlink(Path::new("..data").join(name), scene.dir.path().join(name)).unwrap();
    }
    let daemon = scene.daemon();
    tell(&scene, &user, 1).await;
    replace_at_the_services(&scene, 1);
    swap_generation(&scene, 1);
    std::fs::remove_dir_all(scene.dir.path().join("..0")).unwrap();
    tell(&scene, &user, 2).await;
    check_shows_no_secret(&daemon);
    assert!(daemon.stop().success());
}
