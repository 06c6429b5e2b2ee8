//! Whose access is never changed: users by id, login, group or admin role; groups and apps by name. Pure.
//!
//! What cannot be told is never passed: where the lists do not tell by themselves, the user has to be read from Okta first.

use jiff::Timestamp;
use serde_json::Value;

use super::standing::{Known, Standing, Standings};
use super::{fold, short};
use crate::config::GuardConfig;
use crate::connectors::{ActionKind, FromEvent};
use crate::model::event::Event;

/// How deep parameters are searched for protected names.
const MAX_DEPTH: usize = 20;

/// The parameter that names what an action leaves alone: what is protected may be named there as well.
const LEFT_ALONE: &str = "except";

/// The word that stands for every admin role.
pub const ANY_ROLE: &str = "any";

/// Whom a run is about, as far as it is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Subject<'a> {
    /// The affected user's id.
    pub id: Option<&'a str>,
    /// The affected user's login.
    pub login: Option<&'a str>,
}

impl<'a> Subject<'a> {
    /// The affected user of an event.
    pub fn of(event: &'a Event) -> Self {
        match event.affected_user() {
            Some(user) => {
                // Okta writes `unknown` where it has no login; that is not a login.
                let login = user.alternate_id.filter(|login| !login.is_empty() && *login != "unknown");
                Self { id: Some(user.id), login }
            }
            None => Self::default(),
        }
    }
}

/// What the lists say of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Protection {
    /// Nobody and nothing in it is protected.
    None,
    /// Somebody or something is.
    Protected(String),
    /// These users have to be read first.
    Unasked(Vec<String>),
    /// A user could not be read.
    Unreadable { until: Timestamp, why: String },
}

/// The lists, folded.
#[derive(Debug, Clone)]
pub(super) struct Protected {
    users: Vec<String>,
    things: Vec<String>,
    groups_of_users: Vec<String>,
    roles: Vec<String>,
}

impl Protected {
    pub(super) fn new(config: &GuardConfig) -> Self {
        let folded =
            |list: &[String]| list.iter().map(|name| fold(name)).filter(|name| !name.is_empty()).collect::<Vec<_>>();
        Self {
            users: folded(&config.protected_users),
            things: [folded(&config.protected_groups), folded(&config.protected_apps)].concat(),
            groups_of_users: folded(&config.protected_members_of),
            roles: folded(&config.protected_roles),
        }
    }

    /// Whether users are on the list by name.
    pub(super) fn lists_users(&self) -> bool {
        !self.users.is_empty()
    }

    /// Whether groups have to be read.
    pub(super) fn reads_groups(&self) -> bool {
        !self.groups_of_users.is_empty()
    }

    /// Whether admin roles have to be read.
    pub(super) fn reads_roles(&self) -> bool {
        !self.roles.is_empty()
    }

    /// What can be told without asking anybody. In a run about a protected user nobody's access is changed, whoever the
    /// parameters name: that is coarse, and can't be got around by naming the user in another way.
    pub(super) fn by_name(&self, params: &Value, subject: Subject<'_>) -> Option<String> {
        if let Some(name) = subject.id.into_iter().chain(subject.login).find(|name| self.is_listed(name)) {
            return Some(listed(name));
        }
        let mut texts = Vec::new();
        if !collect(params, 0, &mut texts) {
            return Some("the parameters are nested too deep to be searched for protected names".to_owned());
        }
        texts.into_iter().find_map(|text| self.by_user(text).or_else(|| self.by_thing(text)))
    }

    /// Why a group or an app of this name or id is not touched.
    pub(super) fn by_thing(&self, name: &str) -> Option<String> {
        let thing = self.things.contains(&fold(name));
        thing.then(|| format!("`{}` is protected by [guard] protected_groups or protected_apps", short(name)))
    }

    /// Why a user of this id or login is not touched.
    pub(super) fn by_user(&self, name: &str) -> Option<String> {
        self.is_listed(name).then(|| listed(name))
    }

    /// What can be told by what Okta says of the users in it.
    pub(super) fn by_standing(
        &self,
        kind: &ActionKind,
        params: &Value,
        subject: Subject<'_>,
        standings: &Standings,
        now: Timestamp,
    ) -> Protection {
        let mut unasked = Vec::new();
        for user in self.to_be_read(kind, params, subject) {
            match standings.of(user, now) {
                Known::Read(standing) => {
                    if let Some(why) = self.protects(user, standing) {
                        return Protection::Protected(why);
                    }
                }
                Known::Unreadable { until, why } => return Protection::Unreadable { until, why: why.to_owned() },
                Known::NotAsked => unasked.push(user.to_owned()),
            }
        }
        if unasked.is_empty() { Protection::None } else { Protection::Unasked(unasked) }
    }

    /// The users who have to be read: everybody in it when groups or roles protect; else those who are named by id where
    /// the list has logins, or the other way round.
    fn to_be_read<'a>(&self, kind: &ActionKind, params: &'a Value, subject: Subject<'a>) -> Vec<&'a str> {
        let users = kind.from_event.iter().filter(|(_, what)| *what == FromEvent::UserId).map(|(name, _)| *name);
        let named = users.filter_map(|name| params.get(name).and_then(Value::as_str));
        let is_subject =
            |user: &str| subject.id.into_iter().chain(subject.login).any(|known| fold(known) == fold(user));
        let mut found: Vec<&str> = subject.id.or(subject.login).into_iter().collect();
        found.extend(named.filter(|user| !is_subject(user)));
        found.retain(|user| {
            let both_known = is_subject(user) && subject.id.is_some() && subject.login.is_some();
            let incomparable = |listed: &String| looks_like_id(listed) != looks_like_id(&fold(user));
            self.reads_groups() || self.reads_roles() || (!both_known && self.users.iter().any(incomparable))
        });
        found
    }

