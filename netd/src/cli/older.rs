//! Older names that keep working, with one line that tells the new one.

use std::ffi::OsString;

use clap::{Args, Subcommand};

use super::{describe, services};
use crate::output::Output;

/// `micro list …`
#[derive(Debug, Args)]
pub struct ListArgs {
    /// What to list.
    #[command(subcommand)]
    pub what: Listed,
}

/// What `micro list` lists.
#[derive(Debug, Subcommand)]
pub enum Listed {
    /// The same as `micro services`.
    Services(services::ServicesArgs),
}

/// `micro get …`
#[derive(Debug, Args)]
pub struct GetArgs {
    /// What to get.
    #[command(subcommand)]
    pub what: Got,
}

/// What `micro get` gets.
#[derive(Debug, Subcommand)]
pub enum Got {
    /// The same as `micro describe SERVICE`.
    Service(describe::DescribeArgs),
}

/// Says the new name of every older one among the words.
pub fn note(words: &[OsString], output: Output) {
    let words: Vec<&str> = words.iter().skip(1).filter_map(|word| word.to_str()).collect();
    for (older, newer) in renamed(&words) {
        output.say(&format!("note: {older} is now {newer}"));
    }
}

fn renamed(words: &[&str]) -> Vec<(&'static str, &'static str)> {
    let commands: Vec<&str> = words.iter().copied().filter(|word| !word.starts_with('-')).collect();
    let mut found = match commands.as_slice() {
        ["network", "connect", ..] => vec![("network connect", "network join")],
        ["network", "services", ..] => vec![("network services", "services")],
        ["list", "services", ..] => vec![("list services", "services")],
        ["get", "service", ..] => vec![("get service", "describe")],
        _ => Vec::new(),
    };
    let has = |name: &str| {
        let with_value = format!("{name}=");
        words.iter().any(|word| *word == name || word.starts_with(&with_value))
    };
    // Options behind the service of a call are fields of its request.
    // The demo's own --nodes counts nodes.
    let joins = commands.first() == Some(&"network") && commands.get(1) != Some(&"demo");
    if joins && has("--nodes") {
        found.push(("--nodes", "--join"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_names_are_told_and_new_ones_are_not() {
        for (line, notes) in [
            ("list services", 1),
            ("get service greeter", 1),
            ("network connect 192.0.2.1:8085", 1),
            ("network --nodes=192.0.2.1:8085", 1),
            ("network --join 192.0.2.1:8085", 0),
            ("network demo --nodes 4", 0),
            ("services", 0),
            ("call greeter hello --nodes 3", 0),
        ] {
            let words: Vec<&str> = line.split(' ').collect();
            assert_eq!(renamed(&words).len(), notes, "{line}");
        }
    }
}
