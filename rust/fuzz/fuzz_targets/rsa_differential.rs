#![no_main]
//! The promises are those of `entra_fuzz::rsa_differential`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    entra_fuzz::rsa_differential::run(data);
});
