//! Where a schedule is played: a simulated org, and a directory with configuration, secrets and state file.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use okta_responder::demo::org::{
    Fault, Hold, Misbehaviour, Org, OrgOptions, PAGERDUTY_ROUTING_KEY, RateLimits, SERVICENOW_PASSWORD,
    SERVICENOW_USER, SLACK_TOKEN, Service, User, events,
};
use serde_json::Value;

use super::schedule::{Doubt, Place, Schedule, Told, What, WorldFault, Wrong};

/// How long the daemon waits for any answer.
pub const TIMEOUT: Duration = Duration::from_millis(900);

/// The types that the playbooks ask for.
pub const WANTED_TYPES: [&str; 3] = ["user.risk.detect", "application.user_membership.add", "user.session.start"];

/// The org and the directory.
pub struct Stage {
    /// The org.
    pub org: Org,
    /// The users, in the order of the schedule.
    pub users: Vec<User>,
    /// The groups, by what they are.
    pub groups: BTreeMap<&'static str, String>,
    /// The app.
    pub app: String,
    directory: PathBuf,
    administrator: User,
    began: Timestamp,
    late_answers: Hold,
    settings: String,
}

impl Stage {
    /// Builds it in a directory that is made for it and stays until it is removed.
    pub async fn build(schedule: &Schedule, directory: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&directory)?;
        // The budget of requests is tested elsewhere; here it would only make the schedules slow.
        let org = Org::start(OrgOptions { rate_limits: RateLimits::unlimited(), ..OrgOptions::default() }).await?;
        let app = org.add_app("Payroll");
        let groups = [
            ("risk", "High Risk Users"),
            ("medium", "Medium Risk Users"),
            ("staff", "Staff"),
            ("quarantine", "Quarantine"),
            ("team 1", "Team 1"),
            ("team 2", "Team 2"),
        ];
        let groups: BTreeMap<_, _> = groups.into_iter().map(|(key, name)| (key, org.add_group(name))).collect();
        let mut users = Vec::new();
        for (number, inside) in (1..).zip(&schedule.users) {
            let user = org.add_user(User::new("User", &format!("Number{number}")));
            let his = ["staff", "team 1", "team 2"].into_iter().chain(inside.then_some("risk"));
            his.for_each(|key| org.add_member(&groups[key], &user.id));
            users.push(user);
        }
        let administrator = org.add_user(User::new("Ada", "Admin"));
        let began = org.now();
        let settings = settings(schedule, &org, &directory);
        let late_answers = Hold::new();
        let stage = Self { org, users, groups, app, directory, administrator, began, late_answers, settings };
        stage.secret("okta-token", stage.org.token())?;
        stage.secret("slack-token", SLACK_TOKEN)?;
        stage.secret("servicenow-password", SERVICENOW_PASSWORD)?;
        stage.secret("pagerduty-routing-key", PAGERDUTY_ROUTING_KEY)?;
        stage.configure(false)?;
        for fault in &schedule.faults {
            stage.org.fault(stage.fault(*fault));
        }
        Ok(stage)
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.directory.join("config.toml")
    }

    /// The state file.
    pub fn state(&self) -> PathBuf {
        self.directory.join("state.db")
    }

    /// What the daemons logged, one after the other.
    pub fn log(&self) -> PathBuf {
        self.directory.join("daemon.log")
    }

    /// Writes the configuration, with or without a playbook that asks for one type more.
    pub fn configure(&self, with_more: bool) -> io::Result<()> {
        let more = if with_more { MORE } else { "" };
        // In one step, since a daemon may be reading it at this moment.
        let new = self.directory.join("config.new");
        fs::write(&new, format!("{}{PLAYBOOKS}{more}", self.settings))?;
        fs::rename(new, self.config())
    }

    /// Puts events into the log, and does what they tell of.
    pub fn push(&self, schedule: &Schedule, told: &[Told]) {
        let mut pushed = Vec::new();
        for event in told {
            let known = schedule.uuid(event.number);
            if event.what == What::App && !self.org.logged(WANTED_TYPES[1]).contains(&known) {
                self.org.assign(&self.app, &self.users[event.user].id);
            }
            pushed.push(self.event(&known, event));
        }
        self.org.push_events(pushed);
    }

    /// Nothing goes wrong from now on, and answers that were held back are given.
    pub fn calm(&self) {
        self.org.clear_faults();
        self.late_answers.release();
    }

    /// Takes the directory away.
    pub fn remove(self) -> io::Result<()> {
        let Self { org, directory, .. } = self;
        drop(org);
        fs::remove_dir_all(directory)
    }

    fn event(&self, uuid: &str, told: &Told) -> Value {
        let user = &self.users[told.user];
        let mut event = match told.what {
            What::Rise => events::risk_detected(user, "LOW", "HIGH"),
            // Okta's own lowering of a risk, right after sessions were ended, would be an echo.
            What::Fall => events::acted_by(events::risk_detected(user, "HIGH", "LOW"), &self.administrator),
            What::App => match self.org.app(&self.app) {
                Some(app) => events::app_assigned(&app, user),
                None => Value::Null,
            },
            What::Case => events::sign_in(user, "HIGH"),
            What::Noise => match self.org.app(&self.app) {
                Some(app) => events::single_sign_on(&app, user),
                None => Value::Null,
            },
        };
        event["uuid"] = Value::from(uuid);
        match told.late.and_then(|seconds| self.began.checked_sub(SignedDuration::from_secs(seconds as i64)).ok()) {
            Some(published) => events::published_at(event, published),
            None => event,
        }
    }

    fn fault(&self, fault: WorldFault) -> Fault {
        let (service, method, path) = match fault.place {
            Place::Log => (Service::Okta, "GET", "/api/v1/logs"),
            Place::Users => (Service::Okta, "GET", "/api/v1/users/"),
            Place::Groups => (Service::Okta, "GET", "/api/v1/groups"),
            Place::Add => (Service::Okta, "PUT", "/groups/"),
            Place::Remove => (Service::Okta, "DELETE", "/groups/"),
            Place::Sessions => (Service::Okta, "DELETE", "/sessions"),
            Place::Unassign => (Service::Okta, "DELETE", "/apps/"),
            Place::CreateIncident => (Service::ServiceNow, "POST", "/table/"),
            Place::FindIncident => (Service::ServiceNow, "GET", "/table/"),
            Place::UpdateIncident => (Service::ServiceNow, "PATCH", "/table/"),
            Place::StartReview => (Service::Okta, "POST", "/governance/"),
            Place::FindReview => (Service::Okta, "GET", "/governance/"),
            Place::Page => (Service::PagerDuty, "POST", "/enqueue"),
            Place::Post => (Service::Slack, "POST", "chat.postMessage"),
            Place::MailFrom => (Service::Smtp, "MAIL", ""),
            Place::MailData => (Service::Smtp, "DATA", ""),
        };
        let what = match fault.wrong {
            Wrong::Error500 if service == Service::Smtp => Misbehaviour::status(451, "try later"),
            Wrong::Error503 if service == Service::Smtp => Misbehaviour::status(421, "not now"),
            Wrong::Error500 => Misbehaviour::status(500, "{}"),
            Wrong::Error503 => Misbehaviour::status(503, "{}"),
            Wrong::RateLimited => Misbehaviour::RateLimited { reset_in: Duration::ZERO },
            Wrong::ConcurrencyLimited => Misbehaviour::ConcurrencyLimited { reset_in: Duration::ZERO },
            Wrong::DroppedBefore => Misbehaviour::DropBefore,
            Wrong::DroppedAfter => Misbehaviour::DropAfter,
            Wrong::Truncated => Misbehaviour::TruncateBody,
            Wrong::Html => Misbehaviour::Html,
            Wrong::AnsweredTooLate => Misbehaviour::Hold(self.late_answers.clone()),
            Wrong::BegunTooLate => Misbehaviour::Delay(TIMEOUT * 3 / 2),
        };
        let (spared, times) = (fault.sparing as u32, fault.times as u32);
        Fault::new(service, what).method(method).path(path).sparing(spared).times(times)
    }

    fn secret(&self, name: &str, value: &str) -> io::Result<()> {
        let path = self.directory.join(name);
        fs::write(&path, value)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
    }
}

