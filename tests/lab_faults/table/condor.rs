//! What is wrong with HTCondor.

use serde_json::json;

use super::{CELL, Cell, Ends, Fault, GOOD, Peer, Play, SLOW};

const CREDD: Cell = Cell {
    peer: Peer::Credd,
    play: Play::Credds,
    does: "the push goes on",
    step: "store-in-credd",
    push: GOOD,
    ..CELL
};
const COLLECTOR: Cell = Cell { peer: Peer::Collector, play: Play::Collectors, ..CREDD };

pub const CELLS: &[Cell] = &[
    Cell {
        fault: Fault::Down,
        what: "one credd down",
        does: "the other credds get the credential, and the push goes on",
        name: "downcredd",
        role: |_| json!({ "condorCollectorHostOverride": "collector7.lab.test" }),
        target: "schedd7.lab.test",
        class: "transient",
        code: "MT0053",
        says: &["the credd schedd7.lab.test cannot be reached, or does not let this host write"],
        next: "look at the credd schedd7.lab.test and its ALLOW_WRITE",
        ..CREDD
    },
    Cell {
        fault: Fault::Refuses,
        what: "credd refuses",
        name: "deniedcredd",
        role: |_| json!({ "condorCreddHostOverride": "schedd3.lab.test" }),
        target: "schedd3.lab.test",
        code: "MT0054",
        says: &["the credd schedd3.lab.test does not allow the credential to be stored: "],
        next: "ask those who run schedd3.lab.test",
        ..CREDD
    },
    Cell {
        fault: Fault::Hangs,
        what: "credd hangs",
        does: "ended after the step's time; the push goes on",
        name: "mutecredd",
        role: |_| json!({ "condorCreddHostOverride": "schedd4.lab.test" }),
        target: "schedd4.lab.test",
        status: "timed-out",
        class: "timeout",
        code: "MT0053",
        says: &["storing in the credd schedd4.lab.test took too long: condor_vault_storer did not end within"],
        next: "look at the credd schedd4.lab.test and at the vault server",
        hangs: true,
        ends: Ends::WithItsTime,
        ..CREDD
    },
    Cell {
        fault: Fault::Down,
        what: "collector down",
        does: "the credds recorded by an earlier session of the run are used; without one the push goes on",
        name: "nocollector",
        role: |_| json!({ "condorCollectorHostOverride": "collector2.lab.test" }),
        class: "transient",
        code: "MT0050",
        says: &["the collector collector2.lab.test cannot be asked: "],
        next: "condor_status -pool collector2.lab.test -schedd -af Name  must work; else look at the collector, or set condorCreddHost",
        ..COLLECTOR
    },
    Cell {
        fault: Fault::Hangs,
        what: "collector hangs",
        does: "ended after 10 s, or half of the step's time for all together; as above",
        name: "mutecollector",
        role: |_| json!({ "condorCollectorHostOverride": "collector3.lab.test" }),
        status: "timed-out",
        class: "timeout",
        code: "MT0050",
        says: &["the collector collector3.lab.test cannot be asked: condor_status did not end within"],
        next: "condor_status -pool collector3.lab.test -schedd -af Name  must work; else look at the collector, or set condorCreddHost",
        hangs: true,
        least: 3,
        ..COLLECTOR
    },
    Cell {
        fault: Fault::Garbage,
        what: "credd answers what is no answer",
        name: "noisycredd",
        role: |_| json!({ "condorCreddHostOverride": "schedd5.lab.test" }),
        target: "schedd5.lab.test",
        class: "transient",
        code: "MT0053",
        says: &["the credd schedd5.lab.test could not store the credential: "],
        next: "look at the credd schedd5.lab.test",
        ..CREDD
    },
    Cell {
        peer: Peer::Credd,
        play: Play::Credds,
        what: "3 s late",
        name: "slowcredd",
        role: |_| json!({ "condorCreddHostOverride": "schedd6.lab.test" }),
        step: "store-in-credd",
        target: "schedd6.lab.test",
        // One that is not slow has taken more than a second on a busy machine.
        least: 3,
        ..SLOW
    },
    Cell {
        fault: Fault::Refuses,
        what: "collector lets nobody read",
        name: "deniedcollector",
        role: |_| json!({ "condorCollectorHostOverride": "collector4.lab.test" }),
        code: "MT0050",
        says: &["the collector collector4.lab.test does not let this host read"],
        next: "ask those who run collector4.lab.test for ALLOW_READ; condor_status -pool collector4.lab.test -schedd -af Name  must work",
        ..COLLECTOR
    },
    Cell {
        fault: Fault::Garbage,
        what: "collector answers what is no list",
        name: "noisycollector",
        role: |_| json!({ "condorCollectorHostOverride": "collector5.lab.test" }),
        class: "transient",
        code: "MT0050",
        says: &["what the collector collector5.lab.test answers is no list of schedds: "],
        next: "condor_status -pool collector5.lab.test -schedd -af Name  must work; else look at the collector, or set condorCreddHost",
        ..COLLECTOR
    },
    Cell {
        peer: Peer::Collector,
        play: Play::Collectors,
        what: "1 s late",
        name: "slowcollector",
        role: |_| json!({ "condorCollectorHostOverride": "collector6.lab.test" }),
        step: "store-in-credd",
        target: "schedd2.lab.test",
        ..SLOW
    },
];
