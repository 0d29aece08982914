#![no_main]
//! The promises are those of `entra_fuzz::signing_key`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    entra_fuzz::signing_key::run(data);
});
