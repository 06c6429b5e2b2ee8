//! Whether messages will reach their channels, as far as Slack tells without being sent one.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::RequestBuilder;
use serde::Deserialize;

use super::{Bot, NO_WORD, Slack, Way, cut, refused_with, wire, word};
use crate::connectors::probe::Finding;
use crate::connectors::wire::{Answer, Sends};
use crate::model::outcome::{Failure, Outcome, Reason};

/// The most pages of joined channels that are read, and the most of one page.
const MAX_PAGES: usize = 20;
const PAGE: &str = "200";

/// What `auth.test` tells (Slack, `auth.test`): the scopes of the token stand in a header of every answer.
struct Token {
    words: String,
    /// `None` when Slack does not say.
    scopes: Option<BTreeSet<String>>,
}

impl Token {
    fn has(&self, scope: &str) -> bool {
        self.scopes.as_ref().is_some_and(|scopes| scopes.contains(scope))
    }

    /// Whether it is worth asking for what needs this scope.
    fn may_have(&self, scope: &str) -> bool {
        self.scopes.is_none() || self.has(scope)
    }
}

impl Slack {
    /// Tries the token, its scopes, and every channel by name or id, each with the place that names it. A webhook is not
    /// posted to: only its host is asked. Changes nothing.
    pub async fn probe(&self, channels: &BTreeMap<String, Vec<String>>) -> Vec<Finding> {
        let bot = match &self.way {
            Way::Webhook(webhook) => return vec![webhook.probe("Slack webhook").await],
            Way::Bot(bot) => bot,
        };
        let known = match bot.test().await {
            Ok(known) => known,
            Err(failure) => return vec![Finding::failed("Slack token", failure)],
        };
        let mut findings = vec![Finding::fine("Slack token", known.words.clone()), scopes(&known)];
        if channels.is_empty() {
            return findings;
        }
        let joined = bot.joined(&known).await;
        for (channel, places) in channels {
            let about = format!("Slack channel {channel}");
            let found = match &joined {
                Err(why) => Finding::note(about, why.clone()),
                Ok(_) if !channel.starts_with('#') && is_id(channel) => bot.by_id(about, &known, channel).await,
                Ok(joined) => by_name(about, channel, joined, &known),
            };
            findings.push(found.and_says(&format!(", for {}", places.join("; "))));
        }
        findings
    }
}

impl Bot {
    async fn test(&self) -> Result<Token, Failure> {
        const WHAT: &str = "asking Slack whose token this is";
        #[derive(Deserialize)]
        struct Tested {
            team: Option<String>,
            user: Option<String>,
        }
        let answer = self.ask(|| self.http.post(self.auth_test.clone()), WHAT).await?;
        let scopes = answer.headers.get("x-oauth-scopes").and_then(|value| value.to_str().ok());
        let scopes = scopes
            .map(|list| list.split(',').map(str::trim).filter(|scope| !scope.is_empty()).map(str::to_owned).collect());
        let tested: Tested = read(&answer, WHAT)?;
        let words = match (tested.team, tested.user) {
            (Some(team), Some(user)) if !answer.repeats_credential => {
                format!("accepted: `{}` in the workspace {}", cut(&user, 100), cut(&team, 100))
            }
            _ => "accepted".to_owned(),
        };
        Ok(Token { words, scopes })
    }

    /// The names and ids of the channels that the app is in and may see (Slack, `users.conversations`). An error says why
    /// none can be told.
    async fn joined(&self, known: &Token) -> Result<BTreeSet<String>, String> {
        const WHAT: &str = "asking Slack which channels the app is in";
        #[derive(Deserialize)]
        struct Joined {
            channels: Vec<Channel>,
            response_metadata: Option<More>,
        }
        #[derive(Deserialize)]
        struct More {
            #[serde(default)]
            next_cursor: String,
        }
        let kinds = [("channels:read", "public_channel"), ("groups:read", "private_channel")];
        let kinds: Vec<&str> =
            kinds.into_iter().filter(|(scope, _)| known.may_have(scope)).map(|(_, kind)| kind).collect();
        if kinds.is_empty() {
            return Err(
                "cannot be looked up: the token has neither channels:read nor groups:read, which nothing but this \
                        check needs"
                    .to_owned(),
            );
        }
        let kinds = kinds.join(",");
        let url = self.auth_test.join("users.conversations").map_err(|_| "no address can be built".to_owned())?;
        let (mut joined, mut cursor) = (BTreeSet::new(), String::new());
        for _ in 0..MAX_PAGES {
            let query = [("types", kinds.as_str()), ("exclude_archived", "true"), ("limit", PAGE), ("cursor", &cursor)];
            let answer = self.ask(|| self.http.get(url.clone()).query(&query), WHAT).await;
            let page: Joined =
                answer.and_then(|answer| read(&answer, WHAT)).map_err(|failure| not_looked_up(&failure))?;
            joined.extend(page.channels.into_iter().flat_map(|channel| [format!("#{}", channel.name), channel.id]));
            cursor = page.response_metadata.map(|more| more.next_cursor).unwrap_or_default();
            if cursor.is_empty() {
                return Ok(joined);
            }
        }
        Err("cannot be told: the app is in more channels than are read".to_owned())
    }

