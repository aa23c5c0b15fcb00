//! Protobuf and JSON: what callers write, and what they are answered in.

use bytes::Bytes;
use prost::Message;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, MethodDescriptor,
    SerializeOptions,
};

/// How messages are written on one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Protobuf.
    Proto,
    /// Protobuf as JSON, with names as in the `.proto` file.
    Json,
}

impl Form {
    /// By the subtype of a gRPC content type, then by go-micro's `x-content-type`; what neither
    /// knows is protobuf, as in go-micro v2 (`server/grpc`). `None`: not gRPC at all.
    pub(super) fn of(content_type: &str, x_content_type: Option<&str>) -> Option<Self> {
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        let rest = strip_prefix_ignoring_case(essence, "application/grpc")?;
        let subtype = match rest.as_bytes().first() {
            None => "",
            Some(b'+') => &rest[1..],
            Some(_) => return None,
        };
        Some(match subtype {
            "" => match x_content_type {
                Some("application/json") => Self::Json,
                Some(_) | None => Self::Proto,
            },
            subtype if subtype.eq_ignore_ascii_case("json") => Self::Json,
            _ => Self::Proto,
        })
    }
}

fn strip_prefix_ignoring_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let head = text.get(..prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then(|| &text[prefix.len()..])
}

/// Reads and writes the messages of one method; those who answer see protobuf alone.
#[derive(Clone, Debug)]
pub(super) struct Codec {
    form: Form,
    input: MessageDescriptor,
    output: MessageDescriptor,
}

impl Codec {
    pub(super) fn new(form: Form, method: &MethodDescriptor) -> Self {
        Self { form, input: method.input(), output: method.output() }
    }

    /// A message of the caller, as protobuf.
    ///
    /// # Errors
    /// A text for people, when it is JSON but not of this message.
    pub(super) fn read(&self, message: Bytes) -> Result<Bytes, String> {
        match self.form {
            Form::Proto => Ok(message),
            Form::Json => from_json(&self.input, &message),
        }
    }

    /// A message for the caller, from protobuf.
    ///
    /// # Errors
    /// A text for people, when the bytes are not of this message: a mistake of ours.
    pub(super) fn write(&self, message: Bytes) -> Result<Bytes, String> {
        match self.form {
            Form::Proto => Ok(message),
            Form::Json => to_json(&self.output, message),
        }
    }
}

/// Names of the file and lowerCamelCase are both read, numbers may be strings, fields that nobody
/// knows are skipped; an empty text is an empty message.
fn from_json(descriptor: &MessageDescriptor, text: &[u8]) -> Result<Bytes, String> {
    if text.is_empty() {
        return Ok(Bytes::new());
    }
    let options = DeserializeOptions::new().deny_unknown_fields(false);
    let mut json = serde_json::Deserializer::from_slice(text);
    let message = DynamicMessage::deserialize_with_options(descriptor.clone(), &mut json, &options)
        .map_err(|error| error.to_string())?;
    json.end().map_err(|error| error.to_string())?;
    Ok(message.encode_to_vec().into())
}

fn to_json(descriptor: &MessageDescriptor, message: Bytes) -> Result<Bytes, String> {
    let options = SerializeOptions::new().use_proto_field_name(true);
    let message =
        DynamicMessage::decode(descriptor.clone(), message).map_err(|error| error.to_string())?;
    let mut json = serde_json::Serializer::new(Vec::new());
    message.serialize_with_options(&mut json, &options).map_err(|error| error.to_string())?;
    Ok(json.into_inner().into())
}

