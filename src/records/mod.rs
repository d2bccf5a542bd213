//! Labelled records: the declared label space, reading and cleaning, and what makes a dataset the same dataset.

mod described;
mod identity;
mod labels;
pub mod prompt;
mod question;
mod read;
pub mod tokenise;
mod units;

pub use identity::{FixedSample, Sorted, TextHash, TextHashes, content_hash, fixed_sample, shared, text_hash};
pub use labels::{LabelColumn, LabelSpace, RawLabel};
pub use question::Question;
pub use read::{PAIR, ReadReport, Reader, Record, RowRead, UnitNumbers, read};
pub use tokenise::{Encoded, Vocabulary};
pub use units::{Drawable, Units};
