//! A pair of nginx: cleartext in, TLS 1.3 between, cleartext out; one process each.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::child::{Running, free_ports};
use super::contestant::{Backend, Certificate, Entry};
use crate::Error;

/// Starts both.
pub(super) fn start(
    backend: &Backend,
    scratch: &Path,
    tls: &Certificate,
) -> Result<(Vec<Running>, Entry), Error> {
    let [grpc, http, tls_grpc, tls_http] = free_ports()?;
    let near = [
        server("grpc", &format!("{grpc} http2"), "", "grpc_pass grpcs", tls_grpc),
        server("http", &http.to_string(), "", "proxy_pass https", tls_http),
    ];
    let certificate = format!(
        "ssl_certificate {}; ssl_certificate_key {}; ssl_protocols TLSv1.3;",
        tls.certificate.display(),
        tls.key.display()
    );
    let far = [
        server(
            "grpc",
            &format!("{tls_grpc} ssl http2"),
            &certificate,
            "grpc_pass grpc",
            backend.grpc,
        ),
        server("http", &format!("{tls_http} ssl"), &certificate, "proxy_pass http", backend.http),
    ];
    let mut far = run("nginx-far", &far.concat(), scratch)?;
    far.listening(&[tls_grpc, tls_http])?;
    let mut near = run("nginx-near", &near.concat(), scratch)?;
    near.listening(&[grpc, http])?;
    Ok((vec![near, far], Entry::Proxy { grpc, http, raw: None }))
}

fn run(name: &str, servers: &str, scratch: &Path) -> Result<Running, Error> {
    let home = scratch.join(name);
    fs::create_dir_all(&home).map_err(Error::io(name.to_owned()))?;
    let config = home.join("nginx.conf");
    let text = format!("{MAIN}http {{\n{HTTP}{servers}}}\n");
    fs::write(&config, text).map_err(Error::io(name.to_owned()))?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(&home).arg("-c").arg(&config).arg("-e").arg("stderr");
    Running::start(command, name, scratch)
}

const MAIN: &str = "\
worker_processes 1;
daemon off;
master_process off;
pid nginx.pid;
error_log stderr error;
events { worker_connections 4096; }
";

/// No log, no end to a connection, no bytes on disk: the settings a bench of nginx would use.
const HTTP: &str = "\
access_log off;
tcp_nodelay on;
keepalive_requests 1000000000;
http2_max_concurrent_streams 1024;
client_body_temp_path tmp-body;
proxy_temp_path tmp-proxy;
fastcgi_temp_path tmp-fastcgi;
uwsgi_temp_path tmp-uwsgi;
scgi_temp_path tmp-scgi;
grpc_ssl_protocols TLSv1.3;
proxy_ssl_protocols TLSv1.3;
proxy_http_version 1.1;
proxy_set_header Connection \"\";
proxy_set_header Host $host;
proxy_buffer_size 64k;
proxy_buffers 8 64k;
proxy_busy_buffers_size 128k;
proxy_max_temp_file_size 0;
";

fn server(name: &str, listen: &str, tls: &str, pass: &str, to: u16) -> String {
    format!(
        "\
upstream {name} {{ server 127.0.0.1:{to}; keepalive 256; keepalive_requests 1000000000; }}
server {{ listen 127.0.0.1:{listen}; {tls} location / {{ {pass}://{name}; }} }}
"
    )
}
