//! Records by unit of privacy: what is drawn, bounded and protected as one.

use super::Encoded;
use crate::Result;

/// Where batches are drawn from: units by number, in memory or on disk.
pub trait Drawable {
    /// Number of units.
    fn units(&self) -> usize;

    /// The drawn ones, in the order of `members`.
    ///
    /// # Errors
    /// Other, Data: they cannot be read.
    fn drawn(&self, members: &[usize]) -> Result<Units>;
}

impl Drawable for Units {
    fn units(&self) -> usize {
        self.len()
    }

    fn drawn(&self, members: &[usize]) -> Result<Units> {
        let mut out = Units::empty();
        members.iter().for_each(|unit| out.push(self.records(*unit).to_vec()));
        Ok(out)
    }
}

/// Private records, by the unit (a record, or everything from one person) that the guarantee protects.
///
/// A unit is drawn whole, and its records share its one contribution of norm at most C (rule P5).
pub struct Units<T = Encoded> {
    /// Those of a unit stand side by side.
    records: Vec<T>,
    /// Where each unit's records begin; one entry more than there are units.
    starts: Vec<usize>,
}

impl<T> Units<T> {
    /// No unit yet.
    pub fn empty() -> Self {
        Units {
            records: Vec::new(),
            starts: vec![0],
        }
    }

    /// One unit more: all its records.
    pub fn push(&mut self, records: Vec<T>) {
        self.records.extend(records);
        self.starts.push(self.records.len());
    }

    /// The records of all units.
    pub fn all(&self) -> &[T] {
        &self.records
    }

    /// Number of units.
    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The records of the units `members`, each with how many its unit has.
    pub fn of_members(&self, members: &[usize]) -> Vec<(usize, &T)> {
        let of_unit = |unit: &usize| {
            let records = self.records(*unit);
            records.iter().map(|record| (records.len(), record))
        };
        members.iter().flat_map(of_unit).collect()
    }

    /// The records of a unit, at least one.
    pub fn records(&self, unit: usize) -> &[T] {
        &self.records[self.starts[unit]..self.starts[unit + 1]]
    }
}

impl<T: Clone> Units<T> {
    /// Every record is a unit of its own.
    pub fn of_records(records: Vec<T>) -> Self {
        let starts = (0..=records.len()).collect();
        Units { records, starts }
    }

    /// Record `i` belongs to the unit that `unit_of[i]` names; of each unit the first `max_records` records are kept.
    ///
    /// Which records of a unit are kept depends on that unit alone, so neighbours differ in one unit and no other.
    pub fn of_groups(records: Vec<T>, unit_of: &[u32], max_records: usize) -> Self {
        let mut rows: Vec<(u32, T)> = unit_of.iter().copied().zip(records).collect();
        rows.sort_by_key(|(unit, _)| *unit);
        let (mut records, mut starts) = (Vec::with_capacity(rows.len()), vec![0]);
        for unit in rows.chunk_by(|a, b| a.0 == b.0) {
            records.extend(unit.iter().take(max_records).map(|(_, record)| record.clone()));
            starts.push(records.len());
        }
        Units { records, starts }
    }

    /// These and `records`, each a unit of its own.
    pub fn with_records(&self, records: impl IntoIterator<Item = T>) -> Self {
        let mut all = self.records.clone();
        let mut starts = self.starts.clone();
        for record in records {
            all.push(record);
            starts.push(all.len());
        }
        Units { records: all, starts }
    }
}
