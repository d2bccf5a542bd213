//! Labelled records: the declared label space, reading and cleaning, and what makes a dataset the same dataset.

mod identity;
mod labels;
pub mod prompt;
mod question;
mod read;
mod table;
pub mod tokenise;
mod units;

pub use identity::{content_hash, fixed_sample, shared_texts};
pub use labels::{LabelColumn, LabelSpace, RawLabel};
pub use question::Question;
pub use read::{ReadReport, Record, read, texts};
pub use tokenise::{Encoded, Vocabulary};
pub use units::Units;