fn settings(schedule: &Schedule, org: &Org, directory: &Path) -> String {
    let (directory, timeout) = (directory.display(), humantime::format_duration(TIMEOUT));
    let doubt = match schedule.mail_doubt {
        Doubt::Skip => "skip",
        Doubt::Resend => "resend",
        Doubt::Ask => "ask",
    };
    let (okta, servicenow, slack, port) = (org.okta_url(), org.servicenow_url(), org.slack_api_url(), org.smtp_port());
    let (page_size, pagerduty) = (schedule.page_size, org.pagerduty_url());
    format!(
        r##"# Schedule {number} of the run with seed {seed}.
[okta]
org_url = "{okta}"
token = {{ file = "{directory}/okta-token" }}
rate_share = 1.0
timeout = "{timeout}"

[state]
path = "{directory}/state.db"

[poll]
start_from = "1h"
page_size = {page_size}

[dispatch]
retry_initial = "50ms"
retry_max = "300ms"

[risk]
source = "groups"
high_group = "High Risk Users"
medium_group = "Medium Risk Users"

[servicenow]
url = "{servicenow}"
username = "{SERVICENOW_USER}"
password = {{ file = "{directory}/servicenow-password" }}
timeout = "{timeout}"

[pagerduty]
url = "{pagerduty}"
routing_key = {{ file = "{directory}/pagerduty-routing-key" }}
timeout = "{timeout}"

[slack]
token = {{ file = "{directory}/slack-token" }}
api_url = "{slack}"
timeout = "{timeout}"

[email]
host = "127.0.0.1"
port = {port}
tls = "none"
from = "Okta Responder <responder@example.com>"
timeout = "{timeout}"

[[playbook]]
name = "mail"
on = ["user.risk.detect"]

  [[playbook.step]]
  name = "mail"
  when = 'risk.level == "HIGH"'
  action = "email.send"
  in_doubt = "{doubt}"
  with = {{ to = "security@example.com", subject = "{{{{ event.uuid }}}} mail", text = "{{{{ user.login }}}}" }}
"##,
        number = schedule.number,
        seed = schedule.seed,
    )
}

