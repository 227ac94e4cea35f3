//! See `exocom_fuzz::spiffe`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: exocom_fuzz::plant("spiffe"),
    |data: &[u8]| exocom_fuzz::spiffe::check(data)
);
