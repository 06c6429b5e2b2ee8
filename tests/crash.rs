//! Killed at every point between and inside its transactions, the daemon loses nothing and does nothing twice.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use okta_responder::demo::org::{Fault, Hold, Misbehaviour, OrgOptions, Service, User, events};
use okta_responder::halt::{HALT_AT, Point};
use okta_responder::store::ActionRow;
use support::every::{Every, FAST, STEPS};
use support::ledger::{Ledger, told};
use support::{BOUND, Scene, eventually, live};

const PLAYBOOKS: &str = r##"
[[playbook]]
name = "risk"
on = ["user.risk.detect"]

  [[playbook.step]]
  name = "quarantine"
  when = 'risk.level == "HIGH"'
  action = "okta.group.add_user"
  with = { group = "High Risk Users" }

  [[playbook.step]]
  name = "sessions"
  when = 'risk.level == "HIGH"'
  action = "okta.user.clear_sessions"

  [[playbook.step]]
  name = "release"
  when = 'risk.previous_level == "HIGH" && risk.level == "LOW"'
  action = "okta.group.remove_user"
  with = { group = "High Risk Users" }

  [[playbook.step]]
  name = "incident"
  when = 'risk.level == "HIGH"'
  action = "servicenow.incident.create"
  with = { short_description = "User risk HIGH: {{ user.login }}" }

  [[playbook.step]]
  name = "mail"
  when = 'risk.level == "HIGH"'
  action = "email.send"
  with = { to = "security@example.com", subject = "{{ user.login }}", text = "{{ links.syslog }}" }

  [[playbook.step]]
  name = "tell"
  after = ["quarantine", "sessions", "release", "incident", "mail"]
  action = "slack.message.post"
  with = { channel = "#security", text = "{{ target.login }} {{ steps.incident.number }}" }

[[playbook]]
name = "app"
on = ["application.user_membership.add"]

  [[playbook.step]]
  name = "take-back"
  when = 'user_risk == "HIGH"'
  action = "okta.app.unassign_user"

  [[playbook.step]]
  name = "tell-app"
  after = ["take-back"]
  action = "slack.message.post"
  with = { channel = "#security", text = "{{ app.name }} {{ steps.take_back.state }}" }
"##;

/// One user goes into quarantine, one out of it, and one who is in it is given an app.
struct Incident {
    scene: Scene,
    group: String,
    app: String,
    ann: User,
    bob: User,
    cid: User,
}

impl Incident {
    async fn new() -> Self {
        let scene = Scene::with(OrgOptions::default(), FAST, PLAYBOOKS).await;
        let org = &scene.org;
        let group = org.add_group("High Risk Users");
        let app = org.add_app("Payroll");
        let [ann, bob, cid] =
            [("Ann", "Miller"), ("Bob", "Jones"), ("Cid", "Gomez")].map(|(a, b)| org.add_user(User::new(a, b)));
        org.add_member(&group, &bob.id);
        org.add_member(&group, &cid.id);
        org.assign(&app, &cid.id);
        org.push_events(vec![
            events::risk_detected(&ann, "LOW", "HIGH"),
            events::risk_detected(&bob, "HIGH", "LOW"),
            events::app_assigned(&org.app(&app).unwrap(), &cid),
        ]);
        Self { scene, group, app, ann, bob, cid }
    }

    /// Runs the daemon until it halts and kills it, for each of the points; then lets it end its work.
    async fn survive(&self, halts: &[&str]) {
        for halt in halts {
            halt_and_kill(&self.scene, halt).await;
        }
        let daemon = self.scene.daemon();
        let ledger = Ledger::of(&self.scene).await;
        // The fourth one is Okta's own: it lowers the risk of a user whose sessions are cleared.
        let actions = ledger.at_rest(4).await;
        let log = daemon.log();

        let (group, app) = (&self.group, &self.app);
        assert_eq!(self.changes("group.add"), [format!("{group}/{}", self.ann.id)], "{log}");
        assert_eq!(self.changes("group.remove"), [format!("{group}/{}", self.bob.id)], "{log}");
        assert_eq!(self.changes("app.unassign"), [format!("{app}/{}", self.cid.id)], "{log}");
        let cleared = self.scene.org.effects_of("sessions.clear");
        assert!((1..=1 + halts.len()).contains(&cleared.len()), "{} times: {log}", cleared.len());
        assert!(cleared.iter().all(|effect| effect.target == self.ann.id));

        let mut called_for = Vec::new();
        for action in actions.iter().filter(|action| action.state != "skipped") {
            let user =
                [&self.ann, &self.bob, &self.cid].into_iter().find(|user| action.user.as_ref() == Some(&user.id));
            called_for.push((user.unwrap().first.as_str(), action.step.as_str()));
            self.check_records(action, &log);
        }
        called_for.sort_unstable();
        let expected = [
            ("Ann", "incident"),
            ("Ann", "mail"),
            ("Ann", "quarantine"),
            ("Ann", "sessions"),
            ("Ann", "tell"),
            ("Bob", "release"),
            ("Bob", "tell"),
            ("Cid", "take-back"),
            ("Cid", "tell-app"),
        ];
        assert_eq!(called_for, expected, "{}", told(&actions));
        assert!(
            actions.iter().all(|action| action.state != "skipped" || action.reason.as_deref() == Some("condition"))
        );
        let messages = actions.iter().filter(|action| is_message(action) && action.state != "skipped").count();
        let sent = self.scene.org.slack_messages().len() + self.scene.org.mails().len();
        assert!(sent <= messages, "nothing was sent that no action stands for");
        assert_eq!(self.scene.org.incidents().len(), 1);

        self.check_inbox(&ledger).await;
        self.check_that_it_goes_on(&ledger).await;
        assert!(daemon.stop().success());
    }

