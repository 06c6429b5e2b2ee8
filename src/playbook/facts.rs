//! What conditions and templates may read.
//!
//! Most of it comes from the event alone; `user`, `manager`, `groups` and `user_risk` need a request each and are fetched
//! only when something names them. Every value is bounded here once, so that whatever reads it later is bounded too, and
//! what Okta may put login tokens into is cut out before anything can show it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use thiserror::Error;
use url::Url;

use super::shape::{Fields, Shape};
use crate::model::escape::percent_encoded;
use crate::model::event::{Entity, Event};
use crate::model::risk::Risk;

/// The most bytes kept of one string.
pub const MAX_STRING: usize = 4 * 1024;

/// The most elements kept of one list, and the most keys of one object.
pub const MAX_ITEMS: usize = 200;

/// The deepest nesting kept; what lies deeper is null.
pub const MAX_DEPTH: usize = 20;

/// The most bytes kept of the name of a field.
const MAX_KEY: usize = 256;

/// The name of the record itself.
pub const EVENT: &str = "event";

/// The name under which a step reads the steps before it.
pub const STEPS: &str = "steps";

/// Every name that a condition or a template may use, and what stands behind it: what the event alone fills, then the facts,
/// then the steps. What builds these values is tested against this table.
const SHAPES: [(&str, Shape); 11] = [
    (EVENT, Shape::Open),
    (
        "risk",
        Shape::Record(&[
            ("level", Shape::Level),
            ("previous_level", Shape::Level),
            ("detection", Shape::Text),
            ("reasons", Shape::List),
            ("reasons_text", Shape::Text),
            ("issuer", Shape::Text),
            ("source", Shape::Text),
        ]),
    ),
    ("target", Shape::Record(&[("id", Shape::Text), ("login", Shape::Text), ("name", Shape::Text)])),
    ("app", Shape::Record(&[("id", Shape::Text), ("name", Shape::Text)])),
    (
        "sign_in",
        Shape::Record(&[
            ("methods", Shape::List),
            ("ip", Shape::Text),
            ("user_agent", Shape::Text),
            ("browser", Shape::Text),
            ("os", Shape::Text),
            ("device", Shape::Text),
            ("city", Shape::Text),
            ("state", Shape::Text),
            ("country", Shape::Text),
            ("proxy", Shape::Flag),
            ("isp", Shape::Text),
            ("threat_suspected", Shape::Flag),
            ("behaviors", Shape::Open),
            ("behaviors_text", Shape::Text),
        ]),
    ),
    (
        "links",
        Shape::Record(&[
            ("org", Shape::Text),
            ("syslog", Shape::Text),
            ("event", Shape::Text),
            ("user", Shape::Text),
            ("app", Shape::Text),
        ]),
    ),
    ("user", Shape::Record(PERSON)),
    ("manager", Shape::Record(PERSON)),
    ("groups", Shape::List),
    ("user_risk", Shape::Level),
    (
        STEPS,
        Shape::Each(&[
            ("state", Shape::Text),
            ("url", Shape::Text),
            ("id", Shape::Text),
            ("number", Shape::Text),
            ("note", Shape::Text),
            ("error", Shape::Text),
            ("status", Shape::Number),
            ("body", Shape::Open),
        ]),
    ),
];

/// The fields of `user` and `manager`.
const PERSON: Fields = &[
    ("id", Shape::Text),
    ("login", Shape::Text),
    ("email", Shape::Text),
    ("first_name", Shape::Text),
    ("last_name", Shape::Text),
    ("name", Shape::Text),
    ("mobile_phone", Shape::Text),
    ("status", Shape::Text),
    ("manager_id", Shape::Text),
    ("profile", Shape::Open),
];

/// Something that needs a request to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// The affected user's profile and status.
    User,
    /// The affected user's manager.
    Manager,
    /// The groups that the affected user is in.
    Groups,
    /// The affected user's risk, from the configured source.
    UserRisk,
    /// The answers to what conditions ask of the past, by [`Question`](super::Question). It has no name there: its
    /// functions read it.
    Past,
}

impl Fact {
    /// Every fact.
    pub const ALL: [Self; 5] = [Self::User, Self::Manager, Self::Groups, Self::UserRisk, Self::Past];

