//! See `exocom_fuzz::certificate`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: exocom_fuzz::plant("certificate"),
    |data: &[u8]| exocom_fuzz::certificate::check(data)
);
