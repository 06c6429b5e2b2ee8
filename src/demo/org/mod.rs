//! A simulated world on loopback: an Okta org, a ServiceNow instance, Jira, PagerDuty, Slack, Teams, some company's own API and a
//! mail server, in this process.
//!
//! `demo` shows the daemon against it, the end-to-end tests and benches run against it. It keeps the semantics of the
//! real services, also where they are inconvenient: the log's order of persistence, cursors that are forgotten, apps
//! that a group grants, incidents without uniqueness, risk that Okta lowers by itself. Faults are scripted ([`Fault`]),
//! and everything that reached the world can be asked for ([`Org::effects`], [`Org::requests`]).
//!
//! It needs a tokio runtime with time and IO, and stops when it is dropped: listeners close and connections break.
//! The listeners bind only to 127.0.0.1, and every credential in here belongs to no real service.

mod clock;
mod directory;
mod effects;
pub mod events;
mod faults;
mod filter;
mod governance;
mod jira;
mod log;
mod oauth;
mod okta;
mod pagerduty;
mod rate;
mod remedies;
mod secrets;
mod servicenow;
mod slack;
mod smtp;
mod synthetic;
mod teams;
mod thirdparty;
mod wire;
mod world;

#[cfg(test)]
mod tests;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use directory::{App, Group, GroupKind, User};
pub use effects::{Effect, Request, Service};
pub use faults::{Fault, Hold, Misbehaviour};
pub use governance::AccessReview;
pub use jira::{JIRA_PROJECT, JIRA_TOKEN, JIRA_USER, JiraIssue};
pub use oauth::{AppKey, ServiceApp, TokenRequest, Ungranted};
pub use pagerduty::{Alert, PAGERDUTY_ROUTING_KEY};
pub use rate::{Grant, RateBucket, RateLimits, RateModel, RateRefusal, RateRules};
pub use secrets::Secrets;
pub use servicenow::{SERVICENOW_CLIENT_ID, SERVICENOW_CLIENT_SECRET, SERVICENOW_PASSWORD, SERVICENOW_USER};
pub use slack::{SLACK_TOKEN, SlackMessage, slack_channel_id};
pub use smtp::Mail;
pub use synthetic::SYNTHETIC_USERS;
pub use thirdparty::{THIRD_PARTY_CLIENT_ID, THIRD_PARTY_CLIENT_SECRET, THIRD_PARTY_TOKEN};

use clock::Clock;
use directory::Directory;
use log::Log;
use oauth::OAuth;
use synthetic::Synthetic;
use wire::{WireControl, WireListener};
use world::{Addresses, Inside, World};

/// How the world is made.
#[derive(Debug, Clone)]
pub struct OrgOptions {
    /// The SSWS token that the org accepts.
    pub token: String,
    /// The id of the user to whom the token belongs: `me`, and the actor of all that is done with the token.
    pub token_owner: String,
    /// Whether SSWS tokens are accepted at all.
    pub ssws_allowed: bool,
    /// How long the token of a service app holds, in whole seconds; Okta's number is an hour.
    pub token_lifetime: Duration,
    /// What becomes of requested scopes that are not granted while others are.
    pub ungranted: Ungranted,
    /// Whether a proof of possession needs a nonce at the resources as well. Okta does not ask for one there.
    pub resource_nonce: bool,
    /// Whether only directly assigned super administrators see the events of user risk, as without Identity Threat
    /// Protection.
    pub risk_events_for_super_admins: bool,
    /// How far Okta's clock is ahead of ours.
    pub clock_offset: SignedDuration,
    /// What our clock is taken to show at the start; the wall clock when unset.
    pub start_at: Option<Timestamp>,
    /// Okta's rate limits.
    pub rate_limits: RateLimits,
    /// The part of each bucket that one token or app may use, in percent; Okta's default is 50.
    pub principal_percent: u32,
    /// How many requests may be under way at once; Okta's number is 75.
    pub concurrency: u32,
    /// Leaves `rel=next` out of empty pages of a polling query, as Okta did at times.
    pub omit_next_on_empty: bool,
    /// The origin that the log's `rel=next` links name instead of the org's own: a hostile or misconfigured org.
    pub next_origin: Option<String>,
    /// How many synthetic events the log begins with. They are made on the fly and cost no memory.
    pub synthetic_events: u64,
    /// The time before the start over which they are spread evenly.
    pub synthetic_span: Duration,
    /// Every how-manyth of them is a `user.risk.detect` from LOW to HIGH; 0 for none.
    pub synthetic_risk_every: u64,
    /// Whether the org has Security Access Reviews; campaigns it always has.
    pub security_access_reviews: bool,
    /// ServiceNow answers everything with status 200 and a page that says it is asleep.
    pub hibernating: bool,
    /// Jira is a Data Center in place of the Cloud.
    pub jira_server: bool,
    /// How long Jira's search does not show an issue that was created.
    pub jira_search_lag: Duration,
    /// The Slack channels that exist; empty: every channel does.
    pub slack_channels: Vec<String>,
}

