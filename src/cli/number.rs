//! Numbers for people: the library's, since what it publishes says them too.

pub use dpsynth::number::{delta, down, short, up};
