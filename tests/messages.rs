//! Messages that know of each other: edited when there is more to say, and gathered in threads. And mails to people.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]

mod support;

use okta_responder::demo::org::{Fault, Hold, Misbehaviour, Service, SlackMessage, User, events};
use okta_responder::halt::HALT_AT;
use okta_responder::store::PersonChange;
use serde_json::json;
use support::ledger::{Ledger, told};
use support::{BOUND, Scene, eventually};

/// Short pauses that stay short.
const QUICK: &str = "[poll]\nstart_from = \"1h\"\n[dispatch]\nretry_initial = \"100ms\"\nretry_max = \"1s\"\n";

const UPDATED: &str = r##"
[[playbook]]
name = "risky"
on = ["user.session.start"]

  [[playbook.step]]
  name = "incident"
  action = "servicenow.incident.create"
  with = { short_description = "User risk HIGH: {{ target.login }}" }

  [[playbook.step]]
  name = "tell"
  after = ["incident"]
  update = true
  action = "slack.message.post"
    [playbook.step.with]
    channel = "#security"
    text = '''{{ target.login }} {% if steps.incident.number %}{{ steps.incident.number }}{% else %}has no incident yet{% endif %}'''
    blocks = [
      { type = "header", text = { type = "plain_text", text = "User risk HIGH" } },
      { type = "section", text = { type = "mrkdwn", text = "*{{ target.name }}*" } },
      { type = "section", text = { type = "mrkdwn", text = "{% if steps.incident.error %}No incident yet{% endif %}" } },
      { type = "actions", elements = [
        { type = "button", text = { type = "plain_text", text = "User" }, url = "{{ links.user }}" },
        { type = "button", text = { type = "plain_text", text = "Incident" }, url = "{{ steps.incident.url }}" },
      ] },
    ]
"##;

async fn scene(playbooks: &str) -> (Scene, User) {
    let scene = Scene::new("").await;
    let ann = scene.org.add_user(User { first: "<Ann>".to_owned(), ..User::new("Ann", "Miller") });
    scene.configure(QUICK, playbooks);
    (scene, ann)
}

/// ServiceNow takes no incident until the faults are cleared.
fn without_servicenow(scene: &Scene) {
    let down = Misbehaviour::status(503, "");
    scene.org.fault(Fault::new(Service::ServiceNow, down).method("POST").path("/table/").always());
}

#[track_caller]
fn one(messages: Vec<SlackMessage>) -> SlackMessage {
    let [message] = &messages[..] else { panic!("not one message: {messages:#?}") };
    message.clone()
}

fn buttons(message: &SlackMessage) -> usize {
    message.body.pointer("/blocks/2/elements").and_then(serde_json::Value::as_array).map_or(0, Vec::len)
}