const PLAYBOOKS: &str = r##"
[[playbook]]
name = "risk"
on = ["user.risk.detect"]

  [[playbook.step]]
  name = "quarantine"
  when = 'risk.level == "HIGH"'
  action = "okta.group.add_user"
  with = { group = "High Risk Users" }

  [[playbook.step]]
  name = "sessions"
  when = 'risk.level == "HIGH"'
  action = "okta.user.clear_sessions"

  [[playbook.step]]
  name = "release"
  when = 'risk.previous_level == "HIGH" && risk.level == "LOW"'
  action = "okta.group.remove_user"
  with = { group = "High Risk Users" }

  [[playbook.step]]
  name = "incident"
  when = 'risk.level == "HIGH"'
  action = "servicenow.incident.create"
  with = { short_description = "{{ event.uuid }} incident" }

  [[playbook.step]]
  name = "tell"
  after = ["quarantine", "sessions", "release", "incident"]
  wait = "1s"
  action = "slack.message.post"
  with = { channel = "#security", text = "{{ event.uuid }} tell" }

[[playbook]]
name = "app"
on = ["application.user_membership.add"]

  [[playbook.step]]
  name = "take-back"
  when = 'user_risk == "HIGH"'
  action = "okta.app.unassign_user"

  [[playbook.step]]
  name = "tell-app"
  after = ["take-back"]
  wait = "1s"
  action = "slack.message.post"
  with = { channel = "#security", text = "{{ event.uuid }} tell-app" }

[[playbook]]
name = "case"
on = ["user.session.start"]

  [[playbook.step]]
  name = "move"
  action = "okta.group.move_user"
  with = { from = "Staff", to = "Quarantine" }

  [[playbook.step]]
  name = "strip"
  action = "okta.group.remove_user_from_all"
  with = { except = ["High Risk Users", "Staff", "Quarantine"] }

  [[playbook.step]]
  name = "review"
  action = "okta.review.start"
  with = { name = "{{ event.uuid }} review", reviewer = "ada.admin@example.com" }

  [[playbook.step]]
  name = "campaign"
  action = "okta.review.start"
  with = { name = "{{ event.uuid }} campaign", kind = "campaign", reviewer = "ada.admin@example.com" }

  [[playbook.step]]
  name = "page"
  action = "pagerduty.event.trigger"
  with = { summary = "{{ event.uuid }} page" }

  [[playbook.step]]
  name = "open"
  action = "servicenow.incident.create"
  with = { short_description = "{{ event.uuid }} open", correlation = "case-{{ event.uuid }}" }

  [[playbook.step]]
  name = "note"
  needs = ["open"]
  action = "servicenow.incident.update"
  with = { correlation = "case-{{ event.uuid }}", work_notes = "{{ event.uuid }} note" }
"##;

/// It wants nothing, but the log is asked for one type more.
const MORE: &str = r##"
[[playbook]]
name = "more"
on = ["user.lifecycle.suspend"]
when = 'event.outcome.result == "NEVER"'

  [[playbook.step]]
  name = "tell-more"
  action = "slack.message.post"
  with = { channel = "#security", text = "{{ event.uuid }} more" }
"##;
