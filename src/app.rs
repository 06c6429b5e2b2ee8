//! Puts the daemon together, starts its tasks by name, and stops them in order.

mod identity;
mod keeper;
pub mod rights;
mod tasks;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use secrecy::ExposeSecret;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::identity::{Identity, credential, own_id, own_id_soon};
pub use self::identity::{okta_client, okta_client_with};
use self::tasks::{start, through};
use crate::config::load::Loaded;
use crate::config::network::NetworkError;
use crate::config::secret::{LiveSecret, SecretEnv, SecretError, SecretSource};
use crate::config::values::ValueError;
use crate::config::{self, Config};
use crate::connectors::{Registry, ServiceSecrets, Services, SetupError};
use crate::engine::clock::Clock;
use crate::engine::{Engine, Parts, Settings, TaskError};
use crate::guard::Guard;
use crate::http::Network;
use crate::model::ids::StreamId;
use crate::okta::auth::AuthError;
use crate::okta::client::OktaSetupError;
use crate::okta::{Gate, OktaClient};
use crate::playbook::facts::LinkBase;
use crate::store::{InstanceLock, LockError, Store, StoreError};
use crate::telemetry::systemd;

/// What the outside tells a running daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Finish what is under way and end. The second time: end now.
    Stop,
    /// Check the configuration and go on with it.
    Reload,
}

/// What a process does with the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Everything, until it is told to stop.
    Daemon,
    /// Only one backfill, until it is through.
    Backfill(StreamId),
}

