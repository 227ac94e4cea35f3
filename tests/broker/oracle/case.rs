//! What clients do in a case: plain data, so that it can be replayed and made smaller.

use std::fmt;

use crate::nats_server::Service;

/// Payloads with their headers that both servers take at most.
pub const PAYLOAD_BYTES_MAX: usize = 4096;

/// Who takes part.
pub const SERVICES: [Service; 2] = [
    Service {
        name: "alpha",
        sends: &["a.*", "b.>", "x", "both", "c.d.*"],
        receives: &["c.*", "d.>", "both", "e.*.f"],
        except: &["c.secret"],
    },
    Service {
        name: "beta",
        sends: &["c.*", "d.>", "both", "e.>"],
        receives: &["a.*", "b.>", "x", "both"],
        except: &[],
    },
];

/// What clients do in turn, each on a connection of its own.
#[derive(Clone)]
pub struct Case {
    /// Of each connection, the place of its service in [`SERVICES`].
    pub connections: Vec<usize>,
    /// What happens.
    pub steps: Vec<Step>,
}

/// What one connection says before anybody listens for the answers.
#[derive(Clone)]
pub struct Step {
    pub connection: usize,
    pub says: Vec<Op>,
    /// Where the bytes are cut into pieces.
    pub cuts: Vec<usize>,
    /// Whether bytes were changed at random, so that the answers need not be word for word the same.
    pub is_garbled: bool,
}

/// Bytes of a client.
#[derive(Clone, PartialEq, Eq)]
pub enum Op {
    /// The same for both servers.
    Bytes(Vec<u8>),
    /// The answer to a request that the connection has got, the `nth` from the last; with `is_first`, to one that
    /// has no answer yet. Says nothing where there is none.
    Answer {
        nth: usize,
        is_first: bool,
        payload: String,
    },
}

impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) if bytes.len() > 400 => {
                let start = bytes.get(..100).unwrap_or_default();
                write!(f, "{} ... ({} bytes)", start.escape_ascii(), bytes.len())
            }
            Self::Bytes(bytes) => write!(f, "{}", bytes.escape_ascii()),
            Self::Answer {
                nth,
                is_first,
                payload,
            } => write!(f, "answer {nth} first={is_first} {payload:?}"),
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = self
            .connections
            .iter()
            .filter_map(|&service| SERVICES.get(service));
        writeln!(
            f,
            "connections of {:?}",
            who.map(|service| service.name).collect::<Vec<_>>()
        )?;
        for step in &self.steps {
            writeln!(f, "  {} says, cut at {:?}:", step.connection, step.cuts)?;
            for op in &step.says {
                writeln!(f, "      {op:?}")?;
            }
        }
        Ok(())
    }
}