impl Default for OrgOptions {
    fn default() -> Self {
        Self {
            token: "00simulated-api-token-of-no-real-org-0000".to_owned(),
            token_owner: "00u1sim0responder001".to_owned(),
            ssws_allowed: true,
            token_lifetime: Duration::from_secs(3600),
            ungranted: Ungranted::LeftOut,
            resource_nonce: false,
            risk_events_for_super_admins: false,
            clock_offset: SignedDuration::ZERO,
            start_at: None,
            rate_limits: RateLimits::default(),
            principal_percent: 100,
            concurrency: u32::MAX,
            omit_next_on_empty: false,
            next_origin: None,
            synthetic_events: 0,
            synthetic_span: Duration::from_secs(24 * 3600),
            synthetic_risk_every: 1000,
            security_access_reviews: true,
            hibernating: false,
            jira_server: false,
            jira_search_lag: Duration::from_millis(500),
            slack_channels: Vec::new(),
        }
    }
}

/// A condition that did not come true in time.
#[derive(Debug, Error)]
#[error("not within {waited:?}; the simulated org has seen {seen}")]
pub struct TimedOut {
    /// How long it was waited for.
    pub waited: Duration,
    /// What there was instead.
    pub seen: String,
}

/// The running world. Dropping it stops it.
pub struct Org {
    world: Arc<World>,
    _stop: DropGuard,
}

impl Org {
    /// Opens the listeners on free ports of 127.0.0.1 and begins to answer.
    pub async fn start(options: OrgOptions) -> io::Result<Self> {
        let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let (okta, servicenow, slack) = (bind().await?, bind().await?, bind().await?);
        let (teams, smtp, pagerduty, jira) = (bind().await?, bind().await?, bind().await?, bind().await?);
        let third_party = bind().await?;
        let origin = |listener: &TcpListener| io::Result::Ok(format!("http://{}", listener.local_addr()?));
        let addresses = Addresses {
            okta: okta.local_addr()?,
            servicenow: origin(&servicenow)?,
            jira: origin(&jira)?,
            pagerduty: origin(&pagerduty)?,
            slack: origin(&slack)?,
            teams: origin(&teams)?,
            third_party: origin(&third_party)?,
            smtp_port: smtp.local_addr()?.port(),
        };
        let clock = Clock::start(options.start_at, options.clock_offset);
        let span_ms = i64::try_from(options.synthetic_span.as_millis()).unwrap_or(i64::MAX);
        let first_ms = clock.now_ms().saturating_sub(span_ms);
        let synthetic = Synthetic::new(options.synthetic_events, first_ms, span_ms, options.synthetic_risk_every);
        let mut directory = Directory::default();
        directory.synthetic_users = options.synthetic_events > 0;
        directory.add_group("Everyone", GroupKind::BuiltIn);
        let rules = RateRules {
            limits: options.rate_limits,
            principal_percent: options.principal_percent,
            concurrency: options.concurrency,
            ..RateRules::default()
        };
        let secrets = Secrets::new(&options.token);
        let inside = Inside::new(Log::new(synthetic), directory, RateModel::new(rules), secrets);
        let world = Arc::new(World::new(options, clock, addresses, inside));
        let owner = world.token_owner();
        world.change(|inside| inside.directory.add_user(owner));

        let stop = CancellationToken::new();
        serve(okta, okta::router(&world), &stop);
        serve(servicenow, servicenow::router(&world), &stop);
        serve(jira, jira::router(&world), &stop);
        serve(pagerduty, pagerduty::router(&world), &stop);
        serve(slack, slack::router(&world), &stop);
        serve(teams, teams::router(&world), &stop);
        serve(third_party, thirdparty::router(&world), &stop);
        smtp::serve(smtp, Arc::clone(&world), stop.clone());
        Ok(Self { world, _stop: stop.drop_guard() })
    }

