//! The access token of a service app: fetched when it is needed, once for all who wait, and renewed before it ends.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use tracing::{debug, info, warn};
use zeroize::Zeroizing;

use super::assertion::assertion;
use super::dpop::{Challenge, Dpop, Prover, Server};
use super::error::InvalidClient;
use super::key::{Algorithm, SigningKey};
use super::time::{OktaTime, Time};
use super::token::{Given, Refusal, TokenAnswer, TokenEndpoint};
use super::{AuthError, Credential, Granted, Pass, Tried};
use crate::config::secret::LiveSecret;
use crate::engine::retry::Schedule;
use crate::http;
use crate::okta::client::OktaSettings;

/// The pauses after failed questions. A person who has mended something waits no longer than the longest.
const PAUSES: Schedule = Schedule { initial: Duration::from_secs(1), max: Duration::from_secs(30) };
/// A token is renewed when this share of its life is over.
const FRESH: f64 = 0.8;
/// The most questions for one token: a proof demanded, a nonce, the clock, a new key, and some more nonces.
const MAX_QUESTIONS: usize = 8;
/// The most nonces taken for one token.
const MAX_NONCES: usize = 3;

/// What makes a service app.
#[derive(Debug)]
pub struct OAuthSettings {
    /// The app's id.
    pub client_id: String,
    /// Its private key, as [`SigningKey::read`] takes it.
    pub private_key: LiveSecret,
    /// The name under which Okta knows the key; default: a JWK's own.
    pub key_id: Option<String>,
    /// How assertions are signed; default: a JWK's own, or by the kind of key.
    pub algorithm: Option<Algorithm>,
    /// Whether tokens are bound to a key of the daemon's.
    pub dpop: Dpop,
    /// What is asked for.
    pub scopes: BTreeSet<String>,
}

/// A service app's credential. Cheap to clone.
#[derive(Clone)]
pub struct OAuth(Arc<Inner>);

impl fmt::Debug for OAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OAuth").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

struct Inner {
    settings: OAuthSettings,
    scope: String,
    endpoint: TokenEndpoint,
    key: Mutex<Arc<SigningKey>>,
    prover: Prover,
    time: OktaTime,
    state: Mutex<State>,
    /// Held by who asks the token endpoint.
    flight: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct State {
    token: Option<Arc<Token>>,
    /// Tokens so far.
    serial: u64,
    /// The last one that the API refused, until one is taken.
    refused: Option<SecretString>,
    failure: Option<Failure>,
    /// Failures since the last token that was of use.
    failures: u32,
    /// The scopes that the last token came without.
    missing: Vec<String>,
}

struct Token {
    secret: SecretString,
    serial: u64,
    bound: bool,
    scopes: Vec<String>,
    life: Duration,
    /// When it is renewed and when it ends, by [`OktaTime::elapsed`].
    renew_at: Duration,
    ends_at: Duration,
    /// It was fetched because the API refused the one before.
    in_place_of_refused: bool,
    /// The API has taken it.
    taken: AtomicBool,
}

struct Failure {
    error: AuthError,
    until: Duration,
}

/// How things stand with the token.
enum Standing {
    Good(Arc<Token>),
    /// Good still, and to be renewed.
    Ageing(Arc<Token>),
    Missing,
    /// Missing, and not asked for yet.
    Failed(AuthError),
}

impl OAuth {
    /// Reads the key. Nothing is sent.
    pub fn new(org: &OktaSettings, settings: OAuthSettings, time: Arc<dyn Time>) -> Result<Self, AuthError> {
        let key = Mutex::new(Arc::new(read_key(&settings)?));
        let prover = Prover::new(settings.dpop)?;
        let scope = settings.scopes.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
        let endpoint = TokenEndpoint::new(org)?;
        let time = OktaTime::new(time);
        Ok(Self(Arc::new(Inner {
            settings,
            scope,
            endpoint,
            key,
            prover,
            time,
            state: Mutex::default(),
            flight: Arc::default(),
        })))
    }