/// Why the daemon could not start or go on.
#[derive(Debug, Error)]
pub enum AppError {
    /// Another process works on the state file.
    #[error(transparent)]
    Locked(#[from] LockError),
    /// The state file cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A secret cannot be had.
    #[error("{place} cannot be read: {}", .source.remedy())]
    Secret {
        /// The key.
        place: Cow<'static, str>,
        /// Why.
        #[source]
        source: SecretError,
    },
    /// The token or the key cannot be used.
    #[error("[okta] does not sign in: {0}")]
    Auth(AuthError),
    /// There is no way to sign in, or more than one; `check` would have told.
    #[error("[okta] has to name either a token or a client_id and its private_key")]
    NoSignIn,
    /// No client for Okta can be made.
    #[error(transparent)]
    Okta(#[from] OktaSetupError),
    /// A service cannot be set up.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// A value is wrong; `check` would have told.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// The way out of this host cannot be used as it is written.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// Okta does not take the token or the service app.
    #[error("Okta does not say who the new configuration signs in as: {0}")]
    Stranger(String),
    /// A task cannot go on.
    #[error("the task `{task}` cannot go on")]
    Task {
        /// Its name.
        task: &'static str,
        /// Why.
        #[source]
        source: TaskError,
    },
    /// A task ended or failed in itself.
    #[error("the task `{0}` ended by itself")]
    TaskEnded(&'static str),
}

impl AppError {
    /// Whether it comes of a damaged state file.
    fn is_damage(&self) -> bool {
        let (Self::Store(error) | Self::Task { source: TaskError::Store(error), .. }) = self else { return false };
        matches!(error, StoreError::Corrupt)
    }
}

/// The daemon, put together but not started.
pub struct App {
    loaded: Loaded,
    ground: Ground,
    lock: Arc<InstanceLock>,
}

/// What stays when the configuration changes.
#[derive(Clone)]
struct Ground {
    env: SecretEnv,
    clock: Clock,
    store: Store,
    /// Rung when the check of the file has found damage.
    damaged: CancellationToken,
}

/// An engine that is ready to begin, and what it was made from.
struct Assembled {
    engine: Engine,
    loaded: Loaded,
    identity: Identity,
}

impl App {
    /// Takes the state file for this process. Nothing is asked of any service yet.
    pub fn open(loaded: Loaded, env: SecretEnv, purpose: &str) -> Result<Self, AppError> {
        let state = state_path(&loaded.config);
        let lock = InstanceLock::take(&state, purpose)?;
        let store = Store::open(&state)?;
        let ground = Ground { env, clock: Clock::start(), store, damaged: CancellationToken::new() };
        Ok(Self { loaded, ground, lock: Arc::new(lock) })
    }

    /// The state file, for a command that watches its own work.
    pub fn store(&self) -> &Store {
        &self.ground.store
    }

    /// Works until it is told to stop, or until the backfill is through. `reload` reads the configuration anew; what it
    /// says is wrong leaves the old one in force.
    ///
    /// A file that was not left in order is checked beside the work. One that is known to be damaged is checked first, and
    /// nothing is done with it unless it is whole again.
    pub async fn run(
        self,
        work: Work,
        mut signals: mpsc::Receiver<Signal>,
        reload: impl Fn() -> Option<Loaded>,
    ) -> Result<(), AppError> {
        let Self { loaded, ground, lock } = self;
        let _watch = keeper::watch_trouble(ground.store.clone(), lock);
        let ended = match keeper::begin(&ground.store, ground.clock, &ground.damaged, &mut signals).await {
            Ok(Some(_check)) => ground.work(loaded, work, &mut signals, &reload).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error.into()),
        };
        let damaged = ended.as_ref().is_err_and(AppError::is_damage);
        keeper::end(&ground.store, ground.clock.now(), ended.is_ok(), damaged).await;
        ended
    }
}

impl Ground {
    /// One engine after the other.
    async fn work(
        &self,
        loaded: Loaded,
        work: Work,
        signals: &mut mpsc::Receiver<Signal>,
        reload: &impl Fn() -> Option<Loaded>,
    ) -> Result<(), AppError> {
        let state = state_path(&loaded.config);
        let mut next = Ended::Reload(Box::new(loaded));
        loop {
            let assembled = match next {
                Ended::Stopped => return Ok(()),
                Ended::Damaged => return Err(StoreError::Corrupt.into()),
                Ended::Replaced(assembled) => *assembled,
                Ended::Reload(loaded) => match self.assemble(*loaded, signals, reload).await? {
                    Ok(assembled) => assembled,
                    Err(ended) => {
                        next = ended;
                        continue;
                    }
                },
            };
            let wanted = state_path(&assembled.loaded.config);
            if wanted != state {
                warn!("the state file stays {}; {} takes a restart", state.display(), wanted.display());
            }
            let engine = Arc::new(assembled.engine);
            if let Err(error) = self.store.record_configuration(assembled.loaded.sha256, self.clock.now()).await {
                warn!("the journal could not be told by which configuration the daemon goes: {error}");
            }
            next = serve(engine, work, signals, reload, (self, &assembled.identity)).await?;
            if matches!(next, Ended::Replaced(_)) {
                info!("the configuration is read again");
            }
        }
    }

    /// Builds the first engine; asks Okta who we are, until it answers. The inner error says what the daemon was told
    /// meanwhile: to stop, or to go on with another configuration, since it may be the token of this one that Okta refuses.
    async fn assemble(
        &self,
        loaded: Loaded,
        signals: &mut mpsc::Receiver<Signal>,
        reload: &impl Fn() -> Option<Loaded>,
    ) -> Result<Result<Assembled, Ended>, AppError> {
        let gate = Gate::new(loaded.config.okta.rate_share);
        let okta = Arc::new(okta_client(&loaded, &self.env)?.through(gate));
        let own_id = tokio::select! {
            id = own_id(&okta, &self.store, self.clock) => id,
            ended = told(signals, reload) => return Ok(Err(ended)),
            () = self.damaged.cancelled() => return Ok(Err(Ended::Damaged)),
        };
        self.put_together(loaded, okta, own_id, BTreeMap::new()).map(Ok)
    }

    /// Builds the engine that takes over after a reload; the old one works on meanwhile, and goes on if this fails. Where org
    /// and credential stay the same it is known who we are, so that a reload gets through while Okta does not.
    async fn succeed(self, loaded: Loaded, known: Identity) -> Result<Assembled, AppError> {
        let (share, org_url) = (loaded.config.okta.rate_share, loaded.config.org_url()?);
        // What was sent to the org counts for the new configuration as well.
        let gate = if org_url.as_str() == known.org_url { known.gate.clone() } else { Gate::new(share) };
        let okta = Arc::new(okta_client(&loaded, &self.env)?.through(gate.clone()));
        let same = credential(&loaded, &self.env)?.expose_secret() == known.credential.expose_secret();
        let own_id = if same { known.own_id.clone() } else { own_id_soon(&okta).await? };
        let former_ids = known.former_ids_of(&own_id, self.clock.now());
        let assembled = self.put_together(loaded, okta, own_id, former_ids)?;
        // Last, because the old engine goes on with the old share if anything fails.
        gate.set_share(share);
        Ok(assembled)
    }

    fn put_together(
        &self,
        mut loaded: Loaded,
        okta: Arc<OktaClient>,
        own_id: String,
        former_ids: BTreeMap<String, Timestamp>,
    ) -> Result<Assembled, AppError> {
        let config = &loaded.config;
        let network = network(config, &self.env)?;
        for (service, way) in
            config::network::told_ways(config, &self.env)?.into_iter().filter(|(_, way)| way != "direct")
        {
            info!(service, "[{service}] is reached {way}");
        }
        let services = Services::new(config, Arc::clone(&okta), service_secrets(config, &self.env)?, &network)?;
        let identity = Identity {
            org_url: config.org_url()?.into(),
            credential: credential(&loaded, &self.env)?,
            own_id: own_id.clone(),
            former_ids: former_ids.clone(),
            gate: okta.gate().clone(),
        };
        let engine = Engine::new(Parts {
            clock: self.clock,
            store: self.store.clone(),
            okta,
            playbooks: std::mem::take(&mut loaded.playbooks),
            connectors: Registry::new(&services),
            guard: Guard::new(&config.guard, [own_id]).formerly(former_ids),
            links: links(config)?,
            settings: Settings::of(config),
        });
        Ok(Assembled { engine, loaded, identity })
    }
}

/// The way out of this host that a configuration names.
pub fn network(config: &Config, env: &SecretEnv) -> Result<Network, AppError> {
    Ok(config::network::network(config, env)?)
}

/// Where the links in messages lead.
pub fn links(config: &Config) -> Result<LinkBase, AppError> {
    Ok(LinkBase::new(config.org_url()?.as_str(), Some(config.admin_url()?.as_str())))
}

/// The state file of a configuration.
pub fn state_path(config: &Config) -> PathBuf {
    config.state_path(std::env::var_os("STATE_DIRECTORY").as_deref())
}

/// The secrets of the services other than Okta, read for the first time.
pub fn service_secrets(config: &Config, env: &SecretEnv) -> Result<ServiceSecrets, AppError> {
    let read = |place: Cow<'static, str>, source: &SecretSource| {
        LiveSecret::read(source, env).map_err(|source| AppError::Secret { place, source })
    };
    let optional = |place: &'static str, source: Option<&SecretSource>| {
        source.map(|source| read(Cow::Borrowed(place), source)).transpose()
    };
    let http = config.http.iter().filter_map(|(name, section)| {
        let (key, source) = section.secret()?;
        Some(read(format!("http.{name}.{key}").into(), source).map(|secret| (name.clone(), secret)))
    });
    let servicenow = config.servicenow.as_ref();
    let slack = config.slack.as_ref();
    Ok(ServiceSecrets {
        servicenow_password: optional("servicenow.password", servicenow.and_then(|s| s.password.as_ref()))?,
        servicenow_client_secret: optional(
            "servicenow.client_secret",
            servicenow.and_then(|s| s.client_secret.as_ref()),
        )?,
        jira_token: optional("jira.token", config.jira.as_ref().map(|s| &s.token))?,
        pagerduty_routing_key: optional("pagerduty.routing_key", config.pagerduty.as_ref().map(|s| &s.routing_key))?,
        slack_token: optional("slack.token", slack.and_then(|s| s.token.as_ref()))?,
        slack_webhook_url: optional("slack.webhook_url", slack.and_then(|s| s.webhook_url.as_ref()))?,
        teams_webhook_url: optional("teams.webhook_url", config.teams.as_ref().map(|s| &s.webhook_url))?,
        email_password: optional("email.password", config.email.as_ref().and_then(|s| s.password.as_ref()))?,
        http: http.collect::<Result<_, _>>()?,
    })
}

