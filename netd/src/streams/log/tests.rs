use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;

use super::*;

const WIDE: Bounds = Bounds { age: None, bytes: 1 << 30 };

fn entry(payload: &[u8]) -> Entry {
    Entry {
        topic: Topic::new("orders.new").unwrap(),
        headers: Headers::default(),
        payload: Bytes::copy_from_slice(payload),
    }
}

fn fill(log: &mut Log, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        let stored = log.append(vec![entry(number.to_string().as_bytes())], number).unwrap();
        assert_eq!(stored, number);
    }
}

fn payloads(log: &mut Log, from: u64) -> Vec<String> {
    let mut all = Vec::new();
    let mut from = from;
    loop {
        let records = log.read(from, 3, 1 << 20).unwrap();
        let Some(last) = records.last() else { return all };
        from = last.number + 1;
        all.extend(records.iter().map(|one| String::from_utf8(one.payload.to_vec()).unwrap()));
    }
}

fn texts(numbers: impl Iterator<Item = u64>) -> Vec<String> {
    numbers.map(|number| number.to_string()).collect()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}

/// Changes one byte of a file.
fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

#[test]
fn what_was_stored_is_there_when_it_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path(), WIDE).unwrap();
    assert_eq!((log.numbers(), log.bytes()), ((1, 0), 0));
    fill(&mut log, 1..=10);
    let bytes = log.bytes();
    drop(log);
    let mut log = Log::open(dir.path(), WIDE).unwrap();
    assert_eq!((log.numbers(), log.bytes()), ((1, 10), bytes));
    assert_eq!(payloads(&mut log, 0), texts(1..=10));
    assert_eq!(payloads(&mut log, 8), texts(8..=10));
    assert!(payloads(&mut log, 11).is_empty() && log.take_damage().is_empty());
    fill(&mut log, 11..=12);
    assert_eq!(payloads(&mut log, 10), texts(10..=12));
    let (since, after) = (log.since(5).unwrap(), log.since(99).unwrap());
    assert_eq!((since, after), (5, 13));
}

#[test]
fn several_are_stored_at_once_and_the_clock_does_not_go_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path(), WIDE).unwrap();
    assert_eq!(log.append(vec![entry(b"1"), entry(b"2")], 50).unwrap(), 1);
    assert_eq!(log.append(vec![entry(b"3")], 40).unwrap(), 3);
    let times: Vec<u64> = log.read(1, 9, 1 << 20).unwrap().iter().map(|one| one.time).collect();
    assert_eq!(times, [50, 50, 50]);
    drop(log);
    let mut log = Log::open(dir.path(), WIDE).unwrap();
    log.append(vec![entry(b"4")], 10).unwrap();
    assert_eq!(log.read(4, 1, 0).unwrap()[0].time, 50);
}

#[test]
fn a_writer_that_was_stopped_at_any_byte_loses_only_what_it_was_at() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path(), WIDE).unwrap();
    fill(&mut log, 1..=2);
    drop(log);
    let path = files(dir.path()).remove(0);
    let whole = std::fs::read(&path).unwrap();
    let size = (whole.len() - HEADER) / 2;
    for length in 0..whole.len() {
        std::fs::write(&path, &whole[..length]).unwrap();
        let mut log = Log::open(dir.path(), WIDE).unwrap();
        let left = (length.saturating_sub(HEADER) / size) as u64;
        assert_eq!(log.numbers(), (1, left), "{length}");
        fill(&mut log, left + 1..=3);
        assert_eq!(payloads(&mut log, 1), texts(1..=3));
        assert!(log.take_damage().is_empty());
    }
}

#[test]
fn a_bit_that_flips_costs_the_messages_it_is_in_and_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path(), WIDE).unwrap();
    fill(&mut log, 1..=4);
    drop(log);
    let path = files(dir.path()).remove(0);
    let whole = std::fs::read(&path).unwrap();
    let size = (whole.len() - HEADER) / 4;
    for at in HEADER + size..HEADER + 3 * size {
        std::fs::write(&path, &whole).unwrap();
        flip(&path, at as u64);
        let mut log = Log::open(dir.path(), WIDE).unwrap();
        let lost = 2 + ((at - HEADER - size) / size) as u64;
        assert_eq!(payloads(&mut log, 1), texts((1..=4).filter(|&number| number != lost)));
        let damage: Vec<_> = log.take_damage().iter().map(|damage| damage.lost).collect();
        assert_eq!(damage, [(lost, lost)], "{at}");
        assert_eq!(log.append(vec![entry(b"5")], 0).unwrap(), 5);
    }
}

