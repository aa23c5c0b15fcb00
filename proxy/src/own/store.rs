//! `go.micro.store`, and `store` of micro v3: records by key, in tables of databases.
//!
//! Kept by this node alone; where, its [`Store`] decides. A tenant has one database, its own, whatever it
//! names; in the default namespace databases are what programs say (contract, semantics 4).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream;
use http::HeaderMap;
use prost::Message as _;
use proto::micro::store as pb;
use proto::name::DEFAULT_NAMESPACE;

use super::dispatch::{Call, decode};
use super::failure::{Failure, Kind};
use super::reply::Reply;

pub(super) const NAME: &str = "go.micro.store";

/// The database and the table of who names none, as go-micro calls them.
const USUAL: &str = "micro";
/// Bytes of a key.
pub const MAX_KEY: usize = 1024;
/// Bytes of a value and of what is said of it: a quarter of a message, so that some fit an answer.
pub const MAX_RECORD: usize = 1 << 20;
/// Bytes of the name of a database or a table.
const MAX_NAME: usize = 128;
/// Bytes of keys in one message of a list.
const BATCH: usize = 1 << 20;
/// The longest time until a record expires; more is as good as never.
const MAX_EXPIRY: i64 = 100 * 366 * 24 * 3600;

/// A table of a database.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The database: what programs say, or `NAMESPACE/` for that of a tenant.
    pub database: String,
    /// The table in it.
    pub table: String,
}

/// One record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: Bytes,
    /// How long it lasts from now; `None`: until it is deleted.
    pub lasts: Option<Duration>,
    /// What its program says of it: type and value by name.
    pub metadata: BTreeMap<String, (String, String)>,
}

/// Which records of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Find {
    /// Their keys begin with this.
    pub prefix: String,
    /// And end with this.
    pub suffix: String,
    /// So many of those are left out first.
    pub offset: u64,
    /// So many at most; 0: all.
    pub limit: u64,
    /// The highest key first.
    pub descending: bool,
}

/// Why a store did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is no room for more.
    #[error("the store is full: {0}")]
    Full(String),
    /// The answer would be larger than an answer may be.
    #[error("the answer has more than {0} bytes: ask with a limit and an offset")]
    TooMuch(usize),
    /// More waits than may wait.
    #[error("the store has too much to do")]
    Busy,
    /// It cannot be read or written.
    #[error("the store cannot be used: {0}")]
    Failed(String),
}

/// Keeps records. What a write said it has done is there after a crash, if the store says that it
/// keeps anything at all.
pub trait Store: Send + Sync {
    /// The record of a key.
    fn get(&self, place: Place, key: String) -> BoxFuture<'_, Result<Option<Record>, StoreError>>;
    /// Records, by key; as many bytes of them as an answer may have.
    fn find(&self, place: Place, find: Find) -> BoxFuture<'_, Result<Vec<Record>, StoreError>>;
    /// Keys, in their order.
    fn keys(&self, place: Place, find: Find) -> BoxFuture<'_, Result<Vec<String>, StoreError>>;
    /// Sets a record.
    fn put(&self, place: Place, record: Record) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Takes a record away, if it is there.
    fn delete(&self, place: Place, key: String) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Databases that hold something, in their order.
    fn databases(&self) -> BoxFuture<'_, Result<Vec<String>, StoreError>>;
    /// Tables of a database that hold something, in their order.
    fn tables(&self, database: String) -> BoxFuture<'_, Result<Vec<String>, StoreError>>;
}

/// What the metadata of a call says of where (contract, headers 2): it wins over the options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    database: String,
    table: String,
}

impl Said {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let text = |name| {
            let value = headers.get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        Self { database: text("micro-database"), table: text("micro-table") }
    }
}

