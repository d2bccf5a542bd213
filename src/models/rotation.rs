//! Rotary positions (Su et al. 2021), as `config.json` declares them.

use std::f64::consts::TAU;
use std::sync::Arc;

use serde::Deserialize;

use crate::{Error, Result};

/// `rope_parameters` of transformers 5, `rope_scaling` of transformers 4.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Rope {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
    partial_rotary_factor: Option<f64>,
}

/// Positions in which each pair of a head turns by a radian: the pairs of `base` without any scaling.
pub fn periods(base: f64, head_width: usize) -> Vec<f64> {
    let of = |pair: usize| base.powf(2.0 * pair as f64 / head_width as f64);
    (0..head_width / 2).map(of).collect()
}

impl Rope {
    /// Of each pair of a head; `base` where this names none.
    ///
    /// # Errors
    /// Data: a scaling that is not known, or without its numbers.
    pub fn periods(&self, base: f64, head_width: usize) -> Result<Arc<[f64]>> {
        let base = self.rope_theta.unwrap_or(base);
        let given = |value: Option<f64>, name: &str| {
            value.filter(|v| *v > 0.0 && v.is_finite()).ok_or_else(|| {
                Error::data(format!("the model's rotary positions have no usable `{name}`"))
                    .hint("check that config.json is the model's own")
            })
        };
        given(Some(base), "rope_theta")?;
        if self.partial_rotary_factor.is_some_and(|part| part != 1.0) {
            return Err(Error::data("the model rotates only a part of each head")
                .hint("models that rotate whole heads are supported"));
        }
        let plain = periods(base, head_width);
        match self.rope_type.as_deref().unwrap_or("default") {
            "default" => Ok(plain.into()),
            "linear" => {
                let factor = given(self.factor, "factor")?;
                Ok(plain.into_iter().map(|period| period * factor).collect())
            }
            "llama3" => {
                let factor = given(self.factor, "factor")?;
                let low = given(self.low_freq_factor, "low_freq_factor")?;
                let high = given(self.high_freq_factor, "high_freq_factor")?;
                let original = given(
                    self.original_max_position_embeddings,
                    "original_max_position_embeddings",
                )?;
                Ok(plain
                    .into_iter()
                    .map(|period| llama3(period, factor, low, high, original))
                    .collect())
            }
            other => Err(Error::data(format!(
                "the model scales its positions by `{other}`, which is not known"
            ))
            .hint("`default`, `linear` and `llama3` are supported")),
        }
    }
}

/// Slow pairs are slowed down by `factor`, fast ones stay, those between go from one to the other (Llama 3.1).
fn llama3(period: f64, factor: f64, low: f64, high: f64, original: f64) -> f64 {
    let turns = original / (TAU * period);
    let share = ((turns - low) / (high - low)).clamp(0.0, 1.0);
    1.0 / ((1.0 - share) / (period * factor) + share / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rope(json: serde_json::Value) -> Rope {
        serde_json::from_value(json).expect("parses")
    }

    #[test]
    fn pairs_are_slowed_down_as_declared() {
        let plain = periods(10_000.0, 8);
        assert_eq!(plain, [1.0, 10.0, 100.0, 1000.0]);
        let linear = rope(serde_json::json!({ "type": "linear", "factor": 4.0 }));
        assert_eq!(*linear.periods(10_000.0, 8).unwrap(), [4.0, 40.0, 400.0, 4000.0]);
        let llama3 = rope(serde_json::json!({
            "rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 1000,
        }));
        let scaled = llama3.periods(5.0, 8).unwrap();
        // 1000 positions are 159, 15.9, 1.59 and 0.159 turns: kept, kept, between, slowed.
        assert_eq!((scaled[0], scaled[1], scaled[3]), (1.0, 10.0, 8000.0));
        assert!(100.0 < scaled[2] && scaled[2] < 800.0);
    }

    #[test]
    fn a_scaling_that_is_not_known_is_refused() {
        for wrong in [
            serde_json::json!({ "rope_type": "yarn", "factor": 4.0 }),
            serde_json::json!({ "rope_type": "linear" }),
            serde_json::json!({ "rope_type": "linear", "factor": 0.0 }),
            serde_json::json!({ "partial_rotary_factor": 0.5 }),
        ] {
            assert!(rope(wrong).periods(10_000.0, 8).is_err());
        }
    }
}
