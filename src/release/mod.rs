//! What may leave a run, and what carries it.
//!
//! [`examine`] reads a run's public [`Facts`] and looks for every reason to refuse; only an [`Examined`] without any
//! becomes [`Cleared`], and only what is cleared can be written out. Each value that is published is classified (P9).

mod class;
mod clearance;
mod facts;

pub use class::Class;
pub use clearance::{Check, Cleared, Examined, Refusal, examine};
pub use facts::{BaseModel, Composed, Facts};
