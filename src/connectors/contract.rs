//! What every connector that speaks HTTP must do, whatever its service: one suite, into which each plugs with a [`Plug`].
//!
//! The heart of it: an outcome may say that nothing was changed only where that is certain.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::stage::{
    PATIENT, Reply, Seen, Stage, incident_row, jira_answer, jira_config, pagerduty_config, servicenow_config,
    slack_config, teams_config,
};
use super::*;
use crate::config::{JiraConfig, JiraFlavor, ServiceNowConfig};
use crate::model::ids::IdempotencyKey;
use crate::model::outcome::Reason;
use crate::okta::{Auth, OktaSettings};

/// Short enough to wait for its end.
const HURRIED: Duration = Duration::from_millis(500);

/// How long to wait for this reply: only what never ends is worth a short time-out.
fn patience(reply: &Reply) -> Duration {
    if matches!(reply, Reply::Silence | Reply::Drip(_)) { HURRIED } else { PATIENT }
}

/// A connector, and the `Debug` text of the service that it is built from.
type Built = (Arc<dyn Connector>, String);

/// How one connector plugs into the suite.
#[derive(Clone)]
struct Plug {
    name: &'static str,
    /// Builds it against a base URL.
    build: fn(&str, Duration) -> Built,
    params: Value,
    /// What the ledger knows before the first attempt.
    earlier: Receipt,
    /// The answer to a request that changes nothing, given what was changed so far; `None` when this is the one that does.
    read: fn(&Seen, &[Seen]) -> Option<Reply>,
    /// The answer of success to the request that changes something.
    done: fn(&Seen) -> Reply,
    /// An error in the service's own shape that holds this text.
    error: fn(&str) -> String,
    /// Whether the body of a success is read at all.
    reads_body: bool,
    /// Whether the service has a place for the idempotency key.
    takes_key: bool,
    /// Whether it is `Retry-After` that says when to come back; Okta has headers of its own.
    asks_by_retry_after: bool,
    /// Statuses that this service uses for something other than the table says.
    exempt: &'static [u16],
    /// What must never be seen.
    secrets: &'static [&'static str],
}

