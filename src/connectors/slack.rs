//! Messages in Slack: with a bot token over `chat.postMessage` and `chat.update`, or through an incoming webhook.
//!
//! Slack has no idempotency of its own, and reading a channel back needs rights that a bot for messages should not have.
//! The key travels in the message's `metadata`, for people and for tools that look for it. Where a message stands is on
//! record with its action: the next one of its thread, and the one that edits it, are told by the ledger.

mod blocks;
mod message;
mod mrkdwn;
mod probe;

use std::sync::Arc;

use async_trait::async_trait;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, RequestBuilder};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Map, Value};
use url::Url;

use self::message::{EditParams, PostParams};
use super::secret::Held;
use super::webhook::{Door, Webhook};
use super::wire::{self, Answer, Sends};
use super::{ActionKind, Call, Connector, Effect, FromEvent, Inverse, Service, SetupError, cut, service_url, shape};
use crate::config::SlackConfig;
use crate::config::secret::LiveSecret;
use crate::guard::Cleared;
use crate::http::{self, Network};
use crate::model::escape::Escape;
use crate::model::outcome::{Failure, Outcome, Reason, Receipt, Verdict};

pub(super) use self::message::check_written;

/// `slack.message.post`
pub static POST_MESSAGE: ActionKind = ActionKind {
    name: "slack.message.post",
    summary: "Posts a message to a channel, or through the webhook",
    service: Service::Slack,
    effect: Effect::Message,
    changes_access: false,
    resets_risk: false,
    rights: &[],
    from_event: &[("thread_of", FromEvent::UserDay)],
    check: |params| PostParams::parse(params).map(drop),
    schema: shape::<PostParams>,
    escape: escape_of,
    lane: PostParams::lane,
    inverse: |_| Inverse::impossible("it was sent; tell people what does not hold any more"),
};

/// `slack.message.update`
pub static UPDATE_MESSAGE: ActionKind = ActionKind {
    name: "slack.message.update",
    summary: "Edits the message of an earlier step",
    service: Service::Slack,
    // The same edit twice is one edit, and what a message says cannot be read back.
    effect: Effect::Folded,
    changes_access: false,
    resets_risk: false,
    rights: &[],
    from_event: &[],
    check: |params| EditParams::parse(params).map(drop),
    schema: shape::<EditParams>,
    escape: escape_of,
    lane: |_| None,
    inverse: |_| Inverse::impossible("it was sent; tell people what does not hold any more"),
};

/// Stands for an error of Slack's that is not one of its words.
const NO_WORD: &str = "an error that is not repeated here";

fn escape_of(parameter: &str) -> Escape {
    match parameter {
        "text" | "blocks" => Escape::SlackMrkdwn,
        _ => Escape::Line,
    }
}

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
    update_message: Url,
    auth_test: Url,
    token: Held,
}

/// `slack.message.update` of a workspace.
#[derive(Debug)]
pub struct Edit(pub Arc<Slack>);

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
                let (post_message, update_message) = (method("chat.postMessage")?, method("chat.update")?);
                let auth_test = method("auth.test")?;
                let http = http::client(section, &api, config.timeout, network)
                    .map_err(|source| SetupError::Client { section, source })?;
                Way::Bot(Bot {
                    http,
                    post_message,
                    update_message,
                    auth_test,
                    token: Held::new(Service::Slack, "token", token),
                })
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
    async fn post(&self, params: PostParams, call: &Call) -> Outcome {
        const WHAT: &str = "posting to Slack";
        let is_threaded = params.thread.is_some();
        // What the ledger found: where the last message of the thread stands.
        let found = call.earlier.thread.clone().filter(|_| is_threaded);
        let thread = params.answers().map(str::to_owned).or_else(|| found.clone());
        let message = match params.for_channel(thread.as_deref(), &call.key) {
            Ok(message) => message,
            Err(problem) => return Outcome::Permanent(Failure::new(Reason::BadParameters, problem)),
        };
        match self.change(&self.post_message, &message, WHAT).await {
            Ok(posted) => Outcome::Done(posted.receipt(is_threaded, found)),
            Err(Refused::With(word, _)) if found.is_some() && HEAD_IS_GONE.contains(&word.as_str()) => {
                Outcome::Progress(Receipt::note("the first message of its thread is gone; it opens a new thread"))
            }
            Err(refused) => refused.outcome(WHAT),
        }
    }

    async fn edit(&self, params: EditParams, call: &Call) -> Outcome {
        const WHAT: &str = "editing a message in Slack";
        let (Some(ts), Some(channel)) = (&call.earlier.id, &call.earlier.channel) else {
            let detail = format!("{WHAT}: where the message stands is not on record");
            return Outcome::Permanent(Failure::new(Reason::BadParameters, detail));
        };
        match self.change(&self.update_message, &params.edit(channel, ts), WHAT).await {
            Ok(edited) => Outcome::Done(edited.edited()),
            Err(refused) => refused.outcome(WHAT),
        }
    }

    /// Sends one message or edit.
    async fn change(&self, method: &Url, message: &Map<String, Value>, what: &str) -> Result<Posted, Refused> {
        let body = body(message, what).map_err(Refused::Otherwise)?;
        let request = || filled(self.http.post(method.clone()), &body);
        let answer = self.exchange(request, what, Sends::Changing).await.map_err(Refused::Otherwise)?;
        if !answer.status.is_success() {
            return Err(Refused::Otherwise(wire::refusal(&answer, what, "", Sends::Changing)));
        }
        let Ok(posted) = serde_json::from_slice::<Posted>(&answer.body) else {
            let detail = format!("{what}: answered {} with something that is not its JSON", answer.status.as_u16());
            return Err(Refused::Otherwise(Sends::Changing.lost(Reason::BadAnswer, detail)));
        };
        if posted.ok {
            return Ok(posted);
        }
        let error = posted.error.as_deref().unwrap_or_default();
        let error = if answer.repeats_credential { NO_WORD.to_owned() } else { word(error.as_bytes()) };
        Err(Refused::With(error, answer))
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

/// Why a message or an edit was not taken.
enum Refused {
    /// Slack's word, and the answer that it stands in.
    With(String, Answer),
    Otherwise(Outcome),
}

impl Refused {
    fn outcome(self, what: &str) -> Outcome {
        match self {
            Self::With(word, answer) => refused_with(what, &word, &answer),
            Self::Otherwise(outcome) => outcome,
        }
    }
}

/// Slack's words for a thread that cannot be answered, because its first message was deleted (Slack, `chat.postMessage`).
const HEAD_IS_GONE: [&str; 4] =
    ["thread_not_found", "message_not_found", "invalid_thread_ts", "cannot_reply_to_message"];

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
        match (PostParams::parse(&call.params), &self.way) {
            (Err(problem), _) => Outcome::Permanent(Failure::new(Reason::BadParameters, problem)),
            (Ok(params), Way::Bot(bot)) => bot.post(params, call).await,
            (Ok(params), Way::Webhook(webhook)) => post_to_webhook(webhook, &params.for_webhook()).await,
        }
    }

    async fn verify(&self, _: &Call) -> Verdict {
        Verdict::CannotTell
    }
}

