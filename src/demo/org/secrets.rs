//! What the services let us in with. It can be replaced while they run, as an administrator would do it.

use super::{
    JIRA_TOKEN, PAGERDUTY_ROUTING_KEY, SERVICENOW_CLIENT_SECRET, SERVICENOW_PASSWORD, SLACK_TOKEN,
    THIRD_PARTY_CLIENT_SECRET, THIRD_PARTY_TOKEN, slack, teams,
};

/// The secrets that are valid now, each for one way in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secrets {
    /// Okta's SSWS token.
    pub okta_token: String,
    /// The password of ServiceNow's user.
    pub servicenow_password: String,
    /// The secret of ServiceNow's OAuth client.
    pub servicenow_client_secret: String,
    /// The token of Jira's user.
    pub jira_token: String,
    /// The integration key of PagerDuty's service.
    pub pagerduty_routing_key: String,
    /// Slack's bot token.
    pub slack_token: String,
    /// The last part of the path of Slack's webhook.
    pub slack_webhook: String,
    /// The signature in the address of Teams' webhook.
    pub teams_signature: String,
    /// The token of the third party.
    pub third_party_token: String,
    /// The secret of its OAuth client.
    pub third_party_client_secret: String,
    /// The password of every user of the mail server; unset, it takes any.
    pub smtp_password: Option<String>,
}

impl Secrets {
    /// The secrets from the start.
    pub(super) fn new(okta_token: &str) -> Self {
        Self {
            okta_token: okta_token.to_owned(),
            servicenow_password: SERVICENOW_PASSWORD.to_owned(),
            servicenow_client_secret: SERVICENOW_CLIENT_SECRET.to_owned(),
            jira_token: JIRA_TOKEN.to_owned(),
            pagerduty_routing_key: PAGERDUTY_ROUTING_KEY.to_owned(),
            slack_token: SLACK_TOKEN.to_owned(),
            slack_webhook: slack::WEBHOOK_SECRET.to_owned(),
            teams_signature: teams::SIGNATURE.to_owned(),
            third_party_token: THIRD_PARTY_TOKEN.to_owned(),
            third_party_client_secret: THIRD_PARTY_CLIENT_SECRET.to_owned(),
            smtp_password: None,
        }
    }
}
