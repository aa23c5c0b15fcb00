//! `micro network demo`: several real nodes in one process, joined with real tickets over real QUIC
//! on the loopback, with the distance between regions added by [`distance`]. One of them answers
//! the commands of another terminal, as a node of this user would.

mod cast;
mod distance;
mod show;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use self::cast::Cast;
use crate::admin;
use crate::cli::demo::DemoArgs;
use crate::drain::Signals;
use crate::error::{Exit, Problem};
use crate::output::Output;

/// How long the whole may take to come up before something is wrong.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs the demo: until interrupted, or with `--once` until the call is shown.
///
/// # Errors
/// What stood in the way, as a node would say it.
pub fn run(args: DemoArgs, output: Output) -> Result<Exit, Problem> {
    crate::log::start("error", crate::config::LogFormat::Text)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Problem::machine("no event loop can be made", &error))?;
    let ended = runtime.block_on(perform(args, output));
    runtime.shutdown_background();
    ended
}

async fn perform(args: DemoArgs, output: Output) -> Result<Exit, Problem> {
    let mut signals = Signals::listen()?;
    let plan = cast::Plan::new(&args);
    show::opening(&plan, output)?;
    let act = async {
        let shown = tokio::time::timeout(PATIENCE, play(&plan, output));
        shown.await.map_err(|_| {
            Problem::new("M8004", Exit::Unreachable, "the demo did not come up")
                .why(format!("waited {}s", PATIENCE.as_secs()))
                .attempt("micro network demo --delay 0 --loss 0", "without distance")
        })?
    };
    let cast = tokio::select! {
        cast = act => cast?,
        () = signals.next() => return Ok(Exit::Interrupted),
    };
    if !args.once {
        let stop = CancellationToken::new();
        let first = cast.first();
        let socket = admin::Socket::bind(&cast.socket()).await?;
        tokio::spawn(socket.serve(Arc::clone(first), stop.clone()));
        show::invitation(&cast, output)?;
        signals.next().await;
        stop.cancel();
    }
    cast.leave();
    Ok(Exit::Done)
}

/// Brings everything up, line by line.
async fn play(plan: &cast::Plan, output: Output) -> Result<Cast, Problem> {
    let began = Instant::now();
    let cast = Cast::start(plan).await?;
    cast.joined().await;
    show::step(output, "joined", &format!("{0} of {0} nodes", plan.regions.len()), began)?;
    let began = Instant::now();
    let services = cast.offer().await?;
    cast.agreed(services).await;
    show::step(output, "routes agree", &format!("{services} services"), began)?;
    let call = cast.call().await?;
    show::call(plan, &call, output)?;
    Ok(cast)
}
