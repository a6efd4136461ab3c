//! How many attempts of a step go on at once.
//!
//! A step has `parallel` permits. An attempt that is older than [`OLD_AFTER`] gives its permit back and goes on, so that
//! a few that hang do not hold up the others; there are never more than twice `parallel` attempts. In a step that fans
//! out, a target on which half of `parallel` old attempts hang gets no new one until one of them ends, and a target
//! that timed out [`TIMEOUTS_IN_A_ROW`] times in a row gets none at all.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::id::TargetName;

/// The age at which an attempt gives its permit back.
pub const OLD_AFTER: Duration = Duration::from_secs(5);

/// So many timeouts in a row on one target of a session close it.
pub const TIMEOUTS_IN_A_ROW: u32 = 3;

/// The target timed out too often in this session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

/// The gate of one step.
#[derive(Clone, Debug)]
pub struct Gate {
    core: Arc<Mutex<Core>>,
    fans_out: bool,
}

/// The right to work on a target; dropping it lets the next one in.
#[derive(Debug)]
pub struct Pass {
    gate: Gate,
    id: u64,
}

#[derive(Debug)]
struct Core {
    parallel: usize,
    next_id: u64,
    inside: BTreeMap<u64, Inside>,
    /// How many inside hold a permit.
    young: usize,
    /// How many inside are old, by target.
    old: BTreeMap<TargetName, usize>,
    waiting: VecDeque<Waiting>,
    timeouts: BTreeMap<TargetName, u32>,
    /// How often somebody who waits was looked at.
    #[cfg(test)]
    looks: u64,
}

#[derive(Debug)]
struct Inside {
    target: TargetName,
    old: bool,
}

#[derive(Debug)]
struct Waiting {
    id: u64,
    target: TargetName,
    answer: oneshot::Sender<Result<(), Closed>>,
}

impl Gate {
    /// A gate with `parallel` permits (at least one).
    pub fn new(parallel: u32, fans_out: bool) -> Self {
        let core = Core {
            parallel: usize::try_from(parallel.max(1)).unwrap_or(usize::MAX / 2),
            next_id: 0,
            inside: BTreeMap::new(),
            young: 0,
            old: BTreeMap::new(),
            waiting: VecDeque::new(),
            timeouts: BTreeMap::new(),
            #[cfg(test)]
            looks: 0,
        };
        Self { core: Arc::new(Mutex::new(core)), fans_out }
    }

    /// Waits for a permit. First come, first served, but nobody waits behind a target that hangs.
    pub async fn enter(&self, target: &TargetName) -> Result<Pass, Closed> {
        let (answer, asked) = oneshot::channel();
        let id = {
            let mut core = self.lock();
            if core.is_closed(target) {
                return Err(Closed);
            }
            let id = core.next_id;
            core.next_id += 1;
            core.waiting.push_back(Waiting { id, target: target.clone(), answer });
            core.admit(self.fans_out);
            id
        };
        // Held from here on: a wait that is given up leaves the queue, or hands its permit on.
        let pass = Pass { gate: self.clone(), id };
        match asked.await {
            Ok(Ok(())) => Ok(pass),
            Ok(Err(Closed)) | Err(_) => Err(Closed),
        }
    }

    /// Tells the gate how an attempt on a target ended: timeouts in a row close it.
    pub fn note(&self, target: &TargetName, timed_out: bool) {
        if !self.fans_out {
            return;
        }
        let mut core = self.lock();
        if timed_out {
            *core.timeouts.entry(target.clone()).or_insert(0) += 1;
        } else {
            core.timeouts.remove(target);
        }
        if core.is_closed(target) {
            core.send_away(target);
        }
    }

