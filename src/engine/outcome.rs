//! What an outcome or a verdict means for its action. Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::retry::Schedule;
use crate::model::action::{Happening, InDoubt};
use crate::model::outcome::{Failure, Outcome, Verdict};
use crate::store::{AttemptEnd, Claimed};

/// How long retries go on, and how they are spaced.
#[derive(Debug, Clone, Copy)]
pub struct RetryPolicy {
    /// The pauses between attempts.
    pub schedule: Schedule,
    /// No attempt begins later than this after the time for retries began.
    pub give_up_after: Duration,
    /// How long the service may still be at work on a request whose outcome is unknown; it is not read back before that.
    pub still_at_work: Duration,
}

/// The least pause before the target of an unknown attempt is read back.
const BEFORE_READING_BACK: Duration = Duration::from_millis(500);

/// T4 for an attempt that was sent.
pub fn of_attempt(action: &Claimed, outcome: Outcome, policy: RetryPolicy, now: Timestamp) -> AttemptEnd {
    let end = |word, happening, failure: Option<Failure>| AttemptEnd {
        action: action.id,
        attempt: Some(action.attempt),
        outcome: Some(word),
        reason: failure.as_ref().map(|failure| failure.reason.as_str()),
        detail: failure.map(|failure| failure.detail),
        happening: Some(happening),
        receipt: None,
        due: None,
    };
    match outcome {
        Outcome::Done(receipt) => AttemptEnd { receipt: Some(receipt), ..end("done", Happening::Succeeded, None) },
        Outcome::AlreadyDone(receipt) => {
            AttemptEnd { receipt: Some(receipt), ..end("already_done", Happening::Succeeded, None) }
        }
        Outcome::Progress(receipt) => {
            // Nothing but the next part may follow at once; what does not get on is spaced like a failure.
            let detail = receipt.note.clone();
            let is_new = action.trouble.as_ref().map(|(_, words)| words) != detail.as_ref();
            let pause =
                if is_new { Duration::ZERO } else { policy.schedule.pause(action.attempt, action.key.as_str()) };
            let end = end(PART, Happening::MayPass, None);
            retry(
                AttemptEnd { receipt: Some(receipt), reason: Some(PROGRESS), detail, ..end },
                action,
                pause,
                policy,
                now,
            )
        }
        Outcome::RetryAfter(pause, failure) => {
            retry(end("retry_after", Happening::MayPass, Some(failure)), action, pause, policy, now)
        }
        Outcome::Transient(failure) => {
            let pause = policy.schedule.pause(action.attempt, action.key.as_str());
            retry(end("transient", Happening::MayPass, Some(failure)), action, pause, policy, now)
        }
        Outcome::Permanent(failure) => end("permanent", Happening::WillNotPass, Some(failure)),
        Outcome::Unknown(failure) => AttemptEnd {
            due: Some(after(now, BEFORE_READING_BACK.max(policy.still_at_work))),
            ..end("unknown", Happening::OutcomeLost, Some(failure))
        },
    }
}

/// T4 for the reading back after an attempt whose outcome is unknown.
pub fn of_verdict(action: &Claimed, verdict: Verdict, policy: RetryPolicy, now: Timestamp) -> AttemptEnd {
    let end = |happening, reason, detail: &str| AttemptEnd {
        action: action.id,
        attempt: Some(action.attempt.saturating_sub(1)),
        outcome: None,
        reason: Some(reason),
        detail: Some(detail.to_owned()),
        happening: Some(happening),
        receipt: None,
        due: None,
    };
    match verdict {
        Verdict::Done(receipt) => {
            AttemptEnd { receipt: Some(receipt), detail: None, ..end(Happening::FoundDone, "found_done", "") }
        }
        Verdict::NotDone if is_over(action, policy, now) => AttemptEnd {
            detail: Some(given_up(action, policy, "the requests keep getting lost")),
            ..end(Happening::WillNotPass, "found_undone", "")
        },
        Verdict::NotDone => AttemptEnd {
            due: Some(after(now, pause_before_resending(action, policy))),
            ..end(Happening::FoundUndone, "found_undone", "the request did not arrive; it is sent again")
        },
        Verdict::CannotTell => match action.in_doubt {
            InDoubt::Skip => end(
                Happening::DoubtAccepted,
                "in_doubt",
                "nobody can tell whether it was sent, and it is not sent again (in_doubt = \"skip\")",
            ),
            InDoubt::Resend if is_over(action, policy, now) => AttemptEnd {
                detail: Some(given_up(action, policy, "nobody can tell whether one of them was sent")),
                ..end(Happening::DoubtAccepted, "in_doubt", "")
            },
            InDoubt::Resend => AttemptEnd {
                due: Some(after(now, pause_before_resending(action, policy))),
                ..end(
                    Happening::FoundUndone,
                    "resent",
                    "nobody can tell whether it was sent; it is sent again (in_doubt = \"resend\")",
                )
            },
            InDoubt::Ask => end(
                Happening::CannotTell,
                "in_doubt",
                "nobody can tell whether it was sent; look at the service, then `actions settle` or `actions retry`",
            ),
        },
        Verdict::TryLater(failure) => {
            let pause = pause_before_reading_back(action, policy, now);
            if after(now, pause) > after(action.since, policy.give_up_after) {
                let tried = humantime::format_duration(policy.give_up_after);
                let why = format!(
                    "whether it was done could not be read back for {tried}; look at the service, then `actions settle` or \
                     `actions retry`: {}",
                    failure.detail
                );
                return end(Happening::CannotTell, failure.reason.as_str(), &why);
            }
            AttemptEnd {
                happening: None,
                due: Some(after(now, pause)),
                ..end(Happening::CannotTell, failure.reason.as_str(), &format!("{NOT_NOW}{}", failure.detail))
            }
        }
    }
}

