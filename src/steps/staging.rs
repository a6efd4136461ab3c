//! The files of one push, under the names they have on the node, in a directory that one rsync can send.

use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use super::world::{TokenSource, World};
use crate::config::Service;
use crate::private_dir;
use crate::token_file::{self, TokenFileError};
use crate::workflow::action::Class;

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

impl StagingError {
    /// Room may be made in a moment; nothing else goes away by itself.
    pub(super) fn class(&self) -> Class {
        let (Self::Token(TokenFileError::Io { source, .. })
        | Self::Directory(private_dir::PrivateDirError::Io { source, .. })) = self
        else {
            return Class::Permanent;
        };
        match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Class::Transient,
            _ => Class::Permanent,
        }
    }
}

impl Staging {
    /// Stages the token under its two names, and the default role file where its path will do. The text says why it
    /// will not.
    pub(super) fn make(
        world: &World,
        service: &Service,
        uid: u32,
        vault: Option<&str>,
        token: &TokenSource,
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
        let note = match role_path(service, uid, vault) {
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
            // What has a colon before its first slash would be a host's.
            let sources = files.into_iter().map(|file| Path::new(".").join(file)).collect();
            Operands { relative: true, sources, destination: "/".to_owned() }
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
        if let Err(error) = std::fs::remove_dir_all(&self.directory)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, directory = %self.directory.display(), "staged files stay in the private directory");
        }
    }
}

/// The default role file's path without the leading slash.
fn role_path(service: &Service, uid: u32, vault: Option<&str>) -> Result<PathBuf, String> {
    let path = service.default_role_file(uid, vault).map_err(|error| error.to_string())?;
    let below: PathBuf = Path::new(&path).components().skip(1).collect();
    let normal = below.components().all(|part| matches!(part, Component::Normal(_)));
    if normal && !path.ends_with('/') && below.file_name().is_some() {
        Ok(below)
    } else {
        Err(format!("{path:?} is not the path of a file"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::world::test_support::service;

    #[test]
    fn a_disk_that_is_full_is_worth_another_try_and_nothing_else_is() {
        let class = |errno: nix::errno::Errno| {
            let path = PathBuf::from("/state/run/push");
            let token = TokenFileError::Io { doing: "write", path: path.clone(), source: errno.into() };
            let directory = private_dir::PrivateDirError::Io { doing: "make", path, source: errno.into() };
            [StagingError::from(token).class(), StagingError::from(directory).class()]
        };
        assert_eq!(class(nix::errno::Errno::ENOSPC), [Class::Transient; 2]);
        assert_eq!(class(nix::errno::Errno::EDQUOT), [Class::Transient; 2]);
        assert_eq!(class(nix::errno::Errno::EACCES), [Class::Permanent; 2]);
    }

    #[test]
    fn the_default_role_files_path_is_the_filled_template_below_the_root() {
        let mut service = service("dune_production");
        let mut path = |template: &str| {
            service.default_role_file_template = template.to_owned();
            role_path(&service, 1234, None)
        };
        let expected = Ok(PathBuf::from("tmp/default_role_dune_1234"));
        assert_eq!(path("/tmp/default_role_{{.Experiment}}_{{.DesiredUID}}"), expected);
        for bad in ["tmp/x", "/tmp/../etc/x", "/tmp/$(id)", "/tmp/a b", "/tmp/{{.Nothing}}", "/", "/tmp/"] {
            assert!(path(bad).is_err(), "{bad}");
        }
    }
}
