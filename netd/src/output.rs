//! What is printed: the answer on standard output, talk on standard error.
//!
//! A command makes one value and hands it over here; whether it becomes a table, JSON or names is
//! decided once. Everything that came from another node passes [`text::plain`] before it reaches a
//! terminal.

pub mod banner;
pub mod map;
pub mod table;
pub mod text;

use std::io::{self, Write};

use clap::ValueEnum;
use serde_json::{Value, json};

pub use table::{Column, Listing};

use crate::api;
use crate::error::{Exit, Problem};

/// The form of the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For people with room.
    Wide,
    /// One document.
    Json,
    /// One object a line.
    Jsonl,
    /// Names only, one a line.
    Name,
    /// As a file to be edited: rules alone have one.
    Toml,
}

/// When to use colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` or `TERM=dumb`.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How this run prints.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// The form of the answer.
    pub format: Format,
    /// Whether tables have a first line with names.
    pub headers: bool,
    /// No talk: only the answer and errors.
    pub quiet: bool,
    /// More talk.
    pub verbose: bool,
}

impl Output {
    /// Whether the answer is for a program.
    #[must_use]
    pub fn is_json(self) -> bool {
        matches!(self.format, Format::Json | Format::Jsonl)
    }

    /// Prints a list in the form asked for.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn list(self, listing: Listing) -> Result<(), Problem> {
        match self.format {
            Format::Json => self.document(listing.kind, json!({ "items": listing.items })),
            Format::Jsonl => {
                let lines = listing.items.iter().map(|item| format!("{item}\n"));
                print(&lines.collect::<String>())
            }
            Format::Name => {
                let names = listing.rows.iter().filter_map(|row| row.first());
                print(&names.map(|name| format!("{}\n", text::plain(name))).collect::<String>())
            }
            Format::Table | Format::Wide | Format::Toml if listing.rows.is_empty() => {
                self.say(&listing.empty);
                Ok(())
            }
            Format::Table | Format::Wide | Format::Toml => {
                print(&listing.to_text(self.format == Format::Wide, self.headers))
            }
        }
    }

    /// Prints one document: `fields` with kind and version in front.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn document(self, kind: &str, fields: Value) -> Result<(), Problem> {
        let mut whole = serde_json::Map::new();
        whole.insert("kind".to_owned(), kind.into());
        whole.insert("api".to_owned(), api::VERSION.into());
        if let Value::Object(fields) = fields {
            whole.extend(fields);
        }
        self.verbatim(&Value::Object(whole))
    }

    /// Prints a document as it is: on one line for `jsonl`, else indented.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn verbatim(self, document: &Value) -> Result<(), Problem> {
        let text = match self.format {
            Format::Jsonl => document.to_string(),
            Format::Json | Format::Table | Format::Wide | Format::Name | Format::Toml => {
                format!("{document:#}")
            }
        };
        print(&format!("{text}\n"))
    }

    /// Says something beside the answer, on standard error, unless quiet.
    pub fn say(self, line: &str) {
        if !self.quiet {
            talk(line);
        }
    }

    /// Says something that is only of interest to the curious.
    pub fn detail(self, line: &str) {
        if self.verbose {
            talk(line);
        }
    }

    /// Tells a failure: JSON on standard output for programs, and always the lines for people.
    pub fn fail(self, problem: &Problem) -> Exit {
        if self.is_json() {
            let _ = self.verbatim(&problem.to_json());
        }
        report(problem);
        problem.exit
    }
}

/// Writes the answer.
///
/// # Errors
/// M6002 when standard output cannot be written. A reader that went away is not an error: the
/// program ends as if all had been read.
pub fn print(text: &str) -> Result<(), Problem> {
    let mut out = anstream::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Problem::machine("standard output cannot be written", &error)),
    }
}

/// Writes a line on standard error. Nobody can be told when that fails.
pub fn talk(line: &str) {
    let _ = writeln!(anstream::stderr().lock(), "{line}");
}

/// Writes a warning on standard error.
pub fn warn(line: &str) {
    let style = anstyle::AnsiColor::Yellow.on_default().bold();
    talk(&format!("{style}warning:{style:#} {line}"));
}

/// Writes a problem on standard error, its first word in red on a terminal.
pub fn report(problem: &Problem) {
    let style = anstyle::AnsiColor::Red.on_default().bold();
    let told = text::plain_lines(&problem.to_string());
    match told.split_once(':') {
        Some((label, rest)) => talk(&format!("{style}{label}{style:#}:{rest}")),
        None => talk(&told),
    }
}

/// Applies `--color` to everything printed from here on.
pub fn choose_color(color: Color) {
    match color {
        Color::Auto => anstream::ColorChoice::Auto,
        Color::Always => anstream::ColorChoice::Always,
        Color::Never => anstream::ColorChoice::Never,
    }
    .write_global();
}
