//! The parameters of a message and of its edit, and what is sent for them.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::blocks::{self, Block};
use super::mrkdwn;
use crate::connectors::required;
use crate::model::ids::IdempotencyKey;

/// The longest text of a message, in characters (Slack, `chat.postMessage`).
const MAX_TEXT: usize = 40_000;
/// The longest text of an edit, in bytes (Slack, `chat.update`, counts 4,000 after escaping).
const MAX_EDITED_TEXT: usize = 4000;
/// How the message's metadata is called.
const EVENT_TYPE: &str = "okta_responder_action";

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PostParams {
    /// An id or `#name`; required with a bot token.
    channel: Option<String>,
    /// mrkdwn; what notifications show when there are blocks.
    text: String,
    /// Block Kit: up to 50 of section, header, context, divider, actions and image.
    #[schemars(length(min = 1, max = 50))]
    blocks: Option<Vec<Block>>,
    /// Which messages stand in one thread: the first one opens it.
    pub(super) thread: Option<Thread>,
    /// What the thread is about, in place of the event's user and the UTC day of the event.
    thread_of: Option<String>,
    /// The `ts` of the message to answer, which is the `id` of the step that posted it.
    thread_ts: Option<String>,
    /// Shows an answer in the channel as well.
    reply_broadcast: Option<bool>,
}

/// `thread = "user_day"`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Thread {
    /// What is told about one user in one channel on one day.
    UserDay,
}

impl PostParams {
    pub(super) fn parse(params: &Value) -> Result<Self, String> {
        let params = Self::deserialize(params).map_err(|error| error.to_string())?;
        required("text", &params.text)?;
        if let Some(channel) = &params.channel {
            required("channel", channel)?;
        }
        params.blocks.as_deref().map_or(Ok(()), blocks::check)?;
        match (&params.thread, &params.thread_of, &params.thread_ts) {
            (Some(_), _, Some(_)) => return Err("`thread` and `thread_ts` are both there; keep one of them".to_owned()),
            (None, Some(_), _) => return Err("`thread_of` says nothing without `thread`".to_owned()),
            (None, None, None) if params.reply_broadcast.is_some() => {
                return Err("`reply_broadcast` says nothing without `thread` or `thread_ts`".to_owned());
            }
            _ => {}
        }
        Ok(params)
    }

    /// The messages that share it stand in one thread, and are sent one after the other.
    pub(super) fn lane(params: &Value) -> Option<String> {
        let text = |name: &str| params.get(name)?.as_str().map(str::trim).filter(|text| !text.is_empty());
        text("thread")?;
        Some(format!("{LANES}{}/{}", text("channel")?, text("thread_of")?))
    }

    /// The thread that it answers by its own word.
    pub(super) fn answers(&self) -> Option<&str> {
        self.thread_ts.as_deref().map(str::trim).filter(|thread| !thread.is_empty())
    }

    /// The message for a webhook, which has one channel of its own.
    pub(super) fn for_webhook(self) -> Map<String, Value> {
        let thread = self.answers().map(str::to_owned);
        self.message(thread.as_deref())
    }

    /// The message for the Web API, in a thread or outside of one.
    pub(super) fn for_channel(self, thread: Option<&str>, key: &IdempotencyKey) -> Result<Map<String, Value>, String> {
        let channel = self.channel.clone();
        let channel = channel.ok_or("`channel` is missing: with a bot token every message names its channel")?;
        let mut message = self.message(thread);
        message.insert("channel".to_owned(), json!(channel));
        let metadata = json!({"event_type": EVENT_TYPE, "event_payload": {"key": key.as_str()}});
        message.insert("metadata".to_owned(), metadata);
        Ok(message)
    }

    fn message(self, thread: Option<&str>) -> Map<String, Value> {
        let mut message = linking_nothing();
        // Nor is a link in an event fetched by Slack.
        message.insert("unfurl_links".to_owned(), json!(false));
        message.insert("unfurl_media".to_owned(), json!(false));
        message.insert("text".to_owned(), json!(mrkdwn::cut(&self.text, MAX_TEXT)));
        if let Some(thread) = thread {
            message.insert("thread_ts".to_owned(), json!(thread));
            if self.reply_broadcast == Some(true) {
                message.insert("reply_broadcast".to_owned(), json!(true));
            }
        }
        let blocks = self.blocks.map(blocks::fitted).filter(|blocks| !blocks.is_empty());
        if let Some(blocks) = blocks {
            message.insert("blocks".to_owned(), Value::Array(blocks));
        }
        message
    }
}

/// How the lanes of threads begin. Unlike a change of access, a message waits only for one that is on its way: see
/// [`claim_ready`](crate::store::Store::claim_ready).
const LANES: &str = "slack.message/";

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EditParams {
    /// The step whose message is edited: a `slack.message.post` of the same playbook. It is waited for, and needed.
    message: String,
    /// mrkdwn; what notifications show when there are blocks. At most 4,000 bytes of it are shown.
    text: String,
    /// In place of those that the message has; without them it has none any more.
    #[schemars(length(min = 1, max = 50))]
    blocks: Option<Vec<Block>>,
}

impl EditParams {
    pub(super) fn parse(params: &Value) -> Result<Self, String> {
        let params = Self::deserialize(params).map_err(|error| error.to_string())?;
        required("message", &params.message)?;
        required("text", &params.text)?;
        params.blocks.as_deref().map_or(Ok(()), blocks::check)?;
        Ok(params)
    }

    /// The edit of a message. Blocks that are not given would stay as they were, so there are always some or none (Slack,
    /// `chat.update`).
    pub(super) fn edit(self, channel: &str, ts: &str) -> Map<String, Value> {
        let mut edit = linking_nothing();
        edit.insert("channel".to_owned(), json!(channel));
        edit.insert("ts".to_owned(), json!(ts));
        edit.insert("text".to_owned(), json!(mrkdwn::cut_bytes(&self.text, MAX_EDITED_TEXT)));
        edit.insert("blocks".to_owned(), Value::Array(self.blocks.map(blocks::fitted).unwrap_or_default()));
        edit
    }
}

/// Finds what Slack would refuse in parameters as they are written; see [`blocks::check_written`]. The error is a sentence.
pub(in crate::connectors) fn check_written(params: &Value) -> Result<(), String> {
    let blocks = params.get("blocks").and_then(|blocks| Vec::<Block>::deserialize(blocks).ok());
    blocks.as_deref().map_or(Ok(()), blocks::check_written)
}

/// A link in an event must not become one that can be clicked: bare addresses and names are not linked, `<url|text>` of
/// the template still is (Slack, `parse` and `link_names`; `chat.update` has other defaults than `chat.postMessage`).
fn linking_nothing() -> Map<String, Value> {
    Map::from_iter([("parse".to_owned(), json!("none")), ("link_names".to_owned(), json!(false))])
}
