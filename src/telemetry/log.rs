//! The log, on standard error. A failure is one line, written where it is handled. Never in it: tokens, whole bodies,
//! `debugData` (which can carry login tokens).

use std::io::IsTerminal;

use thiserror::Error;
use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};

/// The environment variable that overrides `[log] level`.
pub const LEVEL_VARIABLE: &str = "OKTA_RESPONDER_LOG";

/// The variable or `[log] level` is no filter. What the parser says is part of the sentence: it repeats its own causes.
#[derive(Debug, Error)]
#[error("{place}: `{filter}` is no log filter such as `info` or `okta_responder=debug,info`: {why}")]
pub struct LogError {
    place: &'static str,
    filter: String,
    why: String,
}

/// Checks a filter.
pub fn check(filter: &str) -> Result<(), LogError> {
    filter_of("[log] level", filter).map(drop)
}

/// Starts logging. Later calls change nothing.
pub fn start(config: &LogConfig) -> Result<(), LogError> {
    let filter = match std::env::var(LEVEL_VARIABLE) {
        Ok(wanted) => filter_of(LEVEL_VARIABLE, &wanted)?,
        Err(_) => filter_of("[log] level", &config.level)?,
    };
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

fn filter_of(place: &'static str, filter: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::builder().parse(filter).map_err(|error| LogError {
        place,
        filter: filter.to_owned(),
        why: error.to_string(),
    })
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
