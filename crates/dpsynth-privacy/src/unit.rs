//! Who is protected.

use std::fmt;

/// The unit of privacy: what is drawn, bounded and protected as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A record.
    Record,
    /// All records that share a value of a column, such as a person's.
    Group {
        /// The column.
        column: String,
        /// Most records of a group that are used.
        max_records: u64,
    },
}

impl Unit {
    /// Most records of a unit that are used.
    pub fn max_records(&self) -> u64 {
        match self {
            Unit::Record => 1,
            Unit::Group { max_records, .. } => *max_records,
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unit::Record => write!(f, "record"),
            Unit::Group { column, max_records } => write!(f, "{column} (at most {max_records} records of each)"),
        }
    }
}
