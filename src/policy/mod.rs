//! stub
#![allow(missing_docs)]
use crate::identity::Identity;
use crate::wire::name::{MessageName, Pattern};
use std::sync::Arc;
use std::time::Duration;
#[derive(Debug)]
pub struct Policy;
#[derive(Debug, Clone)]
pub struct Permit {
    rule: Arc<str>,
    terms: Terms,
}
#[derive(Debug, Clone)]
pub struct Terms {
    pub reply_within: Duration,
    pub payload_max: Option<usize>,
}
#[derive(Debug)]
pub struct Denial;
pub enum Action {
    Send,
    Receive,
}
impl Denial {
    pub fn rule(&self) -> &str {
        "no grant"
    }
}
impl Permit {
    pub fn terms(&self) -> &Terms {
        &self.terms
    }
    pub fn rule(&self) -> &str {
        &self.rule
    }
}
impl Policy {
    pub fn decide(&self, _: &Identity, _: Action, n: &MessageName) -> Result<Permit, Denial> {
        if n.as_str().starts_with("denied") {
            return Err(Denial);
        }
        Ok(Permit {
            rule: "x:1".into(),
            terms: Terms {
                reply_within: Duration::from_secs(10),
                payload_max: None,
            },
        })
    }
    pub fn decide_subscription(&self, _: &Identity, p: &Pattern) -> Result<Permit, Denial> {
        if p.as_str().starts_with("denied") {
            return Err(Denial);
        }
        Ok(Permit {
            rule: "x:1".into(),
            terms: Terms {
                reply_within: Duration::from_secs(10),
                payload_max: None,
            },
        })
    }
    pub fn admit(&self, _: &Identity, _: Option<&str>) -> Result<(), Denial> {
        Ok(())
    }
    pub fn version(&self) -> &str {
        "v"
    }
}
