//! See `exocom_fuzz::decoder`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: exocom_fuzz::plant("decoder"),
    |data: &[u8]| exocom_fuzz::decoder::check(data)
);
