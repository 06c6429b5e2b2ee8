//! Secrets that are replaced while the daemon runs, against every service that speaks HTTP: the refused request goes out
//! once more with the new secret, in the same attempt, and a secret that is still the same is never sent again.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::stage::{
    PATIENT, Reply, Seen, Stage, incident_row, jira_answer, jira_config, pagerduty_config, servicenow_config,
    slack_config, teams_config,
};
use super::*;
use crate::config::secret::{SecretEnv, SecretSource};
use crate::config::{JiraConfig, JiraFlavor, ServiceNowConfig};
use crate::model::outcome::Reason;

const OLD: &str = "secret_old_1";
const NEW: &str = "secret_new_2";

/// A secret's file.
pub(super) struct SecretFile {
    directory: tempfile::TempDir,
}

impl SecretFile {
    pub(super) fn new(content: &str) -> Self {
        let file = Self { directory: tempfile::tempdir().unwrap() };
        file.write(content);
        file
    }

    /// Replaces it by renaming, as it should be done.
    pub(super) fn write(&self, content: &str) {
        let new = self.directory.path().join("new");
        fs::write(&new, content).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(new, self.path()).unwrap();
    }

    pub(super) fn live(&self) -> LiveSecret {
        LiveSecret::read(&SecretSource::File(self.path()), &SecretEnv::new(None, |_| None)).unwrap()
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("secret")
    }
}

/// How one way to let us in plugs into the suite.
#[derive(Clone)]
struct Plug {
    name: &'static str,
    build: fn(&str, LiveSecret) -> Arc<dyn Connector>,
    params: Value,
    /// What stands in the file for one word of the secret.
    content: fn(&str, &str) -> String,
    /// Whether a request shows this word.
    shows: fn(&Seen, &str) -> bool,
    refusal: fn(&Seen) -> Reply,
    done: fn(&Seen) -> Reply,
    /// What its refusal means. One that is no word about credentials cannot wait for the operator.
    refused: Reason,
    /// The requests of a successful attempt.
    requests: usize,
}

