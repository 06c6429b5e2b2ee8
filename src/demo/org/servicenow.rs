//! The Table API of a ServiceNow instance (ServiceNow REST API reference, Table API), with its traps: nothing is
//! unique, fields that do not exist are dropped, and a query part that names one is ignored.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use url::form_urlencoded;

use super::Org;
use super::effects::Service;
use super::faults::{Gate, html, misbehave, note};
use super::world::World;

/// The user of basic authentication and of OAuth's password grant.
pub const SERVICENOW_USER: &str = "svc.responder";

/// That user's password.
pub const SERVICENOW_PASSWORD: &str = "simulated-password";

/// The OAuth client.
pub const SERVICENOW_CLIENT_ID: &str = "simulated-client";

/// That client's secret.
pub const SERVICENOW_CLIENT_SECRET: &str = "simulated-client-secret";

/// The fields a record of any table has; every other one is unknown.
const FIELDS: &[&str] = &[
    "number",
    "sys_id",
    "sys_created_on",
    "sys_updated_on",
    "sys_created_by",
    "short_description",
    "description",
    "urgency",
    "impact",
    "priority",
    "severity",
    "state",
    "active",
    "caller_id",
    "assigned_to",
    "assignment_group",
    "category",
    "subcategory",
    "contact_type",
    "correlation_id",
    "correlation_display",
    "work_notes",
    "comments",
    "close_code",
    "close_notes",
    "opened_at",
    "closed_at",
    "cmdb_ci",
    "business_service",
];

/// Those that hold the sys_id of another record.
const REFERENCES: &[(&str, &str)] = &[
    ("caller_id", "sys_user"),
    ("assigned_to", "sys_user"),
    ("assignment_group", "sys_user_group"),
    ("cmdb_ci", "cmdb_ci"),
    ("business_service", "cmdb_ci_service"),
];

/// Journals: what is sent is added, and it is shown only to those who ask for display values.
const JOURNALS: &[&str] = &["work_notes", "comments"];

/// What `sys_*` fields and the number may not be set to by a client.
const READ_ONLY: &[&str] = &["number", "sys_id", "sys_created_on", "sys_updated_on", "sys_created_by"];

type Record = BTreeMap<String, String>;

/// The tables, and the OAuth tokens that were issued.
#[derive(Debug)]
pub(super) struct Tables {
    tables: BTreeMap<String, Vec<Record>>,
    tokens: Vec<String>,
    tokens_made: u64,
    made: u64,
    /// The roles of the account; `None` when the instance does not let it read them.
    roles: Option<Vec<String>>,
}

impl Default for Tables {
    fn default() -> Self {
        Self {
            tables: BTreeMap::new(),
            tokens: Vec::new(),
            tokens_made: 0,
            made: 0,
            roles: Some(vec!["itil".to_owned()]),
        }
    }
}

impl Org {
    /// Gives the account other roles; `None`: it may not read which it has. What it may write stays as it is.
    pub fn servicenow_roles(&self, roles: Option<&[&str]>) {
        let roles = roles.map(|roles| roles.iter().map(|role| (*role).to_owned()).collect());
        self.world.change(|inside| inside.tables.roles = roles);
    }
}

impl Tables {
    pub(super) fn records(&self, table: &str) -> Vec<Value> {
        self.tables.get(table).into_iter().flatten().map(|record| json!(record)).collect()
    }

    pub(super) fn close(&mut self, table: &str, number: &str) -> bool {
        let records = self.tables.get_mut(table).into_iter().flatten();
        let mut found = records.filter(|record| record.get("number").is_some_and(|known| known == number));
        found.next().map(|record| change(record, "state", "7")).is_some()
    }

    pub(super) fn revoke_tokens(&mut self) {
        self.tokens.clear();
    }

    fn create(&mut self, table: &str, given: &Map<String, Value>, now: &str) -> Record {
        self.made += 1;
        let mut record: Record = FIELDS.iter().map(|field| ((*field).to_owned(), String::new())).collect();
        let defaults = [("urgency", "3"), ("impact", "3"), ("severity", "3"), ("state", "1"), ("opened_at", now)];
        for (field, value) in defaults {
            record.insert(field.to_owned(), value.to_owned());
        }
        let number = format!("{}{:07}", if table == "incident" { "INC" } else { "SIR" }, 10_000 + self.made);
        record.insert("number".to_owned(), number);
        record.insert("sys_id".to_owned(), format!("{:032x}", u128::from(self.made) * 0x9e37_79b9_7f4a_7c15_f39c));
        record.insert("sys_created_on".to_owned(), now.to_owned());
        record.insert("sys_created_by".to_owned(), SERVICENOW_USER.to_owned());
        update(&mut record, given, now);
        self.tables.entry(table.to_owned()).or_default().push(record.clone());
        record
    }
}

