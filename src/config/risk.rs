//! `finetune.risk`: what attacks on membership may come to, in the place of an epsilon.

use serde::{Deserialize, Serialize};

use super::rules::refuse;
use crate::Result;

/// A bound on every attack that says of one unit whether it was among the private data.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "{ right_at_even_odds = 0.6 } or { false_positive_rate = 0.01, true_positive_rate = 0.05 }"
)]
pub enum Risk {
    /// How often it is right where in and out are an even chance.
    EvenOdds(EvenOdds),
    /// Of the units that were in, the share that it names, where it names this share of those that were out.
    Rates(Rates),
}

/// See [`Risk::EvenOdds`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvenOdds {
    /// Above 0.5, where an attack guesses, and below 1.
    pub right_at_even_odds: f64,
}

/// See [`Risk::Rates`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rates {
    /// Above 0.
    pub false_positive_rate: f64,
    /// Above the other, which an attack has by guessing, and below 1.
    pub true_positive_rate: f64,
}

impl std::fmt::Display for Risk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Risk::EvenOdds(of) => write!(
                f,
                "no attack is right oftener than {} % at even odds",
                100.0 * of.right_at_even_odds
            ),
            Risk::Rates(of) => write!(
                f,
                "no attack names more than {} % of members and {} % of others",
                100.0 * of.true_positive_rate,
                100.0 * of.false_positive_rate
            ),
        }
    }
}

impl Risk {
    /// Refuses what is no bound.
    ///
    /// # Errors
    /// Usage, with the key.
    pub fn check(&self) -> Result<()> {
        match *self {
            Risk::EvenOdds(EvenOdds { right_at_even_odds: p }) if !(0.5 < p && p < 1.0) => refuse(
                "finetune.risk.right_at_even_odds",
                "above 0.5, where an attack guesses, and below 1",
                p,
            ),
            Risk::Rates(Rates {
                false_positive_rate: fpr,
                true_positive_rate: tpr,
            }) if !(0.0 < fpr && fpr < tpr && tpr < 1.0) => refuse(
                "finetune.risk.true_positive_rate",
                "above the false-positive rate, which is above 0, and below 1",
                format!("{tpr} at {fpr}"),
            ),
            _ => Ok(()),
        }
    }
}
