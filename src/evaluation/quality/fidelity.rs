//! Whether texts show the labels they carry.

use serde::{Deserialize, Serialize};

use super::sides::{Compared, Sides, sample};
use crate::evaluation::Example;
use crate::evaluation::linear::LinearClassifier;
use crate::evaluation::metrics::Confusion;

/// What a [`LinearClassifier`] trained on all real training records says of the labels that records carry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabelFidelity {
    /// Share of records whose label it says, 0 to 1.
    pub agreement: f64,
    /// F1 averaged over labels, 0 to 1.
    pub macro_f1: f64,
}

impl LabelFidelity {
    /// Of `records` of each side; the reference is its score on held-out records.
    pub fn of(sides: &Sides<&[Example]>, num_labels: usize, records: usize) -> Compared<Self> {
        let model = LinearClassifier::fit(sides.training, num_labels, 0);
        let score = |examples: &[Example]| {
            let examples = sample(examples, records);
            let said = model.predict(&examples);
            let confusion = Confusion::new(examples.iter().map(|e| e.label), &said, num_labels);
            LabelFidelity {
                agreement: confusion.accuracy(),
                macro_f1: confusion.macro_f1(),
            }
        };
        Compared {
            synthetic: score(sides.synthetic),
            zero_shot: score(sides.zero_shot),
            reference: score(sides.held_out),
        }
    }
}
