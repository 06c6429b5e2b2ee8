//! Requests to some company's own API: what comes back is told on, nothing happens twice that need not, and no request goes
//! where the configuration does not send it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]

mod support;

use okta_responder::demo::org::{
    Fault, Misbehaviour, Service, THIRD_PARTY_CLIENT_ID, THIRD_PARTY_CLIENT_SECRET, THIRD_PARTY_TOKEN, User, events,
};
use okta_responder::halt::{HALT_AT, Point};
use support::every::FAST;
use support::ledger::{Ledger, told};
use support::{Scene, eventually};

const LOOPBACK: &str = "allow_private = [\"127.0.0.0/8\", \"::1\"]";

/// A scene with one service, `edr`, that is signed in to in this way, and Ann.
async fn scene(settings: &str, playbooks: &str) -> (Scene, User) {
    let scene = Scene::new("").await;
    let ann = scene.org.add_user(User::new("Ann", "Miller"));
    scene.secret("edr-token", THIRD_PARTY_TOKEN);
    scene.secret("edr-secret", THIRD_PARTY_CLIENT_SECRET);
    let url = scene.org.third_party_url();
    let section = format!("[http.edr]\nbase_url = \"{url}/v1\"\ntimeout = \"2s\"\n{settings}\n");
    scene.configure(&format!("{FAST}{section}"), playbooks);
    (scene, ann)
}

/// The same with the token, which lies beside the configuration.
async fn with_token(playbooks: &str) -> (Scene, User) {
    let (scene, ann) = scene(&format!("{LOOPBACK}\ntoken = {{ file = \"TOKEN\" }}"), playbooks).await;
    scene.edit("TOKEN", &scene.dir.path().join("edr-token").display().to_string());
    (scene, ann)
}

fn step(more: &str) -> String {
    format!(
        r#"
[[playbook]]
name = "block"
on = ["user.session.start"]

  [[playbook.step]]
  name = "block"
  action = "http.request"
    [playbook.step.with]
    service = "edr"
    method = "POST"
    path = "/blocks"
    json = {{ user = "{{{{ target.login }}}}", ref = "{{{{ event.uuid }}}}-block" }}
    expect = [201]
    {more}
"#
    )
}

const TELL: &str = r##"
  [[playbook.step]]
  name = "read"
  needs = ["block"]
  action = "http.request"
    [playbook.step.with]
    service = "edr"
    method = "GET"
    path = "/blocks/{{ steps.block.body.id }}"

  [[playbook.step]]
  name = "tell"
  after = ["block", "read"]
  when = 'steps.read.status == 200 && steps.read.body.state == "active"'
  action = "slack.message.post"
  with = { channel = "#security", text = "{{ steps.block.body.user }}: {{ steps.block.status }} <{{ steps.block.body.links.self }}>" }
"##;

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_feeds_the_steps_behind_it() {
    let (scene, ann) = with_token(&format!("{}{TELL}", step(""))).await;
    scene.org.push_event(events::sign_in(&ann, "HIGH"));
    let daemon = scene.daemon();
    let ledger = Ledger::of(&scene).await;
    let actions = ledger.at_rest(1).await;
    assert!(actions.iter().all(|action| action.state == "succeeded"), "{}\n{}", told(&actions), daemon.log());
    let [block] = &scene.org.blocks()[..] else { panic!("not one block: {:?}", scene.org.blocks()) };
    assert_eq!(block["user"], ann.login.as_str());
    let [message] = &scene.org.slack_messages()[..] else { panic!("not one message") };
    let link = block["links"]["self"].as_str().unwrap();
    assert_eq!(message.body["text"], format!("{}: 201 <{link}>", ann.login));
    let receipt = actions.iter().find(|action| action.step == "block").unwrap().receipt.clone().unwrap();
    assert_eq!((&receipt["answer"]["status"], &receipt["answer"]["body"]), (&201.into(), block));
    assert!(!format!("{actions:?}{}", daemon.log()).contains(THIRD_PARTY_TOKEN));
    assert!(daemon.stop().success());
}

const LOOK_UP: &str = "lookup_path = \"/blocks\"\n\
    lookup_query = { ref = \"{{ event.uuid }}-block\" }\n\
    found = { \"/items/0/ref\" = \"{{ event.uuid }}-block\" }\n\
    found_body = \"/items/0\"";

