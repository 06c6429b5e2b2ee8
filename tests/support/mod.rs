//! What the end-to-end tests share: the real binary, run against a simulated org.
#![allow(dead_code, reason = "each test file uses its own part of this")]
#![allow(clippy::print_stderr, reason = "a skipped test says so")]
#![allow(clippy::disallowed_methods, reason = "tests bound their waits by the real clock")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail")]

pub mod every;
pub mod ledger;
pub mod limits;
pub mod proxy;
pub mod tls;

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use okta_responder::demo::org::{Org, OrgOptions};
use okta_responder::store::{EventFilter, Store, StreamRow};

/// The bound on every wait of a test. Long, because machines are shared; nothing waits longer than it has to.
pub const BOUND: Duration = Duration::from_secs(60);

/// A simulated org, a directory of its own, and a configuration that joins the two.
pub struct Scene {
    /// The org.
    pub org: Org,
    /// Holds configuration, secrets and state file.
    pub dir: tempfile::TempDir,
}

impl Scene {
    /// A scene with the default org.
    pub async fn new(playbooks: &str) -> Self {
        Self::with(OrgOptions::default(), "", playbooks).await
    }

    /// A scene with an org of one's own and additions to the configuration. `extra` stands in front of the playbooks.
    pub async fn with(options: OrgOptions, extra: &str, playbooks: &str) -> Self {
        let org = Org::start(options).await.unwrap();
        let scene = Self { org, dir: tempfile::tempdir().unwrap() };
        scene.secret("okta-token", scene.org.token());
        scene.secret("slack-token", okta_responder::demo::org::SLACK_TOKEN);
        scene.secret("servicenow-password", okta_responder::demo::org::SERVICENOW_PASSWORD);
        scene.configure(extra, playbooks);
        scene
    }

    /// Writes the configuration anew.
    pub fn configure(&self, extra: &str, playbooks: &str) {
        let (okta, servicenow, slack, port) =
            (self.org.okta_url(), self.org.servicenow_url(), self.org.slack_api_url(), self.org.smtp_port());
        let dir = self.dir.path().display();
        let user = okta_responder::demo::org::SERVICENOW_USER;
        let text = format!(
            r#"
[okta]
org_url = "{okta}"
token = {{ file = "{dir}/okta-token" }}
rate_share = 1.0
timeout = "2s"

[state]
path = "{dir}/state.db"

[risk]
source = "groups"
high_group = "High Risk Users"
medium_group = "Medium Risk Users"

[servicenow]
url = "{servicenow}"
username = "{user}"
password = {{ file = "{dir}/servicenow-password" }}
timeout = "2s"

[slack]
token = {{ file = "{dir}/slack-token" }}
api_url = "{slack}"
timeout = "2s"

[email]
host = "127.0.0.1"
port = {port}
tls = "none"
from = "Okta Responder <responder@example.com>"
timeout = "2s"
{extra}
{playbooks}
"#
        );
        std::fs::write(self.config(), text).unwrap();
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("config.toml")
    }

    /// The state file.
    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state.db")
    }

    /// Replaces a part of the configuration that is there.
    #[track_caller]
    pub fn edit(&self, part: &str, by: &str) {
        let text = std::fs::read_to_string(self.config()).unwrap();
        assert!(text.contains(part), "`{part}` is not in the configuration");
        std::fs::write(self.config(), text.replace(part, by)).unwrap();
    }

    /// Opens the state file beside the daemon, as soon as the daemon has made it.
    pub async fn store(&self) -> Store {
        eventually(async || Store::open_existing(&self.state()).map_err(|error| error.to_string())).await
    }

    /// Writes a secret's file anew.
    pub fn secret(&self, name: &str, value: &str) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.dir.path().join(name);
        std::fs::write(&path, value).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Runs a command of the program to its end.
    pub fn command(&self, arguments: &[&str]) -> Output {
        binary().arg("--config").arg(self.config()).args(arguments).output().unwrap()
    }

    /// The same after some words for the shell, such as `ulimit -f 0`.
    pub fn command_under(&self, shell: &str, arguments: &[&str]) -> Output {
        under(shell).arg("--config").arg(self.config()).args(arguments).output().unwrap()
    }

    /// Runs a command that prints one JSON value.
    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let output = self.command(arguments);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {told}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Runs a command that prints one JSON value a line.
    pub fn json_lines(&self, arguments: &[&str]) -> Vec<serde_json::Value> {
        let output = self.command(arguments);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {told}");
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Starts the daemon.
    pub fn daemon(&self) -> Daemon {
        self.daemon_with(&[])
    }

    /// Starts the daemon with environment variables.
    pub fn daemon_with(&self, environment: &[(&str, &str)]) -> Daemon {
        Daemon::start(&self.config(), environment)
    }
}

