//! White-box canaries: what the strongest adversary that differential privacy speaks of sees of a single record.
//!
//! Canary j's gradient is a Dirac: all of it in coordinate j, which no other record touches, and far longer than C, so
//! that the run's own clipping brings it to C. Each canary is among the records or not by a fair coin; the run's own
//! plan then draws batches of those that are, and noises their sums, by the same code that trains
//! ([`PrivacyPlan`], `PrivateRun`, `ChargedStep::privatize`). The adversary sees every step's noised sum. Since the
//! noise of coordinates is independent, what it can know of canary j is in coordinate j, and the best score is the log
//! of the likelihood ratio, over all steps, of "in" to "out" (Nasr et al. 2023, "Tight Auditing of Differentially
//! Private Machine Learning", with Dirac canaries).
//!
//! The model takes no part: its gradients would stand in other coordinates, where this adversary knows them already.
//! The charge goes to a ledger of its own in a temporary folder. It spends nothing of the dataset's budget: no private
//! record is read. Of it only the bounds leave, in a bundle.

use std::f64::consts::{SQRT_2, TAU};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::Stop;
use super::one_run::{Design, Observed};
use super::threshold::Sides;
use super::together::Together;
pub use crate::documents::{Claimed, Dirac, OnTheCurve};
use crate::privacy::bounds::family::Family;
use crate::privacy::{Ledger, NoiseKind, PrivacyPlan};
use crate::progress::Progress;
use crate::training::clip::Clip;
use crate::training::optimizer::Optimizer;
use crate::training::private::{Loop, Method};
use crate::{Error, Result};

/// Noise draws of one audit, unless the number of canaries is given: seconds.
const DRAWS: usize = 64_000_000;
/// Canaries of a rehearsal at most: with more, the theorem's delta term takes all.
const REHEARSED: usize = 1_000_000;
/// Fewer canaries than this prove nothing.
pub const LEAST: usize = 8;
/// Length of a canary's gradient before clipping, over C.
const LENGTH: f64 = 1e6;

impl Claimed {
    /// The public numbers of `plan`.
    pub fn of(plan: &PrivacyPlan) -> Self {
        Claimed {
            sampling_rate: plan.sampling_rate(),
            noise_multiplier: plan.noise_multiplier(),
            steps: plan.steps(),
            delta: plan.delta(),
            slots: plan.slots(),
            bands: plan.batches().bands(),
            laplace: plan.noise() == NoiseKind::ExactLaplace,
        }
    }

    /// As many canaries as make an audit of seconds: 2,000 to 8 million.
    pub fn canaries(&self) -> usize {
        (DRAWS / self.steps.max(1) as usize).clamp(2_000, 8_000_000)
    }

    /// Counts what step `step` shows of a canary, y = (its noised coordinate)/C, in its score: ln of the density of all that
    /// was seen where it is in, over that where it is out. A step's e^u is N(y; 1, σ²)/N(y; 0, σ²), or the same of Laplace noise.
    fn see(&self, step: u64, y: f64, tally: &mut Tally) {
        let sigma = self.noise_multiplier;
        let u = match self.laplace {
            false => (2.0 * y - 1.0) / (2.0 * sigma * sigma),
            true => (2.0 * y - 1.0).clamp(-1.0, 1.0) * SQRT_2 / sigma,
        };
        let Some(slots) = self.slots else {
            // ln(1 − q + q·e^u).
            tally.score += mixed(1.0 - self.sampling_rate, self.sampling_rate, u);
            return;
        };
        tally.round = ln_sum(tally.round, u);
        let taken = step % slots + 1;
        if taken == slots || step + 1 == self.steps {
            // ln(1 − m/t + Σ e^u/t): the canary is in one of the round's steps, or in one that is not taken.
            let rest = 1.0 - taken as f64 / slots as f64;
            tally.score += mixed(rest, 1.0 / slots as f64, tally.round);
            tally.round = f64::NEG_INFINITY;
        }
    }