fn plugs() -> Vec<Plug> {
    let basic = Plug {
        name: "servicenow, basic",
        build: |base, secret| {
            let config = ServiceNowConfig { username: Some("daemon".to_owned()), ..servicenow_config(base, PATIENT) };
            Arc::new(ServiceNow::new(&config, Some(secret), None, &Network::default()).unwrap())
        },
        params: json!({"short_description": "User risk HIGH"}),
        content: |_, word| format!("{word}\n"),
        shows: |seen, word| {
            let sent = seen.header("authorization").unwrap_or_default();
            sent == format!("Basic {}", BASE64.encode(format!("daemon:{word}")))
        },
        refusal: |_| Reply::json(401, &json!({"error": {"message": "User Not Authenticated"}, "status": "failure"})),
        done: |seen| match seen.method.as_str() {
            "GET" => Reply::json(200, &json!({"result": []})),
            _ => Reply::json(201, &json!({"result": incident_row(seen)})),
        },
        refused: Reason::Unauthorized,
        requests: 2,
    };
    let client_secret = Plug {
        name: "servicenow, client secret",
        build: |base, secret| {
            let config = ServiceNowConfig { client_id: Some("client".to_owned()), ..servicenow_config(base, PATIENT) };
            Arc::new(ServiceNow::new(&config, None, Some(secret), &Network::default()).unwrap())
        },
        shows: |seen, word| match seen.path() {
            "/oauth_token.do" => seen.body.contains(&format!("client_secret={word}&")),
            _ => seen.header("authorization") == Some(&format!("Bearer token_of_{word}")),
        },
        refusal: |_| Reply::json(401, &json!({"error": "invalid_client"})),
        done: |seen| match seen.path() {
            "/oauth_token.do" => {
                let word = if seen.body.contains(NEW) { NEW } else { OLD };
                Reply::json(200, &json!({"access_token": format!("token_of_{word}"), "expires_in": 1799}))
            }
            _ => (plugs()[0].done)(seen),
        },
        requests: 3,
        ..basic.clone()
    };
    let oauth_password = Plug {
        name: "servicenow, password of an OAuth user",
        build: |base, secret| {
            let config = ServiceNowConfig {
                client_id: Some("client".to_owned()),
                username: Some("daemon".to_owned()),
                ..servicenow_config(base, PATIENT)
            };
            Arc::new(ServiceNow::new(&config, Some(secret), Some("hush".into()), &Network::default()).unwrap())
        },
        shows: |seen, word| match seen.path() {
            "/oauth_token.do" => seen.body.ends_with(&format!("&password={word}")),
            _ => seen.header("authorization") == Some(&format!("Bearer token_of_{word}")),
        },
        refusal: |seen| match seen.path() {
            "/oauth_token.do" => Reply::json(400, &json!({"error": "invalid_grant"})),
            _ => (plugs()[0].refusal)(seen),
        },
        ..client_secret.clone()
    };
    let jira = Plug {
        name: "jira, basic",
        build: |base, secret| {
            let config = jira_config(base, JiraFlavor::Cloud, PATIENT);
            Arc::new(Jira::new(&config, secret, &Network::default()).unwrap())
        },
        params: json!({"project": "SEC", "issue_type": "Task", "summary": "User risk HIGH"}),
        refusal: |seen| match jira_answer(seen, &[], "new") {
            // To nobody in particular, the search shows nothing.
            Some(reply) if seen.path().contains("/search") => {
                reply.with("X-Seraph-LoginReason", "AUTHENTICATED_FAILED")
            }
            _ => Reply::text(401, "text/plain", "Client must be authenticated to access this resource."),
        },
        done: |seen| jira_answer(seen, &[], "new").unwrap_or(Reply::json(201, &json!({"id": "10001", "key": "SEC-1"}))),
        ..basic.clone()
    };
    let jira_bearer = Plug {
        name: "jira, bearer",
        build: |base, secret| {
            let config = JiraConfig { username: None, ..jira_config(base, JiraFlavor::Server, PATIENT) };
            Arc::new(Jira::new(&config, secret, &Network::default()).unwrap())
        },
        shows: |seen, word| seen.header("authorization") == Some(&format!("Bearer {word}")),
        ..jira.clone()
    };
    let pagerduty = Plug {
        name: "pagerduty",
        build: |base, secret| {
            let service = PagerDuty::new(&pagerduty_config(base, PATIENT), secret, &Network::default()).unwrap();
            Arc::new(pagerduty::Trigger(Arc::new(service)))
        },
        params: json!({"summary": "User risk HIGH"}),
        shows: |seen, word| seen.json()["routing_key"] == word,
        refusal: |_| Reply::json(400, &json!({"status": "invalid event", "errors": ["'routing_key' is invalid"]})),
        done: |seen| Reply::json(202, &json!({"status": "success", "dedup_key": seen.json()["dedup_key"]})),
        refused: Reason::Rejected,
        requests: 1,
        ..basic.clone()
    };
    let bot = Plug {
        name: "slack, bot",
        build: |base, secret| {
            let config = slack_config(base, PATIENT);
            Arc::new(Slack::new(&config, Some(secret), None, &Network::default()).unwrap())
        },
        params: json!({"channel": "#security", "text": "User risk HIGH"}),
        shows: |seen, word| seen.header("authorization") == Some(&format!("Bearer {word}")),
        refusal: |_| Reply::json(200, &json!({"ok": false, "error": "token_revoked"})),
        done: |_| Reply::json(200, &json!({"ok": true, "channel": "C1", "ts": "1700000000.000100"})),
        requests: 1,
        ..basic.clone()
    };
    let webhook = Plug {
        name: "slack, webhook",
        build: |base, secret| {
            let config = slack_config(base, PATIENT);
            Arc::new(Slack::new(&config, None, Some(secret), &Network::default()).unwrap())
        },
        content: |base, word| format!("{base}/services/T/B/{word}\n"),
        shows: |seen, word| seen.path() == format!("/services/T/B/{word}"),
        refusal: |_| Reply::text(404, "text/html", "no_service"),
        done: |_| Reply::text(200, "text/html", "ok"),
        ..bot.clone()
    };
    let teams = Plug {
        name: "teams, webhook",
        build: |_, secret| {
            let config = teams_config(PATIENT);
            Arc::new(Teams::new(&config, secret, &Network::default()).unwrap())
        },
        params: json!({"text": "User risk HIGH"}),
        content: |base, word| format!("{base}/workflows/w?sig={word}"),
        shows: |seen, word| seen.query("sig").as_deref() == Some(word),
        refusal: |_| Reply::json(401, &json!({"error": {"code": "DirectApiAuthorizationRequired"}})),
        done: |_| Reply::text(202, "text/plain", ""),
        ..bot.clone()
    };
    let mut plugs = vec![basic, client_secret, oauth_password, jira, jira_bearer, pagerduty, bot, webhook, teams];
    plugs.extend(http_plugs(&plugs[0]));
    plugs
}

