//! The private core of dpsynth: what a run may do, what it costs, and the account of what was done.
//!
//! Plain slices and numbers; no model, no tensor, no configuration file. A plan is made from public numbers alone. It is the
//! only way to a sampler and to noise, and each use of it is charged to a ledger, on disk, before it is handed out:
//!
//! ```
//! use dpsynth_privacy::{Batches, Ledger, NoiseKind, PlanRequest, PrivacyPlan, TRAINING, Unit};
//!
//! # fn main() -> dpsynth_privacy::Result<()> {
//! # let folder = tempfile::tempdir().expect("a folder");
//! # let ledgers = folder.path();
//! let plan = PrivacyPlan::calibrate(&PlanRequest {
//!     target_epsilon: 4.0,
//!     delta: None, // 1 / (N ln N)
//!     public_size: 1_000,
//!     expected_batch_size: 50,
//!     steps: 20,
//!     max_grad_norm: 1.0,
//!     noise: NoiseKind::ExactGaussian,
//!     unit: Unit::Record,
//!     batches: Batches::Poisson,
//!     beside: Vec::new(),
//!     seed: None,
//! })?;
//! println!("{}", plan.statement(plan.steps())); // epsilon, with everything without which it means nothing
//!
//! let ledger = Ledger::open(ledgers, "sha256-of-the-dataset", 10.0, plan.delta(), plan.unit())?;
//! let mut run = plan.begin(ledger, "first-run", 1_000)?;
//! let step = run.charge(TRAINING)?;
//! // The sum over `step.members()` of one vector each, of norm at most `max_grad_norm`.
//! let sum = vec![0.0; 8];
//! let noisy_mean = step.privatize(&sum)?;
//! # assert_eq!(noisy_mean.len(), 8);
//! # Ok(())
//! # }
//! ```
//!
//! The accountant is of use by itself:
//!
//! ```
//! use dpsynth_privacy::accountant::{Adjacency, Phase, pld};
//!
//! # fn main() -> dpsynth_privacy::Result<()> {
//! let steps = Phase::new(0.01, 0.8, 1_000)?; // sampling rate, noise multiplier, steps
//! let epsilon = pld::epsilon(&[steps], Adjacency::AddOrRemoveOne, 1e-5)?;
//! assert!(epsilon.epsilon_lower <= epsilon.epsilon);
//! # Ok(())
//! # }
//! ```
//!
//! And so is the ledger's record of what was spent:
//!
//! ```no_run
//! # fn main() -> dpsynth_privacy::Result<()> {
//! let spent = dpsynth_privacy::verify(std::path::Path::new("ledgers/5d97c37f.jsonl"))?;
//! println!("epsilon {} at delta {}", spent.charged_epsilon()?, spent.delta);
//! # Ok(())
//! # }
//! ```
//!
//! How the parts hang together, in the order in which to read them:
//!
//! - [`accountant`]: from (sampling rate, noise multiplier, steps) to epsilon. Pure functions, spends nothing.
//! - [`calibrate`]: the accountant turned round: the smallest noise multiplier for a target epsilon.
//! - [`planner`]: how to spend an epsilon in the time there is.
//! - [`PrivacyPlan`]: what a run may do, fixed before it starts. The only source of sampling and noise (rule P1).
//! - [`Ledger`]: what was spent on a dataset: an append-only, hash-chained file.
//! - [`mechanisms`]: what a plan may release, a file each.
//! - [`PrivateRun`] and [`ChargedStep`]: a plan at work. A use of a release is charged to the ledger, then handed out: a step
//!   gives out one batch and, when it is consumed, one draw of noise.
//! - [`class`]: why a value may leave (rule P9).
//! - [`Guarantee`]: epsilon, never without delta, adjacency, unit, sampler and accountant (rule P10).
//!
//! The sampler and the noise are private to this crate, so code outside cannot sample or add noise without a charge:
//!
//! ```compile_fail,E0603
//! use dpsynth_privacy::noise::Mechanism;
//! ```
//! ```compile_fail,E0603
//! use dpsynth_privacy::sampler::poisson;
//! ```
//!
//! ```compile_fail,E0603
//! use dpsynth_privacy::keys::KeySource;
//! ```
//! ```compile_fail,E0603
//! use dpsynth_privacy::laplace::DiscreteLaplace;
//! ```
//! ```compile_fail,E0451
//! use dpsynth_privacy::mechanisms::Charged;
//! fn uncharged<'a>(of: Charged<'a>) -> Charged<'a> {
//!     Charged { index: 0, ..of }
//! }
//! ```
//!
//! A charged step adds its noise once. It cannot be used twice, copied, or given other members:
//!
//! ```compile_fail,E0382
//! use dpsynth_privacy::ChargedStep;
//! fn twice(step: ChargedStep, sum: &[f64]) {
//!     step.privatize(sum).unwrap();
//!     step.privatize(sum).unwrap();
//! }
//! ```
//! ```compile_fail,E0277
//! use dpsynth_privacy::ChargedStep;
//! fn copied(step: &ChargedStep, sum: &[f64]) {
//!     ChargedStep::clone(step).privatize(sum).unwrap();
//! }
//! ```
//! ```compile_fail,E0451
//! use dpsynth_privacy::ChargedStep;
//! fn of_others(step: ChargedStep, members: Vec<usize>) -> ChargedStep {
//!     ChargedStep { members, ..step }
//! }
//! ```
//!
//! Neither can noise that was drawn beside its sum, nor counts:
//!
//! ```compile_fail,E0382
//! use dpsynth_privacy::StepNoise;
//! fn twice(noise: StepNoise, sum: &[f64]) {
//!     noise.privatize(sum).unwrap();
//!     noise.privatize(sum).unwrap();
//! }
//! ```
//! ```compile_fail,E0382
//! use dpsynth_privacy::ChargedCounts;
//! fn twice(counts: ChargedCounts) {
//!     counts.privatize(&[1]);
//!     counts.privatize(&[1]);
//! }
//! ```
//!
//! Used once it compiles, so it is the second use that does not:
//!
//! ```
//! use dpsynth_privacy::ChargedStep;
//! fn once(step: ChargedStep, sum: &[f64]) {
//!     step.privatize(sum).unwrap();
//! }
//! ```

