//! Messages in Slack: with a bot token over `chat.postMessage`, or through an incoming webhook.
//!
//! Slack has no idempotency of its own, and reading a channel back needs rights that a bot for messages should not have.
//! The key travels in the message's `metadata`, for people and for tools that look for it.

mod probe;

use async_trait::async_trait;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, RequestBuilder};
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use url::Url;

use super::secret::Held;
use super::webhook::{Door, Webhook};
use super::wire::{self, Answer, Sends};
use super::{ActionKind, Call, Connector, Effect, Inverse, Service, SetupError, cut, required, service_url, shape};
use crate::config::SlackConfig;
use crate::config::secret::LiveSecret;
use crate::guard::Cleared;
use crate::http::{self, Network};
use crate::model::escape::Escape;
use crate::model::ids::IdempotencyKey;
use crate::model::outcome::{Failure, Outcome, Reason, Receipt, Verdict};

/// `slack.message.post`
pub static POST_MESSAGE: ActionKind = ActionKind {
    name: "slack.message.post",
    summary: "Posts a message to a channel, or through the webhook",
    service: Service::Slack,
    effect: Effect::Message,
    changes_access: false,
    resets_risk: false,
    rights: &[],
    from_event: &[],
    check: |params| MessageParams::parse(params).map(drop),
    schema: shape::<MessageParams>,
    escape: |parameter| match parameter {
        "text" | "blocks" => Escape::SlackMrkdwn,
        _ => Escape::Line,
    },
    lane: |_| None,
    inverse: |_| Inverse::impossible("it was sent; tell people what does not hold any more"),
};

/// The longest `text`, in characters (Slack, `chat.postMessage` and `chat.update`).
const MAX_TEXT: usize = 4000;
/// The most blocks of one message (Slack, Block Kit).
const MAX_BLOCKS: usize = 50;
/// Stands for an error of Slack's that is not one of its words.
const NO_WORD: &str = "an error that is not repeated here";
/// How the message's metadata is called.
const EVENT_TYPE: &str = "okta_responder_action";

/// One Slack workspace, or the one channel behind a webhook.
#[derive(Debug)]
pub struct Slack {
    way: Way,
}

#[derive(Debug)]
enum Way {
    Bot(Bot),
    Webhook(Webhook),
}

#[derive(Debug)]
struct Bot {
    http: Client,
    post_message: Url,
    auth_test: Url,
    token: Held,
}

impl Slack {
    /// Takes the `[slack]` section and its one secret. Nothing is sent.
    ///
    /// # Errors
    /// When there is not exactly one of `token` and `webhook_url`, or an address is not an https URL (http only to
    /// loopback).
    pub fn new(
        config: &SlackConfig,
        token: Option<LiveSecret>,
        webhook_url: Option<LiveSecret>,
        network: &Network,
    ) -> Result<Self, SetupError> {
        let section = Service::Slack.section();
        let invalid = |problem| SetupError::invalid(section, problem);
        let way = match (token, webhook_url) {
            (Some(token), None) => {
                let api = service_url(section, "api_url", &config.api_url)?;
                let method = |name| api.join(name).map_err(|_| invalid("`api_url` cannot be the start of an address"));
                let (post_message, auth_test) = (method("chat.postMessage")?, method("auth.test")?);
                let http = http::client(section, &api, config.timeout, network)
                    .map_err(|source| SetupError::Client { section, source })?;
                Way::Bot(Bot { http, post_message, auth_test, token: Held::new(Service::Slack, "token", token) })
            }
            (None, Some(url)) => {
                let read: fn(&str) -> _ = |text| service_url(Service::Slack.section(), "webhook_url", text);
                Way::Webhook(Webhook::new(Service::Slack, url, read, config.timeout, network)?)
            }
            _ => return Err(invalid("give either `token` or `webhook_url`")),
        };
        Ok(Self { way })
    }

    /// Whether messages go over the Web API, where each has to name its channel. A webhook has one channel of its own.
    pub fn needs_channel(&self) -> bool {
        matches!(self.way, Way::Bot(_))
    }
}

