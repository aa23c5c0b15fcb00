//! What a person reads when something went wrong: what happened, why, what to do now.
//!
//! ```text
//! error[M1203]: no service named "greter"
//!   why   41 services are visible on network acme; the nearest name is greeter
//!   try   micro call greeter Greeter.Hello '{"name":"Ada"}'
//! ```
//!
//! Every failure that leaves the program, on a terminal or over the admin socket, is a [`Problem`].
//! Its code is never used for anything else; [`codes`] tells what each one means.

pub mod codes;

use std::borrow::Cow;
use std::fmt;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

/// How the program ends. The numbers are a promise to scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failed, and not one of the others.
    Failed = 1,
    /// Wrong usage.
    Usage = 2,
    /// No running node, or its socket cannot be reached.
    NoNode = 3,
    /// The named service, node or route does not exist.
    NotFound = 4,
    /// Not allowed.
    NotAllowed = 5,
    /// Could not be reached, or timed out.
    Unreachable = 6,
    /// Works, but not as asked.
    Partly = 7,
    /// Delivered: the service itself answered with an error.
    ServiceError = 10,
    /// A bug in micro.
    Crashed = 70,
    /// The configuration is invalid.
    Config = 78,
    /// Interrupted.
    Interrupted = 130,
}

impl Exit {
    const ALL: [Self; 12] = [
        Self::Done,
        Self::Failed,
        Self::Usage,
        Self::NoNode,
        Self::NotFound,
        Self::NotAllowed,
        Self::Unreachable,
        Self::Partly,
        Self::ServiceError,
        Self::Crashed,
        Self::Config,
        Self::Interrupted,
    ];
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl From<Exit> for u8 {
    fn from(exit: Exit) -> Self {
        exit as Self
    }
}

impl From<u8> for Exit {
    /// A number of a newer node that this release does not know is a plain failure.
    fn from(number: u8) -> Self {
        Self::ALL.into_iter().find(|exit| *exit as u8 == number).unwrap_or(Self::Failed)
    }
}

impl Serialize for Exit {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(*self as u8)
    }
}

impl<'de> Deserialize<'de> for Exit {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u8::deserialize(deserializer).map(Self::from)
    }
}

/// A failure, told to a person.
///
/// Its JSON form is the value of `error` in every answer of the admin API that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `M` and four digits: see [`codes`].
    pub code: Cow<'static, str>,
    /// What happened: one line without a full stop.
    pub what: String,
    /// Why: one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The place in a file that is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excerpt: Option<Box<Excerpt>>,
    /// What to do, best first: a command, and behind ` # ` what it is for. Ready to paste.
    #[serde(rename = "try", default)]
    pub tries: Vec<String>,
    /// How a command that ends with this ends.
    pub exit: Exit,
}

/// A line of a file with what is wrong in it underlined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excerpt {
    /// The file, as it was named.
    pub file: String,
    /// Counted from 1.
    pub line: usize,
    /// Characters, counted from 1.
    pub column: usize,
    /// The whole line.
    pub text: String,
    /// Characters underlined; at least 1.
    pub width: usize,
    /// What stands behind the underline.
    pub note: String,
}

impl Problem {
    /// A failure with its code and its first line.
    pub fn new(code: &'static str, exit: Exit, what: impl Into<String>) -> Self {
        debug_assert!(codes::explain(code).is_some(), "{code} is not listed in error::codes");
        Self {
            code: code.into(),
            what: what.into(),
            why: None,
            excerpt: None,
            tries: Vec::new(),
            exit,
        }
    }

    /// A plain failure of this machine (files, sockets, memory): M6002, exit 1.
    pub fn machine(what: impl Into<String>, source: &dyn fmt::Display) -> Self {
        Self::new("M6002", Exit::Failed, what).why(source.to_string())
    }

    /// A bug: M9001, exit 70.
    pub fn bug(what: impl Into<String>) -> Self {
        Self::new("M9001", Exit::Crashed, what)
    }

    /// Says why.
    #[must_use]
    pub fn why(mut self, why: impl Into<String>) -> Self {
        self.why = Some(why.into());
        self
    }

    /// Says what to do: `command`, which does `purpose`. An empty purpose says nothing.
    #[must_use]
    pub fn attempt(mut self, command: impl Into<String>, purpose: &str) -> Self {
        let command = command.into();
        self.tries.push(if purpose.is_empty() {
            command
        } else {
            format!("{command} # {purpose}")
        });
        self
    }

    /// Points at a place in a file.
    #[must_use]
    pub fn at(mut self, excerpt: Excerpt) -> Self {
        self.excerpt = Some(Box::new(excerpt));
        self
    }

    /// The body of an admin answer that reports this.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({ "kind": "Error", "api": crate::api::VERSION, "error": self })
    }
}

impl fmt::Display for Problem {
    /// The lines a person reads, without colour and without a newline at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error[{}]: {}", self.code, self.what)?;
        if let Some(excerpt) = &self.excerpt {
            write!(f, "\n{excerpt}")?;
        }
        if let Some(why) = &self.why {
            write!(f, "\n  why   {why}")?;
        }
        let tries: Vec<_> =
            self.tries.iter().map(|one| one.split_once(" # ").unwrap_or((one, ""))).collect();
        let width = tries
            .iter()
            .filter(|(_, purpose)| !purpose.is_empty())
            .map(|(command, _)| command.chars().count())
            .max()
            .unwrap_or(0);
        for (at, (command, purpose)) in tries.iter().enumerate() {
            let lead = if at == 0 { "  try   " } else { "        " };
            if purpose.is_empty() {
                write!(f, "\n{lead}{command}")?;
            } else {
                write!(f, "\n{lead}{command:width$}   {purpose}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        let (indent, mark) = (" ".repeat(self.column - 1), "^".repeat(self.width.max(1)));
        writeln!(f, "  --> {}:{}:{}", self.file, self.line, self.column)?;
        writeln!(f, "   {number} | {}", self.text)?;
        write!(f, "   {margin} | {indent}{mark} {}", self.note)?;
        Ok(())
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_three_lines_with_its_tries_aligned() {
        let problem = Problem::new("M6001", Exit::Failed, "UDP port 8085 is taken")
            .why("another program listens on it")
            .attempt("micro status", "use the node that is already running")
            .attempt("micro network --name b", "run a second one on a free port");
        assert_eq!(
            problem.to_string(),
            "error[M6001]: UDP port 8085 is taken\n\
             \x20 why   another program listens on it\n\
             \x20 try   micro status             use the node that is already running\n\
             \x20       micro network --name b   run a second one on a free port"
        );
    }

    #[test]
    fn a_problem_is_the_same_after_the_admin_socket() {
        let problem = Problem::new("M1203", Exit::NotFound, "no service named \"greter\"")
            .why("one is near")
            .attempt("micro services", "");
        let back: Problem = serde_json::from_value(problem.to_json()["error"].clone()).unwrap();
        assert_eq!(back, problem);
    }

    #[test]
    fn an_exit_of_a_newer_node_is_a_plain_failure() {
        for (number, exit) in [(0, Exit::Done), (78, Exit::Config), (99, Exit::Failed)] {
            assert_eq!(Exit::from(number), exit);
        }
    }
}