pub mod accountant;
mod bands;
pub mod bounds;
pub mod calibrate;
pub mod class;
mod error;
mod keys;
mod laplace;
mod ledger;
pub mod mechanisms;
mod mixture;
#[cfg(mutants)]
#[doc(hidden)]
pub mod mutation;
mod noise;
mod normal;
pub mod number;
mod plan;
pub mod planner;
mod run;
mod sampler;
mod secrets;
mod statement;
mod uniform;
mod unit;

pub use bands::{MAX_BANDS, coefficients as band_coefficients, deviation_of_sum as band_deviation_of_sum};
pub use class::{Class, Document, Field};
pub use error::{Error, Result, Told};
pub use ledger::{Counted, Ledger, LedgerHead, LedgerView, RestsOn, RunRecord, find as find_ledger, verify};
pub use mechanisms::{
    COPY_GATE, ChargedCount, ChargedCounts, ChargedStep, ChargedSums, LABELS, LEXICON, LabelCounts, LabelScorer,
    LabelTokens, Proof, Release, SCORER, Sampler, StepNoise, TRAINING, UnitCount,
};
pub use mixture::Mixture;
pub use noise::{FLOAT_ALLOWANCE, NoiseKind};
pub use plan::{Batches, PlanRequest, PrivacyPlan, default_delta, slots};
pub use run::PrivateRun;
pub use statement::{FIXED_SEED, Guarantee, ON_A_GPU, mark};
pub use unit::Unit;
