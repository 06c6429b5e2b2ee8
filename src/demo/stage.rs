//! Where the demo plays: a directory of its own with configuration, secrets and state file, removed at the end.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::identity::{CLIENT_ID, Identity, KEY_ID};
use super::org::{Org, SERVICENOW_PASSWORD, SERVICENOW_USER, SLACK_TOKEN};
use super::script::Cast;
use crate::app::rights;
use crate::config::load;

/// The demo runs the playbooks that are shipped.
const EXAMPLE: &str = include_str!("../../config.example.toml");

/// Where they begin.
const FIRST_PLAYBOOK: &str = "# The risk of a user changes";

/// What the demo adds to them. Okta answers the end of the sessions by lowering the risk, and nobody may be released for
/// that.
const END_SESSIONS: &str = r#"
# Only in the demo: whoever signs in at high risk is signed out everywhere.
[[playbook]]
name = "demo-end-sessions"
on = ["user.session.start"]
when = 'risk.level == "HIGH"'

  [[playbook.step]]
  name = "end-sessions"
  action = "okta.user.clear_sessions"
"#;

/// The directory.
#[derive(Debug)]
pub(super) struct Stage {
    directory: PathBuf,
}

impl Stage {
    /// Makes a directory that only its owner can enter, with everything in it that a daemon of this org needs, and registers
    /// the daemon at the org: as a service app with the scopes that its configuration needs, and no other.
    pub(super) fn build(org: &Org, cast: &Cast) -> io::Result<Self> {
        let stage = Self { directory: own_directory(&std::env::temp_dir())? };
        let identity = Identity::make()?;
        stage.write("okta-key.pem", &identity.private_key)?;
        stage.write("servicenow-password", SERVICENOW_PASSWORD)?;
        stage.write("slack-token", SLACK_TOKEN)?;
        let playbooks = format!("{}{END_SESSIONS}", shipped_playbooks(cast));
        stage.write("config.toml", &format!("{}\n{playbooks}", stage.settings(org)))?;
        let loaded = load::load(&stage.config())
            .map_err(|problems| io::Error::other(problems.first().map_or_else(String::new, ToString::to_string)))?;
        org.register_app(identity.app(rights::scopes(&loaded)));
        Ok(stage)
    }

    /// The configuration file.
    pub(super) fn config(&self) -> PathBuf {
        self.directory.join("config.toml")
    }

    /// The state file.
    pub(super) fn state(&self) -> PathBuf {
        self.directory.join("state.db")
    }

    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        let path = self.directory.join(name);
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
    }

    /// The sections that join the daemon to the org. Retries come quickly, because nobody wants to watch them come.
    fn settings(&self, org: &Org) -> String {
        let path = |name: &str| quoted(&self.directory.join(name).to_string_lossy());
        format!(
            r#"# The configuration of a demo: a simulated org on this machine.
[okta]
org_url = {okta}
client_id = {client_id}
private_key = {{ file = {okta_key} }}
key_id = {key_id}
dpop = "required"
rate_share = 1.0
timeout = "10s"

[state]
path = {state}

[risk]
source = "groups"
high_group = "High Risk Users"
medium_group = "Medium Risk Users"

[dispatch]
retry_initial = "200ms"
retry_max = "2s"

[servicenow]
url = {servicenow}
username = {user}
password = {{ file = {password} }}
timeout = "2s"

[slack]
token = {{ file = {slack_token} }}
api_url = {slack}

[email]
host = "127.0.0.1"
port = {smtp}
tls = "none"
from = "Okta Responder <okta-responder@example.com>"
"#,
            okta = quoted(&org.okta_url()),
            client_id = quoted(CLIENT_ID),
            okta_key = path("okta-key.pem"),
            key_id = quoted(KEY_ID),
            state = path("state.db"),
            servicenow = quoted(&org.servicenow_url()),
            user = quoted(SERVICENOW_USER),
            password = path("servicenow-password"),
            slack_token = path("slack-token"),
            slack = quoted(&org.slack_api_url()),
            smtp = org.smtp_port(),
        )
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // SQLite may be taking its log away at this moment; the second time it has done so. What then still resists is
        // left to whoever cleans the directory for temporary files.
        if fs::remove_dir_all(&self.directory).is_err() {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

/// The playbooks of the example configuration, for the apps of this org.
fn shipped_playbooks(cast: &Cast) -> String {
    let (_, playbooks) = EXAMPLE.split_once(FIRST_PLAYBOOK).unwrap_or_default();
    let playbooks =
        cast.app_ids().into_iter().fold(playbooks.to_owned(), |text, (shown, real)| text.replace(shown, real));
    format!("{FIRST_PLAYBOOK}{playbooks}")
}

/// A directory that did not exist before, so that nobody can have laid anything into it.
fn own_directory(parent: &Path) -> io::Result<PathBuf> {
    let pid = std::process::id();
    let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
    for number in 1..=100 {
        let directory = parent.join(format!("okta-responder-demo-{pid}-{number}"));
        match DirBuilder::new().mode(0o700).create(&directory) {
            Ok(()) => return Ok(directory),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::org::OrgOptions;
    use super::*;

    #[tokio::test]
    async fn the_demo_runs_the_shipped_playbooks_for_its_own_apps() {
        let org = Org::start(OrgOptions::default()).await.unwrap();
        let cast = Cast::enter(&org);
        let stage = Stage::build(&org, &cast).unwrap();
        let loaded = load::load(&stage.config()).unwrap_or_else(|problems| panic!("{}", problems[0]));
        let names: Vec<_> = loaded.playbooks.iter().map(|playbook| playbook.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "user-risk-changed",
                "high-risk-app-assigned",
                "high-risk-app-review",
                "access-review-ended",
                "high-risk-sign-in",
                "mfa-fatigue",
                "account-takeover",
                "threat-insight",
                "suspicious-activity-reported",
                "breached-credential",
                "partner-reported-risk",
                "unsuspended-at-high-risk",
                "device-added-at-high-risk",
                "policy-no-longer-met",
                "break-glass-used",
                "demo-end-sessions"
            ]
        );
        let text = fs::read_to_string(stage.config()).unwrap();
        assert!(!text.contains("EXAMPLE"), "an app of the example is left:\n{text}");
    }

    #[tokio::test]
    async fn the_directory_is_its_owners_and_gone_afterwards() {
        let org = Org::start(OrgOptions::default()).await.unwrap();
        let stage = Stage::build(&org, &Cast::enter(&org)).unwrap();
        let directory = stage.directory.clone();
        assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
        drop(stage);
        assert!(!directory.exists());
    }
}
