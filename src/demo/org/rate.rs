//! Okta's rate limits: a budget a minute for each group of paths, told in three headers on every answer; a part of it
//! that one token or app may use; and a bound on the requests under way at once (Okta rate limits guide, "Token and
//! OAuth 2.0 app rate limits" and "Concurrency rate limits"; the numbers are those of a Workforce org).

use std::collections::BTreeMap;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;

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
    /// Everything below `/api/v1/devices`.
    pub devices: u32,
    /// Everything below `/governance/api`.
    pub governance: u32,
    /// `/oauth2/v1`, the token endpoint among it. It belongs to nobody, because who asks is only known afterwards.
    pub token: u32,
    /// The rest.
    pub other: u32,
}

impl Default for RateLimits {
    fn default() -> Self {
        Self {
            logs: 120,
            user: 2000,
            users: 600,
            group: 1000,
            groups: 500,
            app: 500,
            apps: 100,
            devices: 100,
            governance: 50,
            token: 2000,
            other: 1200,
        }
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
            devices: limit,
            governance: limit,
            token: limit,
            other: limit,
        }
    }

    /// So many that none is ever refused.
    pub fn unlimited() -> Self {
        Self::all(u32::MAX)
    }

    /// The limit of one bucket.
    pub fn of(&self, bucket: RateBucket) -> u32 {
        match bucket {
            RateBucket::Logs => self.logs,
            RateBucket::User => self.user,
            RateBucket::Users => self.users,
            RateBucket::Group => self.group,
            RateBucket::Groups => self.groups,
            RateBucket::App => self.app,
            RateBucket::Apps => self.apps,
            RateBucket::Devices => self.devices,
            RateBucket::Governance => self.governance,
            RateBucket::Token => self.token,
            RateBucket::Other => self.other,
        }
    }
}

/// The requests that share one budget; each field of [`RateLimits`] says which they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the fields of RateLimits of the same names say it")]
pub enum RateBucket {
    Logs,
    User,
    Users,
    Group,
    Groups,
    App,
    Apps,
    Devices,
    Governance,
    Token,
    Other,
}

impl RateBucket {
    /// The bucket of a request; `path` is without its query.
    pub fn of(method: &str, path: &str) -> Self {
        if path.starts_with("/governance/api/") {
            return Self::Governance;
        }
        if path.starts_with("/oauth2/v1/") {
            return Self::Token;
        }
        let mut parts = path.strip_prefix("/api/v1/").unwrap_or_default().split('/');
        let (collection, id, below) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
        let single = id.is_some() && below.is_none();
        match collection {
            "logs" => Self::Logs,
            "users" if single && method == "GET" => Self::User,
            "users" => Self::Users,
            "groups" if single => Self::Group,
            "groups" => Self::Groups,
            "apps" if single => Self::App,
            "apps" => Self::Apps,
            "devices" => Self::Devices,
            _ => Self::Other,
        }
    }
}

/// What an org allows.
#[derive(Debug, Clone)]
pub struct RateRules {
    /// Of everybody together.
    pub limits: RateLimits,
    /// The part of each bucket that one token or app may use, in percent. Okta's default is 50; it does not show in the
    /// headers, which speak of the whole bucket.
    pub principal_percent: u32,
    /// How many requests may be under way at once; Okta's number for a Workforce org is 75.
    pub concurrency: u32,
    /// What the org's other tools use of a bucket, steadily, in requests a minute.
    pub others: BTreeMap<RateBucket, u32>,
}

impl Default for RateRules {
    fn default() -> Self {
        Self { limits: RateLimits::default(), principal_percent: 100, concurrency: u32::MAX, others: BTreeMap::new() }
    }
}

/// Why a request is refused with status 429.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateRefusal {
    /// The bucket is empty, whoever emptied it.
    Bucket,
    /// This token or app has used its part of the bucket.
    Principal,
    /// Too many requests are under way.
    Concurrency,
}

