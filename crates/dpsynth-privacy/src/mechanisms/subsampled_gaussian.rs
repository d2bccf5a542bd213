//! Sums over a batch that is drawn in secret, with Gaussian noise, or Laplace noise where few numbers are summed: a step of training. For
//! research, with noise that is only counted like it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::{Charge, Charged, Describe, Says, Stated, Terms};
use crate::accountant::Phase;
use crate::bands::Strand;
#[cfg(mutants)]
use crate::keys::KeySource;
use crate::keys::{Key, Purpose};
use crate::mixture::Mixture;
#[cfg(mutants)]
use crate::mutation::{Mutation, current};
use crate::noise::{self, Drawn, NoiseKind, laplace_scale};
use crate::number::significant;
use crate::sampler;
use crate::secrets::Due;
use crate::unit::Unit;
use crate::{Error, Result, document};

/// What its uses are called.
const STEPS: &str = "steps";

/// What its cost depends on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubsampledGaussian {
    /// Probability that a unit is drawn in a step.
    pub sampling_rate: f64,
    /// Noise standard deviation over sensitivity.
    pub noise_multiplier: f64,
    /// Where batches have a largest size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncation: Option<Truncation>,
    /// Where batches are drawn by random allocation: steps of a round, one over the sampling rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<u64>,
    /// Where noise goes together over steps: over how many, and as many parts the units are shared out among.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bands: Option<u64>,
    /// Whether the noise is Laplace noise of that deviation, and contributions are bounded in the sum of sizes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub laplace: bool,
    /// Where the noise is Laplace noise of mixed scales (P11): the multiplier is then that of the Gaussian noise that hides a
    /// difference which is spread over very many coordinates as well, and no better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub laplace_mixture: Option<Mixture>,
}

/// Batches of a largest size (truncated Poisson).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Truncation {
    /// Most units in a batch.
    pub max_batch_size: u64,
    /// Most units that the dataset may have for the account to hold.
    pub most_units: u64,
}

impl Describe for SubsampledGaussian {
    fn phase(&self, times: u64) -> Result<Phase> {
        if let Some(mixture) = self.laplace_mixture
            && (self.truncation.is_some() || !mixture.is_counted_by(self.noise_multiplier))
        {
            return Err(Error::usage("no plan has noise of such a mixture"));
        }
        if self.laplace {
            if self.drawn_by() != Some(Sampler::Poisson) || self.laplace_mixture.is_some() {
                return Err(Error::usage(
                    "Laplace noise is accounted for with Poisson batches of any size",
                ));
            }
            return Phase::sampled_laplace(self.sampling_rate, laplace_scale(self.noise_multiplier), times);
        }
        match self.drawn_by() {
            None => Err(Error::usage("no plan draws batches in two ways at once")),
            Some(Sampler::Poisson) => Phase::new(self.sampling_rate, self.noise_multiplier, times),
            Some(Sampler::Truncated(t)) => Phase::truncated(
                self.sampling_rate,
                self.noise_multiplier,
                times,
                t.max_batch_size,
                t.most_units,
            ),
            Some(Sampler::Allocated { slots }) => {
                if self.sampling_rate != 1.0 / slots as f64 || self.laplace_mixture.is_some() {
                    return Err(Error::usage("no plan has such a round of random allocation"));
                }
                Phase::allocated(slots, self.noise_multiplier, times)
            }
            Some(Sampler::Cyclic { parts }) => {
                if self.laplace_mixture.is_some() {
                    return Err(Error::usage("no plan has noise that goes together like this"));
                }
                Phase::banded(parts, self.rate_of_a_part(parts)?, self.noise_multiplier, times)
            }
        }
    }

    fn sampler(&self) -> Option<String> {
        // What a plan has never has no name.
        Some(self.drawn_by().map_or("unknown".into(), |sampler| sampler.to_string()))
    }

    fn repeats(&self) -> bool {
        true
    }