#[async_trait]
impl Connector for Edit {
    async fn perform(&self, call: &Cleared<Call>) -> Outcome {
        match (EditParams::parse(&call.params), &self.0.way) {
            (Err(problem), _) => Outcome::Permanent(Failure::new(Reason::BadParameters, problem)),
            (Ok(params), Way::Bot(bot)) => bot.edit(params, call).await,
            (Ok(_), Way::Webhook(_)) => {
                let detail = "what was posted through a webhook cannot be edited; give [slack] a `token`";
                Outcome::Permanent(Failure::new(Reason::BadParameters, detail))
            }
        }
    }

    async fn verify(&self, _: &Call) -> Verdict {
        Verdict::CannotTell
    }
}

/// The answer of `chat.postMessage` and `chat.update`; a refusal is a 200 with `ok: false` (Slack Web API).
#[derive(Deserialize)]
struct Posted {
    ok: bool,
    error: Option<String>,
    channel: Option<String>,
    ts: Option<String>,
}

impl Posted {
    /// What is on record of a message. `answered` is the thread that the ledger found for it.
    fn receipt(self, is_threaded: bool, answered: Option<String>) -> Receipt {
        let (channel, ts) = (self.channel.map(short), self.ts.map(short));
        let where_to = match (&answered, is_threaded) {
            (Some(_), _) => ", in its thread",
            (None, true) => ", where it opens a thread",
            (None, false) => "",
        };
        Receipt {
            note: channel.as_ref().map(|channel| format!("posted to {channel}{where_to}")),
            thread: answered.or_else(|| ts.clone().filter(|_| is_threaded)),
            id: ts,
            channel,
            ..Receipt::default()
        }
    }

    fn edited(self) -> Receipt {
        let channel = self.channel.map(short);
        Receipt {
            note: channel.as_ref().map(|channel| format!("edited in {channel}")),
            id: self.ts.map(short),
            channel,
            ..Receipt::default()
        }
    }
}

fn short(text: String) -> String {
    cut(&Escape::Line.apply(&text), 64)
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

/// What one of Slack's error words means (Slack Web API, errors of `chat.postMessage` and `chat.update`).
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
        "is_archived" | "is_inactive" => Outcome::Permanent(failure(Reason::Conflict, "; the channel is archived")),
        "message_not_found" | "thread_not_found" => {
            Outcome::Permanent(failure(Reason::NotFound, "; the message was deleted"))
        }
        "cant_update_message" => {
            Outcome::Permanent(failure(Reason::Forbidden, "; only the app that has posted a message can edit it"))
        }
        "edit_window_closed" => Outcome::Permanent(failure(
            Reason::Conflict,
            "; the workspace lets messages be edited only for a while after they were posted",
        )),
        "ratelimited" | "rate_limited" => {
            let failure = failure(Reason::RateLimited, "");
            http::after_status(true, 429, http::retry_after(&answer.headers), failure)
        }
        "service_unavailable" | "request_timeout" | "team_added_to_org" => {
            Outcome::Transient(failure(Reason::ServiceError, ""))
        }
        // "Some aspect of the operation may have succeeded", say both.
        "fatal_error" | "internal_error" | "update_failed" | "" => Sends::Changing
            .lost(Reason::ServiceError, format!("{what}: Slack says `{error}`; it may have been done all the same")),
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
mod tests;
