//! `dpsynth man`: man pages out of the same definitions as the help.

use std::path::{Path, PathBuf};

use clap::{Args, Command, CommandFactory, ValueHint};
use clap_mangen::Man;
use dpsynth::files::write_atomically;
use dpsynth::{Error, Result};

use super::{Cli, Ui};

/// Prints the man page, or writes the pages of all commands into a folder
///
/// To read one:       dpsynth man | man -l -
/// To have them all: dpsynth man --to ~/.local/share/man/man1, then man dpsynth-run
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Manual {
    /// Writes dpsynth.1, dpsynth-run.1 and so on into this folder, which is made where it is missing
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    to: Option<PathBuf>,
}

impl Manual {
    /// Prints or writes.
    pub fn run(self, ui: &Ui) -> Result<()> {
        let mut root = Cli::command().disable_help_subcommand(true);
        root.build();
        match &self.to {
            None => ui.print(String::from_utf8_lossy(&page(&root)?).trim_end()),
            Some(folder) => write_all(&root, folder, ui),
        }
    }
}

/// A page for `command` and each one below it that is shown in the help.
fn write_all(command: &Command, folder: &Path, ui: &Ui) -> Result<()> {
    let path = folder.join(format!("{}.1", name(command)));
    write_atomically(&path, &page(command)?)?;
    ui.print(&path.display().to_string())?;
    let mut shown = command.get_subcommands().filter(|c| !c.is_hide_set());
    shown.try_for_each(|c| write_all(c, folder, ui))
}

/// `dpsynth-ledger-show`, as man pages of subcommands are named.
fn name(command: &Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).into()
}

fn page(command: &Command) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    Man::new(command.clone().version(env!("CARGO_PKG_VERSION")))
        .title(name(command))
        .source(concat!("dpsynth ", env!("CARGO_PKG_VERSION")))
        .manual("dpsynth")
        .render(&mut out)
        .map_err(|e| Error::other(format!("the page of {} cannot be made: {e}", name(command))))?;
    Ok(out)
}
