//! `dpsynth release`: the bundle that a data team publishes.

use std::path::PathBuf;

use clap::Args;
use dpsynth::Result;
use dpsynth::release::{Bundle, Piece, examine, folder};
use dpsynth::run::Places;
use serde::Serialize;

use super::run::interrupts;
use super::{Ui, show};

/// Writes what may be published of a run: records, card, guarantee, manifest
///
/// The run must be audited (`dpsynth audit`) and its ledger must verify: else it is refused with every reason and exit
/// code 4. Only what is public, was charged, or is computed from that is written. What decides is public, charged,
/// computed from these, or a check that cannot fail while the claim is true. Phrases that records share with private
/// ones are shown in the report, and stop a release only where `release.copy_gate` pays for counting them. The
/// [release] section of the configuration says licence, language and who publishes. The same run gives the same bytes.
#[derive(Args)]
pub struct Release {
    /// A run's folder, such as runs/imdb-quick
    run: PathBuf,
    /// Where the bundle goes: a folder that is not there yet
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Lists what would be written and why it may be, and writes nothing
    #[arg(long)]
    dry_run: bool,
    /// Prints the list as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Released<'a> {
    to: &'a PathBuf,
    written: bool,
    /// Epsilon with everything without which it means nothing (P10).
    statement: &'a str,
    files: &'a [Piece],
    missing: &'a [String],
}

impl Release {
    /// Writes the bundle, or says what it would be.
    pub fn run(self, ui: &Ui) -> Result<()> {
        // Told before the run is looked at.
        folder::target_beside(&self.to, &self.run)?;
        let runs = self.run.parent().unwrap_or(&self.run);
        let examined = examine(&self.run, &Places::from_env(runs)?)?;
        if self.dry_run && examined.gate_is_due() {
            return show::gate_is_due(ui);
        }
        let cleared = examined.clear()?;
        let bundle = Bundle::of(&cleared)?;
        if !self.dry_run {
            bundle.write(&self.to, interrupts()?)?;
        }
        if self.json {
            return ui.print_json(&Released {
                to: &self.to,
                written: !self.dry_run,
                statement: bundle.sentence(),
                files: bundle.pieces(),
                missing: bundle.missing(),
            });
        }
        let files = bundle.pieces().iter();
        let table = show::listing(files.map(|piece| (piece.path.as_str(), piece.size as u64, piece.class, piece.why)));
        let mut out = vec![table.to_string(), bundle.sentence().to_string()];
        out.extend(bundle.missing().iter().map(|m| format!("note: {m}")));
        out.push(match self.dry_run {
            true => format!(
                "nothing was written; without --dry-run this would be {}",
                self.to.display()
            ),
            false => format!("bundle: {} (`dpsynth verify` checks it)", self.to.display()),
        });
        ui.print(&out.join("\n"))
    }
}
