//! What was typed, and what is done about it: one file a command.

pub mod asked;
pub mod call;
pub mod completion;
pub mod config;
pub mod demo;
pub mod describe;
pub mod divert;
pub mod dns;
pub mod down;
pub mod errors;
pub mod exec;
pub mod expose;
pub mod forward;
pub mod graph;
pub mod intercept;
pub mod invite;
pub mod join;
pub mod label;
pub mod network;
pub mod nodes;
pub mod older;
pub mod ping;
pub mod registry;
pub mod routes;
pub mod rules;
pub mod run;
pub mod serve;
pub mod services;
pub mod status;
pub mod stream;
pub mod streams;
pub mod subscribe;
pub mod topics;
pub mod trace;
pub mod up;
pub mod usage;
pub mod version;
pub mod wait;
pub mod why;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::client::{self, Client};
use crate::config::{duration, layers};
use crate::error::{Exit, Problem};
use crate::output::{self, Color, Format, Output};

/// Every machine on one network, every service by its name.
#[derive(Debug, Parser)]
#[command(
    name = "micro",
    version,
    disable_version_flag = true,
    arg_required_else_help = true,
    infer_subcommands = false,
    after_help = "\
Examples:
  micro network demo                                   three nodes and a call between them
  micro network                                        run a node
  micro services                                       what can I call?
  micro call greeter Greeter.Hello '{\"name\":\"Ada\"}'    call it"
)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Form of the answer.
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORM")]
    pub output: Format,
    /// Leave out the first line of tables.
    #[arg(long, global = true)]
    pub no_headers: bool,
    /// How long to wait for an answer.
    #[arg(long, global = true, value_parser = duration::parse, value_name = "TIME")]
    pub timeout: Option<Duration>,
    /// Say nothing but the answer and errors.
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Say more.
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// When to use colour.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    pub color: Color,
    /// Configuration file to read.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Admin socket of the node to talk to.
    #[arg(long, global = true, env = "MICRO_NODE_SOCKET", hide_env_values = true)]
    #[arg(value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

impl Global {
    /// How this run prints.
    #[must_use]
    pub fn output(&self) -> Output {
        Output {
            format: self.output,
            headers: !self.no_headers,
            quiet: self.quiet,
            verbose: self.verbose,
        }
    }

    /// How long to wait for an answer.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(client::DEFAULT_TIMEOUT)
    }

    /// The node this command talks to.
    ///
    /// # Errors
    /// M6010 when none runs, and what is wrong with the configuration.
    pub fn client(&self) -> Result<Client, Problem> {
        let socket = self.socket.as_deref();
        let flags = layers::Layer::default();
        let settings = layers::load(flags, self.config.as_deref(), None)?.settings;
        Client::find(socket, &settings.name, &settings.paths, self.timeout())
    }

    /// As [`Global::client`]; root who acts for a user means the node of that user.
    ///
    /// # Errors
    /// As [`Global::client`].
    pub fn machine_client(&self) -> Result<Client, Problem> {
        self.client().or_else(|problem| {
            let sudo = (problem.code == "M6010").then(|| Client::of_sudo(self.timeout()));
            sudo.flatten().ok_or(problem)
        })
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run and inspect the network; alone: run a node.
    Network(Box<network::NetworkArgs>),
    /// This node: identity, links, services. The same as `network status`.
    Status,
    /// Services that can be called.
    Services(services::ServicesArgs),
    /// One service: its methods and where it runs.
    Describe(describe::DescribeArgs),
    /// Call a service once, by gRPC or HTTP.
    Call(call::CallArgs),
    /// Call a service and print every message it sends.
    Stream(stream::StreamArgs),
    /// Offer something that already listens on a port.
    Expose(expose::ExposeArgs),
    /// Make a port of this machine a service, wherever that is.
    Forward(forward::ForwardArgs),
    /// Run a command that finds services as if they were on this machine.
    Exec(exec::ExecArgs),
    /// Start a command, offer it as a service, and withdraw it when it ends.
    Run(Box<run::RunArgs>),
    /// Withdraw what was exposed.
    Unexpose(expose::UnexposeArgs),
    /// What is decided about the calls of services: apply, get, rm, test.
    #[command(subcommand)]
    Rules(rules::RulesCommand),
    /// What is registered, and registries of others that are watched: backends, ls, get.
    #[command(subcommand)]
    Registry(registry::RegistryCommand),
    /// Which nodes want to hear of which topics.
    Topics,
    /// Topics that are kept, and who is given their messages.
    Streams(streams::StreamsArgs),
    /// Publish one message to a topic.
    Publish(topics::PublishArgs),
    /// Print the messages of topics as they come.
    Subscribe(subscribe::SubscribeArgs),
    /// Publish a question and print the first answer.
    Request(subscribe::RequestArgs),
    /// Run a built-in service: echo, greeter or clock.
    Serve(serve::ServeArgs),
    /// Look at the configuration.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// What an error code means.
    Errors(errors::ErrorsArgs),
    /// The release of this program.
    Version,
    /// Completion for a shell.
    Completion(completion::CompletionArgs),
    /// Older name of `services`.
    #[command(hide = true)]
    List(older::ListArgs),
    /// Older name of `describe`.
    #[command(hide = true)]
    Get(older::GetArgs),
}

