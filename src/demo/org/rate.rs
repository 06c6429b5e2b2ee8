//! Okta's rate buckets: a budget a minute for each group of paths, told in three headers on every answer (Okta rate
//! limits guide; the numbers are those of a Workforce org).

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};

/// Requests a minute in each bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimits {
    /// `/api/v1/logs`
    pub logs: u32,
    /// `GET /api/v1/users/{id}`
    pub user: u32,
    /// Everything else below `/api/v1/users`.
    pub users: u32,
    /// `/api/v1/groups/{id}`
    pub group: u32,
    /// Everything else below `/api/v1/groups`.
    pub groups: u32,
    /// `/api/v1/apps/{id}`
    pub app: u32,
    /// Everything else below `/api/v1/apps`: the scarcest one, and un-assignment falls into it.
    pub apps: u32,
    /// The rest.
    pub other: u32,
}

impl Default for RateLimits {
    fn default() -> Self {
        Self { logs: 120, user: 2000, users: 600, group: 1000, groups: 500, app: 500, apps: 100, other: 1200 }
    }
}

impl RateLimits {
    /// The same number everywhere.
    pub fn all(limit: u32) -> Self {
        Self {
            logs: limit,
            user: limit,
            users: limit,
            group: limit,
            groups: limit,
            app: limit,
            apps: limit,
            other: limit,
        }
    }

    /// So many that none is ever refused.
    pub fn unlimited() -> Self {
        Self::all(u32::MAX)
    }

    fn of(&self, bucket: Bucket) -> u32 {
        match bucket {
            Bucket::Logs => self.logs,
            Bucket::User => self.user,
            Bucket::Users => self.users,
            Bucket::Group => self.group,
            Bucket::Groups => self.groups,
            Bucket::App => self.app,
            Bucket::Apps => self.apps,
            Bucket::Other => self.other,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bucket {
    Logs,
    User,
    Users,
    Group,
    Groups,
    App,
    Apps,
    Other,
}

impl Bucket {
    const COUNT: usize = 8;

    fn of(method: &Method, path: &str) -> Self {
        let mut parts = path.strip_prefix("/api/v1/").unwrap_or_default().split('/');
        let (collection, id, below) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
        let single = id.is_some() && below.is_none();
        match collection {
            "logs" => Self::Logs,
            "users" if single && method == Method::GET => Self::User,
            "users" => Self::Users,
            "groups" if single => Self::Group,
            "groups" => Self::Groups,
            "apps" if single => Self::App,
            "apps" => Self::Apps,
            _ => Self::Other,
        }
    }
}

/// What is used in the running minute of each bucket.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    windows: [Window; Bucket::COUNT],
}

#[derive(Debug, Default, Clone, Copy)]
struct Window {
    /// Seconds since 1970 at which the minute is over.
    ends: i64,
    used: u32,
}

/// The budget of one request: what the three headers say, and whether it is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Budget {
    pub(super) limit: u32,
    pub(super) remaining: u32,
    pub(super) reset: i64,
    pub(super) refused: bool,
}

impl Buckets {
    /// Takes one request out of its bucket.
    pub(super) fn take(&mut self, limits: &RateLimits, method: &Method, path: &str, now_ms: i64) -> Budget {
        let bucket = Bucket::of(method, path);
        let limit = limits.of(bucket);
        let mut spare = Window::default();
        let window = self.windows.get_mut(bucket as usize).unwrap_or(&mut spare);
        let now = now_ms.div_euclid(1000);
        if now >= window.ends {
            *window = Window { ends: now + 60, used: 0 };
        }
        let refused = window.used >= limit;
        if !refused {
            window.used += 1;
        }
        Budget { limit, remaining: limit - window.used.min(limit), reset: window.ends, refused }
    }
}

impl Budget {
    /// Puts the three headers in, unless a scripted answer brought its own.
    pub(super) fn write(&self, headers: &mut HeaderMap) {
        let values = [
            ("x-rate-limit-limit", i64::from(self.limit)),
            ("x-rate-limit-remaining", i64::from(self.remaining)),
            ("x-rate-limit-reset", self.reset),
        ];
        for (name, value) in values {
            headers.entry(HeaderName::from_static(name)).or_insert_with(|| HeaderValue::from(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_refilled_when_its_minute_is_over_and_not_before() {
        let mut buckets = Buckets::default();
        let limits = RateLimits { logs: 2, ..RateLimits::default() };
        let mut take = |now_ms| {
            let budget = buckets.take(&limits, &Method::GET, "/api/v1/logs", now_ms);
            (budget.remaining, budget.reset, budget.refused)
        };
        assert_eq!(take(1_000_500), (1, 1060, false));
        assert_eq!(take(1_001_000), (0, 1060, false));
        assert_eq!(take(1_059_999), (0, 1060, true));
        assert_eq!(take(1_060_000), (1, 1120, false));
    }

    #[test]
    fn un_assignment_and_reading_an_app_are_different_buckets() {
        assert_eq!(Bucket::of(&Method::DELETE, "/api/v1/apps/0oa1/users/00u1"), Bucket::Apps);
        assert_eq!(Bucket::of(&Method::GET, "/api/v1/apps/0oa1"), Bucket::App);
        assert_eq!(Bucket::of(&Method::GET, "/api/v1/users/00u1"), Bucket::User);
        assert_eq!(Bucket::of(&Method::PUT, "/api/v1/users/00u1/risk"), Bucket::Users);
    }
}