fn plugs() -> Vec<Plug> {
    let incident = Plug {
        name: "servicenow, basic",
        build: |base, timeout| {
            let config = ServiceNowConfig { username: Some("daemon".to_owned()), ..servicenow_config(base, timeout) };
            let service = ServiceNow::new(&config, Some("pass_word_1".into()), None, &Network::default()).unwrap();
            let debug = format!("{service:?}");
            (Arc::new(service), debug)
        },
        params: json!({"short_description": "User risk HIGH", "urgency": 1}),
        earlier: Receipt::default(),
        read: |seen, changed| {
            let rows: Vec<_> = changed.iter().map(incident_row).collect();
            (seen.method == "GET").then(|| Reply::json(200, &json!({"result": rows})))
        },
        done: |seen| Reply::json(201, &json!({"result": incident_row(seen)})),
        error: |text| json!({"error": {"message": text, "detail": null}, "status": "failure"}).to_string(),
        reads_body: true,
        takes_key: true,
        asks_by_retry_after: true,
        exempt: &[],
        secrets: &["pass_word_1", "ZGFlbW9uOnBhc3Nfd29yZF8x"],
    };
    let incident_oauth = Plug {
        name: "servicenow, oauth",
        build: |base, timeout| {
            let config = ServiceNowConfig { client_id: Some("client".to_owned()), ..servicenow_config(base, timeout) };
            let service = ServiceNow::new(&config, None, Some("client_secret_1".into()), &Network::default()).unwrap();
            let debug = format!("{service:?}");
            (Arc::new(service), debug)
        },
        read: |seen, changed| match seen.target.as_str() {
            "/oauth_token.do" => Some(Reply::json(200, &json!({"access_token": "token_1", "expires_in": 1799}))),
            _ => (plugs()[0].read)(seen, changed),
        },
        secrets: &["client_secret_1", "token_1"],
        ..incident.clone()
    };
    let note = Plug {
        name: "servicenow, note",
        build: |base, timeout| {
            let config = ServiceNowConfig { username: Some("daemon".to_owned()), ..servicenow_config(base, timeout) };
            let service = ServiceNow::new(&config, Some("pass_word_1".into()), None, &Network::default()).unwrap();
            let debug = format!("{service:?}");
            (Arc::new(servicenow::Update(Arc::new(service))), debug)
        },
        params: json!({"correlation": "okta-user-00u1", "work_notes": "Risk is LOW"}),
        read: |seen, changed| {
            let notes: Vec<_> = changed.iter().map(|seen| seen.json()["work_notes"].to_string()).collect();
            (seen.method == "GET").then(|| match seen.query("sysparm_display_value") {
                Some(_) => Reply::json(200, &json!({"result": {"work_notes": format!("opened {}", notes.join(" "))}})),
                None => Reply::json(200, &json!({"result": [open_incident("2")]})),
            })
        },
        done: |_| Reply::json(200, &json!({"result": open_incident("2")})),
        ..incident.clone()
    };
    let resolve = Plug {
        name: "servicenow, resolve",
        build: |base, timeout| {
            let config = ServiceNowConfig { username: Some("daemon".to_owned()), ..servicenow_config(base, timeout) };
            let service = ServiceNow::new(&config, Some("pass_word_1".into()), None, &Network::default()).unwrap();
            let debug = format!("{service:?}");
            (Arc::new(servicenow::Resolve(Arc::new(service))), debug)
        },
        params: json!({"correlation": "okta-user-00u1", "close_code": "Resolved", "close_notes": "Risk is LOW"}),
        read: |seen, changed| {
            let state = if changed.is_empty() { "2" } else { "6" };
            (seen.method == "GET").then(|| Reply::json(200, &json!({"result": [open_incident(state)]})))
        },
        done: |_| Reply::json(200, &json!({"result": open_incident("6")})),
        ..incident.clone()
    };
    let issue = Plug {
        name: "jira, cloud",
        build: |base, timeout| {
            let service = jira_at(jira_config(base, JiraFlavor::Cloud, timeout));
            let debug = format!("{service:?}");
            (service, debug)
        },
        params: json!({"project": "SEC", "issue_type": "Task", "summary": "User risk HIGH", "description": "x"}),
        read: |seen, changed| jira_answer(seen, changed, "new"),
        done: |_| Reply::json(201, &json!({"id": "10001", "key": "SEC-1", "self": "https://example.atlassian.net"})),
        error: |text| json!({"errorMessages": [text], "errors": {"summary": text}}).to_string(),
        secrets: &["jira_token_1", "ZGFlbW9uOmppcmFfdG9rZW5fMQ=="],
        ..incident.clone()
    };
    let issue_server = Plug {
        name: "jira, server",
        build: |base, timeout| {
            let service = jira_at(JiraConfig { username: None, ..jira_config(base, JiraFlavor::Server, timeout) });
            let debug = format!("{service:?}");
            (service, debug)
        },
        secrets: &["jira_token_1"],
        ..issue.clone()
    };
    let trigger = Plug {
        name: "pagerduty, trigger",
        build: |base, timeout| {
            let service = pagerduty_at(base, timeout);
            let debug = format!("{service:?}");
            (Arc::new(pagerduty::Trigger(service)), debug)
        },
        params: json!({"summary": "User risk HIGH", "severity": "critical"}),
        read: |_, _| None,
        done: |seen| {
            let taken =
                json!({"status": "success", "message": "Event processed", "dedup_key": seen.json()["dedup_key"]});
            Reply::json(202, &taken)
        },
        error: |text| json!({"status": "invalid event", "message": text, "errors": [text]}).to_string(),
        secrets: &["routing_key_1"],
        ..incident.clone()
    };
    let end = Plug {
        name: "pagerduty, resolve",
        build: |base, timeout| {
            let service = pagerduty_at(base, timeout);
            let debug = format!("{service:?}");
            (Arc::new(pagerduty::Resolve(service)), debug)
        },
        params: json!({"correlation": "okta-user-00u1"}),
        // The alert is known by the correlation alone.
        takes_key: false,
        ..trigger.clone()
    };
    let bot = Plug {
        name: "slack, bot",
        build: |base, timeout| {
            let config = slack_config(base, timeout);
            let service = Slack::new(&config, Some("xoxb_1".into()), None, &Network::default()).unwrap();
            let debug = format!("{service:?}");
            (Arc::new(service), debug)
        },
        params: json!({"channel": "#security", "text": "User risk HIGH"}),
        earlier: Receipt::default(),
        read: |_, _| None,
        done: |_| Reply::json(200, &json!({"ok": true, "channel": "C1", "ts": "1700000000.000100"})),
        error: |text| json!({"ok": false, "error": text}).to_string(),
        reads_body: true,
        takes_key: true,
        asks_by_retry_after: true,
        exempt: &[],
        secrets: &["xoxb_1"],
    };
    let edit = Plug {
        name: "slack, edit",
        build: |base, timeout| {
            let config = slack_config(base, timeout);
            let service = Slack::new(&config, Some("xoxb_1".into()), None, &Network::default()).unwrap();
            let debug = format!("{service:?}");
            (Arc::new(slack::Edit(Arc::new(service))), debug)
        },
        params: json!({"message": "tell", "text": "User risk HIGH: INC1"}),
        earlier: Receipt {
            id: Some("1700000000.000100".to_owned()),
            channel: Some("C1".to_owned()),
            ..Receipt::default()
        },
        // That of the message stays in its metadata.
        takes_key: false,
        ..bot.clone()
    };
    let webhook = Plug {
        name: "slack, webhook",
        build: |base, timeout| {
            let config = slack_config(base, timeout);
            let url = format!("{base}/services/hook_1");
            let service = Slack::new(&config, None, Some(url.into()), &Network::default()).unwrap();
            let debug = format!("{service:?}");
            (Arc::new(service), debug)
        },
        done: |_| Reply::text(200, "text/html", "ok"),
        error: str::to_owned,
        takes_key: false,
        secrets: &["hook_1"],
        ..bot.clone()
    };
    let teams = Plug {
        name: "teams, webhook",
        build: |base, timeout| {
            let config = teams_config(timeout);
            let url = format!("{base}/workflows/flow_1/invoke?api-version=1&sig=signature_1");
            let service = Teams::new(&config, url.into(), &Network::default()).unwrap();
            let debug = format!("{service:?}");
            (Arc::new(service), debug)
        },
        params: json!({"text": "User risk HIGH"}),
        done: |_| Reply::text(202, "text/plain", ""),
        error: |text| json!({"error": {"code": text, "message": text}}).to_string(),
        // 202 has no body, and what other ones hold is the workflow's own.
        reads_body: false,
        takes_key: false,
        secrets: &["flow_1", "signature_1"],
        ..bot.clone()
    };
    let add = Plug {
        name: "okta, add to group",
        build: |base, timeout| {
            let okta = okta(base, timeout);
            let debug = format!("{okta:?}");
            (Arc::new(okta_group::AddUser::new(okta)), debug)
        },
        params: json!({"group": "Quarantine", "user": USER}),
        earlier: Receipt::default(),
        read: |seen, changed| {
            let group = json!({"id": GROUP, "type": "OKTA_GROUP", "profile": {"name": "Quarantine"}});
            (seen.method == "GET").then(|| match seen.path() {
                "/api/v1/groups" => Reply::json(200, &json!([group])),
                path if path.ends_with("/groups") && changed.is_empty() => Reply::json(200, &json!([])),
                path if path.ends_with("/groups") => Reply::json(200, &json!([group])),
                _ => {
                    Reply::json(200, &json!({"id": USER, "status": "ACTIVE", "profile": {"login": "ada@example.com"}}))
                }
            })
        },
        done: |_| Reply::text(204, "application/json", ""),
        error: |text| json!({"errorCode": "E0000000", "errorSummary": text, "errorCauses": []}).to_string(),
        reads_body: false,
        takes_key: false,
        asks_by_retry_after: false,
        // The group may have been made anew under its name; it is looked up again.
        exempt: &[404, 410],
        secrets: &["okta_token_1"],
    };
    let remove = Plug {
        name: "okta, remove from group",
        build: |base, timeout| {
            let okta = okta(base, timeout);
            let debug = format!("{okta:?}");
            (Arc::new(okta_group::RemoveUser::new(okta)), debug)
        },
        read: |seen, changed| {
            let group = json!({"id": GROUP, "type": "OKTA_GROUP", "profile": {"name": "Quarantine"}});
            (seen.method == "GET").then(|| match seen.path() {
                "/api/v1/groups" => Reply::json(200, &json!([group])),
                path if path.ends_with("/groups") && changed.is_empty() => Reply::json(200, &json!([group])),
                path if path.ends_with("/groups") => Reply::json(200, &json!([])),
                _ => {
                    Reply::json(200, &json!({"id": USER, "status": "ACTIVE", "profile": {"login": "ada@example.com"}}))
                }
            })
        },
        ..add.clone()
    };
    let unassign = Plug {
        name: "okta, unassign app",
        build: |base, timeout| {
            let okta = okta(base, timeout);
            let debug = format!("{okta:?}");
            (Arc::new(okta_app::UnassignUser::new(okta)), debug)
        },
        params: json!({"app": "0oaaaaaaaaaaaaaaaaa1", "user": USER}),
        read: |seen, changed| {
            (seen.method == "GET").then(|| match seen.path() {
                path if path.starts_with("/api/v1/apps/") && changed.is_empty() => {
                    Reply::json(200, &json!({"id": USER, "scope": "USER", "status": "ACTIVE"}))
                }
                path if path.starts_with("/api/v1/apps/") => {
                    let error = json!({"errorCode": "E0000007", "errorSummary": "Not found: Resource not found"});
                    Reply::json(404, &error)
                }
                _ => {
                    Reply::json(200, &json!({"id": USER, "status": "ACTIVE", "profile": {"login": "ada@example.com"}}))
                }
            })
        },
        // Not assigned any more is what was wanted.
        exempt: &[404, 410],
        ..add.clone()
    };
    let assign = Plug {
        name: "okta, assign app",
        build: |base, timeout| {
            let okta = okta(base, timeout);
            let debug = format!("{okta:?}");
            (Arc::new(okta_assign::AssignUser::new(okta)), debug)
        },
        read: |seen, changed| {
            (seen.method == "GET").then(|| match seen.path() {
                path if path.contains("/users/") && path.starts_with("/api/v1/apps/") && changed.is_empty() => {
                    let error = json!({"errorCode": "E0000007", "errorSummary": "Not found: Resource not found"});
                    Reply::json(404, &error)
                }
                _ => Reply::json(200, &json!({"id": USER, "scope": "USER", "status": "ACTIVE"})),
            })
        },
        done: |_| Reply::json(200, &json!({"id": USER, "scope": "USER", "status": "ACTIVE"})),
        ..unassign.clone()
    };
    let mut plugs = vec![
        incident,
        incident_oauth,
        note,
        resolve,
        issue,
        issue_server,
        trigger,
        end,
        bot,
        edit,
        webhook,
        teams,
        add.clone(),
        remove,
        unassign,
        assign,
    ];
    plugs.extend(okta_plugs(&add));
    plugs.extend(http_plugs(&plugs[0]));
    plugs
}

