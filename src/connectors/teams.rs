//! Messages in Microsoft Teams, through the webhook of a workflow ("When a Teams webhook request is received").
//!
//! A message is an Adaptive Card. Its text stands in `TextRun`s, of which the schema says that they take no Markdown
//! (Adaptive Cards schema, TextRun): nothing in them can become a link, a mention or markup, whoever chose the words. What a
//! person may click is a button of its own, whose address has to be http or https. A mention would need an entry in
//! the card's `msteams.entities`, and no card of ours has that member.
//!
//! The answer 202 says that the workflow will run, not that the message is in the channel. There is no place for a key
//! and nothing to look up.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::probe::Finding;
use super::webhook::{Door, Webhook};
use super::wire::{self, Answer, Sends};
use super::{ActionKind, Call, Connector, Effect, Inverse, Service, SetupError, cut, required, shape};
use crate::config::TeamsConfig;
use crate::config::secret::LiveSecret;
use crate::guard::Cleared;
use crate::http::{self, Network};
use crate::model::escape::Escape;
use crate::model::outcome::{Failure, Outcome, Reason, Receipt, Verdict};

/// `teams.message.post`
pub static POST_MESSAGE: ActionKind = ActionKind {
    name: "teams.message.post",
    summary: "Posts a message to the channel or chat of a workflow's webhook",
    service: Service::Teams,
    effect: Effect::Message,
    changes_access: false,
    resets_risk: false,
    rights: &[],
    from_event: &[],
    check: |params| MessageParams::parse(params).map(drop),
    schema: shape::<MessageParams>,
    // A text run shows its text as it is, so one line is all that a value has to be.
    escape: |_| Escape::Line,
    lane: |_| None,
    inverse: |_| Inverse::impossible("it was sent; tell people what does not hold any more"),
};

/// The most bytes of a message. Teams refuses cards above some 28 KB (Teams connector, known issues and limitations) and
/// does not say how it counts, so that this stays well below.
const MAX_BYTES: usize = 20_000;
/// The bytes of the card without its lines and buttons, and of the line that says that it is cut.
const FRAME: usize = 700;
/// The bytes of a line's block besides its text.
const BLOCK: usize = 120;
/// The longest title, in characters.
const MAX_TITLE: usize = 200;
/// The most buttons; Teams shows six.
const MAX_LINKS: usize = 6;
/// The longest words on a button, in characters.
const MAX_LINK_TITLE: usize = 60;
/// The longest address behind a button, in bytes.
const MAX_LINK: usize = 1_000;
/// The last line of a text that was cut.
const CUT: &str = "… (the text was longer; this is all that Teams takes)";

/// One webhook, which posts to the channel or chat that its workflow was made for.
#[derive(Debug)]
pub struct Teams {
    /// The whole URL is the secret: it holds the signature that lets us in.
    webhook: Webhook,
}

impl Teams {
    /// Takes the `[teams]` section and its secret. Nothing is sent.
    ///
    /// # Errors
    /// When the secret is not an https URL (http only to loopback).
    pub fn new(config: &TeamsConfig, webhook_url: LiveSecret, network: &Network) -> Result<Self, SetupError> {
        let read: fn(&str) -> _ = |text| {
            webhook(text)
                .map_err(|problem| SetupError::invalid(Service::Teams.section(), format!("`webhook_url` {problem}")))
        };
        let webhook = Webhook::new(Service::Teams, webhook_url, read, config.timeout, network)?;
        Ok(Self { webhook })
    }
}

impl Teams {
    /// Whether the webhook's host is there. The webhook itself is not called: that would post. Changes nothing.
    pub async fn probe(&self) -> Vec<Finding> {
        vec![self.webhook.probe("Teams webhook").await]
    }
}

