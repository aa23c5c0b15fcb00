//! `micro serve`: a built-in service as a process of its own, registered at the local node.

use clap::Args;

use super::Global;
use crate::error::{Exit, Problem};
use crate::serve::{self, Builtin};

/// `micro serve SERVICE`
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// echo, greeter or clock.
    #[arg(value_name = "SERVICE", value_parser = str::parse::<Builtin>)]
    pub service: Builtin,
    /// Name on the network [default: that of the service].
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
}

/// Serves until interrupted; the registration goes with it.
///
/// # Errors
/// M6010 when no node runs here.
pub async fn run(args: ServeArgs, global: &Global) -> Result<Exit, Problem> {
    let client = global.client()?;
    serve::run(args, client, global.output()).await
}