/// Every way into a service that a playbook itself describes.
fn http_plugs(basic: &Plug) -> Vec<Plug> {
    let bearer = Plug {
        name: "http, token",
        build: |base, secret| http_at(base, "token = { env = 'T' }", secret),
        params: json!({"service": "edr", "method": "POST", "path": "/blocks", "json": {}}),
        shows: |seen, word| seen.header("authorization") == Some(&format!("Bearer {word}")),
        refusal: |_| Reply::json(401, &json!({"message": "who are you?"})),
        done: |_| Reply::json(201, &json!({"id": 7})),
        requests: 1,
        ..basic.clone()
    };
    let header = Plug {
        name: "http, header",
        build: |base, secret| http_at(base, "token = { env = 'T' }\ntoken_header = 'X-Api-Key'", secret),
        shows: |seen, word| seen.header("x-api-key") == Some(word) && seen.header("authorization").is_none(),
        ..bearer.clone()
    };
    let password = Plug {
        name: "http, password",
        build: |base, secret| http_at(base, "username = 'daemon'\npassword = { env = 'T' }", secret),
        shows: basic.shows,
        ..bearer.clone()
    };
    let client_secret = Plug {
        name: "http, client secret",
        build: |base, secret| {
            let settings = format!(
                "client_id = 'c'\nclient_secret = {{ env = 'T' }}\ntoken_url = '{base}/oauth/token'\nscope = 's'"
            );
            http_at(base, &settings, secret)
        },
        params: json!({"service": "edr", "method": "POST", "path": "/blocks", "lookup_path": "/blocks", "found": "/0"}),
        shows: |seen, word| match seen.path() {
            "/oauth/token" => seen.body.contains(&format!("client_secret={word}&scope=s")),
            _ => seen.header("authorization") == Some(&format!("Bearer token_of_{word}")),
        },
        done: |seen| match (seen.path(), seen.method.as_str()) {
            ("/oauth/token", _) => {
                let word = if seen.body.contains(NEW) { NEW } else { OLD };
                Reply::json(200, &json!({"access_token": format!("token_of_{word}"), "expires_in": 1799}))
            }
            (_, "GET") => Reply::json(200, &json!([])),
            _ => Reply::json(201, &json!({"id": 7})),
        },
        requests: 3,
        ..bearer.clone()
    };
    vec![bearer, header, password, client_secret]
}

fn http_at(base: &str, settings: &str, secret: LiveSecret) -> Arc<dyn Connector> {
    let text = format!("base_url = '{base}/v1'\nallow_private = ['127.0.0.0/8']\ntimeout = '20s'\n{settings}");
    let sections = BTreeMap::from([("edr".to_owned(), toml::from_str(&text).unwrap())]);
    let secrets = BTreeMap::from([("edr".to_owned(), secret)]);
    Arc::new(http_request::Request(Arc::new(HttpServices::new(&sections, secrets, &Network::default()).unwrap())))
}

