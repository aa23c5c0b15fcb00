//! TLS by its server name through two nodes to a real nginx, which alone has the key: openssl and curl see its own
//! certificate, and alerts where there is nobody.

use std::path::Path;
use std::process::Command;

use tests::lab::{Host, Lab};
use tests::node::{Network, PROXY};
use tests::process::{self, PATIENCE, Process};
use tests::programs;

const WEB: u16 = 19843;

/// nginx with TLS on loopback of a host, and its certificate.
fn nginx(lab: &Lab, host: Host) -> (Process, std::path::PathBuf) {
    let dir = lab.dir().join("tls");
    std::fs::create_dir_all(&dir).expect("the lab's directory is writable");
    let (key, certificate) = (dir.join("key.pem"), dir.join("certificate.pem"));
    let mut make = Command::new("openssl");
    make.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
    make.args(["-days", "2", "-subj", "/CN=web", "-addext", "subjectAltName=DNS:web.localhost"]);
    make.arg("-keyout").arg(&key).arg("-out").arg(&certificate);
    process::run(&mut make, b"", PATIENCE).ok("openssl req");
    let conf = dir.join("nginx.conf");
    std::fs::write(&conf, configuration(&dir, &key, &certificate)).expect("our own directory");
    let program = process::found("nginx").expect("it is there");
    let mut command = lab.command(host, program);
    let server = Process::start("nginx", command.arg("-c").arg(&conf).arg("-p").arg(&dir));
    lab.wait_port(host, &format!("127.0.0.1:{WEB}"));
    (server, certificate)
}

fn configuration(dir: &Path, key: &Path, certificate: &Path) -> String {
    let (dir, key, certificate) = (dir.display(), key.display(), certificate.display());
    format!(
        "daemon off; pid {dir}/pid; error_log stderr warn; events {{}}
         http {{ access_log off; client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;
           fastcgi_temp_path {dir}/fastcgi; uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
           server {{ listen 127.0.0.1:{WEB} ssl http2; ssl_certificate {certificate};
             ssl_certificate_key {key}; ssl_protocols TLSv1.2 TLSv1.3; location / {{ return 200 \"$ssl_server_name $ssl_protocol\\n\"; }} }} }}"
    )
}

#[test]
fn openssl_and_curl_reach_a_server_of_another_region_and_see_its_own_certificate() {
    if !programs::have(&["nginx", "curl", "openssl"]) {
        return;
    }
    let Some(micro) = programs::micro() else { return };
    let Some(lab) = Lab::new() else { return };
    let (_nginx, certificate) = nginx(&lab, Host::Us);
    let network = Network::up(&lab, &micro);
    network.us.expose("web", WEB, "tls");
    network.laptop.wait_service("web");
    let certificate = certificate.display().to_string();

    let (_, port) = PROXY.rsplit_once(':').expect("a host and a port");
    let (here, url) =
        (format!("web.localhost:{port}:127.0.0.1"), format!("https://web.localhost:{port}/"));
    for version in ["1.2", "1.3"] {
        let tls = format!("--tlsv{version}");
        let args = ["-sS", "--fail", "--cacert", &certificate, "--resolve", &here, &tls];
        let more = ["--tls-max", version, "--max-time", "20", &url];
        let said = lab.exec(Host::Laptop, "curl", &[&args[..], &more].concat()).ok("curl");
        assert_eq!(said.trim(), format!("web.localhost TLSv{version}"));
    }

    let ask = |name: &[&str]| {
        let base = ["s_client", "-connect", PROXY, "-verify_return_error", "-CAfile", &certificate];
        lab.exec(Host::Laptop, "openssl", &[&base[..], name].concat())
    };
    let ran = ask(&["-servername", "web.localhost"]);
    assert!(ran.out.contains("Verify return code: 0 (ok)"), "{ran:?}");
    for (name, alert) in [
        (&["-servername", "nobody.localhost"][..], "alert number 112"),
        (&["-noservername"], "alert number 109"),
    ] {
        let ran = ask(name);
        assert_ne!(ran.code, Some(0), "{name:?}");
        assert!(ran.err.contains(alert), "{name:?}: {}", ran.err);
    }
}
