//! How a value lies in the store: one version byte, then JSON.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::StoreError;
use super::keys::Tree;

/// The version this `mt` writes.
pub(super) const RECORD_VERSION: u8 = 1;

pub(super) fn encode<T: Serialize>(tree: Tree, key: &str, value: &T) -> Result<Vec<u8>, StoreError> {
    let mut bytes = vec![RECORD_VERSION];
    serde_json::to_writer(&mut bytes, value)
        .map_err(|e| StoreError::Unstorable { what: format!("{tree}/{key}"), why: e.to_string() })?;
    Ok(bytes)
}

/// Reads a record. One of a newer version is read if it can be.
pub(super) fn decode<T: DeserializeOwned>(store: &Path, tree: Tree, key: &[u8], bytes: &[u8]) -> Result<T, StoreError> {
    let name = || format!("{tree}/{}", String::from_utf8_lossy(key));
    let Some((&version, json)) = bytes.split_first() else {
        return Err(StoreError::damaged(store, format!("record {} is empty", name())));
    };
    match serde_json::from_slice(json) {
        Ok(value) => Ok(value),
        Err(e) if version > RECORD_VERSION => Err(StoreError::Newer {
            doing: "read",
            path: store.to_owned(),
            what: format!("record {} has version {version}, this mt knows {RECORD_VERSION} ({e})", name()),
        }),
        Err(e) => Err(StoreError::damaged(store, format!("record {} cannot be read: {e}", name()))),
    }
}

/// A record of any content is read or refused; what is read is itself when it was written and read again: for what
/// tries hostile records.
pub(crate) fn try_record<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    let read = |bytes: &[u8]| decode::<T>(Path::new("/state/store"), Tree::Runs, b"key", bytes);
    match read(bytes) {
        Err(error) => assert!(!error.to_string().is_empty(), "refused without a reason"),
        Ok(value) => {
            let written = encode(Tree::Runs, "key", &value).expect("what was read can be written");
            let again = read(&written).expect("what was written can be read");
            let again = encode(Tree::Runs, "key", &again).expect("what was read can be written");
            assert_eq!(written, again, "a record does not come back as it was");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::workflow::status::MachineStatus;

    fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreError> {
        decode(Path::new("/s"), Tree::Runs, b"k", bytes)
    }

    #[test]
    fn a_tally_by_status_comes_back_as_it_was() {
        let tally: BTreeMap<MachineStatus, u32> =
            MachineStatus::ALL.iter().zip(1..).map(|(status, n)| (*status, n)).collect();
        let bytes = encode(Tree::Runs, "k", &tally).unwrap();
        assert_eq!(read::<BTreeMap<MachineStatus, u32>>(&bytes).unwrap(), tally);
    }

    #[test]
    fn a_newer_record_is_read_if_it_can_be_and_called_newer_if_not() {
        assert_eq!(read::<u32>(b"\x0242").unwrap(), 42);
        assert!(matches!(read::<u32>(b"\x02{}"), Err(StoreError::Newer { .. })));
        assert!(matches!(read::<u32>(b"\x01{}"), Err(StoreError::Damaged { .. })));
        assert!(matches!(read::<u32>(b""), Err(StoreError::Damaged { .. })));
    }
}
