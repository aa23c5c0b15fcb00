//! Writing keys: `Put` registers an instance of this node, `DeleteRange` withdraws some.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use proto::ServiceName;
use proto::micro::etcd as pb;
use router::{Registration, Routes};
use tokio::time::Instant;
use tonic::Code;

use super::super::failure::Failure;
use super::super::registry::settle;
use super::keys::Span;
use super::range::key_value;
use super::refusals::{self, refused};
use super::state::{Offer, State};
use super::table::Entry;
use super::{Face, NAME};
use crate::registrar::RegistrarError;

/// Bytes of a value: more than any record holds.
const MAX_VALUE: usize = 512 << 10;
/// Keys that one request may withdraw.
const MAX_DELETES: usize = 1024;
/// Registrations of one request that are under way at a time.
const AT_ONCE: usize = 64;

/// Registers the instance that a value describes.
///
/// # Errors
/// For a key or value that is not go-micro's, a lease that is not there, and what the router refuses.
pub(super) async fn put(face: &Arc<Face>, ask: pb::PutRequest) -> Result<pb::PutResponse, Failure> {
    if ask.key.is_empty() {
        return Err(refusals::no_key());
    }
    let now = Instant::now();
    let (offer, ttl, before, revision) = {
        let state = face.now();
        let before = state.table.get(&ask.key).cloned();
        let revision = state.table.revision();
        let (value, lease) = wanted(&ask, before.as_ref())?;
        let ttl = match lease {
            0 => None,
            lease => Some(state.leases.get(lease).ok_or_else(refusals::no_lease)?.left(now)),
        };
        (Offer { registration: read(&ask.key, &value)?, value, lease }, ttl, before, revision)
    };
    let (key, registration) = (ask.key, offer.registration.clone());
    let noted = face.now().offer(&key, offer.clone());
    let noted =
        noted.map_err(|_| refused(Code::ResourceExhausted, "too many keys of this node"))?;
    let registered = face.config.registrar.register(Registration { ttl, ..registration }).await;
    if let Err(error) = registered {
        face.now().restore(&key, noted);
        return Err(of_registrar(&error));
    }
    let is_there = |routes: &Routes| is_offered(routes, &offer);
    settle(&face.config.routes, is_there).await;

    let mut state = face.now();
    let held = noted.map_or(0, |noted| noted.lease);
    state.leases.attach(&key, held, offer.lease);
    let is_told = |entry: &Entry| {
        entry.modified > revision && entry.value == offer.value && entry.lease == offer.lease
    };
    if let Some(entry) = state.table.get(&key)
        && !is_told(entry)
    {
        // The same instance as before: to etcd that is news all the same.
        let put = state.table.put(key.clone(), offer.value, offer.lease);
        put.map_err(|_| refused(Code::ResourceExhausted, "the table of keys is full"))?;
    }
    let header = face.moved(&mut state);
    let prev_kv = before.filter(|_| ask.prev_kv).map(|before| key_value(&key, &before));
    Ok(pb::PutResponse { header: Some(header), prev_kv })
}

/// The value and lease that a key is to have.
fn wanted(ask: &pb::PutRequest, before: Option<&Entry>) -> Result<(Bytes, i64), Failure> {
    if ask.ignore_value && !ask.value.is_empty() {
        return Err(refusals::value_given());
    }
    if ask.ignore_lease && ask.lease != 0 {
        return Err(refusals::lease_given());
    }
    let kept = || before.ok_or_else(refusals::key_not_found);
    let value = if ask.ignore_value { kept()?.value.clone() } else { ask.value.clone() };
    let lease = if ask.ignore_lease { kept()?.lease } else { ask.lease };
    if value.len() > MAX_VALUE {
        return Err(refusals::too_large());
    }
    Ok((value, lease))
}

/// What a key and its value register.
fn read(key: &[u8], value: &[u8]) -> Result<Registration, Failure> {
    super::read(key, value).map_err(|why| {
        let what = "only instances of services are kept here, as go-micro writes them under \
                    /micro/registry/SERVICE/ID";
        refused(Code::InvalidArgument, format!("{what}: {why}"))
    })
}

fn is_offered(routes: &Routes, offer: &Offer) -> bool {
    let service = routes.service(offer.registration.service.as_str());
    service.is_some_and(|of| of.instances.iter().any(|instance| offer.is(instance)))
}

fn of_registrar(error: &RegistrarError) -> Failure {
    let code = match error {
        RegistrarError::Refused(_) => Code::PermissionDenied,
        RegistrarError::NotFound => Code::NotFound,
        RegistrarError::Unavailable => Code::Unavailable,
        RegistrarError::TooMuch(_) => Code::InvalidArgument,
    };
    refused(code, error.to_string())
}