/// A service that lets in who knows the right word, and the file in which the word stands.
struct Scene {
    plug: Plug,
    stage: Stage,
    valid: Arc<Mutex<&'static str>>,
    file: SecretFile,
    connector: Arc<dyn Connector>,
}

impl Scene {
    async fn new(plug: &Plug) -> Self {
        let valid = Arc::new(Mutex::new(OLD));
        let (right, Plug { shows, refusal, done, .. }) = (Arc::clone(&valid), plug.clone());
        let stage =
            Stage::open(move |seen| if shows(seen, *right.lock().unwrap()) { done(seen) } else { refusal(seen) }).await;
        let file = SecretFile::new(&(plug.content)(&stage.base, OLD));
        let connector = (plug.build)(&stage.base, file.live());
        Self { plug: plug.clone(), stage, valid, file, connector }
    }

    fn write(&self, word: &str) {
        self.file.write(&(self.plug.content)(&self.stage.base, word));
    }

    /// One attempt, and how many requests came of it.
    async fn attempt(&self, key: &str) -> (Outcome, usize) {
        let before = self.stage.seen().len();
        let key = IdempotencyKey::derive("okta", key, "user-risk-changed", self.plug.name);
        let call =
            Cleared::unguarded(Call { key, params: self.plug.params.clone(), attempt: 1, earlier: Receipt::default() });
        let outcome = self.connector.perform(&call).await;
        let shown = format!("{outcome:?}");
        assert!(!shown.contains(OLD) && !shown.contains(NEW), "{}: {shown}", self.plug.name);
        (outcome, self.stage.seen().len() - before)
    }
}

#[track_caller]
fn check_done(scene: &Scene, (outcome, requests): (Outcome, usize), expected: usize) {
    let name = scene.plug.name;
    assert!(matches!(outcome, Outcome::Done(_)), "{name}: {outcome:?}");
    assert_eq!(requests, expected, "{name}");
}

/// It waits for the operator where the service says what is wrong, and has sent the refused secret not once more than it had
/// to.
#[track_caller]
fn check_refused(scene: &Scene, (outcome, requests): (Outcome, usize), expected: usize) {
    let name = scene.plug.name;
    let failure = match (&outcome, scene.plug.refused) {
        (Outcome::Transient(failure), Reason::Unauthorized) | (Outcome::Permanent(failure), Reason::Rejected) => {
            failure
        }
        _ => panic!("{name}: {outcome:?}"),
    };
    assert_eq!((failure.reason, requests), (scene.plug.refused, expected), "{name}: {failure}");
}

#[tokio::test]
async fn a_secret_that_was_replaced_is_read_again_and_used_in_the_same_attempt() {
    for plug in plugs() {
        let scene = Scene::new(&plug).await;
        check_done(&scene, scene.attempt("1").await, plug.requests);
        *scene.valid.lock().unwrap() = NEW;
        scene.write(NEW);
        // A kept OAuth token saves the request for one, and is then refused: that request, and the one for a token with the
        // old secret, come on top.
        let refused = if plug.requests == 3 { 2 } else { 1 };
        check_done(&scene, scene.attempt("2").await, plug.requests + refused);
        // From now on it is the new one from the first request on.
        let kept = usize::from(plug.requests == 3);
        check_done(&scene, scene.attempt("3").await, plug.requests - kept);
    }
}

#[tokio::test]
async fn a_refused_secret_that_is_still_the_same_is_not_sent_again_and_waits_for_a_person() {
    for plug in plugs() {
        let scene = Scene::new(&plug).await;
        *scene.valid.lock().unwrap() = NEW;
        check_refused(&scene, scene.attempt("1").await, 1);
        check_refused(&scene, scene.attempt("1").await, 1);
        scene.write(NEW);
        check_done(&scene, scene.attempt("1").await, plug.requests + 1);
    }
}