    /// What canaries look like under this mechanism, but with `noise` times the claimed noise: rehearsals, and mechanisms
    /// that are broken on purpose. Repeats for the same seed.
    pub fn simulate(&self, noise: f64, canaries: usize, seed: u64) -> Observed {
        const CHUNK: usize = 4096;
        let together = Together::of(self);
        let chunk = |index: usize| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(index as u64);
            let mut one = || {
                let included = rng.random::<bool>();
                if let Some(together) = &together {
                    return (together.simulate(noise, included, &mut rng), included);
                }
                let (mut tally, mut slot) = (Tally::default(), 0);
                for step in 0..self.steps {
                    let drawn = match self.slots {
                        None => included && rng.random::<f64>() < self.sampling_rate,
                        Some(slots) => {
                            if step % slots == 0 {
                                slot = rng.random_range(0..slots);
                            }
                            included && slot == step % slots
                        }
                    };
                    let deviates = match self.laplace {
                        false => normal(&mut rng),
                        true => laplace(&mut rng),
                    };
                    let y = f64::from(u8::from(drawn)) + noise * self.noise_multiplier * deviates;
                    self.see(step, y, &mut tally);
                }
                (tally.score, included)
            };
            let count = CHUNK.min(canaries - index * CHUNK);
            (0..count).map(|_| one()).collect::<Vec<_>>()
        };
        let all: Vec<_> = (0..canaries.div_ceil(CHUNK))
            .into_par_iter()
            .flat_map_iter(chunk)
            .collect();
        let (scores, included) = all.into_iter().unzip();
        Observed { scores, included }
    }

    /// One or two designs from public numbers alone, by rehearsal on simulated mechanisms: one for the mechanism as claimed, and
    /// one for the same with a quarter of the noise, which needs many more guesses to be told from the claim.
    pub fn designs(&self, canaries: usize, alpha: f64) -> Vec<Design> {
        let mut designs: Vec<Design> = [1.0, 0.25]
            .map(|noise| {
                self.simulate(noise, canaries.min(REHEARSED), 0)
                    .best_design(self.delta, alpha / 2.0)
            })
            .into();
        // Few canaries leave one way to guess: it may err as often as both.
        designs.dedup();
        designs
    }

    /// The same for bounds by the curves of `family`: the number of guesses by rehearsal, of so many canaries.
    pub fn design_on_the_curve(&self, canaries: usize, family: &Family, alpha: f64) -> Design {
        let rehearsed = canaries.min(REHEARSED);
        let best = self.simulate(1.0, rehearsed, 0).best_design_on_the_curve(family, alpha);
        Design {
            canaries,
            guesses: best.guesses * (canaries / rehearsed),
        }
    }
}

/// Of deviation 1, after Box and Muller.
pub(super) fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    radius * (TAU * rng.random::<f64>()).cos()
}

/// Of deviation 1.
fn laplace(rng: &mut ChaCha8Rng) -> f64 {
    let u = rng.random::<f64>() - 0.5;
    -u.signum() * (1.0 - 2.0 * u.abs()).max(f64::MIN_POSITIVE).ln() / SQRT_2
}

/// What has been seen of a canary.
#[derive(Clone, Copy)]
struct Tally {
    score: f64,
    /// ln Σ e^u of the round that is begun.
    round: f64,
}

impl Default for Tally {
    fn default() -> Self {
        Tally {
            score: 0.0,
            round: f64::NEG_INFINITY,
        }
    }
}

/// ln(a + b·e^u), also where e^u is beyond f64.
pub(super) fn mixed(a: f64, b: f64, u: f64) -> f64 {
    ln_sum(a.ln(), b.ln() + u)
}

/// ln(e^a + e^b).
fn ln_sum(a: f64, b: f64) -> f64 {
    let larger = a.max(b);
    match larger.is_finite() {
        true => larger + (-(a - b).abs()).exp().ln_1p(),
        false => larger,
    }
}

/// Runs `plan` on Dirac canaries as the trainer would run it on records.
///
/// # Errors
/// A plan whose ledger or noise fails; [`Error::interrupted`].
pub fn observe(
    plan: &PrivacyPlan,
    clip: Clip,
    canaries: usize,
    stop: Stop,
    progress: &dyn Progress,
) -> Result<Observed> {
    let claimed = Claimed::of(plan);
    let mut coins = rand::rng();
    let included: Vec<bool> = (0..canaries).map(|_| coins.random()).collect();
    let records: Vec<usize> = (0..canaries).filter(|j| included[*j]).collect();
    let c = plan.max_grad_norm();
    let clip = Clip {
        max_grad_norm: c,
        ..clip
    };
    let clipped = clip.factor(LENGTH * c) * LENGTH * c;

    let scratch = tempfile::tempdir().map_err(|e| Error::io("make a folder in", &std::env::temp_dir(), e))?;
    let ledger = Ledger::open(
        scratch.path(),
        "dirac-canaries",
        plan.needed_epsilon(),
        plan.delta(),
        plan.unit(),
    )?;
    let mut run = plan.begin(ledger, "audit", records.len())?;
    let mut method = Guessing {
        records,
        clipped,
        claimed,
        scale: plan.expected_batch_size() as f64 / c,
        tallies: vec![Tally::default(); canaries],
        steps: 0,
        together: Together::of(&claimed).map(|together| Kept {
            together,
            parts: vec![None; canaries],
            released: Vec::new(),
        }),
    };
    stop.check()?;
    let way = Loop {
        task: "canaries",
        of: "",
        checkpoint: None,
        applied: 0,
        on_gpu: false,
        stop: stop.0,
        progress,
    };
    way.train(&mut method, &mut run, |_| stop.check().map(|()| String::new()))?;
    let scores = match &method.together {
        Some(kept) => kept.scores(method.scale, &included),
        None => method.tallies.iter().map(|tally| tally.score).collect(),
    };
    Ok(Observed { scores, included })
}

