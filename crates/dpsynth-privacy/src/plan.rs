//! What a run may do, fixed before it starts (rule P1): sampling rate, noise, number of steps, and what they cost.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use super::accountant::{Adjacency, Bracket, Direction, Phase, pld};
use super::bands::{self, MAX_BANDS};
use super::bounds::family::Family;
use super::calibrate::Target;
use super::ledger::{RunParameters, Uses};
use super::mechanisms::{Mechanism, Named, Release, Stated, SubsampledGaussian, TRAINING, Truncation, is_known};
use super::mixture::Mixture;
use super::noise::{self, Law, NoiseKind};
use super::statement::Guarantee;
use super::unit::Unit;
use crate::{Error, Result};

/// How batches are drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Batches {
    /// Every unit by a coin of its own.
    #[default]
    Poisson,
    /// The same, and of more units than this a uniformly random subset stays (truncated Poisson): memory is then fixed, at a
    /// small price in epsilon.
    AtMost(u64),
    /// Steps come in rounds of N/B, rounded; every unit is in one step of each, all equally likely (random allocation).
    Allocated,
    /// Units are shared out among so many parts, from which steps draw Poisson batches in turn; and noise goes together over as
    /// many steps, so that much of it cancels in their sum (banded DP-FTRL).
    Cyclic(u64),
}

impl Batches {
    /// The largest batch, where there is one.
    pub fn most(self) -> Option<u64> {
        match self {
            Batches::AtMost(most) => Some(most),
            Batches::Poisson | Batches::Allocated | Batches::Cyclic(_) => None,
        }
    }

    /// Over how many steps noise goes together, where it does.
    pub fn bands(self) -> Option<u64> {
        match self {
            Batches::Cyclic(bands) => Some(bands),
            Batches::Poisson | Batches::AtMost(_) | Batches::Allocated => None,
        }
    }
}

/// Steps of a round of random allocation, where batches of `expected_batch_size` of `public_size` units are wanted.
pub fn slots(public_size: u64, expected_batch_size: u64) -> u64 {
    ((public_size as f64 / expected_batch_size.max(1) as f64).round() as u64).max(1)
}

/// What is asked for. All of it public.
#[derive(Clone)]
pub struct PlanRequest {
    /// Epsilon that the whole run may cost, above 0.
    pub target_epsilon: f64,
    /// Delta, below 1/N; default 1/(N·ln N) with N = `public_size`.
    pub delta: Option<f64>,
    /// N: the number of records as declared, never as counted (rule P2).
    pub public_size: u64,
    /// Mean size of a batch; over N it is the sampling rate.
    pub expected_batch_size: u64,
    /// Steps that may be charged.
    pub steps: u64,
    /// C: the largest norm of a record's contribution.
    pub max_grad_norm: f64,
    /// Which noise is added.
    pub noise: NoiseKind,
    /// What is drawn, bounded and protected as one; N and batch sizes count these.
    pub unit: Unit,
    /// How batches are drawn.
    pub batches: Batches,
    /// What is released besides the steps, paid from `target_epsilon`; see [`Named::planned`].
    pub beside: Vec<Release>,
    /// Fixes all randomness, for tests and rehearsals; the run is then NOT PRIVATE (rule P4).
    pub seed: Option<u64>,
}

impl PlanRequest {
    /// Steps over which noise goes together, where it is asked to.
    ///
    /// # Errors
    /// Usage: over more steps than are taken or accounted for, or over so many that a part of the units holds no batch.
    pub fn bands(&self) -> Result<Option<u64>> {
        let Some(bands) = self.batches.bands() else {
            return Ok(None);
        };
        let parts = self.public_size / self.expected_batch_size.max(1);
        let most = MAX_BANDS.min(self.steps).min(parts);
        if !(2..=most).contains(&bands) {
            return Err(Error::usage(format!(
                "noise goes together over 2 to {MAX_BANDS} steps, no more than are taken ({}), and as many parts of the records each hold a batch ({} of {}): not over {bands}",
                self.steps, self.expected_batch_size, self.public_size
            ))
            .hint(match most {
                ..2 => "smaller batches or more steps".to_string(),
                most => format!("at most {most} here"),
            }));
        }
        Ok(Some(bands))
    }
}

