//! Callers and machines that press: F16 (slow readers), F17 (peers that vanish), F19 (no descriptors) and F20 (no disk)
//! of the fault catalogue.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tests::events::{Kind, distribution, now_us};
use tests::lab::{Host, Lab};
use tests::node::{Node, Options, PROXY};
use tests::process::{self, PATIENCE, Process, Ran};
use tests::programs;
use tests::scenario::{Calls, ECHO, Scenario, TRIALS, alone, last};

const MIB: f64 = 1024.0;

/// Starts a subcommand of the lab program that holds something until its input is closed.
fn hold(lab: &Lab, host: Host, args: &[&str], until: &str) -> (Process, String) {
    // Thousands of connections are more than a process may have by default.
    let mut command = lab.command(host, "sh");
    command
        .args(["-c", "ulimit -n 8192; exec \"$0\" \"$@\""])
        .arg(programs::lab_program())
        .args(args);
    let process = Process::start_with_input(&format!("lab {}", args.join(" ")), &mut command);
    let (_, line) = process.wait_line(0, until, PATIENCE * 3, |line| line.starts_with(until));
    (process, line)
}

/// Bytes of one paced stream from us to the laptop in two seconds.
fn paced(lab: &Lab) -> f64 {
    let mut command = lab.command(Host::Laptop, programs::lab_program());
    let out = process::run(command.args(["paced", PROXY, "2"]), b"", PATIENCE).ok("a paced stream");
    out.trim().parse().expect("it prints a number")
}

#[test]
fn f16_a_thousand_streams_that_nobody_reads_cost_others_nothing() {
    let (Some(micro), _alone) = (programs::micro(), alone()) else { return };
    let (mut rates, mut memory) = (Vec::new(), Vec::new());
    for _ in 0..TRIALS {
        let Some(lab) = Lab::new() else { return };
        let scenario = Scenario::up(&lab, &micro, &[Host::Us]);
        let network = &scenario.network;
        let calls = Calls::start(&lab);
        let free = paced(&lab);
        let before = [network.laptop.rss_kib(), network.us.rss_kib()];
        let (stalled, line) = hold(&lab, Host::Laptop, &["stall", PROXY, "1000"], "stalled");
        let held = paced(&lab);
        let grown = [network.laptop.rss_kib(), network.us.rss_kib()];
        let each: Vec<f64> =
            before.iter().zip(grown).map(|(b, g)| g.saturating_sub(*b) as f64 / MIB).collect();
        let grown = each.iter().copied().fold(0.0, f64::max);
        tests::say(&format!(
            "F16 {line}; paced {:.0} % of before; memory of laptop and us + {each:.1?} MiB",
            held / free * 100.0
        ));
        assert_eq!(line, "stalled 1000 refused 0");
        drop(stalled);
        let failed: Vec<_> = calls.stop().into_iter().filter(|e| e.status != 0).collect();
        assert!(failed.is_empty(), "calls beside the slow readers failed: {:?}", failed.first());
        rates.push(held / free * 100.0);
        memory.push(grown);
    }
    let memory = distribution("F16 memory growth", "MiB", &memory);
    distribution("F16 rate of another stream", "% of before", &rates);
    assert!(memory.max <= 128.0);
    assert!(rates.iter().all(|rate| *rate >= 80.0));
}

/// Established TCP connections of the proxy of a node, from another machine.
fn established(lab: &Lab, host: Host, peer: Host) -> usize {
    let filter = format!("dst {}", peer.v4());
    let out = lab.exec(host, "ss", &["-Htn", "state", "established", &filter]).ok("ss");
    out.lines().count()
}

