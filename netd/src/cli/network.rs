//! `micro network`: alone it runs a node; with a command it inspects or changes the network.

use clap::{Args, Subcommand};

use super::{
    Global, block, demo, divert, dns, down, graph, intercept, invite, join, label, nodes, ping,
    routes, services, status, trace, up, wait, why,
};
use crate::error::{Exit, Problem};

/// `micro network [COMMAND]`
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  micro network                          run a node; the first one makes a network
  micro network --join mj1qv8…           run a node and join with a ticket
  micro network invite                   a ticket for another machine"
)]
pub struct NetworkArgs {
    #[command(subcommand)]
    command: Option<NetworkCommand>,
    #[command(flatten)]
    up: up::UpArgs,
}

#[derive(Debug, Subcommand)]
enum NetworkCommand {
    /// Run a node in the foreground.
    Up(Box<up::UpArgs>),
    /// Drain and stop the running node.
    Down(down::DownArgs),
    /// Several nodes in one process, and a call between them.
    Demo(demo::DemoArgs),
    /// This node: identity, links, services.
    Status,
    /// Nodes of the network.
    Nodes,
    /// Who is linked to whom.
    Graph,
    /// Ways to reach instances of services.
    Routes(routes::RoutesArgs),
    /// Why a call to a service would go where it would go.
    Why(why::WhyArgs),
    /// One real call to a service, marked as a probe, and where its time went.
    Trace(trace::TraceArgs),
    /// Send calls of a service to one node for a time.
    Divert(divert::DivertArgs),
    /// Labels of this node, and of services on it.
    Label(label::LabelArgs),
    /// Every program of this machine asks the node for names: enable, disable, status.
    #[command(subcommand)]
    Dns(dns::DnsCommand),
    /// The kernel leads connections to names to the node: on, off, status.
    #[command(subcommand)]
    Intercept(intercept::InterceptCommand),
    /// Make a ticket that lets others join.
    Invite(invite::InviteArgs),
    /// Link the running node to a further address of its network.
    #[command(alias = "connect")]
    Join(join::JoinArgs),
    /// Round trips to a node.
    Ping(ping::PingArgs),
    /// Wait until something is true.
    Wait(wait::WaitArgs),
    /// Whether the node is ready, as an exit code.
    Ready,
    /// The same as `micro services`.
    #[command(hide = true)]
    Services(services::ServicesArgs),
}

/// Does what was typed behind `micro network`.
///
/// # Errors
/// What the command fails with.
pub fn run(args: NetworkArgs, global: &Global) -> Result<Exit, Problem> {
    match args.command {
        None => up::run(args.up, global),
        Some(NetworkCommand::Up(args)) => up::run(*args, global),
        Some(NetworkCommand::Demo(args)) => demo::run(args, global),
        Some(NetworkCommand::Down(args)) => block(down::run(args, global)),
        Some(NetworkCommand::Status) => block(status::run(global)),
        Some(NetworkCommand::Nodes) => block(nodes::run(global)),
        Some(NetworkCommand::Graph) => block(graph::run(global)),
        Some(NetworkCommand::Routes(args)) => block(routes::run(args, global)),
        Some(NetworkCommand::Why(args)) => block(why::run(args, global)),
        Some(NetworkCommand::Trace(args)) => block(trace::run(args, global)),
        Some(NetworkCommand::Divert(args)) => block(divert::run(args, global)),
        Some(NetworkCommand::Label(args)) => block(label::run(args, global)),
        Some(NetworkCommand::Dns(command)) => block(dns::run(command, global)),
        Some(NetworkCommand::Intercept(command)) => block(intercept::run(command, global)),
        Some(NetworkCommand::Invite(args)) => block(invite::run(args, global)),
        Some(NetworkCommand::Join(args)) => block(join::run(args, global)),
        Some(NetworkCommand::Ping(args)) => block(ping::run(args, global)),
        Some(NetworkCommand::Wait(args)) => block(wait::run(args, global)),
        Some(NetworkCommand::Ready) => block(wait::ready(global)),
        Some(NetworkCommand::Services(args)) => block(services::run(args, global)),
    }
}
