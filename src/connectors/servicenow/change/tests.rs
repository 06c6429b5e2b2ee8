use std::sync::Mutex;

use serde_json::{Value, json};

use super::*;
use crate::config::ServiceNowConfig;
use crate::connectors::stage::{KEY, PATIENT, Reply, Seen, Stage, call, servicenow_config};
use crate::http::Network;

fn service(stage: &Stage, table: &str) -> Arc<ServiceNow> {
    let config = servicenow_config(&stage.base, PATIENT);
    let config = ServiceNowConfig { username: Some("daemon".to_owned()), table: table.to_owned(), ..config };
    Arc::new(ServiceNow::new(&config, Some("secret".into()), None, &Network::default()).unwrap())
}

fn update() -> Cleared<Call> {
    call(json!({"correlation": "okta-user-00u1", "work_notes": "Risk is LOW"}))
}

fn resolve() -> Cleared<Call> {
    call(json!({"correlation": "okta-user-00u1", "close_code": "Resolved by caller", "close_notes": "Risk is LOW"}))
}

/// How an instance behaves that holds one incident.
#[derive(Clone, Copy)]
struct Instance {
    state: &'static str,
    correlation: &'static str,
    /// What its journal holds already; `None`: it shows none.
    journal: Option<&'static str>,
    /// Whether it takes over what is sent.
    writable: bool,
}

const OPEN: Instance = Instance { state: "2", correlation: "okta-user-00u1", journal: Some(""), writable: true };

impl Instance {
    async fn open(self) -> Stage {
        let kept = Mutex::new((self.state.to_owned(), self.journal.map(str::to_owned)));
        Stage::open(move |seen: &Seen| {
            let mut kept = kept.lock().unwrap();
            let sent = seen.json();
            if seen.method == "PATCH" && self.writable {
                if let Some(state) = sent["state"].as_str() {
                    kept.0 = state.to_owned();
                }
                if let Some(journal) = &mut kept.1 {
                    journal.push_str(sent["work_notes"].as_str().unwrap_or_default());
                }
            }
            let mut row = json!({"sys_id": "9d38", "number": "INC1", "state": kept.0, "active": "true",
                                 "correlation_id": self.correlation, "correlation_display": ""});
            if seen.query("sysparm_display_value").is_some() {
                row = json!({"sys_id": "9d38"});
                if let Some(journal) = &kept.1 {
                    row["work_notes"] = json!(journal);
                }
            }
            let is_list = seen.path().ends_with("/incident") || seen.path().ends_with("/sn_si_incident");
            Reply::json(200, &json!({"result": if is_list { json!([row]) } else { row }}))
        })
        .await
    }
}

fn patches(stage: &Stage) -> Vec<Value> {
    stage.seen().iter().filter(|seen| seen.method == "PATCH").map(Seen::json).collect()
}

