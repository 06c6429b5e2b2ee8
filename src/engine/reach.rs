//! Which services can be reached. It is told when one is lost and when it is back, and not for each request in between.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tracing::{info, warn};

use crate::http::trouble::NO_CONNECTION;
use crate::model::outcome::{Failure, Outcome, Reason, Verdict};

/// The name of Okta's section, which is that of all its actions too.
pub(super) const OKTA: &str = "okta";

/// So many requests in a row without a good answer, and the service is taken to be down. One to which no connection can be
/// made is down at once; one that answers 500 may mean that single request.
const IN_A_ROW: u64 = 3;

/// The most causes of one outage that are told.
const MOST_CAUSES: usize = 8;

/// What one request says about its service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign<'a> {
    /// It has answered.
    Answered,
    /// It could not be reached, or could not answer.
    Failed(&'a Failure),
    /// Nothing either way.
    Nothing,
}

impl<'a> Sign<'a> {
    /// What an outcome says.
    pub(super) fn of_outcome(outcome: &'a Outcome) -> Self {
        match outcome {
            Outcome::Done(_) | Outcome::AlreadyDone(_) | Outcome::Progress(_) => Self::Answered,
            Outcome::RetryAfter(_, failure)
            | Outcome::Transient(failure)
            | Outcome::Permanent(failure)
            | Outcome::Unknown(failure) => Self::of_failure(failure),
        }
    }

    /// What reading a target back says. Where it cannot tell, nobody may have been asked.
    pub(super) fn of_verdict(verdict: &'a Verdict) -> Self {
        match verdict {
            Verdict::Done(_) | Verdict::NotDone => Self::Answered,
            Verdict::TryLater(failure) => Self::of_failure(failure),
            Verdict::CannotTell => Self::Nothing,
        }
    }

    /// What a failure says.
    pub(super) fn of_failure(failure: &'a Failure) -> Self {
        match failure.reason {
            Reason::Connect | Reason::Timeout | Reason::ConnectionLost | Reason::ServiceError => Self::Failed(failure),
            Reason::Forbidden | Reason::NotFound | Reason::Conflict | Reason::Rejected | Reason::GrantedByGroup => {
                Self::Answered
            }
            // These may have been found out without asking, or come from something in between.
            Reason::RateLimited
            | Reason::Unauthorized
            | Reason::BadAnswer
            | Reason::BadParameters
            | Reason::Protected
            | Reason::Interrupted => Self::Nothing,
        }
    }
}

/// What is known of every service. Its lines in the log are the only ones about a service that is down.
#[derive(Debug, Default)]
pub struct Reach(Mutex<BTreeMap<String, Track>>);

impl Reach {
    /// Takes in what a request says that began at `began`, both times by [`super::clock::Clock::elapsed`]. True when the
    /// service is known to be down, and that has been told: another line about this request would say nothing new.
    pub(super) fn saw(&self, service: &str, sign: Sign<'_>, began: Duration, now: Duration) -> bool {
        self.take(service, sign, began, now, false)
    }

    /// The same for a task that has a line of its own for what it cannot do, and tells it when this is false.
    pub(super) fn saw_and_tells(&self, service: &str, sign: Sign<'_>, began: Duration, now: Duration) -> bool {
        self.take(service, sign, began, now, true)
    }

    fn take(&self, service: &str, sign: Sign<'_>, began: Duration, now: Duration, tells: bool) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.contains_key(service) {
            all.insert(service.to_owned(), Track::default());
        }
        let Some(track) = all.get_mut(service) else { return false };
        let news = track.take(sign, began, now, tells);
        let down = track.is_known_to(tells);
        drop(all);
        let name = shown(service);
        match news {
            Some(News::Down(failure)) if failure.reason == Reason::Connect => {
                warn!(service, "{name} cannot be reached: {}", cause(failure));
            }
            Some(News::Down(failure)) => warn!(service, "{name} does not answer as it should: {}", failure.detail),
            Some(News::Back { after, failed }) => {
                let after = humantime::format_duration(Duration::from_secs(after.as_secs()));
                info!(service, failed, "{name} is reached again after {after}; {failed} requests had failed");
            }
            None => {}
        }
        down
    }
}

