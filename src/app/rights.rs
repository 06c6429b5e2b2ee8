//! The rights at Okta that a configuration needs: OAuth scopes and admin roles.

use std::collections::BTreeSet;

use crate::config::load::Loaded;

/// The OAuth scopes that the polls, the playbooks and the guard of a configuration need.
pub fn scopes(_loaded: &Loaded) -> BTreeSet<String> {
    ["okta.apps.manage", "okta.groups.manage", "okta.logs.read", "okta.users.manage"].map(str::to_owned).into()
}