fn check_edited(scene: &Scene, user: &User, edits: usize, log: &str) {
    let message = one(scene.org.slack_messages());
    let number = scene.org.incidents()[0]["number"].as_str().unwrap().to_owned();
    assert_eq!(message.text, format!("{} {number}", user.login), "{log}");
    assert_eq!(message.edited[0], format!("{} has no incident yet", user.login));
    assert_eq!((message.edited.len(), buttons(&message)), (edits, 2), "{log}");
    assert_eq!(scene.org.effects_of("slack.post").len(), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_goes_out_before_the_incident_is_there_and_is_edited_when_it_is() {
    let (scene, ann) = scene(UPDATED).await;
    without_servicenow(&scene);
    scene.org.push_event(events::sign_in(&ann, "HIGH"));
    let daemon = scene.daemon();
    let ledger = Ledger::of(&scene).await;
    ledger.wait_for("tell", "succeeded").await;
    let first = one(scene.org.slack_messages());
    assert_eq!(first.text, format!("{} has no incident yet", ann.login));
    let name = &first.body["blocks"][1]["text"];
    assert_eq!(name, &json!({"type": "mrkdwn", "text": "*&lt;Ann&gt; Miller*", "verbatim": true}));
    assert!(first.body["blocks"].as_array().unwrap().len() >= 3, "{first:?}");
    ledger.wait_until(|actions| actions.iter().any(|one| one.step == "tell#update" && one.state == "waiting")).await;
    scene.org.clear_faults();
    let actions = ledger.at_rest(1).await;
    check_edited(&scene, &ann, 1, &format!("{}\n{}", told(&actions), daemon.log()));
    let edit = ledger.step("tell#update").await;
    assert_eq!((edit.action.as_str(), edit.state.as_str()), ("slack.message.update", "succeeded"));
    assert!(daemon.stop().success());
    // Seen again, the message would have said it all; that is no difference in what is decided.
    let again = scene.command(&["simulate", "--from-inbox", "10"]);
    let again = String::from_utf8_lossy(&again.stdout).into_owned();
    assert!(!again.contains("GONE") && !again.contains("NEW") && again.contains("risky"), "{again}");
}

/// Runs the daemon until it halts at a point, and kills it there.
fn halt_and_kill(scene: &Scene, halt: &str) {
    let daemon = scene.daemon_with(&[(HALT_AT, halt)]);
    daemon.wait_for_log("halted at");
    daemon.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_a_message_and_its_edit_and_again_after_the_edit_it_posts_once() {
    let (scene, ann) = scene(UPDATED).await;
    without_servicenow(&scene);
    scene.org.push_event(events::sign_in(&ann, "HIGH"));
    let daemon = scene.daemon();
    Ledger::of(&scene).await.wait_for("tell", "succeeded").await;
    daemon.kill();
    scene.org.clear_faults();
    // The answers to the incident and to the edit; of the second nothing is stored.
    halt_and_kill(&scene, "answered:2");
    assert_eq!(one(scene.org.slack_messages()).edited.len(), 1);
    let daemon = scene.daemon();
    let ledger = Ledger::of(&scene).await;
    let actions = ledger.at_rest(1).await;
    let log = format!("{}\n{}", told(&actions), daemon.log());
    assert_eq!(ledger.step("tell#update").await.state, "succeeded", "{log}");
    check_edited(&scene, &ann, 2, &log);
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_edited_that_said_all_or_of_which_nobody_knows_whether_it_was_sent() {
    let (scene, ann) = scene(&UPDATED.replace("update = true", "update = true\nwait = \"30s\"")).await;
    scene.org.push_event(events::sign_in(&ann, "HIGH"));
    let daemon = scene.daemon();
    let ledger = Ledger::of(&scene).await;
    ledger.at_rest(1).await;
    let edit = ledger.step("tell#update").await;
    assert_eq!((edit.state.as_str(), edit.error.as_deref()), ("skipped", Some("the message says so already")));
    assert!(one(scene.org.slack_messages()).text.contains("INC"));

    scene.org.fault(Fault::new(Service::Slack, Misbehaviour::DropAfter).path("chat.postMessage"));
    scene.org.push_event(events::sign_in(&ann, "HIGH"));
    let actions = ledger.at_rest(2).await;
    let edit = actions.iter().rfind(|action| action.step == "tell#update").unwrap();
    let why = edit.error.as_deref().unwrap_or_default();
    assert!(edit.state == "skipped" && why.contains("whether it was sent"), "{}", told(&actions));
    assert!(scene.org.effects_of("slack.update").is_empty());
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_that_slack_refuses_fails_and_says_why() {
    let (scene, ann) = scene(UPDATED).await;
    without_servicenow(&scene);
    scene.org.push_event(events::sign_in(&ann, "HIGH"));
    let daemon = scene.daemon();
    let ledger = Ledger::of(&scene).await;
    ledger.wait_for("tell", "succeeded").await;
    scene.org.slack_delete(one(scene.org.slack_messages()).ts.as_deref().unwrap());
    scene.org.clear_faults();
    let edit = ledger.wait_for("tell#update", "failed").await;
    assert!(edit.error.as_deref().is_some_and(|why| why.contains("`message_not_found`; the message was deleted")));
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_does_not_wait_for_an_edit_as_long_as_an_outage_lasts() {
    let scene = Scene::new("").await;
    let ann = scene.org.add_user(User::new("Ann", "Miller"));
    scene.configure("[dispatch]\nretry_initial = \"100ms\"\nretry_max = \"1s\"\ngive_up_after = \"20s\"\n", UPDATED);
    without_servicenow(&scene);
    scene.org.push_event(events::sign_in(&ann, "HIGH"));
    let done = scene.json(&["backfill", "--since", "1h", "--execute", "--format", "json"]);
    assert_eq!(done["state"], "done");
    let ledger = Ledger::of(&scene).await;
    let states = [ledger.step("incident").await.state, ledger.step("tell#update").await.state];
    assert_eq!(states, ["retry", "waiting"]);
    assert_eq!(one(scene.org.slack_messages()).text, format!("{} has no incident yet", ann.login));
}

const THREADS: &str = r##"
[[playbook]]
name = "signs-in"
on = ["user.session.start"]

  [[playbook.step]]
  name = "tell"
  action = "slack.message.post"
  with = { channel = "#security", text = "{{ target.login }}", thread = "user_day", thread_of = "{{ target.id }}" }
"##;

/// Has the user sign in once more and returns what is told of it.
async fn next(scene: &Scene, ledger: &Ledger, user: &User) -> SlackMessage {
    let before = scene.org.slack_messages().len();
    scene.org.push_event(events::sign_in(user, "HIGH"));
    eventually(async || match &scene.org.slack_messages()[before..] {
        [message] => Ok(message.clone()),
        other => Err(format!("{} messages; {}", other.len(), told(&ledger.actions().await))),
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_about_a_user_stands_in_one_thread_also_after_its_beginning_was_deleted() {
    let (scene, ann) = scene(THREADS).await;
    let bob = scene.org.add_user(User::new("Bob", "Jones"));
    let mut daemon = scene.daemon();
    let ledger = Ledger::of(&scene).await;
    let first = next(&scene, &ledger, &ann).await;
    assert_eq!(first.thread, None);
    assert_eq!(next(&scene, &ledger, &ann).await.thread, first.ts);
    assert_eq!(next(&scene, &ledger, &bob).await.thread, None, "another user, another thread");
    ledger.at_rest(3).await;
    assert!(daemon.stop().success());
    daemon = scene.daemon();
    assert_eq!(next(&scene, &ledger, &ann).await.thread, first.ts, "a restart forgets no thread");

    scene.org.slack_delete(first.ts.as_deref().unwrap());
    let anew = next(&scene, &ledger, &ann).await;
    assert_eq!(anew.thread, None);
    assert_eq!(next(&scene, &ledger, &ann).await.thread, anew.ts);
    let actions = ledger.at_rest(6).await;
    assert!(actions.iter().all(|action| action.state == "succeeded"), "{}", told(&actions));
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_messages_at_once_one_opens_the_thread_and_none_waits_for_what_does_not_leave() {
    let held =
        THREADS.replace("name = \"tell\"", "name = \"ask\"\n  approval = true").replace("signs-in", "asks-first");
    let (scene, ann) = scene(&format!("{held}{THREADS}")).await;
    let hold = Hold::new();
    scene.org.fault(Fault::new(Service::Slack, Misbehaviour::Hold(hold.clone())).path("chat.postMessage"));
    scene.org.push_events(vec![events::sign_in(&ann, "HIGH"), events::sign_in(&ann, "HIGH")]);
    let daemon = scene.daemon();
    let ledger = Ledger::of(&scene).await;
    hold.held(BOUND).await.unwrap();
    let count = |state: &'static str| {
        move |actions: &[okta_responder::store::ActionRow]| actions.iter().filter(|one| one.state == state).count()
    };
    let (ready, started) = (count("ready"), count("started"));
    ledger.wait_until(|actions| (ready(actions), started(actions)) == (1, 1)).await;
    hold.release();
    let done = count("succeeded");
    ledger.wait_until(|actions| done(actions) == 2).await;
    let messages = scene.org.slack_messages();
    assert_eq!((messages.len(), &messages[1].thread), (2, &messages[0].ts), "{}", daemon.log());

    // What a person allows later answers the thread that was opened without it.
    let asked = ledger.actions().await.into_iter().find(|action| action.state == "awaiting_approval").unwrap();
    let approve = PersonChange::Approve;
    let id = okta_responder::model::ids::ActionId(asked.id);
    ledger.store.change_by_person(id, approve, scene.org.now()).await.unwrap();
    ledger.wait_until(|actions| done(actions) == 3).await;
    assert_eq!(scene.org.slack_messages()[2].thread, messages[0].ts);
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_not_asked_for_what_it_cannot_do() {
    let (scene, _) = scene(&format!("{UPDATED}{THREADS}")).await;
    let text = std::fs::read_to_string(scene.config()).unwrap();
    let token = text.lines().find(|line| line.contains("slack-token")).unwrap();
    scene.edit(token, "webhook_url = { env = \"HOOK\" }");
    let output = scene.command(&["check"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    for words in [
        "step \"tell\", update: [slack] posts through a webhook, and such a message cannot be edited",
        "with.thread: [slack] posts through a webhook, and such a message cannot open a thread",
    ] {
        assert!(said.contains(words), "{said}");
    }
}

const MAILS: &str = r#"
[[playbook]]
name = "mails"
on = ["user.session.start"]

  [[playbook.step]]
  name = "all"
  action = "email.send"
  with = { to = ["user", "manager"], cc = "admins", subject = "s", text = "{{ target.login }}" }

  [[playbook.step]]
  name = "manager"
  action = "email.send"
  with = { to = "manager", subject = "s", text = "{{ target.login }}" }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_goes_to_the_user_his_manager_and_the_admins_and_says_who_has_no_address() {
    let (scene, ann) = scene(MAILS).await;
    scene.edit("tls = \"none\"", "tls = \"none\"\nadmins = [\"Root <root@example.com>\"]");
    let boss = scene.org.add_user(User::new("Bo", "Boss"));
    scene.org.link_manager(&ann.id, &boss.id);
    scene.org.push_event(events::sign_in(&ann, "HIGH"));
    let daemon = scene.daemon();
    let ledger = Ledger::of(&scene).await;
    ledger.at_rest(1).await;
    let mails = scene.org.mails();
    let all = mails.iter().find(|mail| mail.to.len() == 3).unwrap();
    assert_eq!(all.to, [ann.email.as_str(), "bo.boss@example.com", "root@example.com"]);
    assert_eq!(mails.len(), 2);

    scene.org.push_event(events::sign_in(&boss, "HIGH"));
    let actions = ledger.at_rest(2).await;
    let alone = actions.iter().rfind(|action| action.step == "manager").unwrap();
    let why = alone.error.as_deref().unwrap_or_default();
    assert!(alone.state == "failed" && why.contains("has no mail address in Okta"), "{}", told(&actions));
    assert_eq!(scene.org.mails().last().unwrap().to, ["bo.boss@example.com", "root@example.com"]);
    assert!(daemon.stop().success());
}

#[test]
fn the_admins_are_somebody() {
    // Whoever writes to them is told by `check` when nobody is.
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.toml");
    let text = format!(
        "[okta]\norg_url = \"https://example.okta.com\"\ntoken = {{ env = \"T\" }}\n[state]\npath = \"{}/state.db\"\n\
         [email]\nhost = \"smtp.example.com\"\nfrom = \"a@example.com\"\n{}",
        dir.path().display(),
        MAILS
    );
    std::fs::write(&config, text).unwrap();
    let mut check = std::process::Command::new(env!("CARGO_BIN_EXE_okta-responder"));
    let output = check.args(["--config", config.to_str().unwrap(), "check"]).env("T", "t").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("[email] does not say who they are"), "{said}");
}
