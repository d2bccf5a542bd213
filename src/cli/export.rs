//! `dpsynth export`: the fine-tuned model for other programs.

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};
use dpsynth::Result;
use dpsynth::release::{Dtype, Export, Options, Part, examine, folder};
use dpsynth::run::Places;
use serde::Serialize;

use super::run::interrupts;
use super::{Ui, show};

/// Writes the fine-tuned model as Hugging Face files: merged, as an adapter, with its tokenizer and a model card
///
/// transformers and vLLM load the folder, PEFT its adapter/. The run must be audited (`dpsynth audit`) and its ledger must
/// verify: else it is refused with every reason and exit code 4, as `dpsynth release` refuses it. The same run gives the
/// same bytes.
#[derive(Args)]
pub struct ExportOf {
    /// A run's folder, such as runs/imdb-quick
    #[arg(value_hint = ValueHint::DirPath)]
    run: PathBuf,
    /// Where the model goes: a folder that is not there yet
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    to: PathBuf,
    /// Element type of the merged weights; the adapter stays in f32
    #[arg(long, value_enum, default_value_t = DtypeName::F32)]
    dtype: DtypeName,
    /// Writes base/ too: the base model that the adapter belongs to
    #[arg(long)]
    with_base: bool,
    /// Lists what would be written and why it may be, and writes nothing
    #[arg(long)]
    dry_run: bool,
    /// Prints the list as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum DtypeName {
    F32,
    Bf16,
    F16,
}

#[derive(Serialize)]
struct Exported<'a> {
    to: &'a PathBuf,
    written: bool,
    /// Epsilon with everything without which it means nothing (P10).
    statement: &'a str,
    files: &'a [Part],
}

impl ExportOf {
    /// Writes the model, or says what it would be.
    pub fn run(self, ui: &Ui) -> Result<()> {
        // Told before the run is looked at.
        folder::target_beside(&self.to, &self.run)?;
        let places = Places::from_env(self.run.parent().unwrap_or(&self.run))?;
        let examined = examine(&self.run, &places)?;
        if self.dry_run && examined.gate_is_due() {
            return show::gate_is_due(ui);
        }
        let cleared = examined.clear()?;
        let options = Options {
            dtype: match self.dtype {
                DtypeName::F32 => Dtype::F32,
                DtypeName::Bf16 => Dtype::Bf16,
                DtypeName::F16 => Dtype::F16,
            },
            with_base: self.with_base,
        };
        let export = Export::of(&cleared, options, &places.assets, ui)?;
        if !self.dry_run {
            export.write(&self.to, interrupts()?, ui)?;
        }
        if self.json {
            return ui.print_json(&Exported {
                to: &self.to,
                written: !self.dry_run,
                statement: export.sentence(),
                files: export.parts(),
            });
        }
        let files = export.parts().iter();
        let table = show::listing(files.map(|part| (part.path.as_str(), part.bytes, part.class, part.why)));
        let end = match self.dry_run {
            true => format!(
                "nothing was written; without --dry-run this would be {}",
                self.to.display()
            ),
            false => format!("model: {}", self.to.display()),
        };
        ui.print(&format!("{table}\n{}\n{end}", export.sentence()))
    }
}
