//! (under construction)
pub mod bert;
