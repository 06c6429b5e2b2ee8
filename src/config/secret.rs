//! Where secrets come from: a file, a systemd credential, an environment variable. Never the configuration itself.

use std::path::PathBuf;

use serde::Deserialize;

/// `{ file = "…" }`, `{ credential = "…" }` or `{ env = "…" }`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SecretSource {
    /// A file that only its owner can read; surrounding white space is dropped.
    File(PathBuf),
    /// A systemd credential: a file of this name in `$CREDENTIALS_DIRECTORY`.
    Credential(String),
    /// An environment variable.
    Env(String),
}
