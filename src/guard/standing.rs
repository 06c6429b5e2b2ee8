//! What Okta says of a user that may protect him: who he is, his groups and his admin roles. Kept for a short time.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::fold;

/// How long what was read is believed.
pub const BELIEVED: SignedDuration = SignedDuration::from_secs(60);

/// The most users that are remembered.
const MOST: usize = 10_000;

/// A user as far as his protection goes. Names are compared without case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Okta's id; nothing when there is no such user.
    pub id: Option<String>,
    /// `profile.login`.
    pub login: Option<String>,
    /// The names and the ids of his groups.
    pub groups: Vec<String>,
    /// The types, labels and ids of his admin roles.
    pub roles: Vec<String>,
}

/// What is known of one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known<'a> {
    /// He was read, and that is fresh enough.
    Read(&'a Standing),
    /// He could not be read. Nothing of his is changed before he can be.
    Unreadable {
        /// When to ask again.
        until: Timestamp,
        /// Why, and what to do about it.
        why: &'a str,
    },
    /// He was not asked for, or too long ago.
    NotAsked,
}

/// What was read of users, by the name that was asked for.
#[derive(Debug, Clone, Default)]
pub struct Standings(BTreeMap<String, Entry>);

#[derive(Debug, Clone)]
struct Entry {
    at: Timestamp,
    failures: u32,
    what: Result<Standing, (Timestamp, String)>,
}

impl Standings {
    /// What is known of a user at `now`. What was read in the future (the clock was set back) is not believed.
    pub fn of(&self, user: &str, now: Timestamp) -> Known<'_> {
        let Some(entry) = self.0.get(&fold(user)) else { return Known::NotAsked };
        match &entry.what {
            Ok(standing) => {
                let age = now.duration_since(entry.at);
                if age < SignedDuration::ZERO || age >= BELIEVED { Known::NotAsked } else { Known::Read(standing) }
            }
            Err((until, why)) if *until > now && until.duration_since(now) <= LONGEST => {
                Known::Unreadable { until: *until, why }
            }
            Err(_) => Known::NotAsked,
        }
    }

    /// Remembers what was read.
    pub fn read(&mut self, user: &str, standing: Standing, now: Timestamp) {
        self.remember(user, Entry { at: now, failures: 0, what: Ok(standing) });
    }

    /// Remembers that a user could not be read. The pause before he is asked for again grows; returns how often in
    /// succession it failed.
    pub fn failed(&mut self, user: &str, why: String, pause: impl FnOnce(u32) -> Duration, now: Timestamp) -> u32 {
        let failures = self.0.get(&fold(user)).map_or(0, |entry| entry.failures).saturating_add(1);
        let pause = SignedDuration::try_from(pause(failures)).unwrap_or(LONGEST).min(LONGEST);
        let until = now.saturating_add(pause).unwrap_or(Timestamp::MAX);
        self.remember(user, Entry { at: now, failures, what: Err((until, why)) });
        failures
    }

    fn remember(&mut self, user: &str, entry: Entry) {
        let user = fold(user);
        if self.0.len() >= MOST && !self.0.contains_key(&user) {
            // Whoever is forgotten is only asked for again.
            let oldest = self.0.iter().min_by_key(|(_, entry)| entry.at).map(|(user, _)| user.clone());
            oldest.map(|user| self.0.remove(&user));
        }
        self.0.insert(user, entry);
    }
}

/// The longest pause before a user who could not be read is asked for again.
const LONGEST: SignedDuration = SignedDuration::from_mins(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn in_group(name: &str) -> Standing {
        Standing { groups: vec![name.to_owned()], ..Standing::default() }
    }

    #[test]
    fn what_was_read_is_believed_for_a_minute() {
        let mut standings = Standings::default();
        standings.read("Ann@example.com", in_group("Staff"), at(0));
        let staff = in_group("Staff");
        for second in [0, 59] {
            assert_eq!(standings.of(" ann@EXAMPLE.com", at(second)), Known::Read(&staff), "{second}");
        }
        for second in [60, -1] {
            assert_eq!(standings.of("ann@example.com", at(second)), Known::NotAsked, "{second}");
        }
        assert_eq!(standings.of("bob@example.com", at(0)), Known::NotAsked);
    }

    #[test]
    fn who_cannot_be_read_is_asked_for_again_after_pauses_that_grow() {
        let mut standings = Standings::default();
        let pause = |failures: u32| Duration::from_secs(10 * u64::from(failures));
        assert_eq!(standings.failed("ann", "403".to_owned(), pause, at(0)), 1);
        assert_eq!(standings.of("ann", at(9)), Known::Unreadable { until: at(10), why: "403" });
        assert_eq!(standings.of("ann", at(10)), Known::NotAsked);
        assert_eq!(standings.failed("ann", "403".to_owned(), pause, at(10)), 2);
        assert_eq!(standings.of("ann", at(29)), Known::Unreadable { until: at(30), why: "403" });
        standings.read("ann", in_group("Staff"), at(30));
        assert_eq!(standings.failed("ann", "500".to_owned(), pause, at(100)), 1);
        // A clock that is set back does not make the pause longer than any pause is.
        assert_eq!(standings.of("ann", at(-10_000)), Known::NotAsked);
        standings.failed("eve", "403".to_owned(), |_| Duration::MAX, at(0));
        assert_eq!(standings.of("eve", at(0)), Known::Unreadable { until: at(600), why: "403" });
        assert_eq!(standings.of("eve", at(600)), Known::NotAsked);
    }

    #[test]
    fn only_so_many_users_are_remembered_and_the_oldest_is_forgotten() {
        let mut standings = Standings::default();
        for number in 0..=MOST {
            standings.read(&format!("user-{number}"), Standing::default(), at(number as i64 / 200));
        }
        assert_eq!(standings.0.len(), MOST);
        assert!(!standings.0.contains_key("user-0") && standings.0.contains_key("user-10000"));
        standings.read("user-10000", in_group("Staff"), at(60));
        assert_eq!(standings.0.len(), MOST);
        assert!(standings.0.contains_key("user-1"));
    }
}
