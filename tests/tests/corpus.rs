//! Replays the kept corpus of the fuzzer, and random bytes, through everything that takes bytes of
//! strangers. The fuzzer itself is `tests/fuzz/run`.

#[path = "../fuzz/src/targets/mod.rs"]
mod targets;

use std::path::Path;

#[test]
fn what_was_found_once_is_not_found_again() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, target) in targets::ALL {
        let mut kept = 0;
        for entry in std::fs::read_dir(corpus.join(name)).expect("each target has a corpus") {
            let path = entry.expect("the corpus can be listed").path();
            println!("{}", path.display());
            target(&std::fs::read(path).expect("it can be read"));
            kept += 1;
        }
        assert!(kept > 0, "the corpus of {name} is empty");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(1_500))]

    #[test]
    fn any_story_is_lived_through(story in proptest::collection::vec(proptest::num::u8::ANY, 0..600)) {
        targets::feed("router", &story);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        for (name, target) in targets::ALL {
            if name != "router" {
                target(&bytes);
            }
        }
    }
}
