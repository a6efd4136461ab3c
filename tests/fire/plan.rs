//! What happens in a round.

use std::fmt;

use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// The services of the site.
pub const SERVICES: [&str; 4] = ["dune_production", "mu2e_production", "nova_production", "sbnd_production"];
/// The steps whose children are ours.
pub const STEPS: [&str; 4] = ["zero", "one", "two", "three"];
/// What must have happened before a test ends by itself: every kind of shot that hit, of pause and of process.
pub const EVERYTHING: [&str; 14] = [
    "kill worker",
    "kill guardian",
    "kill both",
    "SIGTERM",
    "SIGINT",
    "SIGHUP",
    "freeze",
    "pause kdc",
    "pause smtp",
    "pause pushgateway",
    "run",
    "runs resume",
    "runs list",
    "runs cancel",
];
/// The services of the laboratory that are paused.
const PAUSED: [&str; 3] = ["kdc", "smtp", "pushgateway"];

/// What a step's child does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Fails for good.
    Fail,
    /// Asks to be tried again.
    Again,
    /// Never ends.
    Hang,
    /// Never ends, and hears no SIGTERM.
    Deaf,
    /// Leaves a process in a session of its own.
    Away,
    /// Says more than a pipe holds.
    Flood,
}

impl fmt::Display for Mood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fail => "fail",
            Self::Again => "again",
            Self::Hang => "hang",
            Self::Deaf => "deaf",
            Self::Away => "away",
            Self::Flood => "flood",
        })
    }
}

/// Whom of an `mt` a shot is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victims {
    Worker,
    Guardian,
    WorkerThenGuardian,
    GuardianThenWorker,
}

/// What is done to somebody.
#[derive(Clone, Copy, Debug)]
pub enum Shot {
    /// `kill -9`
    Kill(Victims),
    /// A request to end, as service managers and people send it.
    Ask(Signal),
    /// SIGSTOP, and SIGCONT so many milliseconds later.
    Freeze(Victims, u64),
}

/// One `mt`.
#[derive(Clone, Debug)]
pub struct Actor {
    /// Its arguments.
    pub words: Vec<&'static str>,
    /// Milliseconds from the beginning of the round.
    pub at: u64,
}

/// A service of the laboratory that says nothing for a while.
#[derive(Clone, Copy, Debug)]
pub struct Pause {
    pub name: &'static str,
    pub at: u64,
    pub until: u64,
}

/// See the module's documentation. Times are milliseconds from the beginning.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub actors: Vec<Actor>,
    /// Who, when, what.
    pub shots: Vec<(usize, u64, Shot)>,
    /// Service, step, what its child does.
    pub moods: Vec<(&'static str, &'static str, Mood)>,
    pub pauses: Vec<Pause>,
}

impl Plan {
    pub fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let actors: Vec<Actor> = (0..random.random_range(2..=4)).map(|n| Actor::new(n, &mut random)).collect();
        let shots = (0..random.random_range(2..=6)).map(|_| {
            let actor = random.random_range(0..actors.len());
            (actor, actors[actor].at + random.random_range(0..1_500), Shot::new(&mut random))
        });
        let mut shots: Vec<_> = shots.collect();
        shots.sort_by_key(|(_, at, _)| *at);
        let moods = (0..random.random_range(0..=3)).map(|_| {
            let all = [Mood::Fail, Mood::Again, Mood::Hang, Mood::Deaf, Mood::Away, Mood::Flood];
            let of = |list: &[&'static str], random: &mut StdRng| *list.choose(random).expect("not empty");
            (of(&SERVICES, &mut random), of(&STEPS, &mut random), *all.choose(&mut random).expect("not empty"))
        });
        let moods = moods.collect();
        let pauses = random.random_bool(0.5).then(|| {
            let (at, length) = (random.random_range(0..1_000), random.random_range(500..5_000));
            Pause { name: PAUSED.choose(&mut random).expect("not empty"), at, until: at + length }
        });
        Self { seed, actors, shots, moods, pauses: pauses.into_iter().collect() }
    }
}

impl Actor {
    /// What it is called in the tally.
    pub fn name(&self) -> &'static str {
        match self.words[..] {
            ["run", ..] => "run",
            ["runs", "resume", ..] => "runs resume",
            ["runs", "list", ..] => "runs list",
            ["runs", "cancel", ..] => "runs cancel",
            ref words => panic!("{words:?} has no name"),
        }
    }

    fn new(number: usize, random: &mut StdRng) -> Self {
        let workflow = *["fire-skip", "fire-wait"].choose(random).expect("not empty");
        let words = match random.random_range(0..12) {
            // Somebody works in every round.
            _ if number == 0 => vec!["run", workflow],
            0..=2 => vec!["run", workflow],
            3..=4 => vec!["run", workflow, "--new"],
            5..=7 => vec!["run", workflow, "-s", SERVICES.choose(random).expect("not empty")],
            8 => vec!["runs", "resume", "--interrupted"],
            9 => vec!["runs", "resume", "--failed"],
            10 => vec!["runs", "list", "--watch"],
            _ => vec!["runs", "cancel", "latest"],
        };
        Self { words, at: if number == 0 { 0 } else { random.random_range(0..1_500) } }
    }
}

impl Shot {
    /// What it is called in the tally.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Kill(Victims::Worker) => "kill worker",
            Self::Kill(Victims::Guardian) => "kill guardian",
            Self::Kill(Victims::WorkerThenGuardian | Victims::GuardianThenWorker) => "kill both",
            Self::Ask(signal) => signal.as_str(),
            Self::Freeze(..) => "freeze",
        }
    }

    fn new(random: &mut StdRng) -> Self {
        let all = [Victims::Worker, Victims::Guardian, Victims::WorkerThenGuardian, Victims::GuardianThenWorker];
        let victims = *all.choose(random).expect("not empty");
        match random.random_range(0..10) {
            0..=4 => Self::Kill(victims),
            5..=6 => {
                let asked = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];
                Self::Ask(*asked.choose(random).expect("not empty"))
            }
            // Longer than anybody waits for the store: the others go on unrecorded.
            7 if random.random_bool(0.1) => Self::Freeze(victims, 14_000),
            _ => Self::Freeze(victims, random.random_range(20..2_000)),
        }
    }
}