impl Command {
    /// Whether its answer can be a file to be edited.
    fn has_toml(&self) -> bool {
        matches!(self, Self::Rules(rules::RulesCommand::Get(_)))
    }
}

/// Reads the command line, does what it says, and gives the exit code.
pub fn main() -> ExitCode {
    let words: Vec<std::ffi::OsString> = std::env::args_os().collect();
    let cli = match Cli::try_parse_from(&words) {
        Ok(cli) => cli,
        Err(error) => return usage::told(&error, &words).into(),
    };
    output::choose_color(cli.global.color);
    older::note(&words, cli.global.output());
    let output = cli.global.output();
    if output.format == Format::Toml && !cli.command.has_toml() {
        let problem = Problem::new("M4001", Exit::Usage, "only rules have the form toml")
            .why("it is for what is edited and applied again")
            .attempt("micro rules get SERVICE -o toml", "");
        return output.fail(&problem).into();
    }
    match run(cli.command, &cli.global) {
        Ok(exit) => exit,
        Err(problem) => output.fail(&problem),
    }
    .into()
}

fn run(command: Command, global: &Global) -> Result<Exit, Problem> {
    match command {
        Command::Network(args) => network::run(*args, global),
        Command::Status => block(status::run(global)),
        Command::Services(args) => block(services::run(args, global)),
        Command::Describe(args) => block(describe::run(args, global)),
        Command::Call(args) => block(call::run(args, global)),
        Command::Stream(args) => block(stream::run(args, global)),
        Command::Expose(args) => block(expose::run(args, global)),
        Command::Forward(args) => block(forward::run(args, global)),
        Command::Exec(args) => block(exec::run(args, global)),
        Command::Run(args) => block(run::run(*args, global)),
        Command::Unexpose(args) => block(expose::withdraw(args, global)),
        Command::Rules(command) => block(rules::run(command, global)),
        Command::Registry(command) => block(registry::run(command, global)),
        Command::Topics => block(topics::list(global)),
        Command::Streams(args) => block(streams::run(args, global)),
        Command::Subscribe(args) => block(subscribe::subscribe(args, global)),
        Command::Request(args) => block(subscribe::request(args, global)),
        Command::Publish(args) => block(topics::publish(args, global)),
        Command::Serve(args) => block(serve::run(args, global)),
        Command::Config(command) => config::run(command, global),
        Command::Errors(args) => errors::run(args, global),
        Command::Version => version::run(global),
        Command::Completion(args) => completion::run(args),
        Command::List(older::ListArgs { what: older::Listed::Services(args) }) => {
            block(services::run(args, global))
        }
        Command::Get(older::GetArgs { what: older::Got::Service(args) }) => {
            block(describe::run(args, global))
        }
    }
}

/// Runs a command that waits for others, on one thread.
///
/// # Errors
/// What the command fails with.
pub fn block(command: impl Future<Output = Result<Exit, Problem>>) -> Result<Exit, Problem> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Problem::machine("no event loop can be made", &error))?;
    let ended = runtime.block_on(command);
    // A read of a terminal cannot be taken back: it must not hold up the end.
    runtime.shutdown_background();
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_tree_is_sound() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
