//! `okta-responder man`

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Command, CommandFactory};
use clap_mangen::Man;

use super::{Exit, terminal};

/// Print the manual pages
///
/// Prints the manual pages of all commands in one piece, or writes one file for each into a directory.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  okta-responder man | man -l -\n  okta-responder man --dir /usr/local/share/man/man1"
)]
pub(super) struct Arguments {
    /// Write okta-responder.1, okta-responder-check.1, … here; the directory must exist
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    let mut command = super::Arguments::command().disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    collect(&command, &mut pages)?;
    match &arguments.dir {
        Some(dir) => write(dir, &pages)?,
        None => pages.iter().try_for_each(|(_, page)| terminal::verbatim(page.trim_end()))?,
    }
    Ok(Exit::Done)
}

/// The page of a command and those of the commands below it. Once built, each is called by its whole name.
fn collect(command: &Command, pages: &mut Vec<(String, String)>) -> anyhow::Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let mut page = Vec::new();
    Man::new(command.clone()).render(&mut page).context("a manual page could not be made")?;
    pages.push((name, String::from_utf8_lossy(&page).into_owned()));
    command.get_subcommands().filter(|below| !below.is_hide_set()).try_for_each(|below| collect(below, pages))
}

fn write(dir: &Path, pages: &[(String, String)]) -> anyhow::Result<()> {
    for (name, page) in pages {
        let file = dir.join(format!("{name}.1"));
        std::fs::write(&file, page).with_context(|| format!("{} could not be written", file.display()))?;
    }
    Ok(())
}
