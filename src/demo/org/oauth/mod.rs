//! Service apps: their keys, what they were granted, and the tokens they hold (Okta guides, "Implement OAuth for Okta
//! with a service app" and "Configure OAuth 2.0 Demonstrating Proof-of-Possession"; RFC 6749, 7523, 9449).

pub(super) mod access;
mod jwt;
mod proof;
mod scopes;
pub(super) mod token;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::Org;
use super::events;
use super::world::World;
use jwt::PublicKey;

/// An API Services app: it signs in with a key and has no user.
#[derive(Debug, Clone)]
pub struct ServiceApp {
    /// `0oa…`
    pub client_id: String,
    /// The name that the log shows.
    pub name: String,
    /// The public keys that are registered.
    pub keys: Vec<AppKey>,
    /// The scopes that an administrator granted.
    pub scopes: Vec<String>,
    /// The admin roles. Without any, scopes are worth nothing.
    pub roles: Vec<String>,
    /// Whether a token is only given for a proof of possession; that is how new apps are made.
    pub dpop_required: bool,
}

impl ServiceApp {
    /// A super administrator that must prove possession, with no scopes yet.
    pub fn new(client_id: &str, keys: Vec<AppKey>) -> Self {
        Self {
            client_id: client_id.to_owned(),
            name: "Okta Responder".to_owned(),
            keys,
            scopes: Vec::new(),
            roles: vec!["SUPER_ADMIN".to_owned()],
            dpop_required: true,
        }
    }

    /// The same with these scopes granted.
    #[must_use]
    pub fn granted<S: Into<String>>(mut self, scopes: impl IntoIterator<Item = S>) -> Self {
        self.scopes = scopes.into_iter().map(Into::into).collect();
        self
    }

    /// The same without the demand for a proof of possession.
    #[must_use]
    pub fn without_dpop(mut self) -> Self {
        self.dpop_required = false;
        self
    }
}

/// A public key of an app.
#[derive(Debug, Clone)]
pub enum AppKey {
    /// A JSON Web Key, as it is pasted into the admin console.
    Jwk(Value),
    /// The same key as `SubjectPublicKeyInfo`, which most libraries hand out.
    Spki {
        /// The id under which Okta keeps it.
        kid: String,
        /// DER.
        der: Vec<u8>,
    },
}

impl AppKey {
    fn kid(&self) -> Option<&str> {
        match self {
            Self::Jwk(jwk) => jwk.get("kid")?.as_str(),
            Self::Spki { kid, .. } => Some(kid),
        }
    }

    fn public(&self) -> Option<PublicKey> {
        match self {
            Self::Jwk(jwk) => PublicKey::from_jwk(jwk),
            Self::Spki { der, .. } => Some(PublicKey::Spki(der.clone())),
        }
    }
}

/// What Okta does with requested scopes that are not granted while others are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ungranted {
    /// The token comes without them, which only its `scope` tells. With none granted there is no token.
    LeftOut,
    /// There is no token.
    Refused,
}

/// A request for a token, as it was judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRequest {
    /// Who asked; empty when that could not be told.
    pub client_id: String,
    /// The scopes that were asked for.
    pub asked: Vec<String>,
    /// The scopes of the token, if one was given.
    pub given: Vec<String>,
    /// `Bearer` or `DPoP`, if one was given.
    pub token_type: Option<&'static str>,
    /// `error` and `error_description`, if not.
    pub error: Option<(&'static str, String)>,
}

/// Everything that OAuth has to remember.
#[derive(Debug)]
pub(super) struct OAuth {
    apps: BTreeMap<String, Registered>,
    tokens: HashMap<String, Issued>,
    /// The ids of assertions and proofs that were seen, and when each may be forgotten, in seconds since 1970.
    spent: HashMap<String, i64>,
    nonce: String,
    /// Nonces that were renewed and still work.
    old_nonces: BTreeSet<String>,
    requests: Vec<TokenRequest>,
}

#[derive(Debug)]
struct Registered {
    app: ServiceApp,
    active: bool,
}

/// A token that was given out.
#[derive(Debug, Clone)]
struct Issued {
    client_id: String,
    scopes: Vec<String>,
    expires: i64,
    /// The thumbprint of the key that it is bound to.
    jkt: Option<String>,
}

impl OAuth {
    pub(super) fn new() -> Self {
        Self {
            apps: BTreeMap::new(),
            tokens: HashMap::new(),
            spent: HashMap::new(),
            nonce: random(24),
            old_nonces: BTreeSet::new(),
            requests: Vec::new(),
        }
    }

    /// Notes an id that may be used once until `forget`. False when it was used already.
    fn spend(&mut self, kind: &str, id: &str, forget: i64, now: i64) -> bool {
        self.spent.retain(|_, until| *until >= now);
        self.spent.insert(format!("{kind} {id}"), forget).is_none()
    }

    /// The app of an id, as long as nobody deactivated it.
    fn active(&self, client_id: &str) -> Option<&ServiceApp> {
        self.apps.get(client_id).filter(|registered| registered.active).map(|registered| &registered.app)
    }
}

