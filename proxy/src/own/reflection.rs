//! `grpc.reflection`: what our services look like, for tools that know nothing of them.

use std::convert::Infallible;

use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::sync::OwnedSemaphorePermit;
use tonic_reflection::server::Builder;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use crate::body::Body;

pub(super) const V1: &str = "grpc.reflection.v1";
pub(super) const V1_ALPHA: &str = "grpc.reflection.v1alpha";

type Service = BoxCloneSyncService<Request<Body>, Response<tonic::body::Body>, Infallible>;

/// Both versions of the service: the same, but for the name.
pub(super) struct Reflection {
    v1: Service,
    v1_alpha: Service,
}

impl Reflection {
    pub(super) fn new() -> Self {
        let builder = || {
            Builder::configure()
                .register_encoded_file_descriptor_set(proto::micro::DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
        };
        let whole = "descriptors made by our own build are whole";
        Self {
            v1: BoxCloneSyncService::new(builder().build_v1().expect(whole)),
            v1_alpha: BoxCloneSyncService::new(builder().build_v1alpha().expect(whole)),
        }
    }

    /// Whether `name` is one of the two.
    pub(super) fn has(name: &str) -> bool {
        matches!(name, V1 | V1_ALPHA)
    }

    /// Answers; `permit` is held until the answer has ended.
    pub(super) async fn serve(
        &self,
        request: Request<Body>,
        permit: OwnedSemaphorePermit,
    ) -> Response<Body> {
        let alpha = request.uri().path().starts_with("/grpc.reflection.v1alpha.");
        let service = if alpha { &self.v1_alpha } else { &self.v1 };
        let response = match service.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        response.map(|body| {
            Body::new(body.map_frame(move |frame| {
                let _held = &permit;
                frame
            }))
        })
    }
}
