//! LoRA with the first factors as they were drawn (LoRA-FA; Zhang et al. 2023, arXiv 2308.03303): the second are trained alone. Half
//! as many values get noise, and a map is linear in what is trained of it.

use std::path::Path;

use super::lora::Adapter;
use super::shape::Shape;
use crate::Result;

/// The second factors of an adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct SecondFactors {
    /// The second factors in it are those that it began with.
    adapter: Adapter,
    values: Vec<f32>,
}

impl SecondFactors {
    /// Those of `adapter`.
    pub fn of(adapter: Adapter) -> Self {
        let values = adapter
            .seconds()
            .flat_map(|at| &adapter.values()[at])
            .copied()
            .collect();
        SecondFactors { adapter, values }
    }

    /// How many values there are.
    pub fn count(shape: &Shape, rank: usize) -> usize {
        rank * shape.over_maps(|_, output| output)
    }

    /// B of each linear map, in the order of [`Shape::maps`].
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The same, for the optimizer.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// The whole adapter.
    pub fn adapter(&self) -> Adapter {
        let mut out = self.adapter.clone();
        let mut rest = self.values.as_slice();
        let places: Vec<_> = out.seconds().collect();
        for at in places {
            let (own, others) = rest.split_at(at.len());
            rest = others;
            out.values_mut()[at].copy_from_slice(own);
        }
        out
    }

    /// Writes the whole adapter, as [`Adapter::save`].
    pub fn save(&self, path: &Path) -> Result<()> {
        self.adapter().save(path)
    }
}
