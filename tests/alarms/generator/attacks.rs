//! What is done to a flow, and when: attacks that whoever knew the true rate would be sure of.

use rand::RngExt;
use rand_pcg::Pcg64Mcg;

use super::{Attack, AttackKind, DAY, HOUR, Kind, Life, MINUTE, QUIET, TICKS, log_uniform};

/// What makes one sure, in natural logarithms: one in ten million.
const EVIDENCE: f64 = 16.0;
/// Half an hour, in ticks.
const HALF_AN_HOUR: usize = 30 * MINUTE;
/// A burst is of so many messages more, at the least.
const BURST_MIN: f64 = 30.0;

/// Six to eight attacks, well apart, each of a kind that means something for the flow.
pub(super) fn plan(kind: Kind, life: &Life, faint: bool, rng: &mut Pcg64Mcg) -> Vec<Attack> {
    let mut attacks = Vec::new();
    let mut start = QUIET + rng.random_range(0..DAY);
    loop {
        let attack = loop {
            if let Some(attack) = propose(kind, life, start, faint, rng) {
                break attack;
            }
            start += HOUR;
            if start + 10 * HOUR > TICKS {
                return attacks;
            }
        };
        start = attack.end + 18 * HOUR + rng.random_range(0..2 * DAY);
        attacks.push(attack);
        if start + 10 * HOUR > TICKS {
            return attacks;
        }
    }
}

/// One attack, unless it could not be told from chance: whoever knew the true rate would be sure of it (one in ten
/// million) within a minute; of a faint one, within half an hour. A ramp has its two hours.
fn propose(kind: Kind, life: &Life, start: usize, faint: bool, rng: &mut Pcg64Mcg) -> Option<Attack> {
    let expected = |from: usize, to: usize| -> f64 {
        let extra = f64::from(life.extra[from..to].iter().sum::<u32>());
        life.rate[from..to].iter().sum::<f64>() + extra
    };
    let only_bursts = matches!(kind, Kind::Denials | Kind::Cron | Kind::Timer | Kind::Jittery);
    let attacks = if Kind::FRESH.contains(&kind) { 7 } else { 6 };
    let attack = match if only_bursts {
        0
    } else {
        rng.random_range(0..attacks)
    } {
        0 | 1 => Attack {
            kind: AttackKind::Burst,
            start,
            end: start + rng.random_range(MINUTE..=10 * MINUTE),
            factor: log_uniform(rng, 4.0, 20.0),
        },
        2 => Attack {
            kind: AttackKind::LowAndSlow,
            start,
            end: start + rng.random_range(3 * HOUR..8 * HOUR),
            factor: log_uniform(rng, 1.8, 4.0),
        },
        3 => Attack {
            kind: AttackKind::Ramp,
            start,
            end: start + 2 * HOUR,
            factor: 3.3,
        },
        4 => Attack {
            kind: AttackKind::Drop,
            start,
            end: start + rng.random_range(HOUR..4 * HOUR),
            factor: rng.random_range(0.0..0.35),
        },
        6 => Attack {
            kind: AttackKind::Pulses,
            start,
            end: start + rng.random_range(20 * MINUTE..HOUR),
            factor: log_uniform(rng, 4.0, 20.0),
        },
        _ => Attack {
            kind: AttackKind::Silence,
            start,
            end: start + rng.random_range(20 * MINUTE..2 * HOUR),
            factor: 0.0,
        },
    };
    if attack.kind == AttackKind::Ramp {
        return (expected(attack.start, attack.end) >= 300.0).then_some(attack);
    }
    let soon = attack.start + if faint { HALF_AN_HOUR } else { MINUTE };
    let until = soon.min(attack.end);
    let usual = expected(attack.start, until).max(1e-3);
    let seen = match attack.kind {
        AttackKind::Burst => {
            let part = (until - attack.start) as f64 / (attack.end - attack.start) as f64;
            usual
                + (usual.max(life.measure * (until - attack.start) as f64) * (attack.factor - 1.0))
                    .max(BURST_MIN * part)
        }
        AttackKind::Pulses => {
            usual + usual.max(life.measure * (until - attack.start) as f64) * (attack.factor - 1.0) / 2.0
        }
        _ => usual * attack.factor,
    };
    (evidence(seen, usual) >= EVIDENCE).then_some(attack)
}

/// The logarithm of how much likelier `seen` is under its own mean than under the usual one.
fn evidence(seen: f64, usual: f64) -> f64 {
    usual - seen
        + if seen > 0.0 {
            seen * (seen / usual).ln()
        } else {
            0.0
        }
}

/// Does to the flow what the attack says.
pub(super) fn inflict(life: &mut Life, attack: &Attack, rng: &mut Pcg64Mcg) {
    let length = (attack.end - attack.start) as f64;
    for tick in attack.start..attack.end {
        let is_more = matches!(attack.kind, AttackKind::Burst | AttackKind::Pulses);
        let usual = life.rate[tick].max(if is_more { life.measure } else { 0.0 });
        match attack.kind {
            AttackKind::Burst => {
                let more = ((attack.factor - 1.0) * usual).max(BURST_MIN / length);
                life.rate[tick] += more;
            }
            AttackKind::Pulses if (tick - attack.start) % (3 * MINUTE) < MINUTE / 2 => {
                life.rate[tick] += (attack.factor - 1.0) * usual;
            }
            AttackKind::Pulses => {}
            AttackKind::LowAndSlow => scale(life, tick, attack.factor, rng),
            AttackKind::Ramp => {
                let minutes = ((tick - attack.start) / MINUTE) as f64;
                scale(life, tick, 1.01_f64.powf(minutes), rng);
            }
            AttackKind::Drop | AttackKind::Silence => scale(life, tick, attack.factor, rng),
        }
    }
}

fn scale(life: &mut Life, tick: usize, factor: f64, rng: &mut Pcg64Mcg) {
    life.rate[tick] *= factor;
    let scaled = f64::from(life.extra[tick]) * factor;
    life.extra[tick] = scaled as u32 + u32::from(rng.random_bool(scaled.fract()));
}
