//! What a connector reports about one request, and about reading a target back.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How one attempt ended. A connector returns this and never loops: waiting and repeating is the dispatcher's work.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The service did it now.
    Done(Receipt),
    /// The service was in the wanted state already.
    AlreadyDone(Receipt),
    /// This attempt did its part (its one request, or finding out what there is to do), and the action has more to do: the
    /// next attempt follows at once. The receipt is kept and goes with it, so what it remembers survives a crash; its note
    /// says what was done, in words that differ from part to part: an action that says the same twice is not getting on,
    /// and is spaced and given up like a failure that may pass.
    Progress(Receipt),
    /// The service asked for a pause; nothing was changed.
    RetryAfter(Duration, Failure),
    /// Nothing was changed, and the same request may work later.
    Transient(Failure),
    /// Nothing was changed, and the same request will not work later.
    Permanent(Failure),
    /// The request may have arrived: neither success nor failure may be assumed.
    Unknown(Failure),
}

impl Outcome {
    /// What went wrong; an empty sentence when nothing did.
    pub fn into_failure(self) -> Failure {
        match self {
            Self::RetryAfter(_, failure)
            | Self::Transient(failure)
            | Self::Permanent(failure)
            | Self::Unknown(failure) => failure,
            Self::Done(_) | Self::AlreadyDone(_) | Self::Progress(_) => Failure::new(Reason::BadAnswer, ""),
        }
    }
}

/// What reading the target back says about an attempt whose outcome is unknown.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// The effect is there.
    Done(Receipt),
    /// The effect is not there: the request may be sent again.
    NotDone,
    /// This service has no way to tell.
    CannotTell,
    /// The service could not be asked now.
    TryLater(Failure),
}

/// What the service called the thing it made or changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The service's own id, if it gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The number people use, such as `INC0010002`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<String>,
    /// Where a person can look at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// One sentence for people, such as "was not a member".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The channel that a message stands in, as its service calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// The first message of the thread that a message stands in; its own id when it opened the thread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<String>,
    /// What came back, of a request that a playbook itself describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Box<Answer>>,
    /// Groups that the user is taken out of, or put back into. They are on record before the first of them is touched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupNote>,
    /// How the target stood before it was changed, as far as putting it back needs it; the names are the action's own. What
    /// was read first stays on record, whatever later attempts read.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub before: BTreeMap<String, String>,
}

/// An answer that later steps may read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its body as far as it is kept: JSON, bounded, and without secrets of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
}

/// A group that an action remembers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupNote {
    /// Okta's id.
    pub id: String,
    /// Its name when it was remembered.
    #[serde(default)]
    pub name: String,
    /// Whether Okta did not let it be changed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refused: bool,
    /// Whether this action put the user into it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub added: bool,
}

impl Receipt {
    /// A receipt that only carries a sentence.
    pub fn note(text: impl Into<String>) -> Self {
        Self { note: Some(text.into()), ..Self::default() }
    }

    /// The same receipt, which also tells how the target stood before.
    #[must_use]
    pub fn with_before<const N: usize>(mut self, before: [(&str, &str); N]) -> Self {
        self.before.extend(before.map(|(name, was)| (name.to_owned(), was.to_owned())));
        self
    }

    /// The same receipt, with all that an earlier one of the same action remembers.
    #[must_use]
    pub fn remembering(mut self, earlier: Self) -> Self {
        if self.groups.is_empty() {
            self.groups = earlier.groups;
        }
        self.before.extend(earlier.before);
        self
    }
}

/// Why an attempt did not succeed: a reason from a closed list, and a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The closed reason, used as a label and in filters.
    pub reason: Reason,
    /// What was tried, on what, what came back and what to do next. Bounded; holds no secret and no whole body.
    pub detail: String,
}

impl Failure {
    /// The most characters kept of a detail.
    pub const MAX_DETAIL: usize = 600;