    fn for_research(&self) -> Option<&'static str> {
        self.laplace_mixture.map(|_| MIXTURE)
    }

    fn admit(&self, _: &Unit, _: f64) -> Result<()> {
        Err(Error::usage("steps of training are planned by their number").hint("`steps` says how many"))
    }

    fn describe(&self) -> String {
        let most = self
            .truncation
            .map(|t| format!(", batches of at most {}", t.max_batch_size));
        let counted = self
            .laplace_mixture
            .map(|_| " (as counted: Laplace noise of mixed scales)");
        let together = self.bands.map(|bands| format!(", noise together over {bands} steps"));
        format!(
            "sampling rate {}, noise multiplier {}{}{}{}",
            significant(self.sampling_rate, 4),
            significant(self.noise_multiplier, 4),
            counted.unwrap_or_default(),
            most.unwrap_or_default(),
            together.unwrap_or_default()
        )
    }

    fn uses(&self) -> &'static str {
        STEPS
    }

    fn state(&self, uses: u64, noise: &noise::Mechanism) -> Stated {
        let kind = noise.law.kind();
        let name = NOISES.iter().find(|(of, _)| *of == kind).map_or("?", |(_, name)| *name);
        Stated::SubsampledGaussian(SubsampledGaussianStated {
            mechanism: name.into(),
            noise_multiplier: self.noise_multiplier,
            sampling_rate: self.sampling_rate,
            steps: uses,
            max_grad_norm: noise.max_grad_norm,
            expected_batch_size: noise.expected_batch_size,
            bands: self.bands,
            laplace_mixture: self.laplace_mixture,
        })
    }
}

/// Each kind of noise as a guarantee names it, with what it leaves out.
const NOISES: [(NoiseKind, &str); 4] = [
    (NoiseKind::ExactGaussian, "exact rounded Gaussian noise"),
    (
        NoiseKind::Gaussian,
        "Gaussian noise in floating point (attacks on floating point are outside the claim)",
    ),
    (NoiseKind::ExactLaplace, "exact rounded Laplace noise"),
    (
        NoiseKind::LaplaceMixture,
        "Laplace noise of mixed scales in floating point (the noise multiplier is an estimate)",
    ),
];

/// Who proposes [`SubsampledGaussian::laplace_mixture`].
const MIXTURE: &str = "Yang et al. 2024, arXiv 2405.18776: the account is of one number, steps release a vector";

/// How batches are drawn, as written in output and read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampler {
    /// Every unit by a coin of its own.
    Poisson,
    /// The same with a largest batch.
    Truncated(Truncation),
    /// Every unit in one step of each round.
    Allocated {
        /// Steps of a round.
        slots: u64,
    },
    /// Steps take turns at parts of the units, of which every one is in or out by a coin of its own.
    Cyclic {
        /// How many.
        parts: u64,
    },
}

impl fmt::Display for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sampler::Poisson => f.write_str("poisson"),
            Sampler::Truncated(t) => write!(
                f,
                "poisson truncated at {} (of at most {} units)",
                t.max_batch_size, t.most_units
            ),
            Sampler::Allocated { slots } => write!(f, "random allocation (one of every {slots} steps)"),
            Sampler::Cyclic { parts } => write!(f, "poisson from one of {parts} parts in turn"),
        }
    }
}

impl Sampler {
    /// What its display wrote; none where it is something else.
    pub fn read(text: &str) -> Option<Self> {
        let sampler = if text == "poisson" {
            Sampler::Poisson
        } else if let Some(slots) = text.strip_prefix("random allocation (one of every ") {
            let slots = slots.strip_suffix(" steps)")?.parse().ok()?;
            Sampler::Allocated { slots }
        } else if let Some(parts) = text.strip_prefix("poisson from one of ") {
            let parts = parts.strip_suffix(" parts in turn")?.parse().ok()?;
            Sampler::Cyclic { parts }
        } else {
            let (max_batch_size, rest) = text
                .strip_prefix("poisson truncated at ")?
                .split_once(" (of at most ")?;
            Sampler::Truncated(Truncation {
                max_batch_size: max_batch_size.parse().ok()?,
                most_units: rest.strip_suffix(" units)")?.parse().ok()?,
            })
        };
        // Numbers can be written in other ways.
        (sampler.to_string() == text).then_some(sampler)
    }
}