    /// Its name in conditions and templates.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Manager => "manager",
            Self::Groups => "groups",
            Self::UserRisk => "user_risk",
            Self::Past => "past",
        }
    }

    /// Reads the name back.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fact| fact.as_str() == name)
    }

    fn bit(self) -> u8 {
        1 << (self as u8)
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of facts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FactSet(u8);

impl FactSet {
    /// The empty set.
    pub const EMPTY: Self = Self(0);

    /// Whether nothing is in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether a fact is in it.
    pub fn contains(self, fact: Fact) -> bool {
        self.0 & fact.bit() != 0
    }

    /// Puts a fact in.
    pub fn insert(&mut self, fact: Fact) {
        self.0 |= fact.bit();
    }

    /// What is in either.
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in it, in a fixed order.
    pub fn iter(self) -> impl Iterator<Item = Fact> {
        Fact::ALL.into_iter().filter(move |fact| self.contains(*fact))
    }
}

impl FromIterator<Fact> for FactSet {
    fn from_iter<I: IntoIterator<Item = Fact>>(facts: I) -> Self {
        let mut set = Self::EMPTY;
        facts.into_iter().for_each(|fact| set.insert(fact));
        set
    }
}

impl fmt::Display for FactSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.iter().map(Fact::as_str).collect();
        f.write_str(&names.join(", "))
    }
}

/// What asking for a fact gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FactValue {
    /// It is known. `null` means that there is none (a user without a manager), which conditions can ask for.
    Known(Value),
    /// It could not be had, and why. Whatever uses it fails with this reason.
    Missing(String),
    /// It was asked for in vain for as long as it is waited for, and why. A text that tells something says so in its place;
    /// whatever else uses it fails with this reason. It is not stored: who tries the step again asks again.
    GivenUp(String),
}

/// A step as the steps after it see it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct StepView {
    /// The word of its [`ActionState`](crate::model::action::ActionState).
    pub state: String,
    /// Where a person can look at what it made.
    pub url: Option<String>,
    /// The service's id of what it made.
    pub id: Option<String>,
    /// The number people use, such as `INC0010002`.
    pub number: Option<String>,
    /// What it found or left, in a sentence, such as "was a member already".
    pub note: Option<String>,
    /// Why it has not succeeded (yet).
    pub error: Option<String>,
    /// The status of the answer to `http.request`.
    pub status: Option<u16>,
    /// That answer, if it is JSON and small enough.
    pub body: Option<Value>,
}

/// Where links for people lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkBase {
    /// The org, without a slash at the end.
    pub org_url: String,
    /// Its admin console, without a slash at the end.
    pub admin_url: String,
}

impl LinkBase {
    /// Takes the org's URL and, if it is configured, the admin console's. Without it the admin console of a host of Okta
    /// is the same host with `-admin` behind its first label; of a custom domain it is taken to be the org itself.
    pub fn new(org_url: &str, admin_url: Option<&str>) -> Self {
        let org_url = org_url.trim_end_matches('/').to_owned();
        let admin_url = match admin_url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => derived_admin_url(&org_url).unwrap_or_else(|| org_url.clone()),
        };
        Self { org_url, admin_url }
    }

    /// The System Log of the admin console, searching for what `attribute` says.
    fn system_log(&self, attribute: &str, value: &str) -> String {
        let search = format!("{attribute} eq {}", Value::from(value));
        format!("{}/report/system_log_2?search={}", self.admin_url, percent_encoded(&search))
    }
}

/// What conditions and templates of one run may read.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Most events start nothing: what only the event tells is built when something reads it.
    from_event: Option<(Arc<Event>, LinkBase)>,
    fetched: BTreeMap<Fact, FactValue>,
    steps: BTreeMap<String, StepView>,
}

