//! dpsynth: a labelled private text dataset in, a synthetic one under differential privacy out.
//!
//! The rooms, in the order in which data passes:
//!
//! - [`config`]: what a run is told.
//! - [`assets`]: where models and datasets come from, and that they are what they claim to be.
//! - [`tables`]: the files that people have, recognised and read row by row.
//! - [`records`]: labelled records: read, cleaned, put into the prompt, tokenised.
//! - [`privacy`]: the audited core: plan, sampler, noise, accountant, ledger. Knows no tensors.
//! - [`models`]: the language model and the encoder, in Burn, and their loaders.
//! - [`documents`]: what a run writes down and reads back, each field with its class.
//! - [`training`]: per-example norms, clipped sums, the private step, checkpoints.
//! - [`sampling`]: label-conditioned decoding, guidance, refinement by the model itself; into Parquet.
//! - [`evaluation`]: classifiers trained on real, synthetic and zero-shot records.
//! - [`pipeline`]: the stages, their stamps, resume, the report.
//! - [`audit`]: tries to break a run's own privacy claim, and says how far it got.
//! - [`page`]: what a run came to, as one HTML file to look at.
//! - [`release`]: what may leave a run, the bundle that carries it, and every reason to refuse.
//! - [`methods`]: what of the field's papers is here, and what stands behind its epsilon.
//! - [`status`]: how far a run is, what it has spent and what comes next.
//! - [`bench`](mod@bench): how fast this machine does all that, on made-up tokens.

pub mod assets;
pub mod audit;
pub mod bench;
pub mod config;
pub mod documents;
pub mod error;
pub mod evaluation;
pub mod facts;
pub mod files;
pub mod hash;
pub mod machine;
pub mod methods;
pub mod models;
pub mod page;
pub mod pipeline;
pub mod progress;
pub mod records;
pub mod release;
pub mod run;
pub mod sampling;
pub mod status;
pub mod tables;
pub mod training;

#[cfg(all(test, mutants))]
extern crate self as dpsynth;
#[cfg(all(test, mutants))]
#[path = "../tests/mutants/mod.rs"]
mod mutants;

pub use dpsynth_privacy as privacy;
pub use dpsynth_privacy::{document, number};
pub use error::{Error, Result};
