//! What attacks on membership can do, for a person and for a program.

use dpsynth::facts::attacks::Attacks;
use serde::Serialize;

use super::Context;
use crate::cli::meaning::Meaning;
use crate::cli::number::up;
use crate::cli::table::table;

/// For a program.
#[derive(Serialize)]
pub struct WithContext<'a> {
    #[serde(flatten)]
    pub attacks: &'a Attacks,
    #[serde(flatten)]
    pub context: Context,
}

/// For a person: a table and what it means.
pub fn text(attacks: &Attacks, meaning: &Meaning) -> String {
    let header = vec![
        "false-positive rate",
        "true-positive rate at most",
        "the best attack at least",
        "members among those named at most",
    ];
    let mut rows = table(header, ..);
    for row in &attacks.at {
        rows.add_row([
            format!("{}", row.false_positive_rate),
            up(row.true_positive_rate_at_most, 4),
            format!("{:.4}", row.true_positive_rate_at_least),
            format!("{} %", up(100.0 * row.posterior_at_most, 2)),
        ]);
    }
    format!(
        "{rows}\nright at even odds: at most {} %\ndominated by a Gaussian mechanism of mu {} (regret {}), but for a probability of 1e-9\n{meaning}",
        up(100.0 * attacks.right_at_even_odds, 2),
        up(attacks.mu, 4),
        up(attacks.regret, 4),
    )
}