    /// The org's URL, without a slash at the end: where it listens, or what it was told to go by.
    pub fn okta_url(&self) -> String {
        self.world.okta_url()
    }

    /// From now on the org goes by another origin, such as that of a gateway before it: its links name it, and tokens
    /// and proofs must be for it.
    pub fn known_as(&self, origin: &str) {
        self.world.known_as(origin);
    }

    /// Where the org itself listens; it speaks without TLS.
    pub fn address(&self) -> SocketAddr {
        self.world.addresses.okta
    }

    /// The ServiceNow instance's URL.
    pub fn servicenow_url(&self) -> String {
        self.world.addresses.servicenow.clone()
    }

    /// PagerDuty's Events API, without a path.
    pub fn pagerduty_url(&self) -> String {
        self.world.addresses.pagerduty.clone()
    }

    /// Slack's Web API; it ends in `/api`.
    pub fn slack_api_url(&self) -> String {
        format!("{}/api", self.world.addresses.slack)
    }

    /// An incoming webhook of Slack.
    pub fn slack_webhook_url(&self) -> String {
        let secret = self.world.read(|inside| inside.secrets.slack_webhook.clone());
        format!("{}{}{secret}", self.world.addresses.slack, slack::WEBHOOK_PATH)
    }

    /// The webhook of a workflow in Teams.
    pub fn teams_webhook_url(&self) -> String {
        let signature = self.world.read(|inside| inside.secrets.teams_signature.clone());
        format!("{}{}", self.world.addresses.teams, teams::webhook(&signature))
    }

    /// Some company's own API, without a path.
    pub fn third_party_url(&self) -> String {
        self.world.addresses.third_party.clone()
    }

    /// The port of the mail server on 127.0.0.1; it speaks without TLS.
    pub fn smtp_port(&self) -> u16 {
        self.world.addresses.smtp_port
    }

    /// Replaces secrets: from now on the old ones are refused, and so are the tokens that were given out for them.
    pub fn replace_secrets(&self, replace: impl FnOnce(&mut Secrets)) {
        self.world.change(|inside| {
            replace(&mut inside.secrets);
            inside.tables.revoke_tokens();
            inside.blocks.revoke_tokens();
        });
    }

    /// The SSWS token from the start.
    pub fn token(&self) -> &str {
        &self.world.options.token
    }

    /// The id of the user to whom the token belongs.
    pub fn token_owner(&self) -> &str {
        &self.world.options.token_owner
    }

    /// What Okta's clock shows.
    pub fn now(&self) -> Timestamp {
        self.world.clock.now()
    }

    /// Appends an event to the log and returns its uuid. `uuid` and `published` are added where they are missing; an
    /// older `published` makes it a late event. A risk event also sets the risk of the user it is about.
    pub fn push_event(&self, event: Value) -> String {
        let now_ms = self.world.clock.now_ms();
        self.world.change(|inside| inside.record(event, now_ms))
    }

    /// Appends several, so that no page can end between them by chance of timing.
    pub fn push_events(&self, events: Vec<Value>) -> Vec<String> {
        let now_ms = self.world.clock.now_ms();
        self.world.change(|inside| events.into_iter().map(|event| inside.record(event, now_ms)).collect())
    }

    /// Appends any text as if it were an event's JSON: a record that is not one, an oversized one. A filtered query
    /// sees it if it asks for `event_type`. Text that is not JSON breaks the whole page, as it would with Okta.
    pub fn push_raw_event(&self, text: &str, event_type: &str) {
        let now_ms = self.world.clock.now_ms();
        self.world.change(|inside| inside.log.push_raw(text, event_type, now_ms));
    }

