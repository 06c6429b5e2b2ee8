//! The incident, played from its beginning to its end.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use thiserror::Error;
use tokio::time::{sleep, timeout};

use super::daemon::{Daemon, LogTail, command};
use super::ledger::{self, LedgerSnapshot};
use super::org::{Effect, Fault, Hold, Misbehaviour, Org, OrgOptions, Request, Service, events};
use super::script::{Cast, Scripted};
use super::show::{Entry, Flow, Kind, Show};
use super::stage::Stage;
use super::tally::{self, Outcome, Tally};
use super::words::{self, Words};
use crate::store::{EventRow, Store, StoreError};

/// The bound on every step. Long, because machines are shared; nothing waits longer than it has to.
const BOUND: Duration = Duration::from_secs(20);
/// How often the org and the ledger are looked at while a step is waited for.
const LOOK: Duration = Duration::from_millis(25);
/// Requests that ServiceNow refuses before it is well again.
const REFUSALS: usize = 2;
/// How long Okta refuses the take-back for the rate limit; the daemon waits a second longer, to be sure.
const RATE_LIMITED: Duration = Duration::from_secs(1);

/// Why the demo did not come to its end.
#[derive(Debug, Error)]
pub enum DemoError {
    /// No port could be opened.
    #[error("the simulated org cannot listen on 127.0.0.1")]
    Org(#[source] io::Error),
    /// No directory of its own.
    #[error("no directory for the demo could be made below {}; set TMPDIR to one that is yours", .0.display())]
    Stage(PathBuf, #[source] io::Error),
    /// The daemon did not start.
    #[error("the daemon, {} run, could not be started", .0.display())]
    Daemon(PathBuf, #[source] io::Error),
    /// The daemon ended though nobody told it to.
    #[error("the daemon ended by itself ({0}); its last lines say why")]
    Ended(ExitStatus),
    /// A command beside the daemon failed.
    #[error("`okta-responder {0}` failed: {1}")]
    Command(String, String),
    /// The daemon's process cannot be watched or killed.
    #[error("the process of the daemon cannot be controlled")]
    Process(#[source] io::Error),
    /// The daemon's record cannot be read.
    #[error("the state file of the demo cannot be read")]
    Store(#[from] StoreError),
    /// A step took too long.
    #[error("the demo waited in vain, {waited:?}, until {step}")]
    Late {
        /// What was waited for.
        step: &'static str,
        /// How long.
        waited: Duration,
    },
    /// The output cannot be written.
    #[error("the story cannot be written")]
    Write(#[from] io::Error),
}

/// What came of the demo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Events of the log that playbooks ask for.
    pub events: usize,
    /// Runs on record.
    pub runs: usize,
    /// Actions on record by state.
    pub actions: BTreeMap<String, u64>,
    /// Changes that services processed.
    pub effects: usize,
    /// Changes that the script does not call for, or not again.
    pub duplicates: usize,
    /// Events that were not handled, or miss a change that the script calls for.
    pub lost: usize,
    /// How long it took.
    pub took: Duration,
}

impl Summary {
    /// Whether everything happened exactly once.
    pub fn is_good(&self) -> bool {
        self.duplicates == 0 && self.lost == 0
    }

    /// The last line of `--format json`.
    pub fn json(&self) -> Value {
        json!({
            "events": self.events, "runs": self.runs, "actions": self.actions, "effects": self.effects,
            "duplicate_effects": self.duplicates, "lost_events": self.lost,
            "seconds": self.took.as_millis() as f64 / 1000.0,
        })
    }
}

/// The demo: org, daemon and script. Dropping it stops both and takes the files away; the order of the fields is the order
/// in which that happens.
pub struct Demo {
    daemon: Option<Daemon>,
    store: Option<Store>,
    stage: Stage,
    org: Org,
    program: PathBuf,
    log: LogTail,
    cast: Cast,
    show: Show,
    began: Timestamp,
    played: Vec<Played>,
    told: Told,
    /// Whether everything goes on running when the story is told.
    keep: bool,
}

/// An event that is in the log.
struct Played {
    uuid: String,
    scripted: Scripted,
}

/// What has been shown already.
#[derive(Default)]
struct Told {
    effects: usize,
    refusals: HashSet<usize>,
    events: HashSet<i64>,
    actions: HashMap<i64, (String, u32)>,
}

/// How things stand at one moment.
struct Seen {
    effects: Vec<Effect>,
    requests: Vec<Request>,
    ledger: LedgerSnapshot,
}

impl Demo {
    /// Starts the org and writes the configuration. `program` is this program, whose `run` is the daemon.
    pub async fn prepare(program: PathBuf, show: Show, keep: bool) -> Result<Self, DemoError> {
        // The daemon signs in as a service app; there is no other way in.
        let options = OrgOptions { ssws_allowed: false, ..OrgOptions::default() };
        let org = Org::start(options).await.map_err(DemoError::Org)?;
        let began = org.now();
        let cast = Cast::enter(&org);
        let stage = Stage::build(&org, &cast).map_err(|source| DemoError::Stage(std::env::temp_dir(), source))?;
        Ok(Self {
            daemon: None,
            store: None,
            stage,
            org,
            program,
            log: LogTail::default(),
            cast,
            show,
            began,
            played: Vec::new(),
            told: Told::default(),
            keep,
        })
    }

    /// Plays the incident and says what came of it. When a step does not come within its bound, the story ends there; what
    /// there is by then is told all the same.
    pub async fn play(&mut self) -> Result<Summary, DemoError> {
        let played = match self.play_acts().await {
            Err(error) if !matches!(error, DemoError::Late { .. }) => return Err(error),
            played => played,
        };
        let seen = self.look().await?;
        let summary = self.conclude(&seen)?;
        played.map(|()| summary)
    }

    async fn play_acts(&mut self) -> Result<(), DemoError> {
        self.takeover().await?;
        self.busy_minute().await?;
        self.outage().await?;
        self.kill().await?;
        self.revert().await?;
        self.rest().await
    }

    /// The daemon's last lines.
    pub fn log(&self) -> Vec<String> {
        self.log.lines()
    }

    /// Where everything is, and what to try, for whoever keeps it running.
    pub fn guide(&self) -> Vec<String> {
        let (program, config) = (self.program.display(), self.stage.config());
        let config = config.display();
        let daemon = self.daemon.as_ref().map(|daemon| format!("process {}", daemon.id())).unwrap_or_default();
        vec![
            format!("Okta        {}", self.org.okta_url()),
            format!("ServiceNow  {}", self.org.servicenow_url()),
            format!("Slack       {}", self.org.slack_api_url()),
            format!("mail        127.0.0.1:{}", self.org.smtp_port()),
            format!("daemon      {daemon}"),
            format!("files       {config}, {}", self.stage.state().display()),
            "Try:".to_owned(),
            format!("  {program} status --config {config}"),
            format!("  {program} runs list --config {config}"),
            format!("  {program} actions list --config {config}"),
            format!("  {program} check --online --config {config}"),
        ]
    }

    async fn takeover(&mut self) -> Result<(), DemoError> {
        self.show.heading("1. Ann's account is taken over")?;
        self.start_daemon("starts on an empty state file")?;
        self.until("the daemon reads the log", |_, seen| {
            seen.requests.iter().any(|request| request.path.contains("/api/v1/logs") && request.status == Some(200))
        })
        .await?;
        // From here on the state file is there, with its schema.
        self.store = Some(Store::open_existing(&self.stage.state())?);
        let too_many = Misbehaviour::RateLimited { reset_in: RATE_LIMITED };
        self.org.fault(Fault::new(Service::Okta, too_many).method("DELETE").path(&self.cast.ann_at_payroll()));
        let takeover = self.cast.takeover(&self.org);
        let first = self.play_events(takeover)?;
        self.until("Ann is in quarantine and everybody is told", move |demo, seen| demo.is_complete(seen, first)).await
    }

    async fn busy_minute(&mut self) -> Result<(), DemoError> {
        self.show.heading("2. The same minute elsewhere, and Ann's next sign-in")?;
        let minute = self.cast.busy_minute(&self.org);
        let first = self.play_events(minute)?;
        self.until("the busy minute is answered", move |demo, seen| {
            (first..demo.played.len()).all(|event| demo.is_complete(seen, event))
        })
        .await?;
        self.decide().await
    }

    /// The manager decides about the app that Dan was given. The events that follow are Okta's own; what they call for is
    /// counted with the event that began it all.
    async fn decide(&mut self) -> Result<(), DemoError> {
        let dan = self.cast.dan.id.clone();
        let Some(review) = self.org.access_reviews().into_iter().find(|review| review.user == dan) else {
            return Ok(());
        };
        self.show.remark("            (Mia Stone opens the access review and revokes all that Dan Ortiz has)")?;
        self.org.decide_review(&review.id, false);
        let expected = self.cast.decision();
        let review_of_dan = |played: &Played| played.scripted.expected.iter().any(|one| one.kind == "review.start");
        let Some(place) = self.played.iter().position(review_of_dan) else { return Ok(()) };
        if let Some(played) = self.played.get_mut(place) {
            played.scripted.expected.extend(expected);
        }
        self.until("the end of the review is told", move |demo, seen| demo.is_complete(seen, place)).await
    }

    async fn outage(&mut self) -> Result<(), DemoError> {
        self.show.heading("3. ServiceNow is down when the next account is taken over")?;
        let down = Misbehaviour::status(503, "down for maintenance");
        self.org.fault(Fault::new(Service::ServiceNow, down).always());
        let rise = self.cast.rise_of_finn();
        let first = self.play_events(rise)?;
        let before = self.refusals();
        self.until("Finn is in quarantine while ServiceNow is down", move |demo, _| {
            demo.cast.is_quarantined(&demo.org, &demo.cast.finn) && demo.refusals() >= before + REFUSALS
        })
        .await?;
        self.show.remark("            (the quarantine did not wait for ServiceNow, which is well again now)")?;
        self.org.clear_faults();
        self.until("the incident is created after the outage", move |demo, seen| demo.is_complete(seen, first)).await
    }

    async fn kill(&mut self) -> Result<(), DemoError> {
        self.show.heading("4. The daemon is killed while ServiceNow creates an incident")?;
        let hold = Hold::new();
        self.org.fault(Fault::new(Service::ServiceNow, Misbehaviour::Hold(hold.clone())).method("POST"));
        let rise = self.cast.rise_of_gia();
        let first = self.play_events(rise)?;
        // Only this one request is to be under way, so that every run of the demo tells the same story.
        let gia = self.cast.gia.id.clone();
        self.until("only the incident of Gia is under way", move |_, seen| {
            let mut open = seen.ledger.open_actions().filter(|action| !action.step.starts_with("tell-security"));
            seen.ledger.events.iter().all(ledger::has_ended)
                && open.next().is_some_and(|action| {
                    action.step == "incident" && action.user.as_ref() == Some(&gia) && action.state == "started"
                })
                && open.next().is_none()
        })
        .await?;
        let held = hold.held(BOUND).await;
        held.map_err(|error| DemoError::Late { step: "ServiceNow has the incident of Gia", waited: error.waited })?;
        self.until("ServiceNow has the incident of Gia", |demo, seen| demo.told.effects == seen.effects.len()).await?;
        if let Some(daemon) = self.daemon.take() {
            let id = daemon.id();
            daemon.kill().map_err(DemoError::Process)?;
            let text = format!("killed with SIGKILL (process {id}) before ServiceNow's answer reached it");
            self.tell_daemon(text, true, json!({"state": "killed", "pid": id}))?;
        }
        hold.release();
        let meanwhile = self.cast.meanwhile(&self.org);
        self.play_events(meanwhile)?;
        self.deliver_again()?;
        self.start_daemon("starts again: the cursor and the open request are in the state file")?;
        self.until("the incident of Gia is settled by looking it up", move |demo, seen| demo.is_complete(seen, first))
            .await
    }

    /// A person finds that the alarm about Gia was a false one, and has what was done undone.
    async fn revert(&mut self) -> Result<(), DemoError> {
        self.show.heading("5. The alarm about Gia was a false one")?;
        // Only what has ended can be undone.
        self.until("the answer to the alarm has ended", |_, seen| seen.ledger.is_at_rest()).await?;
        let gia = Some(self.cast.gia.id.clone());
        let seen = self.look().await?;
        let Some(run) = seen.ledger.runs.iter().find(|run| run.user == gia) else { return Ok(()) };
        let Some(place) = self.played.iter().position(|played| played.uuid == run.event_uuid) else { return Ok(()) };
        let words = format!("runs revert {} --yes", run.id);
        self.show.remark(&format!("            (a person types: okta-responder {words})"))?;
        let expected = self.cast.all_clear_for_gia();
        if let Some(played) = self.played.get_mut(place) {
            played.scripted.expected.extend(expected);
        }
        let (program, config) = (self.program.clone(), self.stage.config());
        let arguments = words.clone();
        let ended =
            tokio::task::spawn_blocking(move || command(&program, &config, &arguments.split(' ').collect::<Vec<_>>()));
        let output = ended.await.map_err(io::Error::other).flatten().map_err(DemoError::Process)?;
        if !output.status.success() {
            return Err(DemoError::Command(words, String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        self.until("what was done about Gia is undone", move |demo, seen| demo.is_complete(seen, place)).await
    }

    /// Waits until nothing is left to do, and for one more look into the log after that: what is done twice would be
    /// done by then.
    async fn rest(&mut self) -> Result<(), DemoError> {
        self.until("the daemon is through with everything", |demo, seen| {
            seen.ledger.is_at_rest() && demo.tally(seen).lost.is_empty()
        })
        .await?;
        let polls = |seen: &Seen| {
            let answered = |request: &&Request| request.path.contains("/api/v1/logs") && request.status.is_some();
            seen.requests.iter().filter(answered).count()
        };
        let before = polls(&self.look().await?);
        self.until("the log is read once more", move |_, seen| polls(seen) > before && seen.ledger.is_at_rest())
            .await?;
        let quarantined = |user| if self.cast.is_quarantined(&self.org, user) { "in quarantine" } else { "released" };
        let (ann, finn) = (quarantined(&self.cast.ann), quarantined(&self.cast.finn));
        Ok(self.show.remark(&format!("            (Ann Miller is {ann}, Finn Walsh is {finn})"))?)
    }

    fn conclude(&mut self, seen: &Seen) -> Result<Summary, DemoError> {
        let tally = self.tally(seen);
        let flows: Vec<Flow> = seen.ledger.runs.iter().map(|run| self.flow(seen, run.id)).collect();
        self.show.flows(&flows)?;
        for place in &tally.surplus {
            if let Some(effect) = seen.effects.get(*place) {
                self.show.remark(&format!("  not called for: {}", self.words().of_effect(effect)))?;
            }
        }
        for place in &tally.lost {
            let what =
                self.played.get(*place).map_or("Okta's answer to the end of Ann's sessions", |one| &one.scripted.text);
            let line = format!("  lost: {what}");
            self.show.remark(&line)?;
        }
        let mut actions = BTreeMap::new();
        for action in &seen.ledger.actions {
            *actions.entry(action.state.clone()).or_default() += 1;
        }
        let summary = Summary {
            // The echo is Okta's own event; all others are the script's.
            events: self.played.len() + 1,
            runs: seen.ledger.runs.len(),
            actions,
            effects: tally.effects,
            duplicates: tally.surplus.len(),
            lost: tally.lost.len(),
            took: self.now(),
        };
        self.show.summary(&summary)?;
        self.show.heading("Next")?;
        if !self.keep {
            self.show.remark(
                "  okta-responder demo --keep   keeps all of this running, and names the commands that look into it",
            )?;
        }
        self.show.remark(
            "  config.example.toml          holds the playbooks that ran here; `okta-responder check` reads yours",
        )?;
        Ok(summary)
    }

    /// The script against the world as it is. The last outcome is the echo, which nobody scripted: Okta lowers Ann's risk
    /// because her sessions were ended, and nothing must follow from that.
    fn tally(&self, seen: &Seen) -> Tally {
        let ended = |uuid: &str| seen.ledger.event(uuid).is_some_and(ledger::has_ended);
        let mut outcomes: Vec<Outcome<'_>> = self
            .played
            .iter()
            .map(|one| Outcome { ended: ended(&one.uuid), expected: &one.scripted.expected })
            .collect();
        let echo_ended = seen.ledger.events.iter().any(|event| self.is_echo(event) && event.state == "skipped");
        outcomes.push(Outcome { ended: echo_ended, expected: &[] });
        tally::count(&outcomes, &seen.effects)
    }

    fn is_echo(&self, event: &EventRow) -> bool {
        event.user.as_ref() == Some(&self.cast.ann.id)
            && event.event_type == "user.risk.detect"
            && !self.played.iter().any(|one| one.uuid == event.uuid)
    }

    /// Whether this event has ended and every change it calls for is there.
    fn is_complete(&self, seen: &Seen, event: usize) -> bool {
        !self.tally(seen).lost.contains(&event)
    }

    fn start_daemon(&mut self, how: &str) -> Result<(), DemoError> {
        let started = Daemon::start(&self.program, &self.stage.config(), &self.log);
        let daemon = started.map_err(|source| DemoError::Daemon(self.program.clone(), source))?;
        let id = daemon.id();
        self.daemon = Some(daemon);
        self.tell_daemon(format!("{how} (process {id})"), false, json!({"state": "started", "pid": id}))
    }

    /// Puts events into the log, in one moment. Returns the place of the first.
    fn play_events(&mut self, scripted: Vec<Scripted>) -> Result<usize, DemoError> {
        let first = self.played.len();
        let now = self.org.now();
        let dated = |scripted: &Scripted| match scripted.event.get("published") {
            Some(_) => scripted.event.clone(),
            None => events::published_at(scripted.event.clone(), now),
        };
        let records: Vec<Value> = scripted.iter().map(dated).collect();
        let uuids = self.org.push_events(records.clone());
        for ((mut scripted, event), uuid) in scripted.into_iter().zip(records).zip(uuids) {
            scripted.event = event;
            let text = scripted.text.clone();
            self.tell_event(text, &uuid, &scripted.event)?;
            self.played.push(Played { uuid, scripted });
        }
        Ok(first)
    }

    /// Okta may deliver an event twice, and this one is.
    fn deliver_again(&mut self) -> Result<(), DemoError> {
        let Some(first) = self.played.first() else { return Ok(()) };
        let mut record = first.scripted.event.clone();
        if let Value::Object(record) = &mut record {
            record.insert("uuid".to_owned(), Value::from(first.uuid.as_str()));
        }
        let (uuid, text) = (first.uuid.clone(), format!("once more, the same record: {}", first.scripted.text));
        self.org.push_event(record.clone());
        self.tell_event(text, &uuid, &record)
    }

    /// Looks until something is so, and tells meanwhile what happens.
    async fn until(&mut self, step: &'static str, is_so: impl Fn(&Self, &Seen) -> bool) -> Result<(), DemoError> {
        let coming = async {
            loop {
                let seen = self.look().await?;
                if is_so(self, &seen) {
                    return Ok(());
                }
                sleep(LOOK).await;
            }
        };
        timeout(BOUND, coming).await.unwrap_or(Err(DemoError::Late { step, waited: BOUND }))
    }

    /// Looks at everything once and tells what is new.
    async fn look(&mut self) -> Result<Seen, DemoError> {
        if let Some(daemon) = &mut self.daemon
            && let Some(status) = daemon.ended().map_err(DemoError::Process)?
        {
            return Err(DemoError::Ended(status));
        }
        let ledger = match &self.store {
            Some(store) => LedgerSnapshot::of(store).await?,
            None => LedgerSnapshot::default(),
        };
        let seen = Seen { effects: self.org.effects(), requests: self.org.requests(), ledger };
        self.tell_news(&seen)?;
        Ok(seen)
    }

    fn tell_news(&mut self, seen: &Seen) -> Result<(), DemoError> {
        let mut news = Vec::new();
        for effect in seen.effects.iter().skip(self.told.effects) {
            news.push(self.words().effect(effect));
        }
        self.told.effects = seen.effects.len();
        for (place, request) in seen.requests.iter().enumerate() {
            if words::is_refusal(request) && self.told.refusals.insert(place) {
                news.push(words::refusal(request));
            }
        }
        for event in &seen.ledger.events {
            if ledger::has_ended(event) && self.told.events.insert(event.id) {
                news.push(self.words().decision(event, &seen.ledger));
            }
        }
        for action in &seen.ledger.actions {
            let now = (action.state.clone(), action.attempts);
            if self.told.actions.get(&action.id) != Some(&now) {
                news.extend(self.words().action(action));
                self.told.actions.insert(action.id, now);
            }
        }
        news.sort_by_key(|entry| entry.at);
        Ok(news.iter().try_for_each(|entry| self.show.entry(entry))?)
    }

    fn tell_event(&mut self, text: String, uuid: &str, event: &Value) -> Result<(), DemoError> {
        let details = json!({"type": event.get("eventType"), "uuid": uuid});
        let at = self.now();
        Ok(self.show.entry(&Entry { at, kind: Kind::Event, actor: "System Log", text, trouble: false, details })?)
    }

    fn tell_daemon(&mut self, text: String, trouble: bool, details: Value) -> Result<(), DemoError> {
        let at = self.now();
        Ok(self.show.entry(&Entry { at, kind: Kind::Daemon, actor: "daemon", text, trouble, details })?)
    }

    fn flow(&self, seen: &Seen, run: i64) -> Flow {
        let found = seen.ledger.runs.iter().find(|row| row.id == run);
        let of_run = seen.ledger.actions.iter().filter(|action| action.run == run && action.state != "skipped");
        let steps = of_run
            .map(|action| (action.step.clone(), action.state.clone(), action.attempts, words::number_of(action)))
            .collect();
        Flow {
            run,
            playbook: found.map(|row| row.playbook.clone()).unwrap_or_default(),
            event: found.map(|row| row.event_uuid.clone()).unwrap_or_default(),
            about: found.and_then(|row| row.user.as_ref()).map(|user| self.words().person(user)).unwrap_or_default(),
            steps,
        }
    }

    fn refusals(&self) -> usize {
        self.org.requests().iter().filter(|request| request.status == Some(503)).count()
    }

    fn words(&self) -> Words<'_> {
        Words { org: &self.org, began: self.began }
    }

    fn now(&self) -> Duration {
        self.words().now()
    }
}