/// The one value from which sampling, noise and epsilon come (rule P1). Cheap to clone.
#[derive(Clone)]
pub struct PrivacyPlan {
    target_epsilon: f64,
    public_size: u64,
    parameters: RunParameters,
    training: SubsampledGaussian,
    mechanism: noise::Mechanism,
    unit: Unit,
    seed: Option<u64>,
    /// Epsilon by number of steps, as far as it has been asked for.
    known: Arc<Mutex<HashMap<u64, f64>>>,
}

/// 1/(N·ln N) for N = `public_size`: delta where none is given.
pub fn default_delta(public_size: u64) -> f64 {
    let n = public_size as f64;
    1.0 / (n * n.ln())
}

/// A size that hardly any batch reaches, also where there are a tenth more units than were declared: six standard
/// deviations above the mean.
fn seldom_reached(expected_batch_size: u64) -> u64 {
    let mean = 1.1 * expected_batch_size as f64;
    (mean + 6.0 * mean.sqrt()).ceil() as u64
}

impl PrivacyPlan {
    /// The plan with the smallest noise (to 0.01 %) that keeps `request` within its epsilon, never above.
    ///
    /// # Errors
    /// Usage: a value out of range; delta at or above 1/N (rule P10).
    pub fn calibrate(request: &PlanRequest) -> Result<Self> {
        let r = request;
        if r.public_size < 3 {
            return Err(
                Error::usage(format!("a dataset of {} records cannot be protected", r.public_size))
                    .hint("`public_size` is the declared number of training records"),
            );
        }
        let n = r.public_size as f64;
        let delta = r.delta.unwrap_or(default_delta(r.public_size));
        if !(delta > 0.0 && delta < 1.0 / n) {
            return Err(Error::usage(format!(
                "delta must be above 0 and below 1/N = {:e} for N = {} records, not {delta:e}",
                1.0 / n,
                r.public_size
            ))
            .hint(format!(
                "leave it out for 1/(N ln N) = {:e}",
                default_delta(r.public_size)
            )));
        }
        if r.expected_batch_size == 0 || r.expected_batch_size > r.public_size {
            return Err(Error::usage(format!(
                "the expected batch size must be from 1 to the {} records, not {}",
                r.public_size, r.expected_batch_size
            ))
            .hint("larger batches take less noise a record; 256 to 4096 are usual"));
        }
        if !(r.max_grad_norm > 0.0 && r.max_grad_norm.is_finite()) {
            return Err(Error::usage(format!(
                "the clipping norm must be a number above 0, not {}",
                r.max_grad_norm
            ))
            .hint("1 is usual"));
        }
        let most = r.batches.most();
        if most.is_some_and(|most| most < r.expected_batch_size) {
            return Err(Error::usage(format!(
                "the largest batch must be at least the expected one, {}, not {}",
                r.expected_batch_size,
                most.unwrap_or(0)
            ))
            .hint(format!(
                "{} would hardly ever be reached, and so cost next to nothing",
                seldom_reached(r.expected_batch_size)
            )));
        }
        let truncation = most.map(|max_batch_size| Truncation {
            max_batch_size,
            most_units: r.public_size + r.public_size.div_ceil(10),
        });
        let slots = (r.batches == Batches::Allocated).then(|| slots(r.public_size, r.expected_batch_size));
        let bands = r.bands()?;
        let sampling_rate = match slots {
            Some(slots) => 1.0 / slots as f64,
            None => r.expected_batch_size as f64 / n,
        };
        for (i, release) in r.beside.iter().enumerate() {
            release.mechanism.admit(&r.unit, r.target_epsilon)?;
            let again = r.beside[..i].iter().any(|other| other.name == release.name);
            if again || !is_known(release) {
                return Err(Error::usage(format!("`{}` cannot be planned like this", release.name))
                    .hint("a plan has each of its releases once, by its own mechanism; see `Named::planned`"));
            }
        }
        let paid: Vec<Phase> = (r.beside.iter())
            .filter_map(|release| release.phase(release.times).transpose())
            .collect::<Result<_>>()?;
        let training = |noise_multiplier: f64| SubsampledGaussian {
            sampling_rate,
            noise_multiplier,
            truncation,
            slots,
            bands,
            laplace: r.noise == NoiseKind::ExactLaplace,
            laplace_mixture: None,
        };
        let target = Target::new(r.target_epsilon, delta)?;
        let (training, law) = match r.noise {
            NoiseKind::LaplaceMixture => {
                let mixture = mixture(r, &paid, delta, sampling_rate)?;
                let training = SubsampledGaussian {
                    laplace_mixture: Some(mixture),
                    ..training(mixture.counted_multiplier())
                };
                (training, Law::LaplaceMixture(mixture))
            }
            kind => {
                let noise_multiplier = target.beside(&paid).noise_multiplier_of(sampling_rate, |sigma| {
                    Mechanism::SubsampledGaussian(training(sigma)).phase(r.steps)
                })?;
                let law = match kind {
                    NoiseKind::Gaussian => Law::Gaussian,
                    NoiseKind::ExactLaplace => Law::ExactLaplace,
                    _ => Law::ExactGaussian,
                };
                (training(noise_multiplier), law)
            }
        };
        let mut releases = vec![Release {
            name: TRAINING.name().into(),
            mechanism: Mechanism::SubsampledGaussian(training),
            times: r.steps,
        }];
        releases.extend(r.beside.iter().cloned());
        Ok(PrivacyPlan {
            target_epsilon: r.target_epsilon,
            public_size: r.public_size,
            training,
            parameters: RunParameters {
                delta,
                private: r.seed.is_none(),
                releases,
            },
            mechanism: noise::Mechanism {
                law,
                noise_multiplier: training.noise_multiplier,
                max_grad_norm: r.max_grad_norm,
                expected_batch_size: r.expected_batch_size,
                bands: bands.unwrap_or(1),
            },
            unit: r.unit.clone(),
            seed: r.seed,
            known: Arc::default(),
        })
    }

