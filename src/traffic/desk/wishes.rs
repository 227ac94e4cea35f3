//! How closely each stream is watched, as the policy wishes it, and what becomes of alarms when it wishes otherwise.
//!
//! What is watched least is learned like the rest, so that it is known when somebody wants to hear of it again.

use std::fmt;

use crate::limits::NEW_FLOW_AFTER_MS;
use crate::traffic::count::Sensitivity;
use crate::traffic::desk::{Desk, Stream};
use crate::traffic::metric::Tuning;

/// How an alarm ends that nobody wants to hear of any more.
const TURNED_OFF: &str = "the policy has turned its alarms off";

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

impl Desk {
    /// Goes by other wishes from now on; the time is in seconds since 1970. Alarms that nobody wants any more are closed.
    pub fn handle_wishes(&mut self, wishes: Wishes, unix_s: u64) {
        let mut ended = Vec::new();
        for (stream, counted) in &mut self.learned.counted {
            counted.attention = (wishes.attention)(stream);
            if counted.attention == Attention::Off {
                ended.extend(counted.open.take());
            }
        }
        for (stream, measured) in &mut self.learned.measured {
            measured.attention = (wishes.attention)(stream);
            if measured.attention == Attention::Off {
                ended.extend(measured.open.take());
            }
        }
        let is_off = |stream: &Stream| (wishes.attention)(stream) == Attention::Off;
        let limited = self.learned.limited.extract_if(.., |stream, _| is_off(stream));
        ended.extend(limited.map(|(_, limited)| limited.open));
        for id in ended {
            self.close(id, unix_s, Some(TURNED_OFF));
        }
        self.wishes = wishes;
    }

    /// How closely a stream is watched that was not known.
    pub(super) fn attention(&self, stream: &Stream) -> Attention {
        (self.wishes.attention)(stream)
    }

    /// Whether a flow that was never seen is an alarm at this time, in seconds since 1970.
    pub(super) fn is_news(&self, stream: &Stream, unix_s: u64) -> bool {
        let watched_s = unix_s.saturating_sub(self.pace.unix_s(self.learned.first_tick));
        let is_old_enough = self
            .wishes
            .new_flow_after_s
            .is_some_and(|after_s| watched_s >= after_s);
        is_old_enough && self.attention(stream) != Attention::Off
    }
}
