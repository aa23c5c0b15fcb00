//! Against a small API server: it answers lists in pages, and what a watch says is up to the test.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::{HeaderMap, StatusCode, header};
use parking_lot::Mutex;
use proto::record::Protocol;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::super::entry::Rules;
use super::super::session;
use super::super::source::Source as Any;
use super::super::table::Heard;
use super::*;
use crate::config::kubernetes::Token;
use crate::config::secret;

type Asked = HashMap<String, String>;
type Said = std::io::Result<&'static str>;

/// What is said on a watch, and what it was asked with.
struct Watch {
    asked: Asked,
    say: mpsc::Sender<std::io::Result<String>>,
}

#[derive(Default)]
struct Held {
    slices: Vec<Value>,
    version: u64,
    token: Option<String>,
    /// The next watch, or the next page that is not the first, is answered so.
    refuse: Option<(StatusCode, Value)>,
    lists: Vec<Asked>,
}

#[derive(Clone)]
struct Api {
    cluster: Arc<Mutex<Held>>,
    watches: mpsc::Sender<Watch>,
}

struct Running {
    cluster: Arc<Mutex<Held>>,
    watches: mpsc::Receiver<Watch>,
    address: String,
    task: tokio::task::JoinHandle<()>,
}

const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/prod/endpointslices";

async fn serve(at: &str) -> Running {
    let (watches, asked) = mpsc::channel(4);
    let api = Api { cluster: Arc::default(), watches };
    let cluster = Arc::clone(&api.cluster);
    let app = Router::new().route(SLICES, get(slices)).with_state(api);
    let listener = TcpListener::bind(at).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    Running { cluster, watches: asked, address, task }
}

