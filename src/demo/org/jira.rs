//! Jira's REST API, that of Cloud (version 3) or that of Data Center (version 2), with its traps: nothing is unique, the
//! search lags behind and answers nobody in particular with nothing, and labels are compared without regard to case.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::Org;
use super::effects::Service;
use super::faults::{Gate, misbehave, note};
use super::world::World;

/// The user of basic authentication.
pub const JIRA_USER: &str = "okta-responder@example.com";

/// That user's API token; a Data Center takes it as a personal access token as well.
pub const JIRA_TOKEN: &str = "simulated-jira-api-token";

/// The key of the one project.
pub const JIRA_PROJECT: &str = "SEC";

/// The types of issues in the project.
const ISSUE_TYPES: [&str; 3] = ["Task", "Bug", "Incident"];

const PRIORITIES: [&str; 5] = ["Highest", "High", "Medium", "Low", "Lowest"];

/// The fields on the screen that issues are created with.
const FIELDS: [&str; 9] = [
    "project",
    "issuetype",
    "summary",
    "description",
    "labels",
    "priority",
    "assignee",
    "customfield_10010",
    "customfield_10011",
];

/// An issue, as people see it.
#[derive(Debug, Clone, PartialEq)]
pub struct JiraIssue {
    /// Digits.
    pub id: String,
    /// Such as `SEC-1`.
    pub key: String,
    /// Its labels.
    pub labels: Vec<String>,
    /// Whether people still work on it.
    pub open: bool,
    /// All fields as they were sent.
    pub fields: Value,
    /// When it was created, in milliseconds since the start.
    pub at_ms: u64,
}

/// All issues, oldest first, and what the project asks of new ones.
#[derive(Debug, Default)]
pub(super) struct Project {
    issues: Vec<JiraIssue>,
    /// Fields that have to be there, beside those of every project.
    required: Vec<String>,
    /// Whether our account may not create issues.
    closed: bool,
}

impl Org {
    /// Jira's URL, without a path.
    pub fn jira_url(&self) -> String {
        self.world.addresses.jira.clone()
    }

    /// Every issue, oldest first.
    pub fn jira_issues(&self) -> Vec<JiraIssue> {
        self.world.read(|inside| inside.jira.issues.clone())
    }

    /// Closes an issue, as a person would. False when there is none of that key.
    pub fn close_jira_issue(&self, key: &str) -> bool {
        self.world.change(|inside| {
            let mut found = inside.jira.issues.iter_mut().filter(|issue| issue.key == key);
            found.next().map(|issue| issue.open = false).is_some()
        })
    }

    /// From now on new issues need this field.
    pub fn jira_requires(&self, field: &str) {
        self.world.change(|inside| inside.jira.required.push(field.to_owned()));
    }

    /// Whether our account may create issues.
    pub fn jira_lets_create(&self, may: bool) {
        self.world.change(|inside| inside.jira.closed = !may);
    }
}

/// The REST API.
pub(super) fn router(world: &Arc<World>) -> Router {
    let gate = Gate { world: Arc::clone(world), service: Service::Jira };
    let search = |path: &str, name: &str| format!("/rest/api/{path}/search{name}");
    let api = if world.options.jira_server {
        Router::new().route(&search("2", ""), post(find))
    } else {
        Router::new()
            .route(&search("3", "/jql"), post(find))
            .route(&search("3", ""), any(removed))
            .route(&search("2", ""), any(removed))
    };
    let version = if world.options.jira_server { 2 } else { 3 };
    api.route(&format!("/rest/api/{version}/issue"), post(create))
        .route(&format!("/rest/api/{version}/issue/{{id}}"), get(read))
        .route(&format!("/rest/api/{version}/myself"), get(myself))
        .route(&format!("/rest/api/{version}/project/{{key}}"), get(project))
        .route(&format!("/rest/api/{version}/mypermissions"), get(permissions))
        .fallback(async || refusal(StatusCode::NOT_FOUND, "null for uri: no such resource"))
        .layer(from_fn_with_state(Arc::clone(world), admit))
        .layer(from_fn_with_state(gate.clone(), misbehave))
        .layer(from_fn_with_state(gate, note))
        .with_state(Arc::clone(world))
}

