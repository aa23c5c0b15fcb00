//! Certificates for a lab: an authority of its own, and a server's signed by it, made by openssl.

use std::process::Command;

use crate::lab::{Host, Lab};
use crate::process::{self, PATIENCE};

/// Makes `ca.pem`, and `server.pem` with `server.key` for the address of a host, in the lab's directory.
///
/// # Panics
/// If openssl is not there, or does not.
pub fn certify(lab: &Lab, host: Host) {
    let openssl = |args: &str| {
        let mut command = Command::new("openssl");
        command.current_dir(lab.dir()).args(args.split(' '));
        process::run(&mut command, b"", PATIENCE).ok(args);
    };
    let new = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!("req -x509 {new} -keyout ca.key -out ca.pem -days 2 -subj /CN=lab"));
    openssl(&format!("req {new} -keyout server.key -out server.csr -subj /CN=server"));
    let names = format!("subjectAltName=IP:{}\n", host.v4());
    std::fs::write(lab.dir().join("names"), names).expect("the lab's directory is writable");
    openssl(
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 \
         -extfile names",
    );
}
