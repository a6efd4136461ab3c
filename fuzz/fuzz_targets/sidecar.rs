#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| managed_tokens::fuzzing::sidecar(data));