impl SubsampledGaussian {
    /// None where it is drawn in two ways at once, which no plan has.
    fn drawn_by(&self) -> Option<Sampler> {
        match (self.truncation, self.slots, self.bands) {
            (None, None, None) => Some(Sampler::Poisson),
            (Some(truncation), None, None) => Some(Sampler::Truncated(truncation)),
            (None, Some(slots), None) => Some(Sampler::Allocated { slots }),
            (None, None, Some(parts)) => Some(Sampler::Cyclic { parts }),
            _ => None,
        }
    }

    /// Probability that a unit is drawn in a step whose turn is that of its part.
    fn rate_of_a_part(&self, parts: u64) -> Result<f64> {
        let rate = self.sampling_rate * parts as f64;
        // All of them, but for the rounding of a quotient.
        match rate <= 1.0 + 1e-12 {
            true => Ok(rate.min(1.0)),
            false => Err(Error::usage(format!(
                "a batch is drawn from one of {parts} parts of the records, which holds fewer than it wants"
            ))
            .hint("smaller batches, or noise together over fewer steps")),
        }
    }
}

document! {
    /// What a guarantee says of it.
    #[derive(Clone, Debug, PartialEq)]
    pub struct SubsampledGaussianStated {
        /// Which noise, and what it leaves out.
        public mechanism: String,
        /// Noise standard deviation over sensitivity.
        public noise_multiplier: f64,
        /// Probability that a unit is drawn in a step.
        public sampling_rate: f64,
        /// Steps that were charged.
        public steps: u64,
        /// Largest norm of a unit's contribution.
        public max_grad_norm: f64,
        /// What the noisy sum is divided by.
        public expected_batch_size: u64,
        /// Where noise goes together over steps: over how many.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        public bands: Option<u64>,
        /// Where the noise is Laplace noise of mixed scales: its law, and the multiplier is as it is counted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        public laplace_mixture: Option<Mixture>,
    }
}

impl SubsampledGaussianStated {
    /// Which noise it names; none where no plan has it.
    pub fn noise(&self) -> Option<NoiseKind> {
        NOISES
            .iter()
            .find(|(_, name)| *name == self.mechanism)
            .map(|(kind, _)| *kind)
    }
}

impl Says for SubsampledGaussianStated {
    fn uses(&self) -> u64 {
        self.steps
    }

