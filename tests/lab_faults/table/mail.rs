//! What is wrong with the mail server, while a failure is to be told of. No mail server has a say in the exit code.

use super::{CELL, Cell, Fault, Peer, Play, SLOW, Who};

const MAIL: Cell = Cell {
    peer: Peer::MailServer,
    play: Play::Mail,
    does: "the mail stays in the outbox; the next run sends it",
    back: |lab| lab.fault("smtp", "ok"),
    step: "notify",
    class: "transient",
    next: "look at the mail server",
    exit: &[],
    told: &[],
    ..CELL
};

/// The last is for good.
pub const CELLS: &[Cell] = &[
    Cell {
        fault: Fault::Refuses,
        what: "it refuses the sender",
        name: "smtp_refuse",
        set: |lab| lab.fault("smtp", "refuse"),
        class: "permanent",
        code: "MT0060",
        says: &["the mail server smtp.lab.test:25: permanent error (550): 5.7.1 this server takes no mail from you"],
        next: "correct email.from or the addresses",
        ..MAIL
    },
    Cell {
        fault: Fault::Refuses,
        what: "it turns the connection away (554)",
        name: "smtp_unwelcome",
        set: |lab| lab.gremlin("smtp", "refuse"),
        back: |lab| lab.gremlin("smtp", "ok"),
        class: "permanent",
        code: "MT0060",
        says: &["the mail server smtp.lab.test:25: permanent error (554): 5.3.2 no mail today"],
        next: "ask those who run smtp.lab.test:25 to take mail from this host, or correct email.smtpHost",
        ..MAIL
    },
    Cell {
        fault: Fault::Refuses,
        what: "it says: later",
        name: "smtp_tempfail",
        set: |lab| lab.fault("smtp", "tempfail"),
        code: "MT0062",
        says: &["the mail server smtp.lab.test:25: transient error (451): 4.3.0 try again later"],
        ..MAIL
    },
    Cell {
        fault: Fault::Hangs,
        what: "it accepts connections and says nothing",
        does: "given up after 5 s; the mail stays in the outbox; the next run sends it",
        name: "smtp_silent",
        set: |lab| lab.gremlin("smtp", "hang"),
        back: |lab| lab.gremlin("smtp", "ok"),
        status: "timed-out",
        class: "timeout",
        code: "MT0061",
        says: &["the mail server smtp.lab.test:25 says nothing"],
        least: 5,
        ..MAIL
    },
    Cell {
        fault: Fault::Hangs,
        what: "it greets, and says nothing when it is given a mail",
        does: "given up after 5 s; the mail stays in the outbox; the next run sends it",
        name: "smtp_hang",
        set: |lab| lab.fault("smtp", "hang"),
        status: "timed-out",
        class: "timeout",
        code: "MT0061",
        says: &["the mail server smtp.lab.test:25 says nothing"],
        least: 5,
        ..MAIL
    },
    Cell {
        fault: Fault::Hangs,
        what: "it takes the mail and does not say so",
        does: "given up after 8 s; the next run sends it again, marked as possibly a repeat",
        name: "smtp_lost",
        set: |lab| lab.fault("smtp", "lost"),
        status: "timed-out",
        class: "timeout",
        code: "MT0065",
        says: &["the mail server smtp.lab.test:25 has the mail and does not confirm it"],
        least: 8,
        told: &[Who::Admins],
        ..MAIL
    },
    Cell {
        fault: Fault::Garbage,
        what: "what answers is no mail server",
        name: "smtp_garbage",
        set: |lab| lab.gremlin("smtp", "garbage"),
        back: |lab| lab.gremlin("smtp", "ok"),
        code: "MT0061",
        says: &["what answers at smtp.lab.test:25 is no mail server: "],
        ..MAIL
    },
    Cell {
        peer: Peer::MailServer,
        play: Play::Mail,
        what: "its greeting 1 s late",
        name: "smtp_slow",
        set: |lab| lab.gremlin("smtp", "slow 1"),
        back: |lab| lab.gremlin("smtp", "ok"),
        step: "notify",
        exit: &[],
        told: &[Who::Admins],
        ..SLOW
    },
    Cell {
        fault: Fault::Down,
        what: "nobody answers at its port",
        name: "smtp_killed",
        set: |lab| lab.kill("smtp"),
        back: |_| {},
        code: "MT0061",
        says: &["the mail server smtp.lab.test:25: Connection error: Connection refused"],
        ..MAIL
    },
];
