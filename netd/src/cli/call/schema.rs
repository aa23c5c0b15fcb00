//! The methods of a service: as it tells them by reflection, else as it registered them. With
//! reflection JSON becomes protobuf here; without it JSON is sent as it is.

use bytes::Bytes;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde_json::Value;

use super::fields;
use super::grpc::Connection;
use super::place::Place;
use super::reflection::{self, Files};
use crate::api;
use crate::client::Client;
use crate::error::{Exit, Problem};
use crate::output::text;

/// What is known of a service's methods.
#[derive(Debug)]
pub struct Schema {
    service: String,
    methods: Vec<Method>,
    reflected: bool,
}

/// One method.
#[derive(Clone, Debug, Default)]
pub struct Method {
    /// `Greeter.Hello`.
    pub name: String,
    /// `/greeter.Greeter/Hello`.
    pub path: String,
    /// Whether it takes a stream.
    pub client_streams: bool,
    /// Whether it answers with one.
    pub server_streams: bool,
    /// The shape of its request, for people.
    pub request: String,
    /// The shape of its response.
    pub response: String,
    /// A request to begin with.
    pub example: String,
    input: Option<MessageDescriptor>,
    output: Option<MessageDescriptor>,
    registered: Option<api::Shape>,
}

impl Method {
    /// How many messages go each way.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match (self.client_streams, self.server_streams) {
            (false, false) => "unary",
            (false, true) => "server stream",
            (true, false) => "client stream",
            (true, true) => "both stream",
        }
    }
}

/// The schema of `service`, asked for through the node's proxy.
///
/// # Errors
/// When the service cannot be reached. One without reflection is described as it registered.
pub async fn of(
    client: &Client,
    service: &api::Service,
    timeout: std::time::Duration,
) -> Result<Schema, Problem> {
    // The node's own services are in no registry, and all have reflection.
    let own = proxy::own::Own::has(&service.name);
    if !own && !service.instances.iter().any(|one| one.protocol == "grpc") {
        return Ok(Schema::registered(service));
    }
    let status: api::Status = client.get("/v1/status").await?;
    let place: Place = service.name.parse()?;
    let connection = Connection::open(&status.proxy.address, timeout).await?;
    match reflection::read(&connection, &place).await? {
        Some(files) => Schema::reflected(&service.name, files),
        None => Ok(Schema::registered(service)),
    }
}

impl Schema {
    /// From what a service told.
    ///
    /// # Errors
    /// M7003 when its files do not fit together.
    pub fn reflected(service: &str, files: Files) -> Result<Self, Problem> {
        let mut pool = DescriptorPool::new();
        pool.add_file_descriptor_protos(files.files).map_err(|error| {
            Problem::new("M7003", Exit::Failed, "the service's schema cannot be read")
                .why(error.to_string())
        })?;
        let services = files.services.iter().filter_map(|name| pool.get_service_by_name(name));
        let methods = services.flat_map(|service| {
            let all: Vec<_> = service.methods().collect();
            all.into_iter().map(move |method| Method {
                name: format!("{}.{}", service.name(), method.name()),
                path: format!("/{}/{}", service.full_name(), method.name()),
                client_streams: method.is_client_streaming(),
                server_streams: method.is_server_streaming(),
                request: fields::shape(&method.input()),
                response: fields::shape(&method.output()),
                example: fields::example(&method.input()),
                input: Some(method.input()),
                output: Some(method.output()),
                registered: None,
            })
        });
        Ok(Self { service: service.to_owned(), methods: methods.collect(), reflected: true })
    }

    /// From what a service registered: the endpoints of all its versions, each once.
    #[must_use]
    pub fn registered(service: &api::Service) -> Self {
        let mut methods: Vec<Method> = Vec::new();
        let endpoints = service.versions.iter().flat_map(|version| &version.endpoints);
        for endpoint in endpoints {
            if methods.iter().any(|method| method.name == endpoint.name) {
                continue;
            }
            let streams = endpoint.metadata.get("stream").is_some_and(|value| value == "true");
            let shape = |shape: &Option<api::Shape>| {
                shape.as_ref().map(fields::registered_shape).unwrap_or_default()
            };
            methods.push(Method {
                name: endpoint.name.clone(),
                path: path_of(&service.name, &endpoint.name),
                // go-micro opens every stream both ways and says no more about it.
                client_streams: streams,
                server_streams: streams,
                request: shape(&endpoint.request),
                response: shape(&endpoint.response),
                example: endpoint
                    .request
                    .as_ref()
                    .map_or_else(|| "{}".to_owned(), fields::registered_example),
                input: None,
                output: None,
                registered: endpoint.request.clone(),
            });
        }
        Self { service: service.name.clone(), methods, reflected: false }
    }