/// The name of a service as people know it.
fn shown(service: &str) -> &str {
    match service {
        OKTA => "Okta",
        "servicenow" => "ServiceNow",
        "jira" => "Jira",
        "pagerduty" => "PagerDuty",
        "slack" => "Slack",
        "teams" => "Teams",
        "email" => "the mail server",
        other => other,
    }
}

/// The part of a failure's words that says why no connection could be made, whatever it was for.
fn cause(failure: &Failure) -> &str {
    failure.detail.find(NO_CONNECTION).and_then(|at| failure.detail.get(at..)).unwrap_or(&failure.detail)
}

/// What is known of one service. Pure.
#[derive(Debug, Default)]
struct Track {
    /// When the last request that was answered came back.
    answered: Option<Duration>,
    /// Requests that failed since.
    failed: u64,
    /// When the first of them failed.
    since: Duration,
    down: Option<Down>,
}

#[derive(Debug)]
struct Down {
    /// Whether it was told here. Otherwise a task tells its own trouble, its end as well.
    told: bool,
    causes: BTreeSet<String>,
}

#[derive(Debug, PartialEq, Eq)]
enum News<'a> {
    Down(&'a Failure),
    Back { after: Duration, failed: u64 },
}

impl Track {
    fn take<'a>(&mut self, sign: Sign<'a>, began: Duration, now: Duration, tells: bool) -> Option<News<'a>> {
        match sign {
            Sign::Nothing => None,
            // It left before the trouble began, so it says nothing about its end.
            Sign::Answered if self.down.is_some() && began < self.since => None,
            Sign::Answered => {
                self.answered = Some(now);
                let failed = std::mem::take(&mut self.failed);
                let after = now.saturating_sub(self.since);
                self.down.take().filter(|down| down.told).map(|_| News::Back { after, failed })
            }
            // The service has answered one that left later.
            Sign::Failed(_) if self.answered.is_some_and(|answered| began < answered) => None,
            Sign::Failed(failure) => self.fail(failure, now, tells),
        }
    }

    fn fail<'a>(&mut self, failure: &'a Failure, now: Duration, tells: bool) -> Option<News<'a>> {
        if self.failed == 0 {
            self.since = now;
        }
        self.failed = self.failed.saturating_add(1);
        let no_connection = failure.reason == Reason::Connect;
        match &mut self.down {
            Some(down) => {
                // Another cause is another state.
                let is_new =
                    no_connection && down.causes.len() < MOST_CAUSES && down.causes.insert(cause(failure).to_owned());
                down.told |= is_new;
                is_new.then_some(News::Down(failure))
            }
            None if no_connection || self.failed >= IN_A_ROW => {
                let told = no_connection || !tells;
                let causes = if no_connection { BTreeSet::from([cause(failure).to_owned()]) } else { BTreeSet::new() };
                self.down = Some(Down { told, causes });
                told.then_some(News::Down(failure))
            }
            None => None,
        }
    }

    /// Whether the task has nothing to tell any more. One with a line of its own goes on to tell what was not told here.
    fn is_known_to(&self, tells: bool) -> bool {
        self.down.as_ref().is_some_and(|down| down.told || !tells)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn connect(why: &str) -> Failure {
        Failure::new(Reason::Connect, format!("GET /x did not leave: {NO_CONNECTION}: {why}"))
    }

    fn error() -> Failure {
        Failure::new(Reason::ServiceError, "PUT /x was answered 503")
    }

    /// What is told of requests, each beginning at its second and ending a second later.
    fn told(requests: &[(u64, Option<Failure>)], tells: bool) -> Vec<(u64, String)> {
        let mut track = Track::default();
        let mut told = Vec::new();
        for (began, failure) in requests {
            let sign = failure.as_ref().map_or(Sign::Answered, Sign::Failed);
            match track.take(sign, s(*began), s(began + 1), tells) {
                Some(News::Down(failure)) => told.push((*began, cause(failure).to_owned())),
                Some(News::Back { after, failed }) => {
                    told.push((*began, format!("back after {} s, {failed} failed", after.as_secs())));
                }
                None => {}
            }
        }
        told
    }

    #[track_caller]
    fn check(requests: &[(u64, Option<Failure>)], expected: &[(u64, &str)]) {
        let expected: Vec<_> = expected.iter().map(|(second, words)| (*second, (*words).to_owned())).collect();
        assert_eq!(told(requests, false), expected);
    }

    #[test]
    fn a_service_that_is_lost_is_told_once_and_its_return_once() {
        let refused = || Some(connect("refused"));
        let words = "no connection could be made: refused";
        check(
            &[(0, None), (1, refused()), (2, refused()), (3, Some(error())), (9, None), (10, None), (20, refused())],
            &[(1, words), (9, "back after 8 s, 3 failed"), (20, words)],
        );
    }

    #[test]
    fn another_cause_is_told_as_well_but_each_only_once() {
        let (refused, unknown) = (|| Some(connect("refused")), || Some(connect("no such name")));
        check(
            &[(1, refused()), (2, unknown()), (3, refused()), (4, unknown())],
            &[(1, "no connection could be made: refused"), (2, "no connection could be made: no such name")],
        );
        let many: Vec<_> = (0..100).map(|second| (second, Some(connect(&second.to_string())))).collect();
        assert_eq!(told(&many, false).len(), MOST_CAUSES);
    }

    #[test]
    fn single_requests_that_fail_are_no_outage_and_several_in_a_row_are() {
        check(&[(1, Some(error())), (2, None), (3, Some(error())), (4, Some(error())), (5, None)], &[]);
        check(
            &[(1, Some(error())), (2, Some(error())), (3, Some(error())), (4, Some(error())), (5, None)],
            &[(3, "PUT /x was answered 503"), (5, "back after 4 s, 4 failed")],
        );
    }

    #[test]
    fn what_left_before_a_change_says_nothing_about_it() {
        // A connection that is given up long after others went through.
        check(&[(10, None), (5, Some(connect("late")))], &[]);
        // An answer to what was sent before all went dark.
        let dark = || Some(connect("dark"));
        check(&[(10, dark()), (5, None), (12, dark())], &[(10, "no connection could be made: dark")]);
    }

    #[test]
    fn a_task_that_tells_its_own_trouble_is_not_repeated() {
        let mut track = Track::default();
        let failure = error();
        for second in 0..5 {
            assert_eq!(track.take(Sign::Failed(&failure), s(second), s(second), true), None);
            assert!(!track.is_known_to(true), "the task tells it");
        }
        // For others it is known, and so is its end.
        assert!(track.is_known_to(false));
        assert_eq!(track.take(Sign::Answered, s(9), s(9), false), None);
        assert!(!track.is_known_to(false));
        // Where no connection can be made, all tasks have one line together.
        assert!(track.take(Sign::Failed(&connect("refused")), s(10), s(10), true).is_some());
        assert!(track.is_known_to(true) && track.is_known_to(false));
    }

    #[test]
    fn a_refusal_is_an_answer_and_what_may_not_have_been_asked_is_none() {
        let sign = |reason| {
            let failure = Failure::new(reason, "");
            match Sign::of_failure(&failure) {
                Sign::Answered => "answered",
                Sign::Failed(_) => "failed",
                Sign::Nothing => "nothing",
            }
        };
        assert_eq!(sign(Reason::Forbidden), "answered");
        assert_eq!(sign(Reason::Timeout), "failed");
        assert_eq!(sign(Reason::RateLimited), "nothing");
        assert_eq!(Sign::of_verdict(&Verdict::CannotTell), Sign::Nothing);
    }
}