    /// Targets of the changes of a kind that changed something.
    fn changes(&self, kind: &str) -> Vec<String> {
        let effects = self.scene.org.effects_of(kind);
        effects.into_iter().filter(|effect| effect.changed).map(|effect| effect.target).collect()
    }

    /// What the services have under the action's key: once, or never and then in doubt for all to see.
    fn check_records(&self, action: &ActionRow, log: &str) {
        assert!(matches!(action.state.as_str(), "succeeded" | "settled"), "{} is {}: {log}", action.step, action.state);
        if action.action.starts_with("okta.") {
            return;
        }
        let org = self.scene.org.effects();
        let count =
            org.iter().filter(|effect| effect.key.as_ref().is_some_and(|key| key.contains(&action.key))).count();
        let in_doubt = action.reason.as_deref() == Some("in_doubt");
        let lawful = count == 1 || (count == 0 && in_doubt && is_message(action));
        assert!(lawful, "{} of {:?} {count} times, {}: {log}", action.step, action.user, action.state);
    }

    /// Every event is in the inbox once and decided, and the cursor stands behind what was stored.
    async fn check_inbox(&self, ledger: &Ledger) {
        let events = ledger.events().await;
        let mut types: BTreeMap<(String, String), usize> = BTreeMap::new();
        for event in &events {
            *types.entry((event.event_type.clone(), event.state.clone())).or_default() += 1;
        }
        let type_and_state = |kind: &str, state: &str| (kind.to_owned(), state.to_owned());
        let expected = [
            (type_and_state("application.user_membership.add", "decided"), 1),
            (type_and_state("user.risk.detect", "decided"), 2),
            (type_and_state("user.risk.detect", "skipped"), 1),
        ];
        assert_eq!(types, BTreeMap::from(expected));
        let echo = events.iter().find(|event| event.state == "skipped").unwrap();
        assert_eq!((echo.reason.as_deref(), &echo.user), (Some("echo"), &Some(self.ann.id.clone())));
        let stream = live(&ledger.store).await;
        assert_eq!((stream.stored, stream.duplicates, stream.restarts), (4, 0, 0));
        assert!(stream.next_url.is_some());
    }

    async fn check_that_it_goes_on(&self, ledger: &Ledger) {
        let dan = self.scene.org.add_user(User::new("Dan", "Novak"));
        self.scene.org.push_event(events::risk_detected(&dan, "LOW", "HIGH"));
        ledger.at_rest(6).await;
        assert!(self.scene.org.is_member(&self.group, &dan.id));
        assert!(self.scene.org.is_member(&self.group, &self.ann.id), "the echo released nobody");
    }
}

fn is_message(action: &ActionRow) -> bool {
    matches!(action.action.as_str(), "slack.message.post" | "email.send")
}

/// Runs the daemon until it halts at a point, and kills it there.
async fn halt_and_kill(scene: &Scene, halt: &str) {
    let daemon = scene.daemon_with(&[(HALT_AT, halt)]);
    let said = format!("halted at {}", halt.split(':').next().unwrap());
    eventually(async || {
        let log = daemon.log();
        if log.contains(&said) { Ok(()) } else { Err(format!("no `{said}`: {log}")) }
    })
    .await;
    daemon.kill();
}

macro_rules! killed_at {
    ($($name:ident: $point:ident,)*) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            let incident = Incident::new().await;
            if Point::$point == Point::ReadBack {
                // Without a lost answer nothing has to be read back.
                let lost = Fault::new(Service::Okta, Misbehaviour::DropAfter).method("PUT").path("/groups/");
                incident.scene.org.fault(lost);
            }
            incident.survive(&[Point::$point.name()]).await;
        })*

        #[test]
        fn the_daemon_is_killed_at_every_point_there_is() {
            assert_eq!([$(Point::$point,)*], Point::ALL);
        }
    };
}

