//! Fetching the facts that need a request. Only what some condition or template names is asked for.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tracing::warn;

use super::reach::{OKTA, Sign};
use super::{Engine, outcome};
use crate::config::RiskSource;
use crate::model::event::Event;
use crate::okta::error::{OktaError, OktaErrorKind};
use crate::okta::groups::GroupRef;
use crate::okta::rate::Wait;
use crate::okta::users::User;
use crate::okta::{OktaClient, Priority};
use crate::playbook::facts::{Fact, FactSet, FactValue, Facts};
use crate::playbook::{Playbook, Question};
use crate::store::{ChangesOf, StoreError};

/// A fact cannot be had now; nothing is decided on the others alone.
#[derive(Debug)]
pub(super) struct Later {
    /// When to ask again, if the service said so.
    pub pause: Option<Duration>,
    /// Why.
    pub reason: String,
    /// Whether this is how things are meant to go, and nothing to warn about.
    pub by_design: bool,
    /// Whether it comes of Okta being down, which the log has already.
    pub told: bool,
}

impl From<StoreError> for Later {
    fn from(error: StoreError) -> Self {
        Self { pause: None, reason: error.to_string(), by_design: false, told: false }
    }
}

/// How long a fact has been asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// How often what needs it was put off.
    pub postponed: u32,
    /// Whether it is asked for the last time. What cannot be had then is given up, for what needs it to end where people see
    /// it, or to do without.
    pub over: bool,
}

impl Patience {
    /// However late it is, as when the daemon was down: so often it is put off first.
    const LEAST: u32 = 3;

    /// Of what has been waited for since a moment, at most for so long.
    pub fn since(began: Timestamp, most: Duration, postponed: u32, now: Timestamp) -> Self {
        Self { postponed, over: postponed >= Self::LEAST && now >= outcome::after(began, most) }
    }
}

/// What is asked for, and how urgently.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// The facts.
    pub facts: FactSet,
    /// Before or behind what else is asked of Okta.
    pub priority: Priority,
}

/// Whose changes are waited for, and how often they were already.
#[derive(Debug, Clone, Copy)]
pub(super) struct AfterOurs {
    /// How often this was put off.
    pub postponed: u32,
    /// Of which runs; a run does not wait for itself.
    pub of: ChangesOf,
}

/// Why an event waits that asks for the groups of a user whose groups are being changed.
pub(super) const OWN_CHANGES: &str = "changes of ours on this user are under way";

/// The groups of a user are read only after our own changes to them are through: a user who is just being put into the
/// high-risk group is at high risk already. There is no end to this patience, because a user whose quarantine does not get
/// through must not pass for one of low risk; what only a person can move is not waited for.
pub(super) async fn wait_for_own_changes(
    engine: &Engine,
    open: FactSet,
    user: Option<&str>,
    after: AfterOurs,
) -> Result<(), Later> {
    let Some(user) = user else { return Ok(()) };
    let reads_groups = open.contains(Fact::Groups) || open.contains(Fact::UserRisk);
    if reads_groups && engine.store.has_open_changes(user, after.of).await? {
        let pause = own_pause(after.postponed);
        let reason = OWN_CHANGES.to_owned();
        return Err(Later { pause: Some(pause), reason, by_design: true, told: false });
    }
    Ok(())
}

/// How long to wait for what we do ourselves, before looking at it again.
pub(super) fn own_pause(postponed: u32) -> Duration {
    if postponed < 20 { Duration::from_millis(300) } else { Duration::from_secs(2) }
}

/// Asks our own inbox what the conditions of these playbooks ask of the past, all at once, unless that was asked before. It
/// is a few reads of an index, and needs no patience.
pub(super) async fn ask_the_past<'p>(
    engine: &Engine,
    facts: &mut Facts,
    event: &Event,
    playbooks: impl Iterator<Item = &'p Playbook>,
) -> Result<(), StoreError> {
    let questions: BTreeSet<&Question> = playbooks.flat_map(Playbook::questions).collect();
    if questions.is_empty() {
        return Ok(());
    }
    facts.set(Fact::Past, FactValue::Known(engine.store.answers(&questions, event, event.published).await?));
    Ok(())
}

