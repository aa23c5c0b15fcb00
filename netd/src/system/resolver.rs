//! Where the programs of this machine ask for names: systemd-resolved, or whatever
//! `/etc/resolv.conf` says; and how a node comes to be asked.
//!
//! resolved can be told a port, for one domain alone. `resolv.conf` knows port 53 only: there an
//! address of the loopback becomes the first name server, and nftables leads it to the node's port.
//! Without the node nothing listens there, which programs are told at once, and they ask the next.

use std::fmt;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::undo::{Change, Record};
use super::{ask, nft, replace, resolv_conf};
use crate::error::{Exit, Problem};

/// Where programs ask that cannot be told a port.
const ADDRESS: Ipv4Addr = proxy::NAME_SERVER;
/// The table of the redirection.
const TABLE: &str = "ip micro_names";
/// The port of DNS.
const PORT: u16 = 53;
/// Where systemd-resolved answers (systemd-resolved.service(8)).
const STUBS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 54))];

/// Who reads the configuration of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// systemd-resolved.
    Resolved,
    /// The C library of each program.
    File,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolved => "systemd-resolved",
            Self::File => "resolv.conf",
        })
    }
}

/// A machine's files, below `/` or, in tests, another directory.
#[derive(Clone, Debug)]
pub struct Machine {
    root: PathBuf,
}

/// What would be changed.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Who has to notice.
    pub kind: Kind,
    /// Where programs ask from then on.
    pub asked: SocketAddr,
    change: Change,
    /// The body of the redirection's table.
    rules: Option<String>,
}

impl Machine {
    /// The one this runs on.
    #[must_use]
    pub fn this() -> Self {
        Self { root: "/".into() }
    }

    /// Who reads the configuration here.
    #[must_use]
    pub fn kind(&self) -> Kind {
        let servers = resolv_conf::servers(&self.text());
        if servers.iter().any(|ip| STUBS.contains(ip)) { Kind::Resolved } else { Kind::File }
    }

    /// The first name server that programs ask.
    #[must_use]
    pub fn first(&self) -> Option<SocketAddr> {
        let first = resolv_conf::servers(&self.text()).into_iter().next()?;
        Some(SocketAddr::new(first, PORT))
    }

