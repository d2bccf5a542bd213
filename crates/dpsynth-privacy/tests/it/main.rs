//! The core from outside, against independent references.

mod accountant;
mod calibrate;
mod estimates;
mod ledger;
mod plan;
mod tradeoff;