impl Bot {
    async fn post(&self, message: &Map<String, Value>) -> Outcome {
        const WHAT: &str = "posting to Slack";
        let body = match body(message, WHAT) {
            Ok(body) => body,
            Err(outcome) => return outcome,
        };
        let request = || filled(self.http.post(self.post_message.clone()), &body);
        let answer = match self.exchange(request, WHAT, Sends::Changing).await {
            Ok(answer) if answer.status.is_success() => answer,
            Ok(answer) => return wire::refusal(&answer, WHAT, "", Sends::Changing),
            Err(outcome) => return outcome,
        };
        let Ok(posted) = serde_json::from_slice::<Posted>(&answer.body) else {
            let detail = format!("{WHAT}: answered {} with something that is not its JSON", answer.status.as_u16());
            return Sends::Changing.lost(Reason::BadAnswer, detail);
        };
        if posted.ok {
            return Outcome::Done(posted.receipt());
        }
        let error = posted.error.as_deref().unwrap_or_default();
        let error = if answer.repeats_credential { NO_WORD.to_owned() } else { word(error.as_bytes()) };
        refused_with(WHAT, &error, &answer)
    }

    /// Sends one request with our token. One whose token is refused has posted nothing, so it is sent again, once, if the
    /// token was replaced.
    async fn exchange(
        &self,
        request: impl Fn() -> RequestBuilder,
        what: &str,
        sends: Sends,
    ) -> Result<Answer, Outcome> {
        let send = async |token: &SecretString| {
            let request = request().bearer_auth(token.expose_secret());
            wire::exchange(request, what, sends).await
        };
        let token = self.token.current();
        let answer = send(&token).await?;
        if !refuses_token(&answer) {
            return Ok(answer);
        }
        match self.token.replacement(&token) {
            Some(token) => send(&token).await,
            None => Ok(answer),
        }
    }
}

/// Posts through a webhook. An address that Slack refuses has posted nothing, so the message goes out again, once, if the
/// address was replaced.
async fn post_to_webhook(webhook: &Webhook, message: &Map<String, Value>) -> Outcome {
    const WHAT: &str = "posting to the Slack webhook";
    let body = match body(message, WHAT) {
        Ok(body) => body,
        Err(outcome) => return outcome,
    };
    let send = async |door: &Door| wire::exchange(filled(door.post(), &body), WHAT, Sends::Changing).await;
    let mut door = webhook.current();
    let mut sent = send(&door).await;
    if let Ok(answer) = &sent
        && matches!(answer.status.as_u16(), 401 | 403 | 404 | 410)
        && let Some(other) = webhook.replacement(&door)
    {
        door = other;
        sent = send(&door).await;
    }
    let answer = match sent {
        Ok(answer) => answer,
        Err(outcome) => return outcome,
    };
    if !answer.status.is_success() {
        let said = word(&answer.body);
        let said = if !said.is_empty() && door.holds(&said) { NO_WORD } else { &said };
        if answer.status.is_client_error() && WEBHOOK_IS_GONE.contains(&said) {
            let detail =
                format!("{WHAT}: Slack says `{said}`; make a new webhook and put it where `webhook_url` is read");
            return wire::unauthorized(Failure::new(Reason::Unauthorized, detail));
        }
        return wire::refusal(&answer, WHAT, said, Sends::Changing);
    }
    if answer.body.trim_ascii() == b"ok" {
        Outcome::Done(Receipt::note("posted through the webhook"))
    } else {
        Sends::Changing.lost(Reason::BadAnswer, format!("{WHAT}: answered 200, but not with `ok`"))
    }
}

/// What Slack says of an address that is no webhook, or none any more.
const WEBHOOK_IS_GONE: [&str; 2] = ["no_service", "invalid_token"];

fn body(message: &Map<String, Value>, what: &str) -> Result<Vec<u8>, Outcome> {
    serde_json::to_vec(message)
        .map_err(|_| Outcome::Permanent(Failure::new(Reason::BadParameters, format!("{what}: no JSON"))))
}

