//! From a planned step to what the ledger is told: guard, observe mode and approval have their say here, and nothing goes
//! round them. Pure.

use jiff::Timestamp;
use serde_json::Value;

use crate::config::Mode;
use crate::connectors::{self, Service};
use crate::guard::{Admission, Guard, Subject};
use crate::model::action::Happening;
use crate::model::event::Event;
use crate::playbook::{Step, plan};
use crate::store::{OpenAction, Prepared, SiblingState};

/// The end of preparing a step. `NeedsFacts` is no end: in observe mode it means that the step would have been prepared
/// later, elsewhere the caller fetches the facts first.
pub(crate) fn end(
    guard: &Guard,
    step: &Step,
    event: &Event,
    prepared: plan::Prepared,
    observe: bool,
    now: Timestamp,
) -> Prepared {
    match prepared {
        plan::Prepared::NotCalledFor { why } => not_called_for("condition", why),
        plan::Prepared::NeedsFacts(facts) => {
            not_called_for("observe", format!("observed only; {facts} would have been asked for"))
        }
        plan::Prepared::Failed { message } => cannot(message),
        plan::Prepared::Ready { params, lane } => {
            let mode = if observe { Mode::Observe } else { Mode::Enforce };
            let admission = guard.admit(step.action, &params, Subject::of(event), event.published, now, mode);
            let (happening, reason, error) = match admission {
                Admission::Refused { why } => (Happening::RefusedByGuard, Some("guard"), Some(why)),
                Admission::Observe => (Happening::NotCalledFor, Some("observe"), None),
                Admission::Pass if step.approval => (Happening::HeldForApproval, None, None),
                Admission::Pass => (Happening::Prepared, None, None),
            };
            Prepared { happening, params: Some(params.to_string()), lane, reason, error }
        }
    }
}

/// The end of preparing an action that undoes another one. A person has seen its parameters, and the guard is asked at its
/// claim. A ticket is closed only when all that it waits for is undone; changes at Okta only wait for their turn.
pub(super) fn of_revert(action: &OpenAction, siblings: &[SiblingState]) -> Prepared {
    let stands = |step: &str| siblings.iter().find(|sibling| sibling.step == step);
    let is_ticket = connectors::kind(&action.kind).is_none_or(|kind| kind.service != Service::Okta);
    let mut awaited = action.after.iter().filter_map(|step| stands(step));
    if let Some(SiblingState { step, state, .. }) = awaited.find(|sibling| is_ticket && !sibling.state.is_success()) {
        // By its parameters it is known when the run is reverted once more.
        let why = format!("it waits for `{step}`, which is {state}");
        return Prepared { params: action.params.clone(), ..not_called_for("needs", why) };
    }
    match &action.params {
        Some(params) => Prepared {
            happening: Happening::Prepared,
            params: Some(params.clone()),
            lane: None,
            reason: None,
            error: None,
        },
        None => cannot("it has no parameters".to_owned()),
    }
}

/// What comes of a step that would edit a message, once it is known what the message says: an edit that changes nothing
/// is not called for, and people are not shown one.
pub(crate) fn edit(posted: Option<&Value>, prepared: plan::Prepared) -> plan::Prepared {
    let said = |params: &Value, name: &str| params.get(name).filter(|value| !value.is_null()).cloned();
    match (posted, prepared) {
        (Some(posted), plan::Prepared::Ready { params, .. })
            if ["text", "blocks"].iter().all(|name| said(posted, name) == said(&params, name)) =>
        {
            plan::Prepared::NotCalledFor { why: "the message says so already".to_owned() }
        }
        (_, prepared) => prepared,
    }
}

/// A step that is not called for.
pub(super) fn not_called_for(reason: &'static str, why: String) -> Prepared {
    Prepared { happening: Happening::NotCalledFor, params: None, lane: None, reason: Some(reason), error: Some(why) }
}

/// A step whose condition or parameters fail.
pub(super) fn cannot(why: String) -> Prepared {
    let reason = Some("bad_parameters");
    Prepared { happening: Happening::CannotBePrepared, params: None, lane: None, reason, error: Some(why) }
}
