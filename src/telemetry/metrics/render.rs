//! From what is kept to the text that is pushed: pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use prometheus::{GaugeVec, HistogramOpts, HistogramVec, Opts, Registry, TextEncoder};

use super::families::{self as f, FAMILIES, Family, Kind, NAMESPACE};
use super::stored::{Sendings, Stage, Stored, SubjectSamples, TargetSamples, Took, WorkflowSamples};
use crate::config::{Credds, Service, TokenGetter};
use crate::workflow::counters::CounterKey;
use crate::workflow::definition::ForEach;
use crate::workflow::id::{Subject, TargetName, WorkflowName};

/// What the Go service called its daily job; other workflows go by their own names.
const EXECUTABLES: &[(&str, &str)] = &[("ferry-refresh", "refresh-uids-from-ferry")];

/// Consecutive errors that nobody has been told of. `None` where they cannot be known.
pub type Counts = Option<BTreeMap<CounterKey, u32>>;

/// What has series: what is configured now. All else is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configured {
    services: BTreeMap<Subject, ConfiguredService>,
    accounts: BTreeSet<Subject>,
    workflows: BTreeSet<WorkflowName>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct ConfiguredService {
    issuer: String,
    nodes: BTreeSet<TargetName>,
    credds: ConfiguredCredds,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum ConfiguredCredds {
    /// The token goes to no credd.
    None,
    One(TargetName),
    /// As the collector said last.
    Any,
}

impl Configured {
    /// What these services and workflows have.
    pub fn new(services: &[Service], workflows: impl IntoIterator<Item = WorkflowName>) -> Self {
        Self {
            services: services.iter().map(|s| (Subject::new(s.name.as_str()), ConfiguredService::of(s))).collect(),
            accounts: services.iter().map(|s| Subject::new(s.account.as_str())).collect(),
            workflows: workflows.into_iter().collect(),
        }
    }

    fn has(&self, samples: &SubjectSamples) -> bool {
        self.workflows.contains(&samples.workflow) && self.has_subject(samples.for_each, &samples.subject)
    }

    /// Is it a configured service, or the account of one?
    pub fn has_subject(&self, for_each: ForEach, subject: &Subject) -> bool {
        match for_each {
            ForEach::Service => self.services.contains_key(subject),
            ForEach::Account => self.accounts.contains(subject),
        }
    }
}

impl ConfiguredService {
    fn of(service: &Service) -> Self {
        Self {
            issuer: service.issuer_service.to_string(),
            nodes: service.nodes.iter().map(|node| TargetName::new(node.as_str())).collect(),
            credds: match (service.token_getter, &service.credds) {
                (TokenGetter::GetToken, _) => ConfiguredCredds::None,
                (TokenGetter::StoreAndGetToken, Credds::Fixed(credd)) => {
                    ConfiguredCredds::One(TargetName::new(credd.as_str()))
                }
                (TokenGetter::StoreAndGetToken, Credds::Collector { .. }) => ConfiguredCredds::Any,
            },
        }
    }

    fn has_credd(&self, credd: &TargetName) -> bool {
        match &self.credds {
            ConfiguredCredds::None => false,
            ConfiguredCredds::One(one) => one == credd,
            ConfiguredCredds::Any => true,
        }
    }
}

/// Everything that is known of what is configured, in Prometheus's text format. No series comes twice.
///
/// # Errors
/// If the `prometheus` crate refuses a name or a label: a defect.
pub fn render(stored: &Stored, counts: &Counts, configured: &Configured) -> Result<String, prometheus::Error> {
    let mut series = Series::default();
    for samples in stored.workflows.values().filter(|s| configured.workflows.contains(&s.workflow)) {
        workflow(&mut series, samples, configured);
    }
    for samples in stored.subjects.values().filter(|samples| configured.has(samples)) {
        match samples.for_each {
            ForEach::Service => {
                if let Some(known) = configured.services.get(&samples.subject) {
                    service(&mut series, samples, known);
                }
            }
            ForEach::Account => account(&mut series, samples),
        }
    }
    if let Some(counts) = counts {
        errors(&mut series, counts, configured);
    }
    series.into_text()
}

fn workflow(series: &mut Series, samples: &WorkflowSamples, configured: &Configured) {
    let name = samples.workflow.as_str();
    let executable = EXECUTABLES.iter().find(|(workflow, _)| *workflow == name).map_or(name, |(_, old)| old);
    for (stage, took) in &samples.stages {
        series.gauge(&f::STAGE_DURATION, &[executable, stage], took.seconds());
    }
    let run = samples.run.to_string();
    series.gauge(&f::RUN_INFO, &[name, &run, samples.status.as_str(), &samples.host], 1.0);
    series.gauge(&f::RUN_DURATION, &[name], samples.took.seconds());
    series.time(&f::LAST_RUN, &[name], Some(samples.ended_at));
    let tries = |sendings: &Sendings| [("true", sendings.succeeded_at), ("false", sendings.failed_at)];
    for (kind, sendings) in &samples.admins {
        tries(sendings).iter().for_each(|(success, at)| series.time(&f::ADMIN_LAST_SENT, &[kind, success], *at));
        series.duration(&f::ADMIN_SEND_DURATION, &[kind], sendings.took);
    }
    for (service, sendings) in samples.services.iter().filter(|(s, _)| configured.services.contains_key(s)) {
        let service = service.as_str();
        tries(sendings).iter().for_each(|(success, at)| series.time(&f::SERVICE_LAST_SENT, &[service, success], *at));
    }
    if !samples.services.is_empty() {
        series.observe(&f::SERVICE_SEND_DURATION, &[], &samples.service_took);
    }
}

fn service(series: &mut Series, samples: &SubjectSamples, known: &ConfiguredService) {
    let (name, issuer) = (samples.subject.as_str(), known.issuer.as_str());
    series.time(&f::TOKEN_EXPIRES, &[name], samples.token_expires_at);
    series.time(&f::LAST_SUCCESS, &[name], samples.succeeded_at);
    if samples.stages.contains_key(&Stage::Push) {
        series.gauge(&f::FAILED_SERVICES_PUSH, &[], f64::from(u8::from(samples.push_failed)));
    }
    for (stage, targets) in &samples.stages {
        for (target, of_target) in targets {
            match stage {
                Stage::Kinit => {
                    series.duration(&f::KINIT_DURATION, &[issuer], of_target.took);
                    series.failures(&f::FAILED_KINIT, &[issuer], of_target);
                }
                Stage::GetToken => {
                    series.time(&f::LAST_TOKEN_GET, &[issuer], of_target.succeeded_at);
                    series.duration(&f::TOKEN_GET_DURATION, &[issuer], of_target.took);
                    series.failures(&f::FAILED_TOKEN_GET, &[issuer], of_target);
                }
                Stage::StoreToken => {
                    if known.has_credd(target) {
                        let labels = [issuer, target.as_str()];
                        series.time(&f::LAST_TOKEN_STORE, &labels, of_target.succeeded_at);
                        series.duration(&f::TOKEN_STORE_DURATION, &labels, of_target.took);
                        series.failures(&f::FAILED_TOKEN_STORE, &labels, of_target);
                    }
                }
                Stage::Ping => {
                    if known.nodes.contains(target) {
                        series.observe(&f::PING_DURATION, &[target.as_str()], &of_target.observed);
                        series.failures(&f::FAILED_PING, &[target.as_str()], of_target);
                    }
                }
                Stage::Push => {
                    if known.nodes.contains(target) {
                        let labels = [issuer, target.as_str()];
                        series.time(&f::LAST_TOKEN_PUSH, &labels, of_target.succeeded_at);
                        series.duration(&f::TOKEN_PUSH_DURATION, &labels, of_target.took);
                        series.failures(&f::FAILED_TOKEN_PUSH, &labels, of_target);
                    }
                }
                Stage::FetchUid | Stage::StoreUid => {}
            }
        }
    }
}

fn account(series: &mut Series, samples: &SubjectSamples) {
    for (stage, targets) in &samples.stages {
        for target in targets.values() {
            match stage {
                Stage::FetchUid => {
                    series.observe(&f::FERRY_REQUEST_DURATION, &[], &target.observed);
                    series.failures(&f::FERRY_REQUEST_ERRORS, &[], target);
                }
                Stage::StoreUid => series.time(&f::LAST_FERRY_REFRESH, &[], target.succeeded_at),
                Stage::Kinit | Stage::GetToken | Stage::StoreToken | Stage::Ping | Stage::Push => {}
            }
        }
    }
}

/// Zero where there is no counter: nothing has failed there.
fn errors(series: &mut Series, counts: &BTreeMap<CounterKey, u32>, configured: &Configured) {
    for (subject, service) in &configured.services {
        let count = |target| counts.get(&CounterKey { subject: subject.clone(), target }).copied().unwrap_or(0);
        let name = subject.as_str();
        series.gauge(&f::SETUP_ERRORS, &[name], f64::from(count(None)));
        for node in &service.nodes {
            series.gauge(&f::PUSH_ERRORS, &[name, node.as_str()], f64::from(count(Some(node.clone()))));
        }
    }
}

/// Every series, by family and label values.
#[derive(Default)]
struct Series {
    gauges: BTreeMap<&'static str, BTreeMap<Vec<String>, f64>>,
    histograms: BTreeMap<&'static str, BTreeMap<Vec<String>, Vec<Took>>>,
}

impl Series {
    fn gauge(&mut self, family: &Family, labels: &[&str], value: f64) {
        let merged = |known: &mut f64| match family.kind {
            Kind::Greatest => *known = known.max(value),
            Kind::Sum | Kind::Histogram => *known += value,
        };
        let series = self.gauges.entry(family.name).or_default();
        series.entry(values(family, labels)).and_modify(merged).or_insert(value);
    }

    fn observe(&mut self, family: &Family, labels: &[&str], took: &[Took]) {
        self.histograms.entry(family.name).or_default().entry(values(family, labels)).or_default().extend(took);
    }

    fn time(&mut self, family: &Family, labels: &[&str], at: Option<Timestamp>) {
        if let Some(at) = at {
            self.gauge(family, labels, at.as_duration().as_secs_f64());
        }
    }

    fn duration(&mut self, family: &Family, labels: &[&str], took: Option<Took>) {
        if let Some(took) = took {
            self.gauge(family, labels, took.seconds());
        }
    }

    fn failures(&mut self, family: &Family, labels: &[&str], target: &TargetSamples) {
        self.gauge(family, labels, f64::from(target.failed));
    }

    fn into_text(self) -> Result<String, prometheus::Error> {
        let registry = Registry::new();
        for family in FAMILIES {
            let opts = || Opts::new(family.name, family.help).namespace(NAMESPACE);
            if let Some(series) = self.gauges.get(family.name) {
                let gauges = GaugeVec::new(opts(), family.labels)?;
                for (labels, value) in series {
                    gauges.get_metric_with_label_values(labels)?.set(*value);
                }
                registry.register(Box::new(gauges))?;
            }
            if let Some(series) = self.histograms.get(family.name) {
                let histograms = HistogramVec::new(HistogramOpts::from(opts()), family.labels)?;
                for (labels, observed) in series {
                    let histogram = histograms.get_metric_with_label_values(labels)?;
                    observed.iter().for_each(|took| histogram.observe(took.seconds()));
                }
                registry.register(Box::new(histograms))?;
            }
        }
        TextEncoder::new().encode_to_string(&registry.gather())
    }
}

fn values(family: &Family, labels: &[&str]) -> Vec<String> {
    debug_assert_eq!(family.labels.len(), labels.len(), "labels of {}", family.name);
    labels.iter().map(|label| (*label).to_owned()).collect()
}
