//! How a command ends.

use std::io::ErrorKind;
use std::process::ExitCode;

use thiserror::Error;

use crate::app::AppError;
use crate::engine::TaskError;
use crate::store::{BackupError, LockError, PersonError, StoreError};
use crate::telemetry::log::LogError;

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
    /// The configuration or the state file is wrong: trying again does not help, a person has to look.
    Configuration = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl Exit {
    /// An error that ends the command with this code.
    pub fn because(self, message: impl Into<String>) -> anyhow::Error {
        Ended { exit: self, message: message.into() }.into()
    }

    /// The code for an error: by its cause where the cause has a code of its own.
    pub fn of(error: &anyhow::Error) -> Self {
        for cause in error.chain() {
            if let Some(ended) = cause.downcast_ref::<Ended>() {
                return ended.exit;
            }
            if let Some(error) = cause.downcast_ref::<AppError>() {
                return Self::of_app(error);
            }
            if let Some(error) = cause.downcast_ref::<LockError>() {
                return Self::of_lock(error);
            }
            if let Some(error) = cause.downcast_ref::<BackupError>() {
                return Self::of_backup(error);
            }
            if let Some(error) = cause.downcast_ref::<StoreError>() {
                return Self::of_store(error);
            }
            if cause.downcast_ref::<LogError>().is_some() {
                return Self::Configuration;
            }
            if cause.downcast_ref::<PersonError>().is_some() {
                return Self::Failed;
            }
        }
        Self::Failed
    }

    fn of_app(error: &AppError) -> Self {
        match error {
            AppError::Locked(error) => Self::of_lock(error),
            AppError::Store(error) | AppError::Task { source: TaskError::Store(error), .. } => Self::of_store(error),
            AppError::Secret { .. }
            | AppError::Auth(_)
            | AppError::Okta(_)
            | AppError::Setup(_)
            | AppError::Network(_)
            | AppError::Value(_) => Self::Configuration,
            _ => Self::Failed,
        }
    }

    fn of_lock(error: &LockError) -> Self {
        match error {
            LockError::Held { .. } => Self::Temporary,
            LockError::Io { source, .. } if is_no_room(source) => Self::Temporary,
            LockError::Io { .. } => Self::Configuration,
        }
    }

    fn of_backup(error: &BackupError) -> Self {
        match error {
            BackupError::Store(error) => Self::of_store(error),
            BackupError::UnderWay(_) | BackupError::NoRoom(_) => Self::Temporary,
            BackupError::Target { source, .. } if is_no_room(source) => Self::Temporary,
            _ => Self::Failed,
        }
    }

    fn of_store(error: &StoreError) -> Self {
        match error {
            error if error.may_pass() => Self::Temporary,
            // Its directory is not there or not ours.
            StoreError::Open { .. } | StoreError::Exposed { .. } => Self::Configuration,
            // Whatever is there, it is not what can be worked on, and will not be until somebody has mended it.
            StoreError::Corrupt
            | StoreError::NotOurs
            | StoreError::Empty(_)
            | StoreError::ForeignLog(_)
            | StoreError::Newer { .. } => Self::Configuration,
            _ => Self::Failed,
        }
    }
}

/// Whether the system had no room, or granted none.
fn is_no_room(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

/// An error that says itself how the command ends.
#[derive(Debug, Error)]
#[error("{message}")]
pub struct Ended {
    exit: Exit,
    message: String,
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;
    use crate::telemetry::log;

    #[track_caller]
    fn check(error: impl Into<anyhow::Error>, expected: Exit) {
        let error = error.into();
        assert_eq!(Exit::of(&error), expected, "{error:#}");
        assert_eq!(Exit::of(&error.context("while trying")), expected);
    }

    #[test]
    fn the_code_is_found_below_whatever_was_said_on_top() {
        check(Exit::Configuration.because("2 problems"), Exit::Configuration);
        check(Exit::Usage.because("--since lies in the future"), Exit::Usage);
        check(StoreError::Full, Exit::Temporary);
        check(StoreError::Refused, Exit::Temporary);
        check(StoreError::Unreadable(String::new()), Exit::Failed);
        for beyond_us in [StoreError::NotOurs, StoreError::Corrupt, StoreError::Newer { found: 99 }] {
            let task = AppError::Task { task: "decider", source: TaskError::Store(beyond_us) };
            check(task, Exit::Configuration);
        }
        check(BackupError::Store(StoreError::Full), Exit::Temporary);
        check(BackupError::Exists("copy.db".into()), Exit::Failed);
        check(AppError::Store(StoreError::Busy), Exit::Temporary);
        check(LockError::Held { state: "state.db".into(), holder: "process 1".to_owned() }, Exit::Temporary);
        for (kind, exit) in [
            (ErrorKind::NotFound, Exit::Configuration),
            (ErrorKind::PermissionDenied, Exit::Configuration),
            (ErrorKind::StorageFull, Exit::Temporary),
        ] {
            check(LockError::Io { path: "state.db.lock".into(), source: kind.into() }, exit);
            check(AppError::Locked(LockError::Io { path: "state.db.lock".into(), source: kind.into() }), exit);
        }
        check(log::check("bogus=xx").unwrap_err(), Exit::Configuration);
        check(anyhow::anyhow!("anything"), Exit::Failed);
        let wrapped: anyhow::Result<()> = Err(StoreError::Full).context("state file state.db");
        check(wrapped.unwrap_err(), Exit::Temporary);
    }
}
