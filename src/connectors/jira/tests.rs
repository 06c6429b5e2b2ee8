use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::issue::{MAX_SUMMARY, MAX_TEXT, document, label, literal, verbatim};
use super::*;
use crate::connectors::stage::{KEY, PATIENT, Reply, Seen, Stage, call, jira_answer, jira_config};
use crate::model::ids::IdempotencyKey;

const OWN: &str = "okta-responder-0123456789abcdef0123456789abcdef01234567";

fn jira(stage: &Stage) -> Jira {
    Jira::new(&jira_config(&stage.base, JiraFlavor::Cloud, PATIENT), "secret".into(), &Network::default()).unwrap()
}

/// One that has been there for longer than the search lags.
fn settled(stage: &Stage) -> Jira {
    let jira = jira(stage);
    Jira { since: jira.since.checked_sub(jira.search_lag).unwrap(), ..jira }
}

fn own() -> Cleared<Call> {
    call(json!({"project": "SEC", "issue_type": "Task", "summary": "Risk"}))
}

fn shared() -> Cleared<Call> {
    call(json!({"project": "SEC", "issue_type": "Task", "summary": "Risk", "correlation": "okta-user-00u1"}))
}

fn issue(number: u32, label: &str, category: &str) -> Value {
    let status = json!({"statusCategory": {"key": category}});
    json!({"id": (10_000 + number).to_string(), "key": format!("SEC-{number}"),
           "fields": {"labels": [label], "status": status}})
}

/// How a Jira behaves that holds issues.
#[derive(Clone, Default)]
struct Held {
    /// What a search shows whose text holds this.
    shown: Vec<(&'static str, Value)>,
    /// What is read by its id.
    real: Arc<Mutex<Vec<Value>>>,
}

impl Held {
    fn showing(text: &'static str, issue: Value) -> Self {
        Self { real: Arc::new(Mutex::new(vec![issue.clone()])), shown: vec![(text, issue)] }
    }

