//! Which file is the configuration, and in which format it is.

use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::json;
use super::mistake::LoadError;
use super::node::{Node, SyntaxError};
use super::ron_text;
use super::yaml;

const NAMES: [&str; 4] = ["managedTokens.json", "managedTokens.yml", "managedTokens.yaml", "managedTokens.ron"];
/// Where the system's configuration is.
const SYSTEM_DIRECTORY: &str = "/etc/managed-tokens";

/// A format of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `.json`
    Json,
    /// `.yml`, `.yaml`
    Yaml,
    /// `.ron`
    Ron,
}

impl Format {
    /// As people call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "JSON",
            Self::Yaml => "YAML",
            Self::Ron => "RON",
        }
    }

    /// By the file's name.
    pub fn of(path: &Path) -> Result<Self, LoadError> {
        let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
        match extension.as_deref() {
            Some("json") => Ok(Self::Json),
            Some("yml" | "yaml") => Ok(Self::Yaml),
            Some("ron") => Ok(Self::Ron),
            Some(_) | None => Err(LoadError::UnknownFormat { path: path.to_owned() }),
        }
    }

    pub(super) fn parse(self, text: &str) -> Result<Node, SyntaxError> {
        // Editors of other systems put a byte order mark first.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        match self {
            Self::Json => json::parse(text),
            Self::Yaml => yaml::parse(text),
            Self::Ron => ron_text::parse(text),
        }
    }
}

/// The file to load: the one given, else `MT_CONFIG`, else the first that is there of `managedTokens.json`, `.yml`,
/// `.yaml` and `.ron` in /etc/managed-tokens, ~/.managed-tokens and the working directory, in this order.
pub fn find(given: Option<&Path>, env: &Environment) -> Result<PathBuf, LoadError> {
    find_in(Path::new(SYSTEM_DIRECTORY), given, env)
}

fn find_in(system: &Path, given: Option<&Path>, env: &Environment) -> Result<PathBuf, LoadError> {
    if let Some(named) = given.or_else(|| env.get("MT_CONFIG").map(Path::new)) {
        return Ok(env.absolute(named));
    }
    let home = env.get("HOME").map(|home| Path::new(home).join(".managed-tokens"));
    let directories = [Some(system.to_owned()), home, Some(env.absolute(Path::new("")))];
    let candidates = directories.into_iter().flatten().flat_map(|directory| NAMES.map(|name| directory.join(name)));
    let looked: Vec<_> = candidates.collect();
    // A file that is there and cannot be read is an error that says so; the next directory is no answer to it.
    match looked.iter().find(|path| path.symlink_metadata().is_ok()) {
        Some(found) => Ok(found.clone()),
        None => Err(LoadError::NotFound { looked }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_known_places_wins_and_a_named_file_wins_over_all() {
        let directory = tempfile::tempdir().unwrap();
        let (system, home, here) =
            (directory.path().join("etc"), directory.path().join("home"), directory.path().join("here"));
        for path in [&system, &home.join(".managed-tokens"), &here] {
            std::fs::create_dir_all(path).unwrap();
        }
        let env = Environment::new([("HOME", home.to_str().unwrap())], &here);
        let error = find_in(&system, None, &env).unwrap_err();
        let LoadError::NotFound { looked } = &error else { panic!("{error}") };
        assert_eq!(looked.len(), 12);
        for path in looked {
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        }

        // From the least to the most wanted: each new file is the one that is found.
        let order = looked.clone();
        for path in order.iter().rev() {
            std::fs::write(path, "").unwrap();
            assert_eq!(find_in(&system, None, &env).unwrap(), *path);
        }
        std::fs::remove_file(&order[0]).unwrap();
        std::os::unix::fs::symlink("/nonexistent", &order[0]).unwrap();
        assert_eq!(
            find_in(&system, None, &env).unwrap(),
            order[0],
            "a broken link is not passed over for another file"
        );
        let named = Environment::new([("MT_CONFIG", "x.ron")], &here);
        assert_eq!(find_in(&system, None, &named).unwrap(), here.join("x.ron"));
        assert_eq!(find_in(&system, Some(Path::new("/y.yml")), &named).unwrap(), Path::new("/y.yml"));
        let empty = Environment::new([("MT_CONFIG", "")], &here);
        assert_eq!(find_in(&system, None, &empty).unwrap(), order[0]);
    }

    #[test]
    fn the_format_is_told_by_the_name() {
        for (name, format) in
            [("a.json", Format::Json), ("a.yml", Format::Yaml), ("a.YAML", Format::Yaml), ("a.ron", Format::Ron)]
        {
            assert_eq!(Format::of(Path::new(name)).unwrap(), format);
        }
        for name in ["a", "a.toml", "a.json.bak", ".json"] {
            assert!(matches!(Format::of(Path::new(name)), Err(LoadError::UnknownFormat { .. })), "{name}");
        }
    }
}
