//! Files that others made for us: configuration, workflows, templates, keytabs, certificates, passwords.
//!
//! Opening one never waits (a FIFO's other end may never come), reading one never takes more than a bound, and one that
//! somebody else could have put there or could change is refused: what is read here decides which programs run and where
//! tokens go. Links of our own or of root are followed, since sites have them; those of anybody else are not.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, geteuid};

use super::store::name_of;

/// No bundle of certificates has more bytes: they have some hundred KiB.
pub const MOST_CERTIFICATES: u64 = 4 << 20;
/// Links behind links end somewhere.
const MOST_LINKS: usize = 40;

/// Opens a file for reading, if it can be trusted: a regular file of ours or of root's, which not everybody may write to, in a
/// directory where not everybody can swap it, reached by no link of somebody else. Root, who only looks, may look at
/// anybody's. Never waits.
///
/// # Errors
/// What the system says, or [`io::ErrorKind::PermissionDenied`] with what is wrong and the way out. The path is not in the
/// text: who calls names it.
pub fn open(path: &Path) -> io::Result<File> {
    check_way(path)?;
    let file = open_regular(path)?;
    // What was opened is what is looked at, whatever the name means by now.
    let about = file.metadata()?;
    let own = geteuid();
    if !own.is_root() && about.uid() != own.as_raw() && about.uid() != 0 {
        let (owner, us) = (name_of(Uid::from_raw(about.uid())), name_of(own));
        return Err(refused(format!("it belongs to {owner}, who could change it: chown {us} it, or chown root it")));
    }
    if about.is_file() && about.mode() & 0o002 != 0 {
        return Err(refused(format!("everybody may write to it (mode {:04o}): chmod o-w it", about.mode() & 0o7777)));
    }
    Ok(file)
}

/// Opens a regular file for reading, whosever it is. Never waits. For what is no secret and leads to nothing: certificates of
/// authorities, which come from all kinds of places.
fn open_regular(path: &Path) -> io::Result<File> {
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|error| {
        // A socket.
        if error.raw_os_error() == Some(libc::ENXIO) { refused("it is not a regular file") } else { error }
    })?;
    let about = file.metadata()?;
    if about.is_file() || is_null(&about) { Ok(file) } else { Err(refused("it is not a regular file")) }
}

/// Reads a regular file, whosever it is, up to this many bytes. Never waits.
///
/// # Errors
/// What the system says; [`io::ErrorKind::PermissionDenied`] if it is no regular file.
pub fn read_anybodys(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Opens a lock file of ours, and makes it with mode 0600 if it is not there. Never through a link, never waits.
///
/// # Errors
/// What the system says; [`io::ErrorKind::PermissionDenied`] with the way out if what is there is not a regular file of ours,
/// or others may write to it. The path is not in the text.
pub fn open_lock(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
    let file = options.open(path).or_else(|error| match error.raw_os_error() {
        Some(libc::ELOOP) => Err(refused("it is a symbolic link: find out whose, then remove it")),
        // A lock needs no right to write, and a store on a disk that has become read-only can still be read.
        Some(libc::EACCES | libc::EROFS) => {
            OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|_| error)
        }
        Some(_) | None => Err(error),
    })?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(refused("it is not a regular file: find out whose it is, then remove it"));
    }
    if about.uid() != geteuid().as_raw() {
        let owner = name_of(Uid::from_raw(about.uid()));
        return Err(refused(format!("it belongs to {owner}, not to us: find out why, then remove it")));
    }
    if about.mode() & 0o022 != 0 {
        return Err(refused(format!("others may write to it (mode {:04o}): chmod 600 it", about.mode() & 0o7777)));
    }
    Ok(file)
}

/// Reads such a file, if it is no longer than this.
///
/// # Errors
/// As [`open`]; [`io::ErrorKind::FileTooLarge`] if it is longer.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        let message = format!("it is larger than {} KiB: is it the right file?", most / 1024);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

