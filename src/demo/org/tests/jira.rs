use serde_json::json;

use super::*;
use crate::demo::org::{JIRA_TOKEN, JIRA_USER};

impl Fixture {
    fn jira(&self, method: Method, path: &str, token: &str) -> RequestBuilder {
        let url = format!("{}/rest/api/{path}", self.org.jira_url());
        self.client.request(method, url).basic_auth(JIRA_USER, Some(token))
    }

    /// The keys of the issues that a search shows.
    async fn keys(&self, path: &str, jql: &str, token: &str) -> Vec<String> {
        let body = json!({"jql": jql, "fields": ["labels"]});
        let found = Answer::of(self.jira(Method::POST, path, token).json(&body).send().await.unwrap()).await;
        assert_eq!(found.status, 200, "{}", found.body);
        let issues = found.body["issues"].as_array().unwrap();
        issues.iter().map(|issue| issue["key"].as_str().unwrap().to_owned()).collect()
    }
}

fn new_issue() -> Value {
    json!({"fields": {"project": {"key": "SEC"}, "issuetype": {"name": "Task"}, "summary": "x", "labels": ["a"]}})
}

#[tokio::test]
async fn an_issue_is_created_at_once_shown_later_and_not_unique() {
    for (jira_server, version, search) in [(false, 3, "3/search/jql"), (true, 2, "2/search")] {
        let jira_search_lag = Duration::from_secs(1);
        let fixture = Fixture::with(OrgOptions { jira_server, jira_search_lag, ..OrgOptions::default() }).await;
        let create = format!("{version}/issue");
        for number in 1..=2 {
            let made = fixture.jira(Method::POST, &create, JIRA_TOKEN).json(&new_issue()).send().await.unwrap();
            let made = Answer::of(made).await;
            assert_eq!((made.status, &made.body["key"]), (201, &json!(format!("SEC-{number}"))));
        }
        let jql = r#"labels = "A" ORDER BY created DESC"#;
        assert!(fixture.keys(search, jql, JIRA_TOKEN).await.is_empty(), "it is shown at once");
        let read = format!("{version}/issue/10001?fields=status");
        let read = Answer::of(fixture.jira(Method::GET, &read, JIRA_TOKEN).send().await.unwrap()).await;
        assert_eq!(read.body["fields"]["status"]["statusCategory"]["key"], "new");
        let until = tokio::time::Instant::now() + BOUND;
        while fixture.keys(search, jql, JIRA_TOKEN).await != ["SEC-2", "SEC-1"] {
            assert!(tokio::time::Instant::now() < until, "it is never shown");
            tokio::task::yield_now().await;
        }
        assert!(fixture.org.close_jira_issue("SEC-2"));
        let open = r#"project = "SEC" AND labels = "a" AND statusCategory != Done ORDER BY created DESC"#;
        assert_eq!(fixture.keys(search, open, JIRA_TOKEN).await, ["SEC-1"]);
    }
}

#[tokio::test]
async fn who_is_not_known_sees_no_issue_in_the_cloud_and_is_refused_elsewhere() {
    let fixture = Fixture::new().await;
    assert!(fixture.keys("3/search/jql", r#"labels = "a""#, "wrong").await.is_empty());
    let refused = fixture.jira(Method::GET, "3/myself", "wrong").send().await.unwrap();
    assert_eq!(refused.status(), 401);
    assert_eq!(refused.headers()["x-seraph-loginreason"], "AUTHENTICATED_FAILED");
    let create = fixture.jira(Method::POST, "3/issue", "wrong").json(&new_issue()).send().await.unwrap();
    assert_eq!(create.status(), 401);

    let server = Fixture::with(OrgOptions { jira_server: true, ..OrgOptions::default() }).await;
    let search = server.jira(Method::POST, "2/search", "wrong").json(&json!({"jql": ""})).send().await.unwrap();
    assert_eq!(search.status(), 401);
    let url = format!("{}/rest/api/2/myself", server.org.jira_url());
    assert_eq!(server.client.get(url).bearer_auth(JIRA_TOKEN).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn each_flavor_has_its_own_paths_and_the_old_search_of_the_cloud_is_gone() {
    let status = async |fixture: &Fixture, path: &str| {
        fixture
            .jira(Method::POST, path, JIRA_TOKEN)
            .json(&json!({"jql": r#"labels = "a""#}))
            .send()
            .await
            .unwrap()
            .status()
    };
    let cloud = Fixture::new().await;
    assert_eq!(status(&cloud, "3/search").await, 410);
    assert_eq!(status(&cloud, "2/search").await, 410);
    let server = Fixture::with(OrgOptions { jira_server: true, ..OrgOptions::default() }).await;
    assert_eq!(status(&server, "3/search/jql").await, 404);
    assert_eq!(status(&server, "2/search").await, 200);
}

#[tokio::test]
async fn who_may_not_create_is_told_so_and_what_is_missing_is_named() {
    let fixture = Fixture::new().await;
    let create = async || {
        Answer::of(fixture.jira(Method::POST, "3/issue", JIRA_TOKEN).json(&new_issue()).send().await.unwrap()).await
    };
    fixture.org.jira_requires("customfield_10010");
    let missing = create().await;
    assert_eq!(
        (missing.status, &missing.body["errors"]),
        (400, &json!({"customfield_10010": "customfield_10010 is required."}))
    );
    fixture.org.jira_lets_create(false);
    assert_eq!(create().await.status, 403);
    let asked = "3/mypermissions?permissions=CREATE_ISSUES&projectKey=SEC";
    let asked = Answer::of(fixture.jira(Method::GET, asked, JIRA_TOKEN).send().await.unwrap()).await;
    assert_eq!(asked.body["permissions"]["CREATE_ISSUES"]["havePermission"], false);
    assert!(fixture.org.jira_issues().is_empty());
}
