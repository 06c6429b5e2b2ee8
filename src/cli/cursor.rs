//! `okta-responder cursor`

use std::path::Path;

use anyhow::anyhow;
use clap::{Args, Subcommand};

use super::moment::Moment;
use super::table::{self, Format};
use super::{Exit, load_config, now, open_store, runtime, terminal};
use crate::app;
use crate::config::load::Loaded;
use crate::engine::wanted_types;
use crate::model::event::SOURCE_OKTA;
use crate::okta::logs::{clamp_since, filter_for};
use crate::store::{InstanceLock, StreamRow};

/// Show or move the place in the log
///
/// The cursor is the place in Okta's log up to which everything is stored.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the cursors of all streams
    Show(Show),
    /// Let the live stream begin again at a time; the daemon must be stopped
    Reset(Reset),
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  okta-responder cursor show\n  okta-responder cursor show --format json | jq -r .next_url"
)]
struct Show {
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Events that are known already are recognized and left alone, so going back does nothing twice. Going \
    forward leaves out what lies between.\n\n\
    Examples:\n  systemctl stop okta-responder\n  okta-responder cursor reset --since 24h\n  systemctl start okta-responder\n\n\
    Exit codes: 0 done; 1 there is no stream yet; 75 a daemon works on the state file."
)]
struct Reset {
    /// Where to begin again: RFC 3339, or a duration before now (36h). Okta keeps 90 days
    #[arg(long, value_name = "TIME")]
    since: Moment,
}

pub(super) fn run(file: &Path, arguments: &Arguments) -> anyhow::Result<Exit> {
    let loaded = load_config(file)?;
    match &arguments.command {
        Command::Show(arguments) => show(&loaded, arguments.format),
        Command::Reset(arguments) => reset(&loaded, arguments.since),
    }
}

fn show(loaded: &Loaded, format: Format) -> anyhow::Result<Exit> {
    let store = open_store(&loaded.config)?;
    let streams = runtime()?.block_on(store.list_streams())?;
    if format == Format::Json {
        streams.iter().try_for_each(table::json)?;
        return Ok(Exit::Done);
    }
    if streams.is_empty() {
        terminal::line("No stream has begun; the first `okta-responder run` begins at [poll] start_from.")?;
    }
    for (at, stream) in streams.iter().enumerate() {
        if at > 0 {
            terminal::line("")?;
        }
        tell(stream)?;
    }
    Ok(Exit::Done)
}

fn tell(stream: &StreamRow) -> std::io::Result<()> {
    let time = |moment: Option<jiff::Timestamp>| moment.map(|moment| moment.to_string()).unwrap_or_default();
    table::fields(&[
        ("stream", format!("{} ({} {}, {})", stream.id, stream.source, stream.kind, stream.state)),
        ("since", stream.since.to_string()),
        ("until", time(stream.until)),
        ("last good poll", time(stream.last_good_poll)),
        ("newest event", time(stream.newest)),
        ("pages", stream.pages.to_string()),
        ("stored", stream.stored.to_string()),
        ("known already", stream.duplicates.to_string()),
        ("not wanted", stream.unwanted.to_string()),
        ("quarantined", stream.quarantined.to_string()),
        ("began again", stream.restarts.to_string()),
        ("problem", stream.problem.clone().unwrap_or_default()),
        ("filter", stream.query.clone()),
        ("cursor", stream.next_url.clone().unwrap_or_else(|| "none: it begins at `since`".to_owned())),
    ])
}

fn reset(loaded: &Loaded, since: Moment) -> anyhow::Result<Exit> {
    // Without a state file there is nothing to lock; opening it tells so.
    let store = open_store(&loaded.config)?;
    let _lock = InstanceLock::take(&app::state_path(&loaded.config), "cursor reset")?;
    let now = now();
    let wanted = since.at(now);
    if wanted > now {
        return Err(Exit::Usage.because(format!("--since {wanted} lies in the future")));
    }
    let (since, clamped) = clamp_since(wanted, now);
    let runtime = runtime()?;
    let Some(live) = runtime.block_on(store.live_stream(SOURCE_OKTA))? else {
        return Err(anyhow!(
            "the live stream has not begun, so it has no cursor; set [poll] start_from = \"{since}\" and start the daemon"
        ));
    };
    // With another filter than the playbooks ask for, the daemon would begin somewhere else.
    let wanted_now = wanted_types(&loaded.playbooks, &loaded.config.risk);
    let query = filter_for(&wanted_now, loaded.config.poll.max_filter_types).unwrap_or_default();
    runtime.block_on(store.restart_stream(live.id, query, since, now))?;
    if clamped {
        terminal::note(format!("Okta keeps 90 days of its log: {wanted} is too early."));
    }
    terminal::line(format!("The live stream begins again at {since} when the daemon starts."))?;
    Ok(Exit::Done)
}
