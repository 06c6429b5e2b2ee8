//! The states of an action and the one function that says which may follow which.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Where an action stands. The words are the database's and the command line's; a CHECK constraint holds the same list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionState {
    /// Planned; waits for other steps, for the end of its delay, or for facts that only describe.
    Waiting,
    /// Prepared: parameters are final, and it may be claimed when its lane is free.
    Ready,
    /// Claimed: its attempt row is committed and the request may be on its way.
    Started,
    /// An attempt failed in a way that may pass; due again at `next_attempt_at`.
    Retry,
    /// An attempt ended without our knowing how; the target is read back before anything else happens.
    Unknown,
    /// Nobody but a person can tell what happened.
    NeedsAttention,
    /// A person has to allow it first.
    AwaitingApproval,
    /// Done, by us or before us.
    Succeeded,
    /// It was unknown, and the doubt is closed: found done, or left as it is by the step's `in_doubt`.
    Settled,
    /// It will not be done: the service or our own parameters say no, or the retries are used up.
    Failed,
    /// It was not called for: condition false, observe mode, a needed step failed, superseded.
    Skipped,
    /// The guard said no.
    Refused,
    /// A person took it back.
    Cancelled,
}

impl ActionState {
    /// Every state, in the order in which people read them.
    pub const ALL: [Self; 13] = [
        Self::Waiting,
        Self::Ready,
        Self::Started,
        Self::Retry,
        Self::Unknown,
        Self::NeedsAttention,
        Self::AwaitingApproval,
        Self::Succeeded,
        Self::Settled,
        Self::Failed,
        Self::Skipped,
        Self::Refused,
        Self::Cancelled,
    ];

    /// The word in the database and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Ready => "ready",
            Self::Started => "started",
            Self::Retry => "retry",
            Self::Unknown => "unknown",
            Self::NeedsAttention => "needs_attention",
            Self::AwaitingApproval => "awaiting_approval",
            Self::Succeeded => "succeeded",
            Self::Settled => "settled",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Refused => "refused",
            Self::Cancelled => "cancelled",
        }
    }

    /// Reads the word back.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Whether nothing follows any more unless a person asks for it. A lane goes on only past final actions.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Settled | Self::Failed | Self::Skipped | Self::Refused | Self::Cancelled)
    }

    /// Whether the effect is there (as far as can be known): what `needs = [...]` asks of a step.
    pub fn is_success(self) -> bool {
        matches!(self, Self::Succeeded | Self::Settled)
    }

    /// The state after `happening`, or an error if that may not happen here. Every change of state goes through this.
    pub fn after(self, happening: Happening) -> Result<Self, IllegalTransition> {
        use ActionState as S;
        use Happening as H;
        let next = match (self, happening) {
            (S::Waiting, H::Prepared) => S::Ready,
            (S::Waiting, H::HeldForApproval) => S::AwaitingApproval,
            (S::Waiting, H::NotCalledFor) => S::Skipped,
            (S::Waiting, H::RefusedByGuard) => S::Refused,
            (S::Waiting, H::CannotBePrepared) => S::Failed,
            (S::Waiting, H::HastenedByPerson) => S::Waiting,
            // It was delayed, and what was asked when it came due was answered too long ago.
            (S::Ready, H::AskedAnew) => S::Waiting,

            (S::Ready | S::Retry, H::Claimed) => S::Started,
            // The guard's word at the claim.
            (S::Ready | S::Retry, H::HeldForApproval) => S::AwaitingApproval,
            (S::Ready | S::Retry, H::NotCalledFor) => S::Skipped,
            (S::Ready | S::Retry, H::RefusedByGuard) => S::Refused,

            (S::Started, H::Succeeded) => S::Succeeded,
            (S::Started, H::MayPass) => S::Retry,
            (S::Started, H::WillNotPass) => S::Failed,
            (S::Started, H::OutcomeLost) => S::Unknown,

            (S::Unknown, H::FoundDone | H::DoubtAccepted) => S::Settled,
            (S::Unknown, H::FoundUndone) => S::Retry,
            (S::Unknown, H::WillNotPass) => S::Failed,
            (S::Unknown, H::CannotTell) => S::NeedsAttention,

            (S::NeedsAttention, H::SettledByPerson) => S::Settled,
            (S::NeedsAttention | S::Failed | S::Cancelled, H::RetriedByPerson) => S::Retry,
            (S::Failed | S::Cancelled | S::Refused, H::PlannedAnewByPerson) => S::Waiting,
            (S::AwaitingApproval, H::Approved | H::LetGoOn) => S::Ready,
            (S::AwaitingApproval, H::ApprovalExpired) => S::Refused,
            (
                S::Waiting | S::Ready | S::Retry | S::Unknown | S::NeedsAttention | S::AwaitingApproval,
                H::CancelledByPerson,
            ) => S::Cancelled,
            (state, happening) => return Err(IllegalTransition { state, happening }),
        };
        Ok(next)
    }
}

