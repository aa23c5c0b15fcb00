//! A cluster of Kubernetes as a back end, over TLS with a token: a small API server tells of a web server, which a
//! node that does not watch it calls.

use std::time::{Duration, Instant};

use serde_json::Value;
use tests::certificates::certify;
use tests::lab::{Host, Lab};
use tests::node::{Node, Options, PROXY};
use tests::process::{PATIENCE, Process};
use tests::programs;

const API: u16 = 19643;
const WEB: u16 = 19644;

/// Lists one slice, and watches for what it is told on its standard input: addresses that are ready, with commas.
const API_PROGRAM: &str = r#"
import http.server, json, queue, ssl, sys, threading
HERE, PORT, WEB, DIR = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
told, ready = queue.Queue(), [HERE]
def slice():
    return {"metadata": {"name": "web-x", "namespace": "prod", "resourceVersion": "5",
                         "labels": {"kubernetes.io/service-name": "web", "tier": "gold"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [a], "conditions": {"ready": True}} for a in ready],
            "ports": [{"name": "http", "port": WEB, "protocol": "TCP"}]}
class Api(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_): pass
    def answer(self, status, body):
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        if self.headers["authorization"] != "Bearer let-me-in":
            return self.answer(401, b'{"kind":"Status","code":401,"message":"Unauthorized"}')
        if "watch=1" not in self.path:
            return self.answer(200, json.dumps({"metadata": {"resourceVersion": "5"}, "items": [slice()]}).encode())
        self.send_response(200)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        while True:
            ready[:] = told.get()
            line = json.dumps({"type": "MODIFIED", "object": slice()}).encode() + b"\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            self.wfile.flush()
server = http.server.ThreadingHTTPServer((HERE, PORT), Api)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(DIR + "/server.pem", DIR + "/server.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
print("listening", flush=True)
for line in sys.stdin:
    told.put([a for a in line.strip().split(",") if a])
"#;

/// The only back end of a node, once it is in this state.
fn wait_backend(node: &Node<'_>, state: &str) -> Value {
    let deadline = Instant::now() + PATIENCE * 2;
    loop {
        let listed = node.json(&["registry", "backends"]);
        let one = &listed["items"][0];
        if one["state"] == state {
            return one.clone();
        }
        assert!(Instant::now() < deadline, "not {state}: {one}\n{}", node.said().join("\n"));
        // There is no event to wait for: a table of the node changes.
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn watching<'a>(lab: &'a Lab, micro: &std::path::Path, token: &str) -> Node<'a> {
    let mut node = Node::prepare(lab, Host::Eu, micro, Options::default());
    let folder = node.home().join("config/micro");
    std::fs::create_dir_all(&folder).expect("the lab's directory is writable");
    let dir = lab.dir().display();
    std::fs::write(lab.dir().join("token"), token).expect("the lab's directory is writable");
    let table = format!(
        "[[registry.backend]]\nkind = \"kubernetes\"\naddress = \"https://{}:{API}\"\n\
         ca = \"{dir}/ca.pem\"\ntoken = \"file:{dir}/token\"\n",
        Host::Eu.v4()
    );
    std::fs::write(folder.join("micro.toml"), table).expect("the lab's directory is writable");
    node.start(None);
    node.wait_ready();
    node
}

#[test]
fn a_service_of_a_cluster_is_called_from_a_node_elsewhere_while_its_pods_are_ready() {
    if !programs::have(&["python3", "openssl", "curl"]) {
        return;
    }
    let (Some(lab), Some(micro)) = (Lab::new(), programs::micro()) else { return };
    certify(&lab, Host::Eu);
    let here = Host::Eu.v4().to_string();
    let mut web = lab.command(Host::Eu, "python3");
    web.args(["-u", "-m", "http.server", &WEB.to_string(), "--bind", &here]);
    let folder = lab.dir().join("pages");
    std::fs::create_dir_all(&folder).expect("the lab's directory is writable");
    std::fs::write(folder.join("page"), "from a pod\n").expect("the lab's directory is writable");
    let web = Process::start("the pod", web.arg("--directory").arg(&folder));
    web.wait_line(0, "it listens", PATIENCE, |line| line.contains("Serving HTTP"));
    let mut api = lab.command(Host::Eu, "python3");
    api.args(["-c", API_PROGRAM, &here, &API.to_string(), &WEB.to_string()]).arg(lab.dir());
    let mut api = Process::start_with_input("the API server", &mut api);
    api.wait_line(0, "it listens", PATIENCE, |line| line == "listening");

    // Let in by nobody first: it is said, and the file is read again.
    let eu = watching(&lab, &micro, "wrong");
    let refused = wait_backend(&eu, "stale").to_string();
    assert!(refused.contains("401") && refused.contains("Unauthorized"), "{refused}");
    std::fs::write(lab.dir().join("token"), "let-me-in\n")
        .expect("the lab's directory is writable");
    wait_backend(&eu, "watching");

    let laptop = Node::up(&lab, Host::Laptop, &micro, Some(&eu.invite()));
    laptop.wait_service("web.prod");
    let page = format!("http://{PROXY}/page");
    let call = ["-s", "--max-time", "10", "-H", "Host: web.prod", &page];
    assert_eq!(lab.exec(Host::Laptop, "curl", &call).ok("curl"), "from a pod\n");

    // Nothing is ready any more, and then it is again.
    let mut input = api.input().expect("it was started with input");
    let mut tell = |ready: &str| {
        use std::io::Write as _;
        writeln!(input, "{ready}").and_then(|()| input.flush()).expect("it reads");
    };
    tell("");
    laptop.wait_instances("web.prod", 0);
    tell(&here);
    laptop.wait_instances("web.prod", 1);
    assert_eq!(lab.exec(Host::Laptop, "curl", &call).ok("curl"), "from a pod\n");

    // A server that is gone takes nothing away.
    api.kill9();
    wait_backend(&eu, "stale");
    assert_eq!(lab.exec(Host::Laptop, "curl", &call).ok("curl"), "from a pod\n");
}
