//! Telling systemd how things stand (`Type=notify`). Without `NOTIFY_SOCKET` nothing is told.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::engine::pulse::Pulse;

/// Says that the daemon is up: after the first good poll.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Says that the configuration is being read again.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => debug!("the time of the reload is not known: {error}"),
    }
}

/// Says that the daemon is on its way out.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping: waiting for requests under way")]);
}

/// Says that the daemon is alive although it does not read yet, and why.
pub fn waiting(status: &str) {
    tell(&[NotifyState::Watchdog, NotifyState::Status(status)]);
}

/// Says at once how things stand.
pub fn status(status: &str) {
    tell(&[NotifyState::Status(status)]);
}

/// Keeps the status line fresh and, while the tasks tick, the watchdog quiet.
pub async fn heartbeat(pulse: &Pulse, stop: CancellationToken) {
    let watchdog = sd_notify::watchdog_enabled();
    let every = watchdog.map_or(Duration::from_secs(10), |bound| bound / 3);
    loop {
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = stop.cancelled() => return,
        }
        let status = pulse.status_line();
        tell(&[NotifyState::Status(&status)]);
        if watchdog.is_some_and(|bound| pulse.alive(bound)) {
            tell(&[NotifyState::Watchdog]);
        }
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!("systemd could not be told: {error}");
    }
}