/// The word of an attempt that did its part: its own request was done.
const PART: &str = "done";

/// The reason on record while an action has more to do.
pub(super) const PROGRESS: &str = "progress";

/// How the sentence about a reading back begins that was not possible.
const NOT_NOW: &str = "reading back is not possible now: ";

/// Whether this end says nothing that the action's last one did not say: the log has it already.
pub(super) fn is_known(action: &Claimed, end: &AttemptEnd) -> bool {
    let not_now = |text: &str| text.starts_with(NOT_NOW);
    let (Some((reason, words)), Some(detail)) = (&action.trouble, &end.detail) else { return false };
    let same = end.reason == Some(reason.as_str()) && not_now(words) == not_now(detail);
    same && matches!(end.happening, None | Some(Happening::MayPass))
}

/// Grows with the time for which nobody could tell, like the pauses of the schedule grow with their number.
fn pause_before_reading_back(action: &Claimed, policy: RetryPolicy, now: Timestamp) -> Duration {
    let doubted = Duration::try_from(now.duration_since(action.since)).unwrap_or_default();
    let mut number = 1;
    let mut passed = policy.schedule.initial;
    while passed <= doubted && number < 64 {
        passed = passed.saturating_mul(2);
        number += 1;
    }
    policy.schedule.pause(number, action.key.as_str())
}

/// The first time at once; a request that keeps getting lost is spaced like every other retry.
fn pause_before_resending(action: &Claimed, policy: RetryPolicy) -> Duration {
    match made(action) {
        0 | 1 => Duration::ZERO,
        made => policy.schedule.pause(made, action.key.as_str()),
    }
}

/// How many attempts an action has had that is being read back: it carries the number of the next one.
fn made(action: &Claimed) -> u32 {
    action.attempt.saturating_sub(1)
}

/// Whether the time for retries is over before a lost request could be sent again. One loss alone never ends an action,
/// however long the daemon was down after it.
fn is_over(action: &Claimed, policy: RetryPolicy, now: Timestamp) -> bool {
    let due = after(now, pause_before_resending(action, policy));
    made(action) > 1 && due > after(action.retry_from, policy.give_up_after)
}

fn given_up(action: &Claimed, policy: RetryPolicy, why: &str) -> String {
    format!("given up after {} and {} attempts: {why}", humantime::format_duration(policy.give_up_after), made(action))
}

fn retry(end: AttemptEnd, action: &Claimed, pause: Duration, policy: RetryPolicy, now: Timestamp) -> AttemptEnd {
    let due = after(now, pause);
    if due > after(action.retry_from, policy.give_up_after) {
        let detail = end.detail.unwrap_or_default();
        let tried = humantime::format_duration(policy.give_up_after);
        return AttemptEnd {
            happening: Some(Happening::WillNotPass),
            detail: Some(format!("given up after {tried} and {} attempts: {detail}", action.attempt)),
            ..end
        };
    }
    AttemptEnd { due: Some(due), ..end }
}

