//! The candidate policy that an operator tries beside the one in force: begun, told of, ended.
//!
//! Only in memory: it ends with the broker, and as soon as it comes into force itself. Whatever becomes of it, the policy
//! in force alone decides.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::console::policy::PolicyAnswer;
use crate::console::shadow::{ShadowEnd, ShadowFlowStatus, ShadowReport};
use crate::console::status::CandidateStatus;
use crate::exchange::shadow::{Shadow, ShadowFlow, Would};
use crate::limits::ADMIN_TEXT_BYTES_MAX;
use crate::net::clock::Clock;
use crate::policy::{Policy, Source};
use crate::serve::Shared;
use crate::serve::policy::compile_policy;
use crate::wire::printable;

/// The trial that runs, or the last that ran.
#[derive(Debug, Default)]
pub(super) struct Trial(Mutex<Option<Tried>>);

#[derive(Debug)]
struct Tried {
    /// All that is known of it but for the flows.
    report: ShadowReport,
    shadow: Arc<Shadow>,
}

impl Tried {
    const fn has_ended(&self) -> bool {
        self.report.ended.is_some()
    }
}

impl Shared {
    /// Begins to try a candidate.
    pub(super) fn start_shadow(
        &self,
        files: Vec<(String, String)>,
        who: &str,
        why: Option<&str>,
    ) -> Result<PolicyAnswer, String> {
        // Held to the end: no policy comes into force meanwhile.
        let _policy_seen = self.policy_seen.lock();
        let mut trial = self.trial.0.lock();
        if let Some(Tried { report, .. }) = trial.as_ref().filter(|tried| !tried.has_ended()) {
            return Err(format!(
                "{} is tried already, by {}; end that first: exocom policy shadow stop",
                report.candidate, report.who
            ));
        }
        let named: Vec<_> = files
            .iter()
            .map(|(name, text)| Source {
                name: printable(name.as_bytes(), ADMIN_TEXT_BYTES_MAX),
                text: text.clone(),
            })
            .collect();
        let has_store = self.config.store.is_some();
        let compiled = compile_policy(&named, has_store).map_err(|error| error.to_string())?;
        // The version that it would have in the broker's own files; its rules are told by the names that the operator
        // knows.
        let as_applied =
            compile_policy(&self.own_sources(files)?, has_store).map_err(|error| error.to_string())?;
        let version = as_applied.policy.version().to_owned();
        let live = self.broker.world.policy();
        if version == live.version() {
            return Err("it is in force: there is nothing to try".to_owned());
        }
        let report = ShadowReport {
            candidate: version,
            files: named.into_iter().map(|source| source.name).collect(),
            in_force: live.version().to_owned(),
            who: who.to_owned(),
            why: why.map(|why| printable(why.as_bytes(), ADMIN_TEXT_BYTES_MAX)),
            since_unix_s: Clock::unix_s(),
            ended: None,
            flows: Vec::new(),
        };
        let shadow = Arc::new(Shadow::new(Arc::new(compiled.policy)));
        self.broker.world.set_shadow(Some(Arc::clone(&shadow)));
        *trial = Some(Tried {
            report: report.clone(),
            shadow,
        });
        Ok(PolicyAnswer::Shadow(Box::new(report)))
    }

    /// What the candidate would have done otherwise so far; of the last one, if none is tried now.
    pub(super) fn report_shadow(&self) -> Result<PolicyAnswer, String> {
        let trial = self.trial.0.lock();
        let tried = trial.as_ref().ok_or_else(none)?;
        Ok(PolicyAnswer::Shadow(Box::new(self.told(tried))))
    }

    /// The candidate that is tried now.
    pub(super) fn candidate(&self) -> Option<CandidateStatus> {
        let trial = self.trial.0.lock();
        let tried = trial.as_ref().filter(|tried| !tried.has_ended())?;
        Some(CandidateStatus {
            version: tried.report.candidate.clone(),
            who: tried.report.who.clone(),
            since_unix_s: tried.report.since_unix_s,
        })
    }

    /// Tries it no longer. Turns that had begun may still count: those are for the caller to wait for.
    pub(super) fn stop_shadow(&self, who: &str) -> Result<PolicyAnswer, String> {
        if !self.end_trial(who) {
            return Err(none());
        }
        self.report_shadow()
    }

    /// Ends the trial of a candidate that has come into force.
    pub(super) fn end_trial_of(&self, policy: &Policy) {
        let trial = self.trial.0.lock();
        let is_it = trial
            .as_ref()
            .is_some_and(|tried| tried.report.candidate == policy.version());
        drop(trial);
        if is_it {
            self.end_trial("it has come into force");
        }
    }

    /// Ends the trial that runs; says whether one did.
    pub(super) fn end_trial(&self, by: &str) -> bool {
        let mut trial = self.trial.0.lock();
        let Some(tried) = trial.as_mut().filter(|tried| !tried.has_ended()) else {
            return false;
        };
        self.broker.world.set_shadow(None);
        let report = self.told(tried);
        tried.report.in_force.clone_from(&report.in_force);
        tried.report.ended = Some(ShadowEnd {
            at_unix_s: Clock::unix_s(),
            by: by.to_owned(),
        });
        tracing::info!(by, "trial of a policy ended: {}", report.outcome());
        true
    }

    fn told(&self, tried: &Tried) -> ShadowReport {
        let mut report = tried.report.clone();
        if !tried.has_ended() {
            self.broker
                .world
                .policy()
                .version()
                .clone_into(&mut report.in_force);
        }
        let flows = tried.shadow.report();
        report.flows = flows.into_iter().map(|flow| self.told_flow(flow)).collect();
        report
    }

    fn told_flow(&self, flow: ShadowFlow) -> ShadowFlowStatus {
        let clock = self.broker.clock;
        let unix_s = |us| i64::try_from(clock.unix_ms_at(us) / 1000).unwrap_or(i64::MAX);
        ShadowFlowStatus {
            would: match flow.would {
                Would::Deny => "deny".to_owned(),
                Would::Allow => "allow".to_owned(),
            },
            service: flow.service.to_string(),
            action: flow.tried.as_str().to_owned(),
            name: flow.name.map(|name| name.to_string()),
            count: flow.count,
            first_unix_s: unix_s(flow.first_us),
            last_unix_s: unix_s(flow.last_us),
            rule_in_force: flow.rule_in_force,
            rule_of_candidate: flow.rule_of_candidate,
            in_force: flow.in_force.map(|version| version.to_string()),
        }
    }
}

fn none() -> String {
    "no candidate is tried; begin with: exocom policy shadow start FILE".to_owned()
}