    /// Whether a change that was made is still there.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        resolv_conf::is_ours(&self.text()) || self.drop_in().exists()
    }

    /// What a person has to know about the file, beside that it is changed.
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        let path = self.resolv_conf();
        let behind = path.canonicalize().unwrap_or_else(|_| path.clone());
        let mut remarks = Vec::new();
        if self.kind() == Kind::File && behind.starts_with(self.root.join("run")) {
            let behind = behind.display();
            remarks.push(format!("another program writes {behind}, and may take the line away"));
        }
        if self.kind() == Kind::File && resolv_conf::rotates(&self.text()) {
            let path = path.display();
            remarks.push(format!(
                "options rotate in {path}: only some questions will reach this node"
            ));
        }
        remarks
    }

    /// What has to be changed so that the node that answers at `at` is asked.
    ///
    /// # Errors
    /// M6002 when a file cannot be read.
    pub fn plan(&self, at: SocketAddr, now: String) -> Result<Plan, Problem> {
        let kind = self.kind();
        let (path, asked) = match kind {
            Kind::Resolved => (self.drop_in(), SocketAddr::new(STUBS[0], PORT)),
            Kind::File if at.port() == PORT => (self.resolv_conf(), at),
            Kind::File => (self.resolv_conf(), SocketAddr::from((ADDRESS, PORT))),
        };
        let before = read(&path)?;
        let after = match kind {
            Kind::Resolved => drop_in(at),
            Kind::File => resolv_conf::with(before.as_deref().unwrap_or_default(), asked.ip()),
        };
        let led = kind == Kind::File && at.port() != PORT;
        let rules = led.then(|| redirection(at.port()));
        // What was there before micro, not what an earlier `enable` left.
        let before = match kind {
            Kind::Resolved => None,
            Kind::File => before.map(|text| resolv_conf::without(&text)),
        };
        Ok(Plan { kind, asked, change: Change { path, before, after, at: now }, rules })
    }

    /// Makes the change, and takes it back if the node is not asked then.
    ///
    /// # Errors
    /// M6002 when a file cannot be written, M6008 without redirection, M6009 when nobody answers.
    pub fn enable(&self, plan: &Plan, record: &Record) -> Result<(), Problem> {
        record.write(&self.recorded(plan, record))?;
        let done = self.make(plan);
        if done.is_err() {
            // What went wrong first is what is told.
            let _ = self.disable(record);
        }
        done
    }

    /// What goes into the record: enabled twice, it still knows what was there before micro.
    fn recorded(&self, plan: &Plan, record: &Record) -> Change {
        let same = |old: &Change| old.path == plan.change.path && old.after == self.text();
        let before = match record.read().filter(same) {
            Some(old) => old.before,
            None => plan.change.before.clone(),
        };
        Change { before, ..plan.change.clone() }
    }

    fn make(&self, plan: &Plan) -> Result<(), Problem> {
        if let Some(body) = &plan.rules {
            nft::put(TABLE, body)?;
        }
        write(&plan.change.path, &plan.change.after)?;
        if plan.kind == Kind::Resolved {
            restart_resolved()?;
        }
        ask::answers(plan.asked).map_err(|error| {
            Problem::new("M6009", Exit::Failed, format!("{} does not ask this node", plan.kind))
                .why(format!("a question at {} for micro.internal: {error}", plan.asked))
                .attempt("micro network dns status", "what is asked, and what answers")
        })
    }

    /// Takes back what was changed, with the record or without. Gives what was taken back; nothing
    /// when there was nothing.
    ///
    /// # Errors
    /// M6002 when a file cannot be written: the record then stays.
    pub fn disable(&self, record: &Record) -> Result<Vec<String>, Problem> {
        let mut undone = Vec::new();
        let path = self.resolv_conf();
        let now = self.text();
        if resolv_conf::is_ours(&now) {
            let change = record.read().filter(|change| change.path == path);
            match change {
                // Nobody else has written since: to the byte.
                Some(Change { before: None, after, .. }) if after == now => remove(&path)?,
                Some(Change { before: Some(before), after, .. }) if after == now => {
                    write(&path, &before)?;
                }
                _ => write(&path, &resolv_conf::without(&now))?,
            }
            undone.push(format!("{}: as it was", path.display()));
        }
        let path = self.drop_in();
        if path.exists() {
            remove(&path)?;
            undone.push(format!("{}: removed", path.display()));
            restart_resolved()?;
        }
        if self.is_this() && nft::has(TABLE) == Some(true) {
            nft::remove(TABLE)?;
            undone.push(format!("nft table {TABLE}: removed"));
        }
        record.remove();
        Ok(undone)
    }

    /// Whether these are the files of the machine itself: only that has a kernel.
    fn is_this(&self) -> bool {
        self.root == Path::new("/")
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.resolv_conf()).unwrap_or_default()
    }

    fn resolv_conf(&self) -> PathBuf {
        self.root.join("etc/resolv.conf")
    }

    fn drop_in(&self) -> PathBuf {
        self.root.join("etc/systemd/resolved.conf.d/micro.conf")
    }
}

impl Plan {
    /// What it does, a line each.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let path = self.change.path.display();
        let ip = self.asked.ip();
        let mut lines = vec![match self.kind {
            Kind::Resolved => format!("{path}: micro.internal is asked of this node"),
            Kind::File => format!("{path}: nameserver {ip} before the others"),
        }];
        lines.extend(self.rules.as_ref().map(|body| nft::text(TABLE, body)));
        lines
    }
}

/// Only what is under micro.internal: the rest stays with the links' own servers
/// (resolved.conf(5)).
fn drop_in(at: SocketAddr) -> String {
    format!(
        "# Written by `micro network dns enable`; `micro network dns disable` removes it.\n\
         [Resolve]\nDNS={at}\nDomains=~micro.internal\n"
    )
}

fn redirection(port: u16) -> String {
    format!(
        "\tchain output {{\n\t\ttype nat hook output priority -100; policy accept;\n\
         \t\tip daddr {ADDRESS} meta l4proto {{ tcp, udp }} th dport {PORT} redirect to :{port}\n\t}}\n"
    )
}

fn restart_resolved() -> Result<(), Problem> {
    let failed = |why: String| {
        Problem::new("M6002", Exit::Failed, "systemd-resolved was not restarted")
            .why(why)
            .attempt("systemctl restart systemd-resolved", "by hand")
    };
    let systemctl =
        super::program("systemctl").ok_or_else(|| failed("there is no systemctl".to_owned()))?;
    let mut command = Command::new(systemctl);
    command.args(["restart", "systemd-resolved.service"]).stdin(Stdio::null());
    let ended = command.output().map_err(|error| failed(error.to_string()))?;
    let said = String::from_utf8_lossy(&ended.stderr);
    if ended.status.success() {
        Ok(())
    } else {
        Err(failed(crate::output::text::plain(said.trim())))
    }
}

