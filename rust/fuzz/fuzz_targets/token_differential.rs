#![no_main]
//! The promises are those of `entra_fuzz::token_differential`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    entra_fuzz::token_differential::run(data);
});
