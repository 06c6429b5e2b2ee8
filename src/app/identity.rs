//! Who the daemon is at the org, and by what it signs in.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use tracing::{info, warn};
use zeroize::Zeroizing;

use super::{AppError, network, rights};
use crate::config::SignIn;
use crate::config::load::Loaded;
use crate::config::secret::{LiveSecret, SecretEnv, SecretError};
use crate::engine::clock::Clock;
use crate::engine::retry::Schedule;
use crate::model::outcome::{Outcome, Reason};
use crate::okta::auth::{OAuth, OAuthSettings};
use crate::okta::rate::WINDOW;
use crate::okta::{Auth, Gate, OktaClient, OktaSettings};
use crate::store::{Standstill, Store};
use crate::telemetry::systemd;

/// How long after a reload that changed who we are events can still be what we did as who we were: what was under way ends
/// within the drain, and two clocks are compared. It is no longer, because a person may go on using the account.
const STILL_OURS: SignedDuration = SignedDuration::from_mins(5);
/// The key of Okta's token.
const TOKEN: &str = "okta.token";
/// The key of the service app's private key.
const PRIVATE_KEY: &str = "okta.private_key";

/// Who we are at an org, and by what.
#[derive(Clone)]
pub(super) struct Identity {
    pub(super) org_url: String,
    pub(super) credential: SecretString,
    pub(super) own_id: String,
    /// Who we were before reloads, and until when events may still be that one's.
    pub(super) former_ids: BTreeMap<String, Timestamp>,
    pub(super) gate: Gate,
}

impl Identity {
    /// Who we were before, for whoever is `own_id` from `now` on.
    pub(super) fn former_ids_of(self, own_id: &str, now: Timestamp) -> BTreeMap<String, Timestamp> {
        let mut former_ids = self.former_ids;
        if own_id != self.own_id {
            former_ids.insert(self.own_id, now.saturating_add(STILL_OURS).unwrap_or(Timestamp::MAX));
        }
        former_ids
    }
}

/// The client of the org that a configuration names.
pub fn okta_client(loaded: &Loaded, env: &SecretEnv) -> Result<OktaClient, AppError> {
    okta_client_with(loaded, env, rights::scopes(loaded))
}

/// The same with other scopes than those that the configuration needs; an API token has none.
pub fn okta_client_with(loaded: &Loaded, env: &SecretEnv, scopes: BTreeSet<String>) -> Result<OktaClient, AppError> {
    let config = &loaded.config;
    let (org_url, admin_url) = (config.org_url()?, config.admin_url()?);
    let settings = OktaSettings { org_url, admin_url, timeout: config.okta.timeout, network: network(config, env)? };
    let secret = |place, read: Result<LiveSecret, SecretError>| {
        read.map_err(|source| AppError::Secret { place: Cow::Borrowed(place), source })
    };
    let auth = match config.okta.sign_in().ok_or(AppError::NoSignIn)? {
        SignIn::Token(source) => Auth::api_token(secret(TOKEN, LiveSecret::read(source, env))?),
        SignIn::Service { client_id, private_key } => {
            let app = OAuthSettings {
                client_id: client_id.to_owned(),
                private_key: secret(PRIVATE_KEY, LiveSecret::read_key(private_key, env))?,
                key_id: config.okta.key_id.clone(),
                algorithm: config.okta.algorithm,
                dpop: config.okta.dpop,
                scopes,
            };
            OAuth::new(&settings, app, Arc::new(Clock::start())).map(|oauth| Auth::new(Arc::new(oauth)))
        }
    };
    Ok(OktaClient::new(&settings, auth.map_err(AppError::Auth)?)?)
}

/// All that decides who we are at which org and what we are given there, in one text that is only compared.
pub(super) fn credential(loaded: &Loaded, env: &SecretEnv) -> Result<SecretString, AppError> {
    let okta = &loaded.config.okta;
    let org_url = loaded.config.org_url()?;
    let mut text = Zeroizing::new(format!("{org_url}\n"));
    match okta.sign_in().ok_or(AppError::NoSignIn)? {
        SignIn::Token(source) => {
            let token = source.resolve(env).map_err(|source| AppError::Secret { place: TOKEN.into(), source })?;
            text.push_str(token.expose_secret());
        }
        SignIn::Service { client_id, private_key } => {
            let key = private_key.resolve_key(env);
            let key = key.map_err(|source| AppError::Secret { place: PRIVATE_KEY.into(), source })?;
            let how = format!("{:?} {:?} {:?} {:?}", okta.key_id, okta.algorithm, okta.dpop, rights::scopes(loaded));
            for part in [client_id, "\n", &how, "\n", key.expose_secret()] {
                text.push_str(part);
            }
        }
    }
    Ok(SecretString::from(text.as_str()))
}