/// A service that a playbook itself describes, with every way to sign in and to settle a doubt. `incident` is one that is
/// whole.
fn http_plugs(incident: &Plug) -> Vec<Plug> {
    let request = json!({"service": "edr", "method": "POST", "path": "/blocks", "json": {"user": "ada"}});
    let with = |more: Value| {
        let mut request = request.clone();
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        request
    };
    let token = Plug {
        name: "http, token",
        build: |base, timeout| {
            let services = http_at(base, timeout, "token = { env = 'T' }", "third_token_1");
            let debug = format!("{services:?}");
            (Arc::new(http_request::Request(services)), debug)
        },
        params: with(json!({"idempotency_header": "Idempotency-Key"})),
        read: |_, _| None,
        done: |_| Reply::json(201, &json!({"id": 7})),
        error: |text| json!({"error": {"message": text}}).to_string(),
        // The status is what counts; an answer that cannot be read is not kept.
        reads_body: false,
        takes_key: false,
        secrets: &["third_token_1"],
        ..incident.clone()
    };
    let looked_up = Plug {
        name: "http, looked up",
        build: |base, timeout| {
            let settings = "username = 'daemon'\npassword = { env = 'T' }";
            let services = http_at(base, timeout, settings, "third_password_1");
            let debug = format!("{services:?}");
            (Arc::new(http_request::Request(services)), debug)
        },
        params: with(json!({"lookup_path": "/blocks", "lookup_query": {"ref": "k"}, "found": "/items/0"})),
        read: |seen, changed| {
            let items: Vec<_> = changed.iter().map(Seen::json).collect();
            (seen.method == "GET").then(|| Reply::json(200, &json!({"items": items})))
        },
        secrets: &["third_password_1", "ZGFlbW9uOnRoaXJkX3Bhc3N3b3JkXzE="],
        ..token.clone()
    };
    let oauth = Plug {
        name: "http, oauth",
        build: |base, timeout| {
            let settings =
                format!("client_id = 'c'\nclient_secret = {{ env = 'T' }}\ntoken_url = '{base}/oauth/token'");
            let services = http_at(base, timeout, &settings, "third_secret_1");
            let debug = format!("{services:?}");
            (Arc::new(http_request::Request(services)), debug)
        },
        read: |seen, changed| match seen.target.as_str() {
            "/oauth/token" => Some(Reply::json(200, &json!({"access_token": "third_access_1", "expires_in": 1799}))),
            _ => {
                let items: Vec<_> = changed.iter().map(Seen::json).collect();
                (seen.method == "GET").then(|| Reply::json(200, &json!({"items": items})))
            }
        },
        secrets: &["third_secret_1", "third_access_1"],
        ..looked_up.clone()
    };
    let access = Plug {
        name: "http, change of access by a header of its own",
        build: |base, timeout| {
            let settings = "token = { env = 'T' }\ntoken_header = 'X-Api-Key'";
            let services = http_at(base, timeout, settings, "third_key_1");
            let debug = format!("{services:?}");
            (Arc::new(http_request::Change(services)), debug)
        },
        params: with(json!({"user": USER})),
        secrets: &["third_key_1"],
        ..token.clone()
    };
    vec![token, looked_up, oauth, access]
}