impl fmt::Display for ActionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What can happen to an action. The words are the journal's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Happening {
    /// Condition true, parameters rendered, guard passed.
    Prepared,
    /// A person must allow it: its step says so, or the guard does when it is to be sent.
    HeldForApproval,
    /// Condition false, observe mode, needed step not successful, superseded.
    NotCalledFor,
    /// The guard refused it, when it was prepared or when it was to be sent.
    RefusedByGuard,
    /// Its condition or a template failed, or a fact could not be had.
    CannotBePrepared,
    /// It was delayed, and could not be sent for so long that what was asked for it has to be asked anew.
    AskedAnew,
    /// T3: the attempt row is written.
    Claimed,
    /// The service did it, or it was done already.
    Succeeded,
    /// The attempt failed without effect, and another may work.
    MayPass,
    /// The attempt failed without effect (or reading back found that it had none), and no other will work.
    WillNotPass,
    /// Nobody knows whether the attempt had its effect.
    OutcomeLost,
    /// Reading back found the effect.
    FoundDone,
    /// Reading back found that the effect is not there.
    FoundUndone,
    /// Reading back cannot tell, and the step wants a person to look.
    CannotTell,
    /// Reading back cannot tell, and the step says to let it be.
    DoubtAccepted,
    /// A person says what happened.
    SettledByPerson,
    /// A person wants it tried again as it was prepared.
    RetriedByPerson,
    /// A person wants it prepared again: it never was, or the guard refused it and has its say again.
    PlannedAnewByPerson,
    /// A person does not wait for the end of its delay. All that is asked then is asked now.
    HastenedByPerson,
    /// A person allows it.
    Approved,
    /// A person lets its playbook go on; the guard has its say again.
    LetGoOn,
    /// Nobody allowed it in time.
    ApprovalExpired,
    /// A person takes it back.
    CancelledByPerson,
}

impl Happening {
    /// Every happening.
    pub const ALL: [Self; 23] = [
        Self::Prepared,
        Self::HeldForApproval,
        Self::NotCalledFor,
        Self::RefusedByGuard,
        Self::CannotBePrepared,
        Self::AskedAnew,
        Self::Claimed,
        Self::Succeeded,
        Self::MayPass,
        Self::WillNotPass,
        Self::OutcomeLost,
        Self::FoundDone,
        Self::FoundUndone,
        Self::CannotTell,
        Self::DoubtAccepted,
        Self::SettledByPerson,
        Self::RetriedByPerson,
        Self::PlannedAnewByPerson,
        Self::HastenedByPerson,
        Self::Approved,
        Self::LetGoOn,
        Self::ApprovalExpired,
        Self::CancelledByPerson,
    ];
}

/// A change of state that the design does not allow; nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("an action that is {state} cannot go on with {happening:?}")]
pub struct IllegalTransition {
    /// The state it was in.
    pub state: ActionState,
    /// What was asked of it.
    pub happening: Happening,
}

/// What a step wants done when nobody can tell whether its request arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InDoubt {
    /// Leave it, showing the doubt. The default for messages.
    Skip,
    /// Send it again; the receiver may see it twice.
    Resend,
    /// Wait for a person. The default for everything else.
    Ask,
}