/// Takes over the fields that exist and may be written, and calculates those that follow from others.
fn update(record: &mut Record, given: &Map<String, Value>, now: &str) {
    for (field, value) in given {
        if FIELDS.contains(&field.as_str()) && !READ_ONLY.contains(&field.as_str()) {
            change(record, field, &plain(value));
        }
    }
    record.insert("sys_updated_on".to_owned(), now.to_owned());
    let weight = |field: &str| record.get(field).and_then(|value| value.parse::<u32>().ok()).unwrap_or(3);
    let priority = (weight("impact") + weight("urgency")).saturating_sub(1).clamp(1, 5);
    record.insert("priority".to_owned(), priority.to_string());
    let active = !is_end(record, record.get("state").map_or("", String::as_str));
    record.insert("active".to_owned(), active.to_string());
}

fn change(record: &mut Record, field: &str, value: &str) {
    if field == "state" {
        let active = !is_end(record, value);
        record.insert("active".to_owned(), active.to_string());
    }
    if JOURNALS.contains(&field) {
        let before = record.get(field).filter(|before| !before.is_empty());
        let all = before.map_or_else(|| value.to_owned(), |before| format!("{value}\n\n{before}"));
        record.insert(field.to_owned(), all);
        return;
    }
    record.insert(field.to_owned(), value.to_owned());
}

/// Whether the record is closed in this state: closed and cancelled are 7 and 8 for incidents, 3 and 7 for those of
/// security.
fn is_end(record: &Record, state: &str) -> bool {
    let is_incident = record.get("number").is_some_and(|number| number.starts_with("INC"));
    if is_incident { matches!(state, "7" | "8") } else { matches!(state, "3" | "7") }
}

/// The data policy of a delivered instance: what is resolved or closed says why. The field that is missing.
fn missing_for_end(record: &Record, given: &Map<String, Value>) -> Option<&'static str> {
    let state = plain(given.get("state")?);
    let is_resolved = state == "6" && record.get("number").is_some_and(|number| number.starts_with("INC"));
    let has = |field: &str| {
        given.get(field).map(plain).or_else(|| record.get(field).cloned()).is_some_and(|value| !value.is_empty())
    };
    let named = [("close_code", "Resolution code"), ("close_notes", "Resolution notes")];
    let missing = named.into_iter().find(|(field, _)| !has(field)).map(|(_, label)| label);
    missing.filter(|_| is_resolved || is_end(record, &state))
}

/// Every value is kept as text.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// The instance.
pub(super) fn router(world: &Arc<World>) -> Router {
    let gate = Gate { world: Arc::clone(world), service: Service::ServiceNow };
    let tables = Router::new()
        .route("/api/now/table/{table}", get(find).post(create))
        .route("/api/now/table/{table}/{sys_id}", get(read).patch(modify).put(modify))
        .layer(from_fn_with_state(Arc::clone(world), admit));
    Router::new()
        .route("/oauth_token.do", post(issue_token))
        .merge(tables)
        .layer(from_fn_with_state(Arc::clone(world), sleep_if_asleep))
        .layer(from_fn_with_state(gate.clone(), misbehave))
        .layer(from_fn_with_state(gate, note))
        .with_state(Arc::clone(world))
}

/// An error answer in the shape of all of them.
pub(super) fn error(status: u16, message: &str, detail: &str) -> Response {
    let body = json!({"error": {"message": message, "detail": detail}, "status": "failure"});
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer(status, &body)
}

async fn sleep_if_asleep(State(world): State<Arc<World>>, request: Request, next: Next) -> Response {
    if world.options.hibernating { html() } else { next.run(request).await }
}

async fn admit(State(world): State<Arc<World>>, request: Request, next: Next) -> Response {
    let given = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let login = world.read(|inside| format!("{SERVICENOW_USER}:{}", inside.secrets.servicenow_password));
    let basic = format!("Basic {}", STANDARD.encode(login));
    let by_token = |token: &str| world.read(|inside| inside.tables.tokens.iter().any(|known| known == token));
    if given == basic || given.strip_prefix("Bearer ").is_some_and(by_token) {
        next.run(request).await
    } else {
        error(401, "User Not Authenticated", "Required to provide Auth information")
    }
}