    /// All methods, in the order in which the service tells them.
    #[must_use]
    pub fn methods(&self) -> &[Method] {
        &self.methods
    }

    /// The service.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.service
    }

    /// Whether the service told it itself.
    #[must_use]
    pub const fn is_reflected(&self) -> bool {
        self.reflected
    }

    /// The method that `word` means: its whole name, its path, or its short name where only one
    /// method has it, in any case.
    ///
    /// # Errors
    /// M1204 when there is none, or several; M7001 for a short name without a schema.
    pub fn choose(&self, word: &str, place: &Place) -> Result<Method, Problem> {
        let service = &place.service;
        let wrong = |code, what: String, why: String| {
            Problem::new(code, Exit::NotFound, what)
                .why(why)
                .attempt(format!("micro describe {service}"), "lists its methods")
        };
        if word.is_empty() {
            let what = format!("which method of {service}?");
            return Err(Problem { exit: Exit::Usage, ..wrong("M1204", what, self.list()) });
        }
        let full = |method: &&Method| {
            let path = method.path.trim_start_matches('/');
            method.name == word
                || method.path == word
                || path == word
                || path.replace('/', ".") == word
        };
        if let Some(method) = self.methods.iter().find(full) {
            return Ok(method.clone());
        }
        let last = |method: &Method| {
            method.name.rsplit('.').next().unwrap_or_default().eq_ignore_ascii_case(word)
                || method.name.eq_ignore_ascii_case(word)
        };
        let short: Vec<_> = self.methods.iter().filter(|method| last(method)).collect();
        match short.as_slice() {
            [only] => return Ok((*only).clone()),
            [] => {}
            several => {
                let names: Vec<_> = several.iter().map(|method| method.name.as_str()).collect();
                let what = format!("several methods of {service} are called {word:?}");
                return Err(wrong("M1204", what, names.join(", ")));
            }
        }
        // What a service did not register can still be there: its whole name is taken as it is.
        if !self.reflected && (word.starts_with('/') || word.contains('.')) {
            return Ok(Method {
                name: word.to_owned(),
                path: path_of(service.as_str(), word),
                example: "{}".to_owned(),
                ..Method::default()
            });
        }
        if self.methods.is_empty() {
            let what = format!("{service} has no schema, so {word:?} cannot be found in it");
            let problem = wrong(
                "M7001",
                what,
                "it has no gRPC reflection and registered no \
                 endpoints"
                    .to_owned(),
            );
            let whole = format!("micro call {service} Struct.Method '{{}}'");
            return Err(Problem { exit: Exit::Usage, tries: Vec::new(), ..problem }
                .attempt(whole, "the whole name needs no schema"));
        }
        let names = self.methods.iter().map(|method| method.name.as_str());
        let shorts = names.clone().filter_map(|name| name.rsplit('.').next());
        let near = text::nearest(word, names.chain(shorts));
        let why = near.map_or_else(|| self.list(), |near| format!("the nearest is {near}"));
        Err(wrong("M1204", format!("{service} has no method {word:?}"), why))
    }

    fn list(&self) -> String {
        if self.methods.is_empty() {
            return "it has no gRPC reflection and registered no endpoints".to_owned();
        }
        let names: Vec<_> = self.methods.iter().map(|method| method.name.as_str()).collect();
        format!("it has {}", names.join(", "))
    }

    /// A field given as an option: its name in JSON, and its value.
    ///
    /// # Errors
    /// M7001 without a schema, M7002 when there is no such field or the text does not fit it.
    pub fn field(
        &self,
        method: &Method,
        name: &str,
        text: &str,
    ) -> Result<(String, Value), Problem> {
        match (&method.input, &method.registered) {
            (Some(input), _) => fields::value(input, name, text),
            (None, Some(shape)) => fields::registered_value(shape, name, text),
            (None, None) => {
                let what = format!("--{name} cannot be sent: {} has no schema", method.name);
                Err(Problem::new("M7001", Exit::Usage, what)
                    .why("fields as options need gRPC reflection or registered endpoints")
                    .attempt(
                        format!(
                            "micro call {} {} '{{\"{name}\":\"{text}\"}}'",
                            self.service, method.name
                        ),
                        "as JSON",
                    ))
            }
        }
    }

    /// A message as it travels.
    ///
    /// # Errors
    /// M7002 when it does not fit the schema.
    pub fn encode(&self, method: &Method, message: &Value) -> Result<Bytes, Problem> {
        let Some(input) = &method.input else { return Ok(message.to_string().into()) };
        let message = DynamicMessage::deserialize(input.clone(), message).map_err(|error| {
            Problem::new("M7002", Exit::Usage, "the request does not fit the schema")
                .why(error.to_string())
                .attempt(
                    format!("micro call {} {} '{}'", self.service, method.name, method.example),
                    "",
                )
        })?;
        Ok(message.encode_to_vec().into())
    }

    /// A message that came, as JSON with the names of the schema.
    ///
    /// # Errors
    /// M7003 when it does not fit the schema.
    pub fn decode(&self, method: &Method, message: &Bytes) -> Result<Value, Problem> {
        let unreadable = |why: String| {
            Problem::new("M7003", Exit::Failed, "the answer does not fit the schema").why(why)
        };
        let Some(output) = &method.output else {
            return serde_json::from_slice(message).map_err(|error| unreadable(error.to_string()));
        };
        let message = DynamicMessage::decode(output.clone(), message.clone())
            .map_err(|error| unreadable(error.to_string()))?;
        // The contract: names as in the .proto file; fields that hold nothing are left out.
        let options = SerializeOptions::new().use_proto_field_name(true);
        message
            .serialize_with_options(serde_json::value::Serializer, &options)
            .map_err(|error| unreadable(error.to_string()))
    }
}

