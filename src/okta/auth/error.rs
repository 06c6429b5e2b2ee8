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
    #[error("the API token is empty; look at `okta.token`")]
    Empty,
    /// The token holds characters that no token has.
    #[error("the API token holds line breaks or other characters that no token has; look at `okta.token`")]
    NotAHeader,
    /// The private key cannot be used.
    #[error("`okta.private_key` cannot be used: {error}; {}", error.remedy())]
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
    #[error("no access token: the token endpoint's answer ({status}) {what}; look at `okta.org_url` and the proxy")]
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
        "no access token: Okta does not grant the service app all of these scopes{}: {}; a super administrator grants them under \
         \"Okta API Scopes\" of the app, and `check --online` tells which are missing", Said(said), scopes.join(" ")
    )]
    InvalidScope {
        /// What was asked for.
        scopes: Vec<String>,
        /// Okta's sentence.
        said: Option<String>,
    },
    /// Another refusal, such as `unauthorized_client`.
    #[error(
        "no access token: Okta answered {code}{}; the app has to be an API Services app with the grant type Client Credentials",
        Said(said)
    )]
    Refused {
        /// Okta's code.
        code: String,
        /// Okta's sentence.
        said: Option<String>,
    },
    /// The org wants proofs and the configuration forbids them.
    #[error(
        "no access token: the service app requires DPoP and `okta.dpop` is \"off\"; write \"auto\" or \"required\", or take the \
         requirement off the app"
    )]
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
        "no access token: the token endpoint asks for a DPoP nonce and does not take the one it gave; look at what stands between"
    )]
    NonceLoop,
    /// A token that is not bound to our key, though it has to be.
    #[error(
        "no access token: the token that Okta gave is of the type {given}, and {}",
        if *required { "`okta.dpop` is \"required\": switch on DPoP for the app, or write \"auto\"" }
        else { "that does not go with the request" }
    )]
    TokenType {
        /// What was given.
        given: String,
        /// Whether the configuration asks for DPoP.
        required: bool,
    },
    /// The API refuses a token that was given out a moment ago.
    #[error(
        "Okta refuses access tokens that it has just given out; look at the state of the service app, and at Okta's status page"
    )]
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
        let Self { client_id, key_id, algorithm, said, ahead } = self;
        write!(f, "no access token: Okta does not take the client {client_id} with this key ({algorithm}, ")?;
        match key_id {
            Some(key_id) => write!(f, "key id {key_id})")?,
            None => f.write_str("without a key id)")?,
        }
        write!(
            f,
            "{}; see that `okta.client_id` is an active app of this org and that the public half of ",
            Said(said)
        )?;
        f.write_str("`okta.private_key` is registered with it and active")?;
        if key_id.is_none() {
            f.write_str(", and set `okta.key_id` if the app has several keys")?;
        } else {
            f.write_str(" under this key id")?;
        }
        write!(f, "{}", Skew(*ahead))
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
