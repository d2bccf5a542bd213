//! The core from outside, against independent references.

mod accountant;
mod bands;
mod calibrate;
mod estimates;
mod ledger;
mod plan;
mod tradeoff;
