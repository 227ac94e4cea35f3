//! The decisions: who may connect where, send or receive what, and operate the broker.
//!
//! Each returns evidence that only this room can make, or why not and by which line. Pure: the same policy and
//! the same arguments give the same answer.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::compile::{Operator, Policy, Service};
use super::grants::ServiceId;
use super::rate::Limit;
use super::source::Rule;
use super::terms::Terms;
use crate::identity::{Identity, Role};
use crate::wire::name::{MessageName, Pattern};

/// What a service wants to do with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Publish it.
    Send,
    /// Have it delivered.
    Receive,
}

impl Action {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Send, Self::Receive];

    /// The verb.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Receive => "receive",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Evidence that one message may pass, and how it travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permit {
    rule: Rule,
    terms: Terms,
    limits: Box<[Limit]>,
}

impl Permit {
    /// The line that grants it.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// How the message travels.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// How many such messages may come: all of these count.
    pub fn limits(&self) -> &[Limit] {
        &self.limits
    }
}

/// Evidence that a service may receive every name that a pattern matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionPermit {
    rule: Rule,
}

impl SubscriptionPermit {
    /// The line that grants it; the first one where several do so together.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }
}

/// Evidence that a service may connect to a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    service: Arc<str>,
    rule: Rule,
}

impl Admission {
    /// The name of the service.
    pub fn service(&self) -> &Arc<str> {
        &self.service
    }

    /// The line that lists the service.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }
}

/// What an operator may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capability {
    /// `view`: read traffic, alarms, dead letters and the audit log.
    View,
    /// `apply-policy`: replace the policy.
    ApplyPolicy,
    /// `revoke`: end a certificate's authority.
    Revoke,
    /// `quarantine`: hold, release or discard a service's messages.
    Quarantine,
    /// `replay`: send dead letters again, or drop them.
    Replay,
}

impl Capability {
    /// Every capability, by its word in the policy.
    pub const ALL: [(&'static str, Self); 5] = [
        ("view", Self::View),
        ("apply-policy", Self::ApplyPolicy),
        ("revoke", Self::Revoke),
        ("quarantine", Self::Quarantine),
        ("replay", Self::Replay),
    ];

    /// Its word in the policy.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::ApplyPolicy => "apply-policy",
            Self::Revoke => "revoke",
            Self::Quarantine => "quarantine",
            Self::Replay => "replay",
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Evidence that an operator may do something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorPermit {
    operator: Arc<str>,
    capability: Capability,
    rule: Rule,
}

impl OperatorPermit {
    /// The name of the operator.
    pub fn operator(&self) -> &Arc<str> {
        &self.operator
    }

    /// What they may do.
    pub fn capability(&self) -> Capability {
        self.capability
    }

    /// The line that says so.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }
}

/// Why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum DenialReason {
    /// No line grants it.
    #[error("no line of the policy grants it")]
    NoGrant,
    /// `receives-except` takes it away.
    #[error("receives-except takes it away")]
    Excepted,
    /// A subscription's pattern matches more than the service receives.
    #[error("the pattern matches names that the service does not receive")]
    MoreThanGranted,
    /// The service is not listed.
    #[error("the policy does not list the service")]
    UnknownService,
    /// The service belongs to another zone than the listener.
    #[error("the service belongs to another zone")]
    WrongZone,
    /// The certificate is of another trust domain.
    #[error("the certificate is of another trust domain than the policy")]
    WrongTrustDomain,
    /// An operator where a service is wanted.
    #[error("an operator is not a service")]
    NotAService,
    /// A service where an operator is wanted.
    #[error("a service is not an operator")]
    NotAnOperator,
    /// The operator is not listed.
    #[error("the policy does not list the operator")]
    UnknownOperator,
    /// The operator is listed without this capability.
    #[error("the operator may not {0}")]
    NotCapable(Capability),
}

/// Why something may not be, and the line that says so, if one does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason} ({})", self.rule_or_no_grant())]
pub struct Denial {
    reason: DenialReason,
    rule: Option<Rule>,
}

impl Denial {
    /// Why.
    pub fn reason(&self) -> DenialReason {
        self.reason
    }

    /// The line that forbids it; none where it is only that no line grants it.
    pub fn rule(&self) -> Option<&Rule> {
        self.rule.as_ref()
    }

    /// `file:line`, or `no grant`: what the header `Exo-Rule` says.
    pub fn rule_or_no_grant(&self) -> impl fmt::Display {
        fmt::from_fn(|f| match &self.rule {
            Some(rule) => write!(f, "{rule}"),
            None => f.write_str("no grant"),
        })
    }

    fn without_rule(reason: DenialReason) -> Self {
        Self { reason, rule: None }
    }