/// Who we are: the owner of the token, or the service app. Events that he or it causes are our own. Nothing is decided before
/// it is known, or the daemon could answer itself.
pub(super) async fn own_id(okta: &OktaClient, store: &Store, clock: Clock) -> String {
    // Shorter than any sensible watchdog, which has to be kept quiet when this happens after a reload.
    let schedule = Schedule { initial: Duration::from_secs(1), max: Duration::from_secs(15) };
    let mut attempt = 0;
    let mut told = String::new();
    loop {
        match okta.own_id().await {
            Ok(id) => {
                if attempt > 0 {
                    note_standstill(store, None, clock).await;
                }
                return id;
            }
            Err(error) => {
                attempt += 1;
                let gist = error.gist();
                let words = error.to_failure().detail;
                if gist != told {
                    warn!("Okta does not say who we are, so nothing is decided yet: {words}");
                    let standstill = Standstill { words: words.clone(), for_a_person: error.is_for_a_person() };
                    note_standstill(store, Some(standstill), clock).await;
                    told = gist;
                }
                systemd::waiting(&format!("waiting for Okta: {words}"));
                tokio::time::sleep(schedule.pause(attempt, "own id")).await;
            }
        }
    }
}

/// Keeps it where `status` finds it. What cannot be written is no harm.
async fn note_standstill(store: &Store, standstill: Option<Standstill>, clock: Clock) {
    if let Err(error) = store.set_standstill(standstill, clock.now()).await {
        info!("`status` is not told: {error}");
    }
}

/// The same, if Okta says it within a few tries.
pub(super) async fn own_id_soon(okta: &OktaClient) -> Result<String, AppError> {
    let schedule = Schedule { initial: Duration::from_secs(1), max: Duration::from_secs(5) };
    // The old engine works on meanwhile, so that nothing is held up while our own share has no room.
    let okta = okta.patiently();
    let mut attempt = 0;
    loop {
        let error = match okta.own_id().await {
            Ok(id) => return Ok(id),
            Err(error) => error,
        };
        attempt += 1;
        let pause = match error.to_outcome(false) {
            Outcome::RetryAfter(wait, _) => Some(wait.min(WINDOW)),
            Outcome::Transient(_) if error.reason() != Reason::Unauthorized => Some(schedule.pause(attempt, "own id")),
            _ => None,
        };
        match pause {
            Some(pause) if attempt < 3 => tokio::time::sleep(pause).await,
            _ => return Err(AppError::Stranger(error.to_failure().detail)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::okta::gate::Patience;
    use crate::okta::rate::RateHeaders;
    use crate::okta::testing::{answers, client};
    use crate::okta::{Bucket, Priority};

    #[test]
    fn who_we_were_is_remembered_over_reloads() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let identity = |own_id: &str, former_ids| Identity {
            org_url: String::new(),
            credential: SecretString::from(""),
            own_id: own_id.to_owned(),
            former_ids,
            gate: Gate::new(1.0),
        };
        let same = identity("00u1", BTreeMap::new()).former_ids_of("00u1", at(0));
        assert_eq!(same, BTreeMap::new());
        let second = identity("00u1", same).former_ids_of("0oa2", at(0));
        assert_eq!(second, BTreeMap::from([("00u1".to_owned(), at(300))]));
        let third = identity("0oa2", second).former_ids_of("0oa3", at(60));
        assert_eq!(third, BTreeMap::from([("00u1".to_owned(), at(300)), ("0oa2".to_owned(), at(360))]));
    }

    #[tokio::test]
    async fn a_reload_waits_for_its_turn_to_ask_who_we_are() {
        let mut server = mockito::Server::new_async().await;
        answers(&mut server, "GET", "/api/v1/users/me", 200, &json!({"id": "00u1", "status": "ACTIVE"})).await;
        let gate = Gate::new(0.5);
        let okta = client(&server.url()).through(gate.clone());
        let mut turn = gate.pass(Bucket::User, Priority::Live, Patience::Endless).await.unwrap();
        turn.leaves();
        let date = Timestamp::from_second(1_790_000_000).unwrap();
        let headers = RateHeaders { limit: 4, remaining: 2, reset_epoch_s: date.as_second() + 60 };
        turn.answered(crate::okta::budget::Reply { status: 200, headers: Some(headers), date: Some(date) });
        let waits = async {
            while gate.snapshot().buckets.iter().all(|bucket| bucket.waiting == 0) {
                tokio::task::yield_now().await;
            }
            gate.set_share(1.0);
        };
        let limit = Duration::from_secs(20);
        let (id, waited) = tokio::join!(own_id_soon(&okta), tokio::time::timeout(limit, waits));
        waited.unwrap();
        assert_eq!(id.unwrap(), "00u1");
    }
}
