//! A real PostgreSQL.

use std::path::PathBuf;
use std::process::Command;

use crate::lab::{Host, Lab};
use crate::process::{self, PATIENCE, Process};

/// PostgreSQL on loopback of a host, with trust in whoever connects; its programs are beside it.
#[derive(Debug)]
pub struct Postgres {
    /// Where its programs are.
    pub bin: PathBuf,
    _server: Process,
}

impl Postgres {
    /// Starts one at this port, or says why not and gives `None`.
    ///
    /// # Panics
    /// If it is installed and does not come up.
    pub fn start(lab: &Lab, host: Host, port: u16) -> Option<Self> {
        let versions = std::fs::read_dir("/usr/lib/postgresql").ok();
        let bins =
            versions.into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path().join("bin")));
        let Some(bin) = bins.filter(|bin| bin.join("pgbench").is_file()).max() else {
            crate::skip("needs PostgreSQL: run tests/interop/setup.sh");
            return None;
        };
        let dir = lab.dir().join("postgres");
        std::fs::create_dir_all(&dir).expect("the lab's directory is writable");
        // It refuses to run as root.
        let as_postgres = |program: PathBuf| {
            let mut command = lab.command(host, "setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
            command
        };
        let open = Command::new("chmod").arg("755").arg(lab.dir()).status();
        assert!(open.expect("coreutils are there").success());
        let own = Command::new("chown").arg("postgres:postgres").arg(&dir).status();
        assert!(own.expect("coreutils are there").success());
        let data = dir.join("data");
        let mut init = as_postgres(bin.join("initdb"));
        init.args(["-A", "trust", "-U", "postgres", "-N", "-D"]).arg(&data);
        process::run(&mut init, b"", PATIENCE * 6).ok("initdb");
        let mut serve = as_postgres(bin.join("postgres"));
        serve.arg("-D").arg(&data).args(["-h", "127.0.0.1", "-p", &port.to_string()]);
        serve.args(["-c", "fsync=off", "-k", ""]);
        let server = Process::start("postgres", &mut serve);
        lab.wait_port(host, &format!("127.0.0.1:{port}"));
        Some(Self { bin, _server: server })
    }
}
