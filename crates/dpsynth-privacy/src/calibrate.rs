//! The accountant turned round: what keeps within an epsilon.
//!
//! [`Target`] gives the smallest noise multiplier for a number of steps, the most steps for a noise multiplier, and what
//! each batch size makes of the budget.

use rayon::prelude::*;
use serde::Serialize;

use super::accountant::{Adjacency, MAX_STEPS, MIN_NOISE_MULTIPLIER, Phase, check_delta, edgeworth, gdp, pld, rdp};
use crate::{Error, Result};

/// How far above the smallest the noise multiplier may lie, as a fraction.
const PRECISION: f64 = 1e-4;

/// The largest noise multiplier that is tried.
const MOST: f64 = 1e7;

/// The smallest noise multiplier (to 0.01 %) with which `steps` steps at `sampling_rate` stay within
/// (`target_epsilon`, `delta`) when one record is added or removed; never one that goes above it.
///
/// # Errors
/// Usage: a value out of range, or no noise is enough.
pub fn noise_multiplier(target_epsilon: f64, delta: f64, sampling_rate: f64, steps: u64) -> Result<f64> {
    Target::new(target_epsilon, delta)?.noise_multiplier(sampling_rate, steps)
}

/// The smallest noise multiplier of a target by accountants that spend no budget.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Compared {
    /// Rényi moments: proven.
    pub rdp: f64,
    /// The central limit: an estimate, can be too small.
    pub gdp: f64,
    /// The Edgeworth expansion of the third order (EW-Tune, Behnia et al. 2022): an estimate, can be too small. None where it
    /// has no answer: at few steps.
    pub edgeworth: Option<f64>,
}

/// What may be spent: (epsilon, delta) by the PLD accountant's pessimistic value.
#[derive(Clone, Debug)]
pub struct Target {
    epsilon: f64,
    delta: f64,
    adjacency: Adjacency,
    beside: Vec<Phase>,
}

impl Target {
    /// `epsilon` above 0, `delta` in (0, 1), for add-or-remove-one adjacency.
    ///
    /// # Errors
    /// Usage, naming the value.
    pub fn new(epsilon: f64, delta: f64) -> Result<Self> {
        if !(epsilon > 0.0 && epsilon.is_finite()) {
            return Err(Error::usage(format!("epsilon must be a number above 0, not {epsilon}"))
                .hint("values from 0.1 to 10 are usual"));
        }
        check_delta(delta)?;
        Ok(Target {
            epsilon,
            delta,
            adjacency: Adjacency::AddOrRemoveOne,
            beside: Vec::new(),
        })
    }

    /// The same for another adjacency.
    pub fn with_adjacency(self, adjacency: Adjacency) -> Self {
        Target { adjacency, ..self }
    }

    /// The same where `phases` are paid from it too.
    pub fn beside(self, phases: &[Phase]) -> Self {
        Target {
            beside: phases.to_vec(),
            ..self
        }
    }

    /// Epsilon, from above, of the phase and all that is beside it.
    fn spent(&self, phase: Phase) -> Result<f64> {
        let phases: Vec<Phase> = self.beside.iter().copied().chain([phase]).collect();
        pld::epsilon_above(&phases, self.adjacency, self.delta)
    }

    /// Sensitivity over noise of the Gaussian mechanism that spends the target in one use.
    fn mu(&self) -> f64 {
        gdp::mu_within(self.epsilon, self.delta)
    }

    /// The smallest noise multiplier (to 0.01 %) with which `steps` steps at `sampling_rate` stay within the target;
    /// never one that goes above it, and never below [`MIN_NOISE_MULTIPLIER`].
    ///
    /// # Errors
    /// Usage: a value out of range, or no noise is enough.
    pub fn noise_multiplier(&self, sampling_rate: f64, steps: u64) -> Result<f64> {
        self.noise_multiplier_of(sampling_rate, |sigma| Phase::new(sampling_rate, sigma, steps))
    }