    /// Waits until nobody asks the token endpoint.
    #[cfg(test)]
    pub(super) async fn settled(&self) {
        drop(self.0.flight.lock().await);
    }

    async fn token(&self) -> Result<Arc<Token>, AuthError> {
        let inner = &self.0;
        match inner.standing() {
            Standing::Good(token) => return Ok(token),
            Standing::Failed(error) => return Err(error),
            Standing::Ageing(token) => {
                // Nobody waits while the old one is good; one task fetches the next.
                if let Ok(flight) = Arc::clone(&inner.flight).try_lock_owned() {
                    let inner = Arc::clone(inner);
                    tokio::spawn(async move {
                        if let Err(error) = inner.fetch().await {
                            debug!("the access token is not renewed yet: {error}");
                        }
                        drop(flight);
                    });
                }
                return Ok(token);
            }
            Standing::Missing => {}
        }
        let _flight = inner.flight.lock().await;
        // Who waited finds what came of the question of the one before.
        match inner.standing() {
            Standing::Good(token) | Standing::Ageing(token) => Ok(token),
            Standing::Failed(error) => Err(error),
            Standing::Missing => inner.fetch().await,
        }
    }
}

#[async_trait]
impl Credential for OAuth {
    async fn pass(&self, method: &Method, url: &Url) -> Result<Pass, AuthError> {
        let token = self.token().await?;
        let secret = token.secret.expose_secret();
        let mut pass = Pass::plain(token.header()?);
        pass.serial = token.serial;
        if token.bound {
            pass.nonce = self.0.prover.nonce(Server::Api);
            let (prover, now) = (&self.0.prover, self.0.time.now());
            pass.proof = Some(prover.proof(method, url, now, pass.nonce.as_deref(), Some(secret))?);
        }
        Ok(pass)
    }

    fn answered(&self, pass: &Pass, status: StatusCode, headers: &HeaderMap) {
        if pass.proof.is_some() {
            self.0.prover.take_nonce(Server::Api, headers);
        }
        if status != StatusCode::UNAUTHORIZED {
            let mut state = self.0.state();
            if let Some(token) = state.token.as_ref().filter(|token| token.serial == pass.serial)
                && !token.taken.swap(true, Ordering::SeqCst)
            {
                (state.refused, state.failures) = (None, 0);
            }
        }
    }

    async fn refused(&self, pass: &Pass, headers: &HeaderMap, tried: &mut Tried) -> Result<bool, AuthError> {
        let inner = &self.0;
        let challenge = Challenge::of(headers);
        if pass.proof.is_some() && challenge != Challenge::Token {
            if pass.nonce != inner.prover.nonce(Server::Api) && !std::mem::replace(&mut tried.nonce, true) {
                return Ok(true);
            }
            if challenge == Challenge::Proof
                && !std::mem::replace(&mut tried.clock, true)
                && inner.time.learn(http::date(headers))
            {
                return Ok(true);
            }
        }
        if std::mem::replace(&mut tried.renewed, true) {
            inner.put_away(pass.serial);
            return Ok(false);
        }
        if !inner.put_away(pass.serial) {
            return Ok(false);
        }
        self.token().await.map(|_| true)
    }