#[test]
fn what_is_damaged_while_it_is_open_is_reported_when_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path(), WIDE).unwrap();
    fill(&mut log, 1..=3);
    let path = files(dir.path()).remove(0);
    let size = (std::fs::metadata(&path).unwrap().len() - HEADER as u64) / 3;
    flip(&path, HEADER as u64 + size + 20);
    assert_eq!(payloads(&mut log, 1), ["1", "3"]);
    assert_eq!(log.take_damage().len(), 1);
    assert_eq!(payloads(&mut log, 2), ["3"]);
    assert!(log.take_damage().is_empty(), "it is told once");
}

/// Messages of 64 KiB, four of which fill a file.
fn long(log: &mut Log, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        let mut payload = number.to_string().into_bytes();
        payload.resize(64 * 1024, b' ');
        assert_eq!(log.append(vec![entry(&payload)], number).unwrap(), number);
    }
}

fn numbers(log: &mut Log, from: u64) -> Vec<u64> {
    payloads(log, from).iter().map(|text| text.trim().parse().unwrap()).collect()
}

#[test]
fn many_files_are_one_log() {
    let bounds = Bounds { age: None, bytes: 4 << 20 };
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path(), bounds).unwrap();
    long(&mut log, 1..=40);
    assert!(files(dir.path()).len() >= 10);
    assert_eq!(numbers(&mut log, 1), (1..=40).collect::<Vec<_>>());
    drop(log);
    let mut log = Log::open(dir.path(), bounds).unwrap();
    assert_eq!(log.since(17).unwrap(), 17);
    assert_eq!(numbers(&mut log, 1), (1..=40).collect::<Vec<_>>());
    assert!(log.take_damage().is_empty());
}

#[test]
fn a_file_that_is_gone_or_short_costs_its_messages_alone() {
    let bounds = Bounds { age: None, bytes: 4 << 20 };
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path(), bounds).unwrap();
    long(&mut log, 1..=12);
    drop(log);
    let all = files(dir.path());
    let per_file = segment::first_of(&all[1]).unwrap() - 1;
    OpenOptions::new().write(true).open(&all[1]).unwrap().set_len(70 * 1024).unwrap();
    let mut log = Log::open(dir.path(), bounds).unwrap();
    let kept = numbers(&mut log, 1);
    let lost = per_file + 2..=2 * per_file;
    assert_eq!(kept, (1..=12).filter(|number| !lost.contains(number)).collect::<Vec<_>>());
    let damage: Vec<_> = log.take_damage().iter().map(|damage| damage.lost).collect();
    assert_eq!(damage, [(*lost.start(), *lost.end())]);
}

#[test]
fn the_oldest_gives_way_by_size_and_by_age() {
    let dir = tempfile::tempdir().unwrap();
    let bounds = Bounds { age: None, bytes: 1 << 20 };
    let mut log = Log::open(dir.path(), bounds).unwrap();
    for number in 1..=100 {
        long(&mut log, number..=number);
        log.trim(number).unwrap();
        assert!(log.bytes() <= bounds.bytes);
    }
    let (first, last) = log.numbers();
    assert_eq!((last, last - first + 1), (100, 15), "records are a little longer than 64 KiB");
    assert_eq!(numbers(&mut log, 0), (first..=100).collect::<Vec<_>>());
    drop(log);

    let bounds = Bounds { age: Some(Duration::from_micros(3)), bytes: 1 << 20 };
    let mut log = Log::open(dir.path(), bounds).unwrap();
    let before = log.numbers().0;
    assert_eq!(log.trim(101).unwrap(), 98 - before);
    assert_eq!(numbers(&mut log, 0), [98, 99, 100]);
    log.trim(1000).unwrap();
    assert_eq!((log.numbers(), log.bytes()), ((101, 100), 0));
    assert_eq!(files(dir.path()).len(), 1);
    drop(log);
    let mut log = Log::open(dir.path(), bounds).unwrap();
    assert_eq!(log.numbers(), (101, 100), "numbers are not given again");
    fill(&mut log, 101..=101);
    assert_eq!(log.purge().unwrap(), 1);
    assert_eq!((log.numbers(), log.bytes()), ((102, 101), 0));
}