/// Canaries that each have a coordinate of their own, and what the noised sums say of each.
struct Guessing {
    /// Those that are in the data.
    records: Vec<usize>,
    /// What one contributes.
    clipped: f64,
    claimed: Claimed,
    /// From what a step releases to units of C.
    scale: f64,
    tallies: Vec<Tally>,
    /// That were taken.
    steps: u64,
    /// Where noise goes together over steps: what is scored once all are taken.
    together: Option<Kept>,
}

/// What is known of canaries before they can be scored.
struct Kept {
    together: Together,
    /// Of each canary, once it was drawn.
    parts: Vec<Option<usize>>,
    /// Of each step.
    released: Vec<Vec<f32>>,
}

impl Kept {
    /// As if all parts were known: nothing is to be seen of a canary in which part it is said to be of.
    fn scores(&self, scale: f64, included: &[bool]) -> Vec<f64> {
        let scored = |(canary, part): (usize, &Option<usize>)| {
            let mut rng = rand::rng();
            let part = part.unwrap_or_else(|| match included[canary] {
                true => self.together.part_of_undrawn(&mut rng),
                false => rng.random_range(0..self.together.parts()),
            });
            self.together.score(canary, part, &self.released, scale)
        };
        self.parts.par_iter().enumerate().map(scored).collect()
    }
}

impl Method for Guessing {
    type Seen = ();

    fn dimensions(&self) -> usize {
        self.tallies.len()
    }

    fn query(&mut self, members: &[usize]) -> Result<(Vec<f64>, ())> {
        let mut sum = vec![0.0; self.tallies.len()];
        members.iter().for_each(|i| sum[self.records[*i]] += self.clipped);
        if let Some(kept) = &mut self.together {
            let part = self.steps as usize % kept.together.parts();
            members.iter().for_each(|i| kept.parts[self.records[*i]] = Some(part));
        }
        Ok((sum, ()))
    }

    fn apply(&mut self, noisy: &[f32]) {
        if let Some(kept) = &mut self.together {
            kept.released.push(noisy.to_vec());
            self.steps += 1;
            return;
        }
        let (claimed, scale, step) = (&self.claimed, self.scale, self.steps);
        (self.tallies.par_iter_mut().zip(noisy)).for_each(|(tally, v)| claimed.see(step, f64::from(*v) * scale, tally));
        self.steps += 1;
    }

    fn state(&self) -> Option<(&[f32], &Optimizer)> {
        None
    }
}

/// How canaries are guessed at; fixed before anything is seen.
pub struct Designs {
    pub designs: Vec<Design>,
    pub on_the_curve: Design,
}

impl Designs {
    /// For each bound at level `alpha`.
    pub fn new(claimed: Claimed, canaries: usize, family: &Family, alpha: f64) -> Self {
        Designs {
            designs: claimed.designs(canaries, alpha),
            on_the_curve: claimed.design_on_the_curve(canaries, family, alpha),
        }
    }
}

impl Dirac {
    /// The bounds from what was observed; each of the four at level `alpha`.
    pub fn judge(claimed: Claimed, observed: &Observed, designs: &Designs, family: &Family, alpha: f64) -> Self {
        let side = |included: bool| {
            let scored = observed.scores.iter().zip(&observed.included);
            scored.filter(|(_, i)| **i == included).map(|(s, _)| *s).collect()
        };
        let sides = Sides {
            members: side(true),
            others: side(false),
        };
        let (fixing, measuring) = sides.halves();
        let (threshold, names) = fixing.best(claimed.delta, alpha);
        let (middle, named) = fixing.furthest(alpha);
        Dirac {
            claimed,
            canaries: observed.scores.len(),
            one_run: observed.bounds(&designs.designs, claimed.delta, alpha),
            threshold: measuring.measure(threshold, names, claimed.delta, alpha),
            on_the_curve: Some(OnTheCurve {
                one_run: observed.bound_on_the_curve(designs.on_the_curve, family, alpha),
                threshold: measuring.measure_on_the_curve(middle, named, family, alpha),
            }),
        }
    }

    /// The larger of the one-run bounds.
    pub fn one_run_epsilon(&self) -> f64 {
        self.one_run.iter().map(|o| o.epsilon_lower).fold(0.0, f64::max)
    }
}