    /// The same for any Gaussian phase, given as a function of its noise multiplier.
    ///
    /// # Errors
    /// As [`Target::noise_multiplier`].
    pub fn noise_multiplier_of(&self, sampling_rate: f64, phase: impl Fn(f64) -> Result<Phase>) -> Result<f64> {
        let steps = phase(1.0)?.steps();
        // The central limit's answer (accountant::gdp, solved for σ) to begin with.
        let guess = (self.mu() / sampling_rate).powi(2) / steps as f64;
        let mut search = Search::new(self.epsilon, -1.5);
        let mut sigma = guess.ln_1p().sqrt().recip().clamp(MIN_NOISE_MULTIPLIER, MOST);
        loop {
            search.note(sigma, self.spent(phase(sigma)?)?);
            match (&search.within, &search.over) {
                (Some(within), Some(over)) if within.x - over.x <= PRECISION => return Ok(within.at),
                (Some(within), None) if within.at <= MIN_NOISE_MULTIPLIER => return Ok(MIN_NOISE_MULTIPLIER),
                (None, Some(over)) if over.at >= MOST => {
                    return Err(Error::usage(format!(
                        "no noise multiplier up to {MOST:e} keeps {steps} steps at sampling rate {sampling_rate} within epsilon {}",
                        self.epsilon
                    ))
                    .hint("take fewer steps, a larger epsilon or a larger delta"));
                }
                _ => sigma = search.next(PRECISION).exp().clamp(MIN_NOISE_MULTIPLIER, MOST),
            }
        }
    }

    /// The same by the other accountants, to 0.01 %: what is won by composing distributions. None of them decides.
    ///
    /// # Errors
    /// As [`Target::noise_multiplier`]; an adjacency that one of them does not know.
    pub fn compared(&self, sampling_rate: f64, steps: u64) -> Result<Compared> {
        let spent = |sigma: f64, epsilon: &dyn Fn(&[Phase]) -> Result<f64>| -> Result<f64> {
            let own = Phase::new(sampling_rate, sigma, steps)?;
            let phases: Vec<Phase> = self.beside.iter().copied().chain([own]).collect();
            epsilon(&phases)
        };
        let between = |mut over: f64, mut enough: f64, epsilon: &dyn Fn(&[Phase]) -> Result<f64>| -> Result<f64> {
            while enough / over > 1.0 + PRECISION {
                let middle = (enough * over).sqrt();
                match spent(middle, epsilon)? <= self.epsilon {
                    true => enough = middle,
                    false => over = middle,
                }
            }
            Ok(enough)
        };
        let by = |epsilon: &dyn Fn(&[Phase]) -> Result<f64>| between(MIN_NOISE_MULTIPLIER, MOST, epsilon);
        let (adjacency, delta) = (self.adjacency, self.delta);
        Ok(Compared {
            rdp: by(&|phases| Ok(rdp::epsilon(phases, adjacency, delta)?.epsilon))?,
            gdp: by(&|phases| Ok(gdp::epsilon(phases, adjacency, delta)?.value()))?,
            edgeworth: {
                // An expansion is no distribution: at few steps what it says of epsilon rises and falls again. Down from where
                // there is noise enough, to the first noise that is too little; none where there is none near.
                let third = |phases: &[Phase]| Ok(edgeworth::epsilon(phases, adjacency, delta)?[2].value());
                let proven = self.noise_multiplier(sampling_rate, steps)?;
                let mut found = None;
                let mut enough = 2.0 * proven;
                while enough > 0.5 * proven && found.is_none() {
                    let less = enough / 1.01;
                    match spent(less, &third)? <= self.epsilon {
                        true => enough = less,
                        false => found = Some(between(less, enough, &third)?),
                    }
                }
                found
            },
        })
    }

    /// The most steps with `noise_multiplier` at `sampling_rate` that stay within the target, at most [`MAX_STEPS`]:
    /// with one step more they do not.
    ///
    /// # Errors
    /// Usage: a value out of range, or not even one step stays within it.
    pub fn steps(&self, sampling_rate: f64, noise_multiplier: f64) -> Result<u64> {
        Phase::new(sampling_rate, noise_multiplier, 1)?;
        let a_step = sampling_rate.powi(2) * noise_multiplier.powi(-2).exp_m1();
        let most = MAX_STEPS as f64;
        let mut search = Search::new(self.epsilon, 0.7);
        let mut steps = (self.mu().powi(2) / a_step).round().clamp(1.0, most);
        loop {
            let phase = Phase::new(sampling_rate, noise_multiplier, steps as u64)?;
            search.note(steps, self.spent(phase)?);
            steps = match (&search.within, &search.over) {
                (Some(within), Some(over)) if over.at - within.at <= 1.0 => return Ok(within.at as u64),
                (Some(within), None) if within.at >= most => return Ok(MAX_STEPS),
                (None, Some(over)) if over.at <= 1.0 => {
                    return Err(Error::usage(format!(
                        "not even one step with noise multiplier {noise_multiplier} at sampling rate {sampling_rate} stays within epsilon {}",
                        self.epsilon
                    ))
                    .hint("take more noise, a smaller sampling rate or a larger epsilon"));
                }
                (within, over) => {
                    let least = within.as_ref().map_or(1.0, |w| w.at + 1.0);
                    let most = over.as_ref().map_or(most, |o| o.at - 1.0);
                    search.next(1.0 / steps).exp().round().clamp(least, most)
                }
            };
        }
    }