async fn slices(
    State(api): State<Api>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Response {
    let cluster = &api.cluster;
    let given = headers.get(header::AUTHORIZATION).map(|given| given.to_str().unwrap().to_owned());
    let wanted = cluster.lock().token.as_ref().map(|token| format!("Bearer {token}"));
    if wanted.is_some() && given != wanted {
        let status = json!({ "kind": "Status", "code": 401, "message": "Unauthorized" });
        return (StatusCode::UNAUTHORIZED, status.to_string()).into_response();
    }
    let is_watch = asked.contains_key("watch");
    if is_watch || asked.contains_key("continue") {
        let refuse = cluster.lock().refuse.take();
        if let Some((status, body)) = refuse {
            return (status, body.to_string()).into_response();
        }
    }
    if is_watch {
        let (say, said) = mpsc::channel(16);
        api.watches.send(Watch { asked, say }).await.unwrap();
        let lines = futures_util::stream::unfold(said, |mut said| async move {
            said.recv().await.map(|line| (line, said))
        });
        return Body::from_stream(lines).into_response();
    }
    let mut cluster = cluster.lock();
    let from: usize = asked.get("continue").map_or(0, |from| from.parse().unwrap());
    let to = (from + asked["limit"].parse::<usize>().unwrap()).min(cluster.slices.len());
    let more = if to < cluster.slices.len() { to.to_string() } else { String::new() };
    let list = json!({
        "kind": "EndpointSliceList",
        "metadata": { "resourceVersion": cluster.version.to_string(), "continue": more },
        "items": cluster.slices[from..to],
    });
    cluster.lists.push(asked);
    list.to_string().into_response()
}

fn slice(name: &str, version: u64, addresses: &[&str]) -> Value {
    let endpoint =
        |address: &&str| json!({ "addresses": [address], "conditions": { "ready": true } });
    json!({
        "metadata": {
            "name": name, "namespace": "prod", "resourceVersion": version.to_string(),
            "labels": { "kubernetes.io/service-name": "shop" },
        },
        "addressType": "IPv4",
        "endpoints": addresses.iter().map(endpoint).collect::<Vec<_>>(),
        "ports": [{ "name": "http", "port": 80, "protocol": "TCP" }],
    })
}

fn event(kind: &str, object: &Value) -> std::io::Result<String> {
    Ok(json!({ "type": kind, "object": object }).to_string() + "\n")
}

fn cluster(address: &str, token: Option<Token>) -> Cluster {
    let (host, port) = address.rsplit_once(':').unwrap();
    Cluster {
        server: format!("http://{address}"),
        host: host.to_owned(),
        port_of_server: port.parse().unwrap(),
        tls: false,
        ca: None,
        token,
        namespace: Some("prod".to_owned()),
        selector: Some("team=a b".to_owned()),
        port: None,
    }
}

fn feed() -> (Feed, mpsc::Receiver<Heard>) {
    let (to, heard) = mpsc::channel(64);
    (Feed::new(to, Rules { loopback: false, own: Vec::new() }), heard)
}

/// Watches, and gives what is heard and how it ends.
fn watched(
    address: &str,
    token: Option<Token>,
) -> (mpsc::Receiver<Heard>, tokio::task::JoinHandle<Result<(), Trouble>>) {
    let mut source = Source::new(cluster(address, token), Protocol::Http1);
    let (mut feed, heard) = feed();
    (heard, tokio::spawn(async move { source.watch(&mut feed).await }))
}

/// How many are in the next listing.
async fn listing(heard: &mut mpsc::Receiver<Heard>) -> usize {
    match heard.recv().await {
        Some(Heard::All(all)) => {
            assert!(all.iter().all(|(_, read)| read.is_ok()), "{all:?}");
            all.len()
        }
        other => panic!("a listing is expected: {other:?}"),
    }
}

/// The next change: `+KEY` or `-KEY`.
async fn change(heard: &mut mpsc::Receiver<Heard>) -> String {
    match heard.recv().await {
        Some(Heard::Put(key, Ok(_))) => format!("+{key}"),
        Some(Heard::Gone(key)) => format!("-{key}"),
        other => panic!("a change is expected: {other:?}"),
    }
}

#[tokio::test]
async fn a_long_list_is_read_in_pages_and_what_changes_then() {
    let mut api = serve("127.0.0.1:0").await;
    {
        let mut cluster = api.cluster.lock();
        cluster.version = 50;
        cluster.slices = (0..1200_u32)
            .map(|n| slice(&format!("s{n}"), 1, &[&format!("10.1.{}.{}", n / 200, n % 200 + 1)]))
            .collect();
    }
    let (mut heard, _watching) = watched(&api.address, None);
    assert_eq!(listing(&mut heard).await, 1200);
    let watch = api.watches.recv().await.unwrap();
    {
        let lists = &api.cluster.lock().lists;
        let pages: Vec<_> = lists.iter().map(|asked| asked.get("continue").cloned()).collect();
        assert_eq!(pages, [None, Some("500".to_owned()), Some("1000".to_owned())]);
        assert!(lists.iter().all(|asked| asked["labelSelector"] == "team=a b"), "{lists:?}");
    }
    assert_eq!(
        (&*watch.asked["resourceVersion"], &*watch.asked["allowWatchBookmarks"]),
        ("50", "true")
    );
    watch.say.send(event("MODIFIED", &slice("s7", 51, &["10.9.0.1", "10.9.0.2"]))).await.unwrap();
    assert_eq!(change(&mut heard).await, "-prod/s7/10.1.0.8");
    assert_eq!(change(&mut heard).await, "+prod/s7/10.9.0.1");
    assert_eq!(change(&mut heard).await, "+prod/s7/10.9.0.2");
    watch.say.send(event("ADDED", &slice("new", 52, &["10.9.0.9"]))).await.unwrap();
    assert_eq!(change(&mut heard).await, "+prod/new/10.9.0.9");
    // In pieces, as the network has it.
    let line = event("DELETED", &slice("s7", 53, &[])).unwrap();
    let (one, two) = line.split_at(line.len() / 2);
    for piece in [one, two] {
        watch.say.send(Ok(piece.to_owned())).await.unwrap();
    }
    assert_eq!(change(&mut heard).await, "-prod/s7/10.9.0.1");
    assert_eq!(change(&mut heard).await, "-prod/s7/10.9.0.2");
}

#[tokio::test]
async fn a_watch_goes_on_where_it_was_and_begins_again_where_it_cannot() {
    let mut api = serve("127.0.0.1:0").await;
    api.cluster.lock().version = 50;
    let (mut heard, _watching) = watched(&api.address, None);
    assert_eq!(listing(&mut heard).await, 0);
    let watch = api.watches.recv().await.unwrap();
    let mark = json!({ "metadata": { "resourceVersion": "70" } });
    watch.say.send(event("BOOKMARK", &mark)).await.unwrap();
    drop(watch);
    let watch = api.watches.recv().await.unwrap();
    assert_eq!(watch.asked["resourceVersion"], "70");
    // The server does not remember so much: as an event, and as an answer.
    api.cluster.lock().slices = vec![slice("s", 90, &["10.1.0.1"])];
    let gone = json!({ "kind": "Status", "code": 410, "message": "too old" });
    watch.say.send(event("ERROR", &gone)).await.unwrap();
    assert_eq!(listing(&mut heard).await, 1);
    api.cluster.lock().refuse = Some((StatusCode::GONE, gone));
    drop(api.watches.recv().await.unwrap());
    assert_eq!(listing(&mut heard).await, 1);
    assert_eq!(api.cluster.lock().lists.len(), 3);
}

#[tokio::test]
async fn a_list_that_took_too_long_is_begun_again() {
    let mut api = serve("127.0.0.1:0").await;
    {
        let mut cluster = api.cluster.lock();
        let one = |n: u32| slice(&format!("s{n}"), 1, &[&format!("10.1.{}.{}", n / 200, n % 200)]);
        cluster.slices = (0..600).map(one).collect();
        let gone = json!({ "kind": "Status", "code": 410, "message": "too old" });
        cluster.refuse = Some((StatusCode::GONE, gone));
    }
    let (mut heard, _watching) = watched(&api.address, None);
    assert_eq!(listing(&mut heard).await, 600, "and no trouble before");
    let watch = api.watches.recv().await.expect("it is watched");
    drop(watch);
    let lists = &api.cluster.lock().lists;
    let pages: Vec<_> = lists.iter().map(|asked| asked.get("continue").cloned()).collect();
    assert_eq!(pages, [None, None, Some("500".to_owned())]);
}

#[tokio::test]
async fn what_is_no_watch_is_said_with_where() {
    let wrong: [(&[Said], &str); 4] = [
        (&[Ok("<html>\n")], "no event"),
        (&[Ok("{\"type\":\"ADD")], "middle of an event"),
        (&[Ok("\n"), Err(std::io::ErrorKind::ConnectionReset.into())], ""),
        (
            &[Ok("{\"type\":\"ERROR\",\"object\":{\"code\":500,\"message\":\"etcd\"}}\n")],
            "500 etcd",
        ),
    ];
    for (said, why) in wrong {
        let mut api = serve("127.0.0.1:0").await;
        let (mut heard, watching) = watched(&api.address, None);
        assert_eq!(listing(&mut heard).await, 0);
        let watch = api.watches.recv().await.unwrap();
        for piece in said {
            let piece = piece.as_ref().map(ToString::to_string).map_err(|why| why.kind().into());
            watch.say.send(piece).await.unwrap();
        }
        drop(watch);
        let trouble = watching.await.unwrap().unwrap_err();
        assert!(trouble.why.contains(&api.address) && trouble.why.contains(why), "{trouble:?}");
    }
}

#[tokio::test]
async fn a_token_is_read_anew_from_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "one\n").unwrap();
    let mut api = serve("127.0.0.1:0").await;
    api.cluster.lock().token = Some("one".to_owned());
    let (mut heard, _watching) = watched(&api.address, Some(Token::File(path.clone())));
    assert_eq!(listing(&mut heard).await, 0);
    let watch = api.watches.recv().await.unwrap();
    api.cluster.lock().token = Some("two".to_owned());
    std::fs::write(&path, "two\n").unwrap();
    drop(watch);
    api.watches.recv().await.expect("it is let in with the new one");
    let fixed = Token::Fixed(secret::read("one").unwrap());
    let (_heard, refused) = watched(&api.address, Some(fixed));
    let refused = refused.await.unwrap().unwrap_err();
    assert!(refused.why.contains("401") && refused.why.ends_with("Unauthorized"), "{refused:?}");
}

