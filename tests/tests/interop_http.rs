//! curl and nghttp on the laptop, a real nginx in a region, and two nodes between them.

use std::path::{Path, PathBuf};

use tests::lab::{Host, Lab};
use tests::node::{Network, PROXY};
use tests::process::{self, PATIENCE, Process, Ran};
use tests::programs;

const PORT: u16 = 19800;
const DOWNLOAD_BYTES: usize = 200_000_000;
const UPLOAD_BYTES: usize = 20_000_000;

struct Web<'a> {
    lab: &'a Lab,
    www: PathBuf,
    _nginx: Process,
    _network: Network<'a>,
}

impl<'a> Web<'a> {
    fn up(lab: &'a Lab, micro: &Path) -> Self {
        let (nginx, dir) = programs::nginx(lab, Host::Us, PORT);
        let network = Network::up(lab, micro);
        network.us.expose("web", PORT, "http");
        network.laptop.wait_service("web");
        Self { lab, www: dir.join("www"), _nginx: nginx, _network: network }
    }

    /// Runs curl on the laptop; the name of the service is the name of the host.
    fn curl(&self, args: &[&str], path: &str) -> Ran {
        self.curl_to("web", args, path)
    }

    fn curl_to(&self, service: &str, args: &[&str], path: &str) -> Ran {
        let mut command = self.lab.command(Host::Laptop, "curl");
        command.args(["-sS", "--max-time", "100", "-H", &format!("Host: {service}")]).args(args);
        command.arg(format!("http://{PROXY}{path}"));
        process::run(&mut command, b"", PATIENCE * 6)
    }

    /// Runs a shell line on the laptop; `$0` is the address of the proxy, `$1` a file.
    fn shell(&self, line: &str, file: &Path) {
        let mut command = self.lab.command(Host::Laptop, "bash");
        command.args(["-c", &format!("set -euo pipefail; {line}"), PROXY]).arg(file);
        process::run(&mut command, b"", PATIENCE * 6).ok(line);
    }

    /// A file that cannot be compressed, in nginx's root.
    fn file(&self, name: &str, bytes: usize) -> PathBuf {
        let path = self.www.join(name);
        self.shell(&format!("head -c {bytes} /dev/urandom > \"$1\"; chmod 644 \"$1\""), &path);
        path
    }
}

fn ready() -> Option<(Lab, PathBuf)> {
    if !programs::have(&["nginx", "curl", "nghttp", "cmp", "bash"]) {
        return None;
    }
    Some((Lab::new()?, programs::micro()?))
}

#[test]
fn a_large_download_is_the_same_over_http1_http2_and_nghttp() {
    let Some((lab, micro)) = ready() else { return };
    let web = Web::up(&lab, &micro);
    let file = web.file("large", DOWNLOAD_BYTES);
    let curl = "curl -sS --fail -H 'Host: web'";
    web.shell(&format!("{curl} --http1.1 http://$0/large | cmp - \"$1\""), &file);
    web.shell(&format!("{curl} --http2-prior-knowledge http://$0/large | cmp - \"$1\""), &file);
    web.shell("nghttp -H':authority: web' http://$0/large | cmp - \"$1\"", &file);
}

#[test]
fn uploads_arrive_whole_with_a_length_and_in_chunks() {
    let Some((lab, micro)) = ready() else { return };
    let web = Web::up(&lab, &micro);
    let file = web.file("source", UPLOAD_BYTES);
    let curl = "curl -sS --fail -H 'Host: web' -o /dev/null";
    let arrived = format!("{}/upload", web.www.display());
    web.shell(
        &format!(
            "{curl} --http1.1 -T \"$1\" http://$0/upload/length && cmp {arrived}/length \"$1\""
        ),
        &file,
    );
    let chunked = "-H 'Transfer-Encoding: chunked' -H 'Expect:'";
    web.shell(
        &format!("{curl} --http1.1 {chunked} -T - http://$0/upload/chunks < \"$1\" && cmp {arrived}/chunks \"$1\""),
        &file,
    );
    web.shell(
        &format!("{curl} --http2-prior-knowledge -T - http://$0/upload/two < \"$1\" && cmp {arrived}/two \"$1\""),
        &file,
    );
}

#[test]
fn head_conditional_and_range_requests_answer_as_nginx_does() {
    let Some((lab, micro)) = ready() else { return };
    let web = Web::up(&lab, &micro);
    let file = web.file("page", 100_000);
    let whole = std::fs::read(&file).expect("just written");
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let head = web.curl(&[version, "-I"], "/page").ok("HEAD").to_lowercase();
        assert!(
            head.contains("content-length: 100000") && head.contains("accept-ranges: bytes"),
            "{version}: {head}"
        );
        let etag = head
            .lines()
            .find_map(|line| line.strip_prefix("etag: "))
            .expect("nginx sends an ETag")
            .trim();

        let same =
            web.curl(&[version, "-i", "-H", &format!("If-None-Match: {etag}")], "/page").ok("304");
        assert!(
            same.split_whitespace().nth(1) == Some("304")
                && !same.to_lowercase().contains("micro-"),
            "{same}"
        );

        let part = lab.dir().join("part");
        let shell = format!(
            "curl -sS --fail -H 'Host: web' {version} -r 1000-1999 http://$0/page > \"$1\""
        );
        web.shell(&shell, &part);
        assert!(std::fs::read(&part).expect("just written") == whole[1000..2000], "{version}");
        let beyond = web
            .curl(&[version, "-r", "200000-", "-o", "/dev/null", "-w", "%{http_code}"], "/page")
            .ok("416");
        assert_eq!(beyond, "416", "{version}");
    }
}

#[test]
fn one_connection_serves_several_requests() {
    let Some((lab, micro)) = ready() else { return };
    let web = Web::up(&lab, &micro);
    let url = format!("http://{PROXY}/small");
    let args = ["--http1.1", "-w", "%{num_connects} %{http_code}\\n", &url, &url];
    let told = web.curl(&args, "/small").ok("three requests");
    let counts: Vec<&str> = told.lines().filter(|line| *line != "small").collect();
    assert_eq!(counts, ["1 200", "0 200", "0 200"]);

    // The curl of Debian 12 cannot use an HTTP/2 connection twice, not even with nginx.
    let mut nghttp = lab.command(Host::Laptop, "nghttp");
    // It asks for each address once, so they differ.
    let urls = ["a", "b", "c"].map(|query| format!("{url}?{query}"));
    nghttp.args(["-nv", "--no-dep", "-H", ":authority: web"]).args(urls);
    let told = process::run(&mut nghttp, b"", PATIENCE).ok("nghttp");
    let count = |text: &str| told.lines().filter(|line| line.contains(text)).count();
    assert_eq!((count("] Connected"), count(":status: 200")), (1, 3), "{told}");
}

#[test]
fn errors_of_the_service_and_of_the_network_are_told_apart() {
    let Some((lab, micro)) = ready() else { return };
    let web = Web::up(&lab, &micro);
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        for (path, code) in [("/absent", "404"), ("/teapot", "418")] {
            let told = web.curl(&[version, "-i"], path).ok(path);
            assert_eq!(told.split_whitespace().nth(1), Some(code), "{version}: {told}");
            assert!(
                !told.to_lowercase().contains("micro-error"),
                "the service said so, not the network: {told}"
            );
        }
        let told = web.curl_to("nobody", &[version, "-i"], "/").ok("an unknown service");
        assert_eq!(told.split_whitespace().nth(1), Some("404"), "{version}: {told}");
        assert!(told.to_lowercase().contains("micro-error: m1203"), "{version}: {told}");
    }
}
