//! Which services a command is about: `-s` and `-e`.

use super::service::Service;
use super::settings::Config;

/// The role of a service whose name has no underscore, in lower case like every name of the configuration.
const ROLE_WITHOUT_UNDERSCORE: &str = "analysis";

/// `-s` or `-e` names what is not configured. Exit code 2.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {given:?} is not configured{}; see `mt services list`", nearest.as_ref().map(|n| format!(" (did you mean {n}?)")).unwrap_or_default())]
pub struct UnknownSelection {
    /// `service` or `experiment`.
    pub kind: &'static str,
    /// As given.
    pub given: String,
    /// The most similar that is.
    pub nearest: Option<String>,
}

impl Config {
    /// The services that are named by either list, by name, each once; all of them when both lists are empty.
    /// Names are compared in lower case; a service without underscore means its role `analysis`.
    pub fn select(&self, services: &[String], experiments: &[String]) -> Result<Vec<&Service>, UnknownSelection> {
        let mut wanted = std::collections::BTreeSet::new();
        for given in services {
            let mut name = given.to_lowercase();
            if !name.contains('_') {
                name = format!("{name}_{ROLE_WITHOUT_UNDERSCORE}");
            }
            let found = self.services.iter().find(|service| service.name.as_str() == name);
            let names = || self.services.iter().map(|service| service.name.as_str());
            wanted.insert(found.map(|s| &s.name).ok_or_else(|| unknown("service", given, names()))?);
        }
        for given in experiments {
            let name = given.to_lowercase();
            let mut found = self.services.iter().filter(|s| s.experiment.as_str() == name).peekable();
            if found.peek().is_none() {
                return Err(unknown("experiment", given, self.services.iter().map(|s| s.experiment.as_str())));
            }
            wanted.extend(found.map(|service| &service.name));
        }
        let all = services.is_empty() && experiments.is_empty();
        Ok(self.services.iter().filter(|service| all || wanted.contains(&service.name)).collect())
    }
}

fn unknown<'a>(kind: &'static str, given: &str, names: impl Iterator<Item = &'a str>) -> UnknownSelection {
    UnknownSelection {
        kind,
        given: given.to_owned(),
        nearest: nearest(&given.to_lowercase(), names).map(str::to_owned),
    }
}

/// The most similar of the candidates, if any is similar at all. Ties go to the first.
pub(super) fn nearest<'a>(given: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let mut best: Option<(f64, &str)> = None;
    for candidate in candidates {
        let similarity = strsim::jaro_winkler(given, &candidate.to_lowercase());
        if similarity >= 0.85 && best.is_none_or(|(most, _)| similarity > most) {
            best = Some((similarity, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}