/// Milliseconds from the moment that a machine vanished until each of its connections was freed.
fn vanish(lab: &Lab, micro: &Path) -> Vec<f64> {
    let proxy = format!("{}:8081", Host::Eu.v4());
    let options = Options { proxy: proxy.clone(), ..Options::default() };
    let eu = Node::up_with(lab, Host::Eu, micro, None, options);
    let _service = programs::lab_service(lab, Host::Eu, "eu", tests::scenario::ECHO_PORT);
    eu.expose(ECHO, tests::scenario::ECHO_PORT, "grpc");
    let (_gone, _) = hold(lab, Host::Us, &["vanish", &proxy], "five open");
    let open = established(lab, Host::Eu, Host::Us);
    assert!(open >= 4, "five connections were opened, {open} are there");

    let fault = Instant::now();
    lab.blackhole(Host::Us);
    let mut freed = Vec::new();
    while freed.len() < open {
        let left = established(lab, Host::Eu, Host::Us);
        freed.resize(open - left.min(open), fault.elapsed().as_secs_f64() * 1000.0);
        assert!(
            fault.elapsed() <= Duration::from_secs(62),
            "{left} of {open} connections are still held"
        );
        std::thread::sleep(Duration::from_millis(250));
    }
    freed
}

#[test]
fn f17_connections_of_a_machine_that_vanished_are_freed_within_a_minute() {
    let (Some(micro), _alone) = (programs::micro(), alone()) else { return };
    if !programs::have(&["ss"]) {
        return;
    }
    // Each trial is mostly waiting, so they run side by side.
    let Some(labs) = (0..TRIALS).map(|_| Lab::new()).collect::<Option<Vec<_>>>() else { return };
    let freed: Vec<f64> = std::thread::scope(|scope| {
        let micro = &micro;
        let trials: Vec<_> =
            labs.iter().map(|lab| scope.spawn(move || vanish(lab, micro))).collect();
        trials
            .into_iter()
            .flat_map(|trial| trial.join().expect("the trial held its bars"))
            .collect()
    });
    let freed = distribution("F17 vanished to freed, each connection of five trials", "ms", &freed);
    assert!(freed.max <= 60_000.0);
}

#[test]
fn f17_a_caller_that_has_said_all_still_gets_its_whole_answer() {
    const BYTES: usize = 5_000_000;
    let (Some(micro), _alone) = (programs::micro(), alone()) else { return };
    if !programs::have(&["nginx"]) {
        return;
    }
    let (mut whole, mut took) = (Vec::new(), Vec::new());
    for _ in 0..TRIALS {
        let Some(lab) = Lab::new() else { return };
        let (_nginx, dir) = programs::nginx(&lab, Host::Us, 19800);
        std::fs::write(dir.join("www/page"), vec![b'p'; BYTES]).expect("the lab is writable");
        let network = tests::node::Network::up(&lab, &micro);
        network.us.expose("web", 19800, "http");
        network.laptop.wait_service("web");
        let mut caller = lab.command(Host::Laptop, programs::lab_program());
        caller.args(["half-close", PROXY, "web", "/page"]);
        let began = now_us();
        let told = process::run(&mut caller, b"", PATIENCE).ok("a half-closed call");
        took.push((now_us() - began) as f64 / 1000.0);
        let bytes: usize = told.trim().parse().expect("it prints a number");
        whole.push(bytes as f64 / BYTES as f64 * 100.0);
    }
    distribution("F17 half-closed call, start to end", "ms", &took);
    distribution("F17 half-closed call, bytes of the answer", "%", &whole);
    // The head comes on top.
    assert!(whole.iter().all(|share| *share > 100.0));
}

#[test]
fn f19_without_descriptors_a_node_lives_on_and_recovers() {
    let (Some(micro), _alone) = (programs::micro(), alone()) else { return };
    let Some(lab) = Lab::new() else { return };
    let options = Options { files: Some(256), ..Options::default() };
    let mut eu = Node::up_with(&lab, Host::Eu, &micro, None, options);
    let _service = programs::lab_service(&lab, Host::Eu, "eu", tests::scenario::ECHO_PORT);
    eu.expose(ECHO, tests::scenario::ECHO_PORT, "grpc");
    let (mut recovery, mut load) = (Vec::new(), Vec::new());
    for _ in 0..TRIALS {
        let (idle, line) = hold(&lab, Host::Eu, &["idle", PROXY, "2000"], "open");
        let used = eu.cpu();
        let from = Instant::now();
        last(Duration::from_secs(2));
        load.push((eu.cpu() - used).as_secs_f64() / from.elapsed().as_secs_f64() * 100.0);
        assert!(eu.running(), "the node ended");
        eu.status();
        tests::say(&format!("F19 {line} of 2000, {} descriptors", eu.fds()));
        drop(idle);
        let freed = now_us();
        let mut again = lab.command(Host::Eu, programs::lab_program());
        process::run(again.args(["paced", PROXY, "0"]), b"", PATIENCE).ok("a call after the flood");
        recovery.push((now_us() - freed) as f64 / 1000.0);
    }
    assert!(distribution("F19 processor while full", "% of a core", &load).max <= 20.0);
    assert!(distribution("F19 flood over to first call", "ms", &recovery).p95 <= 1000.0);
}

