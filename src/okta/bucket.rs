//! Which of Okta's rate buckets a request falls into, and how much it matters.

use std::fmt;

use reqwest::Method;

/// A group of paths that Okta counts together (Okta rate limits guide). An org may count otherwise; the headers of each
/// answer are the authority, and this only says whose headers they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bucket {
    /// `/api/v1/logs`
    Logs,
    /// `GET /api/v1/users/{id}`
    User,
    /// Everything else below `/api/v1/users`.
    Users,
    /// `/api/v1/groups/{id}`
    Group,
    /// Everything else below `/api/v1/groups`.
    Groups,
    /// `/api/v1/apps/{id}`
    App,
    /// Everything else below `/api/v1/apps`; taking an assignment away falls into it.
    Apps,
    /// `/api/v1/devices`
    Devices,
    /// `/governance`
    Governance,
    /// The rest.
    Other,
}

impl Bucket {
    /// The bucket of a request.
    pub fn of(method: &Method, path: &str) -> Self {
        let mut parts = path.trim_matches('/').split('/');
        match (parts.next(), parts.next()) {
            (Some("api"), Some("v1")) => {}
            (Some("governance"), _) => return Self::Governance,
            _ => return Self::Other,
        }
        let (collection, id, below) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
        let single = id.is_some() && below.is_none();
        match collection {
            "logs" => Self::Logs,
            "users" if single && *method == Method::GET => Self::User,
            "users" => Self::Users,
            "groups" if single => Self::Group,
            "groups" => Self::Groups,
            "apps" if single => Self::App,
            "apps" => Self::Apps,
            "devices" => Self::Devices,
            _ => Self::Other,
        }
    }

    /// What people and scripts call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Logs => "logs",
            Self::User => "user",
            Self::Users => "users",
            Self::Group => "group",
            Self::Groups => "groups",
            Self::App => "app",
            Self::Apps => "apps",
            Self::Devices => "devices",
            Self::Governance => "governance",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How much a request matters; what matters more goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// A change, the reads that it takes, and reading it back.
    Remediation,
    /// The live stream of the log.
    Live,
    /// Facts that conditions and messages name.
    Enrichment,
    /// Reading the past, and facts about it.
    Backfill,
}

impl Priority {
    /// All of them, the most important one first.
    pub const ALL: [Self; 4] = [Self::Remediation, Self::Live, Self::Enrichment, Self::Backfill];

    /// The part of our share that this priority and those below it may take together. The rest is kept for those above.
    pub fn most(self, bucket: Bucket) -> f64 {
        match (self, bucket) {
            (Self::Remediation | Self::Live, _) => 1.0,
            // Nobody but the two kinds of streams reads the log.
            (Self::Enrichment | Self::Backfill, Bucket::Logs) => 0.8,
            (Self::Enrichment, _) => 0.75,
            (Self::Backfill, _) => 0.5,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(method: Method, path: &str, expected: Bucket) {
        assert_eq!(Bucket::of(&method, path), expected, "{method} {path}");
    }

    #[test]
    fn a_request_falls_into_the_bucket_that_okta_counts_it_in() {
        check(Method::GET, "/api/v1/logs", Bucket::Logs);
        check(Method::GET, "/api/v1/users/00u1", Bucket::User);
        check(Method::POST, "/api/v1/users/00u1", Bucket::Users);
        check(Method::GET, "/api/v1/users/00u1/groups", Bucket::Users);
        check(Method::GET, "/api/v1/groups", Bucket::Groups);
        check(Method::GET, "/api/v1/groups/00g1", Bucket::Group);
        check(Method::PUT, "/api/v1/groups/00g1/users/00u1", Bucket::Groups);
        check(Method::GET, "/api/v1/apps/0oa1", Bucket::App);
        check(Method::DELETE, "/api/v1/apps/0oa1/users/00u1", Bucket::Apps);
        check(Method::GET, "/api/v1/devices/guo1", Bucket::Devices);
        check(Method::POST, "/governance/api/v1/campaigns", Bucket::Governance);
        check(Method::GET, "/api/v1/meta/types/user", Bucket::Other);
        check(Method::GET, "/", Bucket::Other);
        check(Method::GET, "", Bucket::Other);
    }

    #[test]
    fn who_matters_less_may_never_take_more() {
        for bucket in [Bucket::Logs, Bucket::Users, Bucket::Apps] {
            let most: Vec<f64> = Priority::ALL.iter().map(|priority| priority.most(bucket)).collect();
            assert!(most.is_sorted_by(|more, less| more >= less), "{bucket}: {most:?}");
        }
    }
}
