#![no_main]
//! The promises are those of `entra_fuzz::claims_json`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    entra_fuzz::claims_json::run(data);
});
