//! Toy actions: the engine driven by somebody who has never heard of Kerberos.
#![allow(dead_code, reason = "each test binary uses its own part of the toy")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use managed_tokens::workflow::action::{
    Action, ActionInfo, Attempt, AttemptResult, Class, Failure, ProductState, Provision, Success,
};
use managed_tokens::workflow::code::Code;
use managed_tokens::workflow::definition::{
    ActionSpec, CountsAs, ForEach, Interrupted, Mode, OnFailure, Overlap, Per, Retry, Step, Workflow,
};
use managed_tokens::workflow::event::{Event, Fact, PlannedStep, RunCreated, Selection, SessionStarted};
use managed_tokens::workflow::id::{ProcessId, Product, RunId, StepName, Subject, TargetName, WorkflowName};
use managed_tokens::workflow::lease::Leases;
use managed_tokens::workflow::run::RunState;
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use managed_tokens::workflow::driver::SessionPlan;

/// What a toy does on one try.
#[derive(Clone, Debug)]
pub enum Play {
    /// Succeeds after this long.
    Succeed(Duration),
    /// Fails after this long.
    Fail(Class, Duration),
    /// Waits until it is cancelled, then says so.
    Hang,
    /// The same, and says who did not answer.
    HangAndTell,
    /// Does not even listen to being cancelled.
    Deaf,
    /// Panics.
    Panic,
}

/// One call, as the toy saw it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    pub subject: String,
    pub step: String,
    pub target: String,
    pub session: u32,
    pub number: u32,
}

/// See [`Stage::look`].
pub type Look = Arc<dyn Fn(&str) + Send + Sync>;

/// What the toys of one test share: the script and the log of calls.
#[derive(Default)]
pub struct Stage {
    /// By (subject, step, target), with `*` for any; the n-th entry is for the n-th try of a session, the last for all later ones.
    pub script: Mutex<BTreeMap<(String, String, String), Vec<Play>>>,
    pub calls: Mutex<Vec<Call>>,
    /// When each call began and ended, as time since the start of the test.
    pub times: Mutex<Vec<(Call, Duration, Option<Duration>)>>,
    pub inside: Mutex<BTreeMap<String, (usize, usize)>>,
    pub began: Mutex<Option<Instant>>,
    pub lost: Mutex<BTreeSet<String>>,
    pub unconfigured: Mutex<BTreeSet<String>>,
    pub stand_ins: Mutex<BTreeSet<String>>,
    /// A look for a stand-in never ends.
    pub stand_ins_hang: Mutex<bool>,
    /// Nobody says on what there is to work.
    pub unlisted: Mutex<bool>,
    /// Called with the subject whenever somebody looks at what an earlier session made for it.
    pub look: Mutex<Option<Look>>,
    /// The subject that takes its whole machine down: a defect.
    pub cursed: Mutex<Option<String>>,
}

impl Stage {
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Scripts the tries of a place; `*` fits anything.
    pub fn play(&self, subject: &str, step: &str, target: &str, plays: &[Play]) {
        self.script.lock().unwrap().insert((subject.into(), step.into(), target.into()), plays.to_vec());
    }

    fn next(&self, call: &Call) -> Play {
        let script = self.script.lock().unwrap();
        let any = "*".to_owned();
        for subject in [&call.subject, &any] {
            for step in [&call.step, &any] {
                for target in [&call.target, &any] {
                    if let Some(plays) = script.get(&(subject.clone(), step.clone(), target.clone())) {
                        let nth = usize::try_from(call.number - 1).unwrap().min(plays.len() - 1);
                        return plays[nth].clone();
                    }
                }
            }
        }
        Play::Succeed(Duration::ZERO)
    }

    /// The calls of a step, without session and number, sorted.
    pub fn calls_of(&self, step: &str) -> Vec<(String, String)> {
        let mut calls: Vec<_> = self
            .calls
            .lock()
            .unwrap()
            .iter()
            .filter(|c| c.step == step)
            .map(|c| (c.subject.clone(), c.target.clone()))
            .collect();
        calls.sort();
        calls
    }

    /// The most calls of a step that went on at once.
    pub fn most_at_once(&self, step: &str) -> usize {
        self.inside.lock().unwrap().get(step).map_or(0, |(_, most)| *most)
    }

    /// When the calls of a step and subject ended, since the beginning.
    pub fn ended(&self, subject: &str, step: &str) -> Option<Duration> {
        self.times.lock().unwrap().iter().rev().find(|(c, ..)| c.subject == subject && c.step == step).and_then(|t| t.2)
    }
}

/// One step's action.
pub struct Toy {
    pub stage: Arc<Stage>,
    pub info: ActionInfo,
    pub targets: Vec<String>,
}

