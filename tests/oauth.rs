//! The daemon signs in as a service app, to an org that verifies its assertions and proofs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]

mod support;

use std::time::Duration;

use jiff::SignedDuration;
use okta_responder::demo::org::{AppKey, OrgOptions, ServiceApp, User, events};
use support::ledger::Ledger;
use support::{BOUND, Scene};

const CLIENT_ID: &str = "0oa1service0app00001";
const KEY_ID: &str = "k1";

const QUARANTINE: &str = r#"
[[playbook]]
name = "quarantine"
on = ["user.risk.detect"]
step = [{ name = "add", action = "okta.group.add_user", with = { group = "High Risk Users" } }]

[[playbook]]
name = "echo"
on = ["group.user_membership.add"]
step = [{ name = "sessions", action = "okta.user.clear_sessions" }]
"#;

/// What the playbooks need.
const SCOPES: [&str; 5] =
    ["okta.groups.manage", "okta.groups.read", "okta.logs.read", "okta.users.manage", "okta.users.read"];

/// A new key: its private half as PEM, and its public half for the org.
fn key(key_id: &str) -> (String, AppKey) {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    (
        pair.serialize_pem(),
        AppKey::Spki { kid: key_id.to_owned(), der: rcgen::PublicKeyData::subject_public_key_info(&pair) },
    )
}

struct Place {
    scene: Scene,
    private: String,
    group: String,
}

impl Place {
    /// An org that takes no API token, with a service app that has to prove possession.
    async fn new(options: OrgOptions) -> Self {
        let options = OrgOptions { ssws_allowed: false, ..options };
        let extra = "[poll]\nstart_from = \"1h\"\n[dispatch]\nretry_initial = \"100ms\"\nretry_max = \"200ms\"\n";
        let scene = Scene::with(options, extra, QUARANTINE).await;
        let (private, public) = key(KEY_ID);
        scene.org.register_app(ServiceApp::new(CLIENT_ID, vec![public]).granted(SCOPES.map(str::to_owned)));
        scene.secret("okta-key", &private);
        let dir = scene.dir.path().display().to_string();
        scene.edit(
            &format!("token = {{ file = \"{dir}/okta-token\" }}"),
            &format!(
                "client_id = \"{CLIENT_ID}\"\nprivate_key = {{ file = \"{dir}/okta-key\" }}\nkey_id = \"{KEY_ID}\""
            ),
        );
        let group = scene.org.add_group("High Risk Users");
        Self { scene, private, group }
    }

    /// One more user at high risk.
    fn risk(&self, name: &str) -> User {
        let user = self.scene.org.add_user(User::new(name, "Miller"));
        self.scene.org.push_event(events::risk_detected(&user, "LOW", "HIGH"));
        user
    }

    /// Waits until he is in quarantine.
    async fn quarantined(&self, user: &User) {
        let done = self.scene.org.wait_for(|org| org.is_member(&self.group, &user.id), BOUND).await;
        assert!(done.is_ok(), "{} is not in quarantine: {:?}", user.id, self.scene.org.token_requests());
    }

