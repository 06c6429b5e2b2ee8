//! What happens to an incident after it was opened: notes are added to it, and it is resolved.
//!
//! The incident is the newest one with the step's correlation, the same that `servicenow.incident.create` would reuse.
//! One that people have closed is left alone.
//!
//! A work note is added with every request that holds one, so it ends with our key, and the journal is read before and
//! after. A journal is shown only when display values are asked for (ServiceNow REST API reference, Table API), and not
//! to every account: where nothing can be seen, nobody can tell whether a note has arrived.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::incident::{Incident, MAX_TEXT, NAMED_FIELDS, Word, check_fields, correlation_id, without_code_tags};
use super::{Found, Row, ServiceNow};
use crate::connectors::wire::Sends;
use crate::connectors::{ActionKind, Call, Connector, Effect, Inverse, Service, cut, required, shape};
use crate::guard::Cleared;
use crate::model::escape::Escape;
use crate::model::ids::IdempotencyKey;
use crate::model::outcome::{Failure, Outcome, Reason, Receipt, Verdict};

/// `servicenow.incident.update`
pub static UPDATE_INCIDENT: ActionKind = ActionKind {
    name: "servicenow.incident.update",
    summary: "Adds a work note to the open incident of a correlation",
    service: Service::ServiceNow,
    effect: Effect::Keyed,
    changes_access: false,
    resets_risk: false,
    rights: &[],
    from_event: &[],
    check: |params| UpdateParams::parse(params).map(drop),
    schema: shape::<UpdateParams>,
    escape,
    lane,
    inverse: |_| Inverse::impossible("what was written into the incident stays there"),
};

/// `servicenow.incident.resolve`
pub static RESOLVE_INCIDENT: ActionKind = ActionKind {
    name: "servicenow.incident.resolve",
    summary: "Resolves the open incident of a correlation",
    service: Service::ServiceNow,
    effect: Effect::SetLike,
    changes_access: false,
    resets_risk: false,
    rights: &[],
    from_event: &[],
    check: |params| ResolveParams::parse(params).map(drop),
    schema: shape::<ResolveParams>,
    escape,
    lane,
    inverse: |_| Inverse::impossible("an incident is opened again by hand, by whoever works on it"),
};

/// What is said where the newest record of a correlation is another one than that which is meant.
const ANOTHER: &str = "the newest record of this correlation is another one; it is left alone";

/// The characters of a work note that are kept for our key.
const FOR_KEY: usize = 80;

/// Resolved, in `incident` and other tables of tasks.
const RESOLVED: &str = "6";
/// Closed, in `sn_si_incident`, which knows no other end (ServiceNow documentation, Security Incident Response states).
const SECURITY_CLOSED: &str = "3";

fn escape(parameter: &str) -> Escape {
    match parameter {
        "work_notes" | "close_notes" | "fields" => Escape::Plain,
        _ => Escape::Line,
    }
}

