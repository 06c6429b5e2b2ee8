//! Every action of the catalogue is done in the simulated org and undone again, and the org is as it was before.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::config::Config;
use crate::connectors::{ACTIONS, Call, Registry, ServiceSecrets, Services, kind};
use crate::demo::org::{Org, OrgOptions, PAGERDUTY_ROUTING_KEY, SERVICENOW_PASSWORD, SERVICENOW_USER, User, events};
use crate::guard::Cleared;
use crate::http::Network;
use crate::model::outcome::{Outcome, Verdict};
use crate::okta::{Auth, OktaClient, OktaSettings};

/// An org with Ann, who has something of everything, and the connectors to it.
struct World {
    org: Org,
    registry: Registry,
    ann: String,
    groups: [String; 3],
    /// Assigned to Ann under a name of its own, and granted by her first group.
    apps: [String; 2],
    devices: [String; 2],
    performed: u32,
}

impl World {
    async fn new() -> Self {
        let org = Org::start(OrgOptions::default()).await.unwrap();
        let ann = org.add_user(User::new("Ann", "Miller"));
        let groups = ["Staff", "Sales", "Quarantine"].map(|name| org.add_group(name));
        groups.iter().take(2).for_each(|group| org.add_member(group, &ann.id));
        let apps = ["Payroll", "Wiki"].map(|label| org.add_app(label));
        org.assign_as(&apps[0], &ann.id, "ann.at.payroll");
        org.assign_group(&apps[1], &groups[0]);
        let devices = [org.add_device(&[&ann.id]), org.add_device(&[&ann.id])];
        org.push_event(events::risk_detected(&ann, "LOW", "MEDIUM"));
        let registry = Registry::new(&services(&org));
        Self { org, registry, ann: ann.id, groups, apps, devices, performed: 0 }
    }

    /// Everything that actions change.
    fn standing(&self) -> BTreeMap<String, String> {
        let (org, ann) = (&self.org, &self.ann);
        let mut all = BTreeMap::new();
        let mut tell = |what: String, is: String| drop(all.insert(what, is));
        for group in &self.groups {
            tell(format!("member of {group}"), org.is_member(group, ann).to_string());
        }
        for app in &self.apps {
            tell(format!("assigned to {app}"), format!("{}, {:?}", org.is_assigned(app, ann), org.app_name(app, ann)));
        }
        for device in &self.devices {
            tell(format!("device {device}"), org.device_status(device));
        }
        tell("status".to_owned(), org.user(ann).unwrap().status);
        tell("risk".to_owned(), org.user_risk(ann));
        let is_open = |record: &&Value| record["state"] != "6" && record["state"] != "7";
        tell("open incidents".to_owned(), org.incidents().iter().filter(is_open).count().to_string());
        tell("open alerts".to_owned(), org.alerts().iter().filter(|alert| alert.open).count().to_string());
        all
    }

    /// Performs an action to its end, as the dispatcher does, and returns its key, what it recorded, and whether it has
    /// changed something.
    async fn perform(
        &mut self,
        action: &str,
        params: &Value,
        groups: Vec<GroupNote>,
    ) -> (IdempotencyKey, Receipt, bool) {
        (kind(action).unwrap().check)(params).unwrap_or_else(|why| panic!("{action} {params}: {why}"));
        self.performed += 1;
        let key = IdempotencyKey::derive("okta", "u", "p", &self.performed.to_string());
        let connector = self.registry.get(action).unwrap();
        let mut earlier = Receipt { groups, ..Receipt::default() };
        let mut changed = false;
        for attempt in 1..20 {
            let call = Call { key: key.clone(), params: params.clone(), attempt, earlier: earlier.clone() };
            let outcome = connector.perform(&Cleared::unguarded(call)).await;
            // What is stored is what is read.
            let stored = |receipt: Receipt| serde_json::from_value(serde_json::to_value(receipt).unwrap()).unwrap();
            match outcome {
                Outcome::Progress(receipt) => (earlier, changed) = (stored(receipt.remembering(earlier)), true),
                Outcome::Done(receipt) => return (key, stored(receipt.remembering(earlier)), true),
                Outcome::AlreadyDone(receipt) => return (key, stored(receipt.remembering(earlier)), changed),
                other => panic!("{action} {params}: {other:?}"),
            }
        }
        panic!("{action} does not end")
    }
}