/// Reads such a file as text.
///
/// # Errors
/// As [`read`]; [`io::ErrorKind::InvalidData`] with the first line that is not UTF-8.
pub fn read_text(path: &Path, most: u64) -> io::Result<String> {
    String::from_utf8(read(path, most)?).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        io::Error::new(io::ErrorKind::InvalidData, format!("line {line} is not UTF-8 text"))
    })
}

/// The last directory, and every link that the last name leads through.
fn check_way(path: &Path) -> io::Result<()> {
    let own = geteuid();
    let mut path: PathBuf = path.to_owned();
    for _ in 0..MOST_LINKS {
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            Some(_) | None => PathBuf::from("."),
        };
        let directory = std::fs::metadata(&parent)?;
        // The owner of a sticky directory, too, can swap what is in it; root's and our own are no danger.
        let trusted = own.is_root() || directory.uid() == own.as_raw() || directory.uid() == 0;
        if !trusted {
            let (owner, shown) = (name_of(Uid::from_raw(directory.uid())), parent.display());
            return Err(refused(format!(
                "its directory {shown} belongs to {owner}, who could swap it: move it elsewhere"
            )));
        }
        if directory.mode() & 0o1002 == 0o002 {
            let shown = parent.display();
            return Err(refused(format!(
                "everybody may write to its directory {shown} and swap it: chmod o-w {shown}"
            )));
        }
        let about = std::fs::symlink_metadata(&path)?;
        if !about.file_type().is_symlink() {
            return Ok(());
        }
        if about.uid() != own.as_raw() && about.uid() != 0 {
            let (owner, shown) = (name_of(Uid::from_raw(about.uid())), path.display());
            return Err(refused(format!("{shown} is a link of {owner}: find out why, then rm {shown}")));
        }
        path = parent.join(std::fs::read_link(&path)?);
    }
    Err(refused("it is a link to a link to a link without end"))
}

fn refused(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, what.into())
}

/// `/dev/null` is empty for everybody.
fn is_null(about: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;
    about.file_type().is_char_device() && about.rdev() == libc::makedev(1, 3)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    const MOST: u64 = 1024;

    fn why(path: &Path) -> String {
        read_text(path, MOST).unwrap_err().to_string()
    }

    #[test]
    fn a_file_of_ours_is_read_also_through_our_own_link() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "text").unwrap();
        symlink("file", dir.path().join("link")).unwrap();
        assert_eq!(read_text(&file, MOST).unwrap(), "text");
        assert_eq!(read_text(&dir.path().join("link"), MOST).unwrap(), "text");
        assert_eq!(read_text(Path::new("/dev/null"), MOST).unwrap(), "");
    }

    #[test]
    fn what_everybody_can_change_or_what_is_no_file_is_refused_and_nothing_waits() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "text").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o646)).unwrap();
        assert!(why(&file).contains("everybody may write to it (mode 0646)"), "{}", why(&file));
        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
        assert!(why(&file).contains("everybody may write to its directory"), "{}", why(&file));
        fs::set_permissions(dir.path(), Permissions::from_mode(0o1777)).unwrap();
        assert!(read(&file, MOST).is_ok(), "nobody can swap it in a sticky one");
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(why(&fifo).contains("not a regular file"));
        assert!(why(dir.path()).contains("not a regular file"));
        symlink("loop", dir.path().join("loop")).unwrap();
        assert!(why(&dir.path().join("loop")).contains("without end"));
    }

    #[test]
    fn what_is_too_long_or_no_text_is_refused_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, vec![b'a'; 1025]).unwrap();
        assert_eq!(read(&file, MOST).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        fs::write(&file, b"one\ntwo\xff").unwrap();
        assert_eq!(why(&file), "line 2 is not UTF-8 text");
    }

    #[test]
    fn a_link_of_somebody_else_is_not_followed() {
        if !geteuid().is_root() {
            eprintln!("SKIPPED: only root can give a link away");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "text").unwrap();
        symlink("file", dir.path().join("link")).unwrap();
        std::os::unix::fs::lchown(dir.path().join("link"), Some(65534), None).unwrap();
        assert!(why(&dir.path().join("link")).contains("is a link of"));
    }
}