async fn admit(State(world): State<Arc<World>>, request: Request, next: Next) -> Response {
    let given = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let token = world.read(|inside| inside.secrets.jira_token.clone());
    let basic = format!("Basic {}", STANDARD.encode(format!("{JIRA_USER}:{token}")));
    if given == basic || (world.options.jira_server && given == format!("Bearer {token}")) {
        return next.run(request).await;
    }
    let is_search = request.uri().path().contains("/search");
    let mut response = if world.options.jira_server {
        let page = "<html><body>Basic Authentication Failure - Reason : AUTHENTICATED_FAILED</body></html>";
        (StatusCode::UNAUTHORIZED, [(CONTENT_TYPE, "text/html;charset=UTF-8")], page).into_response()
    } else if is_search {
        answer(StatusCode::OK, &json!({"issues": [], "isLast": true}))
    } else {
        refusal(StatusCode::UNAUTHORIZED, "Client must be authenticated to access this resource.")
    };
    let reason = HeaderValue::from_static("AUTHENTICATED_FAILED");
    response.headers_mut().insert(HeaderName::from_static("x-seraph-loginreason"), reason);
    response
}

async fn removed() -> Response {
    refusal(StatusCode::GONE, "The requested API has been removed. Please migrate to the /rest/api/3/search/jql API.")
}

async fn create(State(world): State<Arc<World>>, body: Bytes) -> Response {
    let Ok(Value::Object(body)) = serde_json::from_slice(&body) else {
        return refusal(StatusCode::BAD_REQUEST, "Unexpected character in the request body");
    };
    let Some(Value::Object(fields)) = body.get("fields") else {
        return refusal(StatusCode::BAD_REQUEST, "one of 'fields' or 'update' required");
    };
    let (required, closed) = world.read(|inside| (inside.jira.required.clone(), inside.jira.closed));
    if closed {
        return refusal(StatusCode::FORBIDDEN, "You do not have permission to create issues in this project.");
    }
    let problems = problems(fields, &required, world.options.jira_server);
    if !problems.is_empty() {
        return answer(StatusCode::BAD_REQUEST, &json!({"errorMessages": [], "errors": problems}));
    }
    let labels: Vec<String> = texts(fields.get("labels")).map(str::to_owned).collect();
    let key = labels.iter().find_map(|label| label.strip_prefix("okta-responder-")).map(str::to_owned);
    let mut effect = world.effect(Service::Jira, "jira.create", String::new(), Value::Object(fields.clone()));
    let issue = world.change(|inside| {
        let number = inside.jira.issues.len() + 1;
        let (id, fields, at_ms) = ((10_000 + number).to_string(), Value::Object(fields.clone()), effect.at_ms);
        let issue = JiraIssue { id, key: format!("{JIRA_PROJECT}-{number}"), labels, open: true, fields, at_ms };
        effect.target.clone_from(&issue.key);
        effect.key = key;
        inside.jira.issues.push(issue.clone());
        inside.journal.effects.push(effect);
        issue
    });
    answer(StatusCode::CREATED, &json!({"id": issue.id, "key": issue.key, "self": link(&world, &issue)}))
}

