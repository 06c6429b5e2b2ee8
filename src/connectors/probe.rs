//! What asking a service shows of whether actions will work, without changing anything there.

use crate::http::trouble;
use crate::model::outcome::{Failure, Reason};

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What, such as "Slack token".
    pub about: String,
    /// How it stands.
    pub grade: Grade,
    /// What was found, or what is wrong. Holds no secret.
    pub detail: String,
    /// What to do, where the detail does not say it.
    pub remedy: Option<String>,
}

/// How a thing stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grade {
    /// As it has to be.
    Fine,
    /// It cannot be verified without changing something, or it may be a problem.
    Note,
    /// Actions will not work.
    Failed(Reason),
}

impl Finding {
    /// It is as it has to be.
    pub fn fine(about: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { about: about.into(), grade: Grade::Fine, detail: detail.into(), remedy: None }
    }

    /// It cannot be verified, or may be a problem.
    pub fn note(about: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { grade: Grade::Note, ..Self::fine(about, detail) }
    }

    /// It will not work.
    pub fn failed(about: impl Into<String>, failure: Failure) -> Self {
        let finding = Self { grade: Grade::Failed(failure.reason), ..Self::fine(about, failure.detail) };
        let remedy = trouble::remedy_in(&finding.detail).map(str::to_owned);
        finding.and_remedy(remedy)
    }

    /// What came of a question.
    pub fn of(about: impl Into<String>, result: Result<String, Failure>) -> Self {
        match result {
            Ok(detail) => Self::fine(about, detail),
            Err(failure) => Self::failed(about, failure),
        }
    }

    /// With what to do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// With more words behind the detail.
    #[must_use]
    pub fn and_says(mut self, more: &str) -> Self {
        self.detail.push_str(more);
        self
    }

    /// With what to do about it, which the detail says as well: it is taken out there.
    #[must_use]
    pub fn and_remedy(mut self, remedy: Option<String>) -> Self {
        if let Some(remedy) = remedy {
            self.detail = self.detail.replacen(&format!("; {remedy}"), "", 1);
            self.remedy = Some(remedy);
        }
        self
    }

    /// Whether it failed because nobody answered.
    pub fn is_unreachable(&self) -> bool {
        use Reason::{Connect, ConnectionLost, RateLimited, ServiceError, Timeout};
        matches!(self.grade, Grade::Failed(Connect | Timeout | ConnectionLost | ServiceError | RateLimited))
    }
}