/// A small file system that ends with the test.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(at: &'a Path) -> Option<Self> {
        std::fs::create_dir_all(at).expect("the lab's directory is writable");
        let args = ["-t", "tmpfs", "-o", "size=1m,nr_inodes=200,mode=0700", "tmpfs"];
        let ran = process::run(Command::new("mount").args(args).arg(at), b"", PATIENCE);
        if ran.code != Some(0) {
            tests::skip(&format!("needs mount of tmpfs: {}", ran.err.trim()));
            return None;
        }
        Some(Self(at))
    }

    /// Leaves no byte.
    fn fill(&self) {
        let mut command = Command::new("dd");
        let ballast = format!("of={}/ballast", self.0.display());
        let ran = process::run(
            command.args(["if=/dev/zero", &ballast, "bs=4k", "count=1000"]),
            b"",
            PATIENCE,
        );
        assert!(ran.err.contains("No space left"), "the disk did not fill: {}", ran.err);
    }

    /// Takes no more writes, as a file system does that has seen an error.
    fn read_only(&self) {
        self.remount("remount,ro");
    }

    fn remount(&self, how: &str) {
        process::run(Command::new("mount").args(["-o", how]).arg(self.0), b"", PATIENCE).ok(how);
    }

    /// Leaves bytes, and no room for another file.
    fn crowd(&self) {
        let made =
            (0..=200).find(|n| std::fs::write(self.0.join(format!("ballast{n}")), b"").is_err());
        assert!(made.is_some(), "the disk took every file");
    }

    fn free(&self) {
        self.remount("remount,rw");
        for entry in std::fs::read_dir(self.0).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with("ballast") {
                std::fs::remove_file(entry.path()).expect("the ballast is ours");
            }
        }
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        // Lazily: a node may still have its files open.
        process::run(Command::new("umount").arg("-l").arg(self.0), b"", PATIENCE);
    }
}

/// Everything below a directory: names and contents, in order.
fn contents(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            match path.is_dir() {
                true => todo.push(path),
                false => all.push((path.clone(), std::fs::read(&path).unwrap_or_default())),
            }
        }
    }
    all.sort();
    all
}

/// How a disk fails.
#[derive(Clone, Copy, Debug)]
enum Disk {
    Full,
    NoFiles,
    ReadOnly,
}

/// What people read: what, why, and what to try.
fn is_three_lines(text: &str) -> bool {
    ["error[M", "\n  why ", "\n  try "].iter().all(|part| text.contains(part))
}

/// Applies rules of a service that nobody offers; `retries` tells one set from another.
fn apply(node: &Node<'_>, retries: u32) -> Ran {
    let path = node.home().join("orders.toml");
    let text = format!("service = \"orders\"\n[[rule]]\nname = \"r\"\nthen.retries = {retries}\n");
    std::fs::write(&path, text).expect("the node's home is not its state");
    node.cli(&["rules", "apply", "--replace", &path.to_string_lossy()])
}