    /// How many events the log holds.
    pub fn log_len(&self) -> u64 {
        self.world.read(|inside| inside.log.len())
    }

    /// The uuids of the pushed events of a type, each as often as the log holds it, in the order of the log.
    pub fn logged(&self, event_type: &str) -> Vec<String> {
        self.world.read(|inside| inside.log.uuids_of(event_type))
    }

    /// Makes every cursor that was given out unknown.
    pub fn forget_cursors(&self) {
        self.world.change(|inside| inside.log.forget_cursors());
    }

    /// Adds a user, giving an id if he has none, and returns him as he is now.
    pub fn add_user(&self, user: User) -> User {
        self.world.change(|inside| inside.directory.add_user(user))
    }

    /// Adds a group whose members are managed in Okta, and returns its id.
    pub fn add_group(&self, name: &str) -> String {
        self.add_group_of(name, GroupKind::Okta)
    }

    /// Adds a group of any kind, and returns its id.
    pub fn add_group_of(&self, name: &str, kind: GroupKind) -> String {
        self.world.change(|inside| inside.directory.add_group(name, kind).id)
    }

    /// Adds an app, and returns its id.
    pub fn add_app(&self, label: &str) -> String {
        self.world.change(|inside| inside.directory.add_app(label).id)
    }

    /// Makes the user a member, whatever the group's kind; no event tells of it.
    pub fn add_member(&self, group: &str, user: &str) {
        self.world.change(|inside| inside.directory.import_member(group, user));
    }

    /// Gives an admin role such as `SUPER_ADMIN` to a user, or to all members of a group.
    pub fn give_role(&self, user_or_group: &str, role: &str) {
        self.world.change(|inside| inside.directory.give_role(user_or_group, role));
    }

    /// Assigns the app to the user directly (`scope` USER); no event tells of it.
    pub fn assign(&self, app: &str, user: &str) {
        self.world.change(|inside| inside.directory.assign(app, user));
    }

    /// Lets the group grant the app: its members are assigned with `scope` GROUP.
    pub fn assign_group(&self, app: &str, group: &str) {
        self.world.change(|inside| inside.directory.grant(app, group));
    }

    /// Links the user to his manager (linked object `manager`).
    pub fn link_manager(&self, user: &str, manager: &str) {
        self.world.change(|inside| inside.directory.link("manager", user, manager));
    }

    /// A user by id, login, or short login.
    pub fn user(&self, wanted: &str) -> Option<User> {
        self.world.read(|inside| inside.directory.user(wanted).map(|user| user.into_owned()))
    }

    /// A group by id.
    pub fn group(&self, id: &str) -> Option<Group> {
        self.world.read(|inside| inside.directory.groups.get(id).cloned())
    }

    /// An app by id.
    pub fn app(&self, id: &str) -> Option<App> {
        self.world.read(|inside| inside.directory.apps.get(id).cloned())
    }

    /// Whether the user is in the group.
    pub fn is_member(&self, group: &str, user: &str) -> bool {
        self.world.read(|inside| inside.directory.is_member(group, user))
    }

    /// Whether the user has the app, directly or by a group.
    pub fn is_assigned(&self, app: &str, user: &str) -> bool {
        self.world.read(|inside| inside.directory.is_assigned(app, user))
    }

    /// The user's risk level: `NONE`, `LOW`, `MEDIUM` or `HIGH`.
    pub fn user_risk(&self, user: &str) -> String {
        self.world.read(|inside| inside.directory.risk_level(user).to_owned())
    }

    /// Every request for a change that was processed, in order.
    pub fn effects(&self) -> Vec<Effect> {
        self.world.read(|inside| inside.journal.effects.clone())
    }

    /// The effects of one kind.
    pub fn effects_of(&self, kind: &str) -> Vec<Effect> {
        let wanted = |effect: &&Effect| effect.kind == kind;
        self.world.read(|inside| inside.journal.effects.iter().filter(wanted).cloned().collect())
    }

    /// Every request that was received, in order.
    pub fn requests(&self) -> Vec<Request> {
        self.world.read(|inside| inside.journal.requests.clone())
    }

