//! See `exocom_fuzz::config`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: exocom_fuzz::plant("config"),
    |data: &[u8]| exocom_fuzz::config::check(data)
);
