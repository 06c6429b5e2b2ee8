//! Why no credential could be had, and what to do about it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use thiserror::Error;

use super::key::{Algorithm, KeyError};
use super::time;
use crate::http::{BodyError, Trouble};
use crate::model::outcome::Reason;

/// No credential could be had; the request itself was not sent. Neither token, assertion nor key is in it.
#[derive(Debug, Clone, Error)]
pub enum AuthError {
    /// The token is empty.
    #[error("the API token is empty{}", Then(self))]
    Empty,
    /// The token holds characters that no token has.
    #[error("the API token holds line breaks or other characters that no token has{}", Then(self))]
    NotAHeader,
    /// The private key cannot be used.
    #[error("`okta.private_key` cannot be used: {error}{}", Then(self))]
    Key {
        /// What is wrong with it.
        error: KeyError,
    },
    /// The machine gives no random numbers, or a key of ours does not sign.
    #[error("nothing could be signed: this machine gives no random numbers")]
    Crypto,
    /// The HTTP client could not be built.
    #[error("no client for the token endpoint")]
    Http(#[source] Arc<crate::http::ClientError>),
    /// The token endpoint was not reached, or did not answer.
    #[error("no access token from the token endpoint: {trouble}")]
    Unreached {
        /// [`Reason::Connect`], [`Reason::Timeout`] or [`Reason::ConnectionLost`].
        reason: Reason,
        /// What kept it.
        trouble: Trouble,
        /// What the HTTP client said, where that is more.
        #[source]
        source: Option<Arc<reqwest::Error>>,
    },
    /// Its answer did not come to its end, or is too long.
    #[error("no access token: the token endpoint's answer could not be read")]
    Unread(#[source] Arc<BodyError>),
    /// 429 or 5xx.
    #[error("no access token: the token endpoint answered {status}; it is asked again")]
    Unavailable {
        /// The status.
        status: u16,
        /// How long it asks to wait.
        wait: Option<Duration>,
    },
    /// Nothing that a token endpoint says.
    #[error("no access token: the token endpoint's answer ({status}) {what}{}", Then(self))]
    NotAnAnswer {
        /// The status.
        status: u16,
        /// What is wrong with it.
        what: &'static str,
    },
    /// `invalid_client`: Okta does not take this app, key or assertion.
    #[error("{0}")]
    InvalidClient(Box<InvalidClient>),
    /// `invalid_scope`: not granted to the app, or not there in this org.
    #[error(
        "no access token: Okta does not grant the service app all of these scopes{}: {}{}",
        Said(said), scopes.join(" "), Then(self)
    )]
    InvalidScope {
        /// What was asked for.
        scopes: Vec<String>,
        /// Okta's sentence.
        said: Option<String>,
    },
    /// Another refusal, such as `unauthorized_client`.
    #[error("no access token: Okta answered {code}{}{}", Said(said), Then(self))]
    Refused {
        /// Okta's code.
        code: String,
        /// Okta's sentence.
        said: Option<String>,
    },
    /// The org wants proofs and the configuration forbids them.
    #[error("no access token: the service app requires DPoP and `okta.dpop` is \"off\"{}", Then(self))]
    DpopDemanded,
    /// Okta does not take our proof.
    #[error("no access token: Okta does not take the DPoP proof{}{}", Said(said), Skew(*ahead))]
    InvalidProof {
        /// Okta's sentence.
        said: Option<String>,
        /// How far Okta's clock is ahead of this host's.
        ahead: SignedDuration,
    },
    /// A nonce is asked for again and again.
    #[error(
        "no access token: the token endpoint asks for a DPoP nonce and does not take the one it gave{}",
        Then(self)
    )]
    NonceLoop,
    /// A token that is not bound to our key, though it has to be.
    #[error(
        "no access token: the token that Okta gave is of the type {given}, and {}{}",
        if *required { "`okta.dpop` is \"required\"" } else { "that does not go with the request" },
        Then(self)
    )]
    TokenType {
        /// What was given.
        given: String,
        /// Whether the configuration asks for DPoP.
        required: bool,
    },
    /// The API refuses a token that was given out a moment ago.
    #[error("Okta refuses access tokens that it has just given out{}", Then(self))]
    RefusedAgain,
}

