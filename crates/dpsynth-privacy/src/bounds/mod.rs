//! From what an attack saw to a lower bound on epsilon.
//!
//! - [`threshold`]: the rates of a test with a threshold, and the two lines of (ε, δ).
//! - [`one_run`]: guesses at many coins that one run was given, and (ε, δ).
//! - [`on_the_curve`]: both again, against the whole trade-off function of a mechanism in place of one ε.
//! - [`family`]: the mechanism that is claimed, at more and at less noise: where the whole curve is held against what was
//!   seen, the bound is the ε of the least noisy member that is refuted.
//! - [`binomial`]: tails, and the limits of a rate that was measured.
//!
//! Each is a confidence bound: the truth is below it with a probability of at most `alpha`.

pub mod binomial;
pub mod family;
pub mod on_the_curve;
pub mod one_run;
pub mod threshold;