/// OAuth: a form and nothing else.
async fn issue_token(State(world): State<Arc<World>>, headers: HeaderMap, body: Bytes) -> Response {
    let media = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !media.starts_with("application/x-www-form-urlencoded") {
        return answer(StatusCode::BAD_REQUEST, &json!({"error": "server_error", "error_description": "unspecified"}));
    }
    let form: HashMap<String, String> = form_urlencoded::parse(&body).into_owned().collect();
    let is = |name: &str, value: &str| form.get(name).is_some_and(|given| given == value);
    let secrets = world.read(|inside| inside.secrets.clone());
    let client = is("client_id", SERVICENOW_CLIENT_ID) && is("client_secret", &secrets.servicenow_client_secret);
    let granted = match form.get("grant_type").map(String::as_str) {
        Some("password") => is("username", SERVICENOW_USER) && is("password", &secrets.servicenow_password),
        Some("refresh_token") => is("refresh_token", "simulated-refresh-token"),
        Some("client_credentials") => true,
        _ => false,
    };
    if !(client && granted) {
        let body = json!({"error": "access_denied", "error_description": "access_denied"});
        return answer(StatusCode::UNAUTHORIZED, &body);
    }
    let token = world.change(|inside| {
        inside.tables.tokens_made += 1;
        let token = format!("simulated-access-token-{}", inside.tables.tokens_made);
        inside.tables.tokens.push(token.clone());
        token
    });
    let body = json!({
        "access_token": token, "refresh_token": "simulated-refresh-token", "scope": "useraccount",
        "token_type": "Bearer", "expires_in": 1799,
    });
    answer(StatusCode::OK, &body)
}

type Parameters = Query<HashMap<String, String>>;

async fn find(State(world): State<Arc<World>>, Path(table): Path<String>, Query(parameters): Parameters) -> Response {
    if table == "sys_user_has_role" {
        return find_roles(&world);
    }
    let query = EncodedQuery::parse(parameters.get("sysparm_query").map_or("", String::as_str));
    let limit = parameters.get("sysparm_limit").and_then(|limit| limit.parse().ok()).unwrap_or(10_000);
    let found = world.read(|inside| {
        let records = inside.tables.tables.get(&table).into_iter().flatten();
        query.run(records.collect()).into_iter().cloned().collect::<Vec<Record>>()
    });
    let total = HeaderValue::from(found.len());
    let shown: Vec<Value> = found.iter().take(limit).map(|record| show(&world, record, &parameters)).collect();
    let mut response = answer(StatusCode::OK, &json!({"result": shown}));
    response.headers_mut().insert(HeaderName::from_static("x-total-count"), total);
    response
}

/// The roles of the account, whatever is asked for, with one of somebody else: a part of a query that is not understood
/// is ignored.
fn find_roles(world: &World) -> Response {
    let Some(roles) = world.read(|inside| inside.tables.roles.clone()) else {
        return error(
            403,
            "Insufficient rights to query records",
            "ACL Exception Query Failed due to security constraints",
        );
    };
    let mut rows = vec![json!({"role.name": "admin", "user.user_name": "somebody.else"})];
    rows.extend(roles.iter().map(|role| json!({"role.name": role, "user.user_name": SERVICENOW_USER})));
    answer(StatusCode::OK, &json!({"result": rows}))
}

