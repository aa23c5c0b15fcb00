//! A pair of haproxy: cleartext in, TLS 1.3 between, cleartext out; one thread each.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::child::{Running, free_ports};
use super::contestant::{Backend, Certificate, Entry, Raw};
use crate::Error;

/// Starts both.
pub(super) fn start(
    backend: &Backend,
    scratch: &Path,
    tls: &Certificate,
) -> Result<(Vec<Running>, Entry), Error> {
    let [grpc, http, tls_grpc, tls_http] = free_ports()?;
    let [echo, bytes, tls_echo, tls_bytes] = free_ports()?;
    let near = [
        road("grpc", grpc, " proto h2", tls_grpc, " ssl verify none alpn h2"),
        road("http", http, "", tls_http, " ssl verify none alpn http/1.1"),
        raw("echo", echo, "", tls_echo, " ssl verify none"),
        raw("bytes", bytes, "", tls_bytes, " ssl verify none"),
    ];
    let pem = tls.both.display();
    let far = [
        road("grpc", tls_grpc, &format!(" ssl crt {pem} alpn h2"), backend.grpc, " proto h2"),
        road("http", tls_http, &format!(" ssl crt {pem} alpn http/1.1"), backend.http, ""),
        raw("echo", tls_echo, &format!(" ssl crt {pem}"), backend.tcp, ""),
        raw("bytes", tls_bytes, &format!(" ssl crt {pem}"), backend.http, ""),
    ];
    let mut far = run("haproxy-far", &far.concat(), scratch)?;
    far.listening(&[tls_grpc, tls_http, tls_echo, tls_bytes])?;
    let mut near = run("haproxy-near", &near.concat(), scratch)?;
    near.listening(&[grpc, http, echo, bytes])?;
    let raw = Some(Raw { echo, http: bytes });
    Ok((vec![near, far], Entry::Proxy { grpc, http, raw }))
}

fn run(name: &str, roads: &str, scratch: &Path) -> Result<Running, Error> {
    let path = scratch.join(format!("{name}.cfg"));
    fs::write(&path, format!("{GLOBAL}{roads}")).map_err(Error::io(name.to_owned()))?;
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(path);
    Running::start(command, name, scratch)
}

/// As many streams on a connection as the load needs, connections kept and shared, no log.
const GLOBAL: &str = "\
global
  nbthread 1
  maxconn 4096
  tune.h2.max-concurrent-streams 1024
  ssl-default-bind-options ssl-min-ver TLSv1.3
  ssl-default-server-options ssl-min-ver TLSv1.3
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
  retries 0
";

fn road(name: &str, from: u16, bind: &str, to: u16, server: &str) -> String {
    of_mode("http", name, from, bind, to, server)
}

/// A road of bytes; between the two each connection is one of TLS, resumed where it can be.
fn raw(name: &str, from: u16, bind: &str, to: u16, server: &str) -> String {
    of_mode("tcp", name, from, bind, to, server)
}

fn of_mode(mode: &str, name: &str, from: u16, bind: &str, to: u16, server: &str) -> String {
    format!(
        "\
frontend {name}-in
  mode {mode}
  bind 127.0.0.1:{from}{bind}
  default_backend {name}-out
backend {name}-out
  mode {mode}
  server next 127.0.0.1:{to}{server}
"
    )
}