/// One trial: milliseconds from the disk's return to the first invitation, and to a join that had failed before.
fn without_disk(micro: &Path, failing: Disk) -> Option<(f64, f64)> {
    let lab = Lab::new()?;
    let state = lab.dir().join("small");
    let disk = SmallDisk::mount(&state)?;
    let options = Options { state: Some(state.clone()), ..Options::default() };
    let mut eu = Node::up_with(&lab, Host::Eu, micro, None, options);
    let us = Node::up(&lab, Host::Us, micro, Some(&eu.invite()));
    let spare = eu.invite();
    let mut laptop = Node::prepare(&lab, Host::Laptop, micro, Options::default());
    let service = programs::lab_service(&lab, Host::Eu, "eu", tests::scenario::ECHO_PORT);
    eu.expose(ECHO, tests::scenario::ECHO_PORT, "grpc");
    us.wait_service(ECHO);
    let calls = Calls::start_on(&lab, Host::Us);
    apply(&eu, 1).ok("micro rules apply");
    eu.cli(&["network", "label", "tier=gold"]).ok("micro network label");
    // Peers are written down two seconds after a change; from then on nothing is to be written.
    last(Duration::from_secs(3));
    let before = contents(&state);
    match failing {
        Disk::Full => disk.fill(),
        Disk::NoFiles => disk.crowd(),
        Disk::ReadOnly => disk.read_only(),
    }

    let refused = eu.cli(&["network", "invite", "-o", "json"]);
    assert!(refused.code.is_some_and(|code| code != 0), "an invitation was not kept: {refused:?}");
    let refused = eu.cli(&["network", "invite"]);
    assert!(is_three_lines(&refused.err), "the refusal says why, and what to do: {refused:?}");
    // Rules and labels that cannot be kept are not taken: what holds is what was there.
    let labelled = eu.cli(&["network", "label", "tier=free"]);
    for refused in [apply(&eu, 2), labelled] {
        let is_told = refused.code == Some(1) && refused.err.starts_with("error[M6003]");
        assert!(is_told && is_three_lines(&refused.err), "{refused:?}");
    }
    let held = eu.json(&["rules", "get", "orders"]);
    assert_eq!((&held["revision"], &held["rule"][0]["then"]["retries"]), (&1.into(), &1.into()));
    assert_eq!(eu.status()["node"]["labels"]["tier"], "gold");
    laptop.start(Some(&spare));
    let code = laptop.wait_end();
    let said = laptop.said().join("\n");
    assert!(
        code.is_some_and(|code| code != 0) && is_three_lines(&said),
        "a join that was not kept: {code:?} {said}"
    );
    let after = contents(&state);
    // A lock has nothing in it; everything else that was written has to be there still.
    let whole = |path: &Path| after.iter().any(|(p, now)| p == path && !now.is_empty());
    let lost: Vec<_> = before.iter().filter(|(p, had)| !had.is_empty() && !whole(p)).collect();
    let lost: Vec<_> = lost.iter().map(|(p, _)| p).collect();
    assert!(lost.is_empty(), "files were lost or emptied: {lost:?}");

    disk.free();
    let back = now_us();
    let since = || (now_us() - back) as f64 / 1000.0;
    // Invitations and joins work again without a restart, and the ticket was not used up.
    eu.invite();
    let invited = since();
    laptop.start(Some(&spare));
    laptop.wait_ready();
    let joined = since();
    let failed: Vec<_> =
        calls.stop().into_iter().filter(|e| e.status != 0 && e.kind == Kind::Unary).collect();
    assert!(failed.is_empty(), "calls failed while the disk was away: {:?}", failed.first());
    drop((us, laptop, service));
    eu.kill9();
    eu.start(None);
    eu.wait_ready();
    Some((invited, joined))
}

fn f20(failing: Disk) {
    let (Some(micro), _alone) = (programs::micro(), alone()) else { return };
    let (mut invited, mut joined) = (Vec::new(), Vec::new());
    for _ in 0..TRIALS {
        let Some((invite, join)) = without_disk(&micro, failing) else { return };
        invited.push(invite);
        joined.push(join);
    }
    distribution(&format!("F20 {failing:?}, disk back to an invitation"), "ms", &invited);
    distribution(&format!("F20 {failing:?}, disk back to a member more"), "ms", &joined);
}

#[test]
fn f20_with_a_full_disk_a_node_serves_on_and_loses_nothing() {
    f20(Disk::Full);
}

#[test]
fn f20_without_room_for_a_file_a_node_serves_on_and_loses_nothing() {
    f20(Disk::NoFiles);
}

#[test]
fn f20_with_a_state_directory_that_became_read_only_a_node_serves_on_and_loses_nothing() {
    f20(Disk::ReadOnly);
}