/// What is wrong with a new issue, by field.
fn problems(fields: &Map<String, Value>, required: &[String], server: bool) -> BTreeMap<String, String> {
    let mut problems = BTreeMap::new();
    let mut say = |field: &str, problem: &str| {
        problems.entry(field.to_owned()).or_insert_with(|| problem.to_owned());
    };
    let of = |field: &str, key: &str| fields.get(field).and_then(|value| value.get(key)).and_then(Value::as_str);
    if of("project", "key") != Some(JIRA_PROJECT) {
        say("project", "valid project is required");
    }
    if !of("issuetype", "name").is_some_and(|name| ISSUE_TYPES.contains(&name)) {
        say("issuetype", "Specify a valid issue type");
    }
    match fields.get("summary").and_then(Value::as_str) {
        None | Some("") => say("summary", "You must specify a summary of the issue."),
        Some(text) if text.contains('\n') => {
            say("summary", "The summary is invalid because it contains newline characters.")
        }
        Some(text) if text.chars().count() > 255 => say("summary", "Summary must be less than 255 characters."),
        Some(_) => {}
    }
    match fields.get("description") {
        Some(Value::String(text)) if server && text.chars().count() <= 32_767 => {}
        Some(text) if !server && is_document(text) => {}
        None => {}
        Some(_) if server => say("description", "Operation value must be a string"),
        Some(_) => {
            say("description", "Operation value must be an Atlassian Document (see the Atlassian Document Format)")
        }
    }
    for label in texts(fields.get("labels")) {
        if label.contains(char::is_whitespace) {
            say("labels", &format!("The label '{label}' contains spaces which is invalid."));
        } else if label.chars().count() > 255 {
            say("labels", &format!("The label '{label}' exceeds the maximum length for a label of 255 characters."));
        }
    }
    if fields.contains_key("priority") && !of("priority", "name").is_some_and(|name| PRIORITIES.contains(&name)) {
        say("priority", "The priority selected is invalid.");
    }
    let who = if server { "name" } else { "accountId" };
    if fields.contains_key("assignee") && of("assignee", who).is_none_or(str::is_empty) {
        say("assignee", "User does not exist.");
    }
    for field in fields.keys().filter(|field| !FIELDS.contains(&field.as_str())) {
        say(field, &format!("Field '{field}' cannot be set. It is not on the appropriate screen, or unknown."));
    }
    for field in required.iter().filter(|field| fields.get(*field).is_none_or(Value::is_null)) {
        say(field, &format!("{field} is required."));
    }
    problems
}

/// A document of paragraphs whose texts are not empty.
fn is_document(value: &Value) -> bool {
    let kind = |value: &Value, wanted: &str| value.get("type").and_then(Value::as_str) == Some(wanted);
    let content = |value: &Value| value.get("content").and_then(Value::as_array).cloned().unwrap_or_default();
    let is_text = |node: &Value| {
        kind(node, "hardBreak")
            || kind(node, "text") && node.get("text").and_then(Value::as_str).is_some_and(|text| !text.is_empty())
    };
    kind(value, "doc")
        && value.get("version") == Some(&json!(1))
        && value.get("content").is_some_and(Value::is_array)
        && content(value).iter().all(|block| kind(block, "paragraph") && content(block).iter().all(is_text))
        && value.to_string().chars().count() <= 32_767
}

fn texts(list: Option<&Value>) -> impl Iterator<Item = &str> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

async fn find(State(world): State<Arc<World>>, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let text = body.get("jql").and_then(Value::as_str).unwrap_or_default();
    let Some(query) = Jql::parse(text) else {
        return refusal(StatusCode::BAD_REQUEST, "Error in the JQL Query");
    };
    if let Some(project) = query.terms.iter().find_map(|term| match term {
        Term::Project(project) if project != JIRA_PROJECT => Some(project),
        _ => None,
    }) {
        let problem = format!("The value '{project}' does not exist for the field 'project'.");
        return refusal(StatusCode::BAD_REQUEST, &problem);
    }
    let lag = u64::try_from(world.options.jira_search_lag.as_millis()).unwrap_or(u64::MAX);
    let now = world.at_ms();
    let wanted: Vec<&str> = texts(body.get("fields")).collect();
    let most = body.get("maxResults").and_then(Value::as_u64).and_then(|most| usize::try_from(most).ok()).unwrap_or(50);
    let found: Vec<JiraIssue> = world.read(|inside| {
        let shown = inside.jira.issues.iter().rev().filter(|issue| issue.at_ms.saturating_add(lag) <= now);
        shown.filter(|issue| query.matches(issue)).take(most).cloned().collect()
    });
    let issues: Vec<_> = found.iter().map(|issue| shown(&world, issue, &wanted)).collect();
    let body = if world.options.jira_server {
        json!({"startAt": 0, "maxResults": most, "total": issues.len(), "issues": issues})
    } else {
        json!({"issues": issues, "isLast": true})
    };
    answer(StatusCode::OK, &body)
}