#[track_caller]
fn note(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Done(receipt) | Outcome::AlreadyDone(receipt) => receipt.note.as_deref().unwrap_or_default(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn parameters_are_those_of_the_change_and_nothing_else() {
    let check = |kind: &ActionKind, params: Value, wrong: Option<&str>| match ((kind.check)(&params), wrong) {
        (Ok(()), None) => {}
        (Err(problem), Some(part)) => assert!(problem.contains(part), "{problem}"),
        (got, _) => panic!("{params}: {got:?}"),
    };
    let good = json!({"correlation": "c", "work_notes": "n", "urgency": 3, "if_none": "skip", "fields": {"state": 2}});
    check(&UPDATE_INCIDENT, good, None);
    check(&UPDATE_INCIDENT, json!({"correlation": "c"}), Some("work_notes"));
    check(&UPDATE_INCIDENT, json!({"correlation": " ", "work_notes": "n"}), Some("`correlation` is empty"));
    check(
        &UPDATE_INCIDENT,
        json!({"correlation": "c", "work_notes": "n", "if_none": "panic"}),
        Some("unknown variant"),
    );
    let ends = |more: Value| {
        let mut params = json!({"correlation": "c", "close_code": "x", "close_notes": "y"});
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        params
    };
    check(&RESOLVE_INCIDENT, ends(json!({"state": 7})), None);
    check(&RESOLVE_INCIDENT, ends(json!({"close_notes": ""})), Some("`close_notes` is empty"));
    check(&RESOLVE_INCIDENT, ends(json!({"fields": {"state": 7}})), Some("a parameter of its own"));
    check(&RESOLVE_INCIDENT, ends(json!({"fields": {"sys_id": "x"}})), Some("cannot be set"));
}

#[test]
fn a_change_comes_after_the_incident_it_is_about() {
    let created = json!({"short_description": "x", "correlation": "okta-user-00u1"});
    let lane = (super::super::CREATE_INCIDENT.lane)(&created);
    assert!(lane.is_some());
    assert_eq!((UPDATE_INCIDENT.lane)(&update().params), lane);
    assert_eq!((RESOLVE_INCIDENT.lane)(&resolve().params), lane);
}

#[tokio::test]
async fn a_note_carries_the_key_and_no_html_and_is_written_once() {
    let stage = OPEN.open().await;
    let service = Update(service(&stage, "incident"));
    let hostile = call(json!({"correlation": "okta-user-00u1", "work_notes": "[code]<b>", "urgency": 3}));
    assert!(matches!(service.perform(&hostile).await, Outcome::Done(_)));
    let again = service.perform(&hostile).await;
    assert_eq!(note(&again), "the note is there already");
    assert!(matches!(service.verify(&hostile).await, Verdict::Done(_)));
    let expected = json!({"urgency": "3", "work_notes": format!("[ code]<b>\n\nokta-responder {KEY}")});
    assert_eq!(patches(&stage), [expected]);
}

#[tokio::test]
async fn whether_a_note_arrived_is_only_told_where_the_journal_is_shown() {
    let check = async |journal, expected: Verdict| {
        let stage = Instance { journal, ..OPEN }.open().await;
        assert_eq!(Update(service(&stage, "incident")).verify(&update()).await, expected);
    };
    check(None, Verdict::CannotTell).await;
    check(Some(""), Verdict::CannotTell).await;
    check(Some("a note of somebody"), Verdict::NotDone).await;

    let stage = Instance { journal: None, ..OPEN }.open().await;
    let outcome = Update(service(&stage, "incident")).perform(&update()).await;
    assert!(note(&outcome).contains("not shown"), "{outcome:?}");
}

#[tokio::test]
async fn a_note_that_the_instance_drops_is_no_success() {
    let stage = Instance { journal: Some("older"), writable: false, ..OPEN }.open().await;
    let outcome = Update(service(&stage, "incident")).perform(&update()).await;
    let Outcome::Permanent(failure) = &outcome else { panic!("{outcome:?}") };
    assert!(failure.reason == Reason::BadAnswer && failure.detail.contains("`work_notes`"), "{failure}");
}

#[tokio::test]
async fn an_incident_that_people_have_closed_is_left_alone() {
    for state in ["6", "7", "8"] {
        let stage = Instance { state, ..OPEN }.open().await;
        let service = service(&stage, "incident");
        let outcome = Update(Arc::clone(&service)).perform(&update()).await;
        assert!(matches!(&outcome, Outcome::Permanent(failure) if failure.reason == Reason::NotFound), "{outcome:?}");
        let skip = call(json!({"correlation": "okta-user-00u1", "work_notes": "n", "if_none": "skip"}));
        assert!(note(&Update(Arc::clone(&service)).perform(&skip).await).contains("no open record"));
        assert!(matches!(Resolve(service).perform(&resolve()).await, Outcome::AlreadyDone(_)));
        assert_eq!(patches(&stage).len(), 0);
    }
}

#[tokio::test]
async fn an_incident_of_another_correlation_is_never_changed() {
    let stage = Instance { correlation: "somebody else", ..OPEN }.open().await;
    let service = service(&stage, "incident");
    for outcome in [Update(Arc::clone(&service)).perform(&update()).await, Resolve(service).perform(&resolve()).await] {
        assert!(matches!(&outcome, Outcome::Permanent(failure) if failure.reason == Reason::BadAnswer), "{outcome:?}");
    }
    assert_eq!(patches(&stage).len(), 0);
}

#[tokio::test]
async fn an_incident_is_resolved_once_with_code_and_notes() {
    for (table, state) in [("incident", "6"), ("sn_si_incident", "3")] {
        let stage = OPEN.open().await;
        let service = Resolve(service(&stage, table));
        assert_eq!(service.verify(&resolve()).await, Verdict::NotDone);
        let outcome = service.perform(&resolve()).await;
        let Outcome::Done(receipt) = &outcome else { panic!("{outcome:?}") };
        assert!(receipt.url.as_deref().unwrap().ends_with(&format!("uri={table}.do%3Fsys_id%3D9d38")));
        assert!(matches!(service.perform(&resolve()).await, Outcome::AlreadyDone(_)));
        assert!(matches!(service.verify(&resolve()).await, Verdict::Done(_)));
        let [sent] = &patches(&stage)[..] else { panic!("not one request") };
        assert_eq!((&sent["state"], &sent["close_code"]), (&json!(state), &json!("Resolved by caller")));
    }
}

#[tokio::test]
async fn a_state_that_the_instance_does_not_take_is_no_success() {
    let stage = Instance { writable: false, ..OPEN }.open().await;
    let outcome = Resolve(service(&stage, "incident")).perform(&resolve()).await;
    let Outcome::Permanent(failure) = &outcome else { panic!("{outcome:?}") };
    assert!(failure.reason == Reason::BadAnswer && failure.detail.contains("did not become 6"), "{failure}");
}
