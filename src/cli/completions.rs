//! `dpsynth completions`: what a shell needs to complete commands, options and paths.

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use dpsynth::Result;

use super::{Cli, Ui};

/// Prints completions for a shell: commands, options, paths
///
/// To have them in every new shell:
///   bash        dpsynth completions bash > ~/.local/share/bash-completion/completions/dpsynth
///   zsh         dpsynth completions zsh > DIR/_dpsynth, where DIR is one of $fpath
///   fish        dpsynth completions fish > ~/.config/fish/completions/dpsynth.fish
///   powershell  dpsynth completions powershell >> $PROFILE
///   elvish      dpsynth completions elvish >> ~/.config/elvish/rc.elv
/// In this shell only: source <(dpsynth completions bash)
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Completions {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    /// Prints the script.
    pub fn run(self, ui: &Ui) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "dpsynth", &mut script);
        ui.print(String::from_utf8_lossy(&script).trim_end())
    }
}