    fn uses_are(&self) -> &'static str {
        STEPS
    }

    fn phase(&self, sampler: &str) -> Result<Phase> {
        let strange = |key: &str| Err(Error::usage(format!("`{key}` is not what a plan says")));
        let Some(kind) = self.noise() else {
            return strange("mechanism");
        };
        if (kind == NoiseKind::LaplaceMixture) != self.laplace_mixture.is_some() {
            return strange("laplace_mixture");
        }
        if !(self.max_grad_norm > 0.0 && self.max_grad_norm.is_finite()) {
            return strange("max_grad_norm");
        }
        if self.expected_batch_size == 0 {
            return strange("expected_batch_size");
        }
        let (truncation, slots, bands) = match Sampler::read(sampler) {
            Some(Sampler::Poisson) => (None, None, None),
            Some(Sampler::Truncated(truncation)) => (Some(truncation), None, None),
            Some(Sampler::Allocated { slots }) => (None, Some(slots), None),
            Some(Sampler::Cyclic { parts }) => (None, None, Some(parts)),
            None => return strange("sampler"),
        };
        if bands != self.bands {
            return strange("bands");
        }
        let stated = SubsampledGaussian {
            sampling_rate: self.sampling_rate,
            noise_multiplier: self.noise_multiplier,
            truncation,
            slots,
            bands,
            laplace: kind == NoiseKind::ExactLaplace,
            laplace_mixture: self.laplace_mixture,
        };
        stated.phase(self.steps)
    }

    fn for_research(&self) -> Option<&'static str> {
        self.laplace_mixture.map(|_| MIXTURE)
    }

    fn claimed_epsilon(&self, delta: f64) -> Option<f64> {
        let mixture = self.laplace_mixture.filter(Mixture::is_one)?;
        Some(mixture.claimed_epsilon(self.sampling_rate, self.steps, delta))
    }

    fn words(&self) -> String {
        let together = self.bands.map(|bands| format!(", together over {bands} steps"));
        format!(
            "{}{}, noise multiplier {:.4}, sampling rate {}, {} steps",
            self.mechanism,
            together.unwrap_or_default(),
            self.noise_multiplier,
            significant(self.sampling_rate, 4),
            self.steps
        )
    }

    fn terms(&self) -> Terms {
        let mut terms = vec![
            ("mechanism", self.mechanism.clone()),
            ("noise multiplier", format!("{:.4}", self.noise_multiplier)),
            ("sampling rate", significant(self.sampling_rate, 4)),
            ("steps", self.steps.to_string()),
            ("clipping norm", self.max_grad_norm.to_string()),
        ];
        terms.extend(
            self.bands
                .map(|bands| ("noise goes together over", format!("{bands} steps"))),
        );
        terms
    }
}

impl Charge for SubsampledGaussian {
    type Use = ChargedStep;

    fn hand_out(&self, at: Charged) -> Result<ChargedStep> {
        let round_key = || at.round_key.ok_or_else(|| Error::other("a step of no round"));
        let own_key = || at.keys.key(at.release, at.index, Purpose::Sample);
        let members = match (self.slots, self.bands) {
            (Some(slots), _) => sampler::allocated(at.units, slots, at.index % slots, round_key()?),
            (None, Some(parts)) => {
                let rate = self.rate_of_a_part(parts)?;
                sampler::cyclic(at.units, parts, at.index % parts, rate, round_key()?, &own_key()?)
            }
            (None, None) => {
                let key = own_key()?;
                let drawn = sampler::poisson(at.units, self.sampling_rate, &key);
                match self.truncation {
                    Some(t) => sampler::truncate(drawn, t.max_batch_size as usize, &key),
                    None => drawn,
                }
            }
        };
        let noise = match at.strand {
            Some(strand) => Noise::Together(strand.clone()),
            None => Noise::Own(at.keys.key(at.release, at.index, Purpose::Noise)?),
        };
        let step = ChargedStep {
            index: at.index,
            members,
            mechanism: noise::Mechanism {
                noise_multiplier: self.noise_multiplier,
                ..at.training_noise
            },
            release: at.release,
            noise,
        };
        #[cfg(mutants)]
        let step = step.mutated_in(at.units, at.resumed_at);
        Ok(step)
    }

    fn due(&self, index: u64) -> Option<Due> {
        let in_rounds = self.slots.map(|slots| Due {
            round: index / slots,
            is_first: index.is_multiple_of(slots),
            noise: None,
        });
        in_rounds.or(self.bands.map(|_| Due {
            round: 0,
            is_first: index == 0,
            noise: Some(index),
        }))
    }
}

/// A step that has been paid for: one batch, and one draw of noise, which consumes it.
#[must_use = "the step is charged whether it is used or not"]
pub struct ChargedStep {
    index: u64,
    members: Vec<usize>,
    mechanism: noise::Mechanism,
    release: &'static str,
    noise: Noise,
}