    async fn granted(&self) -> Result<Option<Granted>, AuthError> {
        let token = self.token().await?;
        Ok(Some(Granted {
            client_id: self.0.settings.client_id.clone(),
            dpop: token.bound,
            lifetime: token.life,
            scopes: token.scopes.clone(),
        }))
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key(&self) -> Arc<SigningKey> {
        Arc::clone(&self.key.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn standing(&self) -> Standing {
        let now = self.time.elapsed();
        let state = self.state();
        let failure = state.failure.as_ref().filter(|failure| now < failure.until);
        match (&state.token, failure) {
            (Some(token), None) if now >= token.renew_at && now < token.ends_at => Standing::Ageing(Arc::clone(token)),
            (Some(token), _) if now < token.ends_at => Standing::Good(Arc::clone(token)),
            (_, Some(failure)) => Standing::Failed(failure.error.clone()),
            (_, None) => Standing::Missing,
        }
    }

    /// Takes a token that the API refused out of use. False when a new one is not worth a try: this one came in place of
    /// one that was refused, and was never taken either.
    fn put_away(&self, serial: u64) -> bool {
        let now = self.time.elapsed();
        let mut state = self.state();
        let Some(token) = state.token.take_if(|token| token.serial == serial) else { return true };
        state.refused = Some(token.secret.clone());
        if token.in_place_of_refused && !token.taken.load(Ordering::SeqCst) {
            state.fail(AuthError::RefusedAgain, now, &self.settings.client_id);
            return false;
        }
        true
    }

    /// Asks for a token and keeps what comes of it. Only who holds the flight may.
    async fn fetch(&self) -> Result<Arc<Token>, AuthError> {
        // Its life is counted from here: the answer may have taken long.
        let asked_at = self.time.elapsed();
        let result = self.negotiate().await;
        let now = self.time.elapsed();
        let mut state = self.state();
        let result = result.and_then(|(given, bound)| {
            let again = state.refused.as_ref().is_some_and(|old| old.expose_secret() == given.token.expose_secret());
            if again { Err(AuthError::RefusedAgain) } else { Ok((given, bound)) }
        });
        match result {
            Ok((given, bound)) => {
                let scopes: Vec<String> = match &given.scope {
                    Some(scope) => scope.split_ascii_whitespace().map(str::to_owned).collect(),
                    None => self.settings.scopes.iter().cloned().collect(),
                };
                self.tell_missing(&mut state, &scopes);
                let serial = state.serial + 1;
                let token = Arc::new(Token {
                    secret: given.token,
                    serial,
                    bound,
                    scopes,
                    life: given.life,
                    renew_at: asked_at + given.life.mul_f64(FRESH),
                    ends_at: asked_at + given.life,
                    in_place_of_refused: state.refused.is_some(),
                    taken: AtomicBool::new(false),
                });
                debug!(client_id = self.settings.client_id, dpop = bound, life = ?given.life, "an access token was given");
                // While the API takes none of them, the pauses go on to grow with each.
                state.failures = if state.refused.is_some() { state.failures } else { 0 };
                (state.serial, state.failure) = (serial, None);
                state.token = Some(Arc::clone(&token));
                Ok(token)
            }
            Err(error) => {
                state.fail(error.clone(), now, &self.settings.client_id);
                Err(error)
            }
        }
    }

    /// Says which scopes a token came without, once for as long as they are the same ones.
    fn tell_missing(&self, state: &mut State, given: &[String]) {
        let missing: Vec<String> =
            self.settings.scopes.iter().filter(|scope| !given.contains(scope)).cloned().collect();
        if !missing.is_empty() && missing != state.missing {
            warn!(
                "Okta gives the service app {} no access to {}: grant it under \"Okta API Scopes\" of the app",
                self.settings.client_id,
                missing.join(" ")
            );
        }
        state.missing = missing;
    }

    /// The questions that it takes to get one token. The flag says whether it is bound to our key.
    async fn negotiate(&self) -> Result<(Given, bool), AuthError> {
        let (mut nonces, mut reread) = (0, false);
        for _ in 0..MAX_QUESTIONS {
            let nonce = self.prover.nonce(Server::Tokens);
            let proving = self.prover.is_on();
            let TokenAnswer { headers, date, result } = self.ask(proving, nonce.as_deref()).await?;
            if proving {
                self.prover.take_nonce(Server::Tokens, &headers);
            }
            let (code, said) = match result {
                Ok(given) => return self.checked(given, proving),
                Err(Refusal::Other(error)) => return Err(error),
                Err(Refusal::Coded { code, said }) => (code, said),
            };
            let renewed_nonce = proving && self.prover.nonce(Server::Tokens) != nonce;
            match code.as_str() {
                "invalid_dpop_proof" | "use_dpop_nonce" if !proving => {
                    if !self.prover.demand() {
                        return Err(AuthError::DpopDemanded);
                    }
                    self.prover.take_nonce(Server::Tokens, &headers);
                }
                "invalid_dpop_proof" | "use_dpop_nonce" if renewed_nonce && nonces < MAX_NONCES => nonces += 1,
                "use_dpop_nonce" => return Err(AuthError::NonceLoop),
                "invalid_dpop_proof" if self.time.learn(date) => {}
                "invalid_dpop_proof" => return Err(AuthError::InvalidProof { said, ahead: self.time.offset() }),
                "invalid_client" if self.time.learn(date) => {}
                "invalid_client" if !std::mem::replace(&mut reread, true) && self.reread()? => {}
                "invalid_client" => return Err(self.invalid_client(said)),
                "invalid_scope" => {
                    let scopes = self.settings.scopes.iter().cloned().collect();
                    return Err(AuthError::InvalidScope { scopes, said });
                }
                _ => return Err(AuthError::Refused { code, said }),
            }
        }
        Err(AuthError::NonceLoop)
    }

    async fn ask(&self, proving: bool, nonce: Option<&str>) -> Result<TokenAnswer, AuthError> {
        let (url, now) = (self.endpoint.url(), self.time.now());
        let assertion = assertion(&self.key(), &self.settings.client_id, url, now)?;
        let proof = match proving {
            true => Some(self.prover.proof(&Method::POST, url, now, nonce, None)?),
            false => None,
        };
        self.endpoint.ask(&assertion, &self.scope, proof).await
    }

    /// Whether the token is of a type that goes with the question.
    fn checked(&self, given: Given, proving: bool) -> Result<(Given, bool), AuthError> {
        let required = self.prover.wish() == Dpop::Required;
        let bound = given.kind.eq_ignore_ascii_case("DPoP");
        let bearer = given.kind.eq_ignore_ascii_case("Bearer");
        if (bound && proving) || (bearer && !required) {
            Ok((given, bound))
        } else {
            Err(AuthError::TokenType { given: given.kind, required })
        }
    }

    /// Reads the key again where it came from. True when it is another one now.
    fn reread(&self) -> Result<bool, AuthError> {
        match self.settings.private_key.reread() {
            Ok(true) => {
                let key = read_key(&self.settings)?;
                info!(
                    "Okta does not take the key of the service app, and `okta.private_key` has a new one: it is used"
                );
                *self.key.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
                Ok(true)
            }
            Ok(false) => Ok(false),
            Err(error) => {
                warn!("`okta.private_key` cannot be read again: {error}; {}", error.remedy());
                Ok(false)
            }
        }
    }

    fn invalid_client(&self, said: Option<String>) -> AuthError {
        let key = self.key();
        AuthError::InvalidClient(Box::new(InvalidClient {
            client_id: self.settings.client_id.clone(),
            key_id: key.key_id().map(str::to_owned),
            algorithm: key.algorithm(),
            said,
            ahead: self.time.offset(),
        }))
    }
}

impl State {
    /// Until the pause is over nobody asks again.
    fn fail(&mut self, error: AuthError, now: Duration, seed: &str) {
        self.failures = self.failures.saturating_add(1);
        let pause = match error.passing() {
            Some((_, Some(wait))) => wait,
            _ => PAUSES.pause(self.failures, seed),
        };
        self.failure = Some(Failure { error, until: now.saturating_add(pause) });
    }
}

impl Token {
    fn header(&self) -> Result<HeaderValue, AuthError> {
        let scheme = if self.bound { "DPoP" } else { "Bearer" };
        let text = Zeroizing::new(format!("{scheme} {}", self.secret.expose_secret()));
        let mut value = HeaderValue::from_str(&text).map_err(|_| AuthError::NotAHeader)?;
        value.set_sensitive(true);
        Ok(value)
    }
}

fn read_key(settings: &OAuthSettings) -> Result<SigningKey, AuthError> {
    let text = settings.private_key.current();
    SigningKey::read(text.expose_secret(), settings.algorithm, settings.key_id.as_deref())
        .map_err(|error| AuthError::Key { error })
}
