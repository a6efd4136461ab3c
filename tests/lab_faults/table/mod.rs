//! THE table: every peer of `mt` times every fault, and what becomes of it. The tests play it, `docs/reliability.md` is made from
//! it, and a peer without one of the faults is a failed test.
//!
//! | file | cells of |
//! |---|---|
//! | `kerberos` `vault` `condor` `nodes` | one service of a run, while others are well |
//! | `everybody` | all services of a run |
//! | `mail` | the mail server |
//! | `side` | what is only told of a run: pushgateway, Slack, Loki, trace collector |
//! | `ferry` | FERRY |

use serde_json::{Value, json};

use super::support::lab::Lab;

pub mod condor;
pub mod everybody;
pub mod ferry;
pub mod kerberos;
pub mod mail;
pub mod nodes;
pub mod side;
pub mod vault;

/// Whom `mt` talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Kdc,
    Vault,
    Ldap,
    Credd,
    Collector,
    Node,
    MailServer,
    Pushgateway,
    Slack,
    Loki,
    Traces,
    Ferry,
}

impl Peer {
    pub const ALL: [Self; 12] = [
        Self::Kdc,
        Self::Vault,
        Self::Ldap,
        Self::Credd,
        Self::Collector,
        Self::Node,
        Self::MailServer,
        Self::Pushgateway,
        Self::Slack,
        Self::Loki,
        Self::Traces,
        Self::Ferry,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Kdc => "KDC",
            Self::Vault => "vault",
            Self::Ldap => "LDAP (the vault asks it)",
            Self::Credd => "credd",
            Self::Collector => "collector",
            Self::Node => "node (sshd)",
            Self::MailServer => "mail server",
            Self::Pushgateway => "pushgateway",
            Self::Slack => "Slack",
            Self::Loki => "Loki",
            Self::Traces => "trace collector",
            Self::Ferry => "FERRY",
        }
    }
}

/// What is the matter with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Down,
    Hangs,
    Refuses,
    Garbage,
    Slow,
    /// None of these, and no column of the grid.
    Other,
}

impl Fault {
    /// The columns.
    pub const ALL: [Self; 5] = [Self::Down, Self::Hangs, Self::Refuses, Self::Garbage, Self::Slow];

    pub fn name(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Hangs => "hangs",
            Self::Refuses => "refuses",
            Self::Garbage => "garbage",
            Self::Slow => "slow",
            Self::Other => "other",
        }
    }
}

/// Which test plays a cell, and in which run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Play {
    /// One run for all of its kind, in which each is a service; others are well.
    Tickets,
    Vaults,
    Credds,
    Collectors,
    Nodes,
    /// A run for each, in which every service meets it. In this order: while no token is kept, with kept tokens, and what
    /// cannot be taken back.
    EverybodyFirst,
    EverybodyThen,
    EverybodyLast,
    /// A run for each, with a failure to be told of.
    Mail,
    /// A run for each fault, which all of them meet.
    Side,
    /// A run of ferry-refresh for each.
    Ferry,
}

/// Who hears of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// By mail, with the cause and the next command.
    Admins,
    /// By mail, of their own nodes.
    Stakeholders,
    /// In a line.
    Slack,
}

/// When it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// Each try by itself, before its step's time is.
    ByItself,
    /// Each try with its step's time, which ends it. Then it has [`super::judge::GRACE`].
    WithItsTime,
    /// All that is told when the run has ended, together, within [`super::judge::AFTER_THE_RUN`].
    AfterTheRun,
}

/// What becomes of another target of the same service.
#[derive(Clone, Copy, Debug)]
pub struct Also {
    pub step: &'static str,
    pub target: &'static str,
    pub status: &'static str,
    pub code: &'static str,
}

/// One cell of the grid.
#[derive(Clone, Copy)]
pub struct Cell {
    pub peer: Peer,
    pub fault: Fault,
    pub play: Play,
    /// What is wrong, for people. Empty where another cell of this peer and fault, with the same end, says it.
    pub what: &'static str,
    /// What `mt` does about it, for people.
    pub does: &'static str,
    /// The experiment of the service that meets it, whose role is `production` unless `role_name` says otherwise; of others
    /// the page with what `mt runs show` says.
    pub name: &'static str,
    /// What the service's role has beside account, UID and nodes.
    pub role: fn(&Place) -> Value,
    /// What brings the fault about, and takes it back, where a whole run meets it.
    pub set: fn(&Lab),
    pub back: fn(&Lab),
    /// What else the configuration says, where a whole run meets it.
    pub change: fn(&mut Value),
    /// Where it shows.
    pub step: &'static str,
    pub target: &'static str,
    /// How the target stands in the end.
    pub status: &'static str,
    pub class: &'static str,
    pub code: &'static str,
    /// One of these is in the message. `{x}` is replaced as in [`Place::fill`].
    pub says: &'static [&'static str],
    /// The advice, whole. `-` where there is none but to see `mt explain`.
    pub next: &'static str,
    /// How often it is tried.
    pub tries: usize,
    /// What becomes of the service's push to a good node.
    pub push: &'static str,
    /// What else does not go well for the service. Nothing else may.
    pub also: &'static [Also],
    /// Does the attempt hang? Then the healthy ones must be through before it ends.
    pub hangs: bool,
    /// When each try is over.
    pub ends: Ends,
    /// Seconds that each try takes at least: else the fault was not there, or nobody waited.
    pub least: u32,
    /// How `mt run` ends: while other services are well, and alone; or the one of these that its test plays. Empty: the
    /// peer has no say in it.
    pub exit: &'static [i32],
    /// Who hears of it; of those that only tell people of a run: who hears of the run's failures in spite of it.
    pub told: &'static [Who],
}