fn services(org: &Org) -> Services {
    let text = format!(
        "[okta]\norg_url = '{}'\ntoken = {{ env = 'T' }}\n\
         [servicenow]\nurl = '{}'\nusername = '{SERVICENOW_USER}'\npassword = {{ env = 'P' }}\n\
         [pagerduty]\nurl = '{}'\nrouting_key = {{ env = 'R' }}\n",
        org.okta_url(),
        org.servicenow_url(),
        org.pagerduty_url(),
    );
    let config: Config = toml::from_str(&text).unwrap();
    let url: url::Url = org.okta_url().parse().unwrap();
    let settings = OktaSettings {
        org_url: url.clone(),
        admin_url: url,
        timeout: std::time::Duration::from_secs(20),
        network: Network::default(),
    };
    let okta = OktaClient::new(&settings, Auth::ssws(&org.token().into()).unwrap()).unwrap();
    let secrets = ServiceSecrets {
        servicenow_password: Some(SERVICENOW_PASSWORD.into()),
        pagerduty_routing_key: Some(PAGERDUTY_ROUTING_KEY.into()),
        ..ServiceSecrets::default()
    };
    Services::new(&config, std::sync::Arc::new(okta), secrets, &Network::default()).unwrap()
}

fn inverse(action: &str, key: &IdempotencyKey, params: &Value, receipt: &Receipt, interrupted: bool) -> Inverse {
    let deed = Deed { run: RunId(7), key, params, receipt, interrupted, close_code: CLOSE_CODE };
    (kind(action).unwrap().inverse)(&deed)
}

/// Does something (after something else, where it takes that), undoes it, and looks whether all is as it was.
async fn check(name: &str, before: &[(&str, Value)], action: &str, params: Value, undoing: &[&str]) {
    let mut world = World::new().await;
    let filled = |world: &World, params: &Value| {
        let mut text = params.to_string();
        for (name, id) in [
            ("ANN", &world.ann),
            ("STAFF", &world.groups[0]),
            ("SALES", &world.groups[1]),
            ("QUARANTINE", &world.groups[2]),
            ("PAYROLL", &world.apps[0]),
            ("WIKI", &world.apps[1]),
            ("PHONE", &world.devices[0]),
        ] {
            text = text.replace(name, id);
        }
        serde_json::from_str::<Value>(&text).unwrap()
    };
    for (action, params) in before {
        let params = filled(&world, params);
        world.perform(action, &params, Vec::new()).await;
    }
    let was = world.standing();
    let params = filled(&world, &params);
    let (key, receipt, changed) = world.perform(action, &params, Vec::new()).await;
    assert!(changed && world.standing() != was, "{name}: {action} has changed nothing");
    let Inverse::Actions(remedies) = inverse(action, &key, &params, &receipt, false) else {
        panic!("{name}: nothing undoes it: {receipt:?}")
    };
    let actions: Vec<_> = remedies.iter().map(|remedy| remedy.action).collect();
    assert_eq!(actions, undoing, "{name}");
    for remedy in remedies {
        world.perform(remedy.action, &remedy.params, remedy.groups).await;
    }
    assert_eq!(world.standing(), was, "{name}");
}

