//! What is done to users, groups, devices and apps as a whole, in several requests: in order, within the guard's bounds, and
//! to the end whatever breaks in between.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]

mod support;

use okta_responder::demo::org::{Effect, Fault, GroupKind, Misbehaviour, Org, Service, User, events};
use support::Scene;
use support::every::FAST;
use support::ledger::Ledger;

/// An org, a daemon's configuration, and Ann.
struct Stage {
    scene: Scene,
    ann: User,
}

/// A playbook for sign-ins of a level, with steps of a name, an action and its parameters.
fn playbook(name: &str, level: &str, steps: &[(&str, &str, &str)]) -> String {
    let mut text =
        format!("[[playbook]]\nname = \"{name}\"\non = [\"user.session.start\"]\nwhen = 'risk.level == \"{level}\"'\n");
    for (step, action, with) in steps {
        text += &format!("[[playbook.step]]\nname = \"{step}\"\naction = \"{action}\"\nwith = {{ {with} }}\n");
    }
    text
}

impl Stage {
    async fn new() -> Self {
        let scene = Scene::new("").await;
        let ann = scene.org.add_user(User::new("Ann", "Miller"));
        Self { scene, ann }
    }

    fn configure(&self, extra: &str, playbooks: &[String]) {
        self.scene.configure(&format!("{FAST}{extra}\n"), &playbooks.concat());
    }

    fn org(&self) -> &Org {
        &self.scene.org
    }

    fn sign_in(&self, level: &str) {
        self.org().push_event(events::sign_in(&self.ann, level));
    }

    /// Groups of these names that Ann is in.
    fn groups(&self, names: &[&str]) -> Vec<String> {
        let group = |name: &&str| {
            let id = self.org().add_group(name);
            self.org().add_member(&id, &self.ann.id);
            id
        };
        names.iter().map(group).collect()
    }

    fn is_in(&self, group: &str) -> bool {
        self.org().is_member(group, &self.ann.id)
    }

    fn status(&self) -> String {
        self.org().user(&self.ann.id).unwrap().status
    }

    /// The changes that the org has made, each as its kind and its group or device.
    fn changes(&self) -> Vec<(&'static str, String)> {
        let one = |effect: Effect| (effect.kind, effect.target.split('/').next().unwrap_or_default().to_owned());
        self.org().effects().into_iter().map(one).collect()
    }
}

