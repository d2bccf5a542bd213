//! Epsilon and everything without which it means nothing (rule P10).

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

use super::mechanisms;
use crate::number::{delta, down, up};

/// What a run guarantees. Its display never prints epsilon alone.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PrivacyStatement {
    /// NOT A DP GUARANTEE, and why, where a release has no proof (P11); it goes wherever the numbers go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caveat: Option<String>,
    /// Pessimistic: the guarantee.
    pub epsilon: f64,
    /// Optimistic: no analysis of this mechanism can give less than this.
    pub epsilon_lower: f64,
    /// Probability beside epsilon.
    pub delta: f64,
    /// Which datasets are neighbours.
    pub adjacency: &'static str,
    /// What is added or removed.
    pub unit: String,
    /// How batches are drawn.
    pub sampler: String,
    /// What computed epsilon.
    pub accountant: &'static str,
    /// What its releases say of themselves (`privacy/mechanisms`): noise multiplier, sampling rate and steps among it.
    #[serde(flatten)]
    pub releases: Map<String, Value>,
    /// False where the randomness came from a fixed seed: then nothing above is guaranteed.
    pub private: bool,
}

impl PrivacyStatement {
    /// A number that a release says; not a number where none says it.
    pub fn number(&self, key: &str) -> f64 {
        self.releases.get(key).and_then(Value::as_f64).unwrap_or(f64::NAN)
    }
}

impl fmt::Display for PrivacyStatement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match serde_json::to_value(self) {
            Ok(Value::Object(guarantee)) => f.write_str(&sentence(&guarantee)),
            _ => Err(fmt::Error),
        }
    }
}

/// What a run's guarantee says first where it was trained on a GPU.
pub const ON_A_GPU: &str = "trained on a GPU, where the allowance for floating-point error is not tested yet";

/// What a guarantee says first where the randomness came from a fixed seed.
pub const FIXED_SEED: &str = "NOT PRIVATE: the randomness came from a fixed seed";

/// What must be read before a guarantee's numbers; none where there is nothing.
pub fn caveats(guarantee: &Map<String, Value>) -> Option<String> {
    let own = guarantee
        .get("caveat")
        .and_then(Value::as_str)
        .filter(|own| !own.is_empty());
    let seeded = guarantee.get("private") != Some(&Value::Bool(true));
    match own {
        Some(own) if seeded && own != FIXED_SEED => Some(format!("{FIXED_SEED}; {own}")),
        Some(own) => Some(own.to_string()),
        None => seeded.then(|| FIXED_SEED.to_string()),
    }
}

/// A guarantee as files have it (`model/privacy.json` and what is made of it) in a line: epsilon with everything without
/// which it means nothing (P10), its caveat first, rounded away from what would claim too much. What lacks stands as `?`.
pub fn sentence(guarantee: &Map<String, Value>) -> String {
    let unknown = || "?".to_string();
    let number = |key: &str| guarantee.get(key).and_then(Value::as_f64);
    let text = |key: &str| guarantee.get(key).and_then(Value::as_str).unwrap_or("?");
    let caveats = caveats(guarantee);
    format!(
        "{}epsilon {} (at least {}) at delta {}; adjacency {}, unit {}, sampler {}, accountant {}; {}",
        caveats.map(|c| format!("{c}; ")).unwrap_or_default(),
        number("epsilon").map_or_else(unknown, |e| up(e, 3)),
        number("epsilon_lower").map_or_else(unknown, |e| down(e, 3)),
        number("delta").map_or_else(unknown, |d| delta(d, 2)),
        text("adjacency"),
        text("unit"),
        text("sampler"),
        text("accountant"),
        mechanisms::words(guarantee)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p10_a_guarantee_with_parts_missing_says_so() {
        let whole = serde_json::json!({
            "epsilon": 1.00001, "epsilon_lower": 0.9999, "delta": 1.001e-5, "adjacency": "add-or-remove-one",
            "unit": "record", "sampler": "poisson", "accountant": "pld", "mechanism": "exact rounded Gaussian noise",
            "noise_multiplier": 0.8, "sampling_rate": 0.000_012_344, "steps": 10, "private": true
        });
        assert_eq!(
            sentence(whole.as_object().expect("an object")),
            "epsilon 1.001 (at least 0.999) at delta 1.01e-5; adjacency add-or-remove-one, unit record, sampler poisson, \
             accountant pld; exact rounded Gaussian noise, noise multiplier 0.8000, sampling rate 0.00001234, 10 steps"
        );
        let torn = serde_json::json!({ "epsilon": 1.0 });
        let said = sentence(torn.as_object().expect("an object"));
        assert!(
            said.starts_with(
                "NOT PRIVATE: the randomness came from a fixed seed; epsilon 1.000 (at least ?) at delta ?;"
            ),
            "{said}"
        );
    }
}
