//! Endpoint strings: what is understood is printed so that it is understood as the same.
#![no_main]

use combo::Endpoint;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|said: &str| {
    match said.parse::<Endpoint>() {
        Ok(endpoint) => assert_eq!(endpoint.to_string().parse(), Ok(endpoint)),
        Err(fault) => assert!(!fault.to_string().is_empty()),
    }
});