#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_a_look_up_is_done_once_whatever_is_lost() {
    for lost in [None, Some(Misbehaviour::DropAfter), Some(Misbehaviour::DropBefore)] {
        let (scene, ann) = with_token(&format!("{}{TELL}", step(LOOK_UP))).await;
        scene.org.push_event(events::sign_in(&ann, "HIGH"));
        match lost {
            // Killed between request and record.
            None => {
                let daemon = scene.daemon_with(&[(HALT_AT, Point::Answered.name())]);
                daemon.wait_for_log(&format!("halted at {}", Point::Answered.name()));
                daemon.kill();
                assert_eq!(scene.org.blocks().len(), 1);
            }
            Some(what) => scene.org.fault(Fault::new(Service::ThirdParty, what).method("POST")),
        }
        let daemon = scene.daemon();
        let ledger = Ledger::of(&scene).await;
        let actions = ledger.at_rest(1).await;
        let good = |state: &str| matches!(state, "succeeded" | "settled");
        assert!(actions.iter().all(|action| good(&action.state)), "{}\n{}", told(&actions), daemon.log());
        assert_eq!(scene.org.blocks().len(), 1, "{}", daemon.log());
        // What was found stands for what was made.
        let text = format!("{}: ", ann.login);
        let messages = scene.org.slack_messages();
        assert!(messages.len() == 1 && messages[0].body["text"].as_str().unwrap().starts_with(&text), "{messages:?}");
        assert!(daemon.stop().success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_a_header_lets_a_lost_request_be_sent_again_and_nothing_lets_nobody_guess() {
    for (more, end) in [("idempotency_header = \"Idempotency-Key\"", "succeeded"), ("", "needs_attention")] {
        let (scene, ann) = with_token(&step(more)).await;
        scene.org.fault(Fault::new(Service::ThirdParty, Misbehaviour::DropAfter).method("POST"));
        scene.org.push_event(events::sign_in(&ann, "HIGH"));
        let daemon = scene.daemon();
        let ledger = Ledger::of(&scene).await;
        let actions = ledger.at_rest(1).await;
        assert_eq!(actions[0].state, end, "{}\n{}", told(&actions), daemon.log());
        assert_eq!(scene.org.blocks().len(), 1, "{}", daemon.log());
        let sent = scene.org.effects_of("block.create");
        assert_eq!(sent.len(), if more.is_empty() { 1 } else { 2 });
        assert!(more.is_empty() || sent.iter().all(|effect| effect.key.as_deref() == Some(actions[0].key.as_str())));
        assert!(daemon.stop().success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_leads_to_a_private_address_is_not_connected_to() {
    let (scene, ann) = scene("", &step("")).await;
    let url = scene.org.third_party_url();
    // An address is found wrong before anything runs; a name can only be judged when it is asked for.
    let refused = scene.command(&["check"]);
    assert_eq!(refused.status.code(), Some(78));
    let words = String::from_utf8(refused.stderr).unwrap();
    assert!(words.contains("[http.edr] base_url: 127.0.0.1 is no public address"), "{words}");
    scene.edit(&url, &url.replace("127.0.0.1", "localhost"));
    scene.org.push_event(events::sign_in(&ann, "HIGH"));
    let daemon = scene.daemon();
    let ledger = Ledger::of(&scene).await;
    let action = ledger.wait_for("block", "retry").await;
    let why = action.error.unwrap();
    assert!(why.contains("localhost leads to ") && why.contains("which is no public address"), "{why}");
    assert_eq!(action.reason.as_deref(), Some("connect"));
    let asked = || scene.org.requests().into_iter().filter(|request| request.service == Service::ThirdParty).count();
    assert_eq!(asked(), 0);
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_not_followed() {
    let (scene, ann) = with_token(&step("")).await;
    let elsewhere = format!("{}/chat.postMessage?stolen", scene.org.slack_api_url());
    scene.org.fault(Fault::new(Service::ThirdParty, Misbehaviour::Redirect(elsewhere)).always());
    scene.org.push_event(events::sign_in(&ann, "HIGH"));
    let daemon = scene.daemon();
    let ledger = Ledger::of(&scene).await;
    let actions = ledger.at_rest(1).await;
    assert_eq!(actions[0].state, "failed", "{}", told(&actions));
    let why = actions[0].error.as_deref().unwrap();
    assert!(why.contains("it points to http://127.0.0.1:") && !why.contains("stolen"), "{why}");
    assert!(scene.org.requests().iter().all(|request| request.service != Service::Slack));
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secret_of_an_oauth_client_may_be_replaced_while_the_daemon_runs() {
    let (scene, ann) = scene("OAUTH", &step("")).await;
    let (file, url) = (scene.dir.path().join("edr-secret"), scene.org.third_party_url());
    let settings = format!(
        "{LOOPBACK}\nclient_id = \"{THIRD_PARTY_CLIENT_ID}\"\nclient_secret = {{ file = \"{}\" }}\n\
         token_url = \"{url}/oauth/token\"",
        file.display()
    );
    scene.edit("OAUTH", &settings);
    let daemon = scene.daemon();
    let blocks = async |wanted: usize| {
        scene.org.push_event(events::sign_in(&ann, "HIGH"));
        eventually(async || match scene.org.blocks().len() {
            count if count == wanted => Ok(()),
            count => Err(format!("{count} blocks: {}", daemon.log())),
        })
        .await;
    };
    blocks(1).await;
    scene.org.replace_secrets(|secrets| secrets.third_party_client_secret = "another-secret-2".to_owned());
    scene.secret("edr-secret", "another-secret-2");
    blocks(2).await;
    let ledger = Ledger::of(&scene).await;
    let actions = ledger.at_rest(2).await;
    assert!(
        actions.iter().all(|action| (action.state.as_str(), action.attempts) == ("succeeded", 1)),
        "{}",
        told(&actions)
    );
    let log = daemon.log();
    assert!(log.contains("the secret of [http.edr] was replaced (`client_secret`)"), "{log}");
    assert!(!log.contains(THIRD_PARTY_CLIENT_SECRET) && !log.contains("another-secret-2"), "{log}");
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_access_is_refused_for_whom_the_guard_protects() {
    let change = step("").replace("http.request", "http.access.change");
    let (scene, ann) = with_token(&change).await;
    let bob = scene.org.add_user(User::new("Bob", "Jones"));
    let protect = format!("[guard]\nprotected_users = [\"{}\"]\n[http.edr]", bob.login);
    scene.edit("[http.edr]", &protect);
    scene.org.push_events(vec![events::sign_in(&ann, "HIGH"), events::sign_in(&bob, "HIGH")]);
    let daemon = scene.daemon();
    let ledger = Ledger::of(&scene).await;
    let actions = ledger.at_rest(2).await;
    let of = |user: &User| actions.iter().find(|action| action.user.as_ref() == Some(&user.id)).unwrap();
    assert_eq!((of(&ann).state.as_str(), of(&bob).state.as_str()), ("succeeded", "refused"), "{}", told(&actions));
    let users: Vec<_> = scene.org.blocks().iter().map(|block| block["user"].clone()).collect();
    assert_eq!(users, [ann.login.as_str()]);
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_tells_whether_each_service_is_there_and_lets_us_in() {
    let (scene, _) = with_token(&step("")).await;
    let row = |scene: &Scene| {
        let output = scene.command(&["check", "--online", "--format", "json"]);
        let lines = String::from_utf8(output.stdout).unwrap();
        let mut rows = lines.lines().skip(1).map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let row = rows.find(|row| row["check"] == "http.edr").unwrap();
        (row["state"].as_str().unwrap().to_owned(), row["detail"].as_str().unwrap().to_owned())
    };
    assert_eq!(
        row(&scene),
        ("note".to_owned(), "127.0.0.1 answers; without probe_path the credentials are not tried".to_owned())
    );
    scene.edit(LOOPBACK, &format!("{LOOPBACK}\nprobe_path = \"/me\""));
    assert_eq!(row(&scene), ("ok".to_owned(), "127.0.0.1 answers, and lets us in (/me)".to_owned()));
    scene.org.replace_secrets(|secrets| secrets.third_party_token = "another".to_owned());
    let (state, detail) = row(&scene);
    assert!(state == "failed" && detail.contains("answered 401"), "{state}: {detail}");
    assert!(scene.org.effects().is_empty());
}
