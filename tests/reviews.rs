//! Access reviews: started once, by whoever may decide, in the way that the org offers, and told when they end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]

mod support;

use okta_responder::demo::org::{Fault, Misbehaviour, OrgOptions, Service, User, events};
use support::Scene;
use support::every::FAST;
use support::ledger::Ledger;

const REVIEWS: &str = "/security-access-reviews";

/// An org with a manager, and a playbook that has whoever signs in reviewed.
struct Stage {
    scene: Scene,
    boss: User,
    lead: User,
    app: String,
}

impl Stage {
    async fn new(options: OrgOptions, with: &str) -> Self {
        let scene = Scene::with(options, "", "").await;
        let boss = scene.org.add_user(User::new("Grace", "Hopper"));
        let lead = scene.org.add_user(User::new("Security", "Lead"));
        let app = scene.org.add_app("Source Code");
        let playbooks = format!(
            "[[playbook]]\nname = \"p\"\non = [\"user.session.start\"]\n[[playbook.step]]\nname = \"review\"\n\
             action = \"okta.review.start\"\nwith = {{ name = \"Access of {{{{ target.login }}}}\", {with} }}\n\
             [[playbook]]\nname = \"ended\"\non = [\"access.review.close\", \"certification.campaign.close\"]\n\
             [[playbook.step]]\nname = \"tell\"\naction = \"slack.message.post\"\n\
             with = {{ channel = \"#security\", text = \"Ended: {{{{ target.login }}}}\" }}\n"
        );
        scene.configure(FAST, &playbooks);
        Self { scene, boss, lead, app }
    }