#[tokio::test]
async fn a_new_secret_that_is_refused_too_is_the_last_request_of_the_attempt() {
    for plug in plugs() {
        let scene = Scene::new(&plug).await;
        *scene.valid.lock().unwrap() = "secret_other_3";
        scene.write(NEW);
        check_refused(&scene, scene.attempt("1").await, 2);
        check_refused(&scene, scene.attempt("1").await, 1);
    }
}

#[tokio::test]
async fn a_file_that_is_being_written_leaves_the_old_secret_in_force() {
    for plug in plugs() {
        let scene = Scene::new(&plug).await;
        *scene.valid.lock().unwrap() = NEW;
        scene.file.write("");
        check_refused(&scene, scene.attempt("1").await, 1);
        *scene.valid.lock().unwrap() = OLD;
        check_done(&scene, scene.attempt("1").await, plug.requests);
        // Nobody asks the file as long as nobody refuses.
        fs::remove_file(scene.file.path()).unwrap();
        check_done(&scene, scene.attempt("2").await, plug.requests - usize::from(plug.requests == 3));
    }
}

#[tokio::test]
async fn an_incident_that_is_refused_between_look_up_and_creation_is_created_once() {
    let plug = &plugs()[0];
    let file = SecretFile::new(OLD);
    let path = file.path();
    let (shows, refusal, done) = (plug.shows, plug.refusal, plug.done);
    let stage = Stage::open(move |seen| {
        if seen.method == "GET" {
            return done(seen);
        }
        if shows(seen, NEW) {
            return done(seen);
        }
        fs::write(&path, NEW).unwrap();
        refusal(seen)
    })
    .await;
    let connector = (plug.build)(&stage.base, file.live());
    let key = IdempotencyKey::derive("okta", "1", "user-risk-changed", plug.name);
    let outcome = connector
        .perform(&Cleared::unguarded(Call {
            key,
            params: plug.params.clone(),
            attempt: 1,
            earlier: Receipt::default(),
        }))
        .await;
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    let methods: Vec<_> = stage.seen().into_iter().map(|seen| seen.method).collect();
    assert_eq!(methods, ["GET", "POST", "POST"]);
}

#[tokio::test]
async fn a_webhook_may_move_to_another_host_and_never_to_what_is_no_webhook() {
    for plug in plugs().into_iter().filter(|plug| plug.name.ends_with("webhook")) {
        let elsewhere = Stage::open(plug.done).await;
        let scene = Scene::new(&plug).await;
        *scene.valid.lock().unwrap() = "nobody";
        for wrong in ["http://example.com/secret_new_2", "secret_new_2", "https://user:secret_new_2@example.com/"] {
            scene.file.write(wrong);
            check_refused(&scene, scene.attempt("1").await, 1);
        }
        scene.file.write(&(plug.content)(&elsewhere.base, NEW));
        check_done(&scene, scene.attempt("1").await, 1);
        check_done(&scene, scene.attempt("2").await, 0);
        assert_eq!(elsewhere.seen().len(), 2, "{}", plug.name);
    }
}

#[tokio::test]
async fn attempts_that_are_refused_at_once_all_go_on_with_the_new_secret() {
    for plug in plugs() {
        let scene = Arc::new(Scene::new(&plug).await);
        *scene.valid.lock().unwrap() = NEW;
        scene.write(NEW);
        let attempts = ["1", "2", "3", "4"].map(|key| {
            let scene = Arc::clone(&scene);
            tokio::spawn(async move { scene.attempt(key).await.0 })
        });
        for attempt in attempts {
            let outcome = attempt.await.unwrap();
            assert!(matches!(outcome, Outcome::Done(_)), "{}: {outcome:?}", plug.name);
        }
    }
}