    /// Builds a failure; the detail is cut at [`Failure::MAX_DETAIL`] characters and control characters become spaces.
    pub fn new(reason: Reason, detail: impl AsRef<str>) -> Self {
        let detail =
            detail.as_ref().chars().take(Self::MAX_DETAIL).map(|c| if c.is_control() { ' ' } else { c }).collect();
        Self { reason, detail }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.detail)
    }
}

/// Every reason for which an attempt can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// No connection could be made; the request did not leave.
    Connect,
    /// The request was sent and no answer came in time.
    Timeout,
    /// The connection broke after the request was sent.
    ConnectionLost,
    /// The service answered 429, or its own word for it.
    RateLimited,
    /// The service answered 5xx, or says that it is not available.
    ServiceError,
    /// The service refused our credentials.
    Unauthorized,
    /// The service knows us and does not let us do this.
    Forbidden,
    /// The thing to change does not exist.
    NotFound,
    /// The thing is in a state in which this cannot be done.
    Conflict,
    /// The service calls our request wrong.
    Rejected,
    /// The answer was not what the service's contract says (HTML, too large, not JSON, a field missing).
    BadAnswer,
    /// The parameters of the step are wrong.
    BadParameters,
    /// Access comes from a group, so the assignment itself cannot be taken away.
    GrantedByGroup,
    /// What the guard protects was found among what would have been changed.
    Protected,
    /// The daemon stopped while the attempt was under way.
    Interrupted,
}

impl Reason {
    /// The word that stands in the database, in JSON and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::ConnectionLost => "connection_lost",
            Self::RateLimited => "rate_limited",
            Self::ServiceError => "service_error",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Rejected => "rejected",
            Self::BadAnswer => "bad_answer",
            Self::BadParameters => "bad_parameters",
            Self::GrantedByGroup => "granted_by_group",
            Self::Protected => "protected",
            Self::Interrupted => "interrupted",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REASONS: [Reason; 15] = [
        Reason::Connect,
        Reason::Timeout,
        Reason::ConnectionLost,
        Reason::RateLimited,
        Reason::ServiceError,
        Reason::Unauthorized,
        Reason::Forbidden,
        Reason::NotFound,
        Reason::Conflict,
        Reason::Rejected,
        Reason::BadAnswer,
        Reason::BadParameters,
        Reason::GrantedByGroup,
        Reason::Protected,
        Reason::Interrupted,
    ];

    #[test]
    fn a_reason_is_one_word_everywhere() {
        for reason in REASONS {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
            assert_eq!(serde_json::from_value::<Reason>(reason.as_str().into()).unwrap(), reason);
            assert_eq!(reason.to_string(), reason.as_str());
        }
    }

    #[test]
    fn a_failure_is_one_bounded_line_behind_its_reason() {
        let failure = Failure::new(Reason::Timeout, "no answer\r\nfrom \u{1b}[31mOkta");
        assert_eq!(failure.to_string(), "timeout: no answer  from  [31mOkta");
        assert_eq!(Failure::new(Reason::Timeout, "é".repeat(10_000)).detail, "é".repeat(Failure::MAX_DETAIL));
    }

    #[test]
    fn every_outcome_but_success_tells_its_failure() {
        let failure = || Failure::new(Reason::Conflict, "it is so");
        for outcome in [
            Outcome::RetryAfter(Duration::from_secs(1), failure()),
            Outcome::Transient(failure()),
            Outcome::Permanent(failure()),
            Outcome::Unknown(failure()),
        ] {
            assert_eq!(outcome.into_failure(), failure());
        }
        let none = Receipt::default;
        for outcome in [Outcome::Done(none()), Outcome::AlreadyDone(none()), Outcome::Progress(none())] {
            assert_eq!(outcome.into_failure().detail, "");
        }
    }

    #[test]
    fn a_receipt_holds_only_what_the_service_told() {
        let receipt = Receipt::note("was not a member");
        assert_eq!(serde_json::to_value(&receipt).unwrap(), serde_json::json!({"note": "was not a member"}));
        assert_eq!(serde_json::from_str::<Receipt>("{}").unwrap(), Receipt::default());
    }
}