    /// What the ledger writes down of it.
    pub(super) fn parameters(&self) -> &RunParameters {
        &self.parameters
    }

    /// The noise of a step.
    pub(super) fn noise_mechanism(&self) -> noise::Mechanism {
        self.mechanism
    }

    /// What it releases, in the order in which they are accounted for.
    pub fn releases(&self) -> &[Release] {
        &self.parameters.releases
    }

    /// Epsilon that was asked for; [`PrivacyPlan::epsilon_after`] all steps is at most this, unless it is for research.
    pub fn target_epsilon(&self) -> f64 {
        self.target_epsilon
    }

    /// What a ledger must have room for: the epsilon that was asked for, or the larger estimate that a run for research is
    /// charged.
    pub fn needed_epsilon(&self) -> f64 {
        let is_unproven = self.parameters.unproven().is_some();
        match is_unproven.then(|| self.epsilon_after(self.steps())) {
            Some(counted) => self.target_epsilon.max(counted.unwrap_or(f64::INFINITY)),
            None => self.target_epsilon,
        }
    }

    /// Probability beside epsilon.
    pub fn delta(&self) -> f64 {
        self.parameters.delta
    }

    /// N as declared.
    pub fn public_size(&self) -> u64 {
        self.public_size
    }

    /// Steps that may be charged.
    pub fn steps(&self) -> u64 {
        self.parameters.times(TRAINING.name())
    }

    /// Probability that a record is drawn in a step.
    pub fn sampling_rate(&self) -> f64 {
        self.training.sampling_rate
    }

    /// Noise standard deviation over sensitivity.
    pub fn noise_multiplier(&self) -> f64 {
        self.mechanism.noise_multiplier
    }

    /// C: the largest norm of a record's contribution.
    pub fn max_grad_norm(&self) -> f64 {
        self.mechanism.max_grad_norm
    }

    /// What the noisy sum is divided by.
    pub fn expected_batch_size(&self) -> u64 {
        self.mechanism.expected_batch_size
    }

    /// Standard deviation of the noise in each coordinate of the gradient that a step releases; where noise goes together over
    /// steps, of the last one.
    pub fn gradient_noise_deviation(&self) -> f64 {
        let m = &self.mechanism;
        let own = m.noise_multiplier * m.max_grad_norm / m.expected_batch_size as f64;
        bands::deviation(m.bands, self.steps()) * own
    }

    /// Which noise is added.
    pub fn noise(&self) -> NoiseKind {
        self.mechanism.law.kind()
    }

    /// False with a fixed seed (rule P4).
    pub fn is_private(&self) -> bool {
        self.seed.is_none()
    }

    /// What is drawn, bounded and protected as one.
    pub fn unit(&self) -> &Unit {
        &self.unit
    }