async fn read(
    State(world): State<Arc<World>>,
    Path(wanted): Path<String>,
    Query(parameters): Query<HashMap<String, String>>,
) -> Response {
    let found = world.read(|inside| {
        let mut issues = inside.jira.issues.iter();
        issues.find(|issue| issue.id == wanted || issue.key == wanted).cloned()
    });
    let fields: Vec<&str> = parameters.get("fields").map(|fields| fields.split(',').collect()).unwrap_or_default();
    match found {
        Some(issue) => answer(StatusCode::OK, &shown(&world, &issue, &fields)),
        None => refusal(StatusCode::NOT_FOUND, "Issue does not exist or you do not have permission to see it."),
    }
}

async fn myself(State(world): State<Arc<World>>) -> Response {
    let mut body = json!({"displayName": "Okta Responder", "active": true, "emailAddress": JIRA_USER});
    let (name, value) = if world.options.jira_server { ("name", "responder") } else { ("accountId", "5b10simulated") };
    if let Some(body) = body.as_object_mut() {
        body.insert(name.to_owned(), json!(value));
    }
    answer(StatusCode::OK, &body)
}

async fn project(Path(key): Path<String>) -> Response {
    if key != JIRA_PROJECT {
        return refusal(StatusCode::NOT_FOUND, &format!("No project could be found with key '{key}'."));
    }
    let types: Vec<_> = ISSUE_TYPES.iter().map(|name| json!({"name": name, "subtask": false})).collect();
    answer(StatusCode::OK, &json!({"id": "10000", "key": key, "name": "Security", "issueTypes": types}))
}

async fn permissions(State(world): State<Arc<World>>, Query(parameters): Query<HashMap<String, String>>) -> Response {
    if parameters.get("projectKey").map(String::as_str) != Some(JIRA_PROJECT) {
        return refusal(StatusCode::NOT_FOUND, "No project could be found with that key.");
    }
    let may = world.read(|inside| !inside.jira.closed);
    let names = parameters.get("permissions").map_or("", String::as_str).split(',');
    let told: Map<_, _> = names
        .map(|name| (name.to_owned(), json!({"key": name, "havePermission": may || name != "CREATE_ISSUES"})))
        .collect();
    answer(StatusCode::OK, &json!({"permissions": told}))
}

/// The issue as it is sent, with the fields that are asked for.
fn shown(world: &World, issue: &JiraIssue, wanted: &[&str]) -> Value {
    let (name, category) = if issue.open { ("To Do", "new") } else { ("Done", "done") };
    let mut fields = issue.fields.as_object().cloned().unwrap_or_default();
    fields.insert("status".to_owned(), json!({"name": name, "statusCategory": {"key": category, "name": name}}));
    fields.retain(|field, _| wanted.contains(&field.as_str()));
    json!({"id": issue.id, "key": issue.key, "self": link(world, issue), "fields": fields})
}

fn link(world: &World, issue: &JiraIssue) -> String {
    let version = if world.options.jira_server { 2 } else { 3 };
    format!("{}/rest/api/{version}/issue/{}", world.addresses.jira, issue.id)
}

/// `project = "A" AND labels = "b" AND statusCategory != Done ORDER BY created DESC`, which is all of the language that is
/// understood here.
struct Jql {
    terms: Vec<Term>,
}

enum Term {
    Project(String),
    Label(String),
    Open,
}

impl Jql {
    fn parse(text: &str) -> Option<Self> {
        let mut terms = Vec::new();
        let mut rest = text.trim();
        loop {
            let (term, behind) = if let Some(behind) = rest.strip_prefix("statusCategory != Done") {
                (Term::Open, behind)
            } else if let Some(value) = rest.strip_prefix("project = ") {
                let (value, behind) = quoted(value)?;
                (Term::Project(value), behind)
            } else {
                let (value, behind) = quoted(rest.strip_prefix("labels = ")?)?;
                (Term::Label(value), behind)
            };
            terms.push(term);
            rest = behind.trim_start();
            match rest.strip_prefix("AND ") {
                Some(more) => rest = more.trim_start(),
                None if rest.is_empty() || rest == "ORDER BY created DESC" => return Some(Self { terms }),
                None => return None,
            }
        }
    }

