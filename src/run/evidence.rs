//! What the lexicon that a run counted says of labels, for the arm that may use it.

use super::RunPaths;
use crate::config::{RunConfig, Strength};
use crate::documents::{self, Domain, Lexicon, Sampled};
use crate::records::LabelSpace;
use crate::sampling::evidence::Evidence;
use crate::sampling::guide::Steering;
use crate::{Error, Result};

/// The lexicon that a run of `config` counted; none where none is planned or there.
///
/// # Errors
/// Data: it is damaged.
pub fn lexicon_of(folder: &RunPaths, config: &RunConfig) -> Result<Option<Lexicon>> {
    if !config.lexicon.is_on() {
        return Ok(None);
    }
    let path = folder.lexicon();
    let lexicon: Option<Lexicon> = documents::read_if_there(&path)?;
    let labels = LabelSpace::from_config(&config.dataset.labels)?.len();
    match lexicon.as_ref().and_then(|lexicon| lexicon.strange(labels)) {
        None => Ok(lexicon),
        Some(what) => Err(Error::data(format!("{} is damaged: {what}", path.display())).hint("put it back as it was")),
    }
}

/// What the records of an arm are drawn by: only the synthetic ones know the lexicon, which is of private records. None where
/// there is no lexicon, or no token stands out in it.
///
/// # Errors
/// Data: it is damaged.
pub fn evidence_of(folder: &RunPaths, arm: &str, config: &RunConfig) -> Result<Option<Counted>> {
    let lexicon = match arm {
        "synthetic" => lexicon_of(folder, config)?,
        _ => None,
    };
    let counted = lexicon
        .filter(|lexicon| !lexicon.tokens.is_empty())
        .map(|lexicon| Counted {
            evidence: Evidence::new(lexicon.evidence()),
            // Records whose label is not clear are not kept, where scorers judge them.
            shown: match config.sample.refine.is_on() && lexicon.judges() {
                true => lexicon.shown_clear,
                false => lexicon.shown,
            },
            lexicon,
        });
    Ok(counted)
}

/// What the records of an arm were lifted by: evidence of labels, and of the domain where that was compared.
///
/// # Errors
/// Data: the lexicon or the comparison is damaged.
pub fn lifting_of(folder: &RunPaths, arm: &str, config: &RunConfig) -> Result<Option<Evidence>> {
    let Some(counted) = evidence_of(folder, arm, config)? else {
        return Ok(None);
    };
    let weight = config.sample.domain_weight;
    if weight == 0.0 {
        return Ok(Some(counted.evidence));
    }
    let path = folder.domain();
    match documents::read_if_there::<Domain>(&path)? {
        None => Ok(Some(counted.evidence)),
        Some(domain) => match counted.toward(&domain, weight) {
            Some(evidence) => Ok(Some(evidence)),
            None => Err(
                Error::data(format!("{} is damaged: it is of another lexicon", path.display()))
                    .hint("put it back as it was"),
            ),
        },
    }
}

/// What a lexicon says of tokens.
pub struct Counted {
    pub lexicon: Lexicon,
    /// Of labels.
    pub evidence: Evidence,
    /// The mean posterior that it gives the own label of real records such as are to be drawn; none where that was not looked
    /// at.
    pub shown: Option<f64>,
}

impl Counted {
    /// The evidence of labels, with what lifts tokens to the domain, times `weight`; none where that is of other tokens.
    pub fn toward(&self, domain: &Domain, weight: f64) -> Option<Evidence> {
        let values = domain.log_ratios.iter().map(|ratio| weight as f32 * ratio);
        (values.len() == self.lexicon.tokens.len()).then(|| self.evidence.clone().beside(&self.lexicon.tokens, values))
    }
}

/// What the records of an arm were steered by: as declared, or as was found for them.
///
/// # Errors
/// Data: what was found is damaged.
pub fn steering_of(folder: &RunPaths, arm: &str, config: &RunConfig) -> Result<Steering> {
    let sampled: Option<Sampled> = documents::read_if_there(&folder.sampled(arm))?;
    let (guidance, weight) = sampled.map_or((None, None), |s| (s.guidance, s.lexicon_weight));
    let of = |declared: Strength, found: Option<f64>| match declared {
        Strength::Fixed(value) => value,
        Strength::Found(_) => found.unwrap_or(0.0),
    };
    Ok(Steering {
        guidance: of(config.sample.guidance, guidance.map(|found| found.guidance)),
        lexicon_weight: of(config.sample.lexicon_weight, weight.map(|found| found.weight)),
    })
}