    /// What each of `batch_sizes` makes of the target with `records` records.
    ///
    /// The planner of Sander, Stock and Sablayrolles 2023, "TAN without a burn". Where the sampling rate is small and σ
    /// is above about 2, epsilon depends on the total signal-to-noise ratio η = q·√(T/2)/σ alone: larger batches cost
    /// compute and gain nothing. Below, larger batches buy a larger η. The most that any batch size can have is that of
    /// the full batch, μ/√2 for the Gaussian mechanism with sensitivity over noise μ that spends the target.
    ///
    /// # Errors
    /// Usage: no batch sizes, one that is 0 or above `records`, delta not below one over `records`, steps or epochs out
    /// of range, no noise is enough.
    pub fn batch_plan(&self, records: u64, length: Length, batch_sizes: &[u64]) -> Result<BatchPlan> {
        if batch_sizes.is_empty() {
            return Err(Error::usage("there is no batch size to plan for").hint("give some, such as 256,1024,4096"));
        }
        if self.delta * records as f64 >= 1.0 {
            return Err(Error::usage(format!(
                "delta {:e} is not below one over {records} records: it would allow publishing one of them",
                self.delta
            ))
            .hint("1/(N ln N) is usual"));
        }
        let mut batch_sizes = batch_sizes.to_vec();
        batch_sizes.sort_unstable();
        batch_sizes.dedup();
        let choices: Vec<BatchChoice> = batch_sizes
            .par_iter()
            .map(|size| self.batch_choice(records, length, *size))
            .collect::<Result<_>>()?;
        let sensitivity = match self.adjacency {
            Adjacency::AddOrRemoveOne => 1.0,
            Adjacency::ReplaceOne => 2.0,
        };
        let best = self.mu() / sensitivity / std::f64::consts::SQRT_2;
        let knee = choices.iter().position(|c| c.signal_to_noise_total * KNEE >= best);
        Ok(BatchPlan { choices, best, knee })
    }

    fn batch_choice(&self, records: u64, length: Length, batch_size: u64) -> Result<BatchChoice> {
        if batch_size == 0 || batch_size > records {
            return Err(Error::usage(format!(
                "a batch size must be from 1 to the number of records, {records}, not {batch_size}"
            ))
            .hint("the batch size is the expected number of records in a step"));
        }
        let sampling_rate = batch_size as f64 / records as f64;
        let steps = match length {
            Length::Steps(steps) => steps,
            Length::Epochs(epochs) if epochs > 0.0 && epochs.is_finite() => (epochs / sampling_rate).ceil() as u64,
            Length::Epochs(epochs) => {
                return Err(
                    Error::usage(format!("the number of epochs must be above 0, not {epochs}"))
                        .hint("an epoch is as many records drawn as there are"),
                );
            }
        };
        let noise_multiplier = self.noise_multiplier(sampling_rate, steps)?;
        Ok(BatchChoice {
            batch_size,
            sampling_rate,
            steps,
            noise_multiplier,
            noise_per_record: noise_multiplier / batch_size as f64,
            signal_to_noise: batch_size as f64 / noise_multiplier,
            signal_to_noise_total: sampling_rate * (steps as f64 / 2.0).sqrt() / noise_multiplier,
            epochs: steps as f64 * sampling_rate,
        })
    }
}

/// How long a run of the batch planner is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Length {
    /// The same number of steps for every batch size: larger batches cost more compute.
    Steps(u64),
    /// The same compute for every batch size: larger batches take fewer steps.
    Epochs(f64),
}

/// A batch size is at the knee where its η is within this factor of the best: in the limit of small sampling rates
/// that is σ = 2, where √(σ²(e^(1/σ²) − 1)) = 1.07.
const KNEE: f64 = 1.07;