/// Fetches the facts in `wanted` that are not there yet. A fact that will never be had becomes `Missing` with its reason;
/// one that cannot be had now is an error while there is patience, and what else can be had is fetched all the same.
pub(super) async fn fetch(
    engine: &Engine,
    facts: &mut Facts,
    wanted: Wanted,
    user_id: Option<&str>,
    patience: Patience,
) -> Result<(), Later> {
    let missing = facts.not_fetched(wanted.facts);
    if missing.is_empty() {
        return Ok(());
    }
    let Some(user_id) = user_id else {
        for fact in missing.iter().filter(|fact| *fact != Fact::Past) {
            facts.set(fact, FactValue::Missing("the event names no user".to_owned()));
        }
        return Ok(());
    };
    let okta = engine.okta.with(wanted.priority);
    let mut user: Option<User> = None;
    let mut groups: Option<Vec<GroupRef>> = None;
    let mut put_off = None;
    let began = engine.clock.elapsed();
    for fact in missing.iter() {
        let value = match fact {
            // Asked for before, of our own inbox.
            Fact::Past => continue,
            Fact::User => of_user(&okta, &mut user, user_id, user_fact).await,
            Fact::Manager => manager(engine, &okta, &mut user, user_id).await,
            Fact::Groups => {
                of_groups(&okta, &mut groups, user_id, |groups| {
                    json!(groups.iter().map(|group| &group.name).collect::<Vec<_>>())
                })
                .await
            }
            Fact::UserRisk => match engine.settings.risk.source {
                RiskSource::Groups => {
                    of_groups(&okta, &mut groups, user_id, |groups| risk_by_groups(engine, groups)).await
                }
                RiskSource::Okta => okta.user_risk(user_id).await.map(|level| known(level_word(&level))),
                RiskSource::Ledger => {
                    let newest = engine.store.newest_risk(user_id).await?;
                    Ok(known(newest.unwrap_or_else(|| "UNKNOWN".to_owned())))
                }
            },
        };
        match value {
            Ok(value) => facts.set(fact, value),
            Err(error) => match later(&error, patience.postponed)
                .map(|later| Later { told: is_told(engine, &error, began), ..later })
            {
                Some(_) if patience.over => {
                    warn!(user.id = user_id, "`{fact}` is given up: {error}");
                    facts.set(fact, FactValue::GivenUp(format!("it could not be had in time: {error}")));
                }
                // The other requests would fail in the same way, and some of them slowly.
                Some(later) if !is_about_one_request(&error) => return Err(later),
                Some(later) => put_off = Some(later),
                None => facts.set(fact, FactValue::Missing(error.to_string())),
            },
        }
    }
    put_off.map_or(Ok(()), Err)
}

/// Whether Okta is down, and the log has that already.
fn is_told(engine: &Engine, error: &OktaError, began: Duration) -> bool {
    let failure = error.to_failure();
    let sign = Sign::of_failure(&failure);
    engine.reach.saw(OKTA, sign, began, engine.clock.elapsed()) && matches!(sign, Sign::Failed(_))
}

/// Whether another request may succeed while this one fails.
fn is_about_one_request(error: &OktaError) -> bool {
    use OktaErrorKind::{BadAnswer, ConnectionLost, Server, Timeout};
    matches!(error.kind, Server | BadAnswer | ConnectionLost | Timeout)
}

async fn of_user(
    okta: &OktaClient,
    cache: &mut Option<User>,
    id: &str,
    view: impl FnOnce(&User) -> Value,
) -> Result<FactValue, OktaError> {
    if cache.is_none() {
        *cache = okta.user(id).await?;
    }
    Ok(match cache {
        Some(user) => FactValue::Known(view(user)),
        None => FactValue::Missing(format!("Okta has no user {id} (any more)")),
    })
}

async fn manager(
    engine: &Engine,
    okta: &OktaClient,
    cache: &mut Option<User>,
    id: &str,
) -> Result<FactValue, OktaError> {
    if cache.is_none() {
        *cache = okta.user(id).await?;
    }
    let Some(user) = cache else {
        return Ok(FactValue::Missing(format!("Okta has no user {id} (any more)")));
    };
    let manager = okta.manager_of(user, &engine.settings.manager_link).await?;
    Ok(FactValue::Known(manager.as_ref().map_or(Value::Null, user_fact)))
}

async fn of_groups(
    okta: &OktaClient,
    cache: &mut Option<Vec<GroupRef>>,
    id: &str,
    view: impl FnOnce(&[GroupRef]) -> Value,
) -> Result<FactValue, OktaError> {
    if cache.is_none() {
        *cache = Some(okta.user_groups(id).await?);
    }
    Ok(FactValue::Known(view(cache.as_deref().unwrap_or_default())))
}

