//! `lab`: the caller and the service of the fault tests, on the `h2` crate, so that every frame they send is known.
//!
//! ```text
//! lab wait-port ADDRESS              return when something accepts connections there
//! lab knock ADDRESS                  succeed when something accepts a connection there now
//! lab serve NAME ADDRESS             the service lab.echo.Echo
//! lab load PROXY RATE STREAMS        RATE calls a second and so many streams, until the input is closed
//! lab burst PROXY COUNT AT-ONCE      so many calls, so many at once, and who answered how many
//! lab stall PROXY COUNT              so many streams that send without end and are not read, until the input is closed
//! lab paced PROXY SECONDS            bytes that one paced stream delivers in a time
//! lab idle ADDRESS COUNT             so many connections that say nothing, until the input is closed
//! lab half-close ADDRESS HOST PATH   ask, say that nothing more comes, and print the bytes of the answer
//! lab vanish ADDRESS                 connections in five states, for a host that then loses its network
//! ```
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what it prints is its answer to the test that started it"
)]

mod burst;
mod hold;
mod load;
mod serve;
mod wire;

use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The longest wait for a port; the test that asks has a shorter patience.
const PORT_WAIT: Duration = Duration::from_secs(60);
/// The longest wait for an answer to one knock; in the lab an answer takes well under a millisecond.
const KNOCK_WAIT: Duration = Duration::from_millis(700);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be made");
    let done = match words.as_slice() {
        ["wait-port", address] => runtime.block_on(wait_port(address)),
        ["knock", address] => runtime.block_on(knock(address)),
        ["serve", name, address] => runtime.block_on(serve::run(name, address)),
        ["load", proxy, rate, streams] => runtime.block_on(load::run(proxy, rate, streams)),
        ["burst", proxy, count, at_once] => runtime.block_on(burst::run(proxy, count, at_once)),
        ["stall", proxy, count] => runtime.block_on(hold::stall(proxy, count)),
        ["paced", proxy, seconds] => runtime.block_on(hold::paced(proxy, seconds)),
        ["idle", address, count] => runtime.block_on(hold::idle(address, count)),
        ["half-close", address, host, path] => {
            runtime.block_on(hold::half_close(address, host, path))
        }
        ["vanish", address] => runtime.block_on(hold::vanish(address)),
        _ => Err("usage: lab wait-port|knock|serve|load|burst|stall|paced|idle|vanish …".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("lab: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn wait_port(address: &str) -> wire::Outcome {
    let deadline = Instant::now() + PORT_WAIT;
    while let Err(error) = tokio::net::TcpStream::connect(address).await {
        if Instant::now() > deadline {
            return Err(format!("{address}: {error}").into());
        }
        // A port that is closed tells nobody when it opens.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

async fn knock(address: &str) -> wire::Outcome {
    tokio::time::timeout(KNOCK_WAIT, tokio::net::TcpStream::connect(address)).await??;
    Ok(())
}
