//! What is wrong with the vault.

use serde_json::{Value, json};

use super::{Also, CELL, Cell, Fault, GOOD, NOT_TRIED, Peer, Play, SLOW};

const VAULT: Cell = Cell { peer: Peer::Vault, play: Play::Vaults, step: "get-vault-token", ..CELL };

/// condor_vault_storer meets the same vault.
const NOT_STORED: &[Also] =
    &[Also { step: "store-in-credd", target: "schedd2.lab.test", status: "failed", code: "MT0030" }];

/// As without `tokenGetter`.
fn with_credd(mut role: Value) -> Value {
    role["tokenGetterOverride"] = "storeAndGetToken".into();
    role["condorCreddHostOverride"] = "schedd2.lab.test".into();
    role
}

pub const CELLS: &[Cell] = &[
    Cell {
        fault: Fault::Refuses,
        what: "403, permission denied",
        does: "the service stops there, and a person is asked for",
        name: "forbidden",
        role: |_| json!({ "account": "fermiadm" }),
        status: "needs-human",
        class: "needs-human",
        code: "MT0031",
        says: &["the vault server vault.lab.test refuses this service (403, permission denied)"],
        next: "mt run token-push --onboard --push -s {service}",
        ..VAULT
    },
    Cell {
        fault: Fault::Refuses,
        what: "it holds no refresh token",
        does: "the service stops there, and a person is asked for",
        name: "unknown",
        role: |_| json!({ "account": "mu2epro", "desiredUIDOverride": 1235 }),
        status: "needs-human",
        class: "needs-human",
        code: "MT0031",
        says: &["the vault holds no usable refresh token for this service"],
        next: "mt run token-push --onboard --push -s {service}",
        ..VAULT
    },
    Cell {
        fault: Fault::Down,
        what: "no vault, no token kept",
        does: "the service stops there",
        name: "deadvault",
        role: |place| place.vault("vault.lab.test:7002", "empty"),
        class: "transient",
        code: "MT0030",
        says: &["the vault server vault.lab.test:7002 cannot be reached: Connection refused"],
        next: "curl -ki https://vault.lab.test:7002/v1/sys/health  must answer; else look at the vault server and at the network",
        tries: 2,
        ..VAULT
    },
    Cell {
        fault: Fault::Hangs,
        what: "a vault that says nothing, no token kept",
        does: "the service stops there",
        name: "mutevault",
        role: |place| place.vault("vault.lab.test:7001", "empty"),
        class: "transient",
        code: "MT0030",
        says: &["the vault server vault.lab.test:7001 accepts connections and does not answer (Read timed out)"],
        next: "curl -ki https://vault.lab.test:7001/v1/sys/health  must answer; else look at the vault server and at the network",
        tries: 2,
        least: 2,
        hangs: true,
        ..VAULT
    },
    Cell {
        fault: Fault::Hangs,
        what: "a vault that says nothing, a token kept from an earlier run",
        does: "the kept token is pushed",
        name: "kept",
        role: |place| place.vault("vault.lab.test:7001", "tokens"),
        status: "stale",
        class: "transient",
        code: "MT0030",
        says: &["the vault server vault.lab.test:7001 accepts connections and does not answer (Read timed out)"],
        next: "curl -ki https://vault.lab.test:7001/v1/sys/health  must answer; else look at the vault server and at the network",
        tries: 2,
        least: 2,
        push: GOOD,
        hangs: true,
        ..VAULT
    },
    Cell {
        fault: Fault::Refuses,
        what: "403, permission denied, for a service with credds",
        does: "the service stops there, and a person is asked for; no credd gets a credential",
        name: "forbiddencredd",
        role: |_| with_credd(json!({ "account": "fermiadm" })),
        status: "needs-human",
        class: "needs-human",
        code: "MT0031",
        says: &["the vault server vault.lab.test refuses this service (403, permission denied)"],
        next: "mt run token-push --onboard --push -s {service}",
        also: &[Also { step: "store-in-credd", target: "-", status: NOT_TRIED, code: "" }],
        ..VAULT
    },
    Cell {
        fault: Fault::Down,
        what: "no vault, a token kept from an earlier run, a service with credds",
        does: "the kept token is pushed; the credds keep what they have",
        name: "keptdown",
        role: |place| with_credd(place.vault("vault.lab.test:7002", "tokens")),
        status: "stale",
        class: "transient",
        code: "MT0030",
        says: &["the vault server vault.lab.test:7002 cannot be reached: Connection refused"],
        next: "curl -ki https://vault.lab.test:7002/v1/sys/health  must answer; else look at the vault server and at the network",
        tries: 2,
        push: GOOD,
        also: NOT_STORED,
        ..VAULT
    },
    Cell {
        fault: Fault::Hangs,
        what: "a vault that says nothing, a token kept from an earlier run, a service with credds",
        does: "the kept token is pushed; the credds keep what they have",
        name: "keptmute",
        role: |place| with_credd(place.vault("vault.lab.test:7001", "tokens")),
        status: "stale",
        class: "transient",
        code: "MT0030",
        says: &["the vault server vault.lab.test:7001 accepts connections and does not answer (Read timed out)"],
        next: "curl -ki https://vault.lab.test:7001/v1/sys/health  must answer; else look at the vault server and at the network",
        tries: 2,
        least: 2,
        push: GOOD,
        also: NOT_STORED,
        hangs: true,
        ..VAULT
    },
    Cell {
        fault: Fault::Garbage,
        what: "what answers does not speak TLS",
        name: "noisyvault",
        role: |place| place.vault("vault.lab.test:7004", "empty"),
        class: "transient",
        code: "MT0032",
        says: &["what answers at the vault server vault.lab.test:7004 does not speak TLS"],
        next: "curl -ki https://vault.lab.test:7004/v1/sys/health  shows who answers there",
        tries: 2,
        ..VAULT
    },
    Cell {
        fault: Fault::Garbage,
        what: "a proxy answers with a page of HTML",
        name: "pagevault",
        role: |place| place.vault("vault.lab.test:7005", "empty"),
        class: "transient",
        code: "MT0032",
        says: &["what answers at the vault server vault.lab.test:7005 is no vault: what it says is not JSON"],
        next: "curl -ki https://vault.lab.test:7005/v1/sys/health  shows who answers there",
        tries: 2,
        ..VAULT
    },
    Cell {
        peer: Peer::Vault,
        play: Play::Vaults,
        what: "each connection 1 s late",
        name: "slowvault",
        role: |place| place.vault("vault.lab.test:7006", "slow"),
        step: "get-vault-token",
        ..SLOW
    },
];