    /// How many attempts are inside, and how many of them still hold a permit.
    pub fn load(&self) -> (usize, usize) {
        let core = self.lock();
        (core.inside.len(), core.young)
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        // The core holds no invariant that a panic elsewhere could break half-way.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass {
    /// The attempt has reached [`OLD_AFTER`]: its permit goes to the next one.
    pub fn grow_old(&self) {
        let mut core = self.gate.lock();
        core.grow_old(self.id);
        core.admit(self.gate.fans_out);
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut core = self.gate.lock();
        if !core.leave(self.id) {
            core.give_up(self.id);
        }
        core.admit(self.gate.fans_out);
    }
}

impl Core {
    /// Lets in who may enter. A thousand services can wait here: a full gate looks at nobody.
    fn admit(&mut self, fans_out: bool) {
        let mut i = 0;
        while i < self.waiting.len() && self.has_room() {
            #[cfg(test)]
            {
                self.looks += 1;
            }
            if fans_out && self.is_clogged(&self.waiting[i].target) {
                i += 1;
            } else {
                self.answer(i, Ok(()));
            }
        }
    }

    /// Tells all who wait for a target that it is closed.
    fn send_away(&mut self, target: &TargetName) {
        let mut i = 0;
        while i < self.waiting.len() {
            if &self.waiting[i].target == target {
                self.answer(i, Err(Closed));
            } else {
                i += 1;
            }
        }
    }

    fn answer(&mut self, i: usize, answer: Result<(), Closed>) {
        let Some(waiting) = self.waiting.remove(i) else { return };
        if answer.is_ok() {
            self.young += 1;
            self.inside.insert(waiting.id, Inside { target: waiting.target, old: false });
        }
        // Nobody listens: the wait was given up, and the pass that is being dropped gives the permit back.
        let _given_up = waiting.answer.send(answer);
    }

    /// Removes somebody who waits. At a deadline all of them give up, and may be 200,000: the ids in the queue rise.
    fn give_up(&mut self, id: u64) {
        if let Ok(i) = self.waiting.binary_search_by_key(&id, |waiting| waiting.id) {
            self.waiting.remove(i);
        }
    }

    fn grow_old(&mut self, id: u64) {
        let Some(inside) = self.inside.get_mut(&id).filter(|inside| !inside.old) else { return };
        inside.old = true;
        self.young -= 1;
        *self.old.entry(inside.target.clone()).or_insert(0) += 1;
    }

    /// Was it inside?
    fn leave(&mut self, id: u64) -> bool {
        let Some(inside) = self.inside.remove(&id) else { return false };
        if !inside.old {
            self.young -= 1;
        } else if let Some(old) = self.old.get_mut(&inside.target) {
            *old -= 1;
        }
        true
    }

    fn has_room(&self) -> bool {
        self.young < self.parallel && self.inside.len() < self.parallel.saturating_mul(2)
    }

    fn is_clogged(&self, target: &TargetName) -> bool {
        self.old.get(target).is_some_and(|&old| old >= (self.parallel / 2).max(1))
    }