/// Answers a method.
pub(super) fn call(store: Option<&Arc<dyn Store>>, call: &Call, message: Bytes) -> Reply {
    let Some(store) = store.cloned() else {
        let why = Failure::new(NAME, Kind::Unavailable, "nothing is stored here");
        return Reply::now::<pb::WriteResponse>(Err(why));
    };
    let (namespace, said) = (call.scope.namespace().to_owned(), call.store.clone());
    match call.method.as_str() {
        "Read" => {
            Reply::later(
                async move { read(&*store, &namespace, &said, decode(NAME, message)?).await },
            )
        }
        "Write" => {
            Reply::later(
                async move { write(&*store, &namespace, &said, decode(NAME, message)?).await },
            )
        }
        "Delete" => Reply::later(async move {
            let ask: pb::DeleteRequest = decode(NAME, message)?;
            let options = ask.options.unwrap_or_default();
            let place = place(&namespace, &said, options.database, options.table)?;
            store.delete(place, key(ask.key)?).await.map_err(failure)?;
            Ok(pb::DeleteResponse {})
        }),
        "List" => {
            let keys =
                async move { list(&*store, &namespace, &said, decode(NAME, message)?).await };
            // One stream, or why there is none.
            Reply::Many(Box::pin(stream::once(keys).flat_map(|keys| match keys {
                Ok(keys) => batches(keys).map(Ok).boxed(),
                Err(failure) => stream::iter([Err(failure)]).boxed(),
            })))
        }
        "Databases" => Reply::later(async move {
            let mut databases = store.databases().await.map_err(failure)?;
            match namespace.as_str() {
                DEFAULT_NAMESPACE => databases.retain(|database| !database.ends_with('/')),
                tenant => {
                    databases.retain(|database| database.strip_suffix('/') == Some(tenant));
                    databases.iter_mut().for_each(|database| database.truncate(tenant.len()));
                }
            }
            Ok(pb::DatabasesResponse { databases })
        }),
        _ => Reply::later(async move {
            let ask: pb::TablesRequest = decode(NAME, message)?;
            let place = place(&namespace, &said, ask.database, String::new())?;
            let tables = store.tables(place.database).await.map_err(failure)?;
            Ok(pb::TablesResponse { tables })
        }),
    }
}

async fn read(
    store: &dyn Store,
    namespace: &str,
    said: &Said,
    ask: pb::ReadRequest,
) -> Result<pb::ReadResponse, Failure> {
    let options = ask.options.unwrap_or_default();
    let place = place(namespace, said, options.database, options.table)?;
    let found = if options.prefix || options.suffix {
        let part = |wanted: bool| if wanted { ask.key.clone() } else { String::new() };
        let find = Find {
            prefix: part(options.prefix),
            suffix: part(options.suffix),
            offset: options.offset,
            limit: options.limit,
            descending: descending(&options.order)?,
        };
        store.find(place, find).await.map_err(failure)?
    } else {
        let key = key(ask.key)?;
        let found = store.get(place, key.clone()).await.map_err(failure)?;
        let missing = || Failure::new(NAME, Kind::NotFound, format!("{key:?} is not in the store"));
        vec![found.ok_or_else(missing)?]
    };
    Ok(pb::ReadResponse { records: found.into_iter().map(shown).collect() })
}

