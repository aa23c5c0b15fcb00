//! `micro completion SHELL`: a script for the shell to read.

use clap::{Args, CommandFactory as _, ValueEnum};
use clap_complete::Shell;

use crate::error::{Exit, Problem};
use crate::output;

/// `micro completion SHELL`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  source <(micro completion bash)
  micro completion zsh > ~/.zfunc/_micro
  micro completion fish > ~/.config/fish/completions/micro.fish")]
pub struct CompletionArgs {
    /// The shell.
    #[arg(value_enum, value_name = "SHELL")]
    shell: Known,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Known {
    Bash,
    Zsh,
    Fish,
}

/// Prints the script.
///
/// # Errors
/// When standard output cannot be written.
pub fn run(args: CompletionArgs) -> Result<Exit, Problem> {
    let shell = match args.shell {
        Known::Bash => Shell::Bash,
        Known::Zsh => Shell::Zsh,
        Known::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut super::Cli::command(), "micro", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}