killed_at! {
    killed_with_a_page_in_hand: PageRead,
    killed_while_a_page_is_written: InsideT1,
    killed_when_a_page_is_stored: PageStored,
    killed_with_a_decision_in_mind: DecisionMade,
    killed_while_a_decision_is_written: InsideT2,
    killed_when_a_decision_is_stored: DecisionStored,
    killed_when_an_action_is_prepared: Prepared,
    killed_while_a_claim_is_written: InsideT3,
    killed_before_a_request_leaves: Claimed,
    killed_with_an_answer_in_hand: Answered,
    killed_while_an_outcome_is_written: InsideT4,
    killed_when_an_outcome_is_stored: OutcomeStored,
    killed_after_reading_back: ReadBack,
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_again_while_it_settles_what_the_first_kill_left_open() {
    Incident::new().await.survive(&["claimed", "read_back"]).await;
    Incident::new().await.survive(&["answered:2", "inside_t4"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_over_and_over_it_still_does_everything_once() {
    let halts = ["page_stored", "decision_stored", "inside_t3", "claimed", "read_back:2", "outcome_stored"];
    Incident::new().await.survive(&halts).await;
}

/// Kills the daemon around the request of a single action, and looks at what it makes of it afterwards.
async fn check(step: &str, point: Point, in_doubt: &str, effects: usize, state: &str) {
    let every = Every::new(&[step], in_doubt).await;
    every.push();
    halt_and_kill(&every.scene, point.name()).await;
    let sent = usize::from(point != Point::Claimed);
    assert_eq!(every.effects(step).len(), sent, "{step} before the restart");
    let daemon = every.scene.daemon();
    let ledger = Ledger::of(&every.scene).await;
    let action = &ledger.at_rest(1).await[0];
    let got = (every.effects(step).len(), action.state.as_str());
    assert_eq!(got, (effects, state), "{step} killed at {}, {in_doubt}: {:?}", point.name(), action.error);
    if state == "settled" && matches!(step, "slack" | "mail") {
        assert_eq!(action.reason.as_deref(), Some("in_doubt"), "the doubt is shown");
        assert_eq!(ledger.store.status(every.scene.org.now()).await.unwrap().in_doubt_last_day, 1);
    }
    let attempts = ledger.store.list_attempts(action.id).await.unwrap();
    assert_eq!(attempts[0].reason.as_deref(), Some("interrupted"), "{step}");
    assert!(daemon.stop().success());
}

/// Half the time for which the daemon waits for an answer, so that the service is still at work when all is lost.
const SLOWLY: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn what_the_service_is_still_at_work_on_is_waited_for_and_not_made_twice() {
    for killed in [false, true] {
        let every = Every::new(&["incident"], "").await;
        every.scene.org.fault(every.fault("incident", Misbehaviour::DropThenProcess(SLOWLY)));
        every.push();
        if killed {
            halt_and_kill(&every.scene, Point::Answered.name()).await;
        }
        let daemon = every.scene.daemon();
        let ledger = Ledger::of(&every.scene).await;
        let action = &ledger.at_rest(1).await[0];
        let got = (every.effects("incident").len(), action.state.as_str(), action.reason.as_deref());
        assert_eq!(got, (1, "settled", Some("found_done")), "killed: {killed}\n{}", daemon.log());
        assert!(daemon.stop().success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_any_kind_that_had_not_left_is_sent_once_or_shown_in_doubt() {
    for (step, _) in STEPS {
        match step {
            "slack" | "mail" => check(step, Point::Claimed, "", 0, "settled").await,
            step => check(step, Point::Claimed, "", 1, "succeeded").await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_any_kind_that_had_its_effect_is_found_done() {
    for (step, _) in STEPS {
        match step {
            // Sessions cannot be read back, and ending them twice is the same as once.
            "sessions" => check(step, Point::Answered, "", 2, "succeeded").await,
            step => check(step, Point::InsideT4, "", 1, "settled").await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_in_doubt_after_a_crash_is_sent_again_or_asked_about_as_its_step_says() {
    check("slack", Point::Claimed, "in_doubt = \"resend\"", 1, "succeeded").await;
    check("slack", Point::Answered, "in_doubt = \"resend\"", 2, "succeeded").await;
    check("mail", Point::Claimed, "in_doubt = \"ask\"", 0, "needs_attention").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn told_to_stop_while_it_reloads_it_stops() {
    let every = Every::new(&["slack"], "").await;
    let answer = Hold::new();
    every.scene.org.fault(every.fault("slack", Misbehaviour::Hold(answer.clone())));
    every.push();
    let mut daemon = every.scene.daemon();
    answer.held(BOUND).await.unwrap();
    daemon.signal("HUP");
    daemon.wait_for_log("waiting for requests under way");
    daemon.signal("TERM");
    assert!(daemon.wait().success(), "{}", daemon.log());
}
