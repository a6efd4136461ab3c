//! The workflow as it is in force: the file, with the configuration's values laid over it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::{Config, WorkerRetry};
use crate::steps::catalog::ShippedActions;
use crate::workflow::definition::{ActionOverride, Diagnostic, Overrides, Workflow, effective};
use crate::workflow::id::RunId;

/// The definition that is kept with a run, with the values that are in force now.
pub fn pinned(config: &Config, run: RunId, text: &str) -> Result<Workflow, Vec<Diagnostic>> {
    let file = format!("the definition of run {run}");
    let (workflow, _) = Workflow::parse(text, &file, &ShippedActions)?;
    Ok(effective(&workflow, &overrides(config), &file).workflow)
}

/// What the configuration's `timeouts` and `workerType` say about the shipped actions.
pub fn overrides(config: &Config) -> Overrides {
    let (timeouts, workers) = (&config.timeouts, &config.worker_types);
    let rows: [(&str, Option<Duration>, &str, WorkerRetry, &str); 7] = [
        ("Kinit", timeouts.kerberos, "kerberosTimeout", workers.get_kerberos_tickets, "getKerberosTickets"),
        ("GetVaultToken", timeouts.vault_storer, "vaultStorerTimeout", workers.get_token, "getToken"),
        ("StoreInCredd", timeouts.vault_storer, "vaultStorerTimeout", workers.store_and_get_token, "storeAndGetToken"),
        ("Ping", timeouts.ping, "pingTimeout", workers.ping_aggregator, "pingAggregator"),
        ("Push", timeouts.push, "pushTimeout", workers.push_tokens, "pushTokens"),
        // No workerType is about these.
        ("FetchUid", timeouts.ferry_request, "ferryRequestTimeout", WorkerRetry::default(), ""),
        ("StoreUid", timeouts.db, "dbTimeout", WorkerRetry::default(), ""),
    ];
    let by_action: BTreeMap<String, ActionOverride> = rows
        .into_iter()
        .map(|(action, timeout, timeout_key, worker, worker_key)| {
            let given = ActionOverride {
                timeout: timeout.map(|t| (t, format!("timeouts.{timeout_key}"))),
                retries: worker.num_retries.map(|n| (n, format!("workerType.{worker_key}.numRetries"))),
                sleep: worker.retry_sleep.map(|s| (s, format!("workerType.{worker_key}.retrySleep"))),
            };
            (action.to_owned(), given)
        })
        .collect();
    Overrides { deadline: timeouts.global.map(|t| (t, "timeouts.globalTimeout".to_owned())), by_action }
}