impl InDoubt {
    /// The word in the configuration and the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Resend => "resend",
            Self::Ask => "ask",
        }
    }

    /// Reads the word back.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Skip, Self::Resend, Self::Ask].into_iter().find(|choice| choice.as_str() == word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_round_trip() {
        for state in ActionState::ALL {
            assert_eq!(ActionState::parse(state.as_str()), Some(state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str(), "one word everywhere");
        }
        assert_eq!(ActionState::parse("done"), None);
        for choice in [InDoubt::Skip, InDoubt::Resend, InDoubt::Ask] {
            assert_eq!(InDoubt::parse(choice.as_str()), Some(choice));
            assert_eq!(serde_json::to_value(choice).unwrap(), choice.as_str(), "one word everywhere");
        }
        assert_eq!(InDoubt::parse("never"), None);
    }

    /// Whoever changes the states changes this table too, and so has seen what it means.
    #[test]
    fn these_are_all_the_changes_of_state_there_are() {
        let mut table = String::new();
        for state in ActionState::ALL {
            let ways = Happening::ALL.into_iter().filter_map(|happening| {
                let next = state.after(happening).ok()?;
                Some(format!(" {happening:?}={next}"))
            });
            table.push_str(&format!("{state}:{}\n", ways.collect::<String>()));
        }
        let expected = "\
            waiting: Prepared=ready HeldForApproval=awaiting_approval NotCalledFor=skipped RefusedByGuard=refused \
            CannotBePrepared=failed HastenedByPerson=waiting CancelledByPerson=cancelled\n\
            ready: HeldForApproval=awaiting_approval NotCalledFor=skipped RefusedByGuard=refused AskedAnew=waiting \
            Claimed=started CancelledByPerson=cancelled\n\
            started: Succeeded=succeeded MayPass=retry WillNotPass=failed OutcomeLost=unknown\n\
            retry: HeldForApproval=awaiting_approval NotCalledFor=skipped RefusedByGuard=refused Claimed=started \
            CancelledByPerson=cancelled\n\
            unknown: WillNotPass=failed FoundDone=settled FoundUndone=retry CannotTell=needs_attention \
            DoubtAccepted=settled CancelledByPerson=cancelled\n\
            needs_attention: SettledByPerson=settled RetriedByPerson=retry CancelledByPerson=cancelled\n\
            awaiting_approval: Approved=ready LetGoOn=ready ApprovalExpired=refused CancelledByPerson=cancelled\n\
            succeeded:\n\
            settled:\n\
            failed: RetriedByPerson=retry PlannedAnewByPerson=waiting\n\
            skipped:\n\
            refused: PlannedAnewByPerson=waiting\n\
            cancelled: RetriedByPerson=retry PlannedAnewByPerson=waiting\n";
        assert_eq!(table, expected);
    }

    #[test]
    fn a_step_has_succeeded_only_where_its_effect_can_be_counted_on() {
        let successes: Vec<_> = ActionState::ALL.into_iter().filter(|state| state.is_success()).collect();
        assert_eq!(successes, [ActionState::Succeeded, ActionState::Settled]);
        assert!(successes.into_iter().all(ActionState::is_final));
    }

    #[test]
    fn a_refused_change_of_state_says_which() {
        let error = ActionState::Succeeded.after(Happening::Claimed).unwrap_err();
        assert_eq!(error.to_string(), "an action that is succeeded cannot go on with Claimed");
    }

    #[test]
    fn only_a_person_moves_an_action_out_of_a_final_state() {
        for state in ActionState::ALL.into_iter().filter(|state| state.is_final()) {
            for happening in Happening::ALL {
                if state.after(happening).is_ok() {
                    let by_a_person = matches!(happening, Happening::RetriedByPerson | Happening::PlannedAnewByPerson);
                    assert!(by_a_person, "{state} moved on {happening:?}");
                }
            }
        }
    }

    #[test]
    fn nothing_is_sent_without_a_claim() {
        for state in ActionState::ALL {
            for happening in Happening::ALL {
                if state.after(happening) == Ok(ActionState::Started) {
                    assert_eq!(happening, Happening::Claimed);
                    assert!(matches!(state, ActionState::Ready | ActionState::Retry));
                }
            }
        }
    }

    #[test]
    fn an_unknown_action_is_never_sent_again_without_reading_back_or_a_person() {
        let ways_out: Vec<_> =
            Happening::ALL.into_iter().filter(|happening| ActionState::Unknown.after(*happening).is_ok()).collect();
        assert_eq!(
            ways_out,
            [
                Happening::WillNotPass,
                Happening::FoundDone,
                Happening::FoundUndone,
                Happening::CannotTell,
                Happening::DoubtAccepted,
                Happening::CancelledByPerson
            ]
        );
    }

    #[test]
    fn nothing_gets_past_the_guard_once_it_was_refused() {
        for happening in Happening::ALL {
            if let Ok(next) = ActionState::Refused.after(happening) {
                assert_eq!(next, ActionState::Waiting, "{happening:?}");
            }
        }
    }

    #[test]
    fn every_state_that_is_not_final_has_a_way_on() {
        for state in ActionState::ALL.into_iter().filter(|state| !state.is_final()) {
            assert!(
                Happening::ALL.into_iter().any(|happening| state.after(happening).is_ok()),
                "{state} is a dead end"
            );
        }
    }
}