#[tokio::test]
async fn a_server_that_comes_back_is_watched_again() {
    let mut api = serve("127.0.0.1:0").await;
    api.cluster.lock().slices = vec![slice("s", 1, &["10.1.0.1"])];
    let source = Source::new(cluster(&api.address, None), Protocol::Http1);
    let (feed, mut heard) = feed();
    let _session = tokio::spawn(session::run(Any::Kubernetes(source), feed));
    assert_eq!(listing(&mut heard).await, 1);
    let watch = api.watches.recv().await.unwrap();
    api.task.abort();
    let _ = api.task.await;
    watch.say.send(Err(std::io::ErrorKind::ConnectionReset.into())).await.unwrap();
    match heard.recv().await {
        Some(Heard::Lost(trouble)) => assert!(!trouble.refused, "{trouble:?}"),
        other => panic!("it is lost: {other:?}"),
    }
    let again = serve(&api.address).await;
    again.cluster.lock().slices = vec![slice("s", 1, &["10.1.0.1"]), slice("t", 2, &["10.1.0.2"])];
    loop {
        match heard.recv().await {
            Some(Heard::Lost(_)) => {}
            Some(Heard::All(all)) => break assert_eq!(all.len(), 2),
            other => panic!("it is there again: {other:?}"),
        }
    }
}