fn http_at(base: &str, timeout: Duration, settings: &str, secret: &str) -> Arc<HttpServices> {
    let text = format!(
        "base_url = '{base}/v1'\nallow_private = ['127.0.0.0/8']\ntimeout = '{}ms'\n{settings}",
        timeout.as_millis()
    );
    let sections = BTreeMap::from([("edr".to_owned(), toml::from_str(&text).unwrap())]);
    let secrets = BTreeMap::from([("edr".to_owned(), LiveSecret::from(secret))]);
    Arc::new(HttpServices::new(&sections, secrets, &Network::default()).unwrap())
}

/// The other actions of Okta, each in a state in which one request is missing. `add` is one that is whole.
fn okta_plugs(add: &Plug) -> Vec<Plug> {
    fn built<C: Connector + 'static>(make: fn(Arc<OktaClient>) -> C, base: &str, timeout: Duration) -> Built {
        let okta = okta(base, timeout);
        let debug = format!("{okta:?}");
        (Arc::new(make(okta)), debug)
    }
    let suspend = Plug {
        name: "okta, suspend user",
        build: |base, timeout| built(okta_user::ChangeUser::suspend, base, timeout),
        params: json!({"user": USER}),
        read: |seen, changed| {
            let status = if changed.is_empty() { "ACTIVE" } else { "SUSPENDED" };
            (seen.method == "GET").then(|| Reply::json(200, &json!({"id": USER, "status": status})))
        },
        done: |_| Reply::json(200, &json!({})),
        // Nothing was done to what is not there.
        exempt: &[404, 410],
        ..add.clone()
    };
    let risk = Plug {
        name: "okta, set risk",
        build: |base, timeout| built(okta_risk::SetRisk::new, base, timeout),
        params: json!({"user": USER, "level": "HIGH", "reason": "stolen laptop"}),
        read: |seen, changed| {
            let level = if changed.is_empty() { "NONE" } else { "HIGH" };
            (seen.method == "GET").then(|| Reply::json(200, &json!({"riskLevel": level})))
        },
        done: |_| Reply::json(201, &json!({"riskLevel": "HIGH"})),
        ..suspend.clone()
    };
    let device = Plug {
        name: "okta, suspend device",
        build: |base, timeout| built(okta_device::ChangeDevices::suspend, base, timeout),
        params: json!({"user": USER, "device": "guo1"}),
        read: |seen, changed| {
            let status = if changed.is_empty() { "ACTIVE" } else { "SUSPENDED" };
            (seen.method == "GET").then(|| Reply::json(200, &json!({"id": "guo1", "status": status})))
        },
        done: |_| Reply::text(204, "application/json", ""),
        ..suspend.clone()
    };
    let moved = Plug {
        name: "okta, move user",
        build: |base, timeout| built(okta_move::MoveUser::new, base, timeout),
        params: json!({"user": USER, "from": GROUP, "to": OTHER_GROUP}),
        read: |seen, changed| (seen.method == "GET").then(|| groups_answer(seen, changed.is_empty())),
        ..device.clone()
    };
    let from_all = Plug {
        name: "okta, remove from all groups",
        build: |base, timeout| built(okta_groups::RemoveFromAll::new, base, timeout),
        params: json!({"user": USER, "except": [OTHER_GROUP]}),
        ..moved.clone()
    };
    let restore = Plug {
        name: "okta, restore to groups",
        build: |base, timeout| built(okta_groups::Restore::new, base, timeout),
        params: json!({"user": USER, "groups": [GROUP]}),
        read: |seen, changed| (seen.method == "GET").then(|| groups_answer(seen, !changed.is_empty())),
        ..moved.clone()
    };
    let review = Plug {
        name: "okta, start review",
        build: build_review,
        params: json!({"user": USER, "kind": "security_access_review", "reviewer": OTHER_USER}),
        read: |seen, changed| {
            let status = (!changed.is_empty()).then_some("PENDING");
            (seen.method == "GET").then(|| reviews_answer(seen, status))
        },
        done: |_| Reply::json(202, &json!({"id": "sar1"})),
        takes_key: true,
        exempt: &[],
        ..device.clone()
    };
    let launch = Plug {
        name: "okta, launch campaign",
        params: json!({"user": USER, "kind": "campaign", "reviewer": OTHER_USER}),
        read: |seen, changed| {
            let status = if changed.is_empty() { "SCHEDULED" } else { "ACTIVE" };
            (seen.method == "GET").then(|| reviews_answer(seen, Some(status)))
        },
        done: |_| Reply::text(202, "application/json", ""),
        takes_key: false,
        // A campaign that is not scheduled any more was launched.
        exempt: &[409],
        ..review.clone()
    };
    vec![suspend, risk, device, moved, from_all, restore, review, launch]
}

