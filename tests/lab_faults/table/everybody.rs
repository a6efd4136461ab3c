//! Real services paused, killed and stood in front of: every service of the run meets it.

use std::fs;

use super::super::support::lab::Lab;
use super::{CELL, Cell, Ends, Fault, GOOD, Peer, Play, SLOW, Who};

const LOOK: &str =
    "curl -ki https://vault.lab.test:8200/v1/sys/health  must answer; else look at the vault server and at the network";
const ONBOARD: &str = "mt run token-push --onboard --push -s {service}";

const VAULT: Cell = Cell {
    peer: Peer::Vault,
    play: Play::EverybodyFirst,
    step: "get-vault-token",
    class: "transient",
    code: "MT0030",
    exit: &[11],
    ..CELL
};
const REFUSING: Cell = Cell {
    fault: Fault::Refuses,
    does: "the service stops there, and a person is asked for",
    back: |lab| lab.fault("vault", "ok"),
    status: "needs-human",
    class: "needs-human",
    code: "MT0031",
    next: ONBOARD,
    ..VAULT
};
const LDAP: Cell = Cell {
    peer: Peer::Ldap,
    back: |lab| lab.gremlin("ldap", "ok"),
    code: "MT0032",
    next: "ask those who run vault.lab.test to look at its LDAP server",
    ..VAULT
};
const KDC: Cell = Cell {
    peer: Peer::Kdc,
    step: "kinit",
    code: "MT0026",
    next: "KRB5_TRACE=/dev/stderr kinit -k -t {lab}/keytabs/{account}.keytab {account}/managedtokens/lab.test@LAB.TEST  shows whom it asks; look there, and at krb5.conf",
    ..VAULT
};
const NODE: Cell = Cell {
    peer: Peer::Node,
    play: Play::EverybodyThen,
    step: "push",
    target: "node1.lab.test",
    next: "ssh {account}@node1.lab.test  as the account that runs mt must get there; else look at the node",
    push: GOOD,
    told: &[Who::Admins, Who::Stakeholders, Who::Slack],
    ..VAULT
};

/// A token lives for seven days: one that is kept has less.
const LONGER_THAN_KEPT: &str = "604799s";

/// A kept token needs no login.
fn forget_tokens(lab: &Lab) {
    for kept in fs::read_dir(lab.path("corner-outage/tokens")).unwrap() {
        fs::remove_file(kept.unwrap().path()).unwrap();
    }
}

