//! The flows of the shipped playbooks, end to end, and what keeps them from doing harm.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]

mod support;

use std::time::Duration;

use jiff::SignedDuration;
use okta_responder::demo::org::{Fault, Misbehaviour, OrgOptions, Service, SlackMessage, User, events};
use okta_responder::model::ids::ActionId;
use okta_responder::store::PersonChange;
use serde_json::Value;
use support::every::FAST;
use support::ledger::Ledger;
use support::{Daemon, Scene};

/// The shipped playbooks, in an org that has what they name.
struct Shipped {
    scene: Scene,
    high: String,
    medium: String,
    payroll: String,
    source: String,
}

impl Shipped {
    async fn new() -> Self {
        Self::with(FAST).await
    }

    async fn with(settings: &str) -> Self {
        let scene = Scene::with(OrgOptions::default(), "", "").await;
        let (high, medium) = (scene.org.add_group("High Risk Users"), scene.org.add_group("Medium Risk Users"));
        let (payroll, source) = (scene.org.add_app("Payroll"), scene.org.add_app("Source"));
        scene.org.add_user(User::new("Security", "Lead"));
        let example = include_str!("../config.example.toml");
        let playbooks = &example[example.find("\n[[playbook]]").unwrap()..];
        scene.configure(settings, playbooks);
        scene.edit("0oa1payrollEXAMPLE01", &payroll);
        scene.edit("0oa1sourceEXAMPLE003", &source);
        Self { scene, high, medium, payroll, source }
    }

    fn user(&self, first: &str) -> User {
        self.scene.org.add_user(User::new(first, "Miller"))
    }

    /// A user who is in a group.
    fn user_in(&self, group: &str, first: &str) -> User {
        let user = self.user(first);
        self.scene.org.add_member(group, &user.id);
        user
    }

    fn assigned(&self, app: &str, user: &User) -> Value {
        events::app_assigned(&self.scene.org.app(app).unwrap(), user)
    }

    /// The daemon after it has dealt with that many events.
    async fn run(&self, events: usize) -> (Daemon, Ledger) {
        let daemon = self.scene.daemon();
        let ledger = Ledger::of(&self.scene).await;
        ledger.at_rest(events).await;
        (daemon, ledger)
    }

    /// The one Slack message about a user.
    fn message(&self, user: &User) -> SlackMessage {
        let mut messages = self.scene.org.slack_messages();
        messages.retain(|message| message.text.contains(&user.login));
        assert_eq!(messages.len(), 1, "messages about {}: {messages:?}", user.login);
        messages.remove(0)
    }

    fn incident(&self, user: &User) -> Option<Value> {
        let mut incidents = self.scene.org.incidents();
        incidents.retain(|incident| incident["short_description"].as_str().unwrap().contains(&user.login));
        assert!(incidents.len() <= 1, "{incidents:?}");
        incidents.pop()
    }
}

fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

