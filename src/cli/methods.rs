//! `dpsynth methods`: what of the field's papers this program has.

use clap::Args;
use dpsynth::Result;
use dpsynth::methods::METHODS;

use super::Ui;

/// Lists the methods of the field's papers: what chooses each, and what stands behind its epsilon
///
/// "certified": a proof stands behind the epsilon that is printed. "research": none does, the epsilon is NOT A DP GUARANTEE, and nothing of such a run can be
/// released. "planning": it helps to choose numbers and spends nothing. Keys
/// of evaluate.dp_direct are for classifiers (task = "classify", or the arm dp_direct).
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
        let lines = METHODS.iter().map(|method| {
            let (name, label) = (method.name, method.label.name());
            format!("{name} ({label})\n    {}\n    {}", method.key, method.reference)
        });
        ui.print(&lines.collect::<Vec<_>>().join("\n"))
    }
}