    /// Nothing that is secret stands in the text.
    fn keeps_secrets(&self, text: &str) {
        let key = self.private.lines().nth(1).unwrap();
        assert!(!text.contains(key) && !text.contains("eyJ"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_app_that_must_prove_possession_does_the_work_and_knows_its_own_events() {
    let place = Place::new(OrgOptions::default()).await;
    let user = place.risk("Ann");
    let daemon = place.scene.daemon();
    place.quarantined(&user).await;
    let ledger = Ledger::of(&place.scene).await;
    // The org tells of what the app has done, and that starts nothing.
    let actions = ledger.at_rest(2).await;
    assert_eq!(actions.len(), 1, "{actions:?}");
    assert_eq!(place.scene.org.effects_of("sessions.clear").len(), 0);
    let requests = place.scene.org.token_requests();
    let given: Vec<_> = requests.iter().filter(|request| request.error.is_none()).collect();
    assert_eq!(given.len(), 1, "{requests:?}");
    assert_eq!((given[0].token_type, requests.len()), (Some("DPoP"), 3), "without a proof, without a nonce, with it");
    assert_eq!(given[0].asked, SCOPES, "only what the playbooks need");
    let log = daemon.log();
    place.keeps_secrets(&log);
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_nonces_and_keys_are_replaced_while_the_daemon_runs() {
    let place = Place::new(OrgOptions::default()).await;
    let daemon = place.scene.daemon();
    place.quarantined(&place.risk("Ann")).await;
    place.scene.org.expire_tokens();
    place.quarantined(&place.risk("Bea")).await;
    place.scene.org.renew_nonce(false);
    place.scene.org.expire_tokens();
    place.quarantined(&place.risk("Cleo")).await;
    // Another key: in the file first, and the old token goes on.
    let (private, public) = key(KEY_ID);
    place.scene.secret("okta-key", &private);
    place.quarantined(&place.risk("Dora")).await;
    place.scene.org.set_app_keys(CLIENT_ID, vec![public]);
    place.scene.org.expire_tokens();
    place.quarantined(&place.risk("Eve")).await;
    daemon.wait_for_log("`okta.private_key` has a new one");
    assert_eq!(place.scene.org.tokens_given(), 4);
    place.keeps_secrets(&daemon.log());
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_end_in_seconds_are_renewed_all_the_time() {
    let options = OrgOptions { token_lifetime: Duration::from_secs(1), resource_nonce: true, ..OrgOptions::default() };
    let place = Place::new(options).await;
    let daemon = place.scene.daemon();
    let mut number = 0;
    while place.scene.org.tokens_given() < 5 {
        place.quarantined(&place.risk(&format!("Ann{number}"))).await;
        number += 1;
    }
    assert!(!daemon.log().contains("WARN"), "{}", daemon.log());
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_clock_is_off_works_and_says_by_how_much() {
    for (hours, side) in [(2, "behind"), (-2, "ahead of")] {
        let options = OrgOptions { clock_offset: SignedDuration::from_hours(hours), ..OrgOptions::default() };
        let place = Place::new(options).await;
        let daemon = place.scene.daemon();
        place.quarantined(&place.risk("Ann")).await;
        place.scene.org.expire_tokens();
        place.quarantined(&place.risk("Bea")).await;
        let log = daemon.log();
        let told: Vec<_> = log.lines().filter(|line| line.contains("this host's clock")).collect();
        assert_eq!(told.len(), 1, "{log}");
        assert!(told[0].contains(side) && (told[0].contains("2h") || told[0].contains("1h 59m 5")), "{}", told[0]);
        assert!(daemon.stop().success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_is_said_at_the_start_and_put_right_by_a_reload() {
    let place = Place::new(OrgOptions::default()).await;
    place.scene.edit(&format!("client_id = \"{CLIENT_ID}\""), "client_id = \"0oa1unknown000000001\"");
    let user = place.risk("Ann");
    let daemon = place.scene.daemon();
    daemon.wait_for_log("Okta does not take the client 0oa1unknown000000001 with this key (ES256, key id k1)");
    assert_eq!(place.scene.org.tokens_given(), 0);
    place.scene.edit("client_id = \"0oa1unknown000000001\"", &format!("client_id = \"{CLIENT_ID}\""));
    daemon.signal("HUP");
    place.quarantined(&user).await;
    // A new client that Okta does not take leaves the one that works in force.
    place.scene.edit(&format!("client_id = \"{CLIENT_ID}\""), "client_id = \"0oa1unknown000000002\"");
    daemon.signal("HUP");
    daemon.wait_for_log("the old configuration stays in force");
    place.quarantined(&place.risk("Bea")).await;
    place.keeps_secrets(&daemon.log());
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_is_switched_off_and_on_again_loses_nothing() {
    let place = Place::new(OrgOptions::default()).await;
    let daemon = place.scene.daemon();
    place.quarantined(&place.risk("Ann")).await;
    place.scene.org.revoke_app(CLIENT_ID);
    let user = place.risk("Bea");
    daemon.wait_for_log("see that `okta.client_id` is an active app of this org");
    place.scene.org.restore_app(CLIENT_ID);
    // It would be noticed without it, a little later.
    daemon.signal("HUP");
    place.quarantined(&user).await;
    assert!(daemon.stop().success());
}
