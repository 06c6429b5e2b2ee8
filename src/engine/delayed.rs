//! What is asked when a delay ends: whether the step is still called for, by how things stand then.
//!
//! Nothing is done on hope. It waits until the log is read up to the end of the delay and the user's events are decided, so
//! that a daemon that was down does not act on what it has not seen; until facts that cannot be had can be had; and what the
//! store finds to be superseded is not done. The facts are not those of the run: they are fetched now, and not kept.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

use super::dispatch::{self, POSTPONED};
use super::{Engine, gather, outcome, prepare};
use crate::connectors;
use crate::model::action::Happening;
use crate::model::event::Event;
use crate::okta::Priority;
use crate::playbook::facts::cut;
use crate::playbook::{Condition, Fact, FactSet, FactValue, Facts};
use crate::store::{ChangesOf, Due, OpenAction, Prepared, RunContext, StoreError};

/// When to look again, and why.
type Later = (Timestamp, String);

/// Looks at an action whose delay has ended.
pub(super) async fn look(
    engine: &Engine,
    action: &OpenAction,
    due: &Due,
    context: &RunContext,
    event: &Event,
    facts: &mut Facts,
) -> Result<Prepared, Later> {
    let plan = match &due.plan {
        Ok(plan) => plan,
        Err(why) => return Ok(prepare::cannot(why.clone())),
    };
    if let Some(unmet) = dispatch::unmet(&plan.needs, context) {
        return Ok(unmet);
    }
    let Some(kind) = connectors::kind(&due.kind) else {
        return Ok(prepare::cannot(format!("there is no action `{}` in this version", due.kind)));
    };
    let planned = due.params.as_deref().map(serde_json::from_str::<Value>).transpose();
    let Ok(planned) = planned else {
        return Ok(prepare::cannot("its stored parameters cannot be read".to_owned()));
    };
    let lane = planned.as_ref().and_then(|params| (kind.lane)(params));
    if let Some(lane) = &lane {
        let superseded = engine.store.superseded(action.id, lane).await;
        if let Some(why) = superseded.map_err(|error| put_off(engine, action, &error))? {
            return Ok(prepare::not_called_for("superseded", why));
        }
    }
    if kind.changes_access || plan.cancel_if.is_some() {
        wait_for_the_log(engine, action, due, event).await?;
    }
    if let Some(text) = &plan.cancel_if {
        let condition = match Condition::compile(text) {
            Ok(condition) => condition,
            Err(error) => return Ok(prepare::cannot(format!("its `cancel_if` is not understood: {error}"))),
        };
        let now = engine.clock.now();
        let fresh = fetch(engine, action, &condition, context, event, now).await?;
        let shown = cut(text, 200);
        match condition.evaluate(&fresh) {
            Ok(false) => {}
            Ok(true) => return Ok(prepare::not_called_for("cancel_if", format!("`cancel_if` is true: `{shown}`"))),
            Err(error) => {
                return Ok(prepare::cannot(format!(
                    "`cancel_if` gave no answer, so it is not done: `{shown}`: {error}; `okta-responder actions retry` asks \
                     again"
                )));
            }
        }
    }
    let Some(planned) = planned else {
        return dispatch::prepare_step(engine, action, context, event, facts).await;
    };
    let happening = if plan.approval { Happening::HeldForApproval } else { Happening::Prepared };
    Ok(Prepared { happening, params: Some(planned.to_string()), lane, reason: None, error: None })
}

/// What happened up to the end of the delay has to be known, and decided as far as it is about this user: it may have made
/// the step needless.
async fn wait_for_the_log(engine: &Engine, action: &OpenAction, due: &Due, event: &Event) -> Result<(), Later> {
    let now = engine.clock.now();
    if engine.log_is_read_up_to().is_none_or(|read| read < due.at) {
        let pause = POSTPONED.pause(action.postponed + 1, &action.step);
        let why = "the log is not read up to the end of the delay; what it says may make this needless";
        return Err((outcome::after(now, pause), why.to_owned()));
    }
    let Some(user) = event.affected_user() else { return Ok(()) };
    if engine.store.has_undecided(user.id).await.map_err(|error| put_off(engine, action, &error))? {
        let why = "a later event of this user is still to be decided";
        return Err((outcome::after(now, gather::own_pause(action.postponed)), why.to_owned()));
    }
    Ok(())
}

/// The facts that a `cancel_if` names, as they are at this moment.
async fn fetch(
    engine: &Engine,
    action: &OpenAction,
    condition: &Condition,
    context: &RunContext,
    event: &Event,
    now: Timestamp,
) -> Result<Facts, Later> {
    let mut fresh = Facts::from_event(event.clone(), &engine.links).as_of(now);
    dispatch::show_steps(&mut fresh, context);
    let questions: BTreeSet<_> = condition.questions().collect();
    if !questions.is_empty() {
        let answers = engine.store.answers(&questions, event, now).await;
        fresh.set(Fact::Past, FactValue::Known(answers.map_err(|error| put_off(engine, action, &error))?));
    }
    let user = event.affected_user().map(|user| user.id.to_owned());
    let open: FactSet = condition.facts_open(&fresh).iter().filter(|fact| *fact != Fact::Past).collect();
    if open.is_empty() {
        return Ok(fresh);
    }
    // A run does not wait for itself, but for later ones: whoever is just being put back into quarantine is at risk.
    let after_ours = gather::AfterOurs { postponed: action.postponed, of: ChangesOf::Besides(action.run) };
    let patience = gather::Patience::since(action.since, engine.settings.give_up_after, action.postponed, now);
    let wanted = gather::Wanted { facts: open, priority: Priority::Enrichment };
    let fetched = match gather::wait_for_own_changes(engine, open, user.as_deref(), after_ours).await {
        Ok(()) => gather::fetch(engine, &mut fresh, wanted, user.as_deref(), patience).await,
        Err(later) => Err(later),
    };
    match fetched {
        Ok(()) => Ok(fresh),
        Err(later) => {
            let pause = later.pause.unwrap_or_else(|| POSTPONED.pause(action.postponed + 1, &action.step));
            Err((outcome::after(now, pause), later.reason))
        }
    }
}

fn put_off(engine: &Engine, action: &OpenAction, error: &StoreError) -> Later {
    let pause = POSTPONED.pause(action.postponed + 1, &action.step);
    (outcome::after(engine.clock.now(), pause), error.to_string())
}
