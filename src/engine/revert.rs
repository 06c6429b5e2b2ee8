//! The plan of a revert: what undoes a run, what stays as it is and why, and what speaks against it. Pure.
//!
//! What was done last is undone first. Only what the run itself changed is undone, once, and only where no later run has a
//! hand in it: then a person has to say that he means it. Tickets end when everything at Okta is undone, and apps are given
//! back when the account is.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;
use thiserror::Error;

use crate::connectors::{self, Deed, Effect, Inverse, Remedy, Service};
use crate::model::action::ActionState;
use crate::model::ids::{ActionId, IdempotencyKey, RunId};
use crate::model::outcome::GroupNote;
use crate::playbook;
use crate::store::{DoneAction, NewRevert, NewUndo, RevertedBy, Revertible};

/// What reverting a run comes to.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Plan {
    /// What is done, in this order.
    pub undo: Vec<Undo>,
    /// What was done and nothing undoes.
    pub stays: Vec<Kept>,
    /// What is open and taken back. What it has done already is undone as well.
    pub cancel: Vec<Kept>,
    /// What changed nothing, or is undone already.
    pub nothing: Vec<Kept>,
}

/// An action that undoes another one, or a part of it.
#[derive(Debug, Clone, Serialize)]
pub struct Undo {
    /// The step.
    pub step: String,
    /// `connector.noun.verb`
    pub action: &'static str,
    /// Final parameters.
    pub params: Value,
    /// Groups that it remembers from the beginning.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupNote>,
    /// The action that it undoes.
    pub reverts: ActionId,
    /// The idempotency key.
    pub key: IdempotencyKey,
    /// Steps that end first; a ticket is closed only when they succeed.
    pub after: Vec<String>,
    /// What a person should know.
    pub warning: Option<String>,
    /// What a later run has done to the same thing.
    pub conflict: Option<String>,
}

/// An action of the run for which nothing is done.
#[derive(Debug, Clone, Serialize)]
pub struct Kept {
    /// The action.
    pub id: ActionId,
    /// The step.
    pub step: String,
    /// `connector.noun.verb`
    pub action: String,
    /// A sentence.
    pub why: String,
}

/// Why a run cannot be reverted now.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Blocked {
    /// Nobody knows yet what becomes of an action.
    #[error(
        "action {action} (`{step}`) is {state}: how it ends is not known yet; try again when `okta-responder actions show {action}` tells"
    )]
    UnderWay {
        /// The action.
        action: ActionId,
        /// The step.
        step: String,
        /// Where it stands.
        state: ActionState,
    },
    /// Only a person knows what became of an action.
    #[error(
        "action {action} (`{step}`) needs attention: look whether it was done, then `okta-responder actions settle {action}` or \
         `okta-responder actions cancel {action}`, and revert after that"
    )]
    NeedsAttention {
        /// The action.
        action: ActionId,
        /// The step.
        step: String,
    },
}

impl Plan {
    /// What reverting this run comes to. `close_code` is what ServiceNow is told to have closed a ticket with.
    ///
    /// # Errors
    /// When it is not known of an action whether there is something to undo.
    pub fn of(run: &Revertible, close_code: &str) -> Result<Self, Blocked> {
        let mut plan = Self::default();
        let mut steps = BTreeSet::new();
        for action in run.actions.iter().rev() {
            plan.add(run.run, action, close_code, &mut steps)?;
        }
        plan.put_in_order();
        Ok(plan)
    }

