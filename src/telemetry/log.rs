//! The log, on standard error. A failure is one line, written where it is handled. Never in it: tokens, whole bodies,
//! `debugData` (which can carry login tokens).

use std::io::IsTerminal;

use thiserror::Error;
use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};

/// The environment variable that overrides `[log] level`.
pub const LEVEL_VARIABLE: &str = "OKTA_RESPONDER_LOG";

/// `[log] level` is no filter.
#[derive(Debug, Error)]
#[error("`{filter}` is no log filter such as `info` or `okta_responder=debug,info`")]
pub struct LogError {
    filter: String,
    #[source]
    source: tracing_subscriber::filter::ParseError,
}

/// Checks a filter.
pub fn check(filter: &str) -> Result<(), LogError> {
    filter_of(filter).map(drop)
}

/// Starts logging. Later calls change nothing.
pub fn start(config: &LogConfig) -> Result<(), LogError> {
    let wanted = std::env::var(LEVEL_VARIABLE).unwrap_or_else(|_| config.level.clone());
    let filter = filter_of(&wanted)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Under systemd the journal has the time already, but a second one does no harm in a file.
    let started = match config.format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init(),
    };
    // Only a second start fails, and then the first one's settings stay.
    drop(started);
    Ok(())
}

fn filter_of(filter: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::builder().parse(filter).map_err(|source| LogError { filter: filter.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_checked() {
        check("okta_responder=debug,info").unwrap();
        assert!(check("okta_responder=loud").is_err());
    }
}
