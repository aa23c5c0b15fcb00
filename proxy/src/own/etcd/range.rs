//! Reading keys: `Range`.

use bytes::Bytes;
use proto::micro::etcd as pb;
use proto::micro::etcd::range_request::{SortOrder, SortTarget};
use tonic::Code;

use super::super::failure::Failure;
use super::MAX_ANSWER;
use super::keys::Span;
use super::refusals;
use super::table::{Entry, Table};

/// Bytes that the numbers of one key take, at most.
const NUMBERS: usize = 64;

/// Answers a request from the table; the header is left to the caller.
///
/// # Errors
/// For a range that is none, a revision that is not kept, an answer beyond [`MAX_ANSWER`].
pub(super) fn range(table: &Table, ask: pb::RangeRequest) -> Result<pb::RangeResponse, Failure> {
    if ask.key.is_empty() {
        return Err(refusals::no_key());
    }
    let order = SortOrder::try_from(ask.sort_order).map_err(|_| refusals::bad_sort())?;
    let target = SortTarget::try_from(ask.sort_target).map_err(|_| refusals::bad_sort())?;
    if ask.revision > table.revision() {
        return Err(refusals::future());
    }
    let span = Span::of(ask.key.clone(), ask.range_end.clone());
    let found: Vec<(&Bytes, &Entry)> = match ask.revision {
        past if past > 0 && past < table.revision() => {
            if past < table.compacted() {
                return Err(refusals::compacted());
            }
            table.at(past, &span).into_iter().collect()
        }
        _ => table.range(&span).collect(),
    };
    let count = found.len();
    let mut answer =
        pb::RangeResponse { count: i64::try_from(count).unwrap_or(i64::MAX), ..Default::default() };
    if ask.count_only {
        return Ok(answer);
    }
    let mut found: Vec<_> = found.into_iter().filter(|(_, entry)| is_within(&ask, entry)).collect();
    sort(&mut found, order, target);
    if let Ok(limit) = usize::try_from(ask.limit)
        && limit > 0
        && found.len() > limit
    {
        found.truncate(limit);
        answer.more = true;
    }
    let mut bytes = 0;
    for (key, entry) in found {
        let value = if ask.keys_only { Bytes::new() } else { entry.value.clone() };
        bytes += key.len() + value.len() + NUMBERS;
        if bytes > MAX_ANSWER {
            let why = format!(
                "the answer is larger than {MAX_ANSWER} bytes, for {count} keys are in the range; \
                 ask with a limit, or for keys only"
            );
            return Err(refusals::refused(Code::ResourceExhausted, why));
        }
        answer.kvs.push(key_value(key, &Entry { value, ..entry.clone() }));
    }
    Ok(answer)
}

/// A key as it is sent.
pub(super) fn key_value(key: &Bytes, entry: &Entry) -> pb::KeyValue {
    pb::KeyValue {
        key: key.clone(),
        create_revision: entry.created,
        mod_revision: entry.modified,
        version: entry.version,
        value: entry.value.clone(),
        lease: entry.lease,
    }
}

fn is_within(ask: &pb::RangeRequest, entry: &Entry) -> bool {
    let within = |at: i64, least: i64, most: i64| at >= least && (most == 0 || at <= most);
    within(entry.modified, ask.min_mod_revision, ask.max_mod_revision)
        && within(entry.created, ask.min_create_revision, ask.max_create_revision)
}

/// Keys come in their order; a target without an order is meant to rise, as etcd has it.
fn sort(found: &mut [(&Bytes, &Entry)], order: SortOrder, target: SortTarget) {
    match target {
        SortTarget::Key => {}
        SortTarget::Version => found.sort_by_key(|(_, entry)| entry.version),
        SortTarget::Create => found.sort_by_key(|(_, entry)| entry.created),
        SortTarget::Mod => found.sort_by_key(|(_, entry)| entry.modified),
        SortTarget::Value => found.sort_by(|(_, a), (_, b)| a.value.cmp(&b.value)),
    }
    if order == SortOrder::Descend {
        found.reverse();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(10);
        for (key, value) in [("b", "1"), ("a", "3"), ("c", "2"), ("a", "4")] {
            table.put(key.into(), value.into(), 0).unwrap();
        }
        table
    }

    fn ask(key: &'static str, end: &'static str) -> pb::RangeRequest {
        pb::RangeRequest { key: key.into(), range_end: end.into(), ..Default::default() }
    }

    fn keys(ask: pb::RangeRequest) -> String {
        let answer = range(&table(), ask).unwrap();
        answer.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned()).collect()
    }

    #[test]
    fn absurd_ranges_hold_nothing_or_everything() {
        for (key, end, held) in [
            ("a", "", "a"),
            ("\0", "\0", "abc"),
            ("b", "\0", "bc"),
            ("c", "a", ""),
            ("a", "a", ""),
            ("z", "zz", ""),
            ("a", "\u{7f}", "abc"),
        ] {
            assert_eq!(keys(ask(key, end)), held, "{key:?} to {end:?}");
        }
        let refused = |ask| range(&table(), ask).unwrap_err();
        assert_eq!(refused(ask("", "")).code(), Code::InvalidArgument);
        assert_eq!(refused(ask("", "\0")).code(), Code::InvalidArgument);
        let sorted = pb::RangeRequest { sort_order: 9, ..ask("a", "") };
        assert_eq!(refused(sorted).message(), "etcdserver: invalid sort option");
        let negative = pb::RangeRequest { limit: -1, revision: -1, ..ask("\0", "\0") };
        assert_eq!(keys(negative), "abc");
    }

    #[test]
    fn order_limit_and_count_are_as_asked() {
        let all = || ask("\0", "\0");
        let by = |order, target| {
            keys(pb::RangeRequest { sort_order: order, sort_target: target, ..all() })
        };
        assert_eq!(
            (by(2, 0), by(0, 2), by(1, 4), by(2, 3)),
            ["cba", "bac", "bca", "acb"].map(String::from).into()
        );
        let answer = range(&table(), pb::RangeRequest { limit: 2, ..all() }).unwrap();
        assert_eq!((answer.kvs.len(), answer.more, answer.count), (2, true, 3));
        let answer = range(&table(), pb::RangeRequest { count_only: true, ..all() }).unwrap();
        assert_eq!((answer.kvs.len(), answer.count), (0, 3));
        let answer = range(&table(), pb::RangeRequest { keys_only: true, ..all() }).unwrap();
        assert!(answer.kvs.iter().all(|kv| kv.value.is_empty() && kv.version > 0));
        assert_eq!(keys(pb::RangeRequest { min_mod_revision: 13, ..all() }), "ac");
        assert_eq!(keys(pb::RangeRequest { max_create_revision: 12, ..all() }), "ab");
    }

    #[test]
    fn the_past_is_read_and_the_future_is_not() {
        let at = |revision| range(&table(), pb::RangeRequest { revision, ..ask("\0", "\0") });
        assert_eq!(at(12).unwrap().kvs.len(), 2);
        assert_eq!(at(13).unwrap().kvs[0].value, "3");
        assert_eq!(at(14).unwrap().kvs[0].value, "4");
        assert_eq!(at(15).unwrap_err().code(), Code::OutOfRange);
        assert!(at(9).unwrap_err().message().contains("compacted"));
    }
}