/// Withdraws the instances of a range, all of them or none.
///
/// # Errors
/// Where one of them is offered by another node, or there are more than [`MAX_DELETES`].
pub(super) async fn delete(
    face: &Arc<Face>,
    ask: pb::DeleteRangeRequest,
) -> Result<pb::DeleteRangeResponse, Failure> {
    if ask.key.is_empty() {
        return Err(refusals::no_key());
    }
    let span = Span::of(ask.key, ask.range_end);
    let (doomed, before) = {
        let state = face.now();
        let before: Vec<_> = state
            .table
            .range(&span)
            .take(MAX_DELETES + 1)
            .map(|(key, entry)| (key.clone(), entry.clone()))
            .collect();
        if before.len() > MAX_DELETES {
            let why = format!("one request withdraws at most {MAX_DELETES} keys; narrow the range");
            return Err(refused(Code::ResourceExhausted, why));
        }
        (ours(&state, before.iter().map(|(key, _)| key))?, before)
    };
    withdraw(face, doomed).await?;
    let mut state = face.now();
    state.forget(before.iter().map(|(key, _)| key.clone()));
    let header = face.moved(&mut state);
    let deleted = i64::try_from(before.len()).unwrap_or(i64::MAX);
    let prev_kvs = before.iter().filter(|_| ask.prev_kv);
    let prev_kvs = prev_kvs.map(|(key, entry)| key_value(key, entry)).collect();
    Ok(pb::DeleteRangeResponse { header: Some(header), deleted, prev_kvs })
}

fn ours<'a>(
    state: &State,
    keys: impl Iterator<Item = &'a Bytes>,
) -> Result<Vec<(ServiceName, String)>, Failure> {
    keys.map(|key| {
        state.ours(key).ok_or_else(|| {
            let key = String::from_utf8_lossy(key);
            let why = format!("{key} is offered by another node; withdraw it there");
            refused(Code::PermissionDenied, why)
        })
    })
    .collect()
}

/// Ends a lease and withdraws its keys.
///
/// # Errors
/// When there is no such lease.
pub(super) async fn revoke(
    face: &Arc<Face>,
    ask: pb::LeaseRevokeRequest,
) -> Result<pb::LeaseRevokeResponse, Failure> {
    let doomed: Vec<_> = {
        let mut state = face.now();
        let keys = state.leases.remove(ask.id).ok_or_else(refusals::no_lease)?;
        let doomed = keys.iter().filter_map(|key| state.ours(key)).collect();
        state.forget(keys);
        doomed
    };
    withdraw(face, doomed).await?;
    let header = face.moved(&mut face.now());
    Ok(pb::LeaseRevokeResponse { header: Some(header) })
}

/// Withdraws instances of this node, and waits until nobody is told of them any more.
async fn withdraw(face: &Face, doomed: Vec<(ServiceName, String)>) -> Result<(), Failure> {
    let each = stream::iter(doomed).map(|(service, id)| async move {
        let config = &face.config;
        match config.registrar.deregister(service.clone(), None, id.clone()).await {
            Ok(()) => {
                let is_gone =
                    |routes: &Routes| !super::super::registry::is_here(routes, &service, &id);
                settle(&config.routes, is_gone).await;
                Ok(())
            }
            // What is not there is withdrawn already.
            Err(RegistrarError::NotFound) => Ok(()),
            Err(error) => Err(of_registrar(&error)),
        }
    });
    let all: Vec<_> = each.buffer_unordered(AT_ONCE).collect().await;
    all.into_iter().collect()
}

/// Lets a lease begin again, and with it the registrations of its keys. Gives its seconds; 0 where
/// there is no such lease.
pub(super) async fn renew(face: &Face, id: i64) -> i64 {
    let (granted, whole, offers) = {
        let mut state = face.now();
        let Some(lease) = state.leases.renew(id, Instant::now()).cloned() else { return 0 };
        let offers = lease.keys.iter().filter_map(|key| state.offered(key));
        let offers: Vec<_> = offers.map(|offer| offer.registration.clone()).collect();
        (lease.granted, lease.whole(), offers)
    };
    let each = stream::iter(offers).map(|registration| again(face, registration, whole));
    each.buffer_unordered(AT_ONCE).collect::<()>().await;
    granted
}

async fn again(face: &Face, registration: Registration, ttl: Duration) {
    let registration = Registration { ttl: Some(ttl), ..registration };
    let service = registration.service.clone();
    if let Err(error) = face.config.registrar.register(registration).await {
        tracing::warn!(%service, %error, service_of = NAME, "a registration was not renewed");
    }
}