async fn create(
    State(world): State<Arc<World>>,
    Path(table): Path<String>,
    Query(parameters): Parameters,
    body: Bytes,
) -> Response {
    let Ok(Value::Object(given)) = serde_json::from_slice(&body) else { return unreadable() };
    let now = wall_time(&world);
    let mut effect = world.effect(Service::ServiceNow, "incident.create", String::new(), Value::Object(given.clone()));
    let record = world.change(|inside| {
        let record = inside.tables.create(&table, &given, &now);
        effect.target = record.get("sys_id").cloned().unwrap_or_default();
        effect.key = record.get("correlation_id").filter(|key| !key.is_empty()).cloned();
        inside.journal.effects.push(effect);
        record
    });
    let sys_id = record.get("sys_id").cloned().unwrap_or_default();
    let location = format!("{}/api/now/table/{table}/{sys_id}", world.addresses.servicenow);
    let mut response = answer(StatusCode::CREATED, &json!({"result": show(&world, &record, &parameters)}));
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

async fn read(
    State(world): State<Arc<World>>,
    Path((table, sys_id)): Path<(String, String)>,
    Query(parameters): Parameters,
) -> Response {
    let found = world.read(|inside| find_record(&mut inside.tables, &table, &sys_id).cloned());
    match found {
        Some(record) => answer(StatusCode::OK, &json!({"result": show(&world, &record, &parameters)})),
        None => no_record(),
    }
}

async fn modify(
    State(world): State<Arc<World>>,
    Path((table, sys_id)): Path<(String, String)>,
    Query(parameters): Parameters,
    body: Bytes,
) -> Response {
    let Ok(Value::Object(given)) = serde_json::from_slice(&body) else { return unreadable() };
    let now = wall_time(&world);
    let mut effect = world.effect(Service::ServiceNow, "incident.update", sys_id.clone(), Value::Object(given.clone()));
    let missing = world.read(|inside| {
        find_record(&mut inside.tables, &table, &sys_id).and_then(|record| missing_for_end(record, &given))
    });
    if let Some(label) = missing {
        let detail = format!("Data Policy Exception: The following fields are mandatory: {label}");
        return error(403, "Operation Failed", &detail);
    }
    let found = world.change(|inside| {
        let record = find_record(&mut inside.tables, &table, &sys_id)?;
        let before = record.clone();
        update(record, &given, &now);
        let after = record.clone();
        effect.key = after.get("correlation_id").filter(|key| !key.is_empty()).cloned();
        effect.changed = before != after;
        inside.journal.effects.push(effect);
        Some(after)
    });
    match found {
        Some(record) => answer(StatusCode::OK, &json!({"result": show(&world, &record, &parameters)})),
        None => no_record(),
    }
}

fn find_record<'a>(tables: &'a mut Tables, table: &str, sys_id: &str) -> Option<&'a mut Record> {
    let records = tables.tables.get_mut(table)?;
    records.iter_mut().find(|record| record.get("sys_id").is_some_and(|known| known == sys_id))
}

fn no_record() -> Response {
    error(404, "No Record found", "Record doesn't exist or ACL restricts the record retrieval")
}

fn unreadable() -> Response {
    error(400, "Exception while reading request", "The payload is not valid JSON")
}

/// The record as it is sent: only the fields asked for, references as link and value.
fn show(world: &World, record: &Record, parameters: &HashMap<String, String>) -> Value {
    let wanted: Option<Vec<&str>> =
        parameters.get("sysparm_fields").filter(|fields| !fields.is_empty()).map(|fields| fields.split(',').collect());
    let bare = parameters.get("sysparm_exclude_reference_link").is_some_and(|value| value == "true");
    let displayed = parameters.get("sysparm_display_value").is_some_and(|value| value == "true");
    let shown = |field: &str, value: &String| {
        if JOURNALS.contains(&field) && !displayed {
            return Value::from("");
        }
        let table = REFERENCES.iter().find(|(name, _)| *name == field).map(|(_, table)| table);
        match table.filter(|_| !value.is_empty() && !bare) {
            Some(table) => {
                let link = format!("{}/api/now/table/{table}/{value}", world.addresses.servicenow);
                json!({"link": link, "value": value})
            }
            None => Value::from(value.as_str()),
        }
    };
    let fields = record
        .iter()
        .filter(|(field, _)| wanted.as_ref().is_none_or(|wanted| wanted.contains(&field.as_str())))
        .map(|(field, value)| (field.clone(), shown(field, value)));
    Value::Object(fields.collect())
}