/// Stored facts that cannot be read back.
#[derive(Debug, Error)]
#[error("the stored facts of this run cannot be read; retry the run so that they are fetched again")]
pub struct StoredFactsError(#[source] serde_json::Error);

impl Facts {
    /// The facts of an event, as far as the event alone tells them.
    pub fn from_event(event: impl Into<Arc<Event>>, links: &LinkBase) -> Self {
        Self { from_event: Some((event.into(), links.clone())), ..Self::default() }
    }

    /// Every name that a condition or a template may use.
    pub fn names() -> impl Iterator<Item = &'static str> {
        SHAPES.iter().map(|(name, _)| *name)
    }

    /// What stands behind a name; `None` for one that nothing fills.
    pub fn shape(name: &str) -> Option<Shape> {
        SHAPES.iter().find(|(known, _)| *known == name).map(|(_, shape)| *shape)
    }

    /// The same, as a list for people.
    pub(super) fn names_for_people() -> String {
        Self::names().collect::<Vec<_>>().join(", ")
    }

    /// Records what asking for a fact gave. The value is bounded like everything else.
    pub fn set(&mut self, fact: Fact, value: FactValue) {
        let value = match value {
            FactValue::Known(value) => FactValue::Known(bounded(value)),
            FactValue::Missing(reason) => FactValue::Missing(cut(&reason, 500).to_owned()),
            FactValue::GivenUp(reason) => FactValue::GivenUp(cut(&reason, 500).to_owned()),
        };
        self.fetched.insert(fact, value);
    }

    /// What asking for a fact gave; `None` when nobody has asked yet.
    pub fn get(&self, fact: Fact) -> Option<&FactValue> {
        self.fetched.get(&fact)
    }

    /// The answer to what a condition asks of the past; `None` when nobody has asked, null when there is none.
    pub(super) fn answer(&self, question: &str) -> Option<&Value> {
        match self.fetched.get(&Fact::Past)? {
            FactValue::Known(answers) => answers.get(question),
            FactValue::Missing(_) | FactValue::GivenUp(_) => None,
        }
    }

    /// The event's own time, if there is an event.
    pub(super) fn published(&self) -> Option<Timestamp> {
        self.from_event.as_ref().map(|(event, _)| event.published)
    }

    /// Lets a fact be asked for again.
    pub fn forget(&mut self, fact: Fact) {
        self.fetched.remove(&fact);
    }

    /// Those of `wanted` that nobody has asked for yet.
    pub fn not_fetched(&self, wanted: FactSet) -> FactSet {
        wanted.iter().filter(|fact| !self.fetched.contains_key(fact)).collect()
    }

    /// Why a fact could not be had, if it could not.
    pub fn reason_missing(&self, fact: Fact) -> Option<&str> {
        match self.fetched.get(&fact) {
            Some(FactValue::Missing(reason) | FactValue::GivenUp(reason)) => Some(reason),
            Some(FactValue::Known(_)) | None => None,
        }
    }

    /// The same facts for a text that only tells something: what was given up says so, field by field.
    pub fn for_telling(&self) -> Cow<'_, Self> {
        let given_up = |value: &FactValue| matches!(value, FactValue::GivenUp(_));
        if !self.fetched.values().any(given_up) {
            return Cow::Borrowed(self);
        }
        let mut told = self.clone();
        for (fact, value) in told.fetched.iter_mut().filter(|(_, value)| given_up(value)) {
            let shape = Self::shape(fact.as_str()).unwrap_or(Shape::Open);
            *value = FactValue::Known(shape.not_known());
        }
        Cow::Owned(told)
    }

    /// Shows a step to the steps after it. Its name is written with `_` for every `-` there.
    pub fn set_step(&mut self, name: &str, view: StepView) {
        let short = |text: Option<String>| text.map(|text| cut(&text, MAX_STRING).to_owned());
        let view = StepView {
            state: view.state,
            url: short(view.url),
            id: short(view.id),
            number: short(view.number),
            note: short(view.note),
            error: short(view.error),
            status: view.status,
            body: view.body.map(bounded),
        };
        self.steps.insert(step_identifier(name), view);
    }

    /// What was fetched, for the store: `{"user": {"known": …}, "manager": {"missing": "…"}}`.
    pub fn fetched_json(&self) -> Value {
        let kept = self.fetched.iter().filter(|(_, value)| !matches!(value, FactValue::GivenUp(_)));
        serde_json::to_value(kept.collect::<BTreeMap<_, _>>()).unwrap_or_default()
    }

    /// Takes back what [`Facts::fetched_json`] gave, beside what is already there.
    pub fn restore_fetched(&mut self, stored: &Value) -> Result<(), StoredFactsError> {
        let fetched: BTreeMap<Fact, FactValue> = Deserialize::deserialize(stored).map_err(StoredFactsError)?;
        fetched.into_iter().for_each(|(fact, value)| self.set(fact, value));
        Ok(())
    }

    /// The value of a name, if it is known now.
    pub(super) fn value(&self, name: &str) -> Option<Value> {
        if name == STEPS {
            return serde_json::to_value(&self.steps).ok();
        }
        if let Some(value) = self.told_by_event(name) {
            return Some(bounded(value));
        }
        match self.fetched.get(&Fact::parse(name)?)? {
            FactValue::Known(value) => Some(value.clone()),
            FactValue::Missing(_) | FactValue::GivenUp(_) => None,
        }
    }

    /// These fields of the event and no others.
    pub(super) fn event_part(&self, fields: &BTreeSet<String>) -> Option<Value> {
        let (event, _) = self.from_event.as_ref()?;
        let part = fields.iter().filter_map(|name| Some((name.clone(), event.body.get(name)?.clone()))).collect();
        Some(bounded(without_tokens(Value::Object(part))))
    }

    fn told_by_event(&self, name: &str) -> Option<Value> {
        let (event, links) = self.from_event.as_ref()?;
        let (user, app) = (event.affected_user(), event.target("AppInstance"));
        match name {
            EVENT => Some(redacted(&event.body)),
            "risk" => serde_json::to_value(Risk::of(event)).ok(),
            "target" => Some(user.as_ref().map_or(Value::Null, user_json)),
            "app" => Some(app.as_ref().map_or(Value::Null, app_json)),
            "sign_in" => Some(sign_in(event)),
            "links" => Some(link_json(event, links, user.as_ref(), app.as_ref())),
            _ => None,
        }
    }
}