/// The answer to one request: what the three headers say, and whether it is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// `X-Rate-Limit-Limit`
    pub limit: u32,
    /// `X-Rate-Limit-Remaining`
    pub remaining: u32,
    /// `X-Rate-Limit-Reset`, in seconds since 1970 by Okta's clock.
    pub reset: i64,
    /// Why it is answered with 429, if it is.
    pub refused: Option<RateRefusal>,
}

impl Grant {
    /// Puts the three headers in, unless a scripted answer brought its own.
    pub fn write(&self, headers: &mut HeaderMap) {
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

/// Okta's side of the budget. It reads no clock, so that a day can be played in a moment.
#[derive(Debug, Default)]
pub struct RateModel {
    rules: RateRules,
    windows: BTreeMap<RateBucket, Window>,
    under_way: u32,
}

#[derive(Debug, Default)]
struct Window {
    /// Seconds since 1970 at which the minute is over.
    ends: i64,
    used: u32,
    by: BTreeMap<String, u32>,
}

/// Okta counts by the minute.
const MINUTE: i64 = 60;

/// What Okta suggests as the wait after too many requests at once, in seconds.
const CONCURRENCY_WAIT: i64 = 10;

impl RateModel {
    /// A model in which nothing is used yet.
    pub fn new(rules: RateRules) -> Self {
        Self { rules, ..Self::default() }
    }

    /// Takes one request out of its bucket. `principal` is whoever's token it bears. A request that is not refused is
    /// under way until [`RateModel::done`].
    pub fn take(&mut self, principal: Option<&str>, method: &str, path: &str, now: Timestamp) -> Grant {
        let now_ms = now.as_millisecond();
        if self.under_way >= self.rules.concurrency {
            let reset = now_ms.div_euclid(1000) + CONCURRENCY_WAIT;
            return Grant { limit: 0, remaining: 0, reset, refused: Some(RateRefusal::Concurrency) };
        }
        let bucket = RateBucket::of(method, path);
        let limit = self.rules.limits.of(bucket);
        let others = self.rules.others.get(&bucket).copied().unwrap_or(0);
        let window = self.windows.entry(bucket).or_default();
        window.roll(now_ms, others > 0);
        let by_others = window.used_by_others(others, now_ms);
        let own = principal.map_or(0, |principal| window.by.get(principal).copied().unwrap_or(0));
        let part = u64::from(limit) * u64::from(self.rules.principal_percent.min(100)) / 100;
        let refused = if window.used.saturating_add(by_others) >= limit {
            Some(RateRefusal::Bucket)
        } else if principal.is_some() && u64::from(own) >= part.max(1) {
            Some(RateRefusal::Principal)
        } else {
            None
        };
        if refused.is_none() {
            window.used += 1;
            *window.by.entry(principal.unwrap_or_default().to_owned()).or_default() += 1;
            self.under_way += 1;
        }
        let remaining = limit.saturating_sub(window.used.saturating_add(by_others));
        Grant { limit, remaining, reset: window.ends, refused }
    }

    /// A request that was not refused has been answered.
    pub fn done(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// From now on the org's other tools use so many requests a minute of a bucket.
    pub fn others_use(&mut self, bucket: RateBucket, per_minute: u32) {
        self.rules.others.insert(bucket, per_minute);
    }
}

impl Window {
    /// Opens a new minute when the old one is over. Where others are at work it began without us: minutes follow each
    /// other. Otherwise our request opens it.
    fn roll(&mut self, now_ms: i64, others: bool) {
        let now = now_ms.div_euclid(1000);
        if now < self.ends {
            return;
        }
        let into_minute = if others && self.ends > 0 { (now - self.ends).rem_euclid(MINUTE) } else { 0 };
        *self = Self { ends: now - into_minute + MINUTE, ..Self::default() };
    }

    /// What others have used of the running minute, evenly over it.
    fn used_by_others(&self, per_minute: u32, now_ms: i64) -> u32 {
        let elapsed_ms = (now_ms - (self.ends - MINUTE) * 1000).clamp(0, MINUTE * 1000);
        u32::try_from(i64::from(per_minute) * elapsed_ms / (MINUTE * 1000)).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a row of `GET /api/v1/logs` meets: at which millisecond, and what is left, the reset, the refusal.
    #[track_caller]
    fn check(model: &mut RateModel, rows: &[(i64, u32, i64, Option<RateRefusal>)]) {
        for (at_ms, remaining, reset, refused) in rows {
            let now = Timestamp::from_millisecond(*at_ms).unwrap();
            let grant = model.take(Some("app"), "GET", "/api/v1/logs", now);
            assert_eq!((grant.remaining, grant.reset, grant.refused), (*remaining, *reset, *refused), "at {at_ms}");
            if grant.refused.is_none() {
                model.done();
            }
        }
    }

    fn model(logs: u32, rules: RateRules) -> RateModel {
        RateModel::new(RateRules { limits: RateLimits { logs, ..RateLimits::default() }, ..rules })
    }

    #[test]
    fn a_bucket_is_refilled_when_its_minute_is_over_and_not_before() {
        let rows = [
            (1_000_500, 1, 1060, None),
            (1_001_000, 0, 1060, None),
            (1_059_999, 0, 1060, Some(RateRefusal::Bucket)),
            (1_060_000, 1, 1120, None),
        ];
        check(&mut model(2, RateRules::default()), &rows);
    }

    #[test]
    fn one_principal_gets_its_part_while_the_headers_speak_of_the_whole() {
        let mut model = model(4, RateRules { principal_percent: 50, ..RateRules::default() });
        let rows = [(0, 3, 60, None), (10, 2, 60, None), (20, 2, 60, Some(RateRefusal::Principal))];
        check(&mut model, &rows);
        let other = model.take(Some("other"), "GET", "/api/v1/logs", Timestamp::from_second(1).unwrap());
        assert_eq!((other.remaining, other.refused), (1, None));
    }

    #[test]
    fn other_tools_use_up_a_bucket_evenly_and_open_its_minutes() {
        let mut model = model(10, RateRules::default());
        model.others_use(RateBucket::Logs, 10);
        check(&mut model, &[(60_000, 9, 120, None), (90_000, 3, 120, None)]);
        check(&mut model, &[(115_000, 0, 120, Some(RateRefusal::Bucket)), (135_000, 7, 180, None)]);
        check(&mut model, &[(300_000 + 59_000, 0, 360, None)]);
    }

    #[test]
    fn too_many_at_once_are_refused_with_zeros_until_one_is_done() {
        let mut model = RateModel::new(RateRules { concurrency: 2, ..RateRules::default() });
        let ask = |model: &mut RateModel| model.take(None, "GET", "/api/v1/apps", Timestamp::UNIX_EPOCH);
        assert_eq!((ask(&mut model).refused, ask(&mut model).refused), (None, None));
        let third = ask(&mut model);
        assert_eq!((third.limit, third.remaining, third.refused), (0, 0, Some(RateRefusal::Concurrency)));
        model.done();
        assert_eq!(ask(&mut model).refused, None);
    }

    #[test]
    fn every_path_falls_into_the_bucket_that_okta_counts_it_in() {
        let rows = [
            ("DELETE", "/api/v1/apps/0oa1/users/00u1", RateBucket::Apps),
            ("GET", "/api/v1/apps/0oa1", RateBucket::App),
            ("GET", "/api/v1/apps", RateBucket::Apps),
            ("GET", "/api/v1/users/00u1", RateBucket::User),
            ("POST", "/api/v1/users/00u1", RateBucket::Users),
            ("PUT", "/api/v1/users/00u1/risk", RateBucket::Users),
            ("GET", "/api/v1/groups", RateBucket::Groups),
            ("GET", "/api/v1/groups/00g1", RateBucket::Group),
            ("PUT", "/api/v1/groups/00g1/users/00u1", RateBucket::Groups),
            ("GET", "/api/v1/devices/guo1/users", RateBucket::Devices),
            ("POST", "/governance/api/v1/campaigns", RateBucket::Governance),
            ("POST", "/oauth2/v1/token", RateBucket::Token),
            ("GET", "/api/v1/org", RateBucket::Other),
        ];
        for (method, path, bucket) in rows {
            assert_eq!(RateBucket::of(method, path), bucket, "{method} {path}");
        }
    }
}