/// ServiceNow's times have no zone and no letter T.
fn wall_time(world: &World) -> String {
    world.clock.now().strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// `a=b^c!=d^eNOT IN1,2^ORDERBYDESCf`
struct EncodedQuery {
    terms: Vec<Term>,
    /// Field, and whether the largest comes first.
    order: Option<(String, bool)>,
}

struct Term {
    field: String,
    operator: Operator,
    values: Vec<String>,
}

#[derive(Clone, Copy)]
enum Operator {
    In,
    NotIn,
    Contains,
}

impl EncodedQuery {
    /// A part whose field does not exist is left out, and the query is run with the rest. That is how ServiceNow does
    /// it unless an administrator says otherwise, and it is why a client has to look at what it got.
    fn parse(text: &str) -> Self {
        let mut query = Self { terms: Vec::new(), order: None };
        for part in text.split('^').filter(|part| !part.is_empty()) {
            if let Some(field) = part.strip_prefix("ORDERBYDESC") {
                query.order = Some((field.to_owned(), true));
            } else if let Some(field) = part.strip_prefix("ORDERBY") {
                query.order = Some((field.to_owned(), false));
            } else {
                query.terms.extend(Term::parse(part));
            }
        }
        query.order = query.order.filter(|(field, _)| FIELDS.contains(&field.as_str()));
        query
    }

    fn run<'a>(&self, records: Vec<&'a Record>) -> Vec<&'a Record> {
        let mut found: Vec<&Record> =
            records.into_iter().filter(|record| self.terms.iter().all(|term| term.matches(record))).collect();
        if let Some((field, descending)) = &self.order {
            found.sort_by_key(|record| record.get(field));
            // So of two records of one second the later one comes first, too.
            if *descending {
                found.reverse();
            }
        }
        found
    }
}

impl Term {
    fn parse(part: &str) -> Option<Self> {
        let operators = [
            ("NOT IN", Operator::NotIn),
            ("!=", Operator::NotIn),
            ("=", Operator::In),
            ("LIKE", Operator::Contains),
            ("IN", Operator::In),
        ];
        let end = part.find(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'))?;
        let (field, rest) = part.split_at(end);
        let (sign, operator) = operators.into_iter().find(|(sign, _)| rest.starts_with(sign))?;
        let value = rest.strip_prefix(sign)?;
        let values = if sign.ends_with("IN") { value.split(',').collect() } else { vec![value] };
        let values = values.into_iter().map(|value| value.trim().to_owned()).collect();
        FIELDS.contains(&field).then(|| Self { field: field.to_owned(), operator, values })
    }

    fn matches(&self, record: &Record) -> bool {
        let value = record.get(&self.field).map_or("", String::as_str);
        match self.operator {
            Operator::In => self.values.iter().any(|wanted| wanted == value),
            Operator::NotIn => self.values.iter().all(|unwanted| unwanted != value),
            Operator::Contains => self.values.iter().any(|part| value.contains(part)),
        }
    }
}

fn answer(status: StatusCode, body: &Value) -> Response {
    (status, [(CONTENT_TYPE, "application/json;charset=UTF-8")], body.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(query: &str, expected: &[&str]) {
        let mut tables = Tables::default();
        for (key, state) in [("k1", "1"), ("k2", "6"), ("k1", "7")] {
            let given = json!({"correlation_id": key, "state": state, "no_such_field": "x"});
            tables.create("incident", given.as_object().unwrap(), "2026-01-01 00:00:00");
        }
        let records = tables.tables.get("incident").unwrap().iter().collect();
        let found = EncodedQuery::parse(query).run(records);
        let numbers: Vec<&str> = found.iter().map(|record| record["number"].as_str()).collect();
        assert_eq!(numbers, expected, "{query}");
    }

    #[test]
    fn queries_select_and_order() {
        check("correlation_id=k1", &["INC0010001", "INC0010003"]);
        check("correlation_id=k1^ORDERBYDESCnumber", &["INC0010003", "INC0010001"]);
        check("active=true^correlation_id=k1", &["INC0010001"]);
        check("stateNOT IN6,7,8", &["INC0010001"]);
        check("stateIN6,7", &["INC0010002", "INC0010003"]);
        check("correlation_id!=k1", &["INC0010002"]);
    }

    #[test]
    fn a_part_with_an_unknown_field_is_ignored_and_the_rest_answers() {
        check("corelation_id=nothing^stateIN6", &["INC0010002"]);
    }

    #[test]
    fn unknown_fields_are_dropped_and_the_priority_is_calculated() {
        let mut tables = Tables::default();
        let given = json!({"urgency": 1, "impact": "2", "priority": "5", "no_such_field": "x", "sys_id": "mine"});
        let record = tables.create("incident", given.as_object().unwrap(), "2026-01-01 00:00:00");
        assert_eq!(record["priority"], "2");
        assert_eq!(record["urgency"], "1");
        assert_ne!(record["sys_id"], "mine");
        assert!(!record.contains_key("no_such_field"));
    }
}