    fn matches(&self, issue: &JiraIssue) -> bool {
        self.terms.iter().all(|term| match term {
            Term::Project(_) => true,
            Term::Label(wanted) => issue.labels.iter().any(|label| label.eq_ignore_ascii_case(wanted)),
            Term::Open => issue.open,
        })
    }
}

/// A text in quotes, and what stands behind it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.strip_prefix('"')?.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, text.get(at + 2..)?)),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

fn refusal(status: StatusCode, problem: &str) -> Response {
    answer(status, &json!({"errorMessages": [problem], "errors": {}}))
}

fn answer(status: StatusCode, body: &Value) -> Response {
    (status, [(CONTENT_TYPE, "application/json;charset=UTF-8")], body.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(fields: Value, server: bool, expected: &[&str]) {
        let problems = problems(fields.as_object().unwrap(), &["customfield_10010".to_owned()], server);
        assert_eq!(problems.keys().map(String::as_str).collect::<Vec<_>>(), expected, "{problems:?}");
    }

    fn with(more: Value) -> Value {
        let mut fields = json!({"project": {"key": "SEC"}, "issuetype": {"name": "Task"}, "summary": "x",
                                "customfield_10010": "x"});
        fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        fields
    }

    #[test]
    fn an_issue_is_refused_for_what_jira_refuses_it_for() {
        let document = json!({"type": "doc", "version": 1, "content": [
            {"type": "paragraph", "content": [{"type": "text", "text": "x"}]}
        ]});
        let empty = json!({"type": "doc", "version": 1, "content": [
            {"type": "paragraph", "content": [{"type": "text", "text": ""}]}
        ]});
        check(with(json!({"description": document, "labels": ["a"], "assignee": {"accountId": "1"}})), false, &[]);
        check(with(json!({"description": "x", "assignee": {"name": "ada"}})), true, &[]);
        check(json!({}), false, &["customfield_10010", "issuetype", "project", "summary"]);
        check(with(json!({"description": "x"})), false, &["description"]);
        check(with(json!({"description": empty})), false, &["description"]);
        check(with(json!({"description": document})), true, &["description"]);
        check(with(json!({"labels": ["a b"]})), false, &["labels"]);
        check(with(json!({"summary": "a\nb"})), false, &["summary"]);
        check(with(json!({"summary": "s".repeat(256)})), false, &["summary"]);
        check(with(json!({"priority": {"name": "P1"}})), false, &["priority"]);
        check(with(json!({"assignee": {"name": "ada"}})), false, &["assignee"]);
        check(with(json!({"no_such_field": 1})), false, &["no_such_field"]);
        check(with(json!({"customfield_10010": null})), false, &["customfield_10010"]);
    }

    #[test]
    fn queries_select_by_labels_whatever_their_case_and_leave_out_what_is_closed() {
        let issue = |label: &str, open| JiraIssue {
            id: "1".to_owned(),
            key: "SEC-1".to_owned(),
            labels: vec![label.to_owned()],
            open,
            fields: Value::Null,
            at_ms: 0,
        };
        let matches = |text: &str, issue: &JiraIssue| Jql::parse(text).map(|query| query.matches(issue));
        let open = r#"project = "SEC" AND labels = "a\"b\\" AND statusCategory != Done ORDER BY created DESC"#;
        assert_eq!(matches(open, &issue("A\"b\\", true)), Some(true));
        assert_eq!(matches(open, &issue("a\"b\\", false)), Some(false));
        assert_eq!(matches(open, &issue("a", true)), Some(false));
        assert_eq!(matches(r#"labels = "a""#, &issue("a", false)), Some(true));
        for wrong in ["", "labels = a", r#"labels = "a" OR project = "SEC""#, r#"label = "a""#, r#"labels = "a"#] {
            assert_eq!(matches(wrong, &issue("a", true)), None, "{wrong}");
        }
    }
}
