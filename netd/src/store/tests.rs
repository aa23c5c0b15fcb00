use super::*;

fn place(table: &str) -> Place {
    Place { database: "micro".into(), table: table.into() }
}

fn put(table: &mut Table, key: &str, value: &str) -> Result<(), StoreError> {
    write(table, key, value.to_owned().into(), None)
}

fn write(
    table: &mut Table,
    key: &str,
    value: bytes::Bytes,
    lasts: Option<Duration>,
) -> Result<(), StoreError> {
    let metadata = [("k".to_owned(), ("string".to_owned(), "v".to_owned()))].into();
    let record = Record { key: key.to_owned(), value, lasts, metadata };
    table.change(vec![Change::Put(place("t"), record)]).remove(0)
}

fn keys(table: &mut Table, find: Find) -> Vec<String> {
    table.keys(&place("t"), &find).unwrap()
}

#[test]
fn prefix_suffix_offset_limit_and_order_are_honoured() {
    let mut table = Table::new(Backing::Memory);
    assert_eq!(keys(&mut table, Find::default()), Vec::<String>::new(), "nothing was written yet");
    for key in ["a/1", "a/2", "a/3", "ab", "b/1", "\u{7ff}\u{10ffff}"] {
        put(&mut table, key, key).unwrap();
    }
    let mut find = |prefix: &str, suffix: &str, offset, limit, descending| {
        let (prefix, suffix) = (prefix.to_owned(), suffix.to_owned());
        keys(&mut table, Find { prefix, suffix, offset, limit, descending }).join(" ")
    };
    assert_eq!(find("a/", "", 0, 0, false), "a/1 a/2 a/3");
    assert_eq!(find("a/", "", 1, 1, false), "a/2");
    assert_eq!(find("a", "", 1, 2, true), "a/3 a/2");
    assert_eq!(find("", "1", 0, 0, false), "a/1 b/1");
    assert_eq!(find("a", "1", 0, 9, false), "a/1");
    assert_eq!(find("", "", 9, 0, false), "");
    assert_eq!(find("\u{7ff}\u{10ffff}", "", 0, 0, false), "\u{7ff}\u{10ffff}");
}

#[test]
fn tables_and_databases_are_apart_and_are_there_while_they_hold_something() {
    let mut table = Table::new(Backing::Memory);
    let at = |database: &str, table: &str| Place { database: database.into(), table: table.into() };
    let record = |key: &str| Record { key: key.into(), ..Record::default() };
    let all = [at("a", "x"), at("a", "y"), at("ab", "x"), at("pay/", "x")];
    for place in all.clone() {
        table.change(vec![Change::Put(place, record("k"))]).remove(0).unwrap();
    }
    assert_eq!(table.databases().unwrap(), ["a", "ab", "pay/"]);
    assert_eq!(table.tables("a").unwrap(), ["x", "y"]);
    assert_eq!(table.tables("none").unwrap(), Vec::<String>::new());
    let found = table.get(&all[0], "k").unwrap().unwrap();
    assert_eq!(found.key, "k");
    table.change(vec![Change::Delete(all[1].clone(), "k".into())]).remove(0).unwrap();
    table.change(vec![Change::Delete(all[1].clone(), "k".into())]).remove(0).unwrap();
    assert_eq!(table.tables("a").unwrap(), ["x"]);
}

#[test]
fn what_has_expired_is_not_shown_and_is_taken_away() {
    let mut table = Table::new(Backing::Memory);
    write(&mut table, "short", "1".into(), Some(Duration::ZERO)).unwrap();
    write(&mut table, "long", "2".into(), Some(Duration::from_secs(100))).unwrap();
    write(&mut table, "again", "3".into(), Some(Duration::ZERO)).unwrap();
    put(&mut table, "again", "4").unwrap();
    assert_eq!(table.get(&place("t"), "short").unwrap(), None);
    assert_eq!(keys(&mut table, Find::default()), ["again", "long"]);
    let long = table.get(&place("t"), "long").unwrap().unwrap();
    assert!(long.lasts.unwrap() > Duration::from_secs(90), "{long:?}");
    let count = |table: &mut Table| {
        use redb::ReadableTableMetadata as _;
        table.read(|records, _| Ok(records.len()?)).unwrap().unwrap()
    };
    assert_eq!(count(&mut table), 3);
    // The sweep takes what ended before this millisecond.
    let begun = now_ms();
    while now_ms() == begun {
        std::hint::spin_loop();
    }
    table.sweep();
    assert_eq!(count(&mut table), 2, "what was written anew stays");
}

#[test]
fn what_does_not_fit_is_refused_and_leaves_room_when_it_goes() {
    let mut table = Table::new(Backing::Memory);
    let large = bytes::Bytes::from(vec![b'x'; 1 << 20]);
    let mut written = 0;
    let refused = loop {
        match write(&mut table, &written.to_string(), large.clone(), None) {
            Ok(()) => written += 1,
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, StoreError::Full(_)), "{refused:?}");
    assert_eq!(written, 63);
    write(&mut table, "0", large.clone(), None).unwrap();
    let delete = Change::Delete(place("t"), "0".into());
    table.change(vec![delete]).remove(0).unwrap();
    write(&mut table, "new", large, None).unwrap();
    let all = table.find(&place("t"), &Find::default());
    assert_eq!(all, Err(StoreError::TooMuch(MAX_ANSWER)), "and an answer is bounded");
    let some = table.find(&place("t"), &Find { limit: 3, ..Find::default() }).unwrap();
    assert_eq!(some.len(), 3);
}

#[test]
fn what_was_written_is_there_when_it_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = Backing::File(dir.path().join("store"));
    let mut table = Table::new(file.clone());
    assert_eq!(table.get(&place("t"), "a").unwrap(), None);
    assert!(!table.exists(), "reading makes no file");
    put(&mut table, "a", "1").unwrap();
    drop(table);
    let mut again = Table::new(file.clone());
    let found = again.get(&place("t"), "a").unwrap().unwrap();
    assert_eq!((&found.value[..], found.metadata.len()), (&b"1"[..], 1));
    drop(again);
    std::fs::write(dir.path().join("store"), b"not a database").unwrap();
    let mut broken = Table::new(file);
    assert!(matches!(put(&mut broken, "a", "1"), Err(StoreError::Failed(_))));
}