/// Waits until the daemon is told to stop, or to go on with a configuration that is right.
async fn told(signals: &mut mpsc::Receiver<Signal>, reload: &impl Fn() -> Option<Loaded>) -> Ended {
    while let Some(signal) = signals.recv().await {
        match signal {
            Signal::Stop => return Ended::Stopped,
            Signal::Reload => {
                if let Some(loaded) = reload() {
                    return Ended::Reload(Box::new(loaded));
                }
            }
        }
    }
    Ended::Stopped
}

async fn stopped(signals: &mut mpsc::Receiver<Signal>) {
    while let Some(signal) = signals.recv().await {
        if signal == Signal::Stop {
            return;
        }
    }
    // Nobody can send a signal any more; only the end of the process ends this.
    std::future::pending::<()>().await;
}

/// What comes after an engine.
enum Ended {
    /// Nothing.
    Stopped,
    /// One that is still to be put together.
    Reload(Box<Loaded>),
    /// One that is ready.
    Replaced(Box<Assembled>),
    /// The check has found damage in the state file.
    Damaged,
}

/// Lets an engine work until something else is to come.
async fn serve(
    engine: Arc<Engine>,
    work: Work,
    signals: &mut mpsc::Receiver<Signal>,
    reload: &impl Fn() -> Option<Loaded>,
    (ground, identity): (&Ground, &Identity),
) -> Result<Ended, AppError> {
    let mark_lost = || engine.store.mark_lost(engine.clock.now(), engine.patience());
    let Some(lost) = keeper::patiently(&engine.store, signals, mark_lost).await? else {
        return Ok(Ended::Stopped);
    };
    if lost > 0 {
        warn!(
            lost,
            "requests were under way when the daemon ended; their targets are read back before anything is sent again"
        );
    }
    // Two steps to the end: first no new work is taken on, then nothing is waited for.
    let stop = CancellationToken::new();
    let mut tasks = start(&engine, work, &stop);
    let heartbeat = {
        let (engine, stop) = (Arc::clone(&engine), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = engine.pulse.until_ready() => systemd::ready("reading the System Log"),
                () = stop.cancelled() => return,
            }
            info!("ready: the System Log is being read");
            systemd::heartbeat(&engine.pulse, stop).await;
        })
    };
    let mut successor: JoinSet<Result<Assembled, AppError>> = JoinSet::new();
    let mut ended = loop {
        tokio::select! {
            signal = signals.recv() => match signal {
                Some(Signal::Stop) => break Ok(Ended::Stopped),
                Some(Signal::Reload) => {
                    systemd::reloading();
                    match reload() {
                        Some(loaded) => {
                            successor = JoinSet::new();
                            successor.spawn(ground.clone().succeed(loaded, identity.clone()));
                        }
                        None => systemd::ready("the new configuration is wrong; the old one stays in force"),
                    }
                }
                None => break Ok(Ended::Stopped),
            },
            Some(assembled) = successor.join_next() => match assembled {
                Ok(Ok(assembled)) => break Ok(Ended::Replaced(Box::new(assembled))),
                Ok(Err(error)) => {
                    error!("{error}; the old configuration stays in force, mend the new one and reload again");
                    systemd::ready("the new configuration does not work; the old one stays in force");
                }
                Err(error) => error!("the reload failed in itself; the old configuration stays in force: {error}"),
            },
            Some(done) = tasks.join_next() => match done {
                Ok((task, Err(source))) => break Err(AppError::Task { task, source }),
                Ok((_, Ok(()))) if matches!(work, Work::Backfill(_)) => {}
                Ok((task, Ok(()))) => break Err(AppError::TaskEnded(task)),
                Err(_) => break Err(AppError::TaskEnded("unknown")),
            },
            () = through(&engine, work) => break Ok(Ended::Stopped),
            () = ground.damaged.cancelled() => break Err(StoreError::Corrupt.into()),
        }
    };
    if matches!(ended, Ok(Ended::Stopped)) {
        systemd::stopping();
    }
    stop.cancel();
    loop {
        tokio::select! {
            () = async { while tasks.join_next().await.is_some() {} } => break,
            // Told to stop while the tasks end for another configuration: that is the first time, and the last word.
            () = stopped(signals) => if matches!(ended, Ok(Ended::Reload(_) | Ended::Replaced(_))) {
                systemd::stopping();
                ended = Ok(Ended::Stopped);
            } else {
                warn!("told to stop again: what is under way is left, and read back at the next start");
                break;
            },
        }
    }
    heartbeat.abort();
    if let Err(error) = &ended {
        error!("stopping: {error}");
    }
    ended
}
