//! `okta-responder schema`

use clap::Args;

use super::{Exit, terminal};
use crate::config::schema;

/// Print the JSON Schema of the configuration
///
/// For editors that complete and check TOML by a schema (those with taplo, such as Even Better TOML). Put it beside the
/// configuration, and `#:schema okta-responder.schema.json` into its first line. It knows every key, action and parameter;
/// `check` finds more.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  okta-responder schema > /etc/okta-responder/okta-responder.schema.json\n  \
    okta-responder schema --playbooks > /etc/okta-responder/playbooks.schema.json")]
pub(super) struct Arguments {
    /// That of the files in playbooks.d, in which only playbooks and tests stand
    #[arg(long)]
    playbooks: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    let schema = if arguments.playbooks { schema::of_playbooks() } else { schema::of_configuration() };
    terminal::json(&serde_json::to_string_pretty(&schema)?)?;
    Ok(Exit::Done)
}
