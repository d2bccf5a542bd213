//! The audited core: plan, sampler, noise, accountant, ledger. Plain slices; no model, no tensor.
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
//!   gives out one Poisson batch and, when it is consumed, one draw of noise.
//! - [`class`]: why a value may leave (rule P9).
//! - [`Guarantee`]: epsilon, never without delta, adjacency, unit, sampler and accountant (rule P10).
//!
//! The sampler and the noise are private to this room, so code outside cannot sample or add noise without a charge:
//!
//! ```compile_fail,E0603
//! use dpsynth::privacy::noise::Mechanism;
//! ```
//! ```compile_fail,E0603
//! use dpsynth::privacy::sampler::poisson;
//! ```
//!
//! A charged step adds its noise once. It cannot be used twice, copied, or given other members:
//!
//! ```compile_fail,E0382
//! use dpsynth::privacy::ChargedStep;
//! fn twice(step: ChargedStep, sum: &[f64]) {
//!     step.privatize(sum).unwrap();
//!     step.privatize(sum).unwrap();
//! }
//! ```
//! ```compile_fail,E0277
//! use dpsynth::privacy::ChargedStep;
//! fn copied(step: &ChargedStep, sum: &[f64]) {
//!     ChargedStep::clone(step).privatize(sum).unwrap();
//! }
//! ```
//! ```compile_fail,E0451
//! use dpsynth::privacy::ChargedStep;
//! fn of_others(step: ChargedStep, members: Vec<usize>) -> ChargedStep {
//!     ChargedStep { members, ..step }
//! }
//! ```
//!
//! Used once it compiles, so it is the second use that does not:
//!
//! ```
//! use dpsynth::privacy::ChargedStep;
//! fn once(step: ChargedStep, sum: &[f64]) {
//!     step.privatize(sum).unwrap();
//! }
//! ```

pub mod accountant;
pub mod calibrate;
pub mod class;
mod keys;
mod laplace;
mod ledger;
pub mod mechanisms;
mod noise;
mod normal;
mod plan;
pub mod planner;
mod run;
mod sampler;
mod statement;
mod uniform;
mod unit;

pub use class::{Class, Document, Field};
pub use ledger::{Ledger, LedgerHead, LedgerView, RunRecord, find as find_ledger, verify};
pub use mechanisms::{ChargedCounts, ChargedStep, LABELS, Proof, Release, StepNoise, TRAINING};
pub use noise::{FLOAT_ALLOWANCE, NoiseKind};
pub use plan::{PlanRequest, PrivacyPlan};
pub use run::PrivateRun;
pub use statement::{FIXED_SEED, Guarantee, ON_A_GPU};
pub use unit::Unit;
