//! `micro version`: the release of this program, and what it speaks between nodes.

use serde_json::json;

use super::Global;
use crate::error::{Exit, Problem};
use crate::output;

/// Prints the release.
///
/// # Errors
/// When standard output cannot be written.
pub fn run(global: &Global) -> Result<Exit, Problem> {
    let output = global.output();
    let release = env!("CARGO_PKG_VERSION");
    let (lowest, highest) = proto::PROTOCOL;
    if output.is_json() {
        output.document(
            "Version",
            json!({
                "release": release,
                "protocol_min": lowest,
                "protocol_max": highest,
                "os": std::env::consts::OS,
                "arch": std::env::consts::ARCH,
            }),
        )?;
    } else if lowest == highest {
        output::print(&format!("micro {release}, protocol {highest}\n"))?;
    } else {
        output::print(&format!("micro {release}, protocol {lowest} to {highest}\n"))?;
    }
    Ok(Exit::Done)
}