/// The path of a go-micro endpoint (contract, path rule R1 and R2).
fn path_of(service: &str, endpoint: &str) -> String {
    let name = service.rsplit('/').next().unwrap_or(service);
    match endpoint.split('.').collect::<Vec<_>>().as_slice() {
        [own, method] if !endpoint.starts_with('/') => format!("/{name}.{own}/{method}"),
        _ if endpoint.starts_with('/') => endpoint.to_owned(),
        // `package.Struct.Method`, as protobuf writes it.
        [package @ .., method] if !package.is_empty() => format!("/{}/{method}", package.join(".")),
        _ => format!("/{endpoint}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(names: &[&str]) -> Schema {
        let endpoints = names
            .iter()
            .map(|name| api::Endpoint { name: (*name).to_owned(), ..api::Endpoint::default() });
        Schema::registered(&api::Service {
            name: "go.micro.srv.greeter".to_owned(),
            versions: vec![api::ServiceVersion {
                endpoints: endpoints.collect(),
                ..api::ServiceVersion::default()
            }],
            ..api::Service::default()
        })
    }

    #[test]
    fn a_method_is_found_by_each_of_its_names() {
        let schema = schema(&["Say.Hello", "Say.Bye", "Shout.Bye"]);
        let place: Place = "go.micro.srv.greeter".parse().unwrap();
        let path = "/go.micro.srv.greeter.Say/Hello";
        for word in ["Say.Hello", "hello", "say.hello", path, "go.micro.srv.greeter.Say/Hello"] {
            assert_eq!(schema.choose(word, &place).unwrap().path, path, "{word}");
        }
        assert_eq!(
            schema.choose("Other.One", &place).unwrap().path,
            "/go.micro.srv.greeter.Other/One"
        );
        for (word, exit) in [("bye", Exit::NotFound), ("helo", Exit::NotFound), ("", Exit::Usage)] {
            let problem = schema.choose(word, &place).unwrap_err();
            assert_eq!((&*problem.code, problem.exit), ("M1204", exit), "{word:?}");
        }
    }

    #[test]
    fn without_a_schema_the_whole_name_is_needed() {
        let place: Place = "x".parse().unwrap();
        let schema = Schema::registered(&api::Service::default());
        assert_eq!(schema.choose("hello", &place).unwrap_err().code, "M7001");
        assert_eq!(schema.choose("Say.Hello", &place).unwrap().path, "/x.Say/Hello");
    }

    #[test]
    fn json_becomes_protobuf_and_back_by_reflection() {
        let files = Files {
            services: vec!["grpc.reflection.v1.ServerReflection".to_owned()],
            files: prost_types::FileDescriptorSet::decode(
                tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            )
            .unwrap()
            .file,
        };
        let schema = Schema::reflected("x", files).unwrap();
        let place: Place = "x".parse().unwrap();
        let method = schema.choose("serverreflectioninfo", &place).unwrap();
        assert_eq!(method.kind(), "both stream");
        let (name, value) = schema.field(&method, "list-services", "*").unwrap();
        let message = serde_json::json!({ "host": "h", name: value });
        let bytes = schema.encode(&method, &message).unwrap();
        assert_eq!(&bytes[..], b"\x0a\x01h\x3a\x01*");
        assert!(schema.encode(&method, &serde_json::json!({ "hots": "h" })).is_err());
        assert_eq!(schema.field(&method, "hots", "h").unwrap_err().code, "M7002");
    }
}
