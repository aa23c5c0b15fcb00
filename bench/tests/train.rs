//! What a build that goes by counts is made to do still runs: `deploy/train`, a fiftieth of it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn the_work_of_a_counting_build_is_done_and_ends() {
    let Some(micro) = std::env::var_os("MICRO_BIN").map(PathBuf::from) else {
        let mut out = std::io::stderr().lock();
        let _ = writeln!(out, "SKIP needs the binary micro in MICRO_BIN");
        return;
    };
    let train = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/train");
    let mut work = Command::new(train);
    let work = work.arg(micro).arg(env!("CARGO_BIN_EXE_load")).arg("2").output().unwrap();
    assert!(work.status.success(), "{}", String::from_utf8_lossy(&work.stderr));
}
