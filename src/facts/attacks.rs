//! What the guarantee means for an attack on membership: from the whole curve, not from one epsilon.

use crate::privacy::accountant::tradeoff::Curve;
use crate::privacy::accountant::{Adjacency, Phase};
use crate::{Result, document};

/// False-positive rates at which an attack is looked at.
pub const RATES: [f64; 4] = [0.001, 0.01, 0.05, 0.1];

document! {
    /// Bounds on every attack that tells whether one unit was among the private data.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Attacks {
        public at: Vec<AttacksAt>,
        /// How often an attack is right, at most, where in and out are an even chance.
        public right_at_even_odds: f64,
        /// Of the smallest Gaussian mechanism that dominates this one, but for a probability of 1e-9.
        public mu: f64,
        /// By how much that one overstates.
        public regret: f64,
    }
}

document! {
    /// At one false-positive rate.
    #[derive(Clone, Debug, PartialEq)]
    pub struct AttacksAt {
        /// Share of those who were out that are said to be in.
        public false_positive_rate: f64,
        /// Share of those who were in that are said to be: no attack has more.
        public true_positive_rate_at_most: f64,
        /// And the best attack has at least this.
        public true_positive_rate_at_least: f64,
        /// Share of those named who were in, at even odds before: a mean over all who are named at this rate.
        public posterior_at_most: f64,
    }
}

impl Attacks {
    /// On all `phases` together.
    ///
    /// # Errors
    /// As [`Curve::new`].
    pub fn of(phases: &[Phase], adjacency: Adjacency) -> Result<Self> {
        Ok(Self::from(&Curve::new(phases, adjacency)?))
    }

    /// The same with points of the curve, (false positives, true positives at most), evenly by orders of magnitude.
    ///
    /// # Errors
    /// As [`Curve::new`].
    pub fn with_points(phases: &[Phase], adjacency: Adjacency) -> Result<(Self, Vec<(f64, f64)>)> {
        let curve = Curve::new(phases, adjacency)?;
        let rates = (0..=80).map(|i| 10f64.powf(f64::from(i) / 20.0 - 4.0));
        let points = rates.map(|rate| (rate, curve.true_positives(rate).at_most)).collect();
        Ok((Self::from(&curve), points))
    }
}

impl From<&Curve> for Attacks {
    fn from(curve: &Curve) -> Self {
        let at = |rate: f64| {
            let found = curve.true_positives(rate);
            AttacksAt {
                false_positive_rate: rate,
                true_positive_rate_at_most: found.at_most,
                true_positive_rate_at_least: found.at_least,
                posterior_at_most: found.at_most / (found.at_most + rate),
            }
        };
        let dominating = curve.dominating();
        Attacks {
            at: RATES.map(at).into(),
            right_at_even_odds: curve.right_at_even_odds().at_most,
            mu: dominating.mu,
            regret: dominating.regret,
        }
    }
}
