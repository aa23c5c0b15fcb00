//! `greeter.Greeter`: greets by name.

use tonic::{Request, Response, Status};

mod generated {
    #![allow(
        missing_docs,
        unreachable_pub,
        clippy::all,
        reason = "generated from proto/greeter.proto"
    )]
    tonic::include_proto!("greeter");
}

use generated::greeter_client::GreeterClient;
use generated::greeter_server::{Greeter, GreeterServer};
use generated::{HelloRequest, HelloResponse};

/// Characters of a name that are repeated back.
const MAX_NAME: usize = 1024;

/// Calls a greeter, at its own address or through a proxy.
#[derive(Debug)]
pub struct Client(GreeterClient<tonic::transport::Channel>);

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// What the connection says.
    pub async fn connect(at: std::net::SocketAddr) -> Result<Self, String> {
        let client = GreeterClient::connect(format!("http://{at}")).await;
        client.map(Self).map_err(|error| error.to_string())
    }

    /// Has `name` greeted.
    ///
    /// # Errors
    /// The status, as text.
    pub async fn hello(&mut self, name: &str) -> Result<String, String> {
        let request = HelloRequest { name: name.to_owned() };
        let answer = self.0.hello(request).await.map_err(|status| status.to_string())?;
        Ok(answer.into_inner().message)
    }
}

#[derive(Debug)]
pub(super) struct Polite {
    postscript: String,
}

/// The greeter, whose greetings end with `postscript`.
pub(super) fn service(postscript: &str) -> GreeterServer<Polite> {
    GreeterServer::new(Polite { postscript: postscript.to_owned() })
}

#[tonic::async_trait]
impl Greeter for Polite {
    async fn hello(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<HelloResponse>, Status> {
        let name = request.into_inner().name;
        if name.chars().count() > MAX_NAME {
            return Err(Status::invalid_argument("a name has at most 1024 characters"));
        }
        let name = if name.is_empty() { "there" } else { &name };
        let message = format!("Hello {name}{}", self.postscript);
        Ok(Response::new(HelloResponse { message }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_greeting_names_who_is_greeted() {
        let greeter = Polite { postscript: ", from us".to_owned() };
        for (name, wanted) in [("Ada", "Hello Ada, from us"), ("", "Hello there, from us")] {
            let request = Request::new(HelloRequest { name: name.to_owned() });
            let answer = greeter.hello(request).await.expect("a short name is fine");
            assert_eq!(answer.into_inner().message, wanted);
        }
        let long = Request::new(HelloRequest { name: "x".repeat(MAX_NAME + 1) });
        assert!(greeter.hello(long).await.is_err());
    }
}
