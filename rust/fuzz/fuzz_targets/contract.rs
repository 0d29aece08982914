#![no_main]
//! The promises are those of `entra_fuzz::contract`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    entra_fuzz::contract::run(data);
});
