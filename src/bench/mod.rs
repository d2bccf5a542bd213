//! How fast this machine does a run's work: measured, never printed, on made-up tokens.
//!
//! No private record is read, and no ledger but a throwaway one is written: the private step needs a plan and a charge
//! like any other (P1), so it gets both, in a temporary folder.

pub mod account;
pub mod clock;
pub mod flops;
pub mod memory;
pub mod prepare;
pub mod sample;
pub mod subject;
mod synthetic;
pub mod train;

pub use subject::{Subject, model_shape, of_counts};