impl Action for Toy {
    fn info(&self) -> ActionInfo {
        self.info.clone()
    }

    fn targets<'a>(
        &'a self,
        attempt: &'a Attempt,
        _recorded: &'a [TargetName],
    ) -> BoxFuture<'a, Result<Vec<TargetName>, Failure>> {
        let cursed = self.stage.cursed.lock().unwrap().clone();
        let doomed = attempt.subject.as_ref().is_some_and(|s| Some(s.as_str()) == cursed.as_deref());
        assert!(!doomed, "a toy takes its machine down");
        let gone = self.stage.unconfigured.lock().unwrap().clone();
        let targets = self.targets.iter().filter(|t| !gone.contains(*t)).map(TargetName::new).collect();
        let unlisted = *self.stage.unlisted.lock().unwrap();
        let answer =
            if unlisted { Err(Failure::new(Class::Transient, Code(1), "nobody answers")) } else { Ok(targets) };
        Box::pin(async move { answer })
    }

    fn attempt<'a>(&'a self, attempt: &'a Attempt) -> BoxFuture<'a, AttemptResult> {
        Box::pin(async move {
            let call = Call {
                subject: attempt.subject.as_ref().map_or("-", |s| s.as_str()).to_owned(),
                step: attempt.step.to_string(),
                target: attempt.target.to_string(),
                session: attempt.session,
                number: attempt.number,
            };
            let play = self.stage.next(&call);
            let began = *self.stage.began.lock().unwrap().get_or_insert_with(Instant::now);
            let index = {
                self.stage.calls.lock().unwrap().push(call.clone());
                let mut times = self.stage.times.lock().unwrap();
                times.push((call.clone(), began.elapsed(), None));
                times.len() - 1
            };
            let _inside = Inside::enter(self.stage.clone(), call.step.clone());
            let failed = |class, message: &str| Err(Failure::new(class, Code(1), message));
            let result = match play {
                Play::Succeed(after) => {
                    tokio::time::sleep(after).await;
                    let detail = Some(serde_json::json!({ "made_by": call.subject }));
                    Ok(Success { detail, note: None })
                }
                Play::Fail(class, after) => {
                    tokio::time::sleep(after).await;
                    failed(class, &format!("toy failure {}", call.number))
                }
                Play::Hang => {
                    attempt.cancel.cancelled().await;
                    failed(Class::Transient, "was stopped")
                }
                Play::HangAndTell => {
                    attempt.cancel.cancelled().await;
                    failed(Class::Timeout, "the toy shop does not answer")
                }
                Play::Deaf => std::future::pending().await,
                Play::Panic => panic!("a toy panics"),
            };
            self.stage.times.lock().unwrap()[index].2 = Some(began.elapsed());
            result
        })
    }

    fn stand_in<'a>(&'a self, attempt: &'a Attempt, _failure: &'a Failure) -> BoxFuture<'a, Option<Success>> {
        let found = self.stage.stand_ins.lock().unwrap().contains(attempt.step.as_str());
        let hangs = *self.stage.stand_ins_hang.lock().unwrap();
        Box::pin(async move {
            if hangs {
                std::future::pending::<()>().await;
            }
            found.then(Success::default)
        })
    }

    fn product_state(&self, subject: Option<&Subject>, detail: Option<&Value>) -> ProductState {
        let look = self.stage.look.lock().unwrap().clone();
        if let (Some(look), Some(subject), Some(_)) = (look, subject, detail) {
            look(subject.as_str());
        }
        let product = self.info.provides.first().map(|p| p.product.to_string()).unwrap_or_default();
        match detail {
            Some(_) if !self.stage.lost.lock().unwrap().contains(&product) => {
                ProductState::Usable("still there".into())
            }
            Some(_) | None => ProductState::Lost("it is gone".into()),
        }
    }

    fn is_configured(&self, _subject: Option<&Subject>, target: &TargetName) -> bool {
        !self.stage.unconfigured.lock().unwrap().contains(target.as_str())
    }
}

struct Inside {
    stage: Arc<Stage>,
    step: String,
}

impl Inside {
    fn enter(stage: Arc<Stage>, step: String) -> Self {
        {
            let mut inside = stage.inside.lock().unwrap();
            let (now, most) = inside.entry(step.clone()).or_default();
            *now += 1;
            *most = (*most).max(*now);
        }
        Self { stage, step }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        if let Some((now, _)) = self.stage.inside.lock().unwrap().get_mut(&self.step) {
            *now -= 1;
        }
    }
}

/// A step with defaults that fit most tests.
pub fn step(name: &str, per: Per) -> Step {
    Step {
        name: StepName::new(name),
        action: ActionSpec { name: "Toy".to_owned(), arguments: None },
        per,
        timeout: Duration::from_secs(60),
        parallel: 16,
        retry: Retry { times: 0, backoff: (Duration::ZERO, Duration::ZERO) },
        on_failure: OnFailure::Stop,
        counts_as: CountsAs::Setup,
        when: Mode::ALL.to_vec(),
    }
}