/// The descriptors of everything our services say.
pub(super) fn descriptors() -> DescriptorPool {
    let mut pool = DescriptorPool::new();
    for set in [proto::micro::DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET] {
        pool.decode_file_descriptor_set(set).expect("descriptors made by our own build are whole");
    }
    pool
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proto::micro::registry as pb;

    use super::*;

    fn descriptor(name: &str) -> MessageDescriptor {
        let mut pool = descriptors();
        let set = tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET;
        pool.decode_file_descriptor_set(set).unwrap();
        pool.get_message_by_name(name).unwrap()
    }

    fn services() -> impl Strategy<Value = pb::Service> {
        let metadata = || proptest::collection::btree_map(any::<String>(), any::<String>(), 0..3);
        let node = (any::<String>(), any::<i64>(), metadata())
            .prop_map(|(id, port, metadata)| pb::Node { address: id.clone(), id, port, metadata });
        let parts = (any::<String>(), metadata(), proptest::collection::vec(node, 0..3));
        (parts, any::<i64>()).prop_map(|((name, metadata, nodes), ttl)| pb::Service {
            version: name.clone(),
            name,
            metadata,
            nodes,
            options: Some(pb::Options { ttl, ..Default::default() }),
            ..Default::default()
        })
    }

    proptest! {
        #[test]
        fn what_is_written_as_json_is_read_back(service in services()) {
            let descriptor = descriptor("go.micro.registry.Service");
            let bytes = Bytes::from(service.encode_to_vec());
            let json = to_json(&descriptor, bytes).unwrap();
            let back = from_json(&descriptor, &json).unwrap();
            prop_assert_eq!(pb::Service::decode(back).unwrap(), service);
        }

        #[test]
        fn both_spellings_and_both_kinds_of_number_are_read(
            name in "[a-z.]{0,20}",
            number in any::<i32>(),
            port in any::<i64>(),
        ) {
            let extension = descriptor("grpc.reflection.v1.ExtensionRequest");
            let snake = serde_json::json!({"containing_type": name, "extension_number": number});
            let camel = serde_json::json!({
                "containingType": name, "extensionNumber": number.to_string(),
            });
            let read = |json: &serde_json::Value| {
                from_json(&extension, json.to_string().as_bytes()).unwrap()
            };
            prop_assert_eq!(read(&snake), read(&camel));
            let out = to_json(&extension, read(&camel)).unwrap();
            let out: serde_json::Value = serde_json::from_slice(&out).unwrap();
            let written = out.get("containing_type").is_some();
            prop_assert_eq!(written, !name.is_empty(), "names of the file, defaults left out");

            let node = descriptor("go.micro.registry.Node");
            let as_number = serde_json::json!({"port": port}).to_string();
            let as_text = serde_json::json!({"port": port.to_string()}).to_string();
            let as_number = from_json(&node, as_number.as_bytes()).unwrap();
            prop_assert_eq!(&as_number, &from_json(&node, as_text.as_bytes()).unwrap());
            let out = to_json(&node, as_number).unwrap();
            let out: serde_json::Value = serde_json::from_slice(&out).unwrap();
            let written = out.get("port").and_then(|port| port.as_str());
            let text = port.to_string();
            prop_assert_eq!(written.unwrap_or("0"), text.as_str(), "64 bits are text");
        }

        #[test]
        fn no_text_makes_it_panic(text in any::<Vec<u8>>()) {
            let _ = from_json(&descriptor("go.micro.registry.Service"), &text);
        }
    }

    #[test]
    fn the_form_is_that_of_the_subtype_then_of_go_micro_then_protobuf() {
        for (content_type, other, form) in [
            ("application/grpc", None, Some(Form::Proto)),
            ("application/grpc+json", None, Some(Form::Json)),
            ("Application/gRPC+JSON; charset=utf-8", None, Some(Form::Json)),
            ("application/grpc+proto", Some("application/json"), Some(Form::Proto)),
            ("application/grpc", Some("application/json"), Some(Form::Json)),
            ("application/grpc", Some("application/octet-stream"), Some(Form::Proto)),
            ("application/grpc+other", None, Some(Form::Proto)),
            ("application/grpc-web", None, None),
            ("application/json", Some("application/json"), None),
            ("", None, None),
        ] {
            assert_eq!(Form::of(content_type, other), form, "{content_type:?} {other:?}");
        }
    }
}
