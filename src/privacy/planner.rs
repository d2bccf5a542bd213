//! What to train with in the time there is: expected batch size, steps and noise, from public numbers alone.
//!
//! A time is a number of expected draws, T·B: more steps of smaller batches, or fewer of larger ones. The mean of B
//! clipped gradients is seen with noise of σ·C/B in each direction, so a step's signal-to-noise ratio is proportional to
//! B/σ and, since what T steps see adds up while their noise adds up as a root, that of a run to √T·B/σ: over N·√2 this is
//! the η of Sander, Stock and Sablayrolles 2023 ("TAN without a burn", [`super::calibrate::Target::batch_plan`]).
//!
//! Where time is short (σ below about 1), σ hardly falls with the sampling rate, and η is largest for the fewest steps.
//! Where it is not (σ above about 2), η is that of the budget whatever the split, and more steps leave the optimizer more
//! to do with it. So of all splits whose η is within [`TIE`] of the best the one with the most steps is proposed.
//!
//! How many steps may be asked for at all is Adam's matter, not the budget's (Kingma and Ba 2015; β₁ = 0.9, β₂ = 0.999).
//! It moves each weight by at most about the learning rate a step, however clear the gradient is, and averages directions
//! over 1/(1 − β₁) = 10 steps: in fewer, the first noisy gradients make up most of the way. Its second moment is settled
//! after 1/(1 − β₂) = 1000; steps beyond that are a longer walk in noise for the same η.

use rayon::prelude::*;
use serde::Serialize;

use super::plan::{PlanRequest, PrivacyPlan};
use crate::{Error, Result};

/// 1/(1 − β₁) of Adam.
pub const FEWEST_STEPS: u64 = 10;
/// 1/(1 − β₂) of Adam.
pub const MOST_STEPS: u64 = 1000;
/// Splits whose η is at least this share of the best count as equally good.
pub const TIE: f64 = 0.95;
/// Below this sampling rate σ is under 1 for any epsilon above a tenth and at most [`MOST_STEPS`], so that more steps have
/// a smaller η: no need to account for them.
const FREQUENT: f64 = 1e-3;

/// One split of the time into steps and batches, and what the budget makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Offer {
    /// T.
    pub steps: u64,
    /// B, in units of privacy.
    pub expected_batch_size: u64,
    /// q = B/N.
    pub sampling_rate: f64,
    /// σ: the smallest that keeps the whole run within its epsilon.
    pub noise_multiplier: f64,
    /// Epsilon of the whole run, from above.
    pub epsilon: f64,
    /// B/σ, of a step.
    pub signal_to_noise: f64,
    /// η = q·√(T/2)/σ, of the run.
    pub signal_to_noise_total: f64,
    /// η over the largest of all offers, in (0, 1].
    pub relative: f64,
}

impl Offer {
    /// What the plan for `request` comes to.
    ///
    /// # Errors
    /// As [`PrivacyPlan::calibrate`].
    pub fn of(request: &PlanRequest) -> Result<Self> {
        let plan = PrivacyPlan::calibrate(request)?;
        let (steps, sigma, q) = (plan.steps(), plan.noise_multiplier(), plan.sampling_rate());
        Ok(Offer {
            steps,
            expected_batch_size: request.expected_batch_size,
            sampling_rate: q,
            noise_multiplier: sigma,
            epsilon: plan.epsilon_after(steps)?,
            signal_to_noise: request.expected_batch_size as f64 / sigma,
            signal_to_noise_total: q * (steps as f64 / 2.0).sqrt() / sigma,
            relative: 1.0,
        })
    }

    /// T·B: the units of privacy that are expected to be drawn, one as often as it is drawn.
    pub fn draws(&self) -> u64 {
        self.steps * self.expected_batch_size
    }
}

/// All offers for a time, and which of them is proposed.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    offers: Vec<Offer>,
    proposed: usize,
}

impl Proposal {
    /// For what `request` asks (its batch size and steps aside) where time allows `draws` expected draws of a unit.
    ///
    /// Steps double from [`FEWEST_STEPS`] to at most [`MOST_STEPS`], or until hardly anyone is drawn in one. Batches are at most half of the units, and where
    /// `request` bounds their size, so small that they hardly ever reach the bound; time may then be left.
    ///
    /// # Errors
    /// Usage: fewer draws than [`FEWEST_STEPS`]; what [`PrivacyPlan::calibrate`] refuses.
    pub fn new(request: &PlanRequest, draws: u64) -> Result<Self> {
        let bound = request.max_batch_size.map_or(u64::MAX, seldom_full);
        let most = (request.public_size / 2).min(bound).max(1);
        let requests: Vec<PlanRequest> = std::iter::successors(Some(FEWEST_STEPS), |t| Some(2 * t))
            .take_while(|t| *t <= MOST_STEPS && *t <= draws)
            .map(|steps| PlanRequest {
                steps,
                expected_batch_size: round((draws / steps).min(most)),
                ..request.clone()
            })
            .filter(|r| r.steps == FEWEST_STEPS || r.expected_batch_size as f64 >= FREQUENT * r.public_size as f64)
            .collect();
        let mut offers: Vec<Offer> = requests.par_iter().map(Offer::of).collect::<Result<_>>()?;
        let best = offers.iter().map(|o| o.signal_to_noise_total).fold(0.0, f64::max);
        for offer in &mut offers {
            offer.relative = offer.signal_to_noise_total / best;
        }
        let proposed = offers.iter().rposition(|o| o.relative >= TIE).ok_or_else(|| {
            Error::usage(format!(
                "there is time for {draws} draws, too few for {FEWEST_STEPS} steps of one at least"
            ))
            .hint("more time, or shorter records (prepare.max_tokens), makes room for more")
        })?;
        Ok(Proposal { offers, proposed })
    }

    /// The one to take.
    pub fn proposed(&self) -> &Offer {
        &self.offers[self.proposed]
    }

    /// By steps, ascending; the proposed one among them.
    pub fn offers(&self) -> &[Offer] {
        &self.offers
    }
}

/// The largest B whose batches hardly ever reach `max_batch_size`: 1.1·B + 6·√(1.1·B) is at most that, as
/// [`crate::config::FinetuneConfig::max_batch_size`] advises.
fn seldom_full(max_batch_size: u64) -> u64 {
    let root = (9.0 + max_batch_size as f64).sqrt() - 3.0;
    (root * root / 1.1) as u64
}

/// Down to a multiple of 8, where that takes little off.
fn round(batch: u64) -> u64 {
    if batch < 64 { batch } else { batch - batch % 8 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bounded_batch_hardly_ever_reaches_its_bound() {
        for bound in [10u64, 100, 1384, 100_000] {
            let reach = |batch: u64| 1.1 * batch as f64 + 6.0 * (1.1 * batch as f64).sqrt();
            let batch = seldom_full(bound);
            assert!(reach(batch) <= bound as f64, "{batch} of {bound}");
            assert!(reach(batch + 1) > bound as f64, "{batch} of {bound} is not the largest");
        }
    }
}