/// The particulars of `invalid_client`.
#[derive(Debug, Clone)]
pub struct InvalidClient {
    /// The app.
    pub client_id: String,
    /// The key's name, if one is known.
    pub key_id: Option<String>,
    /// How it signs.
    pub algorithm: Algorithm,
    /// Okta's sentence.
    pub said: Option<String>,
    /// How far Okta's clock is ahead of this host's.
    pub ahead: SignedDuration,
}

impl fmt::Display for InvalidClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client_id, key_id, algorithm, said, .. } = self;
        write!(f, "no access token: Okta does not take the client {client_id} with this key ({algorithm}, ")?;
        match key_id {
            Some(key_id) => write!(f, "key id {key_id})")?,
            None => f.write_str("without a key id)")?,
        }
        write!(f, "{}; {}", Said(said), self.remedy())
    }
}

impl InvalidClient {
    fn remedy(&self) -> String {
        let by_name = match self.key_id {
            None => ", and set `okta.key_id` if the app has several keys",
            Some(_) => " under this key id",
        };
        format!(
            "see that `okta.client_id` is an active app of this org and that the public half of `okta.private_key` is \
             registered with it and active{by_name}{}",
            Skew(self.ahead)
        )
    }
}

impl AuthError {
    /// Why it passes by itself, and how long to wait if that is known; `None` when a person has to do something.
    pub fn passing(&self) -> Option<(Reason, Option<Duration>)> {
        match self {
            Self::Unreached { reason, .. } => Some((*reason, None)),
            Self::Unread(error) => Some((error.reason(), None)),
            Self::Unavailable { status: 429, wait } => Some((Reason::RateLimited, *wait)),
            Self::Unavailable { wait, .. } => Some((Reason::ServiceError, *wait)),
            Self::NotAnAnswer { .. } | Self::NonceLoop => Some((Reason::BadAnswer, None)),
            _ => None,
        }
    }

    /// What to do about it. `Display` ends with it.
    pub fn remedy(&self) -> Option<String> {
        let told = match self {
            Self::Empty | Self::NotAHeader => "look at `okta.token`",
            Self::NotAnAnswer { .. } => "look at `okta.org_url` and the proxy",
            Self::InvalidScope { .. } => {
                "a super administrator grants them under \"Okta API Scopes\" of the app, and `check --online` tells which \
                 are missing"
            }
            Self::Refused { .. } => "the app has to be an API Services app with the grant type Client Credentials",
            Self::DpopDemanded => "write \"auto\" or \"required\", or take the requirement off the app",
            Self::NonceLoop => "look at what stands between",
            Self::TokenType { required: true, .. } => "switch on DPoP for the app, or write \"auto\"",
            Self::RefusedAgain => "look at the state of the service app, and at Okta's status page",
            Self::Key { error } => return Some(error.remedy()),
            Self::InvalidClient(particulars) => return Some(particulars.remedy()),
            _ => return None,
        };
        Some(told.to_owned())
    }

    /// A word that stays the same when the same thing goes wrong again.
    pub fn gist(&self) -> &'static str {
        match self {
            Self::Empty | Self::NotAHeader => "token",
            Self::Key { .. } => "key",
            Self::Crypto | Self::Http(_) => "machine",
            Self::Unreached { .. } | Self::Unread(_) => "unreached",
            Self::Unavailable { .. } => "unavailable",
            Self::NotAnAnswer { .. } => "not an answer",
            Self::InvalidClient(_) => "invalid_client",
            Self::InvalidScope { .. } => "invalid_scope",
            Self::Refused { .. } => "refused",
            Self::DpopDemanded | Self::InvalidProof { .. } | Self::NonceLoop | Self::TokenType { .. } => "dpop",
            Self::RefusedAgain => "refused again",
        }
    }
}

/// What to do about an error, behind what it is.
struct Then<'a>(&'a AuthError);

impl fmt::Display for Then<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.remedy().map_or(Ok(()), |remedy| write!(f, "; {remedy}"))
    }
}

/// Okta's sentence, if it said one.
struct Said<'a>(&'a Option<String>);

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |said| write!(f, " (\"{said}\")"))
    }
}

/// A clock that is off, if it is.
struct Skew(SignedDuration);

impl fmt::Display for Skew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_zero() { Ok(()) } else { write!(f, "; {}", time::told(self.0)) }
    }
}
