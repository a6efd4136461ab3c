//! Random fire: several `mt` at once on one state directory, shot at with every signal while services fail, hang and pause.
//! After each round everything that was promised is looked up in the store and in the children's own log.
//!
//! A round is made from one number, so that a bad one can be tried again. `FIRE_SEED` is the first round's number,
//! `FIRE_ROUNDS` says how many follow (`forever` is a number, too). The plan of a round is the same every time; how
//! the processes meet is up to the machine, so a rare meeting may need the same round several times.
//!
//! | file | subject |
//! |---|---|
//! | `plan` | what happens in a round, from its number |
//! | `round` | makes it happen, and what is left when it is over |
//! | `oracle` | what must be true then |

use std::time::Instant;

use support::corner::Corner;
use support::lab::Lab;

#[path = "../support/mod.rs"]
mod support;

mod oracle;
mod plan;
mod round;

/// An ordinary test ends after so many rounds if everything has happened in them, and goes on until it has: a shot hits nobody
/// who has ended before it. Too many mean that something never happens.
const ROUNDS: u64 = 7;
const TOO_MANY: u64 = 60;
/// Its first round's number: the plans of the seven have everything.
const SEED: u64 = 1305;
/// A store grows with its rounds, and so does the time to check it. Then a new one begins.
const ROUNDS_OF_A_SITE: u64 = 40;

#[test]
fn whoever_is_killed_stopped_or_asked_to_end_what_was_acknowledged_is_there_and_a_service_has_one_owner() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap_or(u64::MAX));
    let first = number("FIRE_SEED").unwrap_or(SEED);
    let rounds = number("FIRE_ROUNDS");
    let Some(lab) = Lab::up() else { return };
    let began = Instant::now();
    let mut tally = round::Tally::default();
    let mut seeds = (0..rounds.unwrap_or(TOO_MANY)).map(|n| first.wrapping_add(n)).peekable();
    let mut sites = 0;
    let is_over = |tally: &round::Tally| {
        rounds.is_none() && tally.rounds >= ROUNDS && tally.never().is_empty() && tally.messages > 0
    };
    while seeds.peek().is_some() && !is_over(&tally) {
        sites += 1;
        let corner = Corner::new(&lab, &format!("fire-{sites}"));
        let mut site = round::Site::new(&corner);
        for seed in seeds.by_ref().take(usize::try_from(ROUNDS_OF_A_SITE).expect("a small number")) {
            println!("FIRE_SEED={seed} FIRE_ROUNDS=1   after {:.0?}: {tally}", began.elapsed());
            site.round(&plan::Plan::new(seed), &mut tally);
            if is_over(&tally) {
                break;
            }
        }
        site.remove();
    }
    println!("{tally} in {:.0?}", began.elapsed());
    if rounds.is_none() {
        assert_eq!(tally.never(), [""; 0], "what never happened in {tally}");
        assert!(tally.finished > 0 && tally.messages > 0, "nothing was done, or nobody told: {tally}");
    }
}
