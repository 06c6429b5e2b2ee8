//! The org's users, groups, apps, and who belongs to what.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::synthetic;

/// A user of the org.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// `00u…`; given by the org when empty.
    pub id: String,
    /// The user name, usually an address.
    pub login: String,
    /// Where mail goes.
    pub email: String,
    /// Given name.
    pub first: String,
    /// Family name.
    pub last: String,
    /// `profile.mobilePhone`
    pub mobile_phone: Option<String>,
    /// `profile.managerId`: a free string in Okta, so an id, a login, or a number that means nothing to Okta.
    pub manager_id: Option<String>,
    /// `ACTIVE` when empty.
    pub status: String,
}

impl User {
    /// An active user with `first.last@example.com` as login and address.
    pub fn new(first: &str, last: &str) -> Self {
        let login = format!("{}.{}@example.com", first.to_lowercase(), last.to_lowercase());
        Self { login: login.clone(), email: login, first: first.to_owned(), last: last.to_owned(), ..Self::default() }
    }

    /// First and last name.
    pub fn display_name(&self) -> String {
        format!("{} {}", self.first, self.last)
    }
}

/// A group of the org.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// `00g…`
    pub id: String,
    /// `profile.name`
    pub name: String,
    /// Who may change its members.
    pub kind: GroupKind,
}

/// Okta's group types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupKind {
    /// Members are managed in Okta.
    Okta,
    /// Imported from an app: members cannot be changed in Okta.
    App,
    /// `Everyone`.
    BuiltIn,
}

impl GroupKind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Okta => "OKTA_GROUP",
            Self::App => "APP_GROUP",
            Self::BuiltIn => "BUILT_IN",
        }
    }
}

/// An app of the org.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct App {
    /// `0oa…`
    pub id: String,
    /// What people call it.
    pub label: String,
}

impl App {
    /// The id that Okta gives a user within this app, `0ua…`.
    pub(super) fn user_id(&self, user: &str) -> String {
        let tail = user.get(user.len().saturating_sub(11)..).unwrap_or(user);
        format!("0ua{tail:0>17}")
    }
}

/// A user's risk as an administrator or a detection left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Risk {
    pub(super) level: String,
    pub(super) reason: String,
}

/// Ids of users, groups or apps that do not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    User,
    Group,
    App,
    Assignment,
}

/// Why a change of members or assignments is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It does not exist.
    Missing(Missing),
    /// Members of imported and built-in groups are not ours to change.
    NotAnOktaGroup,
    /// A group grants the app.
    GrantedByGroup,
    /// A deactivated user is assigned nothing.
    Deactivated,
}

#[derive(Debug, Default)]
pub(super) struct Directory {
    pub(super) users: BTreeMap<String, User>,
    pub(super) groups: BTreeMap<String, Group>,
    pub(super) apps: BTreeMap<String, App>,
    /// (group, user)
    members: BTreeSet<(String, String)>,
    /// (app, user)
    direct: BTreeSet<(String, String)>,
    /// (app, user) to the user's name in the app, where it is another one than his login.
    pub(super) app_names: BTreeMap<(String, String), String>,
    /// (app, group)
    granted: BTreeSet<(String, String)>,
    /// (user or group, admin role)
    roles: BTreeSet<(String, String)>,
    /// (relationship, user) to the user at its other end.
    links: BTreeMap<(String, String), String>,
    pub(super) risks: BTreeMap<String, Risk>,
    /// Whether the users of the synthetic log exist.
    pub(super) synthetic_users: bool,
    given: u64,
}

impl Directory {
    pub(super) fn add_user(&mut self, mut user: User) -> User {
        if user.id.is_empty() {
            user.id = self.next_id("00u");
        }
        if user.status.is_empty() {
            user.status = "ACTIVE".to_owned();
        }
        self.users.insert(user.id.clone(), user.clone());
        user
    }

    pub(super) fn add_group(&mut self, name: &str, kind: GroupKind) -> Group {
        let group = Group { id: self.next_id("00g"), name: name.to_owned(), kind };
        self.groups.insert(group.id.clone(), group.clone());
        group
    }

    pub(super) fn add_app(&mut self, label: &str) -> App {
        let app = App { id: self.next_id("0oa"), label: label.to_owned() };
        self.apps.insert(app.id.clone(), app.clone());
        app
    }

    pub(super) fn grant(&mut self, app: &str, group: &str) {
        self.granted.insert((app.to_owned(), group.to_owned()));
    }

    pub(super) fn assign(&mut self, app: &str, user: &str) {
        self.direct.insert((app.to_owned(), user.to_owned()));
    }

    /// Assigns an app in person, as the API does. True when that changed something.
    pub(super) fn assign_in_person(&mut self, app: &str, user: &str, name: Option<&str>) -> Result<bool, Refusal> {
        if !self.apps.contains_key(app) {
            return Err(Refusal::Missing(Missing::App));
        }
        if self.user(user).ok_or(Refusal::Missing(Missing::User))?.status == "DEPROVISIONED" {
            return Err(Refusal::Deactivated);
        }
        let pair = (app.to_owned(), user.to_owned());
        if let Some(name) = name {
            self.app_names.insert(pair.clone(), name.to_owned());
        }
        Ok(self.direct.insert(pair))
    }

    /// Gives an admin role to a user or to a group.
    pub(super) fn give_role(&mut self, holder: &str, role: &str) {
        self.roles.insert((holder.to_owned(), role.to_owned()));
    }

    /// The admin roles of a user, and whether he has each through a group.
    pub(super) fn roles_of(&self, user: &str) -> Vec<(String, bool)> {
        let holds = |holder: &str| holder == user || self.is_member(holder, user);
        let held = self.roles.iter().filter(|(holder, _)| holds(holder));
        held.map(|(holder, role)| (role.clone(), holder != user)).collect()
    }

