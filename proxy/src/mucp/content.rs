//! How bodies are written: the content types of MUCP, and the subtypes of gRPC that say the same.

use http::HeaderValue;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName};

use crate::error::Error;

/// go-micro's second word on the content type (contract, headers 2).
pub(crate) const X_CONTENT_TYPE: HeaderName = HeaderName::from_static("x-content-type");
/// What a message without a content type is written in.
const DEFAULT: &str = "application/protobuf";
const GRPC: &str = "application/grpc";

/// How the bodies of a call are written, in the words of both protocols.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    /// For gRPC: `application/grpc+json`.
    pub(crate) grpc: HeaderValue,
    /// For MUCP: `application/json`.
    pub(crate) mucp: HeaderValue,
    /// The bodies of MUCP are gRPC's frames themselves: its `application/grpc…`.
    pub(crate) is_framed: bool,
}

impl Content {
    /// What a message of MUCP says.
    ///
    /// # Errors
    /// [`Error::Malformed`] for a content type that is none.
    pub(crate) fn of_mucp(headers: &HeaderMap) -> Result<Self, Error> {
        let malformed = Error::Malformed("the content type is not one");
        let default = HeaderValue::from_static(DEFAULT);
        let mucp = headers.get(CONTENT_TYPE).filter(|kind| !kind.is_empty()).unwrap_or(&default);
        let text = mucp.to_str().map_err(|_| malformed.clone())?;
        let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let subtype = essence.strip_prefix("application/").unwrap_or(&essence);
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-.+_".contains(&byte);
        if subtype.is_empty() || !subtype.bytes().all(is_token) {
            return Err(malformed);
        }
        let is_framed = subtype == "grpc" || subtype.starts_with("grpc+");
        let grpc = match subtype {
            _ if is_framed => essence,
            "protobuf" | "proto" => format!("{GRPC}+proto"),
            "octet-stream" => format!("{GRPC}+bytes"),
            other => format!("{GRPC}+{other}"),
        };
        let grpc = HeaderValue::try_from(grpc).map_err(|_| malformed)?;
        Ok(Self { grpc, mucp: mucp.clone(), is_framed })
    }

    /// What a gRPC request says. Its subtype comes first; `x-content-type` only makes it precise, for
    /// it may have been handed on from another call.
    pub(crate) fn of_grpc(headers: &HeaderMap) -> Self {
        let default = HeaderValue::from_static(GRPC);
        let grpc = headers.get(CONTENT_TYPE).unwrap_or(&default).clone();
        let essence = grpc.to_str().unwrap_or(GRPC).split(';').next().unwrap_or_default().trim();
        let subtype = essence.get(GRPC.len() + 1..).unwrap_or_default().to_ascii_lowercase();
        let said = headers.get(X_CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let said = said.filter(|said| !said.starts_with(GRPC));
        let mucp = match (subtype.as_str(), said) {
            ("json", _) => "application/json".to_owned(),
            ("" | "proto", Some(said @ ("application/protobuf" | "application/proto"))) => {
                said.to_owned()
            }
            ("", Some(said)) => said.to_owned(),
            ("" | "proto" | "protobuf", _) => DEFAULT.to_owned(),
            ("bytes", _) => "application/octet-stream".to_owned(),
            (other, _) => format!("application/{other}"),
        };
        let mucp = HeaderValue::try_from(mucp).unwrap_or(HeaderValue::from_static(DEFAULT));
        Self { grpc, mucp, is_framed: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: HeaderName, value: &'static str) -> HeaderMap {
        [(name, HeaderValue::from_static(value))].into_iter().collect()
    }

    #[test]
    fn content_types_of_mucp_and_subtypes_of_grpc_say_the_same() {
        for (mucp, grpc) in [
            ("application/json", "application/grpc+json"),
            ("application/protobuf", "application/grpc+proto"),
            ("application/proto", "application/grpc+proto"),
            ("application/octet-stream", "application/grpc+bytes"),
            ("application/proto-rpc", "application/grpc+proto-rpc"),
            ("application/json-rpc", "application/grpc+json-rpc"),
        ] {
            let there = Content::of_mucp(&of(CONTENT_TYPE, mucp)).unwrap();
            assert_eq!(there.grpc, grpc, "{mucp}");
            assert!(!there.is_framed);
            let mut headers = of(CONTENT_TYPE, grpc);
            headers.insert(X_CONTENT_TYPE, HeaderValue::from_static(mucp));
            assert_eq!(Content::of_grpc(&headers).mucp, mucp);
        }
        let framed = Content::of_mucp(&of(CONTENT_TYPE, "application/grpc+json")).unwrap();
        assert!(framed.is_framed && framed.grpc == "application/grpc+json");
        assert_eq!(Content::of_mucp(&HeaderMap::new()).unwrap().mucp, DEFAULT);
        assert_eq!(Content::of_grpc(&of(CONTENT_TYPE, GRPC)).mucp, DEFAULT);
    }

    #[test]
    fn what_was_handed_on_from_another_call_does_not_change_how_a_body_is_read() {
        let mut headers = of(CONTENT_TYPE, "application/grpc+json");
        headers.insert(X_CONTENT_TYPE, HeaderValue::from_static("application/protobuf"));
        assert_eq!(Content::of_grpc(&headers).mucp, "application/json");
    }

    #[test]
    fn a_content_type_that_is_none_is_refused() {
        for bad in ["application/", "application/a b", "application/a\"b", "/"] {
            assert!(Content::of_mucp(&of(CONTENT_TYPE, bad)).is_err(), "{bad:?}");
        }
    }
}
