//! What happened, in words.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::ledger::LedgerSnapshot;
use super::org::{Effect, Org, Request, Service};
use super::show::{Entry, Kind};
use crate::store::{ActionRow, EventRow};

/// Knows the names of the org, and since when it runs.
pub(super) struct Words<'a> {
    pub(super) org: &'a Org,
    pub(super) began: Timestamp,
}

impl Words<'_> {
    /// A change that a service processed.
    pub(super) fn effect(&self, effect: &Effect) -> Entry {
        let (text, actor) = (self.of_effect(effect), name_of(effect.service));
        let details =
            json!({"effect": effect.kind, "target": effect.target, "key": effect.key, "changed": effect.changed});
        Entry { at: Duration::from_millis(effect.at_ms), kind: Kind::Effect, actor, text, trouble: false, details }
    }

    /// An effect in words.
    pub(super) fn of_effect(&self, effect: &Effect) -> String {
        let (of, user) = effect.target.split_once('/').unwrap_or(("", &effect.target));
        let user = self.person(user);
        let group = || self.org.group(of).map_or_else(|| of.to_owned(), |group| group.name);
        let text = |name: &str| effect.body.get(name).and_then(Value::as_str).unwrap_or_default();
        let words = match effect.kind {
            "group.add" => format!("{user} is put into the group {}", group()),
            "group.remove" => format!("{user} is taken out of the group {}", group()),
            "app.unassign" => {
                let app = self.org.app(of).map_or_else(|| of.to_owned(), |app| app.label);
                format!("{app} is taken away from {user}")
            }
            "sessions.clear" => format!("every session of {user} ends"),
            "review.start" => format!("an access review of {user} begins: {}", text("name")),
            "incident.create" => format!("{} is opened: {}", self.number(&effect.target), text("short_description")),
            "slack.post" => format!("{}: {}", effect.target, first_line(text("text")).replace('*', "")),
            "mail" => {
                let subject = text("data").lines().find_map(|line| line.strip_prefix("Subject: "));
                format!("to {}: {}", effect.target, subject.unwrap_or_default())
            }
            other => format!("{other} {}", effect.target),
        };
        let again = if effect.changed { "" } else { " (as it was)" };
        format!("{words}{again}")
    }

    /// What the daemon decided about an event.
    pub(super) fn decision(&self, event: &EventRow, ledger: &LedgerSnapshot) -> Entry {
        let about = event.user.as_ref().map(|user| self.person(user)).unwrap_or_default();
        let of_event = || ledger.runs.iter().filter(|run| run.event == event.id);
        let runs: Vec<&str> = of_event().map(|run| run.playbook.as_str()).collect();
        let at = of_event().next().map_or_else(|| self.now(), |run| self.since_began(run.created_at));
        let text = match (event.state.as_str(), event.reason.as_deref()) {
            ("skipped", Some("echo")) => {
                format!("Okta lowered the risk of {about} because of the ended sessions: an echo, nobody is released")
            }
            ("decided", _) if runs.is_empty() => format!("{} of {about}: no playbook applies", event.event_type),
            ("decided", _) => format!("{} of {about}: {}", event.event_type, runs.join(", ")),
            (state, reason) => format!("{} of {about}: {state}, {}", event.event_type, reason.unwrap_or("no reason")),
        };
        let details = json!({"event": event.uuid, "state": event.state, "reason": event.reason, "runs": runs});
        Entry { at, kind: Kind::Daemon, actor: "daemon", text, trouble: false, details }
    }

    /// Only what is not plain success: that shows as the effect.
    pub(super) fn action(&self, action: &ActionRow) -> Option<Entry> {
        let about = action.user.as_ref().map(|user| format!(" for {}", self.person(user))).unwrap_or_default();
        let (step, why) = (&action.step, action.error.as_deref().unwrap_or_default());
        let (text, trouble) = match action.state.as_str() {
            "retry" if action.attempts > 0 => (format!("{step}{about} is tried again soon: {why}"), false),
            "failed" | "refused" | "needs_attention" => (format!("{step}{about} {}: {why}", action.state), true),
            "unknown" => {
                (format!("{step}{about}: did the request arrive? The service is asked, nothing is sent"), false)
            }
            "settled" => {
                let number = number_of(action).unwrap_or_default();
                (format!("{step}{about} is settled: {number} was found by its key, nothing is sent again"), false)
            }
            "succeeded" if action.attempts > 1 => {
                (format!("{step}{about} succeeded at attempt {}", action.attempts), false)
            }
            _ => return None,
        };
        let details =
            json!({"action": action.id, "step": action.step, "state": action.state, "attempts": action.attempts});
        let at = action.finished_at.map_or_else(|| self.now(), |finished| self.since_began(finished));
        Some(Entry { at, kind: Kind::Daemon, actor: "daemon", text, trouble, details })
    }

    /// The name of a user.
    pub(super) fn person(&self, id: &str) -> String {
        self.org.user(id).map_or_else(|| id.to_owned(), |user| user.display_name())
    }

    fn number(&self, sys_id: &str) -> String {
        let field = |record: &Value, name: &str| record.get(name).and_then(Value::as_str).map(str::to_owned);
        let incidents = self.org.incidents();
        let found = incidents.iter().find(|record| field(record, "sys_id").as_deref() == Some(sys_id));
        found.and_then(|record| field(record, "number")).unwrap_or_default()
    }

    /// The time since the org began.
    pub(super) fn now(&self) -> Duration {
        self.since_began(self.org.now())
    }

    /// The org's clock is not ahead of ours, so moments on record compare with those of the org.
    fn since_began(&self, moment: Timestamp) -> Duration {
        Duration::try_from(moment.duration_since(self.began)).unwrap_or_default()
    }
}

/// What the service calls the result of an action, such as the number of an incident.
pub(super) fn number_of(action: &ActionRow) -> Option<String> {
    action.receipt.as_ref()?.get("number")?.as_str().map(str::to_owned)
}

/// Refusals that belong to the story; a look-up that finds nothing is none.
pub(super) fn is_refusal(request: &Request) -> bool {
    request.service != Service::Smtp && matches!(request.status, Some(403 | 429 | 500..=599))
}

/// A request that a service refused.
pub(super) fn refusal(request: &Request) -> Entry {
    let status = request.status.unwrap_or_default();
    let path = request.path.split('?').next().unwrap_or_default();
    Entry {
        at: Duration::from_millis(request.at_ms),
        kind: Kind::Daemon,
        actor: name_of(request.service),
        text: format!("answers {status} to {} {path}", request.method),
        trouble: true,
        details: json!({"status": status, "method": request.method, "path": path}),
    }
}

fn name_of(service: Service) -> &'static str {
    match service {
        Service::Okta => "Okta",
        Service::ServiceNow => "ServiceNow",
        Service::Jira => "Jira",
        Service::PagerDuty => "PagerDuty",
        Service::Slack => "Slack",
        Service::Teams => "Teams",
        Service::ThirdParty => "the third party",
        Service::Smtp => "mail",
    }
}

fn first_line(text: &str) -> &str {
    text.trim_start().lines().next().unwrap_or_default()
}
