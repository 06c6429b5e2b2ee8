//! The rights at Okta that a configuration needs: OAuth scopes and admin roles, each with what it is for.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::load::Loaded;
use crate::config::{Mode, RiskSource};
use crate::connectors::more_rights;
use crate::engine::wanted_types;
use crate::okta::rights::{Right, Role};
use crate::playbook::{Fact, Playbook};

/// The events of a change of risk.
pub const RISK_EVENTS: [&str; 2] = ["user.risk.detect", "user.risk.change"];

/// A right, and what it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// The right.
    pub right: Right,
    /// Settings, and steps of playbooks, in words; at least one.
    pub purposes: Vec<String>,
}

/// The OAuth scopes that the polls, the playbooks and the guard of a configuration need, and no other.
pub fn scopes(loaded: &Loaded) -> BTreeSet<String> {
    needs(loaded).into_iter().map(|need| need.right.scope().to_owned()).collect()
}

/// The admin roles that are enough together, the least that Okta has as standard.
pub fn roles(loaded: &Loaded) -> BTreeSet<Role> {
    needs(loaded).into_iter().map(|need| need.right.role()).collect()
}

/// Every right that the configuration needs. A step that only observes sends nothing, and needs none for its action.
pub fn needs(loaded: &Loaded) -> Vec<Need> {
    let mut needs = Needs::default();
    needs.add(Right::ReadLog, "polling the log");
    for playbook in &loaded.playbooks {
        of_facts(&mut needs, loaded, playbook);
        if enforces(loaded, playbook) {
            for step in &playbook.steps {
                let more = more_rights(step.action, &step.with.unrendered().into());
                for right in step.action.rights.iter().chain(more) {
                    needs.add(*right, &format!("{} ({})", place(playbook, &step.name), step.action.name));
                }
            }
        }
    }
    if loaded.playbooks.iter().any(|playbook| enforces(loaded, playbook) && changes_access(playbook)) {
        of_guard(&mut needs, loaded);
    }
    needs.0.into_iter().map(|(right, purposes)| Need { right, purposes }).collect()
}

/// Whether some playbook, or the risk ledger, wants events of risk. In an org without Identity Threat Protection they are
/// shown to directly assigned super administrators only (Okta help, "System Log events for Identity Threat Protection").
pub fn wants_risk_events(loaded: &Loaded) -> bool {
    let wanted = wanted_types(&loaded.playbooks, &loaded.config.risk);
    RISK_EVENTS.iter().any(|event| wanted.contains(*event))
}

#[derive(Default)]
struct Needs(BTreeMap<Right, Vec<String>>);

impl Needs {
    fn add(&mut self, right: Right, purpose: &str) {
        let purposes = self.0.entry(right).or_default();
        if !purposes.iter().any(|known| known == purpose) {
            purposes.push(purpose.to_owned());
        }
    }
}

fn of_facts(needs: &mut Needs, loaded: &Loaded, playbook: &Playbook) {
    for fact in playbook.facts_named().iter() {
        let right = match fact {
            Fact::User | Fact::Manager | Fact::Groups => Right::ReadUsers,
            Fact::UserRisk => match loaded.config.risk.source {
                RiskSource::Groups => Right::ReadUsers,
                RiskSource::Okta => Right::ReadRisk,
                RiskSource::Ledger => continue,
            },
            // Our own inbox tells.
            Fact::Past => continue,
        };
        needs.add(right, &format!("playbook \"{}\" (the fact `{fact}`)", playbook.name));
    }
}

/// Users are read to tell whether one who is named by id is on a list of logins, or in a group, or has a role.
fn of_guard(needs: &mut Needs, loaded: &Loaded) {
    let guard = &loaded.config.guard;
    let lists = [
        ("[guard] protected_users", &guard.protected_users),
        ("[guard] protected_members_of", &guard.protected_members_of),
        ("[guard] protected_roles", &guard.protected_roles),
    ];
    for (place, _) in lists.iter().filter(|(_, list)| !list.is_empty()) {
        needs.add(Right::ReadUsers, place);
    }
    if !guard.protected_roles.is_empty() {
        needs.add(Right::ReadRoles, "[guard] protected_roles");
    }
}

fn enforces(loaded: &Loaded, playbook: &Playbook) -> bool {
    loaded.config.guard.mode == Mode::Enforce && playbook.mode == Mode::Enforce
}

fn changes_access(playbook: &Playbook) -> bool {
    playbook.steps.iter().any(|step| step.action.changes_access)
}

