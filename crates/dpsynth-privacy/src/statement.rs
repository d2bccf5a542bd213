//! Epsilon and everything without which it means nothing (rule P10).

use std::fmt;

use serde_json::{Map, Value};

use super::accountant::Phase;
use super::class::Document;
use super::mechanisms::{Proof, Stated, SubsampledGaussianStated};
use crate::number::{delta, down, up};
use crate::{Error, document};

/// What an epsilon may not stand without where there is room for little: empty where it is a guarantee.
pub fn mark(private: bool, proven: bool) -> &'static str {
    match (private, proven) {
        (false, _) => "NOT PRIVATE ",
        (true, false) => "NOT A DP GUARANTEE ",
        (true, true) => "",
    }
}

document! {
    /// What a run guarantees: `model/privacy.json`, and what is made of it. Its display never prints epsilon alone.
    ///
    /// In a file each release's values lie beside the others, under keys of its own. A key that nobody knows is refused.
    #[derive(Clone, Debug, PartialEq)]
    #[serde(into = "Map<String, Value>", try_from = "Map<String, Value>")]
    pub struct Guarantee {
        /// What must be read first: NOT A DP GUARANTEE, and why, where a release has no proof (P11); that the randomness came
        /// from a fixed seed; that it was trained on a GPU.
        public caveat: Option<String>,
        /// Pessimistic: the guarantee.
        public epsilon: f64,
        /// Optimistic: no analysis of this mechanism can give less than this.
        public epsilon_lower: f64,
        /// Probability beside epsilon.
        public delta: f64,
        /// Which datasets are neighbours.
        public adjacency: String,
        /// What is added or removed.
        public unit: String,
        /// How batches are drawn.
        public sampler: String,
        /// What computed epsilon.
        public accountant: String,
        /// What its releases say of themselves ([`crate::mechanisms`]): noise multiplier, sampling rate and steps among it.
        public releases: Vec<Stated>,
        /// False where the randomness came from a fixed seed: then nothing above is guaranteed.
        public private: bool,
    }
}

/// What a run's guarantee says first where it was trained on a GPU.
pub const ON_A_GPU: &str = "trained on a GPU, where the allowance for floating-point error is not tested yet";

/// What a guarantee says first where the randomness came from a fixed seed.
pub const FIXED_SEED: &str = "NOT PRIVATE: the randomness came from a fixed seed";

/// The words without which what `release` costs may not be quoted (P11).
pub(super) fn not_proven(release: &str, reference: &str) -> String {
    format!("NOT A DP GUARANTEE: `{release}` has no proof ({reference})")
}

impl Guarantee {
    /// Reads a guarantee, and names the keys of it that nobody knows.
    ///
    /// # Errors
    /// What lacks, or is not of its type, by its key.
    pub fn read(mut values: Map<String, Value>) -> Result<(Self, Vec<String>), String> {
        let releases = Stated::take_all(&mut values)?;
        let values = &mut values;
        let out = Guarantee {
            caveat: match values.contains_key("caveat") {
                true => Some(take(values, "caveat")?),
                false => None,
            },
            epsilon: take(values, "epsilon")?,
            epsilon_lower: take(values, "epsilon_lower")?,
            delta: take(values, "delta")?,
            adjacency: take(values, "adjacency")?,
            unit: take(values, "unit")?,
            sampler: take(values, "sampler")?,
            accountant: take(values, "accountant")?,
            releases,
            private: take(values, "private")?,
        };
        Ok((out, values.keys().cloned().collect()))
    }

    /// Every key that a guarantee may have in a file.
    pub fn keys() -> impl Iterator<Item = &'static str> {
        let own = Self::FIELDS.iter().map(|f| f.name).filter(|name| *name != "releases");
        own.chain(Stated::keys())
    }

    /// As files have it, key by key.
    pub fn values(&self) -> Map<String, Value> {
        self.clone().into()
    }

    /// What training says of itself; none where nothing was trained.
    pub fn training(&self) -> Option<&SubsampledGaussianStated> {
        self.releases.iter().find_map(Stated::training)
    }

    /// A number of a release by its key, such as `noise_multiplier`; not a number where none says it.
    pub fn number(&self, key: &str) -> f64 {
        self.values().get(key).and_then(Value::as_f64).unwrap_or(f64::NAN)
    }

    /// The releases that it speaks of, for the accountant.
    ///
    /// # Errors
    /// Usage: numbers that the accountant refuses, values that no plan has, or a sampler without what it samples for.
    pub fn phases(&self) -> crate::Result<Vec<Phase>> {
        if (self.sampler != "none") != self.training().is_some() {
            return Err(Error::usage(
                "it names a sampler and no training, or training and no sampler",
            ));
        }
        self.releases.iter().map(|stated| stated.phase(&self.sampler)).collect()
    }

    /// With what must be read first of how it was trained, unless it says something already.
    pub fn told(mut self, on_gpu: bool) -> Self {
        let own = self.caveat.take();
        self.caveat = own.or(match (self.private, on_gpu) {
            (false, _) => Some(FIXED_SEED.into()),
            (true, true) => Some(ON_A_GPU.into()),
            (true, false) => None,
        });
        self
    }

    /// NOT A DP GUARANTEE and why, where a release of it has no proof (P11): it need not say so itself.
    pub fn unproven(&self) -> Option<String> {
        self.releases.iter().find_map(|stated| match stated.proof() {
            Proof::Research(reference) => {
                Some(not_proven(stated.release(), reference) + &stated.own_account(self.delta))
            }
            Proof::Certified(_) => None,
        })
    }

    /// What its epsilon may not stand without where there is room for little: empty where it is a guarantee.
    pub fn mark(&self) -> &'static str {
        mark(self.private, self.unproven().is_none())
    }

    /// What must be read before its numbers; none where there is nothing.
    pub fn caveats(&self) -> Option<String> {
        let unproven = self.unproven();
        let own = self.caveat.as_deref().filter(|own| !own.is_empty());
        match unproven.as_deref().or(own) {
            Some(own) if !self.private && own != FIXED_SEED => Some(format!("{FIXED_SEED}; {own}")),
            Some(own) => Some(own.to_string()),
            None => (!self.private).then(|| FIXED_SEED.to_string()),
        }
    }
}

