//! How closely each stream is watched, as the policy wishes it.
//!
//! What is watched least is learned like the rest, so that it is known when somebody wants to hear of it again.

use std::fmt;

use crate::limits::NEW_FLOW_AFTER_MS;
use crate::traffic::count::Sensitivity;
use crate::traffic::desk::Stream;
use crate::traffic::metric::Tuning;

/// How closely a stream is watched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Attention {
    /// It is learned, and raises no alarm.
    Off,
    /// Only what is glaring raises one.
    Low,
    /// As it is tuned.
    #[default]
    Normal,
    /// Also what is faint, with more false alarms.
    High,
}

impl Attention {
    /// What a detector of counts goes by.
    pub(super) fn sensitivity(self) -> Sensitivity {
        match self {
            Self::Low => Sensitivity::LOW,
            Self::Off | Self::Normal => Sensitivity::default(),
            Self::High => Sensitivity::HIGH,
        }
    }

    /// What a detector of metrics goes by.
    pub(super) fn tuning(self) -> Tuning {
        match self {
            Self::Low => Tuning::low(),
            Self::Off | Self::Normal => Tuning::default(),
            Self::High => Tuning::high(),
        }
    }

    /// A mean is worth an alarm if it is so many times what was expected at the most.
    pub(super) fn metric_effect(self) -> f64 {
        match self {
            Self::Low => 3.0,
            Self::Off | Self::Normal => 1.5,
            Self::High => 1.2,
        }
    }
}

/// What is to be watched.
pub struct Wishes {
    /// How closely each stream.
    pub attention: Box<dyn Fn(&Stream) -> Attention + Send + Sync>,
    /// A flow is news once the desk has watched for so long, in seconds; `None`: never.
    pub new_flow_after_s: Option<u64>,
}

impl Default for Wishes {
    fn default() -> Self {
        Self {
            attention: Box::new(|_| Attention::default()),
            new_flow_after_s: Some(NEW_FLOW_AFTER_MS / 1_000),
        }
    }
}

impl fmt::Debug for Wishes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wishes")
            .field("new_flow_after_s", &self.new_flow_after_s)
            .finish_non_exhaustive()
    }
}
