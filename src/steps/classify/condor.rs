//! condor_vault_storer and condor_status.

use super::{Exits, Facts, Rule};
use crate::process::Exit;
use crate::steps::codes::*;
use crate::workflow::action::{Class, Failure};

/// What messages about condor_vault_storer may name.
pub const STORE_FACTS: &[&str] = &["program", "service", "credd", "vault"];
/// What messages about condor_status may name.
pub const STATUS_FACTS: &[&str] = &["program", "collector", "constraint"];

const COLLECTOR: Rule = Rule {
    exits: Exits::Any,
    says: &[],
    class: Class::Transient,
    code: COLLECTOR_UNREACHABLE,
    cause: "the collector {collector} cannot be asked: {line}",
    next: Some(
        "condor_status -pool {collector} -schedd -af Name  must work; else look at the collector, or set condorCreddHost",
    ),
};

/// condor_status.
pub const STATUS: &[Rule] = &[
    Rule {
        says: &["parse error"],
        class: Class::Permanent,
        code: BAD_CONSTRAINT,
        cause: "condor_status cannot parse the constraint {constraint}",
        next: Some("correct condorScheddConstraint"),
        ..COLLECTOR
    },
    Rule {
        says: &["received \"denied\""],
        class: Class::Permanent,
        cause: "the collector {collector} does not let this host read",
        next: Some(
            "ask those who run {collector} for ALLOW_READ; condor_status -pool {collector} -schedd -af Name  must work",
        ),
        ..COLLECTOR
    },
];

const STORER: Rule = Rule {
    exits: Exits::Any,
    says: &[],
    class: Class::Transient,
    code: STORER_FAILED,
    cause: "condor_vault_storer failed: {line}",
    next: None,
};
const DENIED: Rule = Rule {
    class: Class::Permanent,
    code: CREDD_DENIED,
    cause: "the credd {credd} does not allow the credential to be stored: {line}",
    next: Some("ask those who run {credd}"),
    ..STORER
};
const UNREACHABLE: Rule = Rule {
    code: CREDD_UNREACHABLE,
    cause: "the credd {credd} could not store the credential: {line}",
    next: Some("look at the credd {credd}"),
    ..STORER
};

/// condor_vault_storer, once the token itself is had.
pub const STORE: &[Rule] = &[
    Rule { says: &["not allowed", "failed to store condor credentials"], ..DENIED },
    Rule { says: &["permission denied", "failed to store condor credentials"], ..DENIED },
    Rule { says: &["authentication failed", "failed to store condor credentials"], ..DENIED },
    Rule {
        says: &["make sure your allow_write"],
        cause: "the credd {credd} cannot be reached, or does not let this host write",
        next: Some("look at the credd {credd} and its ALLOW_WRITE"),
        ..UNREACHABLE
    },
    Rule { says: &["failed to store condor credentials"], ..UNREACHABLE },
    Rule {
        says: &["neither sec_credential_gettoken_opts"],
        class: Class::Permanent,
        code: STORER_OPTIONS,
        cause: "condor_vault_storer finds no options for htgettoken",
        next: Some("set vaultServer"),
        ..STORER
    },
];

/// What to do about a collector that does not answer, or not with a list.
pub fn look_at(collector: &str) -> String {
    super::fill(COLLECTOR.next.unwrap_or_default(), "", &[("collector", collector)])
}

/// Why condor_status failed.
pub fn status(exit: Exit, output: &str, facts: Facts<'_>) -> Failure {
    super::classify(STATUS, &COLLECTOR, exit, output, facts)
}

/// Why condor_vault_storer failed.
pub fn store(exit: Exit, output: &str, facts: Facts<'_>) -> Failure {
    let lower = output.to_ascii_lowercase();
    if STORE.iter().any(|rule| rule.fits(exit, &lower)) {
        return super::classify(STORE, &STORER, exit, output, facts);
    }
    let failure = super::vault::classify(exit, output, facts);
    // htgettoken is not known to be the one that failed.
    if failure.code == HTGETTOKEN_FAILED { super::classify(&[], &STORER, exit, output, facts) } else { failure }
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;
    use crate::workflow::code::Code;

    const FACTS: Facts<'static> = &[
        ("program", "condor_vault_storer"),
        ("service", "dune_production"),
        ("credd", "schedd1.lab.test"),
        ("vault", "vault.lab.test"),
        ("collector", "collector.lab.test"),
        ("constraint", "IsJobsubLite=="),
    ];

    #[track_caller]
    fn check(name: &str, class: Class, code: Code) {
        let (exit, output) = fixture::read(name);
        let failure =
            if name.starts_with("condor_status") { status(exit, &output, FACTS) } else { store(exit, &output, FACTS) };
        assert_eq!((failure.class, failure.code), (class, code), "{name}: {failure:?}");
        assert!(!failure.message.contains(['{', '\n']), "{failure:?}");
    }

    #[test]
    fn what_the_storer_says_is_understood() {
        for v in ["", "-v"] {
            check(&format!("condor_vault_storer{v}-credd-down"), Class::Transient, CREDD_UNREACHABLE);
            check(&format!("condor_vault_storer{v}-credd-denied"), Class::Permanent, CREDD_DENIED);
            check(&format!("condor_vault_storer{v}-vault-killed"), Class::Transient, VAULT_UNREACHABLE);
            check(&format!("condor_vault_storer{v}-403"), Class::NeedsHuman, AUTHENTICATION_NEEDED);
        }
        check("condor_vault_storer-no-ticket", Class::Transient, VAULT_KERBEROS);
    }

    #[test]
    fn the_storers_own_words_without_a_reason_are_not_taken_for_a_call_for_a_person() {
        let failure =
            store(Exit::Code(1), "\nAuthentication needed for x\n\ncondor_vault_storer: htgettoken failed\n", FACTS);
        assert_eq!((failure.class, failure.code), (Class::Transient, STORER_FAILED));
    }

    #[test]
    fn what_condor_status_says_is_understood() {
        check("condor_status-collector-down", Class::Transient, COLLECTOR_UNREACHABLE);
        check("condor_status-bad-constraint", Class::Permanent, BAD_CONSTRAINT);
        let denied =
            "Error: communication error\nSECMAN:2010:Received \"DENIED\" from server for user unauthenticated@unmapped";
        let failure = status(Exit::Code(1), denied, FACTS);
        assert_eq!((failure.class, failure.code), (Class::Permanent, COLLECTOR_UNREACHABLE));
        assert_eq!(failure.message, "the collector collector.lab.test does not let this host read");
    }
}
