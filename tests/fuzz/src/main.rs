//! The fuzzer: feeds the target that `MICRO_FUZZ` names.
#![no_main]

mod targets;

use std::sync::OnceLock;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    static NAME: OnceLock<String> = OnceLock::new();
    let name = NAME.get_or_init(|| std::env::var("MICRO_FUZZ").expect("MICRO_FUZZ names a target"));
    targets::feed(name, input);
});
