//! What to train with in the time there is: expected batch size, steps and noise, from public numbers alone.
//!
//! A time is a number of expected draws, T·B: more steps of smaller batches, or fewer of larger ones. The mean of B clipped
//! gradients is at most C long and is seen with noise of σ·C/B in each of d directions, so a step's signal-to-noise ratio
//! is at best s = B/(σ·√d), and the direction it takes has at best the cosine c = s/√(1 + s²) with the true one. Adam takes
//! steps of a fixed length: T of them go T·c along the true direction and √T across it, so a run is worth √T·c.
//!
//! - Where noise is larger than the signal (s < 1) that is √T·s, the run's signal-to-noise ratio, for which σ decides:
//!   below about 1 it hardly falls with the batch and fewer, larger batches win; above about 2 the ratio is the budget's,
//!   whatever the split (Sander, Stock and Sablayrolles 2023, "TAN without a burn";
//!   [`super::calibrate::Target::batch_plan`]).
//! - Where it is smaller (s > 1), a clearer step goes no further than the one before, and more steps win.
//!
//! Of all splits that are worth at least [`TIE`] of the best the one with the most steps is proposed: they leave the
//! optimizer more to do.
//!
//! How many steps there may be at all is Adam's matter, not the budget's (Kingma and Ba 2015; β₁ = 0.9, β₂ = 0.999). It
//! averages directions over 1/(1 − β₁) = 10 steps; by its bias correction the first noisy gradient alone is half of the way
//! that 4 steps make, and a quarter of that of 10. Its second moment is settled after 1/(1 − β₂) = 1000.

use serde::Serialize;

use super::plan::{PlanRequest, PrivacyPlan};
use crate::{Error, Result};

/// 1/(1 − β₁) of Adam.
pub const FEWEST_STEPS: u64 = 10;
/// 1/(1 − β₂) of Adam.
pub const MOST_STEPS: u64 = 1000;
/// Splits that are worth at least this share of the best count as equally good.
pub const TIE: f64 = 0.95;
/// More steps are not looked at once they are worth less than this share of the best.
const HOPELESS: f64 = 0.5;

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
    /// s = B/(σ·√d): of a step, at best.
    pub signal_to_noise: f64,
    /// √T·s/√(1 + s²).
    pub worth: f64,
}

impl Offer {
    /// What the plan for `request` comes to where `dimensions` values are trained.
    ///
    /// # Errors
    /// As [`PrivacyPlan::calibrate`].
    pub fn of(request: &PlanRequest, dimensions: usize) -> Result<Self> {
        let plan = PrivacyPlan::calibrate(request)?;
        let (steps, sigma) = (plan.steps(), plan.noise_multiplier());
        let s = request.expected_batch_size as f64 / sigma / (dimensions.max(1) as f64).sqrt();
        Ok(Offer {
            steps,
            expected_batch_size: request.expected_batch_size,
            sampling_rate: plan.sampling_rate(),
            noise_multiplier: sigma,
            epsilon: plan.epsilon_after(steps)?,
            signal_to_noise: s,
            worth: (steps as f64).sqrt() * s / s.hypot(1.0),
        })
    }

    /// T·B: how often a unit of privacy is expected to be drawn, all together.
    pub fn draws(&self) -> u64 {
        self.steps.saturating_mul(self.expected_batch_size)
    }
}

/// All offers for a time, and which of them is proposed.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    offers: Vec<Offer>,
    best: f64,
    proposed: usize,
}

impl Proposal {
    /// For what `request` asks (its batch size and steps aside) where `dimensions` values are trained and time allows
    /// `draws` expected draws of a unit.
    ///
    /// Steps double from [`FEWEST_STEPS`] to at most [`MOST_STEPS`]. Batches are at most half of the units, and where
    /// `request` bounds their size, so small that they hardly ever reach the bound; time may then be left.
    ///
    /// # Errors
    /// Usage: fewer draws than [`FEWEST_STEPS`]; what [`PrivacyPlan::calibrate`] refuses.
    pub fn new(request: &PlanRequest, dimensions: usize, draws: u64) -> Result<Self> {
        let bound = request.batches.most().map_or(u64::MAX, seldom_full);
        // Where noise goes together a part holds a batch, and there are as many steps.
        let bands = request.batches.bands().unwrap_or(1);
        let most = (request.public_size / bands.max(2)).min(bound).max(1);
        let (mut offers, mut best): (Vec<Offer>, f64) = (Vec::new(), 0.0);
        for steps in std::iter::successors(Some(FEWEST_STEPS.max(bands)), |t| Some(2 * t)) {
            let hopeless = offers.last().is_some_and(|last| last.worth < HOPELESS * best);
            if steps > MOST_STEPS.min(draws) || hopeless {
                break;
            }
            let split = PlanRequest {
                steps,
                expected_batch_size: round((draws / steps).min(most)),
                ..request.clone()
            };
            let offer = Offer::of(&split, dimensions)?;
            best = best.max(offer.worth);
            offers.push(offer);
        }
        let proposed = offers.iter().rposition(|o| o.worth >= TIE * best).ok_or_else(|| {
            Error::usage(format!(
                "there is time for {draws} draws, too few for {FEWEST_STEPS} steps of one at least"
            ))
            .hint("more time, or shorter records (prepare.max_tokens), makes room for more")
        })?;
        Ok(Proposal { offers, best, proposed })
    }

    /// The one to take.
    pub fn proposed(&self) -> &Offer {
        &self.offers[self.proposed]
    }

    /// By steps, ascending; the proposed one among them.
    pub fn offers(&self) -> &[Offer] {
        &self.offers
    }

    /// What `offer` is worth over the best of the offers.
    pub fn relative(&self, offer: &Offer) -> f64 {
        offer.worth / self.best
    }
}

/// The largest B whose batches hardly ever reach `max_batch_size`: 1.1·B + 6·√(1.1·B) is at most that, as
/// `finetune.max_batch_size` advises.
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
