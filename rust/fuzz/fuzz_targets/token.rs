#![no_main]
//! The promises are those of `entra_fuzz::token`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    entra_fuzz::token::run(data);
});
