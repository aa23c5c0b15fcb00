//! A command line that cannot be understood: an error with a suggestion, never a default action.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::error::{Exit, Problem};
use crate::output;

/// Prints help where it was asked for, else the problem; gives the exit code.
#[expect(clippy::wildcard_enum_match_arm, reason = "every other kind is told alike")]
pub fn told(error: &clap::Error, words: &[OsString]) -> Exit {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            match output::print(&error.render().ansi().to_string()) {
                Ok(()) => Exit::Done,
                Err(problem) => problem.exit,
            }
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            output::talk(&error.render().ansi().to_string());
            Exit::Usage
        }
        _ => {
            output::report(&problem(error, words));
            Exit::Usage
        }
    }
}

/// Prints the help of the command at `path`.
///
/// # Errors
/// When standard output cannot be written.
pub fn help(path: &[&str]) -> Result<Exit, Problem> {
    use clap::CommandFactory as _;
    let mut command = super::Cli::command();
    command.build();
    let found =
        path.iter().try_fold(&mut command, |command, name| command.find_subcommand_mut(name));
    let found = found.ok_or_else(|| Problem::bug(format!("no command {path:?}")))?;
    output::print(&format!("{}\n", found.render_long_help().ansi()))?;
    Ok(Exit::Done)
}

/// What is wrong with `words`, told as every other problem is.
#[expect(clippy::wildcard_enum_match_arm, reason = "every other kind is told in clap's words")]
fn problem(error: &clap::Error, words: &[OsString]) -> Problem {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(all)) => Some(all.join(", ")),
        Some(_) | None => None,
    };
    let command = command_of(words);
    let help = format!("{command} --help");
    let near = text(ContextKind::SuggestedSubcommand).or_else(|| text(ContextKind::SuggestedArg));
    let (what, why) = match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let typed = text(ContextKind::InvalidSubcommand).unwrap_or_default();
            (format!("{command} has no command {typed:?}"), None)
        }
        ErrorKind::UnknownArgument => {
            let typed = text(ContextKind::InvalidArg).unwrap_or_default();
            let kind = if typed.starts_with('-') { "option" } else { "command" };
            (format!("{command} has no {kind} {typed:?}"), None)
        }
        ErrorKind::MissingRequiredArgument => {
            let missing = text(ContextKind::InvalidArg).unwrap_or_default();
            (format!("{command} lacks {missing}"), text(ContextKind::Usage))
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let option = text(ContextKind::InvalidArg).unwrap_or_default();
            let value = text(ContextKind::InvalidValue).unwrap_or_default();
            let known = text(ContextKind::ValidValue).map(|all| format!("it is one of {all}"));
            let source = std::error::Error::source(error).map(ToString::to_string);
            let what = if value.is_empty() {
                format!("{option} lacks its value")
            } else {
                format!("{value:?} does not fit {option}")
            };
            (what, source.or(known))
        }
        _ => {
            let rendered = error.render().to_string();
            let first = rendered.lines().next().unwrap_or_default();
            (first.trim_start_matches("error: ").to_owned(), None)
        }
    };
    let mut problem = Problem::new("M4001", Exit::Usage, what);
    problem.why = why
        .map(|why| why.trim().lines().next().unwrap_or_default().to_owned())
        .or_else(|| near.as_ref().map(|near| format!("the nearest is {near}")));
    if let Some(near) = near.filter(|near| !near.contains(',')) {
        problem = problem.attempt(format!("{command} {near}"), "");
    }
    problem.attempt(help, "all there is")
}

/// The part of the command line that was understood.
fn command_of(words: &[OsString]) -> String {
    use clap::CommandFactory as _;
    let mut command = super::Cli::command();
    let mut understood = vec!["micro".to_owned()];
    for word in words.iter().skip(1) {
        let found = word.to_str().and_then(|word| command.find_subcommand(word)).cloned();
        match found {
            Some(found) => {
                understood.push(found.get_name().to_owned());
                command = found;
            }
            None => break,
        }
    }
    understood.join(" ")
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn refused(line: &str) -> String {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let error = super::super::Cli::try_parse_from(&words).unwrap_err();
        problem(&error, &words).to_string()
    }

    #[test]
    fn a_mistyped_command_is_an_error_with_a_suggestion() {
        assert_eq!(
            refused("micro network staus"),
            "error[M4001]: micro network has no command \"staus\"\n\
             \x20 why   the nearest is status\n\
             \x20 try   micro network status\n\
             \x20       micro network --help   all there is"
        );
        assert!(refused("micro netwrok").contains("the nearest is network"));
    }

    #[test]
    fn options_and_values_are_named() {
        for (line, first) in [
            ("micro status --jsn", "error[M4001]: micro status has no option \"--jsn\""),
            ("micro describe", "error[M4001]: micro describe lacks <SERVICE>"),
            ("micro status --timeout soon", "error[M4001]: \"soon\" does not fit --timeout <TIME>"),
            ("micro status -o xml", "error[M4001]: \"xml\" does not fit --output <FORM>"),
        ] {
            assert_eq!(refused(line).lines().next(), Some(first), "{line}");
        }
    }
}