fn note(action: &okta_responder::store::ActionRow) -> String {
    action.receipt.as_ref().and_then(|receipt| receipt["note"].as_str()).unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_suspended_logged_out_and_let_go_again_in_the_order_of_the_events() {
    let stage = Stage::new().await;
    let lock = playbook(
        "lock",
        "HIGH",
        &[
            ("suspend", "okta.user.suspend", ""),
            ("logout", "okta.user.universal_logout", ""),
            ("reset", "okta.user.reset_factors", ""),
            ("risk", "okta.user.set_risk", "level = \"HIGH\", reason = \"sign-in: {{ event.uuid }} @ night\""),
        ],
    );
    let release = playbook("release", "LOW", &[("unsuspend", "okta.user.unsuspend", "")]);
    let expire = playbook("expire", "MEDIUM", &[("expire", "okta.user.expire_password", "")]);
    stage.configure("", &[lock, release, expire]);
    stage.sign_in("HIGH");
    let daemon = stage.scene.daemon();
    let ledger = Ledger::of(&stage.scene).await;
    let actions = ledger.at_rest(1).await;
    assert!(actions.iter().all(|action| action.state == "succeeded"), "{}", support::ledger::told(&actions));
    assert_eq!(stage.status(), "SUSPENDED");
    assert_eq!(stage.org().user_risk(&stage.ann.id), "HIGH");
    assert_eq!(stage.org().effects_of("user.logout").len(), 1);
    assert_eq!(stage.org().effects_of("user.reset_factors").len(), 1);

    // While he is suspended his password cannot expire: that is refused without a request, and told.
    stage.sign_in("MEDIUM");
    let expire = ledger.wait_for("expire", "failed").await;
    assert_eq!(expire.reason.as_deref(), Some("conflict"));
    assert!(expire.error.unwrap().contains("SUSPENDED"));
    assert!(stage.org().effects_of("user.expire_password").is_empty());

    stage.sign_in("LOW");
    ledger.wait_for("unsuspend", "succeeded").await;
    assert_eq!(stage.status(), "ACTIVE");
    // Again: it is so already.
    stage.sign_in("LOW");
    let done = |actions: &[okta_responder::store::ActionRow]| {
        actions.iter().filter(|action| action.step == "unsuspend" && action.state == "succeeded").count() == 2
    };
    ledger.wait_until(done).await;
    assert_eq!(stage.org().effects_of("user.unsuspend").len(), 1);
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_whose_second_request_is_lost_leaves_him_in_both_groups_until_it_is_done() {
    let stage = Stage::new().await;
    let staff = stage.groups(&["Staff"]).remove(0);
    let quarantine = stage.org().add_group("Quarantine");
    let with = "from = \"Staff\", to = \"Quarantine\"";
    stage.configure("", &[playbook("move", "HIGH", &[("move", "okta.group.move_user", with)])]);
    let leaving = Fault::new(Service::Okta, Misbehaviour::status(503, "{}")).method("DELETE").path(&staff);
    stage.org().fault(leaving.times(2));
    stage.sign_in("HIGH");
    // Dead between the two requests: the first is on record, and the claim for the second is about to be. The thread that
    // halts there is the one that writes, so nothing can go on beside it.
    let daemon = stage.scene.daemon_with(&[("OKTA_RESPONDER_HALT_AT", "inside_t3:2")]);
    daemon.wait_for_log("halted at");
    assert!(stage.is_in(&quarantine) && stage.is_in(&staff));
    daemon.kill();
    let daemon = stage.scene.daemon();
    let ledger = Ledger::of(&stage.scene).await;
    let action = ledger.wait_for("move", "succeeded").await;
    assert!(stage.is_in(&quarantine) && !stage.is_in(&staff));
    assert_eq!(stage.changes(), [("group.add", quarantine), ("group.remove", staff)]);
    assert_eq!(action.attempts, 4, "one for each request: added, refused twice, removed");
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn all_groups_are_left_and_restored_although_the_daemon_is_killed_on_the_way() {
    let stage = Stage::new().await;
    let groups = stage.groups(&["A", "B", "C"]);
    let kept = stage.groups(&["Baseline", "Break Glass", "By Rule"]);
    let imported = stage.org().add_group_of("Imported", GroupKind::App);
    stage.org().add_member(&imported, &stage.ann.id);
    stage.org().add_group_rule("sales", &kept[2], &[&stage.ann.id]);
    stage.configure(
        "[guard]\nprotected_groups = [\"Break Glass\"]\n[guard.limits]\noverall = 2\nper_playbook = 1",
        &[
            playbook("strip", "HIGH", &[("strip", "okta.group.remove_user_from_all", "except = [\"Baseline\"]")]),
            playbook("restore", "LOW", &[("restore", "okta.group.restore_user", "")]),
        ],
    );
    stage.sign_in("HIGH");
    // Answered by Okta and not recorded: the second removal.
    let daemon = stage.scene.daemon_with(&[("OKTA_RESPONDER_HALT_AT", "answered:3")]);
    daemon.wait_for_log("halted at");
    daemon.kill();
    assert_eq!(stage.org().effects_of("group.remove").len(), 2);
    let daemon = stage.scene.daemon();
    let ledger = Ledger::of(&stage.scene).await;
    let strip = ledger.wait_for("strip", "succeeded").await;
    assert!(groups.iter().all(|group| !stage.is_in(group)), "{:?}", stage.changes());
    assert!(kept.iter().chain([&imported]).all(|group| stage.is_in(group)));
    assert!(!stage.org().is_excluded_by_rule(&stage.ann.id));
    let told = note(&strip);
    for part in
        ["is out of 3 groups", "rule manages them: `By Rule`", "imported: `Imported`", "protected: `Break Glass`"]
    {
        assert!(told.contains(part), "`{part}` is not in {told}");
    }
    assert_eq!(stage.org().effects_of("group.remove").len(), 3, "none twice");

    stage.sign_in("LOW");
    ledger.wait_for("restore", "succeeded").await;
    assert!(groups.iter().all(|group| stage.is_in(group)), "{:?}", stage.changes());
    assert_eq!(stage.org().effects_of("group.add").len(), 3);
    // What was restored is not restored again; and each was one change of access, whatever its requests.
    let status = stage.scene.command(&["status"]);
    assert!(!String::from_utf8_lossy(&status.stdout).contains("is stopped"));
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_groups_grant_is_taken_away_by_leaving_them_or_denied_by_a_group() {
    let stage = Stage::new().await;
    let (payroll, vault, wiki) =
        (stage.org().add_app("Payroll"), stage.org().add_app("Vault"), stage.org().add_app("Wiki"));
    let groups = stage.groups(&["Finance", "Accounting", "Keepers", "Imported Staff"]);
    let denied = stage.org().add_group("No Vault");
    stage.org().assign(&payroll, &stage.ann.id);
    for group in &groups[..2] {
        stage.org().assign_group(&payroll, group);
    }
    stage.org().assign_group(&vault, &groups[2]);
    let imported = stage.org().add_group_of("Imported", GroupKind::App);
    stage.org().add_member(&imported, &stage.ann.id);
    stage.org().assign_group(&wiki, &imported);
    let unassign = "okta.app.unassign_user";
    stage.configure(
        "",
        &[playbook(
            "apps",
            "HIGH",
            &[
                ("leave", unassign, &format!("app = \"{payroll}\", via_groups = \"remove\"")),
                (
                    "deny",
                    unassign,
                    &format!("app = \"{vault}\", via_groups = \"restrict\", restrict_group = \"No Vault\""),
                ),
                ("stuck", unassign, &format!("app = \"{wiki}\", via_groups = \"remove\"")),
            ],
        )],
    );
    stage.sign_in("HIGH");
    let daemon = stage.scene.daemon();
    let ledger = Ledger::of(&stage.scene).await;
    ledger.at_rest(1).await;
    assert_eq!(ledger.step("leave").await.state, "succeeded");
    assert!(!stage.org().is_assigned(&payroll, &stage.ann.id));
    assert!(!stage.is_in(&groups[0]) && !stage.is_in(&groups[1]) && stage.is_in(&groups[3]));
    assert_eq!(ledger.step("deny").await.state, "succeeded");
    assert!(stage.is_in(&denied) && stage.is_in(&groups[2]) && stage.org().is_assigned(&vault, &stage.ann.id));
    let stuck = ledger.step("stuck").await;
    assert_eq!((stuck.state.as_str(), stuck.reason.as_deref()), ("failed", Some("granted_by_group")));
    assert!(stage.is_in(&imported));
    let leave = ledger.step("leave").await;
    assert_eq!(leave.receipt.unwrap()["groups"].as_array().unwrap().len(), 2, "what it cost him is on record");
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_are_suspended_all_but_one_that_a_protected_user_shares() {
    let stage = Stage::new().await;
    let boss = stage.org().add_user(User::new("Bea", "Boss"));
    let own = [stage.org().add_device(&[&stage.ann.id]), stage.org().add_device(&[&stage.ann.id])];
    let shared = stage.org().add_device(&[&stage.ann.id, &boss.id]);
    stage.configure(
        &format!("[guard]\nprotected_users = [\"{}\"]", boss.login),
        &[
            playbook("devices", "HIGH", &[("all", "okta.device.suspend", "devices = \"all\"")]),
            "[[playbook]]\nname = \"registered\"\non = [\"device.enrollment.create\"]\n[[playbook.step]]\nname = \"one\"\n\
             action = \"okta.device.deactivate\"\n"
                .to_owned(),
        ],
    );
    stage.sign_in("HIGH");
    let daemon = stage.scene.daemon();
    let ledger = Ledger::of(&stage.scene).await;
    let all = ledger.wait_for("all", "succeeded").await;
    assert!(own.iter().all(|device| stage.org().device_status(device) == "SUSPENDED"));
    assert_eq!(stage.org().device_status(&shared), "ACTIVE");
    assert!(note(&all).contains(&shared), "{}", note(&all));
    // The event's own device.
    stage.org().push_event(events::about_device("device.enrollment.create", &own[0], &stage.ann));
    ledger.wait_for("one", "succeeded").await;
    assert_eq!(stage.org().device_status(&own[0]), "DEACTIVATED");
    assert!(daemon.stop().success());
}