/// Where a step's noise comes from.
enum Noise {
    /// A key of its own.
    Own(Key),
    /// What draws the noise of all steps.
    Together(Arc<Mutex<Strand>>),
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
    /// `clipped_sum` [d] is the sum over `members` of vectors with norm at most C, zeros for an empty batch; with Laplace noise
    /// it is the sum of their sizes, ‖·‖₁, that is at most C. The noise's
    /// standard deviation is the noise multiplier times C(1 + slack), where the slack pays for the rounding to the grid
    /// and for floating-point error before it (rule P12). The divisor is public (rule P2). There is no second draw
    /// (rule P3): the step is consumed.
    ///
    /// # Errors
    /// Other: a coordinate is not finite or beyond what clipped records can add up to.
    pub fn privatize(self, clipped_sum: &[f64]) -> Result<Vec<f32>> {
        #[cfg(mutants)]
        if let Some(wrong) = self.mutated(clipped_sum) {
            return wrong;
        }
        match &self.noise {
            Noise::Own(key) => self.mechanism.privatize(clipped_sum, key),
            Noise::Together(_) => self.draw_noise(clipped_sum.len())?.privatize(clipped_sum),
        }
    }

    /// Draws the noise for a sum of `d` values that is still being taken; it is the step's one draw.
    ///
    /// # Errors
    /// Usage: the plan's noise is beyond the exact sampler.
    pub fn draw_noise(self, d: usize) -> Result<StepNoise> {
        let drawn = match &self.noise {
            Noise::Own(key) => self.mechanism.draw(d, key)?,
            Noise::Together(strand) => {
                let mut strand = strand.lock().unwrap_or_else(PoisonError::into_inner);
                strand.draw(self.release, self.index, d, &self.mechanism)?
            }
        };
        Ok(StepNoise {
            mechanism: self.mechanism,
            drawn,
        })
    }
}

/// The one draw of noise of a step, before its sum is there.
#[must_use = "the step is charged whether it is used or not"]
pub struct StepNoise {
    mechanism: noise::Mechanism,
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

#[cfg(mutants)]
mod mutated {
    use super::*;
    use crate::mutation::micro_batches;

    impl ChargedStep {
        /// The step with the mistakes that happen where it is charged; a run of `units` units went on at `resumed_at`.
        pub(crate) fn mutated_in(mut self, units: usize, resumed_at: u64) -> Self {
            let step = &mut self;
            match current() {
                Some(Mutation::ShuffledBatches) => {
                    let size = step.mechanism.expected_batch_size as usize;
                    let first = step.index as usize * size;
                    // A fixed order is as good as a shuffled one here: each epoch holds every record once.
                    step.members = (first..first + size).map(|i| i % units.max(1)).collect();
                    step.members.sort_unstable();
                }
                Some(Mutation::NoiseReusedAfterResume) => {
                    let repeated = KeySource::Seeded(1).key("training", step.index - resumed_at, Purpose::Noise);
                    step.noise = Noise::Own(repeated.expect("a seeded key needs no system"));
                }
                Some(Mutation::DivideByDrawnBatch) => {
                    step.mechanism.expected_batch_size = step.members.len().max(1) as u64;
                }
                _ => {}
            }
            self
        }
    }

    impl ChargedStep {
        /// What comes of the mistake in the noise that is switched on.
        pub(super) fn mutated(&self, sum: &[f64]) -> Option<Result<Vec<f32>>> {
            let n = micro_batches();
            let Noise::Own(own) = &self.noise else {
                return None;
            };
            let with = |share: f64, sum: &[f64], key: &Key| {
                let noise_multiplier = self.mechanism.noise_multiplier * share;
                let mechanism = noise::Mechanism {
                    noise_multiplier,
                    ..self.mechanism
                };
                mechanism.privatize(sum, key)
            };
            match current()? {
                Mutation::NoNoise => Some(with(0.0, sum, own)),
                Mutation::NoiseOverRootOfAccumulation => Some(with((n as f64).sqrt().recip(), sum, own)),
                Mutation::NoiseForEachMicroBatch => {
                    let share = 1.0 / n as f64;
                    let (mut out, zeros) = (with(share, sum, own).ok()?, vec![0.0; sum.len()]);
                    for _ in 1..n {
                        let key = KeySource::Secure.key("training", 0, Purpose::Noise).ok()?;
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