/// Slack warns about JSON without a charset.
fn filled(request: RequestBuilder, body: &[u8]) -> RequestBuilder {
    request.header(CONTENT_TYPE, "application/json; charset=utf-8").body(body.to_vec())
}

#[async_trait]
impl Connector for Slack {
    async fn perform(&self, call: &Cleared<Call>) -> Outcome {
        let message = MessageParams::parse(&call.params).and_then(|params| params.message(&call.key, &self.way));
        match (message, &self.way) {
            (Err(problem), _) => Outcome::Permanent(Failure::new(Reason::BadParameters, problem)),
            (Ok(message), Way::Bot(bot)) => bot.post(&message).await,
            (Ok(message), Way::Webhook(webhook)) => post_to_webhook(webhook, &message).await,
        }
    }

    async fn verify(&self, _: &Call) -> Verdict {
        Verdict::CannotTell
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct MessageParams {
    /// An id or `#name`; required with a bot token.
    channel: Option<String>,
    /// mrkdwn; what notifications show when there are blocks.
    text: String,
    /// The `ts` of the message to answer, which is the `id` of the step that posted it.
    thread_ts: Option<String>,
    blocks: Option<Vec<Map<String, Value>>>,
}

impl MessageParams {
    fn parse(params: &Value) -> Result<Self, String> {
        let params = Self::deserialize(params).map_err(|error| error.to_string())?;
        required("text", &params.text)?;
        if let Some(channel) = &params.channel {
            required("channel", channel)?;
        }
        if params.blocks.as_ref().is_some_and(|blocks| blocks.is_empty() || blocks.len() > MAX_BLOCKS) {
            return Err(format!("`blocks` holds none, or more than {MAX_BLOCKS}"));
        }
        let is_markdown = |block: &Map<String, Value>| block.get("type").is_some_and(|kind| kind == "markdown");
        if params.blocks.iter().flatten().any(is_markdown) {
            // Its links are `[text](url)`, which the escaping of mrkdwn leaves alive.
            return Err("`blocks` holds a `markdown` block, in which an event could place links; \
                        use `section` blocks with `mrkdwn`"
                .to_owned());
        }
        Ok(params)
    }

    fn message(self, key: &IdempotencyKey, way: &Way) -> Result<Map<String, Value>, String> {
        let mut message = Map::new();
        // A link in an event must not be fetched by Slack, nor become one that can be clicked: bare addresses and names are
        // not linked, `<url|text>` of the template still is (Slack, `chat.postMessage`, `parse` and `link_names`).
        message.insert("unfurl_links".to_owned(), json!(false));
        message.insert("unfurl_media".to_owned(), json!(false));
        message.insert("parse".to_owned(), json!("none"));
        message.insert("link_names".to_owned(), json!(false));
        message.insert("text".to_owned(), json!(cut_mrkdwn(&self.text)));
        if let Some(thread) = self.thread_ts.filter(|thread| !thread.trim().is_empty()) {
            message.insert("thread_ts".to_owned(), json!(thread));
        }
        if let Some(blocks) = self.blocks {
            let mut blocks = json!(blocks);
            link_nothing_bare(&mut blocks);
            message.insert("blocks".to_owned(), blocks);
        }
        if let Way::Bot(_) = way {
            let channel =
                self.channel.ok_or("`channel` is missing: with a bot token every message names its channel")?;
            message.insert("channel".to_owned(), json!(channel));
            let metadata = json!({"event_type": EVENT_TYPE, "event_payload": {"key": key.as_str()}});
            message.insert("metadata".to_owned(), metadata);
        }
        Ok(message)
    }
}

/// Tells every mrkdwn text of the blocks to link nothing but what its markup links (Slack, text object, `verbatim`).
fn link_nothing_bare(blocks: &mut Value) {
    match blocks {
        Value::Array(list) => list.iter_mut().for_each(link_nothing_bare),
        Value::Object(object) => {
            if object.get("type").is_some_and(|kind| kind == "mrkdwn") {
                object.insert("verbatim".to_owned(), json!(true));
            }
            object.values_mut().for_each(link_nothing_bare);
        }
        _ => {}
    }
}

/// Cuts a text to what Slack takes, without leaving half an entity such as `&am` at the end.
fn cut_mrkdwn(text: &str) -> String {
    let short = cut(text, MAX_TEXT);
    if short.len() == text.len() {
        return short;
    }
    let kept = short.strip_suffix('…').unwrap_or(&short);
    match kept.rfind('&') {
        Some(at) if !kept.get(at..).is_some_and(|entity| entity.contains(';')) && kept.len() - at < 6 => {
            format!("{}…", kept.get(..at).unwrap_or_default())
        }
        _ => short,
    }
}

/// The answer of `chat.postMessage`; a refusal is a 200 with `ok: false` (Slack Web API).
#[derive(Deserialize)]
struct Posted {
    ok: bool,
    error: Option<String>,
    channel: Option<String>,
    ts: Option<String>,
}

impl Posted {
    fn receipt(self) -> Receipt {
        let short = |text: String| cut(&Escape::Line.apply(&text), 64);
        Receipt {
            id: self.ts.map(short),
            note: self.channel.map(|channel| format!("posted to {}", short(channel))),
            ..Receipt::default()
        }
    }
}

/// Slack's words for a token that it does not take (Slack Web API, errors of `chat.postMessage` and `auth.test`).
const TOKEN_IS_REFUSED: [&str; 5] =
    ["not_authed", "invalid_auth", "account_inactive", "token_revoked", "token_expired"];

/// Whether an answer of the Web API refuses the token, so that nothing else was looked at.
fn refuses_token(answer: &Answer) -> bool {
    #[derive(Deserialize)]
    struct Refused {
        ok: bool,
        error: String,
    }
    answer.status.as_u16() == 401
        || answer.status.is_success()
            && serde_json::from_slice::<Refused>(&answer.body)
                .is_ok_and(|answer| !answer.ok && TOKEN_IS_REFUSED.contains(&answer.error.as_str()))
}

/// What one of Slack's error words means (Slack Web API, errors of `chat.postMessage`).
fn refused_with(what: &str, error: &str, answer: &Answer) -> Outcome {
    let failure = |reason, remedy: &str| Failure::new(reason, format!("{what}: Slack says `{error}`{remedy}"));
    match error {
        error if TOKEN_IS_REFUSED.contains(&error) => {
            wire::unauthorized(failure(Reason::Unauthorized, "; check `slack.token`"))
        }
        "missing_scope" => Outcome::Permanent(failure(Reason::Forbidden, "; give the bot the scope chat:write")),
        "not_in_channel" => Outcome::Permanent(failure(Reason::Forbidden, "; invite the bot to the channel")),
        "access_denied"
        | "no_permission"
        | "ekm_access_denied"
        | "team_access_not_granted"
        | "not_allowed_token_type"
        | "org_login_required" => Outcome::Permanent(failure(Reason::Forbidden, "")),
        word if word.starts_with("restricted_action") => Outcome::Permanent(failure(Reason::Forbidden, "")),
        "channel_not_found" => {
            Outcome::Permanent(failure(Reason::NotFound, "; check `channel`, and invite the bot if it is private"))
        }
        "is_archived" => Outcome::Permanent(failure(Reason::Conflict, "; the channel is archived")),
        "ratelimited" | "rate_limited" => {
            let failure = failure(Reason::RateLimited, "");
            http::after_status(true, 429, http::retry_after(&answer.headers), failure)
        }
        "service_unavailable" | "request_timeout" | "team_added_to_org" => {
            Outcome::Transient(failure(Reason::ServiceError, ""))
        }
        // "Some aspect of the operation may have succeeded", say both.
        "fatal_error" | "internal_error" | "" => Sends::Changing
            .lost(Reason::ServiceError, format!("{what}: Slack says `{error}`; the message may have been posted")),
        _ => Outcome::Permanent(failure(Reason::Rejected, "")),
    }
}

/// Slack's errors are one word of letters, digits and underscores; anything else is not quoted.
fn word(text: &[u8]) -> String {
    let text = text.trim_ascii();
    let is_word = text.len() <= 64 && text.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    if is_word { String::from_utf8_lossy(text).into_owned() } else { NO_WORD.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::stage::{Reply, Stage};
    use super::*;

    fn config(base: &str) -> SlackConfig {
        SlackConfig {
            token: None,
            webhook_url: None,
            client_certificate: None,
            client_key: None,
            api_url: format!("{base}/api"),
            timeout: Duration::from_secs(20),
        }
    }

    fn call(params: Value) -> Cleared<Call> {
        Cleared::unguarded(Call {
            key: IdempotencyKey::from_stored("k".repeat(40)),
            params,
            attempt: 1,
            earlier: Receipt::default(),
        })
    }

    async fn outcome_of(answer: Value) -> Outcome {
        let stage = Stage::open(move |_| Reply::json(200, &answer)).await;
        let slack = Slack::new(&config(&stage.base), Some("xoxb-1".into()), None, &Network::default()).unwrap();
        slack.perform(&call(json!({"channel": "C1", "text": "hello"}))).await
    }

    #[tokio::test]
    async fn a_bot_names_channel_and_key_and_lets_nothing_unfurl() {
        let stage = Stage::open(|_| Reply::json(200, &json!({"ok": true, "channel": "C1", "ts": "17.01"}))).await;
        let slack = Slack::new(&config(&stage.base), Some("xoxb-1".into()), None, &Network::default()).unwrap();
        let outcome = slack.perform(&call(json!({"channel": "#security", "text": "hello", "thread_ts": "16.5"}))).await;
        let Outcome::Done(receipt) = &outcome else { panic!("{outcome:?}") };
        assert_eq!((receipt.id.as_deref(), receipt.note.as_deref()), (Some("17.01"), Some("posted to C1")));
        let seen = &stage.seen()[0];
        assert_eq!(seen.path(), "/api/chat.postMessage");
        assert_eq!(seen.header("authorization"), Some("Bearer xoxb-1"));
        assert_eq!(seen.header("content-type"), Some("application/json; charset=utf-8"));
        let key = "k".repeat(40);
        assert_eq!(
            seen.json(),
            json!({
                "channel": "#security", "text": "hello", "thread_ts": "16.5", "unfurl_links": false, "unfurl_media": false,
                "parse": "none", "link_names": false,
                "metadata": {"event_type": "okta_responder_action", "event_payload": {"key": key}},
            })
        );
    }

    #[tokio::test]
    async fn a_webhook_needs_no_channel_and_sends_none() {
        let stage = Stage::open(|_| Reply::text(200, "text/html", "ok")).await;
        let url = format!("{}/services/T/B/X", stage.base);
        let slack = Slack::new(&config(&stage.base), None, Some(url.into()), &Network::default()).unwrap();
        assert!(!slack.needs_channel());
        let outcome = slack.perform(&call(json!({"channel": "#elsewhere", "text": "hello"}))).await;
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
        assert_eq!(
            stage.seen()[0].json(),
            json!({
                "text": "hello", "unfurl_links": false, "unfurl_media": false, "parse": "none", "link_names": false,
            })
        );
    }

    #[tokio::test]
    async fn a_bot_without_a_channel_sends_nothing() {
        let stage = Stage::open(|_| Reply::Close).await;
        let slack = Slack::new(&config(&stage.base), Some("xoxb-1".into()), None, &Network::default()).unwrap();
        let outcome = slack.perform(&call(json!({"text": "hello"}))).await;
        assert!(matches!(&outcome, Outcome::Permanent(failure) if failure.reason == Reason::BadParameters));
        assert_eq!(stage.seen().len(), 0);
    }

    #[tokio::test]
    async fn every_kind_of_error_word_has_its_outcome() {
        for (word, expected) in [
            ("token_revoked", Reason::Unauthorized),
            ("ratelimited", Reason::RateLimited),
            ("service_unavailable", Reason::ServiceError),
        ] {
            let outcome = outcome_of(json!({"ok": false, "error": word})).await;
            assert!(matches!(&outcome, Outcome::Transient(f) if f.reason == expected), "{word}: {outcome:?}");
        }
        for (word, expected) in [
            ("missing_scope", Reason::Forbidden),
            ("restricted_action_read_only_channel", Reason::Forbidden),
            ("channel_not_found", Reason::NotFound),
            ("is_archived", Reason::Conflict),
            ("invalid_blocks", Reason::Rejected),
            ("a word of no kind\n", Reason::Rejected),
        ] {
            let outcome = outcome_of(json!({"ok": false, "error": word})).await;
            assert!(matches!(&outcome, Outcome::Permanent(f) if f.reason == expected), "{word}: {outcome:?}");
        }
        for word in ["fatal_error", "internal_error"] {
            let outcome = outcome_of(json!({"ok": false, "error": word})).await;
            assert!(matches!(outcome, Outcome::Unknown(_)), "{word}: {outcome:?}");
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters_and_entities() {
        assert_eq!(cut_mrkdwn("short &amp; sweet"), "short &amp; sweet");
        let cut = cut_mrkdwn(&"é".repeat(5000));
        assert_eq!(cut, format!("{}…", "é".repeat(3999)));
        assert_eq!(
            cut_mrkdwn(&format!("{}&amp;{}", "x".repeat(3996), "y".repeat(50))),
            format!("{}…", "x".repeat(3996))
        );
        let whole = format!("{}&amp;{}", "x".repeat(3990), "y".repeat(50));
        assert_eq!(cut_mrkdwn(&whole), format!("{}&amp;yyyy…", "x".repeat(3990)));
    }

    #[test]
    fn parameters_are_checked() {
        let check = POST_MESSAGE.check;
        assert!(check(&json!({"text": "{{ user.login }}", "blocks": [{"type": "divider"}]})).is_ok());
        assert!(check(&json!({"text": ""})).is_err());
        assert!(check(&json!({"text": "x", "blocks": []})).is_err());
        assert!(check(&json!({"text": "x", "blocks": "x"})).is_err());
        let markdown = json!([{"type": "markdown", "text": "{{ event.displayMessage }}"}]);
        assert!(check(&json!({"text": "x", "blocks": markdown})).unwrap_err().contains("`markdown` block"));
        assert!(check(&json!({"text": "x", "chanel": "x"})).unwrap_err().contains("unknown field `chanel`"));
    }

    #[test]
    fn no_text_of_a_block_links_what_is_not_marked_as_a_link() {
        let params = json!({"text": "x", "blocks": [
            {"type": "section", "text": {"type": "mrkdwn", "text": "http://evil.example @channel", "verbatim": false},
             "fields": [{"type": "mrkdwn", "text": "y"}, {"type": "plain_text", "text": "z"}]},
            {"type": "context", "elements": [{"type": "mrkdwn", "text": "w"}]},
        ]});
        let slack = Slack::new(
            &config("https://slack.com"),
            None,
            Some("https://hooks.slack.com/services/T/B/X".into()),
            &Network::default(),
        );
        let Slack { way } = slack.unwrap();
        let key = IdempotencyKey::from_stored("k".repeat(40));
        let message = MessageParams::parse(&params).unwrap().message(&key, &way).unwrap();
        assert_eq!(
            message["blocks"],
            json!([
                {"type": "section",
                 "text": {"type": "mrkdwn", "text": "http://evil.example @channel", "verbatim": true},
                 "fields": [{"type": "mrkdwn", "text": "y", "verbatim": true}, {"type": "plain_text", "text": "z"}]},
                {"type": "context", "elements": [{"type": "mrkdwn", "text": "w", "verbatim": true}]},
            ])
        );
    }

    #[test]
    fn exactly_one_of_token_and_webhook_is_taken() {
        let config = config("https://slack.com");
        assert!(Slack::new(&config, None, None, &Network::default()).is_err());
        assert!(
            Slack::new(
                &config,
                Some("t".into()),
                Some("https://hooks.slack.com/services/T/B/X".into()),
                &Network::default()
            )
            .is_err()
        );
        let error =
            Slack::new(&config, None, Some("http://hooks.slack.com/services/T/B/X".into()), &Network::default())
                .unwrap_err();
        assert!(!format!("{error} {error:?}").contains("T/B/X"));
    }
}