    pub(super) fn link(&mut self, name: &str, user: &str, other: &str) {
        self.links.insert((name.to_owned(), user.to_owned()), other.to_owned());
    }

    /// A user by id, login, or the part of the login before the `@`.
    pub(super) fn user(&self, wanted: &str) -> Option<Cow<'_, User>> {
        let stored = self.users.get(wanted).or_else(|| {
            self.users.values().find(|user| {
                user.login.eq_ignore_ascii_case(wanted)
                    || user.login.split('@').next().is_some_and(|short| short.eq_ignore_ascii_case(wanted))
            })
        });
        stored.map(Cow::Borrowed).or_else(|| {
            let made = self.synthetic_users.then(|| synthetic::user_of_id(wanted)).flatten();
            made.map(Cow::Owned)
        })
    }

    pub(super) fn linked(&self, name: &str, user: &str) -> Option<&str> {
        self.links.get(&(name.to_owned(), user.to_owned())).map(String::as_str)
    }

    pub(super) fn knows_link(&self, name: &str) -> bool {
        name == "manager" || self.links.keys().any(|(known, _)| known == name)
    }

    pub(super) fn is_member(&self, group: &str, user: &str) -> bool {
        match self.groups.get(group) {
            Some(Group { kind: GroupKind::BuiltIn, .. }) => self.user(user).is_some(),
            Some(_) => self.members.contains(&(group.to_owned(), user.to_owned())),
            None => false,
        }
    }

    pub(super) fn members(&self, group: &str) -> Vec<&User> {
        self.users.values().filter(|user| self.is_member(group, &user.id)).collect()
    }

    pub(super) fn groups_of(&self, user: &str) -> Vec<&Group> {
        self.groups.values().filter(|group| self.is_member(&group.id, user)).collect()
    }

    pub(super) fn groups_granting(&self, app: &str) -> Vec<&Group> {
        self.groups.values().filter(|group| self.granted.contains(&(app.to_owned(), group.id.clone()))).collect()
    }

    pub(super) fn is_assigned(&self, app: &str, user: &str) -> bool {
        self.is_assigned_directly(app, user) || self.is_granted(app, user)
    }

    pub(super) fn is_assigned_directly(&self, app: &str, user: &str) -> bool {
        self.direct.contains(&(app.to_owned(), user.to_owned()))
    }

    fn is_granted(&self, app: &str, user: &str) -> bool {
        self.groups_granting(app).into_iter().any(|group| self.is_member(&group.id, user))
    }

    /// Makes the user a member whatever the group's type, as an import would.
    pub(super) fn import_member(&mut self, group: &str, user: &str) {
        self.members.insert((group.to_owned(), user.to_owned()));
    }

    /// Adds or removes a member as the API does. True when that changed something.
    pub(super) fn set_member(&mut self, group: &str, user: &str, member: bool) -> Result<bool, Refusal> {
        let kind = self.groups.get(group).ok_or(Refusal::Missing(Missing::Group))?.kind;
        self.user(user).ok_or(Refusal::Missing(Missing::User))?;
        if kind != GroupKind::Okta {
            return Err(Refusal::NotAnOktaGroup);
        }
        let pair = (group.to_owned(), user.to_owned());
        Ok(if member { self.members.insert(pair) } else { self.members.remove(&pair) })
    }

    /// Takes an app away as the API does: only what no group grants can be taken, even when it is assigned directly as
    /// well.
    pub(super) fn unassign(&mut self, app: &str, user: &str) -> Result<(), Refusal> {
        if !self.apps.contains_key(app) {
            return Err(Refusal::Missing(Missing::App));
        }
        self.user(user).ok_or(Refusal::Missing(Missing::User))?;
        if self.is_granted(app, user) {
            return Err(Refusal::GrantedByGroup);
        }
        if !self.direct.remove(&(app.to_owned(), user.to_owned())) {
            return Err(Refusal::Missing(Missing::Assignment));
        }
        // What he was called in the app is lost.
        self.app_names.remove(&(app.to_owned(), user.to_owned()));
        Ok(())
    }

    /// `NONE` until somebody or something set it.
    pub(super) fn risk_level(&self, user: &str) -> &str {
        self.risks.get(user).map_or("NONE", |risk| &risk.level)
    }

    pub(super) fn set_risk(&mut self, user: &str, level: &str, reason: &str) -> Option<Risk> {
        self.risks.insert(user.to_owned(), Risk { level: level.to_owned(), reason: reason.to_owned() })
    }

    fn next_id(&mut self, prefix: &str) -> String {
        self.given += 1;
        format!("{prefix}1sim{:013}", self.given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_direct_assignment_cannot_be_taken_while_a_group_grants_the_app_too() {
        let mut directory = Directory::default();
        let user = directory.add_user(User::new("Ada", "Lovelace")).id;
        let app = directory.add_app("Payroll").id;
        let group = directory.add_group("Finance", GroupKind::Okta).id;
        directory.grant(&app, &group);
        directory.assign(&app, &user);
        directory.set_member(&group, &user, true).unwrap();
        assert_eq!(directory.unassign(&app, &user), Err(Refusal::GrantedByGroup));
        directory.set_member(&group, &user, false).unwrap();
        assert_eq!(directory.unassign(&app, &user), Ok(()));
        assert_eq!(directory.unassign(&app, &user), Err(Refusal::Missing(Missing::Assignment)));
    }

    #[test]
    fn ids_have_the_twenty_characters_of_okta() {
        let mut directory = Directory::default();
        let user = directory.add_user(User::new("A", "B")).id;
        let app = directory.add_app("X");
        assert_eq!((user.len(), app.id.len(), app.user_id(&user).len()), (20, 20, 20));
    }
}
