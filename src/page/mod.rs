//! What a run came to, as one HTML file: no network, no script needed, read on a phone, in the dark, printed or aloud.
//!
//! Two pages, by type. [`InternalPage`] knows a run's folder and shows all of it: scores, losses, real records and the
//! training records nearest to synthetic ones. [`PublicPage`] is made of [`PublicFacts`], which hold what may leave and
//! have no way to the folder (P9). Numbers become geometry in [`charts`], everything is put into HTML and escaped by the
//! template engine.
//!
//! - [`charts`]: numbers → lines, bars and marks.
//! - [`guarantee`]: epsilon, never without what it means (P10).
//! - `tradeoff`: what attacks on membership can do, drawn.
//! - [`view`]: what the templates see.

pub mod charts;
mod data;
pub mod guarantee;
mod internal;
mod lexicon;
mod made;
mod neighbours;
mod privacy;
mod public;
mod runs;
mod sections;
mod texts;
mod tradeoff;
mod usefulness;
pub mod view;
mod words;

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, UndefinedBehavior, context};
use sha2::{Digest, Sha256};

pub use internal::InternalPage;
pub use public::{PublicFacts, PublicPage, declared};

use crate::config::RunConfig;
use crate::documents::Report;
use crate::files::write_atomically;
use crate::run::RunPaths;
use crate::{Error, Result};
use view::View;

const PAGE: &str = include_str!("templates/page.html");
const PARTS: &str = include_str!("templates/parts.html");
const STYLE: &str = include_str!("templates/style.css");
const SCRIPT: &str = include_str!("templates/script.js");

/// The internal page of the run in `paths`, as far as `report` says it is done.
///
/// # Errors
/// A file of the run is damaged.
pub fn internal(paths: &RunPaths, config: &RunConfig, report: &Report, ledgers: &Path) -> Result<String> {
    InternalPage::of(paths, config, report, ledgers)?.html()
}

/// The page for everyone.
///
/// # Errors
/// The template does not render: a fault of the program.
pub fn public(facts: &PublicFacts) -> Result<String> {
    PublicPage::of(facts).html()
}

/// Writes [`internal`] as `report.html` in the run's folder; where it is.
///
/// # Errors
/// As [`internal`], or it cannot be written.
pub fn write_internal(paths: &RunPaths, config: &RunConfig, report: &Report, ledgers: &Path) -> Result<PathBuf> {
    let path = paths.page();
    write_atomically(&path, internal(paths, config, report, ledgers)?.as_bytes())?;
    Ok(path)
}

fn render(view: &View, internal: bool) -> Result<String> {
    let mut engine = Environment::new();
    // Whatever a template is called: texts are others'.
    engine.set_auto_escape_callback(|_| AutoEscape::Html);
    engine.set_undefined_behavior(UndefinedBehavior::Strict);
    let trimmed = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    engine.set_syntax(trimmed.expect("the delimiters are the usual ones"));
    let fault = |e: minijinja::Error| {
        Error::other(format!("the page does not render: {e:#}")).hint("this is a fault of the program")
    };
    engine.add_template("parts.html", PARTS).map_err(fault)?;
    engine.add_template("page.html", PAGE).map_err(fault)?;
    let page = engine.get_template("page.html").map_err(fault)?;
    page.render(context! {
        view => Value::from(Serde(view)),
        internal,
        style => STYLE,
        script => SCRIPT,
        script_hash => STANDARD.encode(Sha256::digest(SCRIPT)),
    })
    .map_err(fault)
}
