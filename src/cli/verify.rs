//! `dpsynth verify`: a bundle that someone else received.

use std::path::PathBuf;

use clap::Args;
use dpsynth::Result;
use dpsynth::release::{Verified, verify};

use super::Ui;

/// Checks a bundle: every byte of every file, and that all files say the same guarantee
///
/// Needs no run, no model and no network. A bundle that is not what was released ends with exit code 3 and the name of each
/// bad file. Who made a bundle is for a signature of its manifest.json to say (cosign).
#[derive(Args)]
pub struct Verify {
    /// The bundle's folder
    bundle: PathBuf,
    /// Prints what was found as one JSON object
    #[arg(long)]
    json: bool,
}

impl Verify {
    /// Checks the bundle; what is wrong is told in any case.
    pub fn run(self, ui: &Ui) -> Result<()> {
        let found = verify(&self.bundle)?;
        let whole = found.require_whole();
        let printed = match (self.json, &whole) {
            (true, _) => ui.print_json(&found),
            (false, Ok(())) => ui.print(&text(&found)),
            (false, Err(_)) => Ok(()),
        };
        whole.and(printed)
    }
}

fn text(found: &Verified) -> String {
    let mut out: Vec<String> = found.checked.iter().map(|c| format!("checked: {c}")).collect();
    out.push(format!(
        "{} files, {} bytes, {} synthetic records",
        found.files, found.bytes, found.records
    ));
    out.push(format!("claimed: {}", found.statement));
    if !found.left_out.is_empty() {
        out.push(format!("not part of it: {}", found.left_out.join(", ")));
    }
    out.push(
        "not checked: who made the bundle; a signature of manifest.json says that (cosign verify-blob-attestation)"
            .into(),
    );
    out.push("the bundle is whole".into());
    out.join("\n")
}