/// The one of `servicenow.incident.create`, so that a note comes after the incident and the end after the note.
fn lane(params: &Value) -> Option<String> {
    let correlation = Word::deserialize(params.get("correlation")?).ok()?;
    Some(format!("servicenow.incident/{}", correlation.0.trim()))
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct UpdateParams {
    /// That of the step that opened the incident.
    correlation: Word,
    work_notes: Word,
    urgency: Option<Word>,
    impact: Option<Word>,
    /// A `sys_id` of `sys_user_group`.
    assignment_group: Option<Word>,
    #[serde(default)]
    fields: BTreeMap<String, Word>,
    /// Whether the action fails when there is no open incident of this correlation.
    #[serde(default)]
    if_none: IfNone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum IfNone {
    /// It fails.
    #[default]
    Fail,
    /// It succeeds, and says so.
    Skip,
}

impl UpdateParams {
    fn parse(params: &Value) -> Result<Self, String> {
        let params = Self::deserialize(params).map_err(|error| error.to_string())?;
        required("correlation", &params.correlation.0)?;
        required("work_notes", &params.work_notes.0)?;
        check_fields(&params.fields, &NAMED_FIELDS)?;
        Ok(params)
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ResolveParams {
    /// That of the step that opened the incident.
    correlation: Word,
    /// One of the table's own choices.
    close_code: Word,
    close_notes: Word,
    work_notes: Option<Word>,
    /// Only this very record; another one of the correlation is left alone.
    sys_id: Option<Word>,
    /// The number of the state. Default: 6 (resolved), in `sn_si_incident` 3 (closed).
    state: Option<Word>,
    #[serde(default)]
    fields: BTreeMap<String, Word>,
}

impl ResolveParams {
    fn parse(params: &Value) -> Result<Self, String> {
        let params = Self::deserialize(params).map_err(|error| error.to_string())?;
        required("correlation", &params.correlation.0)?;
        // The data policy of a delivered instance asks for both.
        required("close_code", &params.close_code.0)?;
        required("close_notes", &params.close_notes.0)?;
        if let Some(state) = &params.state {
            required("state", &state.0)?;
        }
        check_fields(&params.fields, &[&NAMED_FIELDS[..], &["state", "close_code", "close_notes"]].concat())?;
        Ok(params)
    }
}

/// A change on its way.
struct Change {
    correlation: String,
    body: Value,
}

impl Change {
    fn new<const N: usize>(
        correlation: &Word,
        fields: BTreeMap<String, Word>,
        named: [(&str, Option<Word>); N],
        note: Option<Word>,
        key: &IdempotencyKey,
    ) -> Result<Self, String> {
        let mut body = Map::new();
        let given = fields.into_iter().map(|(field, word)| (field, Some(word)));
        for (field, word) in given.chain(named.map(|(field, word)| (field.to_owned(), word))) {
            let text = word.map(|Word(text)| cut(&without_code_tags(&text), MAX_TEXT)).unwrap_or_default();
            if !text.trim().is_empty() {
                body.insert(field, Value::String(text));
            }
        }
        let note = note.map(|Word(text)| cut(&without_code_tags(&text), MAX_TEXT - FOR_KEY)).unwrap_or_default();
        body.insert("work_notes".to_owned(), json!(format!("{note}\n\n{}", signature(key)).trim_start()));
        Ok(Self { correlation: correlation_id(&correlation.0)?, body: Value::Object(body) })
    }

    fn update(params: &Value, key: &IdempotencyKey) -> Result<(Self, IfNone), String> {
        let params = UpdateParams::parse(params)?;
        let named =
            [("urgency", params.urgency), ("impact", params.impact), ("assignment_group", params.assignment_group)];
        let change = Self::new(&params.correlation, params.fields, named, Some(params.work_notes), key)?;
        Ok((change, params.if_none))
    }

    fn resolve(params: &Value, key: &IdempotencyKey, table: &str) -> Result<(Self, Goal), String> {
        let params = ResolveParams::parse(params)?;
        let usual = if table == "sn_si_incident" { SECURITY_CLOSED } else { RESOLVED };
        let state = params.state.map_or_else(|| usual.to_owned(), |state| state.0.trim().to_owned());
        let named = [
            ("state", Some(Word(state.clone()))),
            ("close_code", Some(params.close_code)),
            ("close_notes", Some(params.close_notes)),
        ];
        let only = params.sys_id.map(|id| id.0.trim().to_owned()).filter(|id| !id.is_empty());
        let change = Self::new(&params.correlation, params.fields, named, params.work_notes, key)?;
        Ok((change, Goal { state, only }))
    }
}

/// What resolving is after.
struct Goal {
    /// The number of the state.
    state: String,
    /// The one record that is meant, where it is named.
    only: Option<String>,
}

impl Goal {
    /// Whether this is another record than the one that is meant.
    fn is_not(&self, row: &Incident) -> bool {
        self.only.as_ref().is_some_and(|only| *only != row.sys_id)
    }
}

/// The last line of a work note of ours.
fn signature(key: &IdempotencyKey) -> String {
    format!("okta-responder {}", key.as_str())
}

/// What a journal says of a note of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Note {
    There,
    NotThere,
    /// The journal is empty, or hidden from this account.
    Unseen,
}

/// `servicenow.incident.update`
pub(in crate::connectors) struct Update(pub(in crate::connectors) Arc<ServiceNow>);

/// `servicenow.incident.resolve`
pub(in crate::connectors) struct Resolve(pub(in crate::connectors) Arc<ServiceNow>);

#[async_trait]
impl Connector for Update {
    fn patience(&self) -> Duration {
        self.0.timeout
    }

    async fn perform(&self, call: &Cleared<Call>) -> Outcome {
        match self.0.update(call).await {
            Ok(outcome) | Err(outcome) => outcome,
        }
    }

    async fn verify(&self, call: &Call) -> Verdict {
        // Parameters that cannot be used are refused before anything is sent.
        let Ok((change, _)) = Change::update(&call.params, &call.key) else { return Verdict::NotDone };
        let looked = async {
            let row = match self.0.find("correlation_id", &change.correlation).await? {
                Found::Incident(row) => row,
                Found::Nothing | Found::Foreign => return Ok(Verdict::CannotTell),
            };
            Ok(match self.0.look_for_note(&row, &call.key).await? {
                Note::There => Verdict::Done(self.0.receipt(&row, None)),
                Note::NotThere => Verdict::NotDone,
                Note::Unseen => Verdict::CannotTell,
            })
        };
        looked.await.unwrap_or_else(unanswered)
    }
}

#[async_trait]
impl Connector for Resolve {
    fn patience(&self) -> Duration {
        self.0.timeout
    }

    async fn perform(&self, call: &Cleared<Call>) -> Outcome {
        match self.0.resolve(call).await {
            Ok(outcome) | Err(outcome) => outcome,
        }
    }

    async fn verify(&self, call: &Call) -> Verdict {
        let Ok((change, goal)) = Change::resolve(&call.params, &call.key, &self.0.table) else {
            return Verdict::NotDone;
        };
        match self.0.find("correlation_id", &change.correlation).await {
            Ok(Found::Incident(row)) if goal.is_not(&row) => Verdict::Done(self.0.receipt(&row, Some(ANOTHER))),
            Ok(Found::Incident(row)) if row.has_ended(&goal.state) => Verdict::Done(self.0.receipt(&row, None)),
            Ok(Found::Incident(_) | Found::Nothing) => Verdict::NotDone,
            Ok(Found::Foreign) => Verdict::CannotTell,
            Err(outcome) => unanswered(outcome),
        }
    }
}

/// What a look-up that failed leaves to say.
fn unanswered(outcome: Outcome) -> Verdict {
    match outcome {
        Outcome::RetryAfter(_, failure) | Outcome::Transient(failure) => Verdict::TryLater(failure),
        // Asking again will not help: a person has to look.
        _ => Verdict::CannotTell,
    }
}

fn wrong_parameters(problem: String) -> Outcome {
    Outcome::Permanent(Failure::new(Reason::BadParameters, problem))
}

impl ServiceNow {
    async fn update(&self, call: &Call) -> Result<Outcome, Outcome> {
        let (change, if_none) = Change::update(&call.params, &call.key).map_err(wrong_parameters)?;
        let Some(row) = self.newest(&change).await?.filter(Incident::is_open) else {
            let detail = format!("no open record of `{}` at {} has this correlation", self.table, self.host);
            return Ok(match if_none {
                IfNone::Skip => Outcome::AlreadyDone(Receipt::note(detail)),
                IfNone::Fail => Outcome::Permanent(Failure::new(
                    Reason::NotFound,
                    format!("{detail}; open one first, or write if_none = \"skip\""),
                )),
            });
        };
        if self.look_for_note(&row, &call.key).await? == Note::There {
            return Ok(Outcome::AlreadyDone(self.receipt(&row, Some("the note is there already"))));
        }
        let what = format!("writing to {} at {}", row.name(), self.host);
        let row = self.patch(&row, &change, &what).await?;
        // A field that the account may not write is dropped without a word. Not to be able to look changes nothing.
        Ok(match self.look_for_note(&row, &call.key).await {
            Ok(Note::There) => Outcome::Done(self.receipt(&row, None)),
            Ok(Note::NotThere) => Outcome::Permanent(Failure::new(
                Reason::BadAnswer,
                format!(
                    "{what}: it was accepted, but the note is not in the journal; give this account the right to write \
                     `work_notes` on table `{}`",
                    self.table
                ),
            )),
            Ok(Note::Unseen) | Err(_) => {
                Outcome::Done(self.receipt(&row, Some("accepted; the journal is not shown to this account")))
            }
        })
    }

    async fn resolve(&self, call: &Call) -> Result<Outcome, Outcome> {
        let (change, goal) = Change::resolve(&call.params, &call.key, &self.table).map_err(wrong_parameters)?;
        let state = &goal.state;
        let row = match self.newest(&change).await? {
            None => {
                let note = format!("no record of `{}` at {} has this correlation", self.table, self.host);
                return Ok(Outcome::AlreadyDone(Receipt::note(note)));
            }
            Some(row) if goal.is_not(&row) => {
                return Ok(Outcome::AlreadyDone(self.receipt(&row, Some(ANOTHER))));
            }
            Some(row) if row.has_ended(state) => {
                return Ok(Outcome::AlreadyDone(self.receipt(&row, Some("was resolved or closed already"))));
            }
            Some(row) => row,
        };
        let what = format!("resolving {} at {}", row.name(), self.host);
        let row = self.patch(&row, &change, &what).await?;
        if row.has_ended(state) {
            return Ok(Outcome::Done(self.receipt(&row, None)));
        }
        Ok(Outcome::Permanent(Failure::new(
            Reason::BadAnswer,
            format!(
                "{what}: it was accepted, but the state did not become {state}; check the state's number, and that this \
                 account may write `state` on table `{}`",
                self.table
            ),
        )))
    }

    /// The newest record of the correlation, open or not.
    async fn newest(&self, change: &Change) -> Result<Option<Incident>, Outcome> {
        match self.find("correlation_id", &change.correlation).await? {
            Found::Incident(row) if row.sys_id.is_empty() => Err(self.unreadable("`sys_id`")),
            Found::Incident(row) => Ok(Some(row)),
            Found::Nothing => Ok(None),
            Found::Foreign => Err(self.unreadable("`correlation_id`")),
        }
    }

    fn unreadable(&self, field: &str) -> Outcome {
        Outcome::Permanent(Failure::new(
            Reason::BadAnswer,
            format!(
                "looking up an incident at {}: the answer is another record, or hides {field}; give this account the right \
                 to read {field} on table `{}`",
                self.host, self.table
            ),
        ))
    }

    async fn patch(&self, row: &Incident, change: &Change, what: &str) -> Result<Incident, Outcome> {
        let url = self.url(&format!("api/now/table/{}/{}", self.table, row.sys_id))?;
        let query = [("sysparm_fields", Incident::FIELDS), ("sysparm_exclude_reference_link", "true")];
        let request = |http: &reqwest::Client| http.patch(url.clone()).query(&query).json(&change.body);
        let answer = self.exchange(request, what, Sends::Changing).await?;
        let changed: Row = self.parse(&answer, what, Sends::Changing)?;
        if changed.result.sys_id == row.sys_id {
            Ok(changed.result)
        } else {
            Err(Sends::Changing.lost(Reason::BadAnswer, format!("{what}: the answer is about another record")))
        }
    }

    /// Looks for our key in the journal of a record.
    async fn look_for_note(&self, row: &Incident, key: &IdempotencyKey) -> Result<Note, Outcome> {
        #[derive(Deserialize)]
        struct Shown {
            result: Journal,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Journal {
            work_notes: String,
        }
        let what = format!("reading the journal of {} at {}", row.name(), self.host);
        let url = self.url(&format!("api/now/table/{}/{}", self.table, row.sys_id))?;
        let query = [("sysparm_fields", "sys_id,work_notes"), ("sysparm_display_value", "true")];
        let answer = self.exchange(|http| http.get(url.clone()).query(&query), &what, Sends::Reading).await?;
        let Shown { result: Journal { work_notes } } = self.parse(&answer, &what, Sends::Reading)?;
        Ok(match work_notes.contains(key.as_str()) {
            true => Note::There,
            false if work_notes.trim().is_empty() => Note::Unseen,
            false => Note::NotThere,
        })
    }
}

#[cfg(test)]
mod tests;