    /// How many requests a service received whose path and query, as sent, contain `part`.
    pub fn request_count(&self, service: Service, part: &str) -> usize {
        let wanted = |request: &&Request| request.service == service && request.path.contains(part);
        self.world.read(|inside| inside.journal.requests.iter().filter(wanted).count())
    }

    /// From now on the org's other tools use so many requests a minute of a bucket, evenly.
    pub fn others_use(&self, bucket: RateBucket, per_minute: u32) {
        self.world.change(|inside| inside.rate.others_use(bucket, per_minute));
    }

    /// Adds a scripted fault. Of several that match, the oldest hits.
    pub fn fault(&self, fault: Fault) {
        self.world.change(|inside| inside.faults.add(fault));
    }

    /// Takes back all faults that have not hit yet.
    pub fn clear_faults(&self) {
        self.world.change(|inside| inside.faults.clear());
    }

    /// The records of ServiceNow's `incident` table, oldest first.
    pub fn incidents(&self) -> Vec<Value> {
        self.records("incident")
    }

    /// The records of any table of ServiceNow, oldest first.
    pub fn records(&self, table: &str) -> Vec<Value> {
        self.world.read(|inside| inside.tables.records(table))
    }

    /// Closes an incident, as a person would. False when there is none of that number.
    pub fn close_incident(&self, number: &str) -> bool {
        self.world.change(|inside| inside.tables.close("incident", number))
    }

    /// The users whom the third party blocks, oldest first.
    pub fn blocks(&self) -> Vec<Value> {
        self.world.read(|inside| inside.blocks.all())
    }

    /// PagerDuty's alerts, oldest first.
    pub fn alerts(&self) -> Vec<Alert> {
        self.world.read(|inside| inside.alerts.clone())
    }

    /// What was posted to Slack, oldest first.
    pub fn slack_messages(&self) -> Vec<SlackMessage> {
        self.world.read(|inside| inside.posts.messages().to_vec())
    }

    /// The mails that were accepted, oldest first.
    pub fn mails(&self) -> Vec<Mail> {
        self.world.read(|inside| inside.mails.clone())
    }

    /// Waits until something is so. The condition is looked at now and after everything that happens in the world.
    pub async fn wait_for(&self, condition: impl Fn(&Self) -> bool, at_most: Duration) -> Result<(), TimedOut> {
        let mut changes = self.world.changes();
        let comes_true = async {
            loop {
                changes.mark_unchanged();
                if condition(self) || changes.changed().await.is_err() {
                    return;
                }
            }
        };
        timeout(at_most, comes_true).await.map_err(|_| TimedOut { waited: at_most, seen: self.summary() })
    }

    fn summary(&self) -> String {
        self.world.read(|inside| {
            let journal = &inside.journal;
            let kinds: Vec<&str> = journal.effects.iter().map(|effect| effect.kind).collect();
            format!("{} requests and the effects {kinds:?}", journal.requests.len())
        })
    }
}

impl std::fmt::Debug for Org {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Org").field("addresses", &self.world.addresses).finish_non_exhaustive()
    }
}

impl Inside {
    fn new(log: Log, directory: Directory, rate: RateModel, secrets: Secrets) -> Self {
        Self {
            log,
            directory,
            estate: remedies::Estate::default(),
            reviews: governance::Reviews::default(),
            journal: effects::Journal::default(),
            faults: faults::Faults::default(),
            rate,
            oauth: OAuth::new(),
            secrets,
            tables: servicenow::Tables::default(),
            jira: jira::Project::default(),
            alerts: Vec::new(),
            blocks: thirdparty::Blocks::default(),
            posts: slack::Posts::default(),
            mails: Vec::new(),
        }
    }
}

fn serve(listener: TcpListener, router: Router, stop: &CancellationToken) {
    let stop = stop.clone();
    let listener = WireListener::new(listener, stop.clone());
    let service = router.into_make_service_with_connect_info::<WireControl>();
    tokio::spawn(async move {
        let server = async { axum::serve(listener, service).await };
        // A server only ends with the org.
        let _ = stop.run_until_cancelled(server).await;
    });
}
