//! See `exocom_fuzz::headers`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: exocom_fuzz::plant("headers"),
    |data: &[u8]| exocom_fuzz::headers::check(data)
);