pub const GOOD: &str = "succeeded";
pub const NOT_TRIED: &str = "not-attempted";
/// The node whose push `push` tells of.
pub const GOOD_NODE: &str = "node2.lab.test";

/// What most cells have in common.
pub const CELL: Cell = Cell {
    peer: Peer::Kdc,
    fault: Fault::Other,
    play: Play::Tickets,
    what: "",
    does: "the service stops there",
    name: "",
    role: |_| json!({}),
    set: |_| {},
    back: |_| {},
    change: |_| {},
    step: "kinit",
    target: "-",
    status: "failed",
    class: "permanent",
    code: "",
    says: &[],
    next: "-",
    tries: 1,
    push: NOT_TRIED,
    also: &[],
    hangs: false,
    ends: Ends::ByItself,
    least: 0,
    exit: &[10, 11],
    told: &[Who::Admins, Who::Slack],
};

/// A peer that is slow, most of them by a second, and in time.
pub const SLOW: Cell = Cell {
    fault: Fault::Slow,
    does: "waits",
    status: GOOD,
    class: "",
    next: "",
    push: GOOD,
    least: 1,
    exit: &[0],
    told: &[],
    ..CELL
};

/// All of it.
pub fn table() -> impl Iterator<Item = &'static Cell> {
    let all = [
        kerberos::CELLS,
        vault::CELLS,
        everybody::CELLS,
        condor::CELLS,
        nodes::CELLS,
        mail::CELLS,
        side::CELLS,
        ferry::CELLS,
    ];
    all.into_iter().flatten()
}

/// The cells that one test plays.
pub fn played(play: Play) -> Vec<&'static Cell> {
    table().filter(|cell| cell.play == play).collect()
}

impl Cell {
    /// The service as configured.
    pub fn service(&self) -> String {
        format!("{}_{}", self.name, self.role_name())
    }

    /// Only the one account whose permissions the vault takes away has another role.
    pub fn role_name(&self) -> &'static str {
        if self.name.starts_with("forbidden") { "admin" } else { "production" }
    }

    pub fn fails(&self) -> bool {
        self.status != GOOD
    }
}

/// Where a service finds its things.
pub struct Place {
    /// The test's corner of the laboratory.
    pub corner: String,
}

impl Place {
    /// `{corner}` and `{service}` filled in.
    pub fn fill(&self, text: &str, cell: &Cell) -> String {
        text.replace("{corner}", &self.corner).replace("{service}", &cell.service())
    }

    pub fn keytab(&self, name: &str) -> Value {
        json!({ "keytabPathOverride": format!("{}/{name}.keytab", self.corner) })
    }

    /// A principal whose realm's KDC is a bad one.
    pub fn realm(&self, realm: &str) -> Value {
        let mut role = self.keytab("elsewhere");
        role["userPrincipalOverride"] = format!("dunepro@{realm}").into();
        role
    }

    /// Another vault server; `tokens`: a directory of kept ones.
    pub fn vault(&self, server: &str, tokens: &str) -> Value {
        json!({
            "vaultServerOverride": server,
            "serviceCreddVaultTokenPathRootOverride": format!("{}/{tokens}", self.corner),
        })
    }
}

#[test]
fn every_peer_meets_every_fault() {
    for peer in Peer::ALL {
        for fault in Fault::ALL {
            let cells = table().filter(|cell| cell.peer == peer && cell.fault == fault);
            assert_ne!(cells.filter(|cell| !cell.what.is_empty()).count(), 0, "{peer:?} {fault:?}");
        }
    }
}

#[test]
fn a_cell_that_is_not_in_the_documentation_ends_like_one_that_is() {
    let end = |cell: &Cell| (cell.status, cell.class, cell.code, cell.ends);
    for cell in table().filter(|cell| cell.what.is_empty()) {
        let told = table().filter(|told| told.peer == cell.peer && told.fault == cell.fault && !told.what.is_empty());
        assert!(told.map(end).any(|told| told == end(cell)), "{} is like none: {:?}", cell.name, end(cell));
    }
}

#[test]
fn what_is_slow_succeeds_and_no_cell_is_played_twice_under_one_name() {
    let mut names = std::collections::BTreeSet::new();
    for cell in table() {
        assert_eq!(cell.fault == Fault::Slow, !cell.fails(), "{}", cell.what);
        // All side peers are in one run.
        assert!(cell.play == Play::Side || names.insert(cell.name), "{}", cell.name);
    }
}
