//! The probe itself: one call over HTTP/2 to the local proxy.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE, USER_AGENT};
use http::{Method, Request, Uri};
use proxy::explain::Route;

use crate::api;
use crate::cli::call::failure;
use crate::cli::call::grpc;
use crate::cli::call::place::Place;
use crate::error::{Exit, Problem};

/// What a gRPC service is asked unless something else is said: it changes nothing, and a service
/// that does not have it says so as quickly.
const HEALTH: &str = "/grpc.health.v1.Health/Check";
/// How much longer than the call's deadline an answer is waited for: the node says best what hung.
const GRACE: Duration = Duration::from_secs(2);

/// What came back.
#[derive(Debug)]
pub(super) struct Probed {
    /// The HTTP status of the service; absent where micro answered.
    pub(super) status: Option<u16>,
    /// The gRPC status of the service.
    pub(super) grpc_status: Option<u32>,
    /// The way it took.
    pub(super) route: Route,
    /// Why it did not arrive.
    pub(super) problem: Option<Problem>,
}

/// The head of a probe.
///
/// # Errors
/// M4001 when what was asked makes no request.
pub(super) fn head(
    asked: &api::WhyRequest,
    place: &Place,
    service: &api::Service,
    timeout: Duration,
) -> Result<Request<()>, Problem> {
    let is_path = asked.endpoint.starts_with('/');
    let speaks_grpc = service.instances.iter().any(|one| one.protocol == "grpc");
    let grpc = !is_path && (speaks_grpc || !asked.endpoint.is_empty());
    let path = match (&*asked.endpoint, grpc) {
        ("", true) => HEALTH.to_owned(),
        ("", false) => "/".to_owned(),
        (path, false) => path.to_owned(),
        (endpoint, true) => match endpoint.rsplit_once('.') {
            Some((kind, method)) => format!("/{}.{kind}/{method}", place.service.name()),
            None => return Err(no_endpoint(endpoint)),
        },
    };
    let uri = Uri::builder().scheme("http").authority(place.authority()).path_and_query(path);
    let uri = uri.build().map_err(|_| no_endpoint(&asked.endpoint))?;
    let mut head = Request::new(());
    *head.method_mut() = if grpc { Method::POST } else { Method::HEAD };
    *head.uri_mut() = uri;
    let headers = head.headers_mut();
    place.put(headers);
    let fixed = |headers: &mut HeaderMap, name: &'static str, value: &'static str| {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    };
    if grpc {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    let agent = concat!("micro/", env!("CARGO_PKG_VERSION"));
    headers.insert(USER_AGENT, HeaderValue::from_static(agent));
    fixed(headers, "micro-trace", "route");
    fixed(headers, "micro-probe", "trace");
    // At most eight digits (PROTOCOL-HTTP2.md, TimeoutValue).
    let limit = format!("{}m", timeout.as_millis().clamp(1, 99_999_999));
    put(headers, "grpc-timeout", &limit)?;
    if !asked.caller.is_empty() {
        put(headers, "micro-from-service", &asked.caller)?;
    }
    for (name, value) in &asked.headers {
        put(headers, name, value)?;
    }
    if !asked.select.is_empty() {
        let also = headers.get("micro-select").and_then(|value| value.to_str().ok());
        let all =
            also.map_or_else(|| asked.select.clone(), |also| format!("{},{also}", asked.select));
        put(headers, "micro-select", &all)?;
    }
    Ok(head)
}

fn no_endpoint(endpoint: &str) -> Problem {
    Problem::new("M4001", Exit::Usage, format!("{endpoint:?} is no endpoint"))
        .why("it is Struct.Method of gRPC, or the path of an HTTP request")
        .attempt("micro network trace shop --endpoint Orders.Place", "")
}

fn put(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), Problem> {
    let wrong = || Problem::new("M4001", Exit::Usage, format!("{name:?}: {value:?} is no header"));
    let name: HeaderName = name.parse().map_err(|_| wrong())?;
    headers.insert(name, HeaderValue::from_str(value).map_err(|_| wrong())?);
    Ok(())
}

/// Sends the probe and reads the answer to its end.
///
/// # Errors
/// M6010 when the proxy cannot be reached, M1005 when it does not answer, M7003 when it does not say
/// which way the call took.
pub(super) async fn send(
    address: &str,
    head: Request<()>,
    place: &Place,
    timeout: Duration,
) -> Result<Probed, Problem> {
    let stream = grpc::connect(address, timeout).await?;
    let exchange = exchange(stream, head);
    let (status, head, trailers) = match tokio::time::timeout(timeout + GRACE, exchange).await {
        Ok(answered) => answered.map_err(|error| {
            Problem::new("M1007", Exit::Unreachable, "the connection to the proxy was lost")
                .why(error.to_string())
                .attempt("micro status", "whether the node still runs")
        })?,
        Err(_) => return Err(crate::cli::call::too_late(place, timeout)),
    };
    let end = trailers.as_ref().unwrap_or(&head);
    let problem = failure::of_micro(place, end).or_else(|| failure::of_micro(place, &head));
    let Some(route) = head.get("micro-route").and_then(Route::read) else {
        return Err(problem.unwrap_or_else(|| {
            Problem::new("M7003", Exit::Failed, "the node did not say which way the call took")
                .why("it is of an older release, or the proxy is not reached over the loopback")
                .attempt("micro version", "the releases of this command and of the node")
        }));
    };
    let grpc_status = [end, &head].into_iter().find_map(|of| of.get("grpc-status"));
    let grpc_status = grpc_status.and_then(|value| value.to_str().ok()?.parse().ok());
    let of_service = problem.is_none();
    Ok(Probed {
        status: of_service.then_some(status),
        grpc_status: grpc_status.filter(|_| of_service),
        route,
        problem,
    })
}

async fn exchange(
    stream: tokio::net::TcpStream,
    head: Request<()>,
) -> Result<(u16, HeaderMap, Option<HeaderMap>), h2::Error> {
    let (sender, connection) = h2::client::handshake(stream).await?;
    let driver = tokio::spawn(async move {
        // Its end is seen by the call that is open.
        let _ = connection.await;
    });
    let grpc = head.headers().contains_key(CONTENT_TYPE);
    let mut sender = sender.ready().await?;
    let (response, mut body) = sender.send_request(head, !grpc)?;
    if grpc {
        // One empty message.
        body.send_data(Bytes::from_static(&[0; 5]), true)?;
    }
    let (parts, mut body) = response.await?.into_parts();
    while let Some(data) = body.data().await {
        let data = data?;
        // Refused only where the connection is gone, which the next read tells.
        let _ = body.flow_control().release_capacity(data.len());
    }
    let trailers = body.trailers().await?;
    driver.abort();
    Ok((parts.status.as_u16(), parts.headers, trailers))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(endpoint: &str, protocol: &str) -> Result<Request<()>, Problem> {
        let route = api::RouteItem { protocol: protocol.into(), ..api::RouteItem::default() };
        let service = api::Service { instances: vec![route], ..api::Service::default() };
        let asked = api::WhyRequest {
            endpoint: endpoint.into(),
            select: "version=v2".into(),
            headers: vec![("micro-select".into(), "tier=gold".into())],
            ..api::WhyRequest::default()
        };
        head(&asked, &"pay/shop".parse().unwrap(), &service, Duration::from_secs(2))
    }

    #[test]
    fn a_probe_is_marked_and_harmless_unless_an_endpoint_is_named() {
        for (endpoint, protocol, line) in [
            ("", "grpc", "POST /grpc.health.v1.Health/Check"),
            ("", "http", "HEAD /"),
            ("/orders", "grpc", "HEAD /orders"),
            ("Orders.Place", "grpc", "POST /shop.Orders/Place"),
        ] {
            let head = asked(endpoint, protocol).unwrap();
            assert_eq!(format!("{} {}", head.method(), head.uri().path()), line);
            let headers = head.headers();
            assert_eq!(headers["micro-probe"], "trace");
            assert_eq!(headers["micro-trace"], "route");
            assert_eq!(headers["grpc-timeout"], "2000m");
            assert_eq!(headers["micro-namespace"], "pay");
            assert_eq!(headers["micro-select"], "version=v2,tier=gold");
        }
        assert_eq!(asked("nonsense", "grpc").unwrap_err().exit, Exit::Usage);
    }
}