fn build_review(base: &str, timeout: Duration) -> Built {
    let okta = okta(base, timeout);
    let debug = format!("{okta:?}");
    (Arc::new(okta_review::StartReview::new(okta, String::new())), debug)
}

/// Two users, and the review that is looked up, if it is there.
fn reviews_answer(seen: &Seen, status: Option<&str>) -> Reply {
    if let Some(user) = seen.path().strip_prefix("/api/v1/users/") {
        return Reply::json(200, &json!({"id": user, "status": "ACTIVE"}));
    }
    let filter = seen.query("filter").unwrap_or_default();
    let name: Value = serde_json::from_str(filter.trim_start_matches("name eq ")).unwrap_or_default();
    let data: Vec<_> = status.into_iter().map(|status| json!({"id": "sar1", "name": name, "status": status})).collect();
    Reply::json(200, &json!({"data": data})).with("Date", "Mon, 24 Aug 2026 10:15:02 GMT")
}

const OTHER_USER: &str = "00uaaaaaaaaaaaaaaaa2";

const OTHER_GROUP: &str = "00gaaaaaaaaaaaaaaaa2";

/// Two groups, of which the user is in the second and perhaps in the first. There are no rules.
fn groups_answer(seen: &Seen, in_first: bool) -> Reply {
    let group = |id: &str| json!({"id": id, "type": "OKTA_GROUP", "profile": {"name": id}});
    match seen.path() {
        "/api/v1/groups/rules" => Reply::json(200, &json!([])),
        path if path.starts_with("/api/v1/users/") && in_first => {
            Reply::json(200, &json!([group(GROUP), group(OTHER_GROUP)]))
        }
        path if path.starts_with("/api/v1/users/") => Reply::json(200, &json!([group(OTHER_GROUP)])),
        path => Reply::json(200, &group(path.rsplit('/').next().unwrap_or_default())),
    }
}

const USER: &str = "00uaaaaaaaaaaaaaaaa1";
const GROUP: &str = "00gaaaaaaaaaaaaaaaa1";

fn okta(base: &str, timeout: Duration) -> Arc<OktaClient> {
    let url: Url = base.parse().unwrap();
    let settings = OktaSettings { org_url: url.clone(), admin_url: url, timeout, network: Network::default() };
    Arc::new(OktaClient::new(&settings, Auth::ssws(&"okta_token_1".into()).unwrap()).unwrap())
}

fn jira_at(config: JiraConfig) -> Arc<Jira> {
    Arc::new(Jira::new(&config, "jira_token_1".into(), &Network::default()).unwrap())
}

fn pagerduty_at(base: &str, timeout: Duration) -> Arc<PagerDuty> {
    let config = pagerduty_config(base, timeout);
    Arc::new(PagerDuty::new(&config, "routing_key_1".into(), &Network::default()).unwrap())
}

fn open_incident(state: &str) -> Value {
    json!({"sys_id": "9d38", "number": "INC1", "state": state, "active": "true", "correlation_id": "okta-user-00u1"})
}

/// Where a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum At {
    Reading,
    Changing,
}

/// A service that works, except for one kind of request.
struct Scene {
    stage: Stage,
    changed: Arc<Mutex<Vec<Seen>>>,
    connector: Arc<dyn Connector>,
    call: Cleared<Call>,
    build: fn(&str, Duration) -> Built,
}

impl Scene {
    async fn sound(plug: &Plug) -> Self {
        Self::set(plug, PATIENT, |_, _| None).await
    }

    async fn faulty(plug: &Plug, timeout: Duration, at: At, reply: Reply) -> Self {
        Self::set(plug, timeout, move |place, _| (place == at).then(|| reply.clone())).await
    }

