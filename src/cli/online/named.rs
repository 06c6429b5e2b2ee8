//! What a configuration names at the services: groups, apps, channels, each with the places that name it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::config::RiskSource;
use crate::config::load::Loaded;
use crate::connectors::ProjectUse;

/// Where something is named, in words.
pub(super) type Places = Vec<String>;

/// A group as it is written.
#[derive(Debug, Default)]
pub(super) struct Named {
    pub places: Places,
    /// Whether some step changes its members.
    pub changed: bool,
}

/// The parameters that name groups: the beginning of the action's name, the parameter, and whether members change.
const NAMING_GROUPS: [(&str, &str, bool); 6] = [
    ("okta.group.", "group", true),
    ("okta.group.", "from", true),
    ("okta.group.", "to", true),
    ("okta.group.", "groups", true),
    ("okta.group.", "except", false),
    ("okta.app.", "restrict_group", true),
];

/// Groups by name or id. Names that a template makes are known only when an event comes.
pub(super) fn groups(loaded: &Loaded) -> BTreeMap<String, Named> {
    let mut groups: BTreeMap<String, Named> = BTreeMap::new();
    for (prefix, parameter, changed) in NAMING_GROUPS {
        for (place, name) in parameters(loaded, prefix, parameter) {
            let group = groups.entry(name).or_default();
            group.places.push(place);
            group.changed |= changed;
        }
    }
    let (risk, guard) = (&loaded.config.risk, &loaded.config.guard);
    let of_risk = [("[risk] high_group", &risk.high_group), ("[risk] medium_group", &risk.medium_group)];
    let of_risk = of_risk.into_iter().filter(|_| risk.source == RiskSource::Groups);
    let of_risk = of_risk.filter_map(|(place, name)| Some((place, name.as_ref()?)));
    // What is protected has to be there, or it protects nobody.
    let of_members = guard.protected_members_of.iter().map(|name| ("[guard] protected_members_of", name));
    let of_groups = guard.protected_groups.iter().map(|name| ("[guard] protected_groups", name));
    for (place, name) in of_risk.chain(of_members).chain(of_groups) {
        groups.entry(name.clone()).or_default().places.push(place.to_owned());
    }
    groups
}

/// Apps by id, and whether some step takes them away.
pub(super) fn apps(loaded: &Loaded) -> BTreeMap<String, Named> {
    let mut apps: BTreeMap<String, Named> = BTreeMap::new();
    for (place, id) in parameters(loaded, "okta.app.", "app") {
        let app = apps.entry(id).or_default();
        app.places.push(place);
        app.changed = true;
    }
    for id in &loaded.config.guard.protected_apps {
        apps.entry(id.clone()).or_default().places.push("[guard] protected_apps".to_owned());
    }
    apps
}

/// Slack channels by name or id.
pub(super) fn channels(loaded: &Loaded) -> BTreeMap<String, Places> {
    let mut channels: BTreeMap<String, Places> = BTreeMap::new();
    for (place, channel) in parameters(loaded, "slack.", "channel") {
        channels.entry(channel).or_default().push(place);
    }
    if let Some(channel) = of_alarm(loaded, "slack.", "channel") {
        channels.entry(channel.to_owned()).or_default().push("[guard.alarm]".to_owned());
    }
    channels
}

/// Jira's projects by their keys, with the types of issues that are created in each.
pub(super) fn projects(loaded: &Loaded) -> BTreeMap<String, ProjectUse> {
    let mut projects: BTreeMap<String, ProjectUse> = BTreeMap::new();
    let types: BTreeMap<_, _> = parameters(loaded, "jira.", "issue_type").into_iter().collect();
    for (place, key) in parameters(loaded, "jira.", "project") {
        let project = projects.entry(key.trim().to_owned()).or_default();
        project.issue_types.extend(types.get(&place).map(|name| name.trim().to_owned()));
        project.places.push(place);
    }
    if let Some(key) = of_alarm(loaded, "jira.", "project") {
        let project = projects.entry(key.trim().to_owned()).or_default();
        project.issue_types.extend(of_alarm(loaded, "jira.", "issue_type").map(|name| name.trim().to_owned()));
        project.places.push("[guard.alarm]".to_owned());
    }
    projects
}

/// The fixed values of a parameter in all steps whose action begins with `prefix`, each with its place.
fn parameters(loaded: &Loaded, prefix: &str, parameter: &str) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    for playbook in &loaded.playbooks {
        for step in playbook.steps.iter().filter(|step| step.action.name.starts_with(prefix)) {
            let params = step.with.unrendered();
            let texts = match params.get(parameter) {
                Some(Value::Array(list)) => list.as_slice(),
                Some(one) => std::slice::from_ref(one),
                None => &[],
            };
            for text in texts.iter().filter_map(Value::as_str).filter(|text| is_fixed(text)) {
                found.insert((format!("playbook \"{}\", step \"{}\"", playbook.name, step.name), text.to_owned()));
            }
        }
    }
    found
}

/// The fixed value of a parameter of the alarm, if its action begins with `prefix`.
fn of_alarm<'l>(loaded: &'l Loaded, prefix: &str, parameter: &str) -> Option<&'l str> {
    let alarm = loaded.config.guard.alarm.as_ref().filter(|alarm| alarm.action.starts_with(prefix))?;
    alarm.with.get(parameter)?.as_str().filter(|text| is_fixed(text))
}

fn is_fixed(text: &str) -> bool {
    !text.contains("{{") && !text.contains("{%")
}