async fn write(
    store: &dyn Store,
    namespace: &str,
    said: &Said,
    ask: pb::WriteRequest,
) -> Result<pb::WriteResponse, Failure> {
    let options = ask.options.unwrap_or_default();
    let place = place(namespace, said, options.database, options.table)?;
    let record = ask.record.ok_or_else(|| bad("there is no record to write"))?;
    let size = record.encoded_len();
    if size > MAX_RECORD {
        let why = format!("a record has at most {MAX_RECORD} bytes, and this one has {size}");
        return Err(Failure::new(NAME, Kind::TooLarge, why));
    }
    let lasts = (record.expiry > 0)
        .then(|| Duration::from_secs(record.expiry.min(MAX_EXPIRY).unsigned_abs()));
    let metadata = record.metadata.into_iter();
    let metadata = metadata.map(|(name, field)| (name, (field.r#type, field.value))).collect();
    let record = Record { key: key(record.key)?, value: record.value, lasts, metadata };
    store.put(place, record).await.map_err(failure)?;
    Ok(pb::WriteResponse {})
}

async fn list(
    store: &dyn Store,
    namespace: &str,
    said: &Said,
    ask: pb::ListRequest,
) -> Result<Vec<String>, Failure> {
    let options = ask.options.unwrap_or_default();
    let place = place(namespace, said, options.database, options.table)?;
    let find = Find {
        descending: descending(&options.order)?,
        prefix: options.prefix,
        suffix: options.suffix,
        offset: options.offset,
        limit: options.limit,
    };
    store.keys(place, find).await.map_err(failure)
}

/// The keys as messages; one at least, for go-micro v2 waits for one.
fn batches(keys: Vec<String>) -> impl stream::Stream<Item = Bytes> + Send {
    let mut keys = keys.into_iter().peekable();
    let mut begun = false;
    stream::iter(std::iter::from_fn(move || {
        if std::mem::replace(&mut begun, true) && keys.peek().is_none() {
            return None;
        }
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while bytes < BATCH
            && let Some(key) = keys.next()
        {
            bytes += key.len();
            batch.push(key);
        }
        Some(pb::ListResponse { keys: batch }.encode_to_vec().into())
    }))
}

fn shown(record: Record) -> pb::Record {
    let metadata = record.metadata.into_iter();
    let field = |(r#type, value)| pb::Field { r#type, value };
    pb::Record {
        key: record.key,
        value: record.value,
        // What still lasts a moment does not last for ever.
        expiry: record.lasts.map_or(0, |lasts| i64::try_from(lasts.as_secs().max(1)).unwrap_or(0)),
        metadata: metadata.map(|(name, said)| (name, field(said))).collect(),
    }
}

fn place(namespace: &str, said: &Said, database: String, table: String) -> Result<Place, Failure> {
    let or = |said: &str, asked: String| match (said, asked.as_str()) {
        ("", "") => USUAL.to_owned(),
        ("", _) => asked,
        (said, _) => said.to_owned(),
    };
    let database = match namespace {
        DEFAULT_NAMESPACE => or(&said.database, database),
        tenant => format!("{tenant}/"),
    };
    let table = or(&said.table, table);
    let is_name =
        |name: &str| name.len() <= MAX_NAME && !name.contains(|c: char| c.is_control() || c == '/');
    let tenant = database.strip_suffix('/').filter(|_| namespace != DEFAULT_NAMESPACE);
    if !is_name(tenant.unwrap_or(&database)) || !is_name(&table) {
        let why = format!("names of databases and tables have at most {MAX_NAME} bytes and no '/'");
        return Err(bad(&why));
    }
    Ok(Place { database, table })
}

fn key(key: String) -> Result<String, Failure> {
    if key.is_empty() || key.len() > MAX_KEY {
        return Err(bad(&format!("a key has 1 to {MAX_KEY} bytes")));
    }
    Ok(key)
}

fn descending(order: &str) -> Result<bool, Failure> {
    match order {
        "" | "asc" => Ok(false),
        "desc" => Ok(true),
        other => Err(bad(&format!("{other:?} is no order: asc, desc"))),
    }
}

fn bad(why: &str) -> Failure {
    Failure::new(NAME, Kind::BadRequest, why)
}

fn failure(error: StoreError) -> Failure {
    let kind = match error {
        StoreError::Full(_) => Kind::Full,
        StoreError::TooMuch(_) => Kind::TooLarge,
        StoreError::Busy => Kind::TooMany,
        StoreError::Failed(_) => Kind::Unavailable,
    };
    Failure::new(NAME, kind, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_has_its_own_database_whatever_it_names() {
        let none = Said::default();
        let at = |namespace: &str, said: &Said, database: &str, table: &str| {
            let place = place(namespace, said, database.into(), table.into());
            place.map(|place| (place.database, place.table)).ok()
        };
        let is = |database: &str, table: &str| Some((database.to_owned(), table.to_owned()));
        assert_eq!(at(DEFAULT_NAMESPACE, &none, "", ""), is("micro", "micro"));
        assert_eq!(at(DEFAULT_NAMESPACE, &none, "a", "b"), is("a", "b"));
        assert_eq!(at("pay", &none, "a", "b"), is("pay/", "b"));
        let said = Said { database: "x".into(), table: "y".into() };
        assert_eq!(at(DEFAULT_NAMESPACE, &said, "a", "b"), is("x", "y"));
        for bad in ["pay/", "a/b", "a\n", &"x".repeat(200)] {
            assert_eq!(at(DEFAULT_NAMESPACE, &none, bad, ""), None, "{bad:?}");
            assert_eq!(at("pay", &none, "", bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_list_is_one_message_at_least_and_none_is_too_long() {
        let batches = |keys: Vec<String>| -> Vec<usize> {
            let all: Vec<Bytes> =
                futures_util::FutureExt::now_or_never(batches(keys).collect()).unwrap();
            all.into_iter().map(|one| pb::ListResponse::decode(one).unwrap().keys.len()).collect()
        };
        assert_eq!(batches(Vec::new()), [0]);
        assert_eq!(batches(vec!["a".into(), "b".into()]), [2]);
        assert_eq!(batches(vec!["k".repeat(BATCH); 3]), [1, 1, 1]);
    }
}