    /// Creates what is sent under SEC-2.
    async fn open(&self) -> Stage {
        let Self { shown, real } = self.clone();
        Stage::open(move |seen: &Seen| {
            let path = seen.path();
            if path.ends_with("/search/jql") {
                let jql = seen.json()["jql"].as_str().unwrap().to_owned();
                let found: Vec<_> =
                    shown.iter().filter(|(text, _)| jql.contains(text)).map(|(_, issue)| issue).collect();
                return Reply::json(200, &json!({"issues": found, "isLast": true}));
            }
            if path.ends_with("/issue") {
                real.lock().unwrap().push(issue(2, "okta-user-00u1", "new"));
                return Reply::json(201, &json!({"id": "10002", "key": "SEC-2", "self": "x"}));
            }
            if path.ends_with("/myself") {
                return Reply::json(200, &json!({"displayName": "Okta Responder"}));
            }
            let id = path.rsplit('/').next().unwrap();
            match real.lock().unwrap().iter().find(|issue| issue["id"] == id) {
                Some(issue) => Reply::json(200, issue),
                None => Reply::json(404, &json!({"errorMessages": ["Issue does not exist"], "errors": {}})),
            }
        })
        .await
    }
}

fn created(stage: &Stage) -> usize {
    stage.seen().iter().filter(|seen| seen.path().ends_with("/issue")).count()
}

#[track_caller]
fn number(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Done(receipt) | Outcome::AlreadyDone(receipt) => receipt.number.as_deref().unwrap(),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn check_params(more: Value, expected: Result<(), &str>) {
    let mut params = json!({"project": "SEC", "issue_type": "Task", "summary": "x"});
    params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let key = IdempotencyKey::from_stored(KEY.to_owned());
    match ((CREATE_ISSUE.check)(&params).and_then(|()| NewIssue::new(&params, &key).map(drop)), expected) {
        (Ok(()), Ok(())) => {}
        (Err(problem), Err(part)) => assert!(problem.contains(part), "{problem}"),
        (got, _) => panic!("{params}: {got:?}"),
    }
}

#[test]
fn parameters_that_jira_would_not_take_are_refused() {
    check_params(json!({"description": "a\nb", "labels": ["a b"], "fields": {"customfield_10010": {"id": 3}}}), Ok(()));
    check_params(json!({"summary": " \n "}), Err("`summary` is empty"));
    check_params(json!({"project": ""}), Err("`project` is empty"));
    check_params(json!({"project": "SEC\" OR project = \"HR"}), Err("not the key of a project"));
    check_params(json!({"issue_type": " "}), Err("`issue_type` is empty"));
    check_params(json!({"severity": 1}), Err("unknown field `severity`"));
    check_params(json!({"labels": vec!["a"; 21]}), Err("more than 20"));
    check_params(json!({"fields": {"summary": "x"}}), Err("a parameter of its own"));
    check_params(json!({"fields": {"a b": "x"}}), Err("not the id of a field"));
    check_params(json!({"correlation": " "}), Err("`correlation` is empty"));
    check_params(json!({"correlation": "a b"}), Err("holds a space"));
    check_params(json!({"correlation": "a\u{200B}b"}), Err("holds a space"));
    check_params(json!({"correlation": "x".repeat(256)}), Err("longer than 255"));
}

#[test]
fn what_may_wait_is_checked_when_it_is_final() {
    let templates =
        json!({"project": "{{ a }}", "issue_type": "{{ b }}", "summary": "{{ c }}", "correlation": "{{ d }} e"});
    assert_eq!((CREATE_ISSUE.check)(&templates), Ok(()));
}

#[test]
fn only_a_shared_correlation_has_a_lane_and_in_its_project() {
    assert_eq!((CREATE_ISSUE.lane)(&shared().params), Some("jira.issue/SEC/okta-user-00u1".to_owned()));
    assert_eq!((CREATE_ISSUE.lane)(&own().params), None);
}

/// The fields that are sent for these parameters beside the ones that have to be there.
fn sent(flavor: JiraFlavor, more: Value) -> Value {
    let mut params = json!({"project": " SEC ", "issue_type": "Task", "summary": "a\nb"});
    params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let issue = NewIssue::new(&params, &IdempotencyKey::from_stored(KEY.to_owned())).unwrap();
    let mut body = issue.body(flavor);
    let fields = body["fields"].as_object_mut().unwrap();
    assert_eq!(fields.remove("project"), Some(json!({"key": "SEC"})));
    assert_eq!(fields.remove("issuetype"), Some(json!({"name": "Task"})));
    body["fields"].clone()
}

#[test]
fn an_issue_has_jiras_shape_and_only_what_was_given() {
    let (cloud, server) = (JiraFlavor::Cloud, JiraFlavor::Server);
    assert_eq!(sent(cloud, json!({"priority": "", "description": " "})), json!({"summary": "a b", "labels": [OWN]}));
    let more = json!({
        "summary": "s".repeat(300), "labels": ["high risk", "", "okta"], "correlation": "okta-user-00u1",
        "priority": "High", "assignee": "5b10", "description": "a\nb\n\n\nc",
        "fields": {"customfield_10010": {"value": "x"}, "customfield_10011": ""},
    });
    let line = |text: &str| json!({"type": "text", "text": text});
    let paragraph = |content: Vec<Value>| json!({"type": "paragraph", "content": content});
    let summary = sent(cloud, more.clone())["summary"].as_str().unwrap().chars().count();
    assert_eq!(summary, MAX_SUMMARY);
    let mut expected = json!({
        "summary": format!("{}…", "s".repeat(MAX_SUMMARY - 1)),
        "labels": ["high-risk", "okta", OWN, "okta-user-00u1"], "priority": {"name": "High"}, "assignee": {"accountId": "5b10"},
        "description": {"type": "doc", "version": 1, "content": [
            paragraph(vec![line("a"), json!({"type": "hardBreak"}), line("b")]), paragraph(vec![line("c")]),
        ]},
        "customfield_10010": {"value": "x"},
    });
    assert_eq!(sent(cloud, more.clone()), expected);
    expected["assignee"] = json!({"name": "5b10"});
    expected["description"] = json!("{noformat}\na\nb\n\n\nc\n{noformat}");
    assert_eq!(sent(server, more), expected);
}

#[test]
fn a_document_of_many_lines_or_quotes_still_fits() {
    for text in ["\"\n".repeat(20_000), "\"".repeat(40_000), "x".repeat(100_000)] {
        let count = document(&text).to_string().chars().count();
        assert!(count <= MAX_TEXT && count > MAX_TEXT / 2, "{count}");
    }
}

proptest! {
    #[test]
    fn no_text_leaves_its_place_in_a_search(text in "(\\PC|\"|\\\\| OR | AND |\n){0,60}") {
        let quoted = literal(&text);
        let inner = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap();
        let mut escaped = false;
        for c in inner.chars() {
            prop_assert!(escaped || c != '"', "{quoted}");
            escaped = !escaped && c == '\\';
        }
        prop_assert!(!escaped, "{quoted}");
        let back = quoted.replace("\\\\", "\u{0}").replace("\\\"", "\"").replace('\u{0}', "\\");
        prop_assert_eq!(back, format!("\"{text}\""));
    }

    #[test]
    fn any_text_makes_a_label_or_none(text in "(\\PC| |\t|\n|\u{200B}){0,300}") {
        let label = label(&text);
        prop_assert!(label.chars().count() <= 255);
        prop_assert!(!label.chars().any(|c| c.is_whitespace() || c.is_control()));
    }

    #[test]
    fn no_text_ends_the_block_that_shows_it_as_it_is(text in "(\\PC|\\{|\\}|\\{noformat\\}|\\{NoFormat|noformat\\}|\n){0,60}") {
        let shown = verbatim(&text).to_ascii_lowercase();
        prop_assert_eq!(shown.matches("{noformat").count(), 2, "{}", shown);
    }

    #[test]
    fn every_text_of_a_document_is_a_line_that_is_not_empty(text in "(\\PC|\n|\r|\t| |\u{7}){0,80}") {
        let document = document(&text);
        for paragraph in document["content"].as_array().unwrap() {
            prop_assert!(!paragraph["content"].as_array().unwrap().is_empty());
            for node in paragraph["content"].as_array().unwrap().iter().filter(|node| node["type"] == "text") {
                let line = node["text"].as_str().unwrap();
                prop_assert!(!line.trim().is_empty() && !line.chars().any(char::is_control), "{line:?}");
            }
        }
    }
}

#[tokio::test]
async fn an_issue_is_told_with_its_key_and_where_people_open_it() {
    let stage = Held::default().open().await;
    let config = jira_config(&stage.base, JiraFlavor::Cloud, PATIENT);
    let config = JiraConfig { browse_url: Some("https://example.atlassian.net".to_owned()), ..config };
    let jira = Jira::new(&config, "secret".into(), &Network::default()).unwrap();
    let Outcome::Done(receipt) = jira.perform(&own()).await else { panic!() };
    assert_eq!((receipt.id.as_deref(), receipt.number.as_deref()), (Some("10002"), Some("SEC-2")));
    assert_eq!(receipt.url.as_deref(), Some("https://example.atlassian.net/browse/SEC-2"));
    assert_eq!(stage.seen()[0].json()["jql"], format!("labels = \"{OWN}\" ORDER BY created DESC"));
}

#[tokio::test]
async fn the_issue_of_the_same_key_is_found_even_when_it_is_closed() {
    let stage = Held::showing(OWN, issue(1, OWN, "done")).open().await;
    assert_eq!(number(&jira(&stage).perform(&own()).await), "SEC-1");
    let Verdict::Done(receipt) = jira(&stage).verify(&own()).await else { panic!() };
    assert_eq!(receipt.note.as_deref(), Some("is closed already"));
    assert_eq!(created(&stage), 0);
}

#[tokio::test]
async fn an_issue_whose_label_differs_in_case_is_not_taken_for_ours() {
    let stage = Held::showing(OWN, issue(1, &OWN.to_uppercase(), "new")).open().await;
    assert_eq!(jira(&stage).verify(&own()).await, Verdict::CannotTell);
    assert_eq!(number(&jira(&stage).perform(&own()).await), "SEC-2");

    let stage = Held::showing("okta-user-00u1", issue(1, "okta-user-00U1", "new")).open().await;
    assert_eq!(number(&settled(&stage).perform(&shared()).await), "SEC-2");
}

#[tokio::test]
async fn the_open_issue_of_a_shared_correlation_is_reused_unless_it_was_closed_a_moment_ago() {
    let held = Held::showing("okta-user-00u1", issue(1, "okta-user-00u1", "indeterminate"));
    let stage = held.open().await;
    let outcome = settled(&stage).perform(&shared()).await;
    let Outcome::AlreadyDone(receipt) = &outcome else { panic!("{outcome:?}") };
    assert!(receipt.note.as_deref().unwrap().contains("reused"));
    assert_eq!((number(&outcome), created(&stage)), ("SEC-1", 0));

    *held.real.lock().unwrap() = vec![issue(1, "okta-user-00u1", "done")];
    assert_eq!(number(&settled(&stage).perform(&shared()).await), "SEC-2");
}

#[tokio::test]
async fn an_issue_that_the_search_does_not_show_yet_is_shared_all_the_same() {
    let held = Held::default();
    let stage = held.open().await;
    let jira = settled(&stage);
    assert_eq!(number(&jira.perform(&shared()).await), "SEC-2");
    assert!(matches!(jira.perform(&shared()).await, Outcome::AlreadyDone(_)));
    assert_eq!(created(&stage), 1);
    // Another project's is another one.
    let mut other = shared().params.clone();
    other["project"] = json!("HR");
    assert!(matches!(jira.perform(&call(other)).await, Outcome::Done(_)));

    *held.real.lock().unwrap() = vec![issue(2, "okta-user-00u1", "done")];
    assert!(matches!(jira.perform(&shared()).await, Outcome::Done(_)));
}

#[tokio::test]
async fn right_after_a_start_nothing_is_shared_that_the_search_may_not_show_yet() {
    let stage = Held::default().open().await;
    let jira = jira(&stage);
    let outcome = jira.perform(&shared()).await;
    let Outcome::RetryAfter(pause, failure) = &outcome else { panic!("{outcome:?}") };
    assert!(*pause <= jira.search_lag && failure.detail.contains("search_lag"), "{pause:?} {failure}");
    assert_eq!(created(&stage), 0);
    // What only this action makes needs no such pause.
    assert!(matches!(jira.perform(&own()).await, Outcome::Done(_)));
}

#[tokio::test]
async fn an_empty_search_is_no_proof_as_long_as_jira_does_not_know_us() {
    let unknown = |told: &'static str| {
        Stage::open(move |seen: &Seen| match told {
            "header" => {
                let reply = jira_answer(seen, &[], "new").unwrap_or(Reply::json(201, &json!({})));
                reply.with("X-Seraph-LoginReason", "AUTHENTICATED_FAILED")
            }
            "user" => jira_answer(seen, &[], "new").unwrap().with("X-AUSERNAME", "anonymous"),
            _ if seen.path().ends_with("/myself") => Reply::json(401, &json!({})),
            _ => jira_answer(seen, &[], "new").unwrap(),
        })
    };
    for told in ["header", "user", "status"] {
        let stage = unknown(told).await;
        let verdict = jira(&stage).verify(&own()).await;
        let Verdict::TryLater(failure) = &verdict else { panic!("{told}: {verdict:?}") };
        assert_eq!(failure.reason, Reason::Unauthorized, "{told}");
    }
    let stage = unknown("header").await;
    let outcome = jira(&stage).perform(&own()).await;
    assert!(matches!(&outcome, Outcome::Transient(failure) if failure.reason == Reason::Unauthorized), "{outcome:?}");
    assert_eq!(created(&stage), 0);
}

#[tokio::test]
async fn what_is_created_is_created_whoever_jira_takes_us_for() {
    let stage = Stage::open(|seen: &Seen| match jira_answer(seen, &[], "new") {
        Some(reply) => reply,
        None => Reply::json(201, &json!({"id": "10001", "key": "SEC-1"})).with("X-AUSERNAME", "anonymous"),
    })
    .await;
    assert!(matches!(jira(&stage).perform(&own()).await, Outcome::Done(_)));
    assert_eq!(created(&stage), 1);
}

#[tokio::test]
async fn what_jira_says_about_fields_is_told() {
    let stage = Stage::open(|seen: &Seen| {
        let errors = json!({"errorMessages": ["Sorry."], "errors": {"customfield_10010": "Severity is required."}});
        jira_answer(seen, &[], "new").unwrap_or(Reply::json(400, &errors))
    })
    .await;
    let outcome = jira(&stage).perform(&own()).await;
    let Outcome::Permanent(failure) = &outcome else { panic!("{outcome:?}") };
    assert_eq!(failure.reason, Reason::Rejected);
    assert!(failure.detail.contains("Sorry.; `customfield_10010`: Severity is required."), "{failure}");
}

#[tokio::test]
async fn a_lost_answer_is_looked_into_only_when_the_search_has_caught_up() {
    let stage = Held::default().open().await;
    let jira = jira(&stage);
    // Four requests that take their time, the one that creates, and the lag.
    assert_eq!(jira.patience(), PATIENT * 5 + jira.search_lag);
}
