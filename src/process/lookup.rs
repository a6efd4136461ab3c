//! Finds a program in the PATH of the child to be.
//!
//! We do it ourselves for two reasons: the child has another PATH than we, which would make the standard library fork for
//! real instead of spawning (ten times the cost); and an error can say what is missing: the program, its interpreter, or
//! the working directory.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

/// Where to look when the child's environment has no PATH.
const DEFAULT_PATH: &str = "/usr/bin:/bin";

/// The program's path. A name with a slash in it is one already.
pub(super) fn find(program: &OsStr, path: Option<&OsStr>) -> io::Result<PathBuf> {
    if program.as_bytes().contains(&b'/') {
        return Ok(PathBuf::from(program));
    }
    let path = path.unwrap_or(OsStr::new(DEFAULT_PATH));
    let mut forbidden = None;
    if !program.is_empty() {
        // Empty and relative entries mean the working directory, where anybody might have put something.
        for directory in std::env::split_paths(path).filter(|directory| directory.is_absolute()) {
            let candidate = directory.join(program);
            if candidate.is_file() {
                match access(&candidate, AccessFlags::X_OK) {
                    Ok(()) => return Ok(candidate),
                    Err(_) => forbidden = forbidden.or(Some(candidate)),
                }
            }
        }
    }
    Err(match forbidden {
        Some(file) => {
            let why = format!("{} is not executable for us", file.display());
            io::Error::new(io::ErrorKind::PermissionDenied, why)
        }
        None => io::Error::new(io::ErrorKind::NotFound, format!("no such program in {}", path.to_string_lossy())),
    })
}

/// Says what it was that the system did not find.
pub(super) fn explain(error: io::Error, program: &Path, directory: &Path) -> io::Error {
    if error.kind() != io::ErrorKind::NotFound {
        return error;
    }
    let why = if !directory.is_dir() {
        format!("its working directory {} does not exist", directory.display())
    } else if program.exists() {
        format!("{} is there, but not the interpreter that it asks for", program.display())
    } else {
        "no such file".to_owned()
    };
    io::Error::new(io::ErrorKind::NotFound, why)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_first_executable_in_the_childs_path_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, mode| {
            let path = dir.path().join(name).join("prog");
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let (plain, first) = (file("a", 0o644), file("b", 0o755));
        file("c", 0o755);
        let search = std::env::join_paths(["a", "b", "c"].map(|name| dir.path().join(name))).unwrap();
        assert_eq!(find(OsStr::new("prog"), Some(&search)).unwrap(), first);
        let error = find(OsStr::new("prog"), Some(plain.parent().unwrap().as_os_str())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("is not executable"), "{error}");
    }

    #[test]
    fn a_missing_program_is_named_with_the_path_searched() {
        let error = find(OsStr::new("no-such-program"), Some(OsStr::new("/usr/bin:.:"))).unwrap_err();
        assert_eq!(error.to_string(), "no such program in /usr/bin:.:");
        assert!(find(OsStr::new("sh"), None).is_ok());
        assert!(find(OsStr::new(""), None).is_err());
    }
}
