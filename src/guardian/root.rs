//! Not as root.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use super::ROOT_REFUSED;
use crate::private_dir::account;
use crate::workflow::code::Code;

/// Somebody ran `mt` as root.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("refusing to run as root: {why}: runuser -u {account} -- mt …", why = match known {
    true => format!("run as {account}, who owns {}", state_dir.display()),
    false => format!("run as the account that is to own {}", state_dir.display()),
})]
pub struct RootRefused {
    /// The state directory.
    pub state_dir: PathBuf,
    /// Its owner, or `ACCOUNT` when it does not exist yet or is root's.
    pub account: String,
    known: bool,
}

impl RootRefused {
    /// What `mt explain` knows about it.
    pub fn code(&self) -> Code {
        ROOT_REFUSED
    }
}

/// For every command that opens the store or touches tokens: an error that names the right account if we are root.
pub fn refuse_root(state_dir: &Path) -> Result<(), RootRefused> {
    refuse(geteuid().as_raw(), state_dir)
}

fn refuse(uid: u32, state_dir: &Path) -> Result<(), RootRefused> {
    if uid != 0 {
        return Ok(());
    }
    let owner = std::fs::metadata(state_dir).ok().map(|meta| meta.uid()).filter(|owner| *owner != 0);
    Err(RootRefused {
        state_dir: state_dir.to_owned(),
        account: owner.map_or_else(|| "ACCOUNT".to_owned(), account),
        known: owner.is_some(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_refused_and_told_as_whom_to_run() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        let text = refuse(0, &missing).unwrap_err().to_string();
        assert!(text.ends_with("runuser -u ACCOUNT -- mt …"), "{text}");
        if geteuid().is_root() {
            std::os::unix::fs::chown(dir.path(), Some(65534), None).unwrap();
            let text = refuse(0, dir.path()).unwrap_err().to_string();
            assert!(text.contains("runuser -u nobody -- mt …"), "{text}");
        }
    }

    #[test]
    fn anybody_else_is_welcome() {
        assert_eq!(refuse(1000, Path::new("/")), Ok(()));
    }
}