    /// A user of this manager signs in.
    fn sign_in(&self, first: &str, manager: Option<&str>) -> User {
        let user = User { manager_id: manager.map(str::to_owned), ..User::new(first, "Miller") };
        let user = self.scene.org.add_user(user);
        self.scene.org.assign(&self.app, &user.id);
        self.scene.org.push_event(events::sign_in(&user, "HIGH"));
        user
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_manager_decides_okta_takes_the_access_away_and_the_end_is_told() {
    let stage = Stage::new(OrgOptions::default(), "days = 1").await;
    let (ann, org) = (stage.sign_in("Ann", Some(&stage.boss.login)), &stage.scene.org);
    let daemon = stage.scene.daemon();
    let ledger = Ledger::of(&stage.scene).await;
    let review = ledger.wait_for("review", "succeeded").await;
    let [started] = &org.access_reviews()[..] else { panic!("{:?}", org.access_reviews()) };
    assert_eq!((&started.user, started.reviewers.as_slice()), (&ann.id, std::slice::from_ref(&stage.boss.id)));
    let receipt = review.receipt.unwrap();
    assert_eq!(receipt["id"], started.id.as_str());
    assert!(receipt["url"].as_str().unwrap().ends_with("/app/UserHome"), "{receipt}");
    assert!(org.decide_review(&started.id, false));
    assert!(!org.is_assigned(&stage.app, &ann.id));
    ledger.wait_for("tell", "succeeded").await;
    assert_eq!(org.slack_messages()[0].text, format!("Ended: {}", ann.login));
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_review_whose_answer_was_lost_is_found_by_its_name_and_not_doubled() {
    for (with, path) in [("kind = \"auto\"", REVIEWS), ("kind = \"campaign\"", "/campaigns")] {
        let stage = Stage::new(OrgOptions::default(), with).await;
        stage.scene.org.fault(Fault::new(Service::Okta, Misbehaviour::DropAfter).method("POST").path(path));
        stage.sign_in("Ann", Some(&stage.boss.id));
        let daemon = stage.scene.daemon();
        let ledger = Ledger::of(&stage.scene).await;
        ledger.at_rest(1).await;
        let reviews = stage.scene.org.access_reviews();
        assert_eq!(reviews.len(), 1, "{with}: {reviews:?}");
        let state = ledger.step("review").await.state;
        // What is found is settled; a campaign that is only scheduled has its launch before it.
        assert_eq!(state, if reviews[0].is_campaign() { "succeeded" } else { "settled" }, "{with}");
        assert_ne!(reviews[0].status, "SCHEDULED");
        assert!(daemon.stop().success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_killed_before_it_records_the_review_starts_no_second_one() {
    let stage = Stage::new(OrgOptions::default(), "days = 7").await;
    stage.sign_in("Ann", Some(&stage.boss.id));
    let daemon = stage.scene.daemon_with(&[("OKTA_RESPONDER_HALT_AT", "answered")]);
    daemon.wait_for_log("halted at answered");
    daemon.kill();
    assert_eq!(stage.scene.org.access_reviews().len(), 1);
    let daemon = stage.scene.daemon();
    let ledger = Ledger::of(&stage.scene).await;
    ledger.wait_for("review", "settled").await;
    assert_eq!(stage.scene.org.access_reviews().len(), 1);
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_reviews_himself_and_who_has_no_manager_is_reviewed_by_the_fallback() {
    let fallback = "fallback_reviewer = \"security.lead@example.com\"";
    let stage = Stage::new(OrgOptions::default(), fallback).await;
    let org = &stage.scene.org;
    let gone = org.add_user(User { status: "DEPROVISIONED".to_owned(), ..User::new("Gone", "Boss") });
    let users = [
        stage.sign_in("Own", Some("own.miller@example.com")),
        stage.sign_in("None", None),
        stage.sign_in("Old", Some(&gone.id)),
    ];
    org.push_event(events::sign_in(&stage.lead, "HIGH"));
    let daemon = stage.scene.daemon();
    let ledger = Ledger::of(&stage.scene).await;
    let actions = ledger.at_rest(4).await;
    let reviews = org.access_reviews();
    for user in &users {
        let review = reviews.iter().find(|review| review.user == user.id).unwrap();
        assert_eq!(review.reviewers, std::slice::from_ref(&stage.lead.id), "{}", user.login);
    }
    // The lead has neither a manager nor anybody else.
    assert_eq!(reviews.len(), 3);
    let failed = actions.iter().find(|action| action.state == "failed").unwrap();
    assert_eq!(failed.user.as_ref(), Some(&stage.lead.id));
    assert!(failed.error.as_ref().unwrap().contains("`fallback_reviewer` is the user himself"), "{:?}", failed.error);
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_org_without_security_access_reviews_gets_a_campaign_that_is_launched() {
    let options = OrgOptions { security_access_reviews: false, ..OrgOptions::default() };
    let stage = Stage::new(options, "days = 3").await;
    let org = &stage.scene.org;
    let daemon = stage.scene.daemon();
    let mut users = vec![stage.sign_in("Feature", Some(&stage.boss.id))];
    let ledger = Ledger::of(&stage.scene).await;
    ledger.at_rest(1).await;
    for (status, code) in [(404, "E0000007"), (403, "E0000006")] {
        let body = format!("{{\"errorCode\":\"{code}\",\"errorSummary\":\"no\"}}");
        org.clear_faults();
        org.fault(Fault::new(Service::Okta, Misbehaviour::status(status, &body)).path(REVIEWS).always());
        users.push(stage.sign_in(&format!("User{status}"), Some(&stage.boss.id)));
        ledger.at_rest(users.len()).await;
    }
    let campaigns = org.access_reviews();
    assert_eq!(campaigns.len(), users.len());
    for (campaign, user) in campaigns.iter().zip(&users) {
        assert!(campaign.is_campaign(), "{campaign:?}");
        assert_eq!((campaign.status, &campaign.user), ("ACTIVE", &user.id));
    }
    assert!(ledger.actions().await.iter().all(|action| action.state == "succeeded"));
    assert!(org.decide_review(&campaigns[0].id, true));
    assert!(org.is_assigned(&stage.app, &users[0].id), "he keeps it");
    ledger.wait_for("tell", "succeeded").await;
    assert!(daemon.stop().success());
}
