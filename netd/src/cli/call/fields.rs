//! Fields of a request: what they are, one given as an option, and an example of all.

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use crate::api::Shape;
use crate::error::{Exit, Problem};
use crate::output::text;

/// Fields an example shows.
const MAX_EXAMPLE: usize = 3;

/// `{ name: string, age: int32 }`.
#[must_use]
pub fn shape(message: &MessageDescriptor) -> String {
    let fields = message.fields().map(|field| {
        let kind = kind_name(&field.kind());
        if field.is_map() {
            format!("{}: map", field.name())
        } else if field.is_list() {
            format!("{}: {kind}[]", field.name())
        } else {
            format!("{}: {kind}", field.name())
        }
    });
    braces(fields.collect())
}

/// As [`shape`], of what go-micro registered.
#[must_use]
pub fn registered_shape(shape: &Shape) -> String {
    braces(shape.values.iter().map(|field| format!("{}: {}", field.name, field.kind)).collect())
}

fn braces(fields: Vec<String>) -> String {
    if fields.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", fields.join(", ")) }
}

/// A request to begin with: the first plain fields.
#[must_use]
pub fn example(message: &MessageDescriptor) -> String {
    let plain = message.fields().filter(|field| !field.is_list() && !field.is_map());
    let fields = plain.filter_map(|field| {
        let value = match field.kind() {
            Kind::String => sample(field.name()),
            Kind::Bool => json!(true),
            Kind::Double | Kind::Float => json!(1.5),
            Kind::Message(_) | Kind::Enum(_) | Kind::Bytes => return None,
            Kind::Int32
            | Kind::Int64
            | Kind::Uint32
            | Kind::Uint64
            | Kind::Sint32
            | Kind::Sint64
            | Kind::Fixed32
            | Kind::Fixed64
            | Kind::Sfixed32
            | Kind::Sfixed64 => json!(1),
        };
        Some((field.name().to_owned(), value))
    });
    Value::Object(fields.take(MAX_EXAMPLE).collect()).to_string()
}

/// As [`example`], of what go-micro registered.
#[must_use]
pub fn registered_example(shape: &Shape) -> String {
    let fields = shape.values.iter().filter_map(|field| {
        let value = match type_of(&field.kind) {
            Type::Text => sample(&field.name),
            Type::Number => json!(1),
            Type::Truth => json!(true),
            Type::Other => return None,
        };
        Some((field.name.clone(), value))
    });
    Value::Object(fields.take(MAX_EXAMPLE).collect::<Map<_, _>>()).to_string()
}

fn sample(name: &str) -> Value {
    if name.to_ascii_lowercase().contains("name") { json!("Ada") } else { json!("text") }
}

/// The field of `message` called `name` (`-` and `_` are the same), with `text` as its value.
///
/// # Errors
/// M7002 when there is no such field, or the text does not fit it.
pub fn value(
    message: &MessageDescriptor,
    name: &str,
    text: &str,
) -> Result<(String, Value), Problem> {
    let wanted = name.replace('-', "_");
    let found = message.get_field_by_name(&wanted).or_else(|| message.get_field_by_json_name(name));
    let Some(field) = found else {
        let names: Vec<String> = message.fields().map(|field| field.name().to_owned()).collect();
        return Err(no_field(name, &names));
    };
    let value = convert(&field, text).ok_or_else(|| {
        let what = format!("{text:?} does not fit --{name}");
        Problem::new("M7002", Exit::Usage, what).why(format!(
            "{} is of type {}",
            field.name(),
            kind_name(&field.kind())
        ))
    })?;
    let value = if field.is_list() && !value.is_array() { json!([value]) } else { value };
    Ok((field.name().to_owned(), value))
}

/// As [`value`], by what go-micro registered.
///
/// # Errors
/// As [`value`].
pub fn registered_value(shape: &Shape, name: &str, text: &str) -> Result<(String, Value), Problem> {
    let wanted = name.replace('-', "_");
    let found = shape.values.iter().find(|field| field.name == wanted || field.name == name);
    let Some(field) = found else {
        let names: Vec<String> = shape.values.iter().map(|field| field.name.clone()).collect();
        return Err(no_field(name, &names));
    };
    let value = match type_of(&field.kind) {
        Type::Text => Some(json!(text)),
        Type::Truth => text.parse::<bool>().ok().map(Value::Bool),
        Type::Number => number(text),
        Type::Other => serde_json::from_str(text).ok(),
    };
    let value = value.ok_or_else(|| {
        Problem::new("M7002", Exit::Usage, format!("{text:?} does not fit --{name}"))
            .why(format!("{} is of type {}", field.name, field.kind))
    })?;
    Ok((field.name.clone(), value))
}