    async fn set(plug: &Plug, timeout: Duration, fault: impl Fn(At, &Seen) -> Option<Reply> + Send + 'static) -> Self {
        let changed = Arc::new(Mutex::new(Vec::new()));
        let (log, read, done) = (Arc::clone(&changed), plug.read, plug.done);
        let stage = Stage::open(move |seen| {
            let mut log = log.lock().unwrap();
            match read(seen, &log) {
                Some(reply) => fault(At::Reading, seen).unwrap_or(reply),
                None => {
                    log.push(seen.clone());
                    fault(At::Changing, seen).unwrap_or_else(|| done(seen))
                }
            }
        })
        .await;
        let (connector, _) = (plug.build)(&stage.base, timeout);
        Self { connector, stage, changed, call: call(plug), build: plug.build }
    }

    fn changes(&self) -> usize {
        self.changed.lock().unwrap().len()
    }

    /// Attempts as the dispatcher makes them: as long as there is progress, with what is remembered.
    async fn perform(&self) -> Outcome {
        self.perform_by(&*self.connector).await
    }

    async fn perform_fresh(&self) -> Outcome {
        self.perform_by(&*self.fresh()).await
    }

    async fn perform_by(&self, connector: &dyn Connector) -> Outcome {
        let mut earlier = self.call.earlier.clone();
        loop {
            let Call { key, params, attempt, .. } = &*self.call;
            let call = Call { key: key.clone(), params: params.clone(), attempt: *attempt, earlier: earlier.clone() };
            let outcome = connector.perform(&Cleared::unguarded(call)).await;
            match outcome {
                Outcome::Progress(receipt) => earlier = receipt,
                outcome => return outcome,
            }
        }
    }

    /// A connector that has heard nothing yet: one that keeps to a budget sends nothing for a while after a 429.
    fn fresh(&self) -> Arc<dyn Connector> {
        (self.build)(&self.stage.base, PATIENT).0
    }
}

fn call(plug: &Plug) -> Cleared<Call> {
    let key = IdempotencyKey::derive("okta", "b3c1e8d2", "user-risk-changed", plug.name);
    Cleared::unguarded(Call { key, params: plug.params.clone(), attempt: 1, earlier: plug.earlier.clone() })
}

fn has_reads(plug: &Plug) -> bool {
    let seen = Seen { method: "GET".to_owned(), target: "/".to_owned(), headers: Vec::new(), body: String::new() };
    (plug.read)(&seen, &[]).is_some()
}

fn is_done(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Done(_) | Outcome::AlreadyDone(_))
}

/// What the whole table of statuses means for the request that changes something.
fn fits_a_change(status: u16, outcome: &Outcome) -> bool {
    use Outcome as O;
    let reason = match outcome {
        O::RetryAfter(_, f) | O::Transient(f) | O::Permanent(f) | O::Unknown(f) => Some(f.reason),
        O::Done(_) | O::AlreadyDone(_) | O::Progress(_) => None,
    };
    match status {
        200..=299 => matches!(outcome, O::Done(_) | O::AlreadyDone(_) | O::Unknown(_)),
        300..=399 => matches!(outcome, O::Permanent(_)) && reason == Some(Reason::BadAnswer),
        401 => matches!(outcome, O::Transient(_)) && reason == Some(Reason::Unauthorized),
        403 => matches!(outcome, O::Permanent(_)) && reason == Some(Reason::Forbidden),
        404 | 410 => matches!(outcome, O::Permanent(_)) && reason == Some(Reason::NotFound),
        408 | 423 | 425 => matches!(outcome, O::Transient(_)),
        409 | 412 => matches!(outcome, O::Permanent(_)) && matches!(reason, Some(Reason::Conflict | Reason::Rejected)),
        429 => matches!(outcome, O::Transient(_) | O::RetryAfter(..)) && reason == Some(Reason::RateLimited),
        400..=499 => matches!(outcome, O::Permanent(_)) && reason == Some(Reason::Rejected),
        503 => matches!(outcome, O::Transient(_) | O::RetryAfter(..)) && reason == Some(Reason::ServiceError),
        _ => matches!(outcome, O::Unknown(_)),
    }
}

#[track_caller]
fn check_no_secret(plug: &Plug, text: &str) {
    for secret in plug.secrets {
        assert!(!text.contains(secret), "{}: a secret shows in {text}", plug.name);
    }
}

#[tokio::test]
async fn a_sound_service_is_changed_once_and_the_key_travels() {
    for plug in plugs() {
        let scene = Scene::sound(&plug).await;
        let outcome = scene.perform().await;
        assert!(matches!(outcome, Outcome::Done(_)), "{}: {outcome:?}", plug.name);
        let [change] = &scene.changed.lock().unwrap()[..] else { panic!("{}: not one change", plug.name) };
        assert_eq!(change.body.contains(scene.call.key.as_str()), plug.takes_key, "{}", plug.name);
    }
}

#[tokio::test]
async fn running_a_keyed_or_set_like_action_twice_has_one_effect() {
    for plug in plugs().into_iter().filter(has_reads) {
        let scene = Scene::sound(&plug).await;
        scene.perform().await;
        let again = scene.perform().await;
        assert!(matches!(again, Outcome::AlreadyDone(_)), "{}: {again:?}", plug.name);
        assert_eq!(scene.changes(), 1, "{}", plug.name);
    }
}