    /// How batches are drawn.
    pub fn batches(&self) -> Batches {
        match (self.training.truncation, self.training.slots, self.training.bands) {
            (Some(t), _, _) => Batches::AtMost(t.max_batch_size),
            (None, Some(_), _) => Batches::Allocated,
            (None, None, Some(bands)) => Batches::Cyclic(bands),
            (None, None, None) => Batches::Poisson,
        }
    }

    /// Steps of a round, where batches are drawn by random allocation.
    pub fn slots(&self) -> Option<u64> {
        self.training.slots
    }

    /// Most units in a batch, where there is a most.
    pub fn max_batch_size(&self) -> Option<u64> {
        self.batches().most()
    }

    /// Most units that there may be, where batches have a largest size.
    pub fn most_units(&self) -> Option<u64> {
        self.training.truncation.map(|t| t.most_units)
    }

    /// Uses of `release` that are planned; 0 where it is no part of the plan.
    pub fn planned<M>(&self, release: &Named<M>) -> u64 {
        self.parameters.times(release.name())
    }

    /// `steps` training steps and all uses of everything else that is planned.
    fn phases(&self, steps: u64) -> Result<Vec<Phase>> {
        let mut uses: Uses = self.parameters.planned();
        if let Some((at, _)) = self.parameters.release(TRAINING.name()) {
            uses[at] = steps;
        }
        self.parameters.phases(&uses)
    }

    /// Training, at more and at less noise: what an audit of it is held against.
    ///
    /// # Errors
    /// Usage: numbers that the accountant refuses.
    pub fn family(&self) -> Result<Family> {
        let training = self.releases().iter().filter(|release| release.name == TRAINING.name());
        let phases: Vec<Phase> = training
            .filter_map(|release| release.phase(release.times).transpose())
            .collect::<Result<_>>()?;
        Ok(Family::new(&phases, self.delta()))
    }

    /// Epsilon after `steps` steps, from above; before the first that of the histogram alone. Made to be asked at every
    /// step.
    ///
    /// Beyond 100 steps it may be that of up to 1 % more steps, which have been computed already.
    ///
    /// # Errors
    /// Usage: more steps than the plan has.
    pub fn epsilon_after(&self, steps: u64) -> Result<f64> {
        if steps > self.steps() {
            return Err(
                Error::usage(format!("the plan has {} steps, not {steps}", self.steps()))
                    .hint("epsilon is promised for the planned steps only"),
            );
        }
        if self.phases(steps)?.is_empty() {
            return Ok(0.0);
        }
        let spacing = (steps / 100).max(1).next_power_of_two() / 2;
        let knot = steps.next_multiple_of(spacing.max(1)).min(self.steps());
        let mut known = self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(epsilon) = known.get(&knot) {
            return Ok(*epsilon);
        }
        let epsilon = pld::epsilon_above(&self.phases(knot)?, Adjacency::AddOrRemoveOne, self.delta())?;
        known.insert(knot, epsilon);
        Ok(epsilon)
    }

    /// The guarantee after `steps` steps (at most the plan's), whole (rule P10).
    pub fn statement(&self, steps: u64) -> Guarantee {
        let steps = steps.min(self.steps());
        // The plan's own values were accepted when it was made; should the accountant fail still, claim nothing.
        let unknown = Bracket {
            epsilon: f64::INFINITY,
            epsilon_lower: 0.0,
            direction: Direction::Remove,
        };
        let bracket = match self.phases(steps) {
            Ok(nothing) if nothing.is_empty() => Bracket {
                epsilon: 0.0,
                ..unknown
            },
            Ok(phases) => pld::epsilon(&phases, Adjacency::AddOrRemoveOne, self.delta()).unwrap_or(unknown),
            Err(_) => unknown,
        };
        let mut out = Guarantee {
            caveat: None,
            epsilon: bracket.epsilon,
            epsilon_lower: bracket.epsilon_lower,
            delta: self.delta(),
            adjacency: Adjacency::AddOrRemoveOne.name().into(),
            unit: self.unit.to_string(),
            sampler: self.parameters.sampler(),
            accountant: "pld".into(),
            releases: self.state(steps),
            private: self.is_private(),
        };
        out.caveat = out.unproven();
        if out.caveat.is_some() {
            // Its epsilon is an estimate, and no end of it is a bound.
            out.epsilon_lower = 0.0;
        }
        out
    }

