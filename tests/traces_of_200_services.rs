//! The trace of a run of 200 services arrives whole, in both protocols, and what that costs:
//!
//!     cargo test --test traces_of_200_services -- --nocapture

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use managed_tokens::config::{Tracing, TracingProtocol};
use managed_tokens::telemetry::traces::{self, Book, Child, Place, Sent, Spans};
use managed_tokens::workflow::action::{Class, Failure, Success};
use managed_tokens::workflow::code::Code;
use managed_tokens::workflow::definition::{ForEach, Mode, OnFailure};
use managed_tokens::workflow::event::{
    AttemptOutcome, Event, Fact, MachineEnd, RunCreated, Selection, SessionEnd, SessionStarted,
};
use managed_tokens::workflow::id::{RunId, StepName, Subject, TargetName, WorkflowName};
use managed_tokens::workflow::run::RunState;
use support::large::{CREDDS, NODES, SERVICES, STEPS, plan, subject, targets};
use support::spans::{self, Span};

mod support;

/// Nothing here takes so long; the limits of a real session are for its collector, not for a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// As long as the real one.
const COMMAND: &str = "rsync --times --chmod=u=rw,go= --no-motd -e 'ssh -o ConnectTimeout=30 -o BatchMode=yes' \
                       tmp/vt_u1234 tmp/vt_u1234-exp_production exppro@gpvm.example.org:/tmp";

/// Every push to the last node fails.
fn outcome(step: &str, target: &TargetName) -> AttemptOutcome {
    if step != "push" || !target.as_str().contains("gpvm04") {
        return AttemptOutcome::Succeeded(Success::default());
    }
    let failure = Failure::new(Class::Transient, Code(40), "it refuses every login");
    AttemptOutcome::Failed(failure.with_output("Permission denied (gssapi-keyex,gssapi-with-mic).\n".repeat(20)))
}

/// A session as the engine records it, with the children of its attempts.
fn session() -> (RunState, Book, Vec<Child>) {
    let start = Timestamp::now();
    let subjects: Vec<Subject> = (0..SERVICES).map(subject).collect();
    let mut facts = vec![
        Fact::RunCreated(RunCreated {
            id: RunId::generate(),
            workflow: WorkflowName::new("token-push"),
            definition: "0".repeat(64),
            for_each: ForEach::Service,
            mode: Mode::Normal,
            selection: Selection::default(),
            subjects: subjects.clone(),
            steps: plan(OnFailure::Continue),
            finally: Vec::new(),
        }),
        Fact::SessionStarted(SessionStarted {
            trace: Some(traces::new_trace_id()),
            ..support::session::session_started()
        }),
    ];
    let mut children = Vec::new();
    for (service, subject) in subjects.iter().enumerate() {
        facts.push(Fact::MachineStarted { subject: subject.clone() });
        for (name, _, per) in STEPS {
            let (subject, step) = (Some(subject.clone()), StepName::new(*name));
            let targets = targets(service, *per);
            facts.push(Fact::StepStarted { subject: subject.clone(), step: step.clone(), targets: targets.clone() });
            for target in targets {
                let (subject, step) = (subject.clone(), step.clone());
                let place = Place {
                    subject: subject.clone(),
                    step: Some(step.clone()),
                    target: Some(target.clone()),
                    number: Some(1),
                };
                let at = |after: usize| start + SignedDuration::from_millis(i64::try_from(after).unwrap());
                facts.push(Fact::AttemptStarted {
                    subject: subject.clone(),
                    step: step.clone(),
                    target: target.clone(),
                    number: 1,
                });
                children.push(Child {
                    place: Arc::new(place),
                    program: "rsync".to_owned(),
                    command: COMMAND.to_owned(),
                    pid: Some(4711),
                    exit: Some(0),
                    how: Some("exit 0".to_owned()),
                    started_at: at(facts.len() - 1),
                    ended_at: at(facts.len()),
                });
                let outcome = outcome(name, &target);
                facts.push(Fact::AttemptEnded { subject, step, target, outcome, retry: false });
            }
        }
        facts.push(Fact::MachineEnded { subject: subject.clone(), how: MachineEnd::Done });
    }
    facts.push(Fact::SessionEnded { how: SessionEnd::Finished });

    let (mut state, mut book) = (None::<RunState>, Book::default());
    for (seq, fact) in (0..).zip(facts) {
        let session = u32::from(seq > 0);
        let at = start + SignedDuration::from_millis(i64::try_from(seq).unwrap());
        let event = Event { seq, at, session, fact };
        match &mut state {
            None => state = Some(RunState::begin(&event).expect("the first event")),
            Some(state) => drop(state.apply(&event).expect("it may follow")),
        }
        book.event(&event);
    }
    (state.expect("there are events"), book, children)
}

/// Answers every request as a collector that has taken it, and keeps the bodies.
fn collector() -> (String, Arc<Mutex<Vec<Vec<u8>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    let bodies: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let kept = bodies.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let kept = kept.clone();
            std::thread::spawn(move || serve(stream, &kept));
        }
    });
    (address, bodies)
}

fn serve(mut stream: TcpStream, kept: &Mutex<Vec<Vec<u8>>>) {
    let mut reader = BufReader::new(stream.try_clone().expect("it can be shared"));
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a number");
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("the whole body");
        kept.lock().unwrap().push(body);
        stream.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n").expect("it waits for an answer");
    }
}

/// The most memory that this process has had, in KB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("it says so");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).expect("a number")
}

#[test]
fn no_span_of_200_services_is_lost_and_it_is_said_what_they_cost() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    for (protocol, read) in
        [(TracingProtocol::Jaeger, spans::jaeger as fn(&[u8]) -> Vec<Span>), (TracingProtocol::Otlp, spans::otlp)]
    {
        let (address, bodies) = collector();
        let tracing = Tracing { url: format!("http://{address}"), protocol };
        let (state, book, children) = session();
        let resource = traces::resource("test");
        let (before, since) = (peak(), Instant::now());
        let spans = Spans::of(&state, &book, children, resource.clone()).expect("it has a trace id");
        let sent = runtime.block_on(traces::send(&tracing, &resource, spans, PATIENCE)).expect("it is taken");
        let (took, more) = (since.elapsed(), peak() - before);

        let bodies = std::mem::take(&mut *bodies.lock().unwrap());
        let bytes: usize = bodies.iter().map(Vec::len).sum();
        let largest = bodies.iter().map(Vec::len).max().unwrap_or_default();
        eprintln!(
            "{protocol:?}: {SERVICES} services, {} spans, {bytes} bytes in {} requests ({largest} the largest), {:.0} ms, peak memory +{more} KB",
            sent.spans,
            bodies.len(),
            took.as_secs_f64() * 1e3,
        );
        let found: Vec<Span> = bodies.iter().flat_map(|body| read(body)).collect();
        let attempts = 2 + CREDDS + 2 * NODES;
        let expected = 1 + SERVICES * (1 + STEPS.len() + 2 * attempts);
        assert_eq!((found.len(), sent), (expected, Sent { spans: expected, bytes }));
        assert!(largest < 1_000_000, "a proxy takes a megabyte at least");
        let root = spans::whole(&found);
        assert_eq!(root.error.as_deref(), Some("200 of 200 machines failed"));
        assert_eq!(Some(root.trace.as_str()), state.run.sessions[0].by.trace.as_deref());
        let failed = found.iter().filter(|s| s.attribute("output").is_some_and(|said| said.len() <= 600)).count();
        assert_eq!(failed, SERVICES, "one attempt of each, with its last words");
    }
}