    fn protects(&self, user: &str, standing: &Standing) -> Option<String> {
        let user = short(user);
        if standing.id.iter().chain(&standing.login).any(|name| self.is_listed(name)) {
            return Some(listed(&user));
        }
        if let Some(group) = standing.groups.iter().find(|group| self.groups_of_users.contains(&fold(group))) {
            let group = short(group);
            return Some(format!("the user `{user}` is in `{group}`, which [guard] protected_members_of protects"));
        }
        let any = self.roles.iter().any(|role| role == ANY_ROLE);
        let role = standing.roles.iter().find(|role| any || self.roles.contains(&fold(role)))?;
        Some(format!("the user `{user}` has the role `{}`, which [guard] protected_roles protects", short(role)))
    }

    /// Okta finds a user by id, by login, and by the part of the login before `@`; so does this.
    fn is_listed(&self, name: &str) -> bool {
        let name = fold(name);
        let before_at = |login: &str| login.split('@').next().map(str::to_owned);
        self.users.iter().any(|protected| {
            *protected == name
                || before_at(protected).as_deref() == Some(&name)
                || before_at(&name).as_deref() == Some(protected)
        })
    }
}

fn listed(name: &str) -> String {
    format!("the user `{}` is protected by [guard] protected_users", short(name))
}

/// Okta's ids of users: twenty letters and digits that begin with `00u`.
fn looks_like_id(name: &str) -> bool {
    name.len() == 20 && name.starts_with("00u") && name.chars().all(|c| c.is_ascii_alphanumeric())
}

/// Every text of the parameters but of what is left alone; `false` if they are too deep.
fn collect<'a>(value: &'a Value, depth: usize, texts: &mut Vec<&'a str>) -> bool {
    match value {
        _ if depth > MAX_DEPTH => false,
        Value::String(text) => {
            texts.push(text);
            true
        }
        Value::Array(list) => list.iter().all(|item| collect(item, depth + 1, texts)),
        Value::Object(object) => {
            let mut touched = object.iter().filter(|(key, _)| depth > 0 || key.as_str() != LEFT_ALONE);
            touched.all(|(_, item)| collect(item, depth + 1, texts))
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn protecting(users: &[&str], groups: &[&str]) -> Protected {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Protected::new(&GuardConfig {
            protected_users: owned(users),
            protected_groups: owned(groups),
            ..GuardConfig::default()
        })
    }

    #[test]
    fn a_user_is_found_by_whatever_okta_finds_him_by() {
        for (protected, named, is_listed) in [
            ("00uannannannannannan", "00UANNANNANNANNANNAN", true),
            ("ann@example.com", " Ann@Example.com", true),
            ("ann@example.com", "ann", true),
            ("ann", "ann@example.com", true),
            ("ann", "ann", true),
            ("ann@example.com", "ann@example.org", false),
            ("ann@example.com", "an", false),
            ("ann", "anna@example.com", false),
            ("ann", "example.com", false),
        ] {
            assert_eq!(protecting(&[protected], &[]).is_listed(named), is_listed, "{protected}, {named}");
        }
    }

    #[test]
    fn an_id_is_told_from_a_login_by_its_whole_form() {
        assert!(looks_like_id("00uannannannannannan"));
        for login in
            ["00uannannannannannanx", "00uannannannannanna", "00gannannannannannan", "00uann@example.com.x", "ann", ""]
        {
            assert!(!looks_like_id(login), "{login}");
        }
        assert_eq!("00uann@example.com.x".len(), 20);
    }

    #[test]
    fn what_an_action_leaves_alone_may_be_protected() {
        let protected = protecting(&[], &["Admins"]);
        let found = |params: Value| protected.by_name(&params, Subject::default()).is_some();
        assert!(!found(json!({"user": "ann", "except": ["Admins"]})));
        assert!(found(json!({"user": "ann", "except": ["Staff"], "groups": ["Admins"]})));
        assert!(found(json!({"user": "ann", "fields": {"except": "Admins"}})));
    }

    #[test]
    fn names_are_looked_for_at_every_depth_and_what_lies_too_deep_is_refused() {
        let protected = protecting(&[], &["Admins"]);
        let found = |levels: usize, wrap: fn(Value) -> Value, name: &str| {
            let params = (0..levels).fold(json!(name), |inner, _| wrap(inner));
            protected.by_name(&params, Subject::default())
        };
        for wrap in [|inner| json!([1, inner]), |inner| json!({ "a": inner })] {
            for levels in [1, MAX_DEPTH] {
                assert!(found(levels, wrap, "admins").unwrap().contains("protected_groups"), "{levels}");
                assert_eq!(found(levels, wrap, "others"), None, "{levels}");
            }
            for levels in [MAX_DEPTH + 1, MAX_DEPTH + 2, 100] {
                assert!(found(levels, wrap, "others").unwrap().contains("too deep"), "{levels}");
            }
        }
    }
}