    async fn by_id(&self, about: String, known: &Token, id: &str) -> Finding {
        const WHAT: &str = "looking a channel up";
        #[derive(Deserialize)]
        struct Info {
            channel: Channel,
        }
        if id.starts_with(['U', 'W', 'D']) {
            return Finding::note(about, "a direct message, which cannot be tried without sending it");
        }
        let Ok(url) = self.auth_test.join("conversations.info") else {
            return Finding::note(about, "no address can be built");
        };
        let answer = self.ask(|| self.http.get(url.clone()).query(&[("channel", id)]), WHAT).await;
        match answer.and_then(|answer| read::<Info>(&answer, WHAT)) {
            Ok(Info { channel }) if channel.is_archived => {
                let detail = format!("`#{}` is archived, and takes no message", cut(&channel.name, 100));
                Finding::failed(about, Failure::new(Reason::Rejected, detail)).remedy("unarchive it, or name another")
            }
            Ok(Info { channel }) if channel.is_member => {
                Finding::fine(about, format!("the app is in `#{}`", cut(&channel.name, 100)))
            }
            Ok(Info { channel }) => not_joined(about, !channel.is_private, known),
            Err(failure) if failure.detail.contains("channel_not_found") => {
                let detail = "there is no such channel, or it is private and the app is not in it";
                Finding::failed(about, Failure::new(Reason::NotFound, detail))
                    .remedy("correct the channel, or invite the app to it")
            }
            Err(failure) => Finding::note(about, not_looked_up(&failure)),
        }
    }

    /// One question. An answer of `ok: false` is a failure with Slack's word.
    async fn ask(&self, request: impl Fn() -> RequestBuilder, what: &str) -> Result<Answer, Failure> {
        #[derive(Deserialize)]
        struct Verdict {
            ok: bool,
            error: Option<String>,
        }
        let answer = self.exchange(request, what, Sends::Reading).await.map_err(Outcome::into_failure)?;
        if !answer.status.is_success() {
            return Err(wire::refusal(&answer, what, "", Sends::Reading).into_failure());
        }
        match read(&answer, what)? {
            Verdict { ok: true, .. } => Ok(answer),
            Verdict { error, .. } => {
                let error = error.unwrap_or_default();
                let error = if answer.repeats_credential { NO_WORD.to_owned() } else { word(error.as_bytes()) };
                Err(refused_with(what, &error, &answer).into_failure())
            }
        }
    }
}

#[derive(Deserialize)]
struct Channel {
    id: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    is_member: bool,
    #[serde(default)]
    is_archived: bool,
    #[serde(default)]
    is_private: bool,
}

fn read<T: for<'de> Deserialize<'de>>(answer: &Answer, what: &str) -> Result<T, Failure> {
    serde_json::from_slice(&answer.body)
        .map_err(|_| Failure::new(Reason::BadAnswer, format!("{what}: the answer is not Slack's JSON")))
}

fn scopes(known: &Token) -> Finding {
    const ABOUT: &str = "Slack scopes";
    match &known.scopes {
        None => Finding::note(ABOUT, "Slack does not say which the token has; chat:write is needed"),
        Some(scopes) if known.has("chat:write") => {
            Finding::fine(ABOUT, cut(&scopes.iter().map(String::as_str).collect::<Vec<_>>().join(", "), 300))
        }
        Some(_) => Finding::failed(ABOUT, Failure::new(Reason::Forbidden, "the token has no chat:write"))
            .remedy("add chat:write to the app's bot token scopes and install it anew"),
    }
}

fn by_name(about: String, channel: &str, joined: &BTreeSet<String>, known: &Token) -> Finding {
    let name = format!("#{}", channel.trim_start_matches('#'));
    if joined.contains(&name) {
        return Finding::fine(about, "the app is in it");
    }
    if !known.may_have("groups:read") {
        let detail = "the app is in no public channel of this name; private ones cannot be told without groups:read";
        return Finding::note(about, detail);
    }
    not_joined(about, true, known)
}

fn not_joined(about: String, public: bool, known: &Token) -> Finding {
    if public && known.has("chat:write.public") {
        return Finding::note(
            about,
            "the app is not in it; if it is public, chat:write.public lets it post all the same",
        );
    }
    Finding::failed(about, Failure::new(Reason::NotFound, "the app is not in a channel of this name or id"))
        .remedy("invite the app to it (/invite @APP), or correct the channel")
}

fn not_looked_up(failure: &Failure) -> String {
    format!("cannot be looked up: {}", failure.detail)
}

/// Ids of Slack begin with a letter for their kind, and have no small letters.
fn is_id(text: &str) -> bool {
    text.len() >= 9
        && text.starts_with(['C', 'G', 'D', 'U', 'W'])
        && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}
