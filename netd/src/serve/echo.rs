//! `echo.Echo`: says back what it is told.

use std::pin::Pin;

use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

mod generated {
    #![allow(
        missing_docs,
        unreachable_pub,
        clippy::all,
        reason = "generated from proto/echo.proto"
    )]
    tonic::include_proto!("echo");
}

use generated::Message;
use generated::echo_server::{Echo, EchoServer};

#[derive(Debug)]
pub(super) struct Mirror;

/// The echo.
pub(super) fn service() -> EchoServer<Mirror> {
    EchoServer::new(Mirror)
}

#[tonic::async_trait]
impl Echo for Mirror {
    type StreamStream = Pin<Box<dyn Stream<Item = Result<Message, Status>> + Send>>;

    async fn call(&self, request: Request<Message>) -> Result<Response<Message>, Status> {
        Ok(Response::new(request.into_inner()))
    }

    /// The request is the answer: what the caller does not read is not read from it either, so a
    /// slow reader holds back its own writing and nothing is queued here.
    async fn stream(
        &self,
        request: Request<Streaming<Message>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        Ok(Response::new(Box::pin(request.into_inner())))
    }
}
