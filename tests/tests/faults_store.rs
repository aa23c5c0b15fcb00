//! A store whose disk is full: it says so, keeps what it has, and goes on when there is room again.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tests::lab::{Host, Lab};
use tests::node::{Node, Options};
use tests::process::{self, PATIENCE};
use tests::programs;

/// A file system of 8 MiB, unmounted at the end.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path) -> Option<Self> {
        std::fs::create_dir_all(at).expect("the lab's directory is writable");
        let args = ["-t", "tmpfs", "-o", "size=8m,mode=0700", "tmpfs"];
        let ran = process::run(Command::new("mount").args(args).arg(at), b"", PATIENCE);
        if ran.code != Some(0) {
            tests::skip(&format!("needs mount of tmpfs: {}", ran.err.trim()));
            return None;
        }
        Some(Self(at.to_owned()))
    }

    /// Leaves no byte.
    fn fill(&self) {
        let ballast = format!("of={}/ballast", self.0.display());
        let args = ["if=/dev/zero", &ballast, "bs=4k", "count=4000"];
        let ran = process::run(Command::new("dd").args(args), b"", PATIENCE);
        assert!(ran.err.contains("No space left"), "the disk did not fill: {}", ran.err);
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("ballast")).expect("the ballast is ours");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        process::run(Command::new("umount").arg("-l").arg(&self.0), b"", PATIENCE);
    }
}

fn write(node: &Node<'_>, key: &str, bytes: usize) -> Result<(), String> {
    // Bytes are base64 in JSON.
    let record = json!({"record": {"key": key, "value": "AAAA".repeat(bytes / 3)}});
    let ran = node.cli(&["call", "go.micro.store", "Store.Write", &record.to_string()]);
    if ran.code == Some(0) { Ok(()) } else { Err(ran.err) }
}

fn read(node: &Node<'_>, key: &str) -> Value {
    let ask = json!({"key": key}).to_string();
    let out = node.cli(&["call", "go.micro.store", "Store.Read", &ask]).ok("Store.Read");
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
}

#[test]
fn a_full_disk_refuses_writes_and_keeps_what_is_there() {
    let (Some(lab), Some(micro)) = (Lab::new(), programs::micro()) else { return };
    let Some(disk) = Disk::mount(&lab.dir().join("small")) else { return };
    let options = Options { state: Some(disk.0.clone()), ..Options::default() };
    let mut node = Node::up_with(&lab, Host::Eu, &micro, None, options);
    write(&node, "first", 3000).unwrap_or_else(|why| panic!("there is room: {why}"));
    disk.fill();
    let refused = (0..100).find_map(|n| write(&node, &format!("more-{n}"), 90_000).err());
    let refused = refused.expect("a full disk takes no more");
    assert!(refused.contains("full") || refused.contains("No space left"), "{refused}");
    assert_eq!(read(&node, "first")["records"][0]["key"], "first", "what was there is read");
    disk.free();
    write(&node, "second", 90_000).unwrap_or_else(|why| panic!("there is room again: {why}"));
    node.kill9();
    node.start(None);
    node.wait_ready();
    for key in ["first", "second"] {
        assert_eq!(read(&node, key)["records"][0]["key"], key);
    }
}
