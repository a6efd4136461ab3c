//! kinit and klist.

use super::{Exits, Facts, Rule, TooSlow};
use crate::process::Exit;
use crate::steps::codes::*;
use crate::workflow::action::{Class, Failure};

/// What messages may name.
pub const FACTS: &[&str] = &["program", "keytab", "principal", "realm"];

/// Where the file is to be.
const PUT: &str = "put the keytab of {principal} at {keytab}";
/// It names every KDC that was asked, and what came of it.
const TRACE: &str =
    "KRB5_TRACE=/dev/stderr kinit -k -t {keytab} {principal}  shows whom it asks; look there, and at krb5.conf";

const KEYTAB: Rule = Rule {
    exits: Exits::Any,
    says: &[],
    class: Class::Permanent,
    code: KEYTAB_UNREADABLE,
    cause: "the keytab {keytab} cannot be read: {line}",
    next: Some("put a fresh copy of the keytab of {principal} at {keytab}; klist -k {keytab} must show its keys"),
};
const STALE: Rule = Rule {
    code: KEYTAB_STALE,
    cause: "the KDC does not accept the key in {keytab}: it has a newer one for {principal}",
    next: Some("put the new keytab of {principal} at {keytab}"),
    ..KEYTAB
};
const REVOKED: Rule = Rule {
    code: PRINCIPAL_REVOKED,
    cause: "the KDC refuses {principal}: {line}",
    next: Some("ask those who run the KDC to unlock or renew it; kinit -k -t {keytab} {principal} must work"),
    ..KEYTAB
};
const KDC: Rule = Rule {
    class: Class::Transient,
    code: KDC_UNREACHABLE,
    cause: "no KDC of {realm} answers: {line}",
    next: Some(TRACE),
    ..KEYTAB
};

const NO_KDC: Rule = Rule { cause: "what answers as the KDC of {realm} is none: {line}", ..KDC };

/// kinit.
pub const RULES: &[Rule] = &[
    Rule {
        says: &["keytab contains no suitable keys"],
        code: KEYTAB_WRONG,
        cause: "the keytab {keytab} holds no key of {principal}",
        next: Some("put the keytab of {principal} at {keytab}; klist -k {keytab} shows whose it is"),
        ..KEYTAB
    },
    Rule {
        says: &["key table file", "not found"],
        code: KEYTAB_MISSING,
        cause: "there is no keytab {keytab}",
        next: Some(PUT),
        ..KEYTAB
    },
    Rule { says: &["key table format"], ..KEYTAB },
    Rule { says: &["bad format in keytab"], ..KEYTAB },
    Rule { says: &["permission denied", "keytab"], ..KEYTAB },
    Rule { says: &["permission denied", "key table"], ..KEYTAB },
    Rule { says: &["end of file", "keytab"], ..KEYTAB },
    Rule { says: &["password incorrect"], ..STALE },
    Rule { says: &["preauthentication failed"], ..STALE },
    Rule { says: &["decrypt integrity check failed"], ..STALE },
    Rule {
        says: &["not found in kerberos database"],
        code: PRINCIPAL_UNKNOWN,
        cause: "the KDC does not know {principal}",
        next: Some(
            "correct userPrincipalOverride or kerberosPrincipalPattern, or ask those who run the KDC to make {principal}",
        ),
        ..KEYTAB
    },
    Rule { says: &["have been revoked"], ..REVOKED },
    Rule { says: &["entry in database has expired"], ..REVOKED },
    Rule { says: &["password has expired"], ..REVOKED },
    Rule {
        says: &["clock skew too great"],
        code: CLOCK_SKEW,
        cause: "the clock of this machine is too far from the KDC's",
        next: Some("timedatectl"),
        ..KEYTAB
    },
    Rule { says: &["cannot contact any kdc"], ..KDC },
    Rule { says: &["invalid message type"], ..NO_KDC },
    Rule { says: &["asn.1"], ..NO_KDC },
    Rule { says: &["kdc reply did not match expectations"], ..NO_KDC },
    Rule { says: &["cannot find kdc"], ..KDC },
    Rule { says: &["cannot resolve"], ..KDC },
    Rule { says: &["connection refused"], ..KDC },
    Rule { says: &["timed out"], ..KDC },
];

const FALLBACK: Rule = Rule {
    class: Class::Transient,
    code: KINIT_FAILED,
    cause: "{program} failed: {line}",
    next: Some("kinit -k -t {keytab} {principal}"),
    ..KEYTAB
};

/// What every message may name.
pub fn facts<'a>(program: &'a str, keytab: &'a str, principal: &'a str) -> [(&'static str, &'a str); 4] {
    let realm = principal.rsplit_once('@').map_or("the default realm", |(_, realm)| realm);
    [("program", program), ("keytab", keytab), ("principal", principal), ("realm", realm)]
}

/// What it means that kinit does not end.
pub fn too_slow(facts: Facts<'_>) -> TooSlow {
    TooSlow::new(KDC_UNREACHABLE, super::fill("no KDC of {realm} answers", "", facts), super::fill(TRACE, "", facts))
}

/// What to do where there is no keytab.
pub fn put(facts: Facts<'_>) -> String {
    super::fill(PUT, "", facts)
}

/// Why kinit (or klist) failed.
pub fn classify(exit: Exit, output: &str, facts: Facts<'_>) -> Failure {
    super::classify(RULES, &FALLBACK, exit, output, facts)
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[track_caller]
    fn check(name: &str, class: Class, code: crate::workflow::code::Code) {
        let (exit, output) = fixture::read(name);
        let facts = facts("kinit", "/k/dunepro.keytab", "dunepro@LAB.TEST");
        let failure = classify(exit, &output, &facts);
        assert_eq!((failure.class, failure.code), (class, code), "{name}: {failure:?}");
        assert!(!failure.message.contains('{') && !failure.message.contains('\n'), "{failure:?}");
    }

    #[test]
    fn what_kinit_says_is_understood() {
        check("kinit-keytab-wrong", Class::Permanent, KEYTAB_WRONG);
        check("kinit-keytab-missing", Class::Permanent, KEYTAB_MISSING);
        check("kinit-keytab-corrupt", Class::Permanent, KEYTAB_UNREADABLE);
        check("kinit-keytab-stale", Class::Permanent, KEYTAB_STALE);
        check("kinit-unknown-principal", Class::Permanent, KEYTAB_WRONG);
        check("kinit-kdc-paused", Class::Transient, KDC_UNREACHABLE);
        check("kinit-kdc-killed", Class::Transient, KDC_UNREACHABLE);
    }

    #[test]
    fn what_kinit_says_elsewhere_is_understood() {
        let code = |text: &str| classify(Exit::Code(1), text, &[]).code;
        let client = "kinit: Client 'x@Y' not found in Kerberos database while getting initial credentials";
        assert_eq!(code(client), PRINCIPAL_UNKNOWN);
        let revoked = "kinit: Client's credentials have been revoked while getting initial credentials";
        assert_eq!(code(revoked), PRINCIPAL_REVOKED);
        assert_eq!(code("kinit: Clock skew too great while getting initial credentials"), CLOCK_SKEW);
        let locked = "kinit: Permission denied while getting initial credentials (keytab FILE:/k)";
        assert_eq!(code(locked), KEYTAB_UNREADABLE);
        assert_eq!(code("kinit: a new message"), KINIT_FAILED);
    }
}
