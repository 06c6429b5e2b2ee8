use serde_json::json;

use super::*;
use crate::demo::org::events::{SYSTEM_PRINCIPAL, risk_detected};
use crate::demo::org::{GroupKind, Service};

/// The actor, event type and risk string of every event in the log.
async fn told(fixture: &Fixture) -> Vec<(String, String, String)> {
    let page = fixture.get("/api/v1/logs?limit=1000").await;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let events = page.body.as_array().unwrap().clone();
    events
        .iter()
        .map(|event| {
            let risk = text(&event["debugContext"]["debugData"]["risk"]);
            (text(&event["actor"]["id"]), text(&event["eventType"]), risk)
        })
        .collect()
}

#[tokio::test]
async fn without_the_token_nothing_is_told_and_nothing_done() {
    let fixture = Fixture::new().await;
    let (ada, group) = (fixture.ada(), fixture.org.add_group("High Risk Users"));
    let url = format!("{}/api/v1/groups/{group}/users/{}", fixture.org.okta_url(), ada.id);
    let response = fixture.client.put(url).header("authorization", "SSWS wrong").send().await.unwrap();
    assert_eq!(Answer::of(response).await.error(), (401, "E0000011"));
    assert!(!fixture.org.is_member(&group, &ada.id));
    assert!(fixture.org.effects().is_empty());
}

#[tokio::test]
async fn a_user_is_found_by_id_login_short_login_and_me() {
    let fixture = Fixture::new().await;
    let ada = fixture.ada();
    for wanted in [&ada.id, "ada.lovelace@example.com", "Ada.Lovelace%40example.com", "ada.lovelace"] {
        let found = fixture.get(&format!("/api/v1/users/{wanted}")).await;
        assert_eq!(found.body["id"], ada.id, "{wanted}");
    }
    assert_eq!(fixture.get("/api/v1/users/me").await.body["id"], fixture.org.token_owner());
    let missing = fixture.get("/api/v1/users/nobody").await;
    assert_eq!(missing.error(), (404, "E0000007"));
    assert_eq!(missing.body["errorSummary"], "Not found: Resource not found: nobody (User)");
}

#[tokio::test]
async fn an_effect_is_recorded_once_per_request_and_says_whether_it_changed_anything() {
    let fixture = Fixture::new().await;
    let (ada, group) = (fixture.ada(), fixture.org.add_group("High Risk Users"));
    let path = format!("/api/v1/groups/{group}/users/{}", ada.id);
    assert_eq!(fixture.put(&path).await.status, 204);
    assert_eq!(fixture.put(&path).await.status, 204);
    assert!(fixture.org.is_member(&group, &ada.id));
    assert_eq!(fixture.delete(&path).await.status, 204);
    let effects = fixture.org.effects();
    let seen: Vec<_> = effects.iter().map(|effect| (effect.kind, effect.changed)).collect();
    assert_eq!(seen, [("group.add", true), ("group.add", false), ("group.remove", true)]);
    assert!(effects.iter().all(|effect| effect.target == format!("{group}/{}", ada.id)));
    let owner = fixture.org.token_owner().to_owned();
    let types: Vec<_> = told(&fixture).await.into_iter().map(|(actor, kind, _)| (actor, kind)).collect();
    let expected = ["group.user_membership.add", "group.user_membership.remove"];
    assert_eq!(types, expected.map(|kind| (owner.clone(), kind.to_owned())), "only changes are told");
}

#[tokio::test]
async fn members_of_imported_and_built_in_groups_cannot_be_changed() {
    let fixture = Fixture::new().await;
    let ada = fixture.ada();
    let imported = fixture.org.add_group_of("Imported", GroupKind::App);
    let everyone = fixture.get("/api/v1/groups?q=every").await.body[0]["id"].as_str().unwrap().to_owned();
    for group in [imported, everyone] {
        let answer = fixture.delete(&format!("/api/v1/groups/{group}/users/{}", ada.id)).await;
        assert_eq!(answer.error(), (403, "E0000006"));
    }
    assert_eq!(fixture.put(&format!("/api/v1/groups/00gnone/users/{}", ada.id)).await.error(), (404, "E0000007"));
    assert!(fixture.org.effects().is_empty());
}