/// `pause` after `moment`.
pub(super) fn after(moment: Timestamp, pause: Duration) -> Timestamp {
    SignedDuration::try_from(pause).ok().and_then(|pause| moment.checked_add(pause).ok()).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::{ActionId, IdempotencyKey, RunId};
    use crate::model::outcome::{Reason, Receipt};

    fn action(in_doubt: InDoubt, attempt: u32) -> Claimed {
        Claimed {
            id: ActionId(1),
            run: RunId(1),
            step: "tell".to_owned(),
            kind: "slack.message.post".to_owned(),
            key: IdempotencyKey::derive("okta", "u", "p", "tell"),
            params: "{}".to_owned(),
            attempt,
            in_doubt,
            retry_from: at(0),
            since: at(0),
            earlier: Receipt::default(),
            trouble: None,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    const POLICY: RetryPolicy = RetryPolicy {
        schedule: Schedule { initial: Duration::from_secs(1), max: Duration::from_secs(300) },
        give_up_after: Duration::from_secs(3600),
        still_at_work: Duration::ZERO,
    };

    fn failure() -> Failure {
        Failure::new(Reason::ServiceError, "503")
    }

    #[test]
    fn a_transient_failure_is_tried_again_until_its_time_is_over() {
        let again = of_attempt(&action(InDoubt::Ask, 1), Outcome::Transient(failure()), POLICY, at(10));
        assert_eq!(again.happening, Some(Happening::MayPass));
        assert!(again.due.unwrap() > at(10));
        let over = of_attempt(&action(InDoubt::Ask, 40), Outcome::Transient(failure()), POLICY, at(3590));
        assert_eq!(over.happening, Some(Happening::WillNotPass));
        assert!(over.detail.unwrap().contains("given up after 1h and 40 attempts"));
    }

    #[test]
    fn an_action_that_gets_on_goes_on_at_once_and_one_that_does_not_is_spaced_and_given_up() {
        let part = |words: &str| Outcome::Progress(Receipt::note(words));
        let first = of_attempt(&action(InDoubt::Ask, 5), part("one is done"), POLICY, at(10));
        assert_eq!((first.happening, first.due), (Some(Happening::MayPass), Some(at(10))));
        assert_eq!((first.outcome, first.reason), (Some("done"), Some(PROGRESS)));
        assert_eq!(first.receipt.and_then(|receipt| receipt.note).as_deref(), Some("one is done"));
        let trouble = Some((PROGRESS.to_owned(), "one is done".to_owned()));
        let stuck = Claimed { trouble, ..action(InDoubt::Ask, 6) };
        assert_eq!(of_attempt(&stuck, part("two is done"), POLICY, at(10)).due, Some(at(10)));
        assert!(of_attempt(&stuck, part("one is done"), POLICY, at(10)).due.unwrap() > at(10));
        let over = of_attempt(&stuck, part("one is done"), POLICY, at(3599));
        assert_eq!(over.happening, Some(Happening::WillNotPass));
    }

    /// All that is recorded of an end.
    #[track_caller]
    fn check(
        end: AttemptEnd,
        outcome: Option<&str>,
        reason: Option<&str>,
        detail: Option<&str>,
        due: Option<Timestamp>,
    ) {
        assert_eq!((end.outcome, end.reason), (outcome, reason));
        assert_eq!(end.detail.as_deref(), detail);
        assert_eq!(end.due, due);
        assert_eq!(end.action, ActionId(1));
    }

    #[test]
    fn the_end_of_an_attempt_is_recorded_with_all_it_says() {
        let receipt = || Receipt { id: Some("42".to_owned()), ..Receipt::default() };
        let end = |outcome| of_attempt(&action(InDoubt::Ask, 3), outcome, POLICY, at(10));
        for (word, outcome) in [("done", Outcome::Done(receipt())), ("already_done", Outcome::AlreadyDone(receipt()))] {
            let end = end(outcome);
            assert_eq!((end.happening, end.receipt.clone()), (Some(Happening::Succeeded), Some(receipt())));
            check(end, Some(word), None, None, None);
        }
        let pause = POLICY.schedule.pause(3, action(InDoubt::Ask, 3).key.as_str());
        let (reason, detail) = (Some("service_error"), Some("503"));
        check(end(Outcome::Transient(failure())), Some("transient"), reason, detail, Some(after(at(10), pause)));
        check(
            end(Outcome::RetryAfter(pause, failure())),
            Some("retry_after"),
            reason,
            detail,
            Some(after(at(10), pause)),
        );
        check(end(Outcome::Permanent(failure())), Some("permanent"), reason, detail, None);
        let soon = after(at(10), Duration::from_millis(500));
        check(end(Outcome::Unknown(failure())), Some("unknown"), reason, detail, Some(soon));
    }

    #[test]
    fn the_end_of_a_doubt_is_recorded_with_all_it_says() {
        let found = of_verdict(&action(InDoubt::Ask, 2), Verdict::Done(Receipt::note("is a member")), POLICY, at(10));
        assert_eq!(found.receipt, Some(Receipt::note("is a member")));
        check(found, None, Some("found_done"), None, None);

        let pause = POLICY.schedule.pause(2, action(InDoubt::Ask, 3).key.as_str());
        assert!(pause > Duration::from_secs(1));
        // The first loss is sent again at once, the next one after a pause.
        for (in_doubt, verdict, reason) in
            [(InDoubt::Ask, Verdict::NotDone, "found_undone"), (InDoubt::Resend, Verdict::CannotTell, "resent")]
        {
            for (attempt, due) in [(2, at(10)), (3, after(at(10), pause))] {
                let end = of_verdict(&action(in_doubt, attempt), verdict.clone(), POLICY, at(10));
                let detail = end.detail.clone().unwrap();
                assert!(detail.contains("it is sent again"), "{detail}");
                check(end, None, Some(reason), Some(&detail), Some(due));
            }
            let over = of_verdict(&action(in_doubt, 3), verdict, POLICY, at(3600));
            let detail = over.detail.clone().unwrap();
            assert!(detail.starts_with("given up after 1h and 2 attempts: "), "{detail}");
            assert_eq!(over.due, None);
        }
        for in_doubt in [InDoubt::Skip, InDoubt::Ask] {
            let end = of_verdict(&action(in_doubt, 2), Verdict::CannotTell, POLICY, at(10));
            let detail = end.detail.clone().unwrap();
            assert!(detail.starts_with("nobody can tell whether it was sent"), "{detail}");
            check(end, None, Some("in_doubt"), Some(&detail), None);
        }
        let later = of_verdict(&action(InDoubt::Ask, 2), Verdict::TryLater(failure()), POLICY, at(0));
        let due = later.due;
        check(later, None, Some("service_error"), Some("reading back is not possible now: 503"), due);
    }

    #[test]
    fn what_is_due_at_the_last_moment_is_still_tried() {
        let retry = |seconds| {
            let outcome = Outcome::RetryAfter(Duration::from_secs(seconds), failure());
            of_attempt(&action(InDoubt::Ask, 1), outcome, POLICY, at(0)).happening
        };
        assert_eq!((retry(3600), retry(3601)), (Some(Happening::MayPass), Some(Happening::WillNotPass)));

        let key = action(InDoubt::Ask, 3).key;
        let before_the_end = |number, nanos: u64| {
            let pause = POLICY.schedule.pause(number, key.as_str()) - Duration::from_nanos(nanos);
            at(3600) - SignedDuration::try_from(pause).unwrap()
        };
        let end = |verdict, now| of_verdict(&action(InDoubt::Ask, 3), verdict, POLICY, now).happening;
        assert_eq!(end(Verdict::NotDone, before_the_end(2, 0)), Some(Happening::FoundUndone));
        assert_eq!(end(Verdict::NotDone, before_the_end(2, 1)), Some(Happening::WillNotPass));
        // After almost an hour of doubt the pauses have long reached their maximum.
        assert_eq!(end(Verdict::TryLater(failure()), before_the_end(13, 0)), None);
        assert_eq!(end(Verdict::TryLater(failure()), before_the_end(13, 1)), Some(Happening::CannotTell));
    }

    #[test]
    fn the_services_own_pause_is_kept() {
        let pause = Duration::from_secs(77);
        let end = of_attempt(&action(InDoubt::Ask, 1), Outcome::RetryAfter(pause, failure()), POLICY, at(0));
        assert_eq!(end.due, Some(at(77)));
    }

    #[test]
    fn an_unknown_outcome_is_never_a_retry() {
        let end = of_attempt(&action(InDoubt::Resend, 1), Outcome::Unknown(failure()), POLICY, at(0));
        assert_eq!(end.happening, Some(Happening::OutcomeLost));
    }

    #[test]
    fn doubt_is_closed_the_way_the_step_says() {
        for (in_doubt, happening) in [
            (InDoubt::Skip, Happening::DoubtAccepted),
            (InDoubt::Resend, Happening::FoundUndone),
            (InDoubt::Ask, Happening::CannotTell),
        ] {
            let end = of_verdict(&action(in_doubt, 1), Verdict::CannotTell, POLICY, at(0));
            assert_eq!(end.happening, Some(happening));
        }
    }

    #[test]
    fn a_request_that_keeps_getting_lost_is_given_up_but_one_loss_never_is() {
        let verdict = |in_doubt, made: u32, verdict, second| {
            of_verdict(&action(in_doubt, made + 1), verdict, POLICY, at(second)).happening
        };
        assert_eq!(verdict(InDoubt::Ask, 2, Verdict::NotDone, 10), Some(Happening::FoundUndone));
        assert_eq!(verdict(InDoubt::Ask, 2, Verdict::NotDone, 3601), Some(Happening::WillNotPass));
        assert_eq!(verdict(InDoubt::Ask, 1, Verdict::NotDone, 90_000), Some(Happening::FoundUndone));
        assert_eq!(verdict(InDoubt::Resend, 2, Verdict::CannotTell, 3601), Some(Happening::DoubtAccepted));
        assert_eq!(verdict(InDoubt::Resend, 1, Verdict::CannotTell, 90_000), Some(Happening::FoundUndone));
        assert_eq!(verdict(InDoubt::Ask, 9, Verdict::Done(Receipt::default()), 90_000), Some(Happening::FoundDone));
    }

    #[test]
    fn a_target_that_cannot_be_read_back_is_asked_with_growing_pauses_and_then_left_to_a_person() {
        let look =
            |in_doubt, second| of_verdict(&action(in_doubt, 2), Verdict::TryLater(failure()), POLICY, at(second));
        let mut pauses = Vec::new();
        let mut second = 0;
        let last = loop {
            let end = look(InDoubt::Ask, second);
            let Some(due) = end.due else { break end };
            pauses.push(due.duration_since(at(second)).as_secs());
            second = due.duration_since(at(0)).as_secs() + 1;
            assert!(second <= 3601, "no end: {pauses:?}");
        };
        assert_eq!(last.happening, Some(Happening::CannotTell));
        assert!(last.detail.unwrap().contains("`actions settle` or `actions retry`"));
        assert!((10..40).contains(&pauses.len()), "{pauses:?}");
        assert!(pauses.iter().max().unwrap() > &200 && pauses[0] <= 1, "{pauses:?}");
        // Whatever the step says about doubts: the target could have told.
        assert_eq!(look(InDoubt::Resend, 3600).happening, Some(Happening::CannotTell));
        assert_eq!(look(InDoubt::Skip, 3600).happening, Some(Happening::CannotTell));
        // A doubt that lies in the future is read back soon.
        assert!(look(InDoubt::Ask, -90_000).due.unwrap() < at(-90_000 + 3));
    }

    #[test]
    fn the_same_trouble_is_told_once() {
        let later = of_verdict(&action(InDoubt::Ask, 2), Verdict::TryLater(failure()), POLICY, at(0));
        let again = of_attempt(&action(InDoubt::Ask, 2), Outcome::Transient(failure()), POLICY, at(0));
        let trouble = |end: &AttemptEnd| Some((end.reason.unwrap().to_owned(), end.detail.clone().unwrap()));
        let known = |end, trouble| is_known(&Claimed { trouble, ..action(InDoubt::Ask, 2) }, end);
        for end in [&later, &again] {
            assert!(!known(end, None));
            assert!(known(end, trouble(end)));
            assert!(!known(end, Some(("timeout".to_owned(), end.detail.clone().unwrap()))));
        }
        // That an attempt failed and that it cannot be read back are two things.
        assert!(!known(&later, trouble(&again)) && !known(&again, trouble(&later)));
        let given_up = of_attempt(&action(InDoubt::Ask, 2), Outcome::Transient(failure()), POLICY, at(3600));
        assert!(!known(&given_up, trouble(&again)), "the end is always told");
    }

    #[test]
    fn reading_back_later_leaves_the_action_unknown() {
        let end = of_verdict(&action(InDoubt::Ask, 1), Verdict::TryLater(failure()), POLICY, at(0));
        assert_eq!(end.happening, None);
        assert!(end.due.unwrap() > at(0));
        let done = of_verdict(&action(InDoubt::Ask, 1), Verdict::Done(Receipt::note("is a member")), POLICY, at(0));
        assert_eq!(done.happening, Some(Happening::FoundDone));
    }
}