fn read(path: &Path) -> Result<Option<String>, Problem> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Problem::machine(format!("{} cannot be read", path.display()), &error)),
    }
}

fn write(path: &Path, text: &str) -> Result<(), Problem> {
    let failed = |error| Problem::machine(format!("{} cannot be written", path.display()), &error);
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).map_err(failed)?;
    replace(path, text.as_bytes()).map_err(failed)
}

fn remove(path: &Path) -> Result<(), Problem> {
    std::fs::remove_file(path)
        .map_err(|error| Problem::machine(format!("{} cannot be removed", path.display()), &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8053);

    fn machine(resolv_conf: Option<&str>) -> (tempfile::TempDir, Machine, Record) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        if let Some(text) = resolv_conf {
            std::fs::write(dir.path().join("etc/resolv.conf"), text).unwrap();
        }
        let machine = Machine { root: dir.path().to_owned() };
        let record = Record::new(&dir.path().join("state"), "dns");
        (dir, machine, record)
    }

    #[test]
    fn a_file_with_other_servers_is_led_to_the_port_of_the_node() {
        let (_dir, machine, _) = machine(Some("nameserver 192.0.2.1\n"));
        let plan = machine.plan(NODE, String::new()).unwrap();
        assert_eq!((plan.kind, plan.asked), (Kind::File, "127.64.0.53:53".parse().unwrap()));
        let lines = plan.lines();
        assert!(lines[0].ends_with("etc/resolv.conf: nameserver 127.64.0.53 before the others"));
        assert!(lines[1].contains("redirect to :8053"), "{lines:?}");
        let direct = machine.plan("127.0.0.1:53".parse().unwrap(), String::new()).unwrap();
        assert_eq!((direct.asked.to_string(), direct.rules), ("127.0.0.1:53".to_owned(), None));
    }

    #[test]
    fn resolved_is_told_one_domain() {
        let (_dir, machine, _) = machine(Some("nameserver 127.0.0.53\n"));
        let plan = machine.plan(NODE, String::new()).unwrap();
        assert_eq!((plan.kind, plan.rules.as_ref()), (Kind::Resolved, None));
        assert!(plan.change.after.ends_with("DNS=127.0.0.1:8053\nDomains=~micro.internal\n"));
    }

    #[test]
    fn what_was_there_comes_back_to_the_byte_and_edits_since_stay() {
        for before in [Some("search x\nnameserver 192.0.2.1"), Some("\n\n"), None] {
            let (dir, machine, record) = machine(before);
            let plan = machine.plan(NODE, String::new()).unwrap();
            record.write(&plan.change).unwrap();
            write(&plan.change.path, &plan.change.after).unwrap();
            assert!(machine.is_enabled());
            let again = machine.plan(NODE, String::new()).unwrap();
            let change = machine.recorded(&again, &record);
            assert_eq!((change.before.as_deref(), &change.after), (before, &plan.change.after));
            assert_eq!(machine.disable(&record).unwrap().len(), 1);
            assert_eq!(read(&dir.path().join("etc/resolv.conf")).unwrap().as_deref(), before);
            assert_eq!(record.read(), None);
            assert!(machine.disable(&record).unwrap().is_empty(), "twice is once");
        }
        let (dir, machine, record) = machine(Some("nameserver 192.0.2.1\n"));
        let plan = machine.plan(NODE, String::new()).unwrap();
        record.write(&plan.change).unwrap();
        write(&plan.change.path, &(plan.change.after + "search y\n")).unwrap();
        machine.disable(&record).unwrap();
        let now = read(&dir.path().join("etc/resolv.conf")).unwrap();
        assert_eq!(now.as_deref(), Some("nameserver 192.0.2.1\nsearch y\n"));
    }

    #[test]
    fn a_file_that_others_write_or_that_is_asked_by_turns_is_remarked() {
        let (dir, machine, _) = machine(None);
        std::fs::create_dir_all(dir.path().join("run/manager")).unwrap();
        let real = dir.path().join("run/manager/resolv.conf");
        std::fs::write(&real, "nameserver 192.0.2.1\noptions rotate\n").unwrap();
        std::os::unix::fs::symlink(&real, dir.path().join("etc/resolv.conf")).unwrap();
        let remarks = machine.remarks();
        assert_eq!(remarks.len(), 2, "{remarks:?}");
        assert!(remarks[0].contains("another program writes"));
    }
}
