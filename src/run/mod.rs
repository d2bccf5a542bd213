//! A run: one folder, and all that can be read in it without doing anything.
//!
//! - [`RunPaths`], [`RunFolder`]: where everything is; who may write.
//! - [`states`], `stamp`, [`keys`]: how far each stage is, and what it depends on.
//! - [`table`], `tokens`: its records.
//! - [`ledgers`], [`rows`]: what it charges, and which other datasets share its rows.
//! - [`report`], [`compare`], `results`: what it came to, alone and beside others.
//! - [`subject`]: the hashes of what an audit and a release are of.

pub mod compare;
mod evidence;
mod folder;
pub mod keys;
pub mod ledgers;
mod locate;
mod places;
pub mod plan;
mod preparation;
pub mod report;
pub mod results;
pub mod risk;
pub mod rows;
pub mod stamp;
pub mod states;
pub mod subject;
pub mod table;
pub mod tokens;

pub use crate::documents::Stage;
pub use evidence::{Counted, evidence_of, lexicon_of, lifting_of, steering_of};
pub use folder::{NON_PRIVATE, RunFolder, RunPaths, trained_on};
pub use locate::run_in;
pub use places::Places;
pub use plan::{direct_request, plan_request, privacy_plan, unit};
pub use preparation::Preparation;