/// Reads the address of a webhook. Its query belongs to it: it holds the signature.
fn webhook(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_| "is not a URL; copy it from the workflow's trigger")?;
    if !(url.scheme() == "https" || url.scheme() == "http" && http::is_loopback(&url)) {
        return Err("has to begin with https:// (http:// only to loopback)");
    }
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err("must hold no user, password or fragment");
    }
    Ok(url)
}

#[async_trait]
impl Connector for Teams {
    async fn perform(&self, call: &Cleared<Call>) -> Outcome {
        const WHAT: &str = "posting to the Teams webhook";
        let message = match MessageParams::parse(&call.params).and_then(MessageParams::message) {
            Ok(message) => message,
            Err(problem) => return Outcome::Permanent(Failure::new(Reason::BadParameters, problem)),
        };
        let send = async |door: &Door| wire::exchange(door.post().json(&message.card), WHAT, Sends::Changing).await;
        let door = self.webhook.current();
        let mut sent = send(&door).await;
        // A wrong signature, or a workflow that is not there any more: nothing has run, so the message goes out again, once, if
        // the address was replaced.
        if let Ok(answer) = &sent
            && matches!(answer.status.as_u16(), 401 | 403 | 404 | 410)
            && let Some(other) = self.webhook.replacement(&door)
        {
            sent = send(&other).await;
        }
        match sent {
            Ok(answer) if answer.status.is_success() => taken(&answer, WHAT, &message),
            // Nothing of the body is quoted: it can repeat the address.
            Ok(answer) => wire::refusal(&answer, WHAT, "", Sends::Changing),
            Err(outcome) => outcome,
        }
    }

    async fn verify(&self, _: &Call) -> Verdict {
        Verdict::CannotTell
    }
}

