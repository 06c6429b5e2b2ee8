//! The org's memory of what reached it: every request, and every one that asked for a change and was processed.

use std::collections::BTreeMap;

use serde_json::Value;

/// One of the simulated services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Service {
    /// The Okta org.
    Okta,
    /// The ServiceNow instance.
    ServiceNow,
    /// Jira's REST API.
    Jira,
    /// PagerDuty's Events API.
    PagerDuty,
    /// Slack's Web API and its incoming webhooks.
    Slack,
    /// The workflow behind a webhook of Microsoft Teams.
    Teams,
    /// Some company's own API.
    ThirdParty,
    /// The mail server.
    Smtp,
}

/// A request for a change that was processed, whether or not its answer ever arrived.
#[derive(Debug, Clone, PartialEq)]
pub struct Effect {
    /// Milliseconds since the org was started.
    pub at_ms: u64,
    /// Where.
    pub service: Service,
    /// `group.add`, `group.remove`, `app.assign`, `app.unassign`, `sessions.clear`, `risk.set`,
    /// `user.logout`, `user.suspend` and the other words of a user's lifecycle, `device.suspend` and so on, `incident.create`, `incident.update`,
    /// `review.start`, `campaign.create`, `campaign.launch`, `jira.create`, `pagerduty.trigger`, `pagerduty.resolve`, `slack.post`,
    /// `slack.update`, `teams.post`, `block.create`, `block.remove` or `mail`.
    pub kind: &'static str,
    /// What was changed, such as `00g…/00u…`, a sys_id, a channel, or the recipients.
    pub target: String,
    /// The idempotency key that travelled with it: `correlation_id`, the `Message-ID`, the key in Slack's metadata, a label of
    /// an issue, `Idempotency-Key`, the end of a review's name.
    pub key: Option<String>,
    /// False when it was already so.
    pub changed: bool,
    /// What was sent.
    pub body: Value,
}

/// One request as it was received. The credentials are not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Milliseconds since the org was started.
    pub at_ms: u64,
    /// Where.
    pub service: Service,
    /// `GET`, …, or the SMTP verb.
    pub method: String,
    /// Path and query as they were sent, or the argument of the SMTP verb.
    pub path: String,
    /// What was answered; `None` while it is held and when the connection was closed without an answer.
    pub status: Option<u16>,
    /// `user-agent`, `accept`, `content-type` and `content-length`, as far as they were sent.
    pub headers: BTreeMap<String, String>,
}

/// Both lists.
#[derive(Debug, Default)]
pub(super) struct Journal {
    pub(super) effects: Vec<Effect>,
    pub(super) requests: Vec<Request>,
}

impl Journal {
    /// Notes a request and returns the number under which its answer is noted.
    pub(super) fn received(&mut self, request: Request) -> usize {
        self.requests.push(request);
        self.requests.len() - 1
    }

    /// Notes what was answered to the request of that number.
    pub(super) fn answered(&mut self, number: usize, status: u16) {
        if let Some(request) = self.requests.get_mut(number) {
            request.status = Some(status);
        }
    }
}
