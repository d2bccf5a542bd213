//! A guarantee as it may be shown: epsilon never without delta, adjacency, unit, sampler and accountant (rule P10).

use serde::Serialize;
use serde_json::Value;

use crate::number::{delta, down, up};
use crate::privacy::{caveats, mechanisms, sentence};

/// A guarantee, whole.
#[derive(Clone, Debug, Serialize)]
pub struct Guarantee {
    /// Rounded up.
    pub epsilon: String,
    pub private: bool,
    /// Each term and what it is, epsilon's lower end first.
    pub terms: Vec<(&'static str, String)>,
    /// All of it in one line.
    pub sentence: String,
    /// What must be read before it.
    pub caveat: Option<String>,
}

impl Guarantee {
    /// Of `model/privacy.json`, or of anything with the same keys. What is not there stands as `?`.
    pub fn of(p: &Value) -> Self {
        let number = |key: &str| p[key].as_f64();
        let text = |key: &str| p[key].as_str().unwrap_or("?").to_string();
        let or_unknown = |v: Option<String>| v.unwrap_or_else(|| "?".into());
        let private = p["private"] == true;
        let epsilon = or_unknown(number("epsilon").map(|e| up(e, 3)));
        let delta = or_unknown(number("delta").map(|d| delta(d, 2)));
        let adjacency = text("adjacency").replace('-', " ");
        let mut terms = vec![
            ("delta", delta.clone()),
            ("adjacency", adjacency.clone()),
            ("unit", text("unit")),
            ("sampler", text("sampler")),
            ("accountant", text("accountant")),
        ];
        terms.extend(number("epsilon_lower").map(|e| ("at least", format!("epsilon {}", down(e, 3)))));
        terms.extend(p.as_object().map(mechanisms::terms).unwrap_or_default());
        Guarantee {
            sentence: p.as_object().map(sentence).unwrap_or_default(),
            caveat: p.as_object().and_then(caveats),
            epsilon,
            private,
            terms,
        }
    }
}
