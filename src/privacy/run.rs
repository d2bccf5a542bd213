//! A plan at work: charge a step, draw its batch, add its noise (rules P1 to P8).

use std::fmt;

use super::keys::{Key, KeySource, Purpose};
use super::laplace::DiscreteLaplace;
use super::ledger::{Ledger, LedgerHead, Usage};
use super::noise::{Drawn, Mechanism};
use super::plan::PrivacyPlan;
use super::sampler;
use super::statement::PrivacyStatement;
#[cfg(test)]
use crate::mutation::{Mutation, current};
use crate::{Error, Result};

/// A run with its ledger open. Holds the ledger's lock as long as it lives.
pub struct PrivateRun {
    plan: PrivacyPlan,
    mechanism: Mechanism,
    keys: KeySource,
    ledger: Ledger,
    run: String,
    units: usize,
    charged: u64,
    charged_histogram: bool,
    #[cfg(test)]
    resumed_at: u64,
}

impl PrivateRun {
    pub(super) fn new(
        plan: PrivacyPlan,
        mechanism: Mechanism,
        keys: KeySource,
        ledger: Ledger,
        run: &str,
        units: usize,
        charged: Usage,
    ) -> Self {
        PrivateRun {
            plan,
            mechanism,
            keys,
            ledger,
            run: run.to_string(),
            units,
            charged: charged.steps,
            charged_histogram: charged.histogram,
            #[cfg(test)]
            resumed_at: charged.steps,
        }
    }

    /// Steps that are in the ledger, this process's and earlier ones'.
    pub fn charged_steps(&self) -> u64 {
        self.charged
    }

    /// Steps that may still be charged.
    pub fn remaining_steps(&self) -> u64 {
        self.plan.steps() - self.charged
    }

    /// Where the ledger stands; belongs into a checkpoint, see [`Ledger::require_head`].
    pub fn ledger_head(&self) -> LedgerHead {
        self.ledger.head()
    }

    /// The plan that is at work.
    pub fn plan(&self) -> &PrivacyPlan {
        &self.plan
    }

    /// The guarantee for what was charged so far.
    pub fn statement(&self) -> PrivacyStatement {
        self.plan.statement(self.charged)
    }

    /// Charges the next step: its ledger line is on disk before this returns (rule P7).
    ///
    /// # Errors
    /// Budget: all planned steps are charged (rule P8). Other: the ledger cannot be written, or the operating system
    /// gives no random numbers; a step that was charged then stays charged.
    pub fn charge(&mut self) -> Result<ChargedStep> {
        if self.remaining_steps() == 0 {
            return Err(Error::budget(format!(
                "all {} planned steps of run `{}` are charged; one more would pass epsilon {}",
                self.plan.steps(),
                self.run,
                self.plan.target_epsilon()
            ))
            .hint("plan a new run; it composes with this one in the ledger"));
        }
        let index = self.charged;
        self.ledger.charge_step(&self.run, index)?;
        self.charged += 1;
        let sample_key = self.keys.key(index, Purpose::Sample)?;
        let drawn = sampler::poisson(self.units, self.plan.sampling_rate(), &sample_key);
        let members = match self.plan.max_batch_size() {
            Some(most) => sampler::truncate(drawn, most as usize, &sample_key),
            None => drawn,
        };
        let step = ChargedStep {
            index,
            members,
            mechanism: self.mechanism,
            noise_key: self.keys.key(index, Purpose::Noise)?,
        };
        #[cfg(test)]
        let step = self.mutated(step);
        Ok(step)
    }

    /// Whether the noisy histogram is in the ledger, and so gone.
    pub fn charged_histogram(&self) -> bool {
        self.charged_histogram
    }

    /// A noisy histogram: `counts` with exact discrete Laplace noise, negative ones raised to 0. Charged like a step,
    /// before anything is drawn (rule P7), and once.
    ///
    /// One unit may add to `counts` by at most its most records in total.
    ///
    /// # Errors
    /// Budget: none is planned, or it was charged already. Other: as [`PrivateRun::charge`].
    pub fn noisy_histogram(&mut self, counts: &[u64]) -> Result<Vec<u64>> {
        let planned = self.plan.label_histogram_epsilon().filter(|_| !self.charged_histogram);
        let sensitivity = self.plan.unit().max_records();
        #[cfg(test)]
        let sensitivity = mutated::sensitivity(sensitivity);
        let Some(noise) = planned.and_then(|epsilon| DiscreteLaplace::new(epsilon, sensitivity)) else {
            return Err(Error::budget(format!(
                "run `{}` has no histogram of the labels left to pay for",
                self.run
            ))
            .hint("plan a new run; it composes with this one in the ledger"));
        };
        self.ledger.charge_histogram(&self.run)?;
        self.charged_histogram = true;
        #[cfg(test)]
        if current() == Some(Mutation::HistogramWithoutNoise) {
            return Ok(counts.to_vec());
        }
        let mut rng = self.keys.key(0, Purpose::Histogram)?.stream(0);
        let noisy = |count: &u64| (*count as i64).saturating_add(noise.draw(&mut rng)).max(0) as u64;
        Ok(counts.iter().map(noisy).collect())
    }

    /// Ends the run: steps that were planned but not charged no longer count, and it cannot be taken up again.
    ///
    /// # Errors
    /// Other: the ledger cannot be written.
    pub fn end(mut self) -> Result<Ledger> {
        self.ledger.end_run(&self.run)?;
        Ok(self.ledger)
    }

