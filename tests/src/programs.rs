//! Where the programs under test are, and how those of other people are started.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::lab::{Host, Lab};
use crate::process::{self, PATIENCE, Process, Ran};

/// The service of `tests/interop/python/server.py`, as the network names it.
pub const PROBE: &str = "interop.lab";
/// The service of `tests/interop/go/service`.
pub const GREETER: &str = "go.micro.srv.greeter";
/// The service of the interop server of the gRPC project.
pub const GRPC_TESTING: &str = "grpc.testing";

/// The root of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies in the workspace")
        .to_owned()
}

/// A file below `tests/interop`.
pub fn interop(file: &str) -> PathBuf {
    root().join("tests/interop").join(file)
}

/// A file that `tests/interop/setup.sh` made.
pub fn built(file: &str) -> PathBuf {
    root().join("target/interop").join(file)
}

/// Our own caller, service and port knocker: `tests/src/bin/lab`.
pub fn lab_program() -> PathBuf {
    let test = std::env::current_exe().expect("a running test knows its file");
    let profile = test.parent().and_then(Path::parent).expect("tests lie in target/PROFILE/deps");
    profile.join("lab")
}

/// The binary `micro`: from `MICRO_BIN`, else the release build, else the debug build. Without one, says so.
pub fn micro() -> Option<PathBuf> {
    let named = std::env::var_os("MICRO_BIN").map(PathBuf::from);
    let candidates = named
        .into_iter()
        .chain(["target/release/micro", "target/debug/micro"].map(|p| root().join(p)));
    let there = candidates.into_iter().find(|file| file.is_file());
    if there.is_none() {
        crate::skip("needs the binary micro: cargo build --release --bin micro, or MICRO_BIN");
    }
    there
}

/// True when all these programs are there; else says which is not.
pub fn have(programs: &[&str]) -> bool {
    programs.iter().all(|program| {
        let there = process::found(program).is_some();
        if !there {
            crate::skip(&format!("needs {program}: run tests/interop/setup.sh"));
        }
        there
    })
}

/// True when `setup.sh` has made all these files; else says which it has not.
pub fn have_built(files: &[&str]) -> bool {
    files.iter().all(|file| {
        let there = built(file).exists();
        if !there {
            crate::skip(&format!("needs target/interop/{file}: run tests/interop/setup.sh"));
        }
        there
    })
}

/// The folder of the gRPC project's own interop programs in Debian's `ruby-grpc`.
pub fn ruby_interop() -> Option<PathBuf> {
    let ask = r#"require "rubygems"; puts Gem::Specification.find_by_name("grpc").gem_dir"#;
    let found = process::found("ruby")
        .map(|ruby| process::run(Command::new(ruby).args(["-e", ask]), b"", PATIENCE))
        .filter(|ran| ran.code == Some(0))
        .map(|ran| Path::new(ran.out.trim()).join("src/ruby/pb/test"))
        .filter(|dir| dir.join("server.rb").is_file());
    if found.is_none() {
        crate::skip("needs ruby-grpc with its interop programs: run tests/interop/setup.sh");
    }
    found
}

/// Starts the grpcio service on a host and waits until it listens on this port of loopback.
pub fn grpcio_server(lab: &Lab, host: Host, port: u16) -> Process {
    let mut command = lab.command(host, built("venv/bin/python"));
    command.arg(interop("python/server.py")).args(["127.0.0.1", &port.to_string()]);
    let server = Process::start("grpcio server", &mut command);
    server.wait_line(0, "it listens", PATIENCE, |line| line == "listening");
    server
}

/// Runs cases of the grpcio client against an address.
pub fn grpcio_client(lab: &Lab, host: Host, address: &str, cases: &[&str]) -> Ran {
    let mut command = lab.command(host, built("venv/bin/python"));
    command.arg(interop("python/client.py")).arg(address).args(cases);
    process::run(&mut command, b"", PATIENCE * 6)
}

/// Runs cases of the grpc-js client against an address.
pub fn grpc_js_client(lab: &Lab, host: Host, address: &str, cases: &[&str]) -> Ran {
    let mut command = lab.command(host, "node");
    command.arg(interop("node/client.js")).arg(address).args(cases);
    command.env("NODE_PATH", built("node/node_modules"));
    process::run(&mut command, b"", PATIENCE * 6)
}

/// Starts the service of the lab program on loopback of a host; `name` is how it signs its answers.
pub fn lab_service(lab: &Lab, host: Host, name: &str, port: u16) -> Process {
    let mut command = lab.command(host, lab_program());
    command.args(["serve", name, &format!("127.0.0.1:{port}")]);
    let server = Process::start(&format!("lab service {name}"), &mut command);
    server.wait_line(0, "it listens", PATIENCE, |line| line == "listening");
    server
}

/// Starts the caller of the lab program on a host: `rate` calls a second and so many streams until its input is closed.
pub fn lab_load(lab: &Lab, host: Host, proxy: &str, rate: u32, streams: u32) -> Process {
    let mut command = lab.command(host, lab_program());
    command.args(["load", proxy, &rate.to_string(), &streams.to_string()]);
    Process::start_with_input("lab load", &mut command)
}

/// Starts so many calls through a proxy, so many at once; it ends with them and prints who answered how many.
pub fn lab_burst(lab: &Lab, host: Host, proxy: &str, count: u64, at_once: u32) -> Process {
    let mut command = lab.command(host, lab_program());
    command.args(["burst", proxy, &count.to_string(), &at_once.to_string()]);
    Process::start("lab burst", &mut command)
}

/// Starts nginx on loopback of a host, serving `www` below a fresh directory of the lab.
pub fn nginx(lab: &Lab, host: Host, port: u16) -> (Process, PathBuf) {
    let dir = lab.dir().join(format!("nginx-{}-{port}", host.name()));
    std::fs::create_dir_all(dir.join("www/upload")).expect("the lab's directory is writable");
    // nginx gives up root for an unprivileged user, who has to reach the files.
    let open = |path: &Path, mode| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
            .expect("our own files");
    };
    [lab.dir(), &dir, &dir.join("www")].into_iter().for_each(|path| open(path, 0o755));
    open(&dir.join("www/upload"), 0o777);
    let text = std::fs::read_to_string(interop("nginx/nginx.conf")).expect("the file is committed");
    let text = text.replace("DIR", &dir.to_string_lossy()).replace("PORT", &port.to_string());
    let conf = dir.join("nginx.conf");
    std::fs::write(&conf, text).expect("the lab's directory is writable");
    let program = process::found("nginx").expect("the caller asked have([\"nginx\"])");
    let server = Process::start(
        "nginx",
        lab.command(host, program).arg("-c").arg(&conf).arg("-p").arg(&dir),
    );
    lab.wait_port(host, &format!("127.0.0.1:{port}"));
    (server, dir)
}
