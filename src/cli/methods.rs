//! `dpsynth methods`: what of the field's papers this program has.

use clap::Args;
use dpsynth::Result;
use dpsynth::methods::METHODS;

use super::Ui;
use super::table::table;

/// Lists the methods of the field's papers: what chooses each, and what stands behind its epsilon
///
/// "certified": a proof stands behind the epsilon that is printed. "research": NOT A DP GUARANTEE, nothing of it can be released.
/// "planning": it helps to choose numbers and spends nothing. Keys of evaluate.dp_direct are for classifiers (task = "classify").
#[derive(Args)]
pub struct Methods {
    /// Prints a JSON array instead of the table
    #[arg(long)]
    json: bool,
}

impl Methods {
    /// Prints them.
    pub fn run(self, ui: &Ui) -> Result<()> {
        if self.json {
            return ui.print_json(&METHODS);
        }
        let mut rows = table(["method", "label", "key", "reference"], 9..);
        for method in METHODS {
            rows.add_row([method.name, method.label.name(), method.key, method.reference]);
        }
        ui.print(&rows.to_string())
    }
}