    /// Leaves the run as it is and hands the ledger back.
    pub fn into_ledger(self) -> Ledger {
        self.ledger
    }
}

/// A step that has been paid for: one batch, and one draw of noise, which consumes it.
#[must_use = "the step is charged whether it is used or not"]
pub struct ChargedStep {
    index: u64,
    members: Vec<usize>,
    mechanism: Mechanism,
    noise_key: Key,
}

impl ChargedStep {
    /// Position in the run, from 0. Steps that were charged by a process that died are skipped, not repeated.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The batch: indices of the units drawn, in order. May be empty; the step is to be taken all the same (rule P6).
    pub fn members(&self) -> &[usize] {
        &self.members
    }

    /// (clipped sum + noise) / expected batch size.
    ///
    /// `clipped_sum` [d] is the sum over `members` of vectors with norm at most C, zeros for an empty batch. The noise's
    /// standard deviation is the noise multiplier times C(1 + slack), where the slack pays for the rounding to the grid
    /// and for floating-point error before it (rule P12). The divisor is public (rule P2). There is no second draw
    /// (rule P3): the step is consumed.
    ///
    /// # Errors
    /// Other: a coordinate is not finite or beyond what clipped records can add up to.
    pub fn privatize(self, clipped_sum: &[f64]) -> Result<Vec<f32>> {
        #[cfg(test)]
        if let Some(wrong) = self.mutated(clipped_sum) {
            return wrong;
        }
        self.mechanism.privatize(clipped_sum, &self.noise_key)
    }

    /// Draws the noise for a sum of `d` values that is still being taken; it is the step's one draw.
    ///
    /// # Errors
    /// Usage: the plan's noise is beyond the exact sampler.
    pub fn draw_noise(self, d: usize) -> Result<StepNoise> {
        let drawn = self.mechanism.draw(d, &self.noise_key)?;
        Ok(StepNoise {
            mechanism: self.mechanism,
            drawn,
        })
    }
}

/// The one draw of noise of a step, before its sum is there.
#[must_use = "the step is charged whether it is used or not"]
pub struct StepNoise {
    mechanism: Mechanism,
    drawn: Drawn,
}

impl StepNoise {
    /// As [`ChargedStep::privatize`].
    ///
    /// # Panics
    /// Where the sum is not as long as the noise.
    pub fn privatize(self, clipped_sum: &[f64]) -> Result<Vec<f32>> {
        self.mechanism.add(clipped_sum, self.drawn)
    }
}

// Says nothing of the noise.
impl fmt::Debug for StepNoise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepNoise").finish_non_exhaustive()
    }
}

// Neither names members nor randomness: which records were drawn is secret too.
impl fmt::Debug for ChargedStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChargedStep")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for PrivateRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateRun")
            .field("run", &self.run)
            .field("charged", &self.charged)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod mutated {
    use super::*;
    use crate::mutation::micro_batches;

    /// What the histogram's noise is for, or what it is mistaken for.
    pub fn sensitivity(true_one: u64) -> u64 {
        match current() {
            Some(Mutation::HistogramForgetsUnits) => 1,
            _ => true_one,
        }
    }

    impl PrivateRun {
        /// `step` with the mistakes that happen where it is charged.
        pub(super) fn mutated(&self, mut step: ChargedStep) -> ChargedStep {
            match current() {
                Some(Mutation::ShuffledBatches) => {
                    let size = self.plan.expected_batch_size() as usize;
                    let first = step.index as usize * size;
                    // A fixed order is as good as a shuffled one here: each epoch holds every record once.
                    step.members = (first..first + size).map(|i| i % self.units.max(1)).collect();
                    step.members.sort_unstable();
                }
                Some(Mutation::NoiseReusedAfterResume) => {
                    let repeated = KeySource::Seeded(1).key(step.index - self.resumed_at, Purpose::Noise);
                    step.noise_key = repeated.expect("a seeded key needs no system");
                }
                Some(Mutation::DivideByDrawnBatch) => {
                    step.mechanism.expected_batch_size = step.members.len().max(1) as u64;
                }
                _ => {}
            }
            step
        }
    }

    impl ChargedStep {
        /// What comes of the mistake in the noise that is switched on.
        pub(super) fn mutated(&self, sum: &[f64]) -> Option<Result<Vec<f32>>> {
            let n = micro_batches();
            let with = |share: f64, sum: &[f64], key: &Key| {
                let noise_multiplier = self.mechanism.noise_multiplier * share;
                let mechanism = Mechanism {
                    noise_multiplier,
                    ..self.mechanism
                };
                mechanism.privatize(sum, key)
            };
            match current()? {
                Mutation::NoNoise => Some(with(0.0, sum, &self.noise_key)),
                Mutation::NoiseOverRootOfAccumulation => Some(with((n as f64).sqrt().recip(), sum, &self.noise_key)),
                Mutation::NoiseForEachMicroBatch => {
                    let share = 1.0 / n as f64;
                    let (mut out, zeros) = (with(share, sum, &self.noise_key).ok()?, vec![0.0; sum.len()]);
                    for _ in 1..n {
                        let key = KeySource::Secure.key(0, Purpose::Noise).ok()?;
                        let draw = with(share, &zeros, &key).ok()?;
                        out.iter_mut().zip(draw).for_each(|(o, d)| *o += d);
                    }
                    Some(Ok(out))
                }
                _ => None,
            }
        }
    }
}
