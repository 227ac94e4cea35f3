//! See `exocom_fuzz::policy`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: exocom_fuzz::plant("policy"),
    |data: &[u8]| exocom_fuzz::policy::check(data)
);
