//! See `exocom_fuzz::audit`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: exocom_fuzz::plant("audit"),
    |data: &[u8]| exocom_fuzz::audit::check(data)
);