#[tokio::test]
async fn every_status_of_a_change_has_its_outcome() {
    for plug in plugs() {
        let statuses = (200..=599).chain([600, 999]).filter(|status| !plug.exempt.contains(status));
        let answered = Arc::new(Mutex::new(200));
        let (told, error) = (Arc::clone(&answered), (plug.error)("no_such_luck"));
        let scene = Scene::set(&plug, PATIENT, move |place, _| {
            let reply = Reply::text(*told.lock().unwrap(), "application/json", error.clone());
            (place == At::Changing).then(|| reply.with("Location", "/elsewhere"))
        })
        .await;
        let mut misfits = Vec::new();
        for status in statuses {
            // The look-up must not find what the attempt before may have left.
            scene.changed.lock().unwrap().clear();
            *answered.lock().unwrap() = status;
            let outcome = scene.perform_fresh().await;
            let is_slack_word = status < 300 && ["slack, bot", "slack, edit"].contains(&plug.name);
            if !is_slack_word && !fits_a_change(status, &outcome) {
                misfits.push((status, outcome));
            }
        }
        assert!(misfits.is_empty(), "{}: {misfits:#?}", plug.name);
        assert!(scene.stage.seen().iter().all(|seen| seen.target != "/elsewhere"), "{}: followed", plug.name);
    }
}

#[tokio::test]
async fn a_refused_look_up_changes_nothing_and_is_never_in_doubt() {
    for plug in plugs().into_iter().filter(has_reads) {
        let answered = Arc::new(Mutex::new(300));
        let (told, error) = (Arc::clone(&answered), (plug.error)("no_such_luck"));
        let scene = Scene::set(&plug, PATIENT, move |place, _| {
            (place == At::Reading).then(|| Reply::text(*told.lock().unwrap(), "application/json", error.clone()))
        })
        .await;
        for status in 300..=599 {
            *answered.lock().unwrap() = status;
            let outcome = scene.perform_fresh().await;
            let fits = matches!(outcome, Outcome::RetryAfter(..) | Outcome::Transient(_) | Outcome::Permanent(_));
            assert!(fits || plug.exempt.contains(&status), "{}: {status} gave {outcome:?}", plug.name);
            if status >= 500 {
                assert!(!matches!(outcome, Outcome::Permanent(_)), "{}: {status} gave {outcome:?}", plug.name);
            }
            let verdict = scene.fresh().verify(&scene.call).await;
            let fits = matches!(verdict, Verdict::TryLater(_) | Verdict::CannotTell);
            assert!(fits || plug.exempt.contains(&status), "{}: {status} gave {verdict:?}", plug.name);
        }
        assert_eq!(scene.changes(), 0, "{}", plug.name);
    }
}

#[tokio::test]
async fn a_pause_that_is_asked_for_is_passed_on_within_bounds() {
    for plug in plugs().into_iter().filter(|plug| plug.asks_by_retry_after) {
        for (asked, given) in [("17", 17), ("0", 1), ("999999999", 3600)] {
            let reply = Reply::text(429, "application/json", (plug.error)("ratelimited")).with("Retry-After", asked);
            let outcome = Scene::faulty(&plug, PATIENT, At::Changing, reply).await.perform().await;
            let Outcome::RetryAfter(pause, failure) = &outcome else { panic!("{}: {outcome:?}", plug.name) };
            assert_eq!((pause.as_secs(), failure.reason), (given, Reason::RateLimited), "{}", plug.name);
        }
        for senseless in ["", "-5", "soon", "1e3"] {
            let reply =
                Reply::text(429, "application/json", (plug.error)("ratelimited")).with("Retry-After", senseless);
            let outcome = Scene::faulty(&plug, PATIENT, At::Changing, reply).await.perform().await;
            assert!(matches!(outcome, Outcome::Transient(_)), "{}: {outcome:?}", plug.name);
        }
    }
}

#[tokio::test]
async fn a_change_whose_answer_never_comes_whole_is_unknown() {
    for plug in plugs() {
        for (reply, reasons) in [
            (Reply::Silence, &[Reason::Timeout][..]),
            (Reply::Close, &[Reason::ConnectionLost]),
            (Reply::Truncated(200), &[Reason::ConnectionLost]),
            (Reply::Endless(200), &[Reason::BadAnswer]),
            (Reply::Drip(200), &[Reason::Timeout]),
        ] {
            if !plug.reads_body && !matches!(reply, Reply::Silence | Reply::Close) {
                continue;
            }
            let scene = Scene::faulty(&plug, patience(&reply), At::Changing, reply.clone()).await;
            let outcome = scene.perform().await;
            let Outcome::Unknown(failure) = &outcome else { panic!("{}: {reply:?} gave {outcome:?}", plug.name) };
            assert!(reasons.contains(&failure.reason), "{}: {reply:?} gave {outcome:?}", plug.name);
            assert_eq!(scene.changes(), 1, "{}: sent again after {reply:?}", plug.name);
        }
    }
}

#[tokio::test]
async fn a_refusal_whose_body_breaks_off_is_still_a_refusal() {
    for plug in plugs().into_iter().filter(|plug| !plug.exempt.contains(&403)) {
        for reply in [Reply::Truncated(403), Reply::Endless(403), Reply::Drip(403)] {
            let outcome = Scene::faulty(&plug, patience(&reply), At::Changing, reply.clone()).await.perform().await;
            assert!(fits_a_change(403, &outcome), "{}: {reply:?} gave {outcome:?}", plug.name);
        }
    }
}