    /// Most units that the account holds for, where batches have a largest size.
    pub(super) fn truncation(&self) -> Option<Truncation> {
        self.training.truncation
    }

    /// The seed that makes it NOT PRIVATE (rule P4).
    pub(super) fn seed(&self) -> Option<u64> {
        self.seed
    }

    /// What its releases say of themselves after `steps` steps of training and all uses of everything else.
    fn state(&self, steps: u64) -> Vec<Stated> {
        let uses = |release: &Release| match release.name == TRAINING.name() {
            true => steps,
            false => release.times,
        };
        let releases = self.releases().iter();
        releases.map(|r| r.mechanism.state(uses(r), &self.mechanism)).collect()
    }
}

/// The mixture of Laplace noise whose own account stays within what `request` has left beside `paid`: the epsilons added up,
/// at half of delta each.
fn mixture(request: &PlanRequest, paid: &[Phase], delta: f64, sampling_rate: f64) -> Result<Mixture> {
    if request.batches != Batches::Poisson {
        return Err(
            Error::usage("the account of Laplace noise of mixed scales knows Poisson batches alone")
                .hint("leave out what says otherwise: `max_batch_size`, `sampler`"),
        );
    }
    let (beside, delta) = match paid {
        [] => (0.0, delta),
        paid => {
            let half = 0.5 * delta;
            (pld::epsilon_above(paid, Adjacency::AddOrRemoveOne, half)?, half)
        }
    };
    Target::new(request.target_epsilon, delta)?;
    Mixture::search(request.target_epsilon - beside, delta, sampling_rate, request.steps).ok_or_else(|| {
        Error::usage("no mixture of Laplace noise stays within so little epsilon by its own account")
            .hint("more epsilon")
    })
}

impl fmt::Debug for PlanRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlanRequest")
            .field("target_epsilon", &self.target_epsilon)
            .field("delta", &self.delta)
            .field("public_size", &self.public_size)
            .field("expected_batch_size", &self.expected_batch_size)
            .field("steps", &self.steps)
            .field("max_grad_norm", &self.max_grad_norm)
            .field("noise", &self.noise)
            .field("unit", &self.unit)
            .field("batches", &self.batches)
            .field("beside", &self.beside)
            .field("seeded", &self.seed.is_some())
            .finish()
    }
}

impl fmt::Debug for PrivacyPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivacyPlan")
            .field("target_epsilon", &self.target_epsilon)
            .field("parameters", &self.parameters)
            .field("max_grad_norm", &self.mechanism.max_grad_norm)
            .field("unit", &self.unit)
            .field("private", &self.is_private())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::mechanisms::{LABELS, LabelCounts, TOY, Unproven};
    use super::*;

    /// A release without a proof cannot be quoted without saying so, in words and in files.
    #[test]
    fn p11_a_plan_with_a_release_for_research_is_no_guarantee() {
        let mut plan = PrivacyPlan::calibrate(&PlanRequest {
            target_epsilon: 2.0,
            delta: None,
            public_size: 1000,
            expected_batch_size: 10,
            steps: 3,
            max_grad_norm: 1.0,
            noise: NoiseKind::ExactGaussian,
            unit: Unit::Record,
            batches: Batches::Poisson,
            beside: vec![LABELS.planned(LabelCounts { epsilon: 0.1 }, 1)],
            seed: None,
        })
        .expect("a plan");
        let certified = plan.statement(3);
        assert_eq!(certified.caveat, None);
        plan.parameters.releases.push(TOY.planned(Unproven {}, 1));
        let statement = plan.statement(3);
        assert!(
            statement.epsilon > certified.epsilon,
            "it is accounted for all the same"
        );
        assert!(
            statement.to_string().starts_with("NOT A DP GUARANTEE: `toy`"),
            "{statement}"
        );
        let written = serde_json::to_value(&statement).expect("serialises");
        let read: Guarantee = serde_json::from_value(written).expect("reads");
        assert!(read.to_string().starts_with("NOT A DP GUARANTEE"));
        // Whoever takes the words out leaves the release in, which says the same.
        let unsaid = Guarantee { caveat: None, ..read };
        assert!(unsaid.to_string().starts_with("NOT A DP GUARANTEE: `toy`"), "{unsaid}");
        assert!(unsaid.unproven().is_some());
    }
}
