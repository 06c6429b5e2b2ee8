//! Reading from Okta what may protect a user: who he is, his groups, his admin roles.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::JoinSet;
use tracing::warn;

use super::Engine;
use super::reach::{OKTA, Sign};
use super::retry::Schedule;
use super::survive::{self, survive_async};
use crate::guard::standing::{Standing, Standings};
use crate::okta::OktaError;

/// Users who are being read at once.
const READING: usize = 8;
/// Pauses before a user is asked for again who could not be read.
const PAUSES: Schedule = Schedule { initial: Duration::from_secs(1), max: Duration::from_secs(60) };

/// Why a user could not be read.
struct Unread {
    why: String,
    /// Whether it comes of Okta being down, which the log has already.
    told: bool,
}

impl Unread {
    fn of(engine: &Engine, error: &OktaError, began: Duration) -> Self {
        let failure = error.to_failure();
        let sign = Sign::of_failure(&failure);
        let down = engine.reach.saw(OKTA, sign, began, engine.clock.elapsed());
        let told = down && matches!(sign, Sign::Failed(_));
        Self { why: failure.detail, told }
    }
}

/// Reads users for the guard and remembers what they were.
pub(super) struct Reader {
    engine: Arc<Engine>,
    known: Arc<Standings>,
    reading: JoinSet<(String, Result<Standing, Unread>)>,
    /// Who is being read.
    users: HashSet<String>,
}

impl Reader {
    pub(super) fn new(engine: Arc<Engine>) -> Self {
        Self { engine, known: Arc::default(), reading: JoinSet::new(), users: HashSet::new() }
    }

    /// What is known now.
    pub(super) fn known(&self) -> Arc<Standings> {
        Arc::clone(&self.known)
    }

    /// Begins to read these users, as many as may be read at once. Who is left over is asked for at the next claim.
    pub(super) fn read(&mut self, users: impl IntoIterator<Item = String>) {
        for user in users {
            if self.users.len() >= READING {
                break;
            }
            if self.users.insert(user.clone()) {
                let engine = Arc::clone(&self.engine);
                self.reading.spawn(async move {
                    let began = engine.clock.elapsed();
                    let read = survive_async(standing(&engine, &user)).await;
                    let read = match read {
                        Some(read) => read.map_err(|error| Unread::of(&engine, &error, began)),
                        None => Err(Unread { why: survive::WORDS.to_owned(), told: false }),
                    };
                    (user, read)
                });
            }
        }
    }

    /// Waits until a user has been read and remembers him; pending while nobody is.
    pub(super) async fn next(&mut self) {
        match self.reading.join_next().await {
            None => std::future::pending().await,
            Some(Ok((user, read))) => {
                self.users.remove(&user);
                self.remember(&user, read, self.engine.clock.now());
            }
            Some(Err(error)) => {
                warn!("reading a user for the guard failed: {error}");
                self.users.clear();
            }
        }
    }

    fn remember(&mut self, user: &str, read: Result<Standing, Unread>, now: Timestamp) {
        let known = Arc::make_mut(&mut self.known);
        match read {
            Ok(standing) => known.read(user, standing, now),
            Err(Unread { why, told }) => {
                let why = format!(
                    "whether this user is protected cannot be told, and nothing of his is changed before it can: {why}"
                );
                let failures = known.failed(user, why.clone(), |failures| PAUSES.pause(failures, user), now);
                // Once is enough: why an action waits stands in the ledger as well.
                if failures == 1 && !told {
                    warn!(user, "{why}");
                }
            }
        }
    }
}

/// Reads a user as far as the guard's lists ask for him. Who does not exist needs no protection.
async fn standing(engine: &Engine, name: &str) -> Result<Standing, OktaError> {
    // A remediation waits for this, and no other one is held up by it.
    let okta = engine.okta.patiently();
    let Some(user) = okta.user(name).await? else { return Ok(Standing::default()) };
    let (groups, roles) = engine.guard.reads();
    let mut standing = Standing { login: user.login, ..Standing::default() };
    if groups {
        let groups = okta.user_groups(&user.id).await?;
        standing.groups = groups.into_iter().flat_map(|group| [group.name, group.id]).collect();
    }
    if roles {
        let roles = okta.user_roles(&user.id).await?;
        let names = |role: crate::okta::users::AdminRole| [Some(role.kind), role.label, role.role];
        standing.roles = roles.into_iter().flat_map(names).flatten().collect();
    }
    standing.id = Some(user.id);
    Ok(standing)
}