/// kinit → get → store (per credd) → push (per node), and a run-wide notify.
pub fn workflow() -> Workflow {
    let store = Step { on_failure: OnFailure::Continue, ..step("store", Per::Credd) };
    let push = Step {
        on_failure: OnFailure::Continue,
        counts_as: CountsAs::Push,
        when: vec![Mode::Normal, Mode::OnboardPush],
        parallel: 64,
        ..step("push", Per::Node)
    };
    Workflow {
        name: WorkflowName::new("toy"),
        for_each: ForEach::Service,
        deadline: Duration::from_secs(300),
        reserve: Duration::from_secs(30),
        overlap: Overlap::Skip,
        interrupted: Interrupted::ResumeWithin(Duration::from_secs(1800)),
        steps: vec![step("kinit", Per::Subject), step("get", Per::Subject), store, push],
        finally: vec![Step { counts_as: CountsAs::Nothing, ..step("notify", Per::Subject) }],
        source: "toy".into(),
    }
}

fn product(name: &str, outlives_process: bool) -> Provision {
    Provision { product: Product::new(name), outlives_process }
}

/// The actions of [`workflow`].
pub fn actions(stage: &Arc<Stage>) -> BTreeMap<StepName, Arc<dyn Action>> {
    let needs = |names: &[&str]| names.iter().map(|n| Product::new(*n)).collect::<Vec<_>>();
    let toy = |info: ActionInfo, targets: &[&str]| -> Arc<dyn Action> {
        let targets = targets.iter().map(|t| (*t).to_owned()).collect();
        Arc::new(Toy { stage: stage.clone(), info, targets })
    };
    BTreeMap::from([
        (StepName::new("kinit"), toy(ActionInfo { needs: vec![], provides: vec![product("Ticket", false)] }, &["-"])),
        (
            StepName::new("get"),
            toy(ActionInfo { needs: needs(&["Ticket"]), provides: vec![product("Token", true)] }, &["-"]),
        ),
        (
            StepName::new("store"),
            toy(ActionInfo { needs: needs(&["Ticket"]), provides: vec![] }, &["schedd1", "schedd2"]),
        ),
        (
            StepName::new("push"),
            toy(ActionInfo { needs: needs(&["Ticket", "Token"]), provides: vec![] }, &["node1", "node2"]),
        ),
        (StepName::new("notify"), toy(ActionInfo::default(), &["-"])),
        (StepName::new("verify"), toy(ActionInfo::default(), &["-"])),
    ])
}

fn planned(step: &Step) -> PlannedStep {
    PlannedStep {
        name: step.name.clone(),
        action: step.action.name.clone(),
        per: step.per,
        counts_as: step.counts_as,
        on_failure: step.on_failure,
    }
}

/// The fact that makes a run of this workflow for these subjects.
pub fn created(workflow: &Workflow, subjects: &[&str], mode: Mode) -> RunCreated {
    RunCreated {
        id: RunId::generate(),
        workflow: workflow.name.clone(),
        definition: "toy".to_owned(),
        for_each: workflow.for_each,
        mode,
        selection: Selection::default(),
        subjects: subjects.iter().map(|s| Subject::new(*s)).collect(),
        steps: workflow.steps.iter().map(planned).collect(),
        finally: workflow.finally.iter().map(planned).collect(),
    }
}

pub fn by() -> SessionStarted {
    SessionStarted {
        process: ProcessId::generate(),
        host: "mt01".to_owned(),
        boot_id: "boot".to_owned(),
        pid: std::process::id(),
        start_ticks: None,
        trigger: "test".to_owned(),
        trace: None,
    }
}

/// A run whose first session has begun, as state and history.
pub fn begin(created: RunCreated) -> RunState {
    let at = jiff::Timestamp::now();
    let mut state = RunState::begin(&Event { seq: 0, at, session: 0, fact: Fact::RunCreated(created) }).unwrap();
    state.apply(&Event { seq: 1, at, session: 1, fact: Fact::SessionStarted(by()) }).unwrap();
    state
}

/// A session of this workflow for these subjects.
pub fn plan(workflow: &Workflow, stage: &Arc<Stage>, subjects: &[&str], leases: &Path) -> SessionPlan {
    SessionPlan {
        workflow: Arc::new(workflow.clone()),
        actions: actions(stage),
        configured: subjects.iter().map(|s| Subject::new(*s)).collect(),
        newer: BTreeMap::new(),
        leases: Leases::new(leases),
        stop: CancellationToken::new(),
    }
}
