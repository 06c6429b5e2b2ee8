//! Which scope each request needs (Okta OpenAPI, `security` of each operation).

/// The scopes of the management API that this org knows, without `.read` and `.manage`.
const KNOWN: [&str; 17] = [
    "okta.appGrants",
    "okta.apps",
    "okta.devices",
    "okta.eventHooks",
    "okta.governance.accessCertifications",
    "okta.governance.accessRequests",
    "okta.governance.securityAccessReviews.admin",
    "okta.groups",
    "okta.logs",
    "okta.networkZones",
    "okta.orgs",
    "okta.principalRateLimits",
    "okta.roles",
    "okta.sessions",
    "okta.universalLogout",
    "okta.userRisk",
    "okta.users",
];

/// Whether Okta has such a scope. The log can only be read.
pub(super) fn is_known(scope: &str) -> bool {
    match scope.strip_suffix(".manage") {
        Some(family) => KNOWN.contains(&family) && family != "okta.logs",
        None => scope.strip_suffix(".read").is_some_and(|family| KNOWN.contains(&family)),
    }
}

/// Whether a token with these scopes may do what needs `wanted`. This org takes the API reference by its word: reading is given
/// to `.read` alone, and who may manage may not read.
pub(super) fn allow(scopes: &[String], wanted: &str) -> bool {
    scopes.iter().any(|scope| scope == wanted)
}

/// The scope that a request needs; `None` where there is no such endpoint.
pub(super) fn needed(method: &str, path: &str) -> Option<String> {
    let family = family(path)?;
    let access = if matches!(method, "GET" | "HEAD") { "read" } else { "manage" };
    Some(format!("{family}.{access}"))
}

fn family(path: &str) -> Option<&'static str> {
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    match parts.as_slice() {
        ["api", "v1", "users" | "groups", _, "roles", ..] => Some("okta.roles"),
        ["oauth2", "v1", "clients", _, "roles", ..] => Some("okta.roles"),
        ["oauth2", "v1", "global-token-revocation"] => Some("okta.universalLogout"),
        ["api", "v1", "users", _, "risk"] => Some("okta.userRisk"),
        ["api", "v1", "apps", _, "grants", ..] => Some("okta.appGrants"),
        ["api", "v1", "users", ..] => Some("okta.users"),
        ["api", "v1", "groups", ..] => Some("okta.groups"),
        ["api", "v1", "apps", ..] => Some("okta.apps"),
        ["api", "v1", "devices", ..] => Some("okta.devices"),
        ["api", "v1", "logs"] => Some("okta.logs"),
        ["api", "v1", "org", ..] => Some("okta.orgs"),
        ["api", "v1", "zones", ..] => Some("okta.networkZones"),
        ["api", "v1", "principal-rate-limits", ..] => Some("okta.principalRateLimits"),
        ["governance", "api", _, "security-access-reviews", ..] => Some("okta.governance.securityAccessReviews.admin"),
        ["governance", "api", _, "campaigns" | "reviews", ..] => Some("okta.governance.accessCertifications"),
        ["governance", "api", _, "requests", ..] => Some("okta.governance.accessRequests"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_needs_the_scope_of_its_specification() {
        let rows = [
            ("GET", "/api/v1/logs", "okta.logs.read"),
            ("GET", "/api/v1/users/00u1", "okta.users.read"),
            ("GET", "/api/v1/users/00u1/groups", "okta.users.read"),
            ("GET", "/api/v1/users/00u1/linkedObjects/manager", "okta.users.read"),
            ("GET", "/api/v1/users/00u1/roles", "okta.roles.read"),
            ("GET", "/api/v1/users/00u1/risk", "okta.userRisk.read"),
            ("PUT", "/api/v1/users/00u1/risk", "okta.userRisk.manage"),
            ("DELETE", "/api/v1/users/00u1/sessions", "okta.users.manage"),
            ("GET", "/api/v1/groups", "okta.groups.read"),
            ("GET", "/api/v1/groups/00g1/users", "okta.groups.read"),
            ("PUT", "/api/v1/groups/00g1/users/00u1", "okta.groups.manage"),
            ("DELETE", "/api/v1/groups/00g1/users/00u1", "okta.groups.manage"),
            ("GET", "/api/v1/apps/0oa1/groups", "okta.apps.read"),
            ("GET", "/api/v1/apps/0oa1/users/00u1", "okta.apps.read"),
            ("DELETE", "/api/v1/apps/0oa1/users/00u1", "okta.apps.manage"),
            ("POST", "/api/v1/devices/guo1/lifecycle/suspend", "okta.devices.manage"),
            ("GET", "/api/v1/devices/guo1/users", "okta.devices.read"),
            ("GET", "/api/v1/users/00u1/devices", "okta.users.read"),
            ("POST", "/api/v1/users/00u1/lifecycle/suspend", "okta.users.manage"),
            ("GET", "/api/v1/groups/rules", "okta.groups.read"),
            ("POST", "/oauth2/v1/global-token-revocation", "okta.universalLogout.manage"),
        ];
        for (method, path, scope) in rows {
            assert_eq!(needed(method, path).as_deref(), Some(scope), "{method} {path}");
            assert!(is_known(scope), "{scope}");
        }
        assert_eq!(needed("GET", "/nowhere"), None);
    }

    #[test]
    fn no_scope_includes_another() {
        let scopes = |one: &str| vec![one.to_owned()];
        assert!(allow(&scopes("okta.users.read"), "okta.users.read"));
        assert!(!allow(&scopes("okta.users.manage"), "okta.users.read"));
        assert!(!allow(&scopes("okta.users.read"), "okta.users.manage"));
        assert!(!allow(&scopes("okta.groups.manage"), "okta.users.read"));
        assert!(!is_known("okta.logs.manage") && !is_known("okta.user.read") && !is_known("openid"));
    }
}