#[tokio::test]
async fn a_look_up_whose_answer_never_comes_whole_may_be_repeated() {
    for plug in plugs().into_iter().filter(has_reads) {
        for reply in [Reply::Silence, Reply::Close, Reply::Truncated(200), Reply::Endless(200), Reply::Drip(200)] {
            let scene = Scene::faulty(&plug, patience(&reply), At::Reading, reply.clone()).await;
            let outcome = scene.perform().await;
            assert!(matches!(outcome, Outcome::Transient(_)), "{}: {reply:?} gave {outcome:?}", plug.name);
            let verdict = scene.connector.verify(&scene.call).await;
            assert!(matches!(verdict, Verdict::TryLater(_)), "{}: {reply:?} gave {verdict:?}", plug.name);
            assert_eq!(scene.changes(), 0, "{}", plug.name);
        }
    }
}

#[tokio::test]
async fn a_success_that_cannot_be_read_is_unknown() {
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for plug in plugs().into_iter().filter(|plug| plug.reads_body) {
        for body in ["", "null", "[]", "{}", "<html>Sign in</html>", "{\"result\":null}", "\u{0}", nested.as_str()] {
            let reply = Reply::text(200, "application/json", body);
            let outcome = Scene::faulty(&plug, PATIENT, At::Changing, reply).await.perform().await;
            let start: String = body.chars().take(20).collect();
            assert!(matches!(outcome, Outcome::Unknown(_)), "{}: {start} gave {outcome:?}", plug.name);
        }
    }
}

#[tokio::test]
async fn a_service_that_is_not_there_is_tried_again() {
    for plug in plugs() {
        let (connector, _) = (plug.build)(&Stage::nobody().await, PATIENT);
        let outcome = connector.perform(&call(&plug)).await;
        let Outcome::Transient(failure) = &outcome else { panic!("{}: {outcome:?}", plug.name) };
        assert_eq!(failure.reason, Reason::Connect, "{}", plug.name);
    }
}

#[tokio::test]
async fn an_attempt_that_is_dropped_leaves_a_connector_that_works() {
    for plug in plugs() {
        let silent = Arc::new(Mutex::new(true));
        let told = Arc::clone(&silent);
        let scene = Scene::set(&plug, PATIENT, move |_, _| told.lock().unwrap().then_some(Reply::Silence)).await;
        let (connector, call) = (Arc::clone(&scene.connector), call(&plug));
        let attempt = tokio::spawn(async move { connector.perform(&call).await });
        scene.stage.requests(1).await;
        attempt.abort();
        assert!(attempt.await.unwrap_err().is_cancelled(), "{}", plug.name);

        *silent.lock().unwrap() = false;
        let outcome = scene.perform().await;
        assert!(is_done(&outcome), "{}: {outcome:?}", plug.name);
    }
}

#[tokio::test]
async fn reading_back_changes_nothing() {
    for plug in plugs() {
        let scene = Scene::sound(&plug).await;
        let before = scene.connector.verify(&scene.call).await;
        assert!(matches!(before, Verdict::NotDone | Verdict::CannotTell), "{}: {before:?}", plug.name);
        assert_eq!(scene.changes(), 0, "{}", plug.name);
        scene.perform().await;
        let after = scene.connector.verify(&scene.call).await;
        assert!(matches!(after, Verdict::Done(_) | Verdict::CannotTell), "{}: {after:?}", plug.name);
        assert_eq!(scene.changes(), 1, "{}", plug.name);
    }
}

#[tokio::test]
async fn no_secret_shows_even_if_the_service_repeats_it() {
    for plug in plugs() {
        let (_, debug) = (plug.build)("http://127.0.0.1:1", PATIENT);
        check_no_secret(&plug, &debug);
        for status in [200, 302, 400, 401, 403, 404, 429, 500, 503] {
            for secret in plug.secrets {
                let reply = Reply::text(status, "application/json", (plug.error)(secret)).with("Location", *secret);
                let scene = Scene::faulty(&plug, PATIENT, At::Changing, reply.clone()).await;
                check_no_secret(&plug, &format!("{:?}", scene.perform().await));
                let scene = Scene::faulty(&plug, PATIENT, At::Reading, reply).await;
                check_no_secret(&plug, &format!("{:?}", scene.perform().await));
                check_no_secret(&plug, &format!("{:?}", scene.fresh().verify(&scene.call).await));
            }
        }
        let (connector, _) = (plug.build)(&Stage::nobody().await, PATIENT);
        check_no_secret(&plug, &format!("{:?}", connector.perform(&call(&plug)).await));
    }
}

#[tokio::test]
async fn parameters_of_any_shape_are_refused_before_anything_is_sent() {
    for plug in plugs() {
        let scene = Scene::sound(&plug).await;
        for params in [json!(null), json!([]), json!("text"), json!({}), json!({"no_such_parameter": 1})] {
            let call = Cleared::unguarded(Call {
                key: scene.call.key.clone(),
                params: params.clone(),
                attempt: 1,
                earlier: Receipt::default(),
            });
            let outcome = scene.connector.perform(&call).await;
            let Outcome::Permanent(failure) = &outcome else { panic!("{}: {params} gave {outcome:?}", plug.name) };
            assert_eq!(failure.reason, Reason::BadParameters, "{}", plug.name);
        }
        assert_eq!(scene.stage.seen().len(), 0, "{}", plug.name);
    }
}