fn no_field(name: &str, names: &[String]) -> Problem {
    let near = text::nearest(name, names.iter().map(String::as_str));
    let why = match (near, names) {
        (Some(near), _) => format!("the nearest is --{near}"),
        (None, []) => "it has no fields".to_owned(),
        (None, names) => format!("it has {}", names.join(", ")),
    };
    Problem::new("M7002", Exit::Usage, format!("the request has no field {name:?}")).why(why)
}

fn convert(field: &FieldDescriptor, text: &str) -> Option<Value> {
    if field.is_map() || (field.is_list() && text.starts_with('[')) {
        return serde_json::from_str(text).ok();
    }
    match field.kind() {
        Kind::String | Kind::Bytes => Some(json!(text)),
        Kind::Bool => text.parse::<bool>().ok().map(Value::Bool),
        Kind::Enum(kind) => match text.parse::<i32>() {
            Ok(number) => Some(json!(number)),
            Err(_) => kind.get_value_by_name(text).map(|_known| json!(text)),
        },
        Kind::Message(_) => serde_json::from_str(text).ok(),
        Kind::Double | Kind::Float => text.parse::<f64>().ok().map(|number| {
            // Infinity and NaN are words in protobuf JSON.
            if number.is_finite() { json!(number) } else { json!(text) }
        }),
        Kind::Int32
        | Kind::Int64
        | Kind::Uint32
        | Kind::Uint64
        | Kind::Sint32
        | Kind::Sint64
        | Kind::Fixed32
        | Kind::Fixed64
        | Kind::Sfixed32
        | Kind::Sfixed64 => number(text),
    }
}

fn number(text: &str) -> Option<Value> {
    let whole = text.parse::<i64>().map(Value::from);
    whole
        .or_else(|_| text.parse::<u64>().map(Value::from))
        .ok()
        .or_else(|| text.parse::<f64>().ok().filter(|number| number.is_finite()).map(Value::from))
}

fn kind_name(kind: &Kind) -> String {
    match kind {
        Kind::Double => "double".to_owned(),
        Kind::Float => "float".to_owned(),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => "int32".to_owned(),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => "int64".to_owned(),
        Kind::Uint32 | Kind::Fixed32 => "uint32".to_owned(),
        Kind::Uint64 | Kind::Fixed64 => "uint64".to_owned(),
        Kind::Bool => "bool".to_owned(),
        Kind::String => "string".to_owned(),
        Kind::Bytes => "bytes".to_owned(),
        Kind::Message(message) => message.name().to_owned(),
        Kind::Enum(kind) => kind.name().to_owned(),
    }
}

/// What a Go type is in JSON.
enum Type {
    Text,
    Number,
    Truth,
    Other,
}

fn type_of(name: &str) -> Type {
    match name {
        "string" => Type::Text,
        "bool" => Type::Truth,
        "int" | "int8" | "int16" | "int32" | "int64" | "uint" | "uint8" | "uint16" | "uint32"
        | "uint64" | "float32" | "float64" => Type::Number,
        _ => Type::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape_of(fields: &[(&str, &str)]) -> Shape {
        let field = |(name, kind): &(&str, &str)| Shape {
            name: (*name).to_owned(),
            kind: (*kind).to_owned(),
            values: Vec::new(),
        };
        Shape {
            name: "Request".to_owned(),
            kind: "Request".to_owned(),
            values: fields.iter().map(field).collect(),
        }
    }

    #[test]
    fn registered_fields_take_values_of_their_type() {
        let shape = shape_of(&[("name", "string"), ("age", "int32"), ("tags", "[]string")]);
        for (name, text, value) in
            [("name", "7", json!("7")), ("age", "7", json!(7)), ("tags", "[\"a\"]", json!(["a"]))]
        {
            assert_eq!(registered_value(&shape, name, text).unwrap().1, value);
        }
        assert_eq!(registered_value(&shape, "age", "old").unwrap_err().code, "M7002");
        let near = registered_value(&shape, "nmae", "x").unwrap_err();
        assert_eq!(near.why.as_deref(), Some("the nearest is --name"));
    }

    #[test]
    fn shapes_and_examples_are_short() {
        let shape = shape_of(&[("name", "string"), ("age", "int32")]);
        assert_eq!(registered_shape(&shape), "{ name: string, age: int32 }");
        assert_eq!(registered_example(&shape), "{\"name\":\"Ada\",\"age\":1}");
    }

    #[test]
    fn large_whole_numbers_stay_whole() {
        assert_eq!(number("18446744073709551615"), Some(json!(u64::MAX)));
        assert_eq!(number("1.5"), Some(json!(1.5)));
        assert_eq!(number("NaN"), None);
    }
}