/// What a success means: 202 is the workflow's, other ones come from workflows that answer by themselves. The connectors
/// that Microsoft has retired said 200 even when Teams refused the message, with the refusal in words.
fn taken(answer: &Answer, what: &str, message: &Message) -> Outcome {
    if answer.status.as_u16() != 202 {
        let said = String::from_utf8_lossy(&answer.body);
        if said.contains("HTTP error 429") {
            let failure = Failure::new(Reason::RateLimited, format!("{what}: Teams takes no more messages for now"));
            return http::after_status(true, 429, http::retry_after(&answer.headers), failure);
        }
        if said.contains("HTTP error 413") {
            return Outcome::Permanent(Failure::new(Reason::Rejected, format!("{what}: the message is too large")));
        }
        if answer.is_html() || said.contains("delivery failed") {
            return Sends::Changing.lost(
                Reason::BadAnswer,
                format!("{what}: answered {} with words that are no acceptance", answer.status.as_u16()),
            );
        }
    }
    let mut notes = vec!["accepted; Teams shows it when the workflow has run"];
    if message.is_cut {
        notes.push("the text was cut to what Teams takes");
    }
    if message.left_out > 0 {
        notes.push("a link was left out because it has no http address");
    }
    Outcome::Done(Receipt::note(notes.join("; ")))
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct MessageParams {
    /// The first line, in bold.
    title: Option<String>,
    /// Plain text; each of its lines is a line of the card.
    text: String,
    /// Buttons below the text.
    #[serde(default)]
    links: Vec<Link>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Link {
    title: String,
    /// When it is empty, as that of a step that failed, there is no button.
    url: String,
}

/// A message as it is sent.
struct Message {
    card: Value,
    /// Whether the text was longer than what Teams takes.
    is_cut: bool,
    /// How many buttons would have led to something other than a web address.
    left_out: usize,
}

impl MessageParams {
    fn parse(params: &Value) -> Result<Self, String> {
        let params = Self::deserialize(params).map_err(|error| error.to_string())?;
        required("text", &params.text)?;
        if params.links.len() > MAX_LINKS {
            return Err(format!("`links` holds more than {MAX_LINKS}"));
        }
        params.links.iter().try_for_each(|link| required("links.title", &link.title))?;
        Ok(params)
    }

    fn message(self) -> Result<Message, String> {
        let mut actions = Vec::new();
        let mut left_out = 0;
        for Link { title, url } in self.links.iter().filter(|link| !link.url.trim().is_empty()) {
            match web_address(url) {
                Some(url) => actions.push(json!({
                    "type": "Action.OpenUrl", "title": cut(&Escape::Line.apply(title), MAX_LINK_TITLE), "url": url,
                })),
                None => left_out += 1,
            }
        }
        let mut body = Vec::new();
        if let Some(title) = self.title.as_deref().map(str::trim).filter(|title| !title.is_empty()) {
            body.push(block(&cut(&Escape::Line.apply(title), MAX_TITLE), true));
        }
        let used = FRAME + size(&actions) + size(&body);
        let (lines, is_cut) = fitting(self.text.trim_end(), MAX_BYTES.saturating_sub(used));
        body.extend(lines.iter().map(|line| block(line, false)));
        if is_cut {
            body.push(block(CUT, false));
        }
        let card = json!({
            "type": "message",
            "attachments": [{
                "contentType": "application/vnd.microsoft.card.adaptive",
                "contentUrl": null,
                "content": {
                    "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                    "type": "AdaptiveCard",
                    "version": "1.4",
                    "body": body,
                    "actions": actions,
                    "msteams": {"width": "Full"},
                },
            }],
        });
        Ok(Message { card, is_cut, left_out })
    }
}

/// A line of the card. An empty one would have no height.
fn block(line: &str, bold: bool) -> Value {
    let text = if line.trim().is_empty() { "\u{a0}" } else { line };
    let run = if bold {
        json!({"type": "TextRun", "text": text, "weight": "Bolder", "size": "Medium"})
    } else {
        json!({"type": "TextRun", "text": text})
    };
    json!({"type": "RichTextBlock", "spacing": "None", "inlines": [run]})
}

/// The lines that take at most `room` bytes together, the last of them cut if need be, and whether that is not all.
fn fitting(text: &str, room: usize) -> (Vec<String>, bool) {
    let mut left = room;
    let mut lines = Vec::new();
    for line in text.lines() {
        let line = Escape::Line.apply(line);
        let Some(for_text) = left.checked_sub(BLOCK) else { return (lines, true) };
        let mut spent = 0;
        let end = line.char_indices().find(|(_, c)| {
            spent += json_len(*c);
            spent > for_text
        });
        if let Some((at, _)) = end {
            lines.push(line.get(..at).unwrap_or_default().to_owned());
            return (lines, true);
        }
        left = for_text - spent;
        lines.push(line);
    }
    (lines, false)
}

/// The bytes that a character takes inside a JSON string.
fn json_len(c: char) -> usize {
    match c {
        '"' | '\\' => 2,
        c if c.is_ascii_control() => 6,
        c => c.len_utf8(),
    }
}

fn size(values: &[Value]) -> usize {
    values.iter().map(|value| value.to_string().len() + 1).sum()
}

/// The address of a button, if it is one that a browser opens as a page.
fn web_address(text: &str) -> Option<String> {
    let url = Url::parse(text.trim()).ok()?;
    let is_web = matches!(url.scheme(), "http" | "https") && url.username().is_empty() && url.password().is_none();
    let url = String::from(url);
    (is_web && url.len() <= MAX_LINK).then_some(url)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::stage::{Reply, Stage};
    use super::*;
    use crate::model::ids::IdempotencyKey;

    const HOSTILE: &str = "[sign in](http://evil.example) <at>Everyone</at> **b** <http://evil.example>\n# {{DATE(1)}}";

    fn config() -> TeamsConfig {
        toml::from_str("webhook_url = { env = \"T\" }\ntimeout = \"20s\"").unwrap()
    }

    fn message(params: Value) -> Message {
        MessageParams::parse(&params).and_then(MessageParams::message).unwrap_or_else(|problem| panic!("{problem}"))
    }

    fn content(message: &Message) -> &Value {
        &message.card["attachments"][0]["content"]
    }

    fn lines(message: &Message) -> Vec<&str> {
        let body = content(message)["body"].as_array().unwrap();
        body.iter().map(|block| block["inlines"][0]["text"].as_str().unwrap()).collect()
    }

    async fn outcome_of(reply: Reply) -> Outcome {
        let stage = Stage::open(move |_| reply.clone()).await;
        let teams =
            Teams::new(&config(), format!("{}/workflows/w?sig=sig_1", stage.base).into(), &Network::default()).unwrap();
        let call = Call {
            key: IdempotencyKey::from_stored("k".repeat(40)),
            params: json!({"text": "hello"}),
            attempt: 1,
            earlier: Receipt::default(),
        };
        teams.perform(&Cleared::unguarded(call)).await
    }

    /// Everything that is shown, by the kind of element that shows it; whatever else stands in the card fails.
    #[track_caller]
    fn check_only_plain_text(card: &Value) {
        assert_eq!(card["attachments"].as_array().unwrap().len(), 1);
        let content = &card["attachments"][0]["content"];
        let keys: Vec<_> = content.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["$schema", "actions", "body", "msteams", "type", "version"]);
        assert_eq!(content["msteams"], json!({"width": "Full"}), "no entities, so no mentions");
        for block in content["body"].as_array().unwrap() {
            assert_eq!(block["type"], "RichTextBlock");
            let [run] = &block["inlines"].as_array().unwrap()[..] else { panic!("{block}") };
            assert_eq!(run["type"], "TextRun");
            assert!(run.get("selectAction").is_none(), "{run}");
            let text = run["text"].as_str().unwrap();
            assert!(!text.is_empty() && !text.chars().any(char::is_control), "{text:?}");
        }
        for action in content["actions"].as_array().unwrap() {
            assert_eq!(action["type"], "Action.OpenUrl");
            let url = action["url"].as_str().unwrap();
            assert!(url.starts_with("https://") || url.starts_with("http://"), "{url}");
        }
    }

    #[test]
    fn a_message_is_a_card_of_plain_lines_and_buttons() {
        let message = message(json!({
            "title": "User risk HIGH", "text": "Ann Miller\n\nInto quarantine: done\n",
            "links": [{"title": "System Log", "url": "https://x.okta.com/a?b=c"}, {"title": "Incident", "url": ""}],
        }));
        assert_eq!(lines(&message), ["User risk HIGH", "Ann Miller", "\u{a0}", "Into quarantine: done"]);
        assert_eq!(
            content(&message)["actions"],
            json!([{"type": "Action.OpenUrl", "title": "System Log", "url": "https://x.okta.com/a?b=c"}])
        );
        assert_eq!((message.is_cut, message.left_out), (false, 0));
        check_only_plain_text(&message.card);
    }

    #[test]
    fn markdown_and_mentions_of_an_event_are_shown_as_they_are_written() {
        let message =
            message(json!({"title": HOSTILE, "text": HOSTILE, "links": [{"title": HOSTILE, "url": HOSTILE}]}));
        check_only_plain_text(&message.card);
        assert!(lines(&message)[1].starts_with("[sign in](http://evil.example) <at>Everyone</at> **b**"));
        assert_eq!((content(&message)["actions"].as_array().unwrap().len(), message.left_out), (0, 1));
    }

    #[test]
    fn a_button_leads_to_the_web_and_nowhere_else() {
        for url in [
            "javascript:alert(1)",
            "JaVaScRiPt:alert(1)",
            "data:text/html,x",
            "file:///etc/passwd",
            "ms-excel:ofe|u|http://evil.example/x",
            "//evil.example",
            "evil.example",
            "https://okta.com@evil.example/",
            &format!("https://example.com/{}", "x".repeat(1000)),
        ] {
            let message = message(json!({"text": "x", "links": [{"title": "t", "url": url}]}));
            assert_eq!((content(&message)["actions"].as_array().unwrap().len(), message.left_out), (0, 1), "{url}");
        }
    }

    #[test]
    fn what_teams_would_refuse_is_cut_and_says_so() {
        for text in ["x".repeat(64 * 1024), "é\"\\".repeat(12_000), "\n".repeat(50_000) + "x", "a\n".repeat(10_000)] {
            let links: Vec<_> =
                (0..6).map(|_| json!({"title": "t", "url": format!("https://e/{}", "y".repeat(900))})).collect();
            let message = message(json!({"title": "t".repeat(500), "text": text, "links": links}));
            assert!(message.is_cut);
            assert_eq!(lines(&message).last(), Some(&CUT));
            let bytes = message.card.to_string().len();
            assert!(bytes <= MAX_BYTES && bytes > MAX_BYTES * 3 / 4, "{bytes}");
        }
        assert!(!message(json!({"text": "x".repeat(15_000)})).is_cut);
    }

    #[tokio::test]
    async fn what_an_answer_means() {
        let accepted = outcome_of(Reply::text(202, "text/plain", "")).await;
        assert!(
            matches!(&accepted, Outcome::Done(receipt) if receipt.note.as_deref().unwrap().starts_with("accepted"))
        );
        for body in ["1", "", "{\"status\":\"ok\"}"] {
            assert!(matches!(outcome_of(Reply::text(200, "application/json", body)).await, Outcome::Done(_)), "{body}");
        }
        let failed = "Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error";
        let limited = outcome_of(Reply::text(200, "text/plain", format!("{failed} 429 with ContextId x"))).await;
        assert!(matches!(&limited, Outcome::Transient(failure) if failure.reason == Reason::RateLimited));
        let large = outcome_of(Reply::text(200, "text/plain", format!("{failed} 413 with ContextId x"))).await;
        assert!(matches!(&large, Outcome::Permanent(failure) if failure.reason == Reason::Rejected));
        for reply in [
            Reply::text(200, "text/plain", format!("{failed} 403 with ContextId x")),
            Reply::text(200, "text/html; charset=utf-8", "<html>Sign in</html>"),
        ] {
            assert!(matches!(outcome_of(reply).await, Outcome::Unknown(_)));
        }
    }

    #[test]
    fn parameters_are_checked() {
        let check = POST_MESSAGE.check;
        assert!(
            check(&json!({"text": "{{ user.login }}", "links": [{"title": "t", "url": "{{ links.user }}"}]})).is_ok()
        );
        assert!(check(&json!({"text": " "})).is_err());
        assert!(check(&json!({"text": "x", "links": [{"title": "", "url": "https://x"}]})).is_err());
        assert!(check(&json!({"text": "x", "links": vec![json!({"title": "t", "url": "u"}); 7]})).is_err());
        assert!(check(&json!({"text": "x", "channel": "x"})).unwrap_err().contains("unknown field `channel`"));
    }

    #[test]
    fn the_webhook_has_to_be_https_and_never_shows() {
        for url in ["http://example.com/w?sig=sig_1", "https://u:p@example.com/?sig=sig_1", "sig_1", "https://e/#sig_1"]
        {
            let error = Teams::new(&config(), url.into(), &Network::default()).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("sig_1"), "{url}");
        }
        let teams =
            Teams::new(&config(), "https://x.logic.azure.com/w?sp=%2Ft&sig=sig_1".into(), &Network::default()).unwrap();
        assert!(!format!("{teams:?}").contains("sig_1"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_text_makes_anything_but_plain_lines_within_bounds(text in "\\PC{1,50}(\n|.|\\PC){0,3000}", url in "\\PC{0,80}") {
            let params = json!({"title": text, "text": format!("x{text}"), "links": [{"title": format!("x{text}"), "url": url}]});
            let message = message(params);
            check_only_plain_text(&message.card);
            prop_assert!(message.card.to_string().len() <= MAX_BYTES);
        }
    }
}
