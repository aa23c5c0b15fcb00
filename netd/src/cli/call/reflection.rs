//! What a service says about itself by gRPC server reflection, v1 and before it v1alpha, whose
//! messages are the same on the wire.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use http::HeaderMap;
use prost::Message as _;
use prost_types::FileDescriptorProto;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use super::failure::Failed;
use super::grpc::{Call, Codec, Connection, Request};
use super::place::Place;
use crate::error::{Exit, Problem};

const PATHS: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];
/// Services that every server may have and nobody means to call.
const COMMON: [&str; 3] = ["grpc.reflection.", "grpc.health.", "grpc.channelz."];
/// Files of one service; a generated monorepo has hundreds.
const MAX_FILES: usize = 4096;
/// How long a service may take to tell.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a service told.
#[derive(Debug)]
pub struct Files {
    /// Its protobuf services, the common ones left out.
    pub services: Vec<String>,
    /// The files that describe them, with all that these import.
    pub files: Vec<FileDescriptorProto>,
}

/// Asks the service; `None` when it has no reflection.
///
/// # Errors
/// When micro could not deliver the question.
pub async fn read(connection: &Connection, place: &Place) -> Result<Option<Files>, Problem> {
    for path in PATHS {
        if let Some(files) = read_version(connection, place, path).await? {
            return Ok(Some(files));
        }
    }
    Ok(None)
}

async fn read_version(
    connection: &Connection,
    place: &Place,
    path: &str,
) -> Result<Option<Files>, Problem> {
    let headers = HeaderMap::new();
    let deadline = Some(PATIENCE);
    let request = Request { place, path, codec: Codec::Proto, headers: &headers, deadline };
    let mut asking = Asking { call: connection.call(request).await? };
    let listed = asking.ask(MessageRequest::ListServices("*".to_owned())).await?;
    let Some(MessageResponse::ListServicesResponse(list)) = listed else {
        // A service that is not there, or cannot be reached, is told; one without reflection not.
        return match asking.call.receiving.finish(place).await {
            Err(Failed::Micro(problem)) => Err(*problem),
            Ok(()) | Err(Failed::Service(_)) => Ok(None),
        };
    };
    let services: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    let is_common = |name: &String| COMMON.iter().any(|common| name.starts_with(common));
    let (common, own): (Vec<_>, Vec<_>) = services.into_iter().partition(is_common);
    let services = if own.is_empty() { common } else { own };
    let files = asking.files(&services).await?;
    asking.call.sending.cancel();
    Ok(Some(Files { services, files }))
}

struct Asking {
    call: Call,
}

impl Asking {
    /// One question and its answer; `None` when the service ended the call.
    async fn ask(&mut self, question: MessageRequest) -> Result<Option<MessageResponse>, Problem> {
        let request =
            ServerReflectionRequest { host: String::new(), message_request: Some(question) };
        self.call.sending.send(request.encode_to_vec().into(), false).await?;
        let Some(message) = self.call.receiving.message().await? else { return Ok(None) };
        let answer = ServerReflectionResponse::decode(message).map_err(|error| garbled(&error))?;
        Ok(answer.message_response)
    }

    /// The files of `services`, and then whatever those import and have not brought along.
    async fn files(&mut self, services: &[String]) -> Result<Vec<FileDescriptorProto>, Problem> {
        let mut files: BTreeMap<String, FileDescriptorProto> = BTreeMap::new();
        for service in services {
            let question = MessageRequest::FileContainingSymbol(service.clone());
            self.take(question, &mut files).await?;
        }
        let mut asked: BTreeSet<String> = BTreeSet::new();
        loop {
            let imported = files.values().flat_map(|file| &file.dependency);
            let mut missing =
                imported.filter(|name| !files.contains_key(*name) && !asked.contains(*name));
            let missing = missing.next().cloned();
            let Some(missing) = missing else { break };
            asked.insert(missing.clone());
            self.take(MessageRequest::FileByFilename(missing), &mut files).await?;
        }
        Ok(files.into_values().collect())
    }

    async fn take(
        &mut self,
        question: MessageRequest,
        files: &mut BTreeMap<String, FileDescriptorProto>,
    ) -> Result<(), Problem> {
        let answer = self.ask(question).await?;
        let Some(MessageResponse::FileDescriptorResponse(answer)) = answer else { return Ok(()) };
        for bytes in answer.file_descriptor_proto {
            let file = FileDescriptorProto::decode(&*bytes).map_err(|error| garbled(&error))?;
            if files.len() >= MAX_FILES {
                return Err(Problem::new(
                    "M7003",
                    Exit::Failed,
                    "the service's schema is too large",
                )
                .why(format!("it has more than {MAX_FILES} files")));
            }
            files.insert(file.name().to_owned(), file);
        }
        Ok(())
    }
}

fn garbled(error: &prost::DecodeError) -> Problem {
    Problem::new("M7003", Exit::Failed, "the service's schema cannot be read")
        .why(error.to_string())
}