/// A change of risk, the group before and after it, and what is told of the way between.
struct Change<'a> {
    from: &'static str,
    to: &'static str,
    before: Option<&'a str>,
    after: Option<&'a str>,
    words: &'static [&'static str],
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_of_risk_ends_in_the_right_groups_and_is_told() {
    let shipped = Shipped::new().await;
    let (high, medium) = (shipped.high.as_str(), shipped.medium.as_str());
    let case = |from, to, before, after, words| Change { from, to, before, after, words };
    let cases: [Change<'_>; 8] = [
        case("LOW", "HIGH", None, Some(high), &["Into quarantine: succeeded"]),
        case("NONE", "HIGH", None, Some(high), &["Into quarantine: succeeded"]),
        case("LOW", "MEDIUM", None, Some(medium), &["Under watch: succeeded"]),
        case(
            "MEDIUM",
            "HIGH",
            Some(medium),
            Some(high),
            &["Into quarantine: succeeded", "No longer under watch: succeeded"],
        ),
        case("HIGH", "MEDIUM", Some(high), Some(medium), &["Out of quarantine: succeeded", "Under watch: succeeded"]),
        case("HIGH", "LOW", Some(high), None, &["Out of quarantine: succeeded"]),
        case("MEDIUM", "LOW", Some(medium), None, &["No longer under watch: succeeded"]),
        case("LOW", "LOW", Some(high), Some(high), &[]),
    ];
    let users: Vec<User> = (0..cases.len()).map(|number| shipped.user(&format!("User{number}"))).collect();
    for (Change { before, .. }, user) in cases.iter().zip(&users) {
        if let Some(group) = before {
            shipped.scene.org.add_member(group, &user.id);
        }
    }
    let told = cases.iter().zip(&users).map(|(case, user)| events::risk_detected(user, case.from, case.to)).collect();
    shipped.scene.org.push_events(told);
    let (daemon, _) = shipped.run(cases.len()).await;
    for (Change { from, to, after, words, .. }, user) in cases.iter().zip(&users) {
        let told = shipped.message(user).text;
        for group in [high, medium] {
            let is = shipped.scene.org.is_member(group, &user.id);
            assert_eq!(is, *after == Some(group), "{from} to {to}: {told}");
        }
        let shown = if *from == "NONE" { "UNKNOWN" } else { from };
        has(&told, &[&format!("*User risk {to}* (was {shown})"), "/report/system_log_2?search=", "|System Log>"]);
        has(&told, words);
        assert_eq!(told.matches(": succeeded").count(), words.len(), "nothing else is told: {told}");
        let is_high = *to == "HIGH";
        assert_eq!((told.contains("Incident: <http"), shipped.incident(user).is_some()), (is_high, is_high), "{told}");
    }
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ticket_and_the_message_lead_to_each_other() {
    let shipped = Shipped::new().await;
    let ann = shipped.user("Ann");
    shipped.scene.org.push_event(events::risk_detected(&ann, "LOW", "HIGH"));
    let (_daemon, _) = shipped.run(1).await;
    let incident = shipped.incident(&ann).unwrap();
    let (number, sys_id) = (incident["number"].as_str().unwrap(), incident["sys_id"].as_str().unwrap());
    has(&shipped.message(&ann).text, &[&format!("|{number}>"), sys_id]);
    assert_eq!((incident["urgency"].as_str(), incident["impact"].as_str()), (Some("1"), Some("2")));
    let description = incident["description"].as_str().unwrap();
    has(
        description,
        &[&ann.id, "Risk: LOW to HIGH", "Okta Threat Intelligence", "/admin/user/profile/view/", "system_log_2"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_manager_is_told_whether_the_profile_or_a_linked_object_names_him() {
    let shipped = Shipped::new().await;
    let org = &shipped.scene.org;
    let boss = org.add_user(User::new("Grace", "Hopper"));
    let managed = |first: &str, id: Option<&str>| {
        org.add_user(User { manager_id: id.map(str::to_owned), ..User::new(first, "Miller") })
    };
    let by_id = managed("Ann", Some(&boss.id));
    let by_login = managed("Bob", Some(&boss.login));
    let by_link = managed("Cid", None);
    let by_link_although = managed("Dan", Some("4711"));
    let by_nobody = managed("Eve", None);
    org.link_manager(&by_link.id, &boss.id);
    org.link_manager(&by_link_although.id, &boss.id);
    let users = [&by_id, &by_login, &by_link, &by_link_although, &by_nobody];
    org.push_events(users.iter().map(|user| events::risk_detected(user, "LOW", "HIGH")).collect());
    let (_daemon, ledger) = shipped.run(users.len()).await;
    let mails = org.mails();
    assert_eq!(mails.len(), 4);
    for user in &users[..4] {
        let mail = mails.iter().find(|mail| mail.data.contains(&user.login)).unwrap();
        assert_eq!(mail.to, std::slice::from_ref(&boss.email));
        has(&mail.header("Subject").unwrap(), &[&user.display_name()]);
        has(&mail.data, &["Hello Grace"]);
    }
    let actions = ledger.actions().await;
    let untold =
        actions.iter().find(|action| action.step == "tell-manager" && action.user == Some(by_nobody.id.clone()));
    assert_eq!(untold.map(|action| action.state.as_str()), Some("skipped"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_who_cannot_be_asked_for_delays_nothing_else() {
    let shipped = Shipped::new().await;
    let ann = shipped.user("Ann");
    let away = Fault::new(Service::Okta, Misbehaviour::status(503, "")).path("/linkedObjects/").always();
    shipped.scene.org.fault(away);
    shipped.scene.org.push_event(events::risk_detected(&ann, "LOW", "HIGH"));
    let daemon = shipped.scene.daemon();
    let ledger = Ledger::of(&shipped.scene).await;
    ledger.wait_for("tell-security", "succeeded").await;
    assert_eq!(ledger.step("tell-manager").await.state, "waiting");
    assert!(shipped.scene.org.is_member(&shipped.high, &ann.id));
    shipped.scene.org.clear_faults();
    ledger.at_rest(1).await;
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_ticket_the_message_leads_to_the_user_and_is_not_held_up() {
    let shipped = Shipped::new().await;
    shipped.scene.edit("wait = \"30s\"", "wait = \"1s\"");
    let (ann, org) = (shipped.user("Ann"), &shipped.scene.org);
    let away = Fault::new(Service::ServiceNow, Misbehaviour::status(503, "")).always();
    org.fault(away);
    org.push_event(events::risk_detected(&ann, "LOW", "HIGH"));
    let daemon = shipped.scene.daemon();
    let ledger = Ledger::of(&shipped.scene).await;
    ledger.wait_for("tell-security", "succeeded").await;
    assert_eq!(ledger.step("incident").await.state, "retry");
    has(&shipped.message(&ann).text, &["No incident yet (retry", "|investigate the user>", &ann.id, "|System Log>"]);
    org.clear_faults();
    ledger.wait_for("incident", "succeeded").await;
    ledger.wait_for("tell-security#update", "succeeded").await;
    assert_eq!((org.incidents().len(), org.slack_messages().len()), (1, 1), "late, but there, and nobody told twice");
    let edited = shipped.message(&ann);
    has(&edited.text, &["Incident: <http", "|INC0010001>", "Into quarantine: succeeded"]);
    assert!(edited.edited.len() == 1 && !edited.text.contains("No incident yet"), "{edited:?}");

    org.fault(Fault::new(Service::ServiceNow, Misbehaviour::status(403, "")).method("POST").always());
    let bob = shipped.user("Bob");
    org.push_event(events::risk_detected(&bob, "LOW", "HIGH"));
    ledger.at_rest(2).await;
    has(&shipped.message(&bob).text, &["No incident yet (failed", "answered 403", "|investigate the user>"]);
    assert!(shipped.scene.org.is_member(&shipped.high, &bob.id));
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_is_taken_back_from_high_told_for_medium_and_left_to_low() {
    let shipped = Shipped::new().await;
    let org = &shipped.scene.org;
    let low = shipped.user("Low");
    let medium = shipped.user_in(&shipped.medium, "Medium");
    let high = shipped.user_in(&shipped.high, "High");
    let by_group = shipped.user_in(&shipped.high, "Group");
    for user in [&low, &medium, &high] {
        org.assign(&shipped.payroll, &user.id);
    }
    let finance = org.add_group("Finance");
    org.add_member(&finance, &by_group.id);
    org.assign_group(&shipped.payroll, &finance);
    let other = org.add_app("Canteen");
    org.assign(&other, &high.id);
    let mut told: Vec<Value> =
        [&low, &medium, &high, &by_group].iter().map(|user| shipped.assigned(&shipped.payroll, user)).collect();
    told.push(shipped.assigned(&other, &high));
    org.push_events(told);
    let (daemon, ledger) = shipped.run(5).await;
    let has_app = [&low, &medium, &high, &by_group].map(|user| org.is_assigned(&shipped.payroll, &user.id));
    assert_eq!(has_app, [true, true, false, true]);
    assert!(org.is_assigned(&other, &high.id), "an app that no playbook names");
    has(&shipped.message(&medium).text, &["User of MEDIUM risk was given Payroll", &medium.id]);
    has(&shipped.message(&high).text, &["*High-risk user was given Payroll*", "The assignment was taken back."]);
    has(
        &shipped.message(&by_group).text,
        &["The assignment is *not* taken back (failed", "a group grants it", "Finance", "|see to it>"],
    );
    assert_eq!(org.slack_messages().len(), 3);
    let failed: Vec<_> = ledger.actions().await.into_iter().filter(|action| action.state == "failed").collect();
    assert_eq!(failed.len(), 1);
    assert_eq!((failed[0].user.as_ref(), failed[0].reason.as_deref()), (Some(&by_group.id), Some("granted_by_group")));
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_managers_decide_on_is_reviewed_for_high_only_and_what_becomes_of_it_is_told() {
    let shipped = Shipped::new().await;
    let org = &shipped.scene.org;
    let boss = org.add_user(User::new("Grace", "Hopper"));
    let high = org.add_user(User { manager_id: Some(boss.id.clone()), ..User::new("High", "Miller") });
    org.add_member(&shipped.high, &high.id);
    let medium = shipped.user_in(&shipped.medium, "Medium");
    for user in [&high, &medium] {
        org.assign(&shipped.source, &user.id);
    }
    org.push_events([&high, &medium].map(|user| shipped.assigned(&shipped.source, user)).to_vec());
    let (_daemon, ledger) = shipped.run(2).await;
    let [review] = &org.access_reviews()[..] else { panic!("{:?}", org.access_reviews()) };
    assert_eq!((&review.user, review.reviewers.as_slice()), (&high.id, std::slice::from_ref(&boss.id)));
    assert!(review.name.starts_with(&format!("{} was given Source at high risk [", high.login)), "{}", review.name);
    has(&shipped.message(&high).text, &["*High-risk user was given Source*", "|under review>", &boss.login]);
    assert!(org.is_assigned(&shipped.source, &high.id), "the manager decides");
    assert!(org.decide_review(&review.id, false));
    ledger.at_rest(4).await;
    assert!(!org.is_assigned(&shipped.source, &high.id), "and has decided");
    let told: Vec<String> = org.slack_messages().into_iter().map(|message| message.text).collect();
    let ended = |text: &&String| text.contains("*Access review ended*") && text.contains("By: Grace Hopper");
    assert_eq!((told.len(), told.iter().filter(ended).count()), (3, 1), "{told:?}");
    assert!(told.iter().any(|text| text.contains("carried out: SUCCESS")), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_risky_sign_in_makes_a_ticket_that_says_who_from_where_and_how() {
    let shipped = Shipped::new().await;
    let org = &shipped.scene.org;
    let ann = org.add_user(User { mobile_phone: Some("+1 555 0100".to_owned()), ..User::new("Ann", "Miller") });
    let bob = shipped.user("Bob");
    org.push_events(vec![
        events::sign_in(&ann, "HIGH"),
        events::sign_in(&bob, "HIGH"),
        events::sign_in(&bob, "MEDIUM"),
        events::sign_in(&ann, "LOW"),
    ]);
    let (_daemon, _) = shipped.run(4).await;
    assert_eq!(org.incidents().len(), 2);
    let ticket = shipped.incident(&ann).unwrap();
    has(
        ticket["description"].as_str().unwrap(),
        &[
            "Name: Ann Miller",
            "E-mail: ann.miller@example.com",
            "Phone: +1 555 0100",
            &format!("User id: {}", ann.id),
            "IP address: 203.0.113.24 (San Jose, United States)",
            "New Device",
            "HIGH",
            "/admin/user/profile/view/",
        ],
    );
    has(shipped.incident(&bob).unwrap()["description"].as_str().unwrap(), &["Phone: not known"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_whose_risk_has_just_risen_is_at_high_risk_for_his_next_event() {
    let shipped = Shipped::new().await;
    let org = &shipped.scene.org;
    let (ann, bob) = (shipped.user("Ann"), shipped.user("Bob"));
    org.assign(&shipped.payroll, &ann.id);
    org.assign(&shipped.source, &bob.id);
    // Long enough for the second event to be looked at while the first one's change is under way.
    let slow = Fault::new(Service::Okta, Misbehaviour::Delay(Duration::from_secs(1))).method("PUT").path("/groups/");
    org.fault(slow.always());
    org.push_events(vec![
        events::risk_detected(&ann, "LOW", "HIGH"),
        shipped.assigned(&shipped.payroll, &ann),
        events::risk_detected(&bob, "LOW", "HIGH"),
        shipped.assigned(&shipped.source, &bob),
    ]);
    let (daemon, ledger) = shipped.run(4).await;
    assert!(!org.is_assigned(&shipped.payroll, &ann.id), "{}", daemon.log());
    let review = ledger.step("review").await;
    assert_eq!(review.state, "succeeded", "{:?}", review.error);
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_the_same_thing_keeps_the_order_of_the_events_through_an_outage() {
    let shipped = Shipped::new().await;
    let (org, ann) = (&shipped.scene.org, shipped.user("Ann"));
    for method in ["PUT", "DELETE"] {
        org.fault(Fault::new(Service::Okta, Misbehaviour::status(503, "")).method(method).path("/groups/").times(3));
    }
    org.push_events(vec![events::risk_detected(&ann, "LOW", "HIGH"), events::risk_detected(&ann, "HIGH", "LOW")]);
    let (daemon, _) = shipped.run(2).await;
    let changes: Vec<_> = org.effects().into_iter().filter(|effect| effect.kind.starts_with("group.")).collect();
    let kinds: Vec<_> = changes.iter().map(|effect| (effect.kind, effect.changed)).collect();
    assert_eq!(kinds, [("group.add", true), ("group.remove", true)]);
    assert!(!org.is_member(&shipped.high, &ann.id));
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_we_did_ourselves_starts_nothing() {
    let shipped = Shipped::new().await;
    let org = &shipped.scene.org;
    let ann = shipped.user_in(&shipped.high, "Ann");
    org.assign(&shipped.payroll, &ann.id);
    let ourselves = org.user(org.token_owner()).unwrap();
    org.push_event(events::acted_by(shipped.assigned(&shipped.payroll, &ann), &ourselves));
    let (_daemon, ledger) = shipped.run(1).await;
    let event = &ledger.events().await[0];
    assert_eq!((event.state.as_str(), event.reason.as_deref()), ("skipped", Some("own")));
    assert!(ledger.actions().await.is_empty());
    assert!(org.is_assigned(&shipped.payroll, &ann.id));
}

const CLEARING: &str = r#"
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
"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_fall_in_risk_that_our_own_clearing_of_sessions_causes_releases_nobody() {
    let scene = Scene::with(OrgOptions::default(), FAST, CLEARING).await;
    let group = scene.org.add_group("High Risk Users");
    let ann = scene.org.add_user(User::new("Ann", "Miller"));
    scene.org.push_event(events::risk_detected(&ann, "LOW", "HIGH"));
    let daemon = scene.daemon();
    let ledger = Ledger::of(&scene).await;
    ledger.at_rest(2).await;
    assert_eq!(scene.org.user_risk(&ann.id), "LOW", "that is what Okta makes of it");
    let events_seen = ledger.events().await;
    assert_eq!((events_seen[1].state.as_str(), events_seen[1].reason.as_deref()), ("skipped", Some("echo")));
    assert!(scene.org.is_member(&group, &ann.id));
    // A person who lowers the risk in the same minutes is no echo.
    let admin = scene.org.add_user(User::new("Security", "Admin"));
    scene.org.push_event(events::acted_by(events::risk_detected(&ann, "HIGH", "LOW"), &admin));
    ledger.at_rest(3).await;
    assert!(!scene.org.is_member(&group, &ann.id));
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_protected_user_is_never_touched_and_people_are_told_so() {
    for by_id in [false, true] {
        let shipped = Shipped::new().await;
        let (org, ann) = (&shipped.scene.org, shipped.user("Ann"));
        org.add_member(&shipped.high, &ann.id);
        org.assign(&shipped.payroll, &ann.id);
        let name = if by_id { &ann.id } else { &ann.login };
        shipped.scene.edit("[dispatch]", &format!("[guard]\nprotected_users = [\"{name}\"]\n[dispatch]"));
        org.push_events(vec![
            events::risk_detected(&ann, "MEDIUM", "HIGH"),
            shipped.assigned(&shipped.payroll, &ann),
            events::risk_detected(&ann, "HIGH", "LOW"),
        ]);
        let (_daemon, ledger) = shipped.run(3).await;
        let effects = org.effects();
        assert!(effects.iter().all(|effect| effect.service != Service::Okta), "{effects:?}");
        let actions = ledger.actions().await;
        let refused: Vec<_> = actions.iter().filter(|action| action.state == "refused").collect();
        assert_eq!(refused.len(), 4, "quarantine, end-watch, take-back, end-quarantine");
        assert!(refused.iter().all(|action| action.reason.as_deref() == Some("guard")));
        let texts: Vec<_> = org.slack_messages().into_iter().map(|message| message.text).collect();
        assert_eq!(texts.len(), 3);
        has(&texts.join("\n"), &["Into quarantine: refused", "protected", "is *not* taken back (refused"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_observes_records_everything_and_touches_nothing() {
    let shipped = Shipped::with(&format!("{FAST}[guard]\nmode = \"observe\"\n")).await;
    let org = &shipped.scene.org;
    let (ann, bob) = (shipped.user("Ann"), shipped.user_in(&shipped.high, "Bob"));
    org.assign(&shipped.payroll, &bob.id);
    org.push_events(vec![
        events::risk_detected(&ann, "LOW", "HIGH"),
        events::risk_detected(&bob, "HIGH", "LOW"),
        shipped.assigned(&shipped.payroll, &bob),
        events::sign_in(&ann, "HIGH"),
    ]);
    let (daemon, ledger) = shipped.run(4).await;
    assert!(daemon.stop().success());
    assert_eq!(org.effects(), []);
    let actions = ledger.actions().await;
    assert!(actions.iter().all(|action| action.state == "skipped" && action.attempts == 0));
    let would: Vec<_> = actions.iter().filter(|action| action.reason.as_deref() == Some("observe")).collect();
    let steps: Vec<_> = would.iter().map(|action| action.step.as_str()).collect();
    for step in ["quarantine", "end-quarantine", "take-back", "incident", "tell-security"] {
        assert!(steps.contains(&step), "{step} is not among {steps:?}");
    }
    // What reads the other steps is planned as well.
    let told = would.iter().find(|action| action.step == "tell-security").unwrap();
    assert!(told.error.is_none() && told.params.is_some(), "{told:?}");
    for action in would {
        assert!(action.error.as_ref().is_none_or(|why| why.starts_with("observed only")), "{action:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_approval_waits_for_a_person_and_holds_its_place() {
    let shipped = Shipped::new().await;
    shipped.scene.edit(
        "action = \"okta.group.add_user\"\n  with = { group = \"High",
        "approval = true\n  action = \"okta.group.add_user\"\n  with = { group = \"High",
    );
    let (org, ann) = (&shipped.scene.org, shipped.user("Ann"));
    org.push_events(vec![events::risk_detected(&ann, "LOW", "HIGH"), events::risk_detected(&ann, "HIGH", "LOW")]);
    let daemon = shipped.scene.daemon();
    let ledger = Ledger::of(&shipped.scene).await;
    ledger.wait_for("quarantine", "awaiting_approval").await;
    ledger.wait_for("end-quarantine", "ready").await;
    ledger.wait_for("incident", "succeeded").await;
    assert!(org.effects_of("group.add").is_empty() && org.effects_of("group.remove").is_empty());
    let waiting = ledger.actions().await.into_iter().find(|action| action.state == "awaiting_approval").unwrap();
    let id = ActionId(waiting.id);
    ledger.store.change_by_person(id, PersonChange::Approve, org.now()).await.unwrap();
    ledger.at_rest(2).await;
    assert_eq!((org.effects_of("group.add").len(), org.effects_of("group.remove").len()), (1, 1));
    assert!(!org.is_member(&shipped.high, &ann.id));
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_is_paused_it_reads_and_plans_but_sends_nothing() {
    let shipped = Shipped::new().await;
    let (org, ann) = (&shipped.scene.org, shipped.user("Ann"));
    let daemon = shipped.scene.daemon();
    let ledger = Ledger::of(&shipped.scene).await;
    ledger.store.set_paused(true, org.now()).await.unwrap();
    org.push_event(events::risk_detected(&ann, "LOW", "HIGH"));
    ledger.wait_for("quarantine", "ready").await;
    // What is planned later finds the dispatcher at work, and it still leaves everything alone.
    org.push_event(events::risk_detected(&shipped.user("Bob"), "LOW", "HIGH"));
    ledger.wait_until(|actions| actions.iter().filter(|action| action.state == "ready").count() >= 4).await;
    assert_eq!(org.effects(), []);
    ledger.store.set_paused(false, org.now()).await.unwrap();
    ledger.at_rest(2).await;
    assert_eq!(org.effects_of("group.add").len(), 2);
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn access_is_not_changed_for_what_happened_too_long_ago() {
    let shipped = Shipped::with(&format!("{FAST}[guard]\nmax_event_age = \"10m\"\n")).await;
    let (org, ann) = (&shipped.scene.org, shipped.user("Ann"));
    let then = org.now().checked_sub(SignedDuration::from_mins(30)).unwrap();
    org.push_event(events::published_at(events::risk_detected(&ann, "LOW", "HIGH"), then));
    let (_daemon, ledger) = shipped.run(1).await;
    let quarantine = ledger.step("quarantine").await;
    assert_eq!((quarantine.state.as_str(), quarantine.reason.as_deref()), ("refused", Some("guard")));
    assert!(!org.is_member(&shipped.high, &ann.id));
    has(&shipped.message(&ann).text, &["Into quarantine: refused", "Incident: <"]);
}

/// Pushes that the user rejects, one after the other.
fn rejected_pushes(user: &User, many: usize) -> Vec<Value> {
    let mut pushes: Vec<Value> = (0..many).map(|_| events::sign_in(user, "LOW")).collect();
    pushes.iter_mut().for_each(|push| push["eventType"] = "user.mfa.okta_verify.deny_push".into());
    pushes
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fifth_push_that_a_user_rejects_suspends_him_and_is_told_once() {
    let shipped = Shipped::new().await;
    let org = &shipped.scene.org;
    let (ann, bob) = (shipped.user("Ann"), shipped.user("Bob"));
    org.push_events(rejected_pushes(&ann, 4));
    org.push_events(rejected_pushes(&bob, 4));
    let (daemon, ledger) = shipped.run(8).await;
    assert_eq!(ledger.actions().await.len(), 0, "{}", daemon.log());
    org.push_events(rejected_pushes(&ann, 1));
    ledger.at_rest(9).await;
    assert_eq!(ledger.wait_for("suspend", "succeeded").await.state, "succeeded");
    // The sixth finds him suspended, and tells it to nobody again.
    org.push_events(rejected_pushes(&ann, 1));
    ledger.at_rest(10).await;
    assert_eq!(org.user(&ann.id).unwrap().status, "SUSPENDED");
    assert_eq!(org.user(&bob.id).unwrap().status, "ACTIVE");
    has(&shipped.message(&ann).text, &["Five pushes rejected", "Suspended: succeeded"]);
}
