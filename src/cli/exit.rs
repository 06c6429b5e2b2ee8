//! How a command ends.

use std::process::ExitCode;

use crate::app::AppError;
use crate::store::{LockError, PersonError, StoreError};

/// The exit codes, after sysexits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// It was tried and failed.
    Failed = 1,
    /// The command line is wrong.
    Usage = 64,
    /// A service cannot be reached.
    Unavailable = 69,
    /// Another instance holds the state file, or the disk is full: try again later.
    Temporary = 75,
    /// The configuration is wrong.
    Configuration = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl Exit {
    /// The code for an error: by its cause where the cause has a code of its own.
    pub fn of(error: &anyhow::Error) -> Self {
        for cause in error.chain() {
            if let Some(exit) = cause.downcast_ref::<Self>() {
                return *exit;
            }
            if let Some(error) = cause.downcast_ref::<AppError>() {
                return Self::of_app(error);
            }
            if let Some(LockError::Held { .. }) = cause.downcast_ref::<LockError>() {
                return Self::Temporary;
            }
            if let Some(error) = cause.downcast_ref::<StoreError>() {
                return if error.may_pass() { Self::Temporary } else { Self::Failed };
            }
            if cause.downcast_ref::<PersonError>().is_some() {
                return Self::Failed;
            }
        }
        Self::Failed
    }

    fn of_app(error: &AppError) -> Self {
        match error {
            AppError::Locked(LockError::Held { .. }) => Self::Temporary,
            AppError::Store(error) if error.may_pass() => Self::Temporary,
            AppError::Secret { .. }
            | AppError::Auth(_)
            | AppError::Okta(_)
            | AppError::Setup(_)
            | AppError::Value(_) => Self::Configuration,
            _ => Self::Failed,
        }
    }
}

/// An exit code as the reason of an error: `Err(error.context(Exit::Usage))`.
impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Usage => "wrong usage",
            Self::Unavailable => "a service cannot be reached",
            Self::Temporary => "not possible now",
            Self::Configuration => "the configuration is wrong",
        })
    }
}

impl std::error::Error for Exit {}
