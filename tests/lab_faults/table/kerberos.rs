//! What is wrong with a keytab, or with the KDC.

use super::{CELL, Cell, Ends, Fault, Peer, Play};

const KINIT: Cell = Cell { peer: Peer::Kdc, play: Play::Tickets, ..CELL };

pub const CELLS: &[Cell] = &[
    Cell {
        what: "no keytab",
        name: "missing",
        role: |place| place.keytab("missing"),
        code: "MT0020",
        says: &["there is no keytab {corner}/missing.keytab"],
        next: "put the keytab of dunepro/managedtokens/lab.test@LAB.TEST at {corner}/missing.keytab",
        ..KINIT
    },
    Cell {
        what: "damaged keytab",
        name: "corrupt",
        role: |place| place.keytab("corrupt"),
        code: "MT0021",
        says: &[
            "the keytab {corner}/corrupt.keytab cannot be read: kinit: Unsupported key table format version number",
        ],
        next: "put a fresh copy of the keytab of dunepro/managedtokens/lab.test@LAB.TEST at {corner}/corrupt.keytab; klist -k {corner}/corrupt.keytab must show its keys",
        ..KINIT
    },
    Cell {
        what: "wrong keytab (another principal's)",
        name: "wrong",
        role: |place| place.keytab("wrong"),
        code: "MT0022",
        says: &["the keytab {corner}/wrong.keytab holds no key of dunepro/managedtokens/lab.test@LAB.TEST"],
        next: "put the keytab of dunepro/managedtokens/lab.test@LAB.TEST at {corner}/wrong.keytab; klist -k {corner}/wrong.keytab shows whose it is",
        ..KINIT
    },
    Cell {
        fault: Fault::Refuses,
        what: "it does not take the key: an old keytab (the password was changed since)",
        name: "stale",
        role: |place| place.keytab("stale"),
        code: "MT0023",
        says: &["the KDC does not accept the key in {corner}/stale.keytab"],
        next: "put the new keytab of dunepro/managedtokens/lab.test@LAB.TEST at {corner}/stale.keytab",
        ..KINIT
    },
    Cell {
        fault: Fault::Down,
        what: "no KDC answers",
        does: "the service stops there",
        name: "deadkdc",
        role: |place| place.realm("DEAD.TEST"),
        class: "transient",
        code: "MT0026",
        says: &["no KDC of DEAD.TEST answers: kinit: Cannot contact any KDC for realm 'DEAD.TEST'"],
        next: "KRB5_TRACE=/dev/stderr kinit -k -t {corner}/elsewhere.keytab dunepro@DEAD.TEST  shows whom it asks; look there, and at krb5.conf",
        ..KINIT
    },
    Cell {
        fault: Fault::Hangs,
        what: "a KDC that accepts connections and says nothing",
        does: "ended after the step's time; the service stops there",
        name: "mutekdc",
        role: |place| place.realm("MUTE.TEST"),
        status: "timed-out",
        class: "timeout",
        code: "MT0026",
        says: &["no KDC of MUTE.TEST answers: kinit did not end within"],
        next: "KRB5_TRACE=/dev/stderr kinit -k -t {corner}/elsewhere.keytab dunepro@MUTE.TEST  shows whom it asks; look there, and at krb5.conf",
        hangs: true,
        ends: Ends::WithItsTime,
        ..KINIT
    },
    Cell {
        fault: Fault::Refuses,
        what: "it does not know the principal",
        name: "nobody",
        role: |place| {
            let mut role = place.keytab("elsewhere");
            role["userPrincipalOverride"] = "nobody@LAB.TEST".into();
            role
        },
        code: "MT0024",
        says: &["the KDC does not know nobody@LAB.TEST"],
        next: "correct userPrincipalOverride or kerberosPrincipalPattern, or ask those who run the KDC to make nobody@LAB.TEST",
        ..KINIT
    },
    Cell {
        fault: Fault::Garbage,
        what: "what answers is no KDC",
        name: "noisykdc",
        role: |place| place.realm("NOISE.TEST"),
        class: "transient",
        code: "MT0026",
        says: &["what answers as the KDC of NOISE.TEST is none: kinit: Invalid message type"],
        next: "KRB5_TRACE=/dev/stderr kinit -k -t {corner}/elsewhere.keytab dunepro@NOISE.TEST  shows whom it asks; look there, and at krb5.conf",
        ..KINIT
    },
];