    /// Only targets of a step that fans out are ever noted.
    fn is_closed(&self, target: &TargetName) -> bool {
        self.timeouts.get(target).is_some_and(|&n| n >= TIMEOUTS_IN_A_ROW)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn target(name: &str) -> TargetName {
        TargetName::new(name)
    }

    fn enter(gate: &Gate, name: &str) -> Option<Result<Pass, Closed>> {
        gate.enter(&target(name)).now_or_never()
    }

    fn inside(gate: &Gate, name: &str) -> Pass {
        enter(gate, name).expect("there is room").expect("it is open")
    }

    #[test]
    fn no_more_than_parallel_young_attempts_go_on_at_once() {
        let gate = Gate::new(2, false);
        let first = inside(&gate, "-");
        let _second = inside(&gate, "-");
        assert!(enter(&gate, "-").is_none());
        drop(first);
        assert!(enter(&gate, "-").is_some());
    }

    #[test]
    fn an_old_attempt_gives_its_permit_back_but_never_beyond_twice_parallel() {
        let gate = Gate::new(2, false);
        let mut passes = Vec::new();
        for _ in 0..2 {
            for _ in 0..2 {
                passes.push(inside(&gate, "-"));
            }
            assert!(enter(&gate, "-").is_none());
            passes.iter().for_each(Pass::grow_old);
        }
        assert_eq!(gate.load(), (4, 0));
        assert!(enter(&gate, "-").is_none(), "a fifth attempt would be more than 2 x parallel");
    }

    #[test]
    fn a_target_that_hangs_gets_no_new_attempt_and_holds_up_no_other() {
        let gate = Gate::new(4, true);
        let stuck = [inside(&gate, "hang"), inside(&gate, "hang")];
        stuck.iter().for_each(Pass::grow_old);
        assert!(enter(&gate, "hang").is_none());
        assert!(matches!(enter(&gate, "healthy"), Some(Ok(_))), "it must not wait behind the one that hangs");
        let [one, _two] = stuck;
        drop(one);
        assert!(enter(&gate, "hang").is_some());
    }

    #[test]
    fn three_timeouts_in_a_row_close_a_target_for_those_who_wait_and_those_who_come() {
        let gate = Gate::new(1, true);
        let busy = inside(&gate, "schedd2");
        let (dead, alive) = (target("schedd2"), target("schedd1"));
        let mut waiting = Box::pin(gate.enter(&dead));
        assert!(waiting.as_mut().now_or_never().is_none());
        gate.note(&dead, true);
        gate.note(&dead, true);
        assert!(waiting.as_mut().now_or_never().is_none(), "two are not enough");
        gate.note(&dead, true);
        assert!(matches!(waiting.as_mut().now_or_never(), Some(Err(Closed))));
        drop(busy);
        assert!(matches!(gate.enter(&dead).now_or_never(), Some(Err(Closed))));
        assert!(matches!(gate.enter(&alive).now_or_never(), Some(Ok(_))));
    }

    #[test]
    fn a_success_in_between_keeps_a_target_open() {
        let gate = Gate::new(1, true);
        for timed_out in [true, true, false, true, true] {
            gate.note(&target("schedd2"), timed_out);
        }
        assert!(matches!(enter(&gate, "schedd2"), Some(Ok(_))));
    }

    #[test]
    fn a_wait_that_is_given_up_costs_no_permit() {
        let gate = Gate::new(1, false);
        let busy = inside(&gate, "-");
        drop(Box::pin(gate.enter(&target("-"))));
        let only = target("-");
        let mut given_up = Box::pin(gate.enter(&only));
        let _ = given_up.as_mut().now_or_never();
        drop(given_up);
        drop(busy);
        assert!(enter(&gate, "-").is_some());
        assert_eq!(gate.load().0, 0);
    }

    #[test]
    fn a_step_that_does_not_fan_out_never_closes() {
        let gate = Gate::new(2, false);
        for _ in 0..10 {
            gate.note(&TargetName::only(), true);
        }
        let stuck = inside(&gate, "-");
        stuck.grow_old();
        assert!(matches!(enter(&gate, "-"), Some(Ok(_))));
    }

    #[test]
    fn those_who_wait_cost_nothing_while_the_gate_is_full() {
        const MANY: u64 = 1000;
        let gate = Gate::new(1, true);
        let busy = inside(&gate, "node0");
        let targets: Vec<TargetName> = (0..MANY).map(|i| target(&format!("node{i}"))).collect();
        let mut waiting: Vec<_> = targets.iter().map(|t| Box::pin(gate.enter(t))).collect();
        for wait in &mut waiting {
            assert!(wait.as_mut().now_or_never().is_none());
        }
        drop(busy);
        for mut wait in waiting {
            drop(wait.as_mut().now_or_never().expect("there is room").expect("it is open"));
        }
        assert!(gate.lock().looks <= 2 * MANY, "{} looks", gate.lock().looks);
    }
}