/// The article's way: whoever is in the high-risk group is at HIGH risk, in the medium-risk group at MEDIUM, else LOW.
fn risk_by_groups(engine: &Engine, groups: &[GroupRef]) -> Value {
    let risk = &engine.settings.risk;
    let member = |wanted: &Option<String>| {
        wanted.as_ref().is_some_and(|wanted| groups.iter().any(|group| group.id == *wanted || group.name == *wanted))
    };
    Value::from(if member(&risk.high_group) {
        "HIGH"
    } else if member(&risk.medium_group) {
        "MEDIUM"
    } else {
        "LOW"
    })
}

/// Okta says NONE for a user without any risk (Okta API reference, "Retrieve the user's risk").
fn level_word(level: &str) -> &str {
    match level {
        "NONE" => "LOW",
        "LOW" | "MEDIUM" | "HIGH" => level,
        _ => "UNKNOWN",
    }
}

fn known(value: impl Into<Value>) -> FactValue {
    FactValue::Known(value.into())
}

fn user_fact(user: &User) -> Value {
    let name = user.display_name.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| {
        let parts = [user.first_name.as_deref(), user.last_name.as_deref()];
        parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
    });
    json!({
        "id": user.id,
        "login": user.login,
        "email": user.email,
        "first_name": user.first_name,
        "last_name": user.last_name,
        "name": name,
        "mobile_phone": user.mobile_phone,
        "status": user.status,
        "manager_id": user.manager_id,
        "profile": user.profile,
    })
}

/// How often an answer that cannot be understood is asked for again, which takes some hours. A proxy is put right by then;
/// what still cannot be read is so for good, and must not hold back everything else that concerns the user.
const UNREADABLE: u32 = 200;

/// Whether asking again may help, and when.
fn later(error: &OktaError, postponed: u32) -> Option<Later> {
    if error.kind == OktaErrorKind::BadAnswer && postponed >= UNREADABLE {
        return None;
    }
    let pause = match error.kind {
        OktaErrorKind::RateLimited(Wait::Until(wait)) => Some(wait),
        OktaErrorKind::NoTokenYet { wait, .. } => wait,
        OktaErrorKind::RateLimited(Wait::Concurrency)
        | OktaErrorKind::Server
        | OktaErrorKind::Connect
        | OktaErrorKind::Timeout
        | OktaErrorKind::ConnectionLost
        | OktaErrorKind::BadAnswer
        // A refused token is mended by people, and what waits for it goes on then.
        | OktaErrorKind::Unauthorized
        | OktaErrorKind::NoCredential => None,
        _ => return None,
    };
    Some(Later { pause, reason: error.to_string(), by_design: false, told: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::okta::error::Exchange;
    use crate::playbook::shape::Shape;

    #[test]
    fn an_answer_that_stays_unreadable_does_not_hold_a_user_back_for_ever() {
        let unreadable = OktaError::bad_answer(Exchange::default(), "");
        assert!(later(&unreadable, 0).is_some() && later(&unreadable, UNREADABLE - 1).is_some());
        assert!(later(&unreadable, UNREADABLE).is_none());
    }

    #[test]
    fn patience_ends_with_its_time_but_never_before_a_few_tries() {
        let at = |second| Timestamp::from_second(1_800_000_000_i64 + second).unwrap();
        let over = |postponed, now| Patience::since(at(0), Duration::from_secs(60), postponed, at(now)).over;
        assert!(over(3, 60) && over(1000, 90_000));
        assert!(!over(1000, 59));
        // After a long stop nothing has been asked yet.
        assert!(!over(0, 90_000) && !over(2, 90_000));
        // The clock went back.
        assert!(!over(1000, -90_000));
    }

    #[test]
    fn a_user_has_the_fields_that_conditions_may_read() {
        let user = User {
            id: "00u1".to_owned(),
            status: "ACTIVE".to_owned(),
            login: Some("ann@example.com".to_owned()),
            email: None,
            first_name: None,
            last_name: None,
            display_name: None,
            mobile_phone: None,
            manager_id: None,
            manager: None,
            profile: serde_json::Map::new(),
        };
        let built = user_fact(&user);
        for name in [Fact::User, Fact::Manager] {
            let Some(Shape::Record(fields)) = Facts::shape(name.as_str()) else { panic!("{name} is no record") };
            let mut fields: Vec<_> = fields.iter().map(|(field, _)| *field).collect();
            fields.sort_unstable();
            let mut keys: Vec<_> = built.as_object().unwrap().keys().collect();
            keys.sort_unstable();
            assert_eq!(keys, fields);
        }
    }
}
