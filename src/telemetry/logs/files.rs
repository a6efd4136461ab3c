//! Where the log files are, and how they are opened.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::config::{Config, DEFAULT_LOG_DIRECTORY, LogFiles};
use crate::private_dir::{PrivateDirError, account, open_shared};

/// Whoever shares our group may read; nobody else.
const MODE: u32 = 0o640;

/// The name under which the log files, the metrics and Loki know a workflow: that of the executable which mt replaces.
pub fn executable(workflow: &str) -> &str {
    match workflow {
        "ferry-refresh" => "refresh-uids-from-ferry",
        other => other,
    }
}

/// The files of an executable: as configured, else in [`DEFAULT_LOG_DIRECTORY`]. An entry that names only one of the two
/// means only that one.
pub fn configured(config: &Config, executable: &str) -> LogFiles {
    let default = || {
        let directory = Path::new(DEFAULT_LOG_DIRECTORY);
        LogFiles {
            logfile: Some(directory.join(format!("{executable}.log"))),
            debugfile: Some(directory.join(format!("{executable}.debug.log"))),
        }
    };
    config.logs.get(&executable.to_lowercase()).cloned().unwrap_or_else(default)
}

/// Opens the file to write at its end, and makes it with mode 0640 if it is not there. Never through a link. Never waits.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let options = |new: bool| {
        let mut options = OpenOptions::new();
        // Not blocking: the other end of a FIFO may never come.
        let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;
        options.append(true).create_new(new).mode(MODE).custom_flags(flags);
        options
    };
    if let Some(directory) = path.parent().filter(|_| path != Path::new("/dev/null")) {
        // Where everybody can swap the file, somebody else reads or forges what we say.
        open_shared(directory).map_err(|error| match error {
            PrivateDirError::Io { source, .. } => source,
            PrivateDirError::Refused { .. } => io::Error::other(error.to_string()),
        })?;
    }
    match options(true).open(path) {
        Ok(file) => {
            // Our umask lets nobody else in.
            file.set_permissions(Permissions::from_mode(MODE))?;
            return Ok(file);
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let file = options(false).open(path).map_err(|error| match error.raw_os_error() {
        Some(libc::ELOOP) => io::Error::other("it is a link"),
        _ => error,
    })?;
    let about = file.metadata()?;
    let kind = about.file_type();
    let own = nix::unistd::geteuid().as_raw();
    if kind.is_file() && about.uid() != own && about.uid() != 0 {
        let owner = account(about.uid());
        return Err(io::Error::other(format!(
            "it belongs to {owner}, who could change it: find out why, then remove it"
        )));
    }
    if kind.is_file() || kind.is_char_device() && path == Path::new("/dev/null") {
        Ok(file)
    } else {
        Err(io::Error::other("it is no regular file"))
    }
}

/// Files that could not be opened, in words for people.
pub(super) fn complaint(failed: &[(PathBuf, io::Error)]) -> String {
    let each: Vec<_> = failed.iter().map(|(path, why)| format!("{}: {why}", path.display())).collect();
    format!("the log cannot be written; the work goes on: {}", each.join("; "))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_new_file_has_mode_0640_whatever_the_umask_and_an_old_one_is_added_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mt.log");
        open(&path).unwrap().write_all(b"one\n").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
        // As logrotate's `create` may make it.
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        open(&path).unwrap().write_all(b"two\n").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600, "an administrator's choice stays");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn a_link_a_directory_and_a_fifo_are_refused_and_dev_null_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        std::fs::write(&victim, "").unwrap();
        let link = dir.path().join("link");
        symlink(&victim, &link).unwrap();
        assert_eq!(open(&link).unwrap_err().to_string(), "it is a link");
        symlink(dir.path().join("nowhere"), dir.path().join("dangling")).unwrap();
        open(&dir.path().join("dangling")).unwrap_err();
        assert!(!dir.path().join("nowhere").exists());
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        open(&fifo).unwrap_err();
        open(dir.path()).unwrap_err();
        open(&dir.path().join("no/such/directory")).unwrap_err();
        open(Path::new("/dev/null")).unwrap();
    }
}
