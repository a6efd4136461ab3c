//! The files of one push, under the names they have on the node, in a directory that one rsync can send.

use std::path::{Component, Path, PathBuf};

use super::world::{TokenSource, World};
use crate::config::Service;
use crate::private_dir;
use crate::token_file::{self, TokenFileError};

/// Where vault tokens are looked for on a node.
const TOKENS: &str = "tmp";

/// A directory with the files of one push; removed when dropped.
pub(super) struct Staging {
    directory: PathBuf,
    files: Vec<PathBuf>,
    role: Option<PathBuf>,
}

/// The files cannot be staged.
#[derive(Debug, thiserror::Error)]
pub(super) enum StagingError {
    #[error("{0}")]
    Token(#[from] TokenFileError),
    #[error("{0}")]
    Directory(#[from] private_dir::PrivateDirError),
}

impl Staging {
    /// Stages the token under its two names, and the default role file (`role_file` is its path on the node, or why it
    /// has none) where its path will do. The text says why it will not.
    pub(super) fn make(
        world: &World,
        service: &Service,
        uid: u32,
        token: &TokenSource,
        role_file: Result<String, String>,
    ) -> Result<(Self, Option<String>), StagingError> {
        let mut staging = Self { directory: world.private_path("push"), files: Vec::new(), role: None };
        let directory = &staging.directory;
        private_dir::create(directory)?;
        private_dir::create(&directory.join(TOKENS))?;
        for name in [format!("vt_u{uid}"), format!("vt_u{uid}-{}", service.issuer_service)] {
            let path = Path::new(TOKENS).join(name);
            token_file::plant(&token.staged, &directory.join(&path))?;
            staging.files.push(path);
        }
        let note = match role_file.and_then(|path| relative(&path)) {
            Ok(path) if staging.files.contains(&path) => {
                Some(format!("no default role file: {} is the token's", path.display()))
            }
            Ok(path) => {
                let mut made = staging.directory.clone();
                for part in path.parent().into_iter().flat_map(Path::components) {
                    made.push(part);
                    private_dir::create(&made)?;
                }
                token_file::write_private(&staging.directory.join(&path), &format!("{}\n", service.role))?;
                staging.role = Some(path);
                None
            }
            Err(why) => Some(format!("no default role file: {why}")),
        };
        Ok((staging, note))
    }

    /// Where the paths are relative to.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The default role file's path, without the leading slash.
    pub(super) fn role(&self) -> Option<&Path> {
        self.role.as_deref()
    }

    /// What to send, and where to: file names for `/tmp/`, or paths relative to `/` where one lies elsewhere.
    pub(super) fn operands(&self, with_role: bool) -> Operands {
        let role = self.role.iter().filter(|_| with_role);
        let files: Vec<&PathBuf> = self.files.iter().chain(role).collect();
        if files.iter().all(|file| file.parent() == Some(Path::new(TOKENS))) {
            // Not relative: /tmp may be a link there, and rsync walks no links in relative paths.
            Operands {
                relative: false,
                sources: files.into_iter().cloned().collect(),
                destination: format!("/{TOKENS}/"),
            }
        } else {
            Operands { relative: true, sources: files.into_iter().cloned().collect(), destination: "/".to_owned() }
        }
    }
}

/// rsync's operands.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Operands {
    /// Are the sources' directories part of what is sent?
    pub relative: bool,
    /// Relative to the staging directory.
    pub sources: Vec<PathBuf>,
    /// On the node.
    pub destination: String,
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            if error.kind() != std::io::ErrorKind::NotFound {
                tracing::warn!(%error, directory = %self.directory.display(), "staged files stay in the private directory");
            }
        }
    }
}

/// The default role file's path without the leading slash, if a file can be there.
fn relative(path: &str) -> Result<PathBuf, String> {
    if !path.starts_with('/') || path.ends_with('/') {
        return Err(format!("{path:?} is not the absolute path of a file"));
    }
    let path: PathBuf = Path::new(path).components().skip(1).collect();
    let normal = path.components().all(|part| matches!(part, Component::Normal(_)));
    if normal && path.file_name().is_some() { Ok(path) } else { Err(format!("{} leads elsewhere", path.display())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_role_files_path_is_that_of_a_file() {
        assert_eq!(relative("/tmp/default_role_dune_1234"), Ok(PathBuf::from("tmp/default_role_dune_1234")));
        assert_eq!(relative("/srv/1234/role"), Ok(PathBuf::from("srv/1234/role")));
        for bad in ["tmp/x", "/tmp/../etc/x", "/", "/tmp/", ""] {
            assert!(relative(bad).is_err(), "{bad}");
        }
    }
}
