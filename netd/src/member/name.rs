//! The name of the node, where the one asked for may be in use by a running node.

use std::os::unix::net::UnixStream;

use proto::Ticket;

use super::{Wanted, known};
use crate::config::Settings;
use crate::error::{Exit, Problem};
use crate::state::State;

/// Nodes of one user on one machine that get a name by themselves.
const MAX_SUFFIX: u32 = 64;

/// The name to go by: the one in the settings, or, where it is only a default and a running node
/// has it, the same with `-2`, `-3` and so on behind it.
///
/// # Errors
/// M6004 when the name was asked for and a running node has it.
pub(super) fn choose(settings: &Settings, ticket: Option<&Ticket>) -> Result<String, Problem> {
    if !is_taken(settings, &settings.name, ticket)? {
        return Ok(settings.name.clone());
    }
    if settings.name_asked {
        let what = format!("a node named {} is already running", settings.name);
        return Err(Problem::new("M6004", Exit::Failed, what)
            .why("its admin socket answers, or its state directory is in use")
            .attempt("micro status", "use the node that is already running")
            .attempt(format!("micro network --name {}-2", settings.name), "run a second one"));
    }
    for number in 2..=MAX_SUFFIX {
        let name = format!("{}-{number}", settings.name);
        if !is_taken(settings, &name, ticket)? {
            return Ok(name);
        }
    }
    Err(Problem::new("M6004", Exit::Failed, format!("{MAX_SUFFIX} nodes run here already"))
        .why("each has a name that ends with its number")
        .attempt("micro network --name NAME", ""))
}

fn is_taken(settings: &Settings, name: &str, ticket: Option<&Ticket>) -> Result<bool, Problem> {
    // A socket asked for has a path of its own, whatever the node's name.
    if settings.socket.is_none() && UnixStream::connect(settings.paths.socket(name)).is_ok() {
        return Ok(true);
    }
    let wanted = Wanted { ticket, network: settings.network.as_deref() };
    let known = known::find(&settings.paths.state, name, &wanted)?;
    Ok(known.is_some_and(|known| State::is_busy(&known.dir)))
}
