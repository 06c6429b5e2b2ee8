//! Names of rows and the idempotency key.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

macro_rules! row_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

row_id!(
    /// A stream: one resumable read of a source.
    StreamId
);
row_id!(
    /// An event in the inbox. Ids grow in the order in which events were stored.
    EventId
);
row_id!(
    /// A run: one playbook applied to one event.
    RunId
);
row_id!(
    /// An action: one step of one run. Ids grow in event order, which is the order inside a lane.
    ActionId
);

/// Names one intended effect for ever: the same event, playbook and step always give the same key, on any machine.
///
/// Forty lower-case hexadecimal digits, so that it fits every service's field and needs no escaping in any query.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// Derives the key. Every part is hashed with its length in front, so no two different quadruples run together.
    pub fn derive(source: &str, event_uuid: &str, playbook: &str, step: &str) -> Self {
        let mut hash = Sha256::new();
        for part in [source, event_uuid, playbook, step] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        let digest = hash.finalize();
        Self(digest.iter().take(20).map(|byte| format!("{byte:02x}")).collect())
    }

    /// Takes a key that was stored before.
    pub fn from_stored(text: String) -> Self {
        Self(text)
    }

    /// The forty digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_step_of_the_same_event_has_the_same_key() {
        let key = IdempotencyKey::derive("okta", "u-1", "user-risk-changed", "incident");
        assert_eq!(key, IdempotencyKey::derive("okta", "u-1", "user-risk-changed", "incident"));
        assert_eq!(key.as_str().len(), 40);
        assert_eq!(key.to_string(), key.as_str());
    }

    /// Another key for what was already done would do it again, after nothing but an upgrade.
    #[test]
    fn the_key_of_a_step_never_changes_from_one_version_to_the_next() {
        let key = IdempotencyKey::derive("okta", "u-1", "user-risk-changed", "incident");
        assert_eq!(key.as_str(), "f4d53d0e2c4a8d54faf4950509bc4d9951b3c0f4");
    }

    #[test]
    fn parts_do_not_run_together() {
        assert_ne!(IdempotencyKey::derive("okta", "ab", "c", "d"), IdempotencyKey::derive("okta", "a", "bc", "d"));
    }
}