/// Who a request is by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Principal {
    /// The user to whom the SSWS token belongs.
    Owner,
    /// A service app.
    App { client_id: String, name: String, roles: Vec<String> },
}

impl Principal {
    /// The actor of all that it does.
    pub(super) fn actor(&self, world: &World) -> Value {
        match self {
            Self::Owner => events::principal(&world.token_owner()),
            Self::App { client_id, name, .. } => json!({
                "id": client_id, "type": "PublicClientApp", "alternateId": client_id, "displayName": name,
                "detailEntry": null,
            }),
        }
    }

    /// What it is counted under.
    fn id(&self) -> &str {
        match self {
            Self::Owner => "SSWS",
            Self::App { client_id, .. } => client_id,
        }
    }

    fn has_role(&self, world: &World, wanted: &str) -> bool {
        match self {
            Self::Owner => {
                let roles = world.read(|inside| inside.directory.roles_of(&world.options.token_owner));
                roles.iter().any(|(role, through_group)| role == wanted && !through_group)
            }
            Self::App { roles, .. } => roles.iter().any(|role| role == wanted),
        }
    }

    /// Whether it sees the events of user risk. With Identity Threat Protection everybody does who reads the log; without
    /// it only who is directly assigned super administrator (Okta help, "System Log events for Identity Threat
    /// Protection").
    pub(super) fn sees_risk_events(&self, world: &World) -> bool {
        !world.options.risk_events_for_super_admins || self.has_role(world, "SUPER_ADMIN")
    }
}

/// The admin roles of an app; `None` when there is no such app.
pub(super) fn roles_of(world: &World, client_id: &str) -> Option<Vec<String>> {
    world.read(|inside| inside.oauth.apps.get(client_id).map(|registered| registered.app.roles.clone()))
}

impl Org {
    /// Registers a service app.
    pub fn register_app(&self, app: ServiceApp) {
        self.oauth(|oauth| oauth.apps.insert(app.client_id.clone(), Registered { app, active: true }));
    }

    /// Deactivates an app: it gets no token, and those that it has are worth nothing.
    pub fn revoke_app(&self, client_id: &str) {
        self.of_app(client_id, |registered| registered.active = false);
    }

    /// Activates it again.
    pub fn restore_app(&self, client_id: &str) {
        self.of_app(client_id, |registered| registered.active = true);
    }

    /// Grants a scope. Tokens that were given out before do not have it.
    pub fn grant_scope(&self, client_id: &str, scope: &str) {
        self.of_app(client_id, |registered| registered.app.scopes.push(scope.to_owned()));
    }

    /// Takes a scope back. Tokens that were given out before keep it.
    pub fn ungrant_scope(&self, client_id: &str, scope: &str) {
        self.of_app(client_id, |registered| registered.app.scopes.retain(|granted| granted != scope));
    }

    /// Gives an app other admin roles. They count at once.
    pub fn set_app_roles(&self, client_id: &str, roles: &[&str]) {
        let roles = roles.iter().map(|&role| role.to_owned()).collect();
        self.of_app(client_id, |registered| registered.app.roles = roles);
    }

    /// Registers other keys in place of those that an app had.
    pub fn set_app_keys(&self, client_id: &str, keys: Vec<AppKey>) {
        self.of_app(client_id, |registered| registered.app.keys = keys);
    }

    /// Demands a proof of possession of an app from now on, or no longer. It concerns new tokens only.
    pub fn require_dpop(&self, client_id: &str, required: bool) {
        self.of_app(client_id, |registered| registered.app.dpop_required = required);
    }

    /// Makes every token of every app worthless, as if its time were over.
    pub fn expire_tokens(&self) {
        self.oauth(|oauth| oauth.tokens.clear());
    }

    /// Renews the nonce of proofs. Okta does so every 24 hours and lets the old one work for three days.
    pub fn renew_nonce(&self, old_one_works: bool) {
        self.oauth(|oauth| {
            let old = std::mem::replace(&mut oauth.nonce, random(24));
            if old_one_works {
                oauth.old_nonces.insert(old);
            } else {
                oauth.old_nonces.clear();
            }
        });
    }

    /// Every request for a token, in order.
    pub fn token_requests(&self) -> Vec<TokenRequest> {
        self.world.read(|inside| inside.oauth.requests.clone())
    }

    /// How many tokens were given out.
    pub fn tokens_given(&self) -> usize {
        self.world.read(|inside| inside.oauth.requests.iter().filter(|request| request.error.is_none()).count())
    }

    fn of_app(&self, client_id: &str, change: impl FnOnce(&mut Registered)) {
        self.oauth(|oauth| oauth.apps.get_mut(client_id).map(change));
    }

    fn oauth<T>(&self, change: impl FnOnce(&mut OAuth) -> T) -> T {
        self.world.change(|inside| change(&mut inside.oauth))
    }
}

/// So many random bytes as base64url.
fn random(bytes: usize) -> String {
    let mut buffer = vec![0; bytes];
    // It only fails when the machine has no randomness; then ids repeat, and what relies on them fails aloud.
    let _ = rand::fill(&mut buffer);
    BASE64_URL_SAFE_NO_PAD.encode(buffer)
}