/// Looks again and again, until there is what is looked for. `Err` says what there is instead.
pub async fn eventually<T>(mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let until = Instant::now() + BOUND;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(instead) => assert!(Instant::now() < until, "waited in vain; there is {instead}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The uuids of the inbox in the order in which they were stored.
pub async fn inbox(store: &Store) -> Vec<String> {
    let mut events = store.list_events(EventFilter { limit: 100_000, ..EventFilter::default() }).await.unwrap();
    events.sort_by_key(|event| event.id);
    events.into_iter().map(|event| event.uuid).collect()
}

/// Waits until the inbox holds that many events, and returns their uuids in the order in which they were stored.
pub async fn inbox_of(store: &Store, count: usize) -> Vec<String> {
    eventually(async || {
        let uuids = inbox(store).await;
        if uuids.len() >= count { Ok(uuids) } else { Err(format!("an inbox of {}", uuids.len())) }
    })
    .await
}

/// The live stream as it stands.
pub async fn live(store: &Store) -> StreamRow {
    store.list_streams().await.unwrap().into_iter().find(|stream| stream.kind == "live").unwrap()
}

fn binary() -> Command {
    prepared(Command::new(env!("CARGO_BIN_EXE_okta-responder")))
}

/// The program after some words for the shell, which it then takes the place of.
fn under(shell: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{shell} && exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_okta-responder")]);
    prepared(command)
}

fn prepared(mut command: Command) -> Command {
    command.env_remove("OKTA_RESPONDER_CONFIG").env_remove("NOTIFY_SOCKET").stdin(Stdio::null());
    for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"] {
        command.env_remove(name);
    }
    command
}

/// A running daemon; killed when dropped.
pub struct Daemon {
    child: Child,
    log: Arc<(Mutex<String>, Condvar)>,
}

impl Daemon {
    /// Starts it on a configuration.
    pub fn start(config: &Path, environment: &[(&str, &str)]) -> Self {
        Self::spawn(binary(), config, environment)
    }

    /// Starts it after some words for the shell, such as `ulimit -f 0`.
    pub fn start_under(shell: &str, config: &Path) -> Self {
        Self::spawn(under(shell), config, &[])
    }

    fn spawn(mut command: Command, config: &Path, environment: &[(&str, &str)]) -> Self {
        command.arg("--config").arg(config).arg("run").envs(environment.iter().copied());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new((Mutex::new(String::new()), Condvar::new()));
        let (reader, shared) = (BufReader::new(child.stderr.take().unwrap()), Arc::clone(&log));
        std::thread::spawn(move || {
            for line in reader.lines().map_while(Result::ok) {
                let mut text = shared.0.lock().unwrap();
                text.push_str(&line);
                text.push('\n');
                shared.1.notify_all();
            }
        });
        Self { child, log }
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.0.lock().unwrap().clone()
    }

    /// Waits until the log has these words.
    #[track_caller]
    pub fn wait_for_log(&self, words: &str) {
        let until = Instant::now() + BOUND;
        let mut text = self.log.0.lock().unwrap();
        while !text.contains(words) {
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the log never said `{words}`:\n{text}");
            text = self.log.1.wait_timeout(text, left).unwrap().0;
        }
    }

    /// Kills it as `kill -9` does.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.signal(), Some(9), "{}", self.log());
    }

    /// Whether it has not ended yet.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status().unwrap();
        assert!(sent.success());
    }

    /// Stops it as systemd does and waits for its end.
    #[track_caller]
    pub fn stop(mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + BOUND;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "the daemon does not end:\n{}", self.log());
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A file system of its own, unmounted when dropped; `None` where this user may not mount.
pub struct Mounted(std::path::PathBuf);

impl Mounted {
    /// Mounts it, or says that this user may not.
    pub fn new(at: &Path, options: &str) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).stderr(Stdio::null());
        mount.status().is_ok_and(|status| status.success()).then(|| Self(at.to_owned()))
    }

    /// Changes its options.
    pub fn remount(&self, options: &str) {
        let status = Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(&self.0).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
