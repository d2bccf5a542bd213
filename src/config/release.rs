//! What is said of a release besides what the run knows.

use serde::{Deserialize, Serialize};

use super::rules::refuse;
use crate::Result;

/// What a release says of itself. Apart from `copy_gate.epsilon`, which is part of the plan, nothing of it changes a record:
/// it may change after everything is done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    deny_unknown_fields,
    default,
    expecting = "a table such as { license = \"cc-by-4.0\", language = [\"en\"] }"
)]
pub struct ReleaseConfig {
    /// Licence of the synthetic records: an identifier of the Hugging Face hub such as `cc-by-4.0`, in lower case.
    pub license: String,
    /// Languages of the records: ISO 639 codes such as `en`.
    pub language: Vec<String>,
    /// The dataset's name for people; default: the run's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pretty_name: Option<String>,
    /// What the records are about, in a sentence or two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Who publishes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployer: Option<String>,
    /// What kind of organisation that is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployer_type: Option<DeployerType>,
    /// Where questions go: an address of mail or of a page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contact: Option<String>,
    /// Which region the records are from, or whose law applies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Day of publication, YYYY-MM-DD. Never the machine's clock: the same run gives the same bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
    /// Where the dataset will be found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Refuses a release where too many units share phrases with it. Planned and charged with the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copy_gate: Option<CopyGate>,
}

/// A gate that private records decide: how many training units share a phrase with a record that is to leave, counted
/// with noise, against a limit that is public.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a table such as { epsilon = 0.1, tolerated_units = 3 }"
)]
pub struct CopyGate {
    /// What the count costs, of the run's epsilon.
    pub epsilon: f64,
    /// The release is refused where the noisy count is above this.
    pub tolerated_units: u64,
}

impl Default for ReleaseConfig {
    fn default() -> Self {
        ReleaseConfig {
            license: "other".into(),
            language: Vec::new(),
            pretty_name: None,
            description: None,
            deployer: None,
            deployer_type: None,
            contact: None,
            region: None,
            date: None,
            url: None,
            copy_gate: None,
        }
    }
}

/// Kinds of publishers, as the Differential Privacy Deployments Registry has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeployerType {
    Government,
    Industry,
    Nonprofit,
}

impl ReleaseConfig {
    /// Refuses what a dataset card or a registry would not take.
    ///
    /// # Errors
    /// Usage: a value is not of its kind.
    pub fn check(&self) -> Result<()> {
        let identifier = |s: &str| {
            !s.is_empty()
                && s.chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c))
        };
        if !identifier(&self.license) {
            return refuse(
                "release.license",
                "an identifier such as cc-by-4.0 or other",
                format!("{:?}", self.license),
            );
        }
        let code = |s: &str| {
            let (main, rest) = s.split_once('-').unwrap_or((s, "x"));
            (2..=3).contains(&main.len())
                && main.chars().all(|c| c.is_ascii_lowercase())
                && !rest.is_empty()
                && rest.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        };
        if let Some(wrong) = self.language.iter().find(|l| !code(l)) {
            return refuse(
                "release.language",
                "a list of ISO 639 codes such as [\"en\"]",
                format!("{wrong:?}"),
            );
        }
        let lines = [
            ("release.pretty_name", &self.pretty_name),
            ("release.description", &self.description),
            ("release.deployer", &self.deployer),
            ("release.contact", &self.contact),
            ("release.region", &self.region),
            ("release.url", &self.url),
        ];
        for (key, value) in lines {
            if let Some(value) = value
                .as_ref()
                .filter(|v| v.trim().is_empty() || v.contains(char::is_control))
            {
                return refuse(key, "a line of text", format!("{value:?}"));
            }
        }
        if let Some(gate) = self
            .copy_gate
            .filter(|gate| !(gate.epsilon > 0.0 && gate.epsilon.is_finite()))
        {
            return refuse(
                "release.copy_gate.epsilon",
                "a number above 0, such as 0.1",
                gate.epsilon,
            );
        }
        match self.date.as_ref().filter(|d| !is_date(d)) {
            Some(date) => refuse("release.date", "a day as YYYY-MM-DD", format!("{date:?}")),
            None => Ok(()),
        }
    }
}

/// YYYY-MM-DD of the Gregorian calendar.
fn is_date(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = parts.iter().map(|p| p.len()).collect();
    let numbers: Option<Vec<u32>> = (parts.iter())
        .map(|p| p.bytes().all(|b| b.is_ascii_digit()).then(|| p.parse().ok())?)
        .collect();
    let (Some(numbers), [4, 2, 2]) = (numbers, lengths.as_slice()) else {
        return false;
    };
    let (year, month, day) = (numbers[0], numbers[1], numbers[2]);
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    };
    (1..=days).contains(&day)
}