/// How a step is called behind `steps.`: its name, with `_` where an identifier may not have its character.
pub fn step_identifier(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

/// Cuts a text at a character boundary.
pub(super) fn cut(text: &str, most_bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(most_bytes)).unwrap_or(text)
}

fn bounded(mut value: Value) -> Value {
    bound(&mut value, 0);
    value
}

fn bound(value: &mut Value, depth: usize) {
    match value {
        Value::String(text) => text.truncate(text.floor_char_boundary(MAX_STRING)),
        Value::Array(_) | Value::Object(_) if depth >= MAX_DEPTH => *value = Value::Null,
        Value::Array(list) => {
            list.truncate(MAX_ITEMS);
            list.iter_mut().for_each(|item| bound(item, depth + 1));
        }
        Value::Object(object) => {
            if object.len() > MAX_ITEMS || object.keys().any(|key| key.len() > MAX_KEY) {
                let kept = std::mem::take(object).into_iter().take(MAX_ITEMS);
                *object = kept.map(|(key, item)| (cut(&key, MAX_KEY).to_owned(), item)).collect();
            }
            object.values_mut().for_each(|item| bound(item, depth + 1));
        }
        _ => {}
    }
}

/// The record without what can carry tokens. Okta puts whole request URLs, with login tokens and SAML requests in their
/// query, into `debugData`.
pub fn redacted(body: &Value) -> Value {
    without_tokens(body.clone())
}

fn without_tokens(mut body: Value) -> Value {
    if let Some(debug) = body.pointer_mut("/debugContext/debugData") {
        redact(debug);
    }
    body
}

fn redact(value: &mut Value) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(redact),
        Value::Object(object) => {
            for (key, item) in object.iter_mut() {
                if names_a_secret(key) {
                    *item = Value::from("[redacted]");
                } else {
                    match item {
                        Value::String(text) if is_address(key, text) => {
                            let end = text.find(['?', '#']).unwrap_or(text.len());
                            text.truncate(end);
                        }
                        other => redact(other),
                    }
                }
            }
        }
        Value::String(text) if is_address("", text) => {
            let end = text.find(['?', '#']).unwrap_or(text.len());
            text.truncate(end);
        }
        _ => {}
    }
}

fn is_address(key: &str, text: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let text = text.trim_start();
    key.ends_with("url") || key.ends_with("uri") || text.starts_with('/') || text.contains("://")
}

/// Whether a key is called like something that must not be shown.
pub(crate) fn names_a_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["token", "secret", "password", "saml", "assertion", "cookie", "authorization"]
        .iter()
        .any(|word| key.contains(word))
}

fn user_json(user: &Entity<'_>) -> Value {
    json!({"id": user.id, "login": user.alternate_id, "name": user.display_name})
}

