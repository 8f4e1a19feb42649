//! state.json and init, as they are found on the disk.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tare_sandbox::store::{Init, Record};

fuzz_target!(|text: &[u8]| {
    if let Ok(record) = serde_json::from_slice::<Record>(text) {
        let again = serde_json::to_vec(&record).expect("a record can be written");
        assert_eq!(serde_json::from_slice::<Record>(&again).expect("and read"), record);
    }
    if let Some(init) = Init::parse(text) {
        assert_eq!(Init::parse(init.to_string().as_bytes()), Some(init));
    }
});
