//! A guarantee as it may be shown: epsilon never without delta, adjacency, unit, sampler and accountant (rule P10).

use serde::Serialize;

use crate::number::{delta, down, up};
use crate::privacy::Guarantee;
use crate::privacy::mechanisms::Stated;

/// A guarantee, whole.
#[derive(Clone, Debug, Serialize)]
pub struct ShownGuarantee {
    /// Rounded up.
    pub epsilon: String,
    pub private: bool,
    /// Whether a proof stands behind it (P11).
    pub proven: bool,
    /// Each term and what it is, epsilon's lower end among them.
    pub terms: Vec<(&'static str, String)>,
    /// All of it in one line.
    pub sentence: String,
    /// What must be read before it.
    pub caveat: Option<String>,
}

impl ShownGuarantee {
    /// Of a run's guarantee.
    pub fn of(g: &Guarantee) -> Self {
        let mut terms = vec![
            ("delta", delta(g.delta, 2)),
            ("adjacency", g.adjacency.replace('-', " ")),
            ("unit", g.unit.clone()),
            ("sampler", g.sampler.clone()),
            ("accountant", g.accountant.clone()),
            ("at least", format!("epsilon {}", down(g.epsilon_lower, 3))),
        ];
        terms.extend(g.releases.iter().flat_map(Stated::terms));
        ShownGuarantee {
            epsilon: up(g.epsilon, 3),
            private: g.private,
            proven: g.unproven().is_none(),
            terms,
            sentence: g.to_string(),
            caveat: g.caveats(),
        }
    }
}