fn app_json(app: &Entity<'_>) -> Value {
    json!({"id": app.id, "name": app.display_name.or(app.alternate_id)})
}

/// How and from where the request behind the event came. Every field is there; what the event doesn't tell is null.
fn sign_in(event: &Event) -> Value {
    let at = |pointer: &str| event.body.pointer(pointer).filter(|value| is_told(value)).cloned().unwrap_or_default();
    let behaviors = at("/debugContext/debugData/behaviors");
    json!({
        "methods": methods(event),
        "ip": at("/client/ipAddress"),
        "user_agent": at("/client/userAgent/rawUserAgent"),
        "browser": at("/client/userAgent/browser"),
        "os": at("/client/userAgent/os"),
        "device": at("/client/device"),
        "city": at("/client/geographicalContext/city"),
        "state": at("/client/geographicalContext/state"),
        "country": at("/client/geographicalContext/country"),
        "proxy": at("/securityContext/isProxy"),
        "isp": at("/securityContext/isp"),
        "threat_suspected": flag(&at("/debugContext/debugData/threatSuspected")),
        "behaviors": behavior_map(&behaviors),
        "behaviors_text": behaviors.as_str(),
    })
}

/// What the user showed to prove himself, in the event's words.
fn methods(event: &Event) -> Vec<String> {
    let from_pointers = ["/authenticationContext/credentialType", "/debugContext/debugData/factor"]
        .into_iter()
        .filter_map(|pointer| event.body.pointer(pointer).and_then(Value::as_str));
    let authenticators = event
        .targets()
        .filter(|target| target.kind == "AuthenticatorEnrollment")
        .filter_map(|target| target.display_name);
    let mut methods: Vec<String> = Vec::new();
    for method in from_pointers.chain(authenticators) {
        if is_told(&Value::from(method)) && !methods.iter().any(|known| known == method) {
            methods.push(method.to_owned());
        }
    }
    methods
}

/// `{New Device=POSITIVE, Velocity=NEGATIVE}` as an object.
fn behavior_map(behaviors: &Value) -> Value {
    let text = match behaviors {
        Value::Object(_) => return behaviors.clone(),
        Value::String(text) => text.trim().trim_start_matches('{').trim_end_matches('}'),
        _ => return Value::Object(Map::new()),
    };
    let pairs = text.split(',').take(MAX_ITEMS).filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.trim().to_owned(), Value::from(value.trim()))).collect()
}

/// Okta writes booleans of `debugData` as strings.
fn flag(value: &Value) -> Value {
    match value {
        Value::Bool(flag) => Value::from(*flag),
        Value::String(text) if text.eq_ignore_ascii_case("true") => Value::from(true),
        Value::String(text) if text.eq_ignore_ascii_case("false") => Value::from(false),
        _ => Value::Null,
    }
}

/// Okta writes "not known" also as the strings `null` and `unknown`.
fn is_told(value: &Value) -> bool {
    value.as_str().is_none_or(|text| !["", "null", "unknown"].iter().any(|word| text.eq_ignore_ascii_case(word)))
}

/// Links for people. `syslog` is the System Log about the affected user, or about the event where it names none.
fn link_json(event: &Event, links: &LinkBase, user: Option<&Entity<'_>>, app: Option<&Entity<'_>>) -> Value {
    let this_event = links.system_log("uuid", &event.uuid);
    json!({
        "org": links.org_url,
        "syslog": user.map_or_else(|| this_event.clone(), |user| links.system_log("target.id", user.id)),
        "event": this_event,
        "user": user.map(|user| format!("{}/admin/user/profile/view/{}", links.admin_url, percent_encoded(user.id))),
        "app": app.map(|app| links.system_log("target.id", app.id)),
    })
}

fn derived_admin_url(org_url: &str) -> Option<String> {
    const OKTA_DOMAINS: [&str; 5] = ["okta.com", "oktapreview.com", "okta-emea.com", "okta-gov.com", "okta.mil"];
    let mut url = Url::parse(org_url).ok()?;
    let (org, domain) = url.host_str()?.split_once('.')?;
    if !OKTA_DOMAINS.contains(&domain) || org.ends_with("-admin") {
        return None;
    }
    let host = format!("{org}-admin.{domain}");
    url.set_host(Some(&host)).ok()?;
    Some(url.as_str().trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests;
