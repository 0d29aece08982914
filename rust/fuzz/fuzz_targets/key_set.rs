#![no_main]
//! The promises are those of `entra_fuzz::key_set`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    entra_fuzz::key_set::run(data);
});