/// What a batch size makes of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct BatchChoice {
    /// B: the expected number of records in a step.
    pub batch_size: u64,
    /// q = B/N.
    pub sampling_rate: f64,
    /// T.
    pub steps: u64,
    /// σ: the smallest that stays within the target.
    pub noise_multiplier: f64,
    /// σ/B: the noise on the averaged gradient, in clipping norms.
    pub noise_per_record: f64,
    /// B/σ.
    pub signal_to_noise: f64,
    /// η = q·√(T/2)/σ.
    pub signal_to_noise_total: f64,
    /// T·q: the compute.
    pub epochs: f64,
}

/// What each batch size makes of a budget, from the smallest to the largest.
#[derive(Clone, Debug)]
pub struct BatchPlan {
    choices: Vec<BatchChoice>,
    best: f64,
    knee: Option<usize>,
}

impl BatchPlan {
    /// By batch size, ascending; at least one.
    pub fn choices(&self) -> &[BatchChoice] {
        &self.choices
    }

    /// The η of the full batch: no batch size has more.
    pub fn best_signal_to_noise_total(&self) -> f64 {
        self.best
    }

    /// The smallest batch size from which more hardly pays: η within 7 % of the best. `None` where all are smaller.
    pub fn knee(&self) -> Option<&BatchChoice> {
        self.knee.map(|at| &self.choices[at])
    }

    /// The noise multiplier with which a batch of `batch_size` records shows, cheaply, how a run with `of` would train:
    /// the same σ/B, and the same number of steps. NOT PRIVATE: it is for public or simulated data, or for a search that
    /// is charged by itself.
    pub fn simulate(of: &BatchChoice, batch_size: u64) -> f64 {
        batch_size as f64 * of.noise_per_record
    }
}

/// A value that was tried.
#[derive(Clone, Copy)]
struct Tried {
    at: f64,
    /// ln of it.
    x: f64,
    /// ln ε.
    y: f64,
}

/// Looks for the value at which epsilon is the target. ln ε is smooth in the logarithm of σ and of T: the secant, kept
/// off the ends of the bracket so that it shrinks from both sides.
struct Search {
    target: f64,
    /// d ln ε / d ln value.
    slope: f64,
    /// How many values were tried.
    tries: f64,
    last: Option<Tried>,
    within: Option<Tried>,
    over: Option<Tried>,
}

impl Search {
    /// `slope` is a guess; its sign must be right.
    fn new(target: f64, slope: f64) -> Self {
        Search {
            target,
            slope,
            tries: 0.0,
            last: None,
            within: None,
            over: None,
        }
    }

    fn note(&mut self, value: f64, epsilon: f64) {
        let tried = Tried {
            at: value,
            x: value.ln(),
            y: epsilon.max(1e-12).ln(),
        };
        if let Some(last) = self.last {
            let slope = (tried.y - last.y) / (tried.x - last.x);
            // Noise and the flat ends of the curve are no slopes.
            if slope.is_finite() && slope / self.slope > 0.2 && slope / self.slope < 5.0 {
                self.slope = slope;
            }
        }
        self.last = Some(tried);
        if epsilon <= self.target {
            self.within = Some(tried);
        } else {
            self.over = Some(tried);
        }
        self.tries += 1.0;
    }

    /// The logarithm of what to try next; `precision` is that of the answer.
    fn next(&self, precision: f64) -> f64 {
        match (self.within, self.over) {
            (Some(within), Some(over)) => {
                let (a, b) = if within.x < over.x {
                    (within, over)
                } else {
                    (over, within)
                };
                let width = b.x - a.x;
                let secant = a.x + (self.target.ln() - a.y) / ((b.y - a.y) / width);
                let margin = (0.4 * precision).max(0.02 * width);
                // Aim a little beyond the answer as seen from the nearer end, so that the next bracket is narrow.
                let aim = if secant - a.x < b.x - secant {
                    secant + margin
                } else {
                    secant - margin
                };
                let inside = margin.min(0.5 * width);
                if aim.is_finite() {
                    aim.clamp(a.x + inside, b.x - inside)
                } else {
                    0.5 * (a.x + b.x)
                }
            }
            (one, other) => {
                // Beyond the answer by a little, and by more each time that this was not enough.
                let Some(from) = one.or(other) else { return 0.0 };
                let step = ((self.target.ln() - from.y) / self.slope).clamp(-3.0, 3.0);
                let away = if one.is_some() == (self.slope > 0.0) { 1.0 } else { -1.0 };
                from.x + step + away * (0.03 * step.abs() + 0.003) * self.tries.powi(2)
            }
        }
    }
}