    fn by(rule: &Rule, reason: DenialReason) -> Self {
        Self {
            reason,
            rule: Some(rule.clone()),
        }
    }
}

impl Policy {
    /// Whether a service may send or receive a message: a grant matches it, and no exception does. Of several
    /// lines, the permit names the most specific.
    pub fn decide(&self, identity: &Identity, action: Action, name: &MessageName) -> Result<Permit, Denial> {
        let (id, service) = self.service_of(identity)?;
        let grant = match action {
            Action::Send => self
                .sends
                .find(id, name)
                .and_then(|place| service.sends.get(place as usize)),
            Action::Receive => {
                if let Some(place) = self.receives_except.find(id, name)
                    && let Some(except) = service.receives_except.get(place as usize)
                {
                    return Err(Denial::by(&except.rule, DenialReason::Excepted));
                }
                self.receives
                    .find(id, name)
                    .and_then(|place| service.receives.get(place as usize))
            }
        };
        match grant {
            Some(grant) => {
                let of_sender = service.limit.iter().chain(self.terms.limit(name));
                Ok(Permit {
                    rule: grant.rule.clone(),
                    terms: self.terms(name),
                    limits: of_sender.filter(|_| action == Action::Send).cloned().collect(),
                })
            }
            None => Err(Denial::without_rule(DenialReason::NoGrant)),
        }
    }

    /// The services that receive a message, there or not.
    pub fn receivers(&self, name: &MessageName) -> impl Iterator<Item = &Arc<str>> {
        let receiving = (0..).zip(&self.services).filter(|(id, _)| {
            self.receives_except.find(*id, name).is_none() && self.receives.find(*id, name).is_some()
        });
        receiving.map(|(_, service)| &service.name)
    }

    /// Whether a service may receive every name that a pattern matches. Exact: its `receives` together may
    /// cover a pattern that none of them covers alone.
    pub fn decide_subscription(
        &self,
        identity: &Identity,
        pattern: &Pattern,
    ) -> Result<SubscriptionPermit, Denial> {
        let (_, service) = self.service_of(identity)?;
        let Some(first) = service
            .receives
            .iter()
            .find(|grant| grant.pattern.overlaps(pattern))
        else {
            return Err(Denial::without_rule(DenialReason::NoGrant));
        };
        if let Some(except) = service
            .receives_except
            .iter()
            .find(|except| except.pattern.overlaps(pattern))
        {
            return Err(Denial::by(&except.rule, DenialReason::Excepted));
        }
        if !pattern.is_included_in(service.receives.iter().map(|grant| &grant.pattern)) {
            return Err(Denial::without_rule(DenialReason::MoreThanGranted));
        }
        let alone = service
            .receives
            .iter()
            .find(|grant| pattern.is_included_in([&grant.pattern]));
        Ok(SubscriptionPermit {
            rule: alone.unwrap_or(first).rule.clone(),
        })
    }

    /// Whether a service may connect to the listener of a zone. A listener of no zone serves all services, and
    /// a service of no zone may use any listener.
    pub fn admit(&self, identity: &Identity, zone: Option<&str>) -> Result<Admission, Denial> {
        let (_, service) = self.service_of(identity)?;
        match (zone, &service.zone) {
            (Some(listener), Some(zone)) if listener != &*zone.name => {
                Err(Denial::by(&zone.rule, DenialReason::WrongZone))
            }
            _ => Ok(Admission {
                service: Arc::clone(&service.name),
                rule: service.rule.clone(),
            }),
        }
    }

    /// The operator that an identity is.
    pub fn operator(&self, identity: &Identity) -> Result<&Operator, Denial> {
        self.in_trust_domain(identity)?;
        let Role::Operator(name) = &identity.role else {
            return Err(Denial::without_rule(DenialReason::NotAnOperator));
        };
        self.operators
            .iter()
            .find(|operator| operator.name == *name)
            .ok_or_else(|| Denial::without_rule(DenialReason::UnknownOperator))
    }

    fn service_of(&self, identity: &Identity) -> Result<(ServiceId, &Service), Denial> {
        self.in_trust_domain(identity)?;
        let Role::Service(name) = &identity.role else {
            return Err(Denial::without_rule(DenialReason::NotAService));
        };
        self.service_ids
            .get(name)
            .and_then(|&id| Some((id, self.services.get(id as usize)?)))
            .ok_or_else(|| Denial::without_rule(DenialReason::UnknownService))
    }

    fn in_trust_domain(&self, identity: &Identity) -> Result<(), Denial> {
        if identity.trust_domain == self.trust_domain {
            Ok(())
        } else {
            Err(Denial::by(
                &self.trust_domain_rule,
                DenialReason::WrongTrustDomain,
            ))
        }
    }
}

impl Operator {
    /// Whether the operator may do this.
    pub fn may(&self, capability: Capability) -> Result<OperatorPermit, Denial> {
        if self.capabilities.contains(&capability) {
            Ok(OperatorPermit {
                operator: Arc::clone(&self.name),
                capability,
                rule: self.may_rule.clone(),
            })
        } else {
            Err(Denial::by(&self.may_rule, DenialReason::NotCapable(capability)))
        }
    }
}