pub const CELLS: &[Cell] = &[
    Cell {
        name: "vault_refusing",
        set: |lab| lab.fault("vault", "403"),
        says: &["the vault server vault.lab.test refuses this service (403, permission denied)"],
        ..REFUSING
    },
    Cell {
        what: "it refuses the login",
        name: "vault_login_refused",
        set: |lab| lab.fault("vault", "nologin"),
        says: &["the vault server vault.lab.test refuses this service (403, permission denied)"],
        ..REFUSING
    },
    Cell {
        name: "no_refresh_token",
        set: |lab| lab.fault("vault", "norefresh"),
        says: &["the vault holds no usable refresh token for this service"],
        ..REFUSING
    },
    Cell {
        fault: Fault::Refuses,
        what: "it is sealed (503)",
        name: "vault_sealed",
        set: |lab| lab.fault("vault", "sealed"),
        back: |lab| lab.fault("vault", "ok"),
        code: "MT0032",
        says: &["the vault server vault.lab.test answers with an error: "],
        next: "curl -ki https://vault.lab.test:8200/v1/sys/health  shows its state; ask those who run vault.lab.test",
        ..VAULT
    },
    Cell {
        fault: Fault::Refuses,
        what: "a proxy refuses (403, not the vault's words)",
        name: "vault_proxy_refusing",
        set: |lab| lab.gremlin("vault", "refuse"),
        back: |lab| lab.gremlin("vault", "ok"),
        code: "MT0033",
        says: &["the login at the vault server vault.lab.test with Kerberos failed: HTTPError: Forbidden: not you"],
        next: "curl -ki https://vault.lab.test:8200/v1/sys/health  shows who answers there",
        ..VAULT
    },
    Cell {
        fault: Fault::Hangs,
        name: "vault_paused",
        set: |lab| lab.pause("vault"),
        back: |lab| lab.resume("vault"),
        says: &["the vault server vault.lab.test accepts connections and does not answer (Read timed out)"],
        next: LOOK,
        least: 2,
        ..VAULT
    },
    Cell {
        fault: Fault::Down,
        what: "nobody answers at its port",
        name: "ldap_down",
        set: |lab| {
            lab.gremlin("ldap", "hang");
            lab.kill("gremlin-ldap");
        },
        says: &["the directory that the vault server vault.lab.test asks does not work: error connecting to host"],
        ..LDAP
    },
    Cell {
        fault: Fault::Hangs,
        what: "it says nothing, and so the vault at a login",
        name: "ldap_hanging",
        set: |lab| lab.gremlin("ldap", "hang"),
        code: "MT0030",
        says: &["the vault server vault.lab.test does not finish the login (Read timed out)"],
        next: "curl -ki https://vault.lab.test:8200/v1/sys/health; if it answers, ask those who run vault.lab.test to look at the LDAP server it asks",
        least: 10,
        ..LDAP
    },
    Cell {
        fault: Fault::Refuses,
        what: "it is unwilling (53)",
        name: "ldap_refusing",
        set: |lab| lab.gremlin("ldap", "refuse"),
        says: &[
            "the directory that the vault server vault.lab.test asks does not work: LDAP Result Code 53 \"Unwilling To Perform\"",
        ],
        ..LDAP
    },
    Cell {
        fault: Fault::Garbage,
        what: "what answers does not speak LDAP",
        name: "ldap_garbage",
        set: |lab| lab.gremlin("ldap", "garbage"),
        says: &[
            "the directory that the vault server vault.lab.test asks does not work: unable to read LDAP response packet: ",
        ],
        ..LDAP
    },
    Cell {
        peer: Peer::Ldap,
        play: Play::EverybodyFirst,
        what: "its first words 1 s late",
        name: "ldap_slow",
        set: |lab| {
            forget_tokens(lab);
            lab.gremlin("ldap", "slow 1");
        },
        back: |lab| lab.gremlin("ldap", "ok"),
        step: "get-vault-token",
        ..SLOW
    },
    Cell {
        fault: Fault::Hangs,
        name: "kdc_paused",
        set: |lab| lab.pause("kdc"),
        back: |lab| lab.resume("kdc"),
        status: "timed-out",
        class: "timeout",
        says: &["no KDC of LAB.TEST answers: kinit did not end within "],
        ends: Ends::WithItsTime,
        ..KDC
    },
    Cell {
        peer: Peer::Kdc,
        play: Play::EverybodyThen,
        what: "each answer 1 s late",
        name: "kdc_slow",
        set: |lab| lab.gremlin("kdc", "slow 1"),
        back: |lab| lab.gremlin("kdc", "ok"),
        ..SLOW
    },
    Cell {
        play: Play::EverybodyThen,
        fault: Fault::Hangs,
        name: "vault_paused_with_kept_tokens",
        set: |lab| lab.pause("vault"),
        back: |lab| lab.resume("vault"),
        status: "stale",
        says: &["the vault server vault.lab.test accepts connections and does not answer (Read timed out)"],
        next: LOOK,
        least: 2,
        push: GOOD,
        ..VAULT
    },
    Cell {
        play: Play::EverybodyThen,
        fault: Fault::Down,
        what: "nobody answers at its port, a token kept from an earlier run",
        does: "the kept token is pushed; while it lives longer than minTokenLifetime, nobody asks for a login",
        name: "ldap_down_with_kept_tokens",
        set: |lab| {
            lab.gremlin("ldap", "hang");
            lab.kill("gremlin-ldap");
        },
        change: |config| config["minTokenLifetime"] = LONGER_THAN_KEPT.into(),
        status: "stale",
        says: &["the directory that the vault server vault.lab.test asks does not work: error connecting to host"],
        push: GOOD,
        ..LDAP
    },
    Cell {
        fault: Fault::Hangs,
        name: "sshd_paused",
        set: |lab| lab.pause("node1"),
        back: |lab| lab.resume("node1"),
        status: "timed-out",
        class: "timeout",
        code: "MT0043",
        says: &["node1.lab.test did not take the files: rsync did not end within"],
        ends: Ends::WithItsTime,
        ..NODE
    },
    Cell {
        fault: Fault::Down,
        name: "sshd_killed",
        set: |lab| lab.kill("node1"),
        code: "MT0042",
        says: &["ssh: connect to host node1.lab.test port 22: Connection refused"],
        ..NODE
    },
    Cell {
        play: Play::EverybodyLast,
        fault: Fault::Down,
        what: "no vault, a token kept from an earlier run",
        does: "the kept token is pushed",
        name: "vault_killed_with_kept_tokens",
        set: |lab| lab.kill("vault"),
        status: "stale",
        says: &["the vault server vault.lab.test cannot be reached: Connection refused"],
        next: LOOK,
        push: GOOD,
        ..VAULT
    },
    Cell {
        play: Play::EverybodyLast,
        fault: Fault::Down,
        name: "vault_killed",
        set: forget_tokens,
        says: &["the vault server vault.lab.test cannot be reached: Connection refused"],
        next: LOOK,
        ..VAULT
    },
    Cell {
        play: Play::EverybodyLast,
        fault: Fault::Down,
        name: "kdc_killed",
        set: |lab| lab.kill("kdc"),
        says: &["no KDC of LAB.TEST answers: kinit: Cannot contact any KDC for realm 'LAB.TEST'"],
        ..KDC
    },
];