    /// What later runs have done to the same things, for a person who has to decide.
    pub fn conflicts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.undo.iter().filter_map(|undo| Some((undo.step.as_str(), undo.conflict.as_deref()?)))
    }

    /// Whether there is something to do.
    pub fn is_empty(&self) -> bool {
        self.undo.is_empty() && self.cancel.is_empty()
    }

    /// The plan as it is written, provided that the run still is as it was.
    pub fn written(&self, run: &Revertible) -> NewRevert {
        let seen = run.actions.iter().map(|action| (action.id, (action.state, action.attempts))).collect();
        let undo = |undo: &Undo| {
            let kind = connectors::kind(undo.action);
            NewUndo {
                step: undo.step.clone(),
                kind: undo.action,
                of: undo.reverts,
                key: undo.key.clone(),
                params: undo.params.to_string(),
                lane: kind.and_then(|kind| (kind.lane)(&undo.params)),
                groups: undo.groups.clone(),
                in_doubt: kind.map_or(Effect::Keyed, |kind| kind.effect).default_in_doubt(),
                after: undo.after.clone(),
            }
        };
        let cancel = self.cancel.iter().map(|kept| kept.id).collect();
        NewRevert { of: run.run, seen, newest: run.newest, cancel, undo: self.undo.iter().map(undo).collect() }
    }

    fn add(
        &mut self,
        run: RunId,
        action: &DoneAction,
        close_code: &str,
        steps: &mut BTreeSet<String>,
    ) -> Result<(), Blocked> {
        use ActionState as S;
        let (id, step) = (action.id, action.step.clone());
        let kept = |why: String| Kept { id, step: step.clone(), action: action.kind.clone(), why };
        match action.state {
            S::Started | S::Unknown => return Err(Blocked::UnderWay { action: id, step, state: action.state }),
            // What it is about may be taken back, and then the message has to say so.
            S::Waiting | S::Ready | S::Retry if playbook::is_update(&action.step) => {
                self.stays.push(kept(
                    "the message, if it was sent, is still edited when the steps that it tells of have ended"
                        .to_owned(),
                ));
                return Ok(());
            }
            S::Waiting | S::Ready | S::Retry | S::AwaitingApproval => {
                self.cancel.push(kept(format!("it is {} and is taken back", action.state)));
                if !action.done {
                    return Ok(());
                }
            }
            _ => {}
        }
        let has_changed = action.done
            || action.state == S::NeedsAttention
            || action.state.is_success() && (action.unknown || action.state == S::Settled);
        let (true, Some(params)) = (has_changed, &action.params) else {
            self.nothing.push(kept(why_unchanged(action)));
            return Ok(());
        };
        let Some(kind) = connectors::kind(&action.kind) else {
            self.stays.push(kept("there is no such action in this version".to_owned()));
            return Ok(());
        };
        let (key, receipt, interrupted) = (&action.key, &action.receipt, action.unknown);
        let remedies = match (kind.inverse)(&Deed { run, key, params, receipt, interrupted, close_code }) {
            Inverse::Impossible(why) => {
                self.stays.push(kept(why));
                return Ok(());
            }
            Inverse::Actions(_) if action.state == S::NeedsAttention => {
                return Err(Blocked::NeedsAttention { action: id, step });
            }
            Inverse::Actions(remedies) => remedies,
        };
        let (mut number, mut before) = (0, None);
        for (index, remedy) in remedies.into_iter().enumerate() {
            if let Some(why) = undone(action, &remedy) {
                self.nothing.push(kept(why));
                continue;
            }
            let name = loop {
                number += 1;
                let name = if number == 1 { format!("revert-{step}") } else { format!("revert-{step}-{number}") };
                if steps.insert(name.clone()) {
                    break name;
                }
            };
            self.undo.push(Undo {
                action: remedy.action,
                reverts: id,
                key: key_of(action, &remedy, index),
                // One part after the other.
                after: before.replace(name.clone()).into_iter().collect(),
                warning: warning(action, &remedy),
                conflict: conflict(action),
                params: remedy.params,
                groups: remedy.groups,
                step: name,
            });
        }
        Ok(())
    }

    /// Tickets come last, and wait for all the rest; an app waits for the account.
    fn put_in_order(&mut self) {
        let is_ticket = |undo: &Undo| connectors::kind(undo.action).is_none_or(|kind| kind.service != Service::Okta);
        self.undo.sort_by_key(is_ticket);
        let named = |wanted: &dyn Fn(&Undo) -> bool| -> Vec<String> {
            self.undo.iter().filter(|undo| wanted(undo)).map(|undo| undo.step.clone()).collect()
        };
        let at_okta = named(&|undo| !is_ticket(undo));
        let of_accounts = named(&|undo| undo.action == "okta.user.unsuspend");
        for undo in &mut self.undo {
            if is_ticket(undo) {
                undo.after.clone_from(&at_okta);
            } else if undo.action == "okta.app.assign_user" {
                undo.after.extend(of_accounts.iter().cloned());
            }
        }
    }
}

/// Why there is nothing to undo.
fn why_unchanged(action: &DoneAction) -> String {
    let said = action.error.as_ref().or(action.reason.as_ref());
    match action.state {
        ActionState::Succeeded => {
            let note = action.receipt.note.as_deref().map(|note| format!(": {note}")).unwrap_or_default();
            format!("it was so before{note}")
        }
        state => {
            let said = said.filter(|said| **said != state.to_string());
            format!("it is {state}{}", said.map(|said| format!(": {said}")).unwrap_or_default())
        }
    }
}

/// Why this remedy need not be applied: it was, or is being; or a later run has done the same.
fn undone(action: &DoneAction, remedy: &Remedy) -> Option<String> {
    let counts = |state: ActionState| state.is_success() || !state.is_final();
    if let Some(by) = earlier(action, remedy).rfind(|by| counts(by.state)) {
        return Some(format!("run {} undoes it: action {} is {}", by.run, by.action, by.state));
    }
    let newest = action.newer.iter().rfind(|newer| newer.state.is_success())?;
    (newest.kind == remedy.action && newest.kind != action.kind)
        .then(|| format!("run {} has undone it since, by `{}`", newest.run, newest.kind))
}

/// What was planned before for the same remedy.
fn earlier<'a>(action: &'a DoneAction, remedy: &'a Remedy) -> impl DoubleEndedIterator<Item = &'a RevertedBy> {
    action.reverted_by.iter().filter(|by| by.kind == remedy.action && by.params == remedy.params)
}

/// The same remedy for the same action has the same key for ever; one that came to nothing is followed by another one.
fn key_of(action: &DoneAction, remedy: &Remedy, index: usize) -> IdempotencyKey {
    let number = earlier(action, remedy).count();
    IdempotencyKey::derive("revert", action.key.as_str(), remedy.action, &format!("{index}.{number}"))
}

fn warning(action: &DoneAction, remedy: &Remedy) -> Option<String> {
    let doubt = match (action.interrupted, action.reason.as_deref()) {
        (_, Some("settled")) => Some("a person said that it was done"),
        (true, _) if !action.done => Some("it was found done after an interruption, and may have been so before"),
        _ => None,
    };
    let words: Vec<&str> = doubt.into_iter().chain(remedy.warning.as_deref()).collect();
    (!words.is_empty()).then(|| words.join("; "))
}

/// What later runs want of the same thing. The newest says it.
fn conflict(action: &DoneAction) -> Option<String> {
    let newest = action.newer.last()?;
    Some(match newest.state.is_success() {
        true => format!("run {} has done `{}` about the same since", newest.run, newest.kind),
        false => format!("run {} is about to do `{}` about the same", newest.run, newest.kind),
    })
}

#[cfg(test)]
mod tests;
