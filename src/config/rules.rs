//! Rules of single values; what breaks one is refused by its key.

use crate::{Error, Result};

/// # Errors
/// Always: usage, with the key and what it must be.
pub fn refuse(key: &str, rule: &str, value: impl std::fmt::Display) -> Result<()> {
    Err(Error::usage(format!("`{key}` must be {rule}, not {value}")).hint(format!("--set {key}=… overrides it")))
}

pub fn above_zero(values: &[(&str, f64)]) -> Result<()> {
    match values.iter().find(|(_, v)| !(*v > 0.0 && v.is_finite())) {
        Some((key, value)) => refuse(key, "a number above 0", value),
        None => Ok(()),
    }
}

pub fn zero_or_more(values: &[(&str, f64)]) -> Result<()> {
    match values.iter().find(|(_, v)| !(*v >= 0.0 && v.is_finite())) {
        Some((key, value)) => refuse(key, "0 or more", value),
        None => Ok(()),
    }
}

pub fn at_least_one(values: &[(&str, usize)]) -> Result<()> {
    match values.iter().find(|(_, v)| *v == 0) {
        Some((key, value)) => refuse(key, "at least 1", value),
        None => Ok(()),
    }
}

pub fn at_least_one_if_given(values: &[(&str, Option<usize>)]) -> Result<()> {
    match values.iter().find(|(_, v)| *v == Some(0)) {
        Some((key, _)) => refuse(key, "at least 1", 0),
        None => Ok(()),
    }
}

/// Left out of what a run is known by, so that a key that came later does not make paid training another run's.
pub fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
