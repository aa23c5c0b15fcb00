//! Rules of the kernel's packet filter (nftables), written by the program `nft`: one table for each
//! thing, so that taking it back is to delete one table, whatever it holds.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::error::{Exit, Problem};

/// Replaces `table` (`ip NAME`) by one with this body, in one step.
///
/// # Errors
/// M6008 where there is no `nft`, or it refuses.
pub fn put(table: &str, body: &str) -> Result<(), Problem> {
    // Named before it is deleted, since what is not there cannot be.
    run(&format!("table {table}\ndelete table {table}\n{}\n", text(table, body)))
}

/// As [`put`] hands it over; for people who look first.
#[must_use]
pub fn text(table: &str, body: &str) -> String {
    format!("table {table} {{\n{body}}}")
}

/// Takes `table` away, if it is there.
///
/// # Errors
/// As [`put`].
pub fn remove(table: &str) -> Result<(), Problem> {
    run(&format!("table {table}\ndelete table {table}\n"))
}

/// Whether `table` is there; `None` where that cannot be told.
#[must_use]
pub fn has(table: &str) -> Option<bool> {
    let mut nft = Command::new(super::program("nft")?);
    let words = ["list", "tables"];
    let listed = nft.args(words).stdin(Stdio::null()).output().ok()?;
    let wanted = format!("table {table}");
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    listed.status.success().then(|| text.lines().any(|line| line == wanted))
}

fn run(script: &str) -> Result<(), Problem> {
    let refused = |why: String| {
        Problem::new("M6008", Exit::Failed, "the kernel takes no rules for redirection")
            .why(why)
            .attempt("apt install nftables", "the program nft, where it is missing")
            .attempt("micro forward SERVICE", "needs no rules")
    };
    let Some(nft) = super::program("nft") else {
        return Err(refused("there is no program nft".to_owned()));
    };
    let mut child = Command::new(nft)
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| refused(format!("nft cannot be started: {error}")))?;
    // One that ends without reading says why on standard error.
    let _ = child.stdin.take().map(|mut input| input.write_all(script.as_bytes()));
    let ended = child.wait_with_output().map_err(|error| refused(error.to_string()))?;
    if ended.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ended.stderr);
    let first = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("it did not say why");
    Err(refused(format!("nft: {}", crate::output::text::plain(first))))
}
