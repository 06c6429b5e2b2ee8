//! `okta-responder completions`

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Exit, terminal};

/// Print the completions of a shell
///
/// Prints what makes a shell complete the words of this program.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    okta-responder completions bash > /usr/share/bash-completion/completions/okta-responder\n  \
    okta-responder completions zsh > /usr/local/share/zsh/site-functions/_okta-responder\n  \
    okta-responder completions fish > ~/.config/fish/completions/okta-responder.fish")]
pub(super) struct Arguments {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut super::Arguments::command(), "okta-responder", &mut script);
    terminal::verbatim(String::from_utf8_lossy(&script).trim_end())?;
    Ok(Exit::Done)
}
