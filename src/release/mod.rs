//! What may leave a run, and what carries it.
//!
//! [`examine`] reads a run's public [`Facts`] and looks for every reason to refuse; only an [`Examined`] without any
//! becomes [`Cleared`], and only what is cleared can be written out. Each value that is published is classified (P9).

pub mod bundle;
mod card;
mod claim;
mod clearance;
mod copy_gate;
mod croissant;
pub mod export;
pub mod folder;
mod manifest;
mod records;
mod registry;
mod template;
pub mod verify;
mod yaml;

pub use crate::facts::{BaseModel, Composed, Facts};
pub use crate::privacy::Class;
pub use bundle::{Bundle, Piece};
pub use clearance::{Check, Cleared, Examined, Refusal, examine};
pub use copy_gate::matched_units;
pub use export::{Dtype, Export, Options, Part};
pub use verify::{Verified, verify};
