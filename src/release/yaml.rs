//! YAML that readers of version 1.1 (PyYAML, the hub) and 1.2 understand alike.

use serde::Serialize;

use crate::{Error, Result};

/// A value as YAML, whose texts are quoted where a reader could take them for something else.
pub fn text<T: Serialize>(value: &T) -> Result<String> {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    serde_saphyr::to_string_with_options(value, options)
        .map_err(|e| Error::other(format!("cannot be written as YAML: {e}")))
}