/// Takes a value out.
fn take<T: serde::de::DeserializeOwned>(values: &mut Map<String, Value>, key: &str) -> Result<T, String> {
    let value = values.shift_remove(key).ok_or_else(|| format!("`{key}` is missing"))?;
    serde_json::from_value(value).map_err(|e| format!("`{key}`: {e}"))
}

impl From<Guarantee> for Map<String, Value> {
    fn from(g: Guarantee) -> Self {
        let mut out = Map::new();
        if let Some(caveat) = g.caveat {
            out.insert("caveat".into(), caveat.into());
        }
        let numbers = [
            ("epsilon", g.epsilon),
            ("epsilon_lower", g.epsilon_lower),
            ("delta", g.delta),
        ];
        out.extend(numbers.map(|(key, number)| (key.to_string(), number.into())));
        let texts = [
            ("adjacency", g.adjacency),
            ("unit", g.unit),
            ("sampler", g.sampler),
            ("accountant", g.accountant),
        ];
        out.extend(texts.map(|(key, text)| (key.to_string(), text.into())));
        for (key, value) in g.releases.iter().flat_map(Stated::values) {
            let before = out.insert(key.clone(), value);
            assert!(before.is_none(), "two releases of a guarantee say `{key}`");
        }
        out.insert("private".into(), g.private.into());
        out
    }
}

impl TryFrom<Map<String, Value>> for Guarantee {
    type Error = String;

    fn try_from(values: Map<String, Value>) -> Result<Self, String> {
        let (guarantee, unknown) = Guarantee::read(values)?;
        match unknown.is_empty() {
            true => Ok(guarantee),
            false => Err(format!("says `{}`, which this program does not", unknown.join("`, `"))),
        }
    }
}

/// In a line: epsilon with everything without which it means nothing (P10), its caveat first, rounded away from what would
/// claim too much.
impl fmt::Display for Guarantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(caveats) = self.caveats() {
            write!(f, "{caveats}; ")?;
        }
        let releases: Vec<String> = self.releases.iter().map(Stated::words).collect();
        write!(
            f,
            "epsilon {} (at least {}) at delta {}; adjacency {}, unit {}, sampler {}, accountant {}; {}",
            up(self.epsilon, 3),
            down(self.epsilon_lower, 3),
            delta(self.delta, 2),
            self.adjacency,
            self.unit,
            self.sampler,
            self.accountant,
            releases.join("; ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p10_a_guarantee_with_parts_missing_says_so() {
        let whole = serde_json::json!({
            "epsilon": 1.00001, "epsilon_lower": 0.9999, "delta": 1.001e-5, "adjacency": "add-or-remove-one",
            "unit": "record", "sampler": "poisson", "accountant": "pld", "mechanism": "exact rounded Gaussian noise",
            "noise_multiplier": 0.8, "sampling_rate": 0.000_012_344, "steps": 10, "max_grad_norm": 1.0,
            "expected_batch_size": 4, "private": true
        });
        let read = |value: Value| serde_json::from_value::<Guarantee>(value);
        assert_eq!(
            read(whole.clone()).expect("whole").to_string(),
            "epsilon 1.001 (at least 0.999) at delta 1.01e-5; adjacency add-or-remove-one, unit record, sampler poisson, \
             accountant pld; exact rounded Gaussian noise, noise multiplier 0.8000, sampling rate 0.00001234, 10 steps"
        );
        for key in whole.as_object().expect("an object").keys() {
            let mut torn = whole.clone();
            torn.as_object_mut().expect("an object").shift_remove(key);
            let error = read(torn).expect_err("torn").to_string();
            assert!(error.contains(&format!("`{key}`")), "{error}");
        }
    }

    #[test]
    fn p9_a_guarantee_with_a_key_that_nobody_classified_is_not_read() {
        let error = serde_json::from_value::<Guarantee>(serde_json::json!({
            "epsilon": 1.0, "epsilon_lower": 0.9, "delta": 1e-5, "adjacency": "add-or-remove-one", "unit": "record",
            "sampler": "none", "accountant": "pld", "label_histogram_epsilon": 0.5, "mean_loss": 4.0, "private": true
        }))
        .expect_err("an unknown key");
        assert!(error.to_string().contains("`mean_loss`"), "{error}");
    }
}
