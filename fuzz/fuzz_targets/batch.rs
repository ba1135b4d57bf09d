#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sekisho_fuzz::batch::run(input));