fn place(playbook: &Playbook, step: &str) -> String {
    format!("playbook \"{}\", step \"{step}\"", playbook.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    const POLL_ONLY: &str = "okta.logs.read";

    fn loaded(rest: &str) -> Loaded {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        let text = format!("[okta]\norg_url = 'https://example.okta.com'\ntoken = {{ env = 'T' }}\n{rest}");
        std::fs::write(&file, text).unwrap();
        load::load(&file).unwrap()
    }

    fn playbook(step: &str) -> String {
        format!("[[playbook]]\nname = 'p'\non = ['user.risk.detect']\n{step}\n")
    }

    fn step(action: &str, with: &str) -> String {
        playbook(&format!("[[playbook.step]]\nname = 's'\naction = '{action}'\nwith = {with}"))
    }

    #[track_caller]
    fn check(config: &str, expected: &[&str]) {
        let found = scopes(&loaded(config));
        assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), expected, "{config}");
    }

    #[test]
    fn each_action_asks_for_what_its_requests_and_its_read_backs_need() {
        let members = ["okta.groups.manage", "okta.groups.read", POLL_ONLY, "okta.users.read"];
        for action in ["okta.group.add_user", "okta.group.remove_user"] {
            check(&step(action, "{ group = 'High' }"), &members);
        }
        check(
            &step("okta.app.unassign_user", "{ app = '0oa1' }"),
            &["okta.apps.manage", "okta.apps.read", POLL_ONLY, "okta.users.read"],
        );
        check(&step("okta.user.clear_sessions", "{}"), &[POLL_ONLY, "okta.users.manage", "okta.users.read"]);
    }

    #[test]
    fn what_only_tells_or_only_observes_needs_the_log_alone() {
        let teams = "[teams]\nwebhook_url = { env = 'W' }\n";
        check(&format!("{teams}{}", step("teams.message.post", "{ text = 'x' }")), &[POLL_ONLY]);
        let observes = step("okta.user.clear_sessions", "{}");
        check(&format!("[guard]\nmode = 'observe'\nprotected_roles = ['any']\n{observes}"), &[POLL_ONLY]);
        check(&observes.replace("name = 'p'", "name = 'p'\nmode = 'observe'"), &[POLL_ONLY]);
    }

    #[test]
    fn facts_ask_for_what_their_source_needs() {
        let tells = |more: &str, text: &str| {
            let step = format!(
                "{more}[[playbook.step]]\nname = 's'\naction = 'teams.message.post'\nwith = {{ text = '{text}' }}"
            );
            format!("[teams]\nwebhook_url = {{ env = 'W' }}\n{}", playbook(&step))
        };
        let risk = |source: &str| {
            let groups = if source == "groups" { "high_group = 'High'\nmedium_group = 'Medium'\n" } else { "" };
            format!("[risk]\nsource = '{source}'\n{groups}{}", tells("when = 'user_risk == \"HIGH\"'\n", "x"))
        };
        check(&risk("groups"), &[POLL_ONLY, "okta.users.read"]);
        check(&risk("okta"), &["okta.logs.read", "okta.userRisk.read"]);
        check(&risk("ledger"), &[POLL_ONLY]);
        check(&tells("", "{{ manager.login }}"), &[POLL_ONLY, "okta.users.read"]);
        check(&tells("", "{{ event.uuid }}"), &[POLL_ONLY]);
    }

    #[test]
    fn the_guard_asks_for_what_its_lists_need_and_only_where_something_is_changed() {
        let guard = |list: &str| format!("[guard]\n{list}\n{}", step("okta.user.clear_sessions", "{}"));
        check(&guard("protected_groups = ['g']"), &[POLL_ONLY, "okta.users.manage", "okta.users.read"]);
        check(
            &guard("protected_roles = ['any']"),
            &[POLL_ONLY, "okta.roles.read", "okta.users.manage", "okta.users.read"],
        );
        let needs = needs(&loaded(&guard("protected_members_of = ['Admins']")));
        let users = needs.iter().find(|need| need.right == Right::ReadUsers).unwrap();
        assert_eq!(
            users.purposes,
            ["playbook \"p\", step \"s\" (okta.user.clear_sessions)", "[guard] protected_members_of"]
        );
    }

    #[test]
    fn the_least_roles_are_named_and_no_role_twice() {
        let kinds = |config: &str| roles(&loaded(config)).into_iter().map(|role| role.kind).collect::<Vec<_>>();
        assert_eq!(
            kinds(&step("okta.group.add_user", "{ group = 'High' }")),
            ["GROUP_MEMBERSHIP_ADMIN", "READ_ONLY_ADMIN"]
        );
        assert_eq!(
            kinds(&format!("[guard]\nprotected_roles = ['any']\n{}", step("okta.user.clear_sessions", "{}"))),
            ["CUSTOM", "HELP_DESK_ADMIN", "READ_ONLY_ADMIN"]
        );
        assert_eq!(kinds(""), ["READ_ONLY_ADMIN"]);
    }

    #[test]
    fn risk_events_are_wanted_by_playbooks_and_by_the_ledger() {
        assert!(wants_risk_events(&loaded(&step("okta.user.clear_sessions", "{}"))));
        let other = step("okta.user.clear_sessions", "{}").replace("user.risk.detect", "user.session.start");
        assert!(!wants_risk_events(&loaded(&other)));
        let ledger = other.replace("[[playbook.step]]", "when = 'user_risk == \"HIGH\"'\n[[playbook.step]]");
        assert!(wants_risk_events(&loaded(&format!("[risk]\nsource = 'ledger'\n{ledger}"))));
    }
}
