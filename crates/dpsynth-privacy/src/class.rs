//! Rule P9: each value that leaves is public, charged, or computed from what is.
//!
//! A document is a struct that says so of each of its fields. It is declared by [`document!`](crate::document), which
//! does not compile where a field has no class:
//!
//! ```
//! dpsynth_privacy::document! {
//!     /// Records drawn.
//!     struct Drawn {
//!         public arm: String,
//!         post_processing records: u64,
//!     }
//! }
//! ```
//! ```compile_fail
//! dpsynth_privacy::document! {
//!     /// Records drawn.
//!     struct Drawn {
//!         public arm: String,
//!         records: u64,
//!     }
//! }
//! ```

use serde::Serialize;

/// Why a value may leave, or that it may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Fixed or declared before any record was read.
    Public,
    /// An output of a mechanism that the ledger was charged for.
    Charged,
    /// Computed from public and charged values alone.
    PostProcessing,
    /// Read from private records, or of the machine that ran: it stays with the run.
    Internal,
}

impl Class {
    /// The name for people.
    pub fn name(self) -> &'static str {
        match self {
            Class::Public => "public",
            Class::Charged => "charged",
            Class::PostProcessing => "post-processing",
            Class::Internal => "internal",
        }
    }
}

/// A key of a document, with its class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    pub name: &'static str,
    pub class: Class,
}

/// A struct that is written and read as JSON, each field with its class.
pub trait Document {
    /// Every key, in order.
    const FIELDS: &'static [Field];
}

/// Whether all of a document may leave; for assertions at compile time.
pub const fn leaves(fields: &[Field]) -> bool {
    let mut i = 0;
    while i < fields.len() {
        if matches!(fields[i].class, Class::Internal) {
            return false;
        }
        i += 1;
    }
    true
}

/// Declares a [`Document`]: `class name: type,` for each field.
#[macro_export]
macro_rules! document {
    (
        $(#[$of_struct:meta])*
        $visibility:vis struct $name:ident {
            $( $(#[$of_field:meta])* $class:ident $field:ident: $type:ty ),* $(,)?
        }
    ) => {
        #[derive(serde::Serialize, serde::Deserialize)]
        $(#[$of_struct])*
        $visibility struct $name {
            $( $(#[$of_field])* pub $field: $type ),*
        }

        impl $crate::class::Document for $name {
            const FIELDS: &'static [$crate::class::Field] = &[
                $( $crate::class::Field {
                    name: stringify!($field),
                    class: $crate::document!(@class $class),
                } ),*
            ];
        }
    };
    (@class public) => { $crate::class::Class::Public };
    (@class charged) => { $crate::class::Class::Charged };
    (@class post_processing) => { $crate::class::Class::PostProcessing };
    (@class internal) => { $crate::class::Class::Internal };
}