#[tokio::test]
async fn groups_are_searched_by_exact_name_and_listed_in_pages() {
    let fixture = Fixture::new().await;
    let wanted = fixture.org.add_group("High \"Risk\" Users");
    fixture.org.add_group("High");
    let search = fixture
        .request(Method::GET, "/api/v1/groups")
        .query(&[("search", r#"profile.name eq "High \"Risk\" Users""#)])
        .send();
    let found = Answer::of(search.await.unwrap()).await;
    assert_eq!(found.body.as_array().unwrap().len(), 1);
    assert_eq!(found.body[0]["id"], wanted);
    let page = fixture.get("/api/v1/groups?limit=2").await;
    assert_eq!(page.body.as_array().unwrap().len(), 2);
    let rest = fixture.get_url(&page.next()).await;
    assert_eq!((rest.body.as_array().unwrap().len(), rest.link("next")), (1, None));
}

#[tokio::test]
async fn an_app_that_a_group_grants_cannot_be_unassigned() {
    let fixture = Fixture::new().await;
    let ada = fixture.ada();
    let (app, group) = (fixture.org.add_app("Payroll"), fixture.org.add_group("Finance"));
    fixture.org.assign_group(&app, &group);
    fixture.org.add_member(&group, &ada.id);
    let path = format!("/api/v1/apps/{app}/users/{}", ada.id);
    assert_eq!(fixture.get(&path).await.body["scope"], "GROUP");
    fixture.org.assign(&app, &ada.id);
    assert_eq!(fixture.get(&path).await.body["scope"], "USER");
    let refused = fixture.delete(&path).await;
    assert_eq!(refused.error(), (403, "E0000046"));
    assert!(refused.body["errorCauses"][0]["errorSummary"].as_str().unwrap().contains("group memberships"));
    assert!(fixture.org.effects().is_empty());
    assert_eq!(fixture.get(&format!("/api/v1/apps/{app}/groups")).await.body[0]["id"], group);

    fixture.delete(&format!("/api/v1/groups/{group}/users/{}", ada.id)).await;
    assert_eq!(fixture.delete(&path).await.status, 204);
    assert_eq!(fixture.get(&path).await.error(), (404, "E0000007"));
    assert_eq!(fixture.delete(&path).await.error(), (404, "E0000007"));
    let changed: Vec<_> = fixture.org.effects_of("app.unassign").iter().map(|effect| effect.changed).collect();
    assert_eq!(changed, [true, false]);
    assert!(!fixture.org.is_assigned(&app, &ada.id));
}

#[tokio::test]
async fn clearing_sessions_lowers_the_risk_and_the_system_tells_so() {
    let fixture = Fixture::new().await;
    let ada = fixture.ada();
    fixture.org.push_event(risk_detected(&ada, "LOW", "HIGH"));
    assert_eq!(fixture.org.user_risk(&ada.id), "HIGH");
    let path = format!("/api/v1/users/{}/sessions?oauthTokens=true", ada.id);
    assert_eq!(fixture.delete(&path).await.status, 204);
    assert_eq!(fixture.org.user_risk(&ada.id), "LOW");
    let events = told(&fixture).await;
    let (actor, kind, _) = &events[1];
    assert_eq!((actor.as_str(), kind.as_str()), (fixture.org.token_owner(), "user.session.clear"));
    let (actor, kind, risk) = &events[2];
    assert_eq!((actor.as_str(), kind.as_str()), (SYSTEM_PRINCIPAL, "user.risk.detect"));
    assert!(risk.starts_with("{previousLevel=HIGH, level=LOW, "), "{risk}");

    fixture.delete(&path).await;
    assert_eq!(told(&fixture).await.len(), 4, "a user without risk falls no further");
}

#[tokio::test]
async fn a_risk_level_is_created_then_updated_and_its_reason_is_checked() {
    let fixture = Fixture::new().await;
    let ada = fixture.ada();
    let path = format!("/api/v1/users/{}/risk", ada.id);
    let put =
        async |body: Value| Answer::of(fixture.request(Method::PUT, &path).json(&body).send().await.unwrap()).await;
    assert_eq!(fixture.get(&path).await.body["riskLevel"], "NONE");
    assert_eq!(put(json!({"riskLevel": "HIGH", "riskReason": "rule 7, seen twice."})).await.status, 201);
    assert_eq!(put(json!({"riskLevel": "HIGH"})).await.status, 200);
    assert_eq!(put(json!({"riskLevel": "NONE"})).await.error(), (400, "E0000001"));
    assert_eq!(put(json!({"riskLevel": "LOW", "riskReason": "rule: 7"})).await.error(), (400, "E0000001"));
    let read = fixture.get(&path).await;
    assert_eq!((&read.body["riskLevel"], &read.body["reason"]), (&json!("HIGH"), &json!("override.by.admin")));
    assert_eq!(fixture.org.effects_of("risk.set").len(), 2);
}

#[tokio::test]
async fn a_manager_is_linked_or_the_list_is_empty() {
    let fixture = Fixture::new().await;
    let ada = fixture.ada();
    let manager = fixture.org.add_user(User::new("Mary", "Somerville"));
    let path = format!("/api/v1/users/{}/linkedObjects/manager", ada.id);
    assert_eq!(fixture.get(&path).await.body, json!([]));
    fixture.org.link_manager(&ada.id, &manager.id);
    let href = fixture.get(&path).await.body[0]["_links"]["self"]["href"].as_str().unwrap().to_owned();
    assert_eq!(fixture.get_url(&href).await.body["profile"]["login"], manager.login);
    assert_eq!(fixture.get(&path.replace("manager", "mentor")).await.error(), (404, "E0000007"));
}

#[tokio::test]
async fn requests_are_noted_with_what_was_answered_and_without_the_token() {
    let fixture = Fixture::new().await;
    let ada = fixture.ada();
    fixture
        .request(Method::GET, &format!("/api/v1/users/{}?x=1", ada.id))
        .header("user-agent", "me/1")
        .send()
        .await
        .unwrap();
    fixture.get("/nowhere").await;
    let requests = fixture.org.requests();
    let seen: Vec<_> = requests.iter().map(|request| (request.method.as_str(), request.status)).collect();
    assert_eq!(seen, [("GET", Some(200)), ("GET", Some(405))]);
    assert_eq!(requests[0].path, format!("/api/v1/users/{}?x=1", ada.id));
    assert_eq!(requests[0].headers["user-agent"], "me/1");
    assert!(!format!("{requests:?}").contains(fixture.org.token()));
    assert_eq!(fixture.org.request_count(Service::Okta, "/api/v1/users/"), 1);
}