/// Name, what has to be done before, the action with its parameters, and what undoes it.
type Case = (&'static str, Vec<(&'static str, Value)>, &'static str, Value, &'static [&'static str]);

/// The actions that can be undone, in all the ways in which they can have been done.
fn undoable() -> Vec<Case> {
    let user = json!({"user": "ANN"});
    let (add, remove) = ("okta.group.add_user", "okta.group.remove_user");
    let moved = json!({"user": "ANN", "from": "SALES", "to": "QUARANTINE"});
    let by_group = |via: &str| json!({"app": "WIKI", "user": "ANN", "via_groups": via});
    let mut restricted = by_group("restrict");
    restricted["restrict_group"] = json!("Quarantine");
    let incident = json!({"short_description": "s"});
    let shared = json!({"short_description": "s", "correlation": "okta-user-ANN"});
    vec![
        ("added", vec![], add, json!({"group": "Quarantine", "user": "ANN"}), &["okta.group.remove_user"]),
        ("removed", vec![], remove, json!({"group": "Sales", "user": "ANN"}), &["okta.group.add_user"]),
        ("moved", vec![], "okta.group.move_user", moved.clone(), &["okta.group.move_user"]),
        (
            "moved from where she was not",
            vec![(remove, json!({"group": "Sales", "user": "ANN"}))],
            "okta.group.move_user",
            moved.clone(),
            &["okta.group.remove_user"],
        ),
        (
            "moved to where she was already",
            vec![(add, json!({"group": "Quarantine", "user": "ANN"}))],
            "okta.group.move_user",
            moved,
            &["okta.group.add_user"],
        ),
        ("all groups", vec![], "okta.group.remove_user_from_all", user.clone(), &["okta.group.restore_user"]),
        (
            "restored",
            vec![(remove, json!({"group": "Sales", "user": "ANN"}))],
            "okta.group.restore_user",
            json!({"user": "ANN", "groups": ["STAFF", "SALES", "QUARANTINE"]}),
            &["okta.group.remove_user", "okta.group.remove_user"],
        ),
        (
            "app of her own",
            vec![],
            "okta.app.unassign_user",
            json!({"app": "PAYROLL", "user": "ANN"}),
            &["okta.app.assign_user"],
        ),
        ("app by a group", vec![], "okta.app.unassign_user", by_group("remove"), &["okta.group.add_user"]),
        ("app restricted", vec![], "okta.app.unassign_user", restricted, &["okta.group.remove_user"]),
        (
            "app by a group and of her own",
            // It is assigned while no group grants it, since who has it through a group has it already.
            vec![
                (remove, json!({"group": "Staff", "user": "ANN"})),
                ("okta.app.assign_user", json!({"app": "WIKI", "user": "ANN", "user_name": "ann.at.wiki"})),
                (add, json!({"group": "Staff", "user": "ANN"})),
            ],
            "okta.app.unassign_user",
            by_group("remove"),
            &["okta.app.assign_user", "okta.group.add_user"],
        ),
        (
            "app given",
            vec![("okta.app.unassign_user", json!({"app": "PAYROLL", "user": "ANN"}))],
            "okta.app.assign_user",
            json!({"app": "PAYROLL", "user": "ANN"}),
            &["okta.app.unassign_user"],
        ),
        ("suspended", vec![], "okta.user.suspend", user.clone(), &["okta.user.unsuspend"]),
        (
            "unsuspended",
            vec![("okta.user.suspend", user.clone())],
            "okta.user.unsuspend",
            user.clone(),
            &["okta.user.suspend"],
        ),
        ("risk", vec![], "okta.user.set_risk", json!({"user": "ANN", "level": "HIGH"}), &["okta.user.set_risk"]),
        (
            "a device",
            vec![],
            "okta.device.suspend",
            json!({"user": "ANN", "device": "PHONE"}),
            &["okta.device.unsuspend"],
        ),
        (
            "all devices that were not suspended before",
            vec![("okta.device.suspend", json!({"user": "ANN", "device": "PHONE"}))],
            "okta.device.suspend",
            json!({"user": "ANN", "devices": "all"}),
            &["okta.device.unsuspend"],
        ),
        (
            "devices let go",
            vec![("okta.device.suspend", json!({"user": "ANN", "devices": "all"}))],
            "okta.device.unsuspend",
            json!({"user": "ANN", "devices": "all"}),
            &["okta.device.suspend", "okta.device.suspend"],
        ),
        ("incident", vec![], "servicenow.incident.create", incident, &["servicenow.incident.resolve"]),
        ("shared incident", vec![], "servicenow.incident.create", shared, &["servicenow.incident.resolve"]),
        ("alert", vec![], "pagerduty.event.trigger", json!({"summary": "s"}), &["pagerduty.event.resolve"]),
        (
            "shared alert",
            vec![],
            "pagerduty.event.trigger",
            json!({"summary": "s", "correlation": "okta-user-ANN"}),
            &["pagerduty.event.resolve"],
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_undone_is_undone_in_whichever_way_it_was_done() {
    for (name, before, action, params, undoing) in undoable() {
        check(name, &before, action, params, undoing).await;
    }
}

#[test]
fn every_action_is_undone_here_or_says_why_it_cannot_be() {
    let undone: BTreeSet<_> = undoable().into_iter().map(|(_, _, action, ..)| action).collect();
    let key = IdempotencyKey::derive("okta", "u", "p", "s");
    for kind in ACTIONS.iter().map(|registration| registration.kind) {
        let of_nothing = inverse(kind.name, &key, &json!({"user": "u"}), &Receipt::default(), false);
        match of_nothing {
            _ if undone.contains(kind.name) => {}
            Inverse::Impossible(why) => assert!(!why.is_empty() && !why.ends_with('.'), "{}: {why}", kind.name),
            Inverse::Actions(_) => panic!("{} is not undone in any test", kind.name),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_of_the_same_correlation_that_came_later_is_left_alone() {
    let mut world = World::new().await;
    let params = json!({"short_description": "s", "correlation": "okta-user-1"});
    let create = "servicenow.incident.create";
    let (key, receipt, _) = world.perform(create, &params, Vec::new()).await;
    assert!(world.org.close_incident(receipt.number.as_deref().unwrap()));
    world.perform(create, &params, Vec::new()).await;
    let was = world.standing();
    let Inverse::Actions(mut remedies) = inverse(create, &key, &params, &receipt, false) else { panic!() };
    let Remedy { action, params, .. } = remedies.remove(0);
    assert!(!world.perform(action, &params, Vec::new()).await.2);
    assert_eq!(world.standing(), was);
    let call = Call { key, params, attempt: 1, earlier: Receipt::default() };
    assert!(matches!(world.registry.get(action).unwrap().verify(&call).await, Verdict::Done(_)));
}

/// What records of earlier versions, and those that miss a part, come to.
#[test]
fn what_is_not_on_record_is_said_and_not_guessed_at() {
    let key = IdempotencyKey::derive("okta", "u", "p", "s");
    let of = |action: &str, params: Value, interrupted| match inverse(
        action,
        &key,
        &params,
        &Receipt::default(),
        interrupted,
    ) {
        Inverse::Impossible(why) => why,
        Inverse::Actions(remedies) => {
            let told = |remedy: &Remedy| format!("{}: {}", remedy.action, remedy.warning.clone().unwrap_or_default());
            remedies.iter().map(told).collect::<Vec<_>>().join(", ")
        }
    };
    let is = |told: String, words: &str| assert!(told.contains(words), "{told}");
    is(of("okta.user.set_risk", json!({"user": "u", "level": "HIGH"}), false), "not on record");
    is(of("okta.group.remove_user_from_all", json!({"user": "u"}), false), "not on record");
    is(of("okta.group.restore_user", json!({"user": "u"}), false), "not on record");
    is(of("okta.device.suspend", json!({"user": "u", "devices": "all"}), false), "not on record");
    is(of("okta.device.suspend", json!({"user": "u", "device": "d"}), false), "okta.device.unsuspend: ");
    let moved = json!({"user": "u", "from": "a", "to": "b"});
    is(of("okta.group.move_user", moved, false), "okta.group.move_user: in which of the two groups he was");
    let app = json!({"app": "a", "user": "u"});
    is(of("okta.app.unassign_user", app, false), "okta.app.assign_user: his name in the app is not on record");
    let by_group = json!({"app": "a", "user": "u", "via_groups": "remove"});
    is(of("okta.app.unassign_user", by_group, false), "not on record");
}

#[test]
fn where_an_attempt_was_lost_what_it_read_is_not_relied_on() {
    let key = IdempotencyKey::derive("okta", "u", "p", "s");
    let receipt = Receipt::default().with_before([("from", "in"), ("to", "in")]);
    let params = json!({"user": "u", "from": "a", "to": "b"});
    let Inverse::Actions(remedies) = inverse("okta.group.move_user", &key, &params, &receipt, true) else { panic!() };
    assert_eq!((remedies[0].action, remedies[0].warning.is_some()), ("okta.group.move_user", true));
}
