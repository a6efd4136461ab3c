//! What is wrong with FERRY, in a run of ferry-refresh. The ports are those of gremlins; `name` is one of them and the page's.

use super::{CELL, Cell, Fault, Peer, Play, SLOW};

const FERRY: Cell = Cell {
    peer: Peer::Ferry,
    play: Play::Ferry,
    does: "the stored UIDs stay, and tokens are pushed with them",
    step: "fetch-uid",
    class: "transient",
    code: "MT0172",
    next: "curl -k --cert {lab}/ca/client.pem --key {lab}/ca/client.key '{place}/getUserInfo?username={account}'  must answer; else correct ferry.host and ferry.port, or ask those who run FERRY",
    exit: &[11],
    ..CELL
};

pub const CELLS: &[Cell] = &[
    Cell {
        fault: Fault::Down,
        what: "nobody answers at its port",
        name: "ferry_down",
        says: &["FERRY at {place} cannot be reached: Connection refused"],
        ..FERRY
    },
    Cell {
        fault: Fault::Hangs,
        what: "it says nothing",
        does: "given up after 10 s; the stored UIDs stay, and tokens are pushed with them",
        name: "ferry_hang",
        status: "timed-out",
        class: "timeout",
        says: &["FERRY at {place} did not answer in time"],
        next: "curl -k --cert {lab}/ca/client.pem --key {lab}/ca/client.key '{place}/getUserInfo?username={account}'  must answer; else ask those who run FERRY, or raise timeouts.ferryRequestTimeout",
        hangs: true,
        least: 10,
        ..FERRY
    },
    Cell {
        fault: Fault::Refuses,
        what: "it answers 403",
        name: "ferry_refuse",
        class: "permanent",
        code: "MT0174",
        says: &["FERRY does not accept the client certificate ferry.hostCert (403 Forbidden)"],
        next: "openssl x509 -noout -subject -dates -in {lab}/ca/client.pem  and send its subject to those who run FERRY",
        ..FERRY
    },
    Cell {
        fault: Fault::Garbage,
        what: "what answers does not speak TLS",
        name: "ferry_garbage",
        says: &["FERRY at {place} cannot be reached: what answers there does not speak TLS"],
        ..FERRY
    },
    Cell {
        fault: Fault::Garbage,
        what: "a proxy answers with a page of HTML",
        name: "ferry_page",
        code: "MT0177",
        says: &["what answers at {place} is not FERRY: a page of HTML"],
        next: "look at what answers:  curl -k --cert {lab}/ca/client.pem --key {lab}/ca/client.key '{place}/getUserInfo?username={account}'",
        ..FERRY
    },
    Cell {
        peer: Peer::Ferry,
        play: Play::Ferry,
        what: "its answer 1 s late",
        name: "ferry_slow",
        step: "fetch-uid",
        ..SLOW
    },
];
