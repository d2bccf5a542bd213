//! (IA)³ (Liu et al. 2022, arXiv 2205.05638): what keys, values and inner activations are multiplied by, and nothing else. A value
//! for each of their numbers, which the maps beside can take in once training is over.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Device, Tensor};

use super::shape::{Kind, Shape, Slot};
use super::{LanguageModel, weights};
use crate::Result;

/// Whether what goes into a map is multiplied, or what comes out of it, what is added there being in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Input,
    Output,
}

/// Which maps have a scale, by how their names end: those of PEFT's defaults. GPT-2 has queries, keys and values in one.
const SCALED: [(&str, Side); 5] = [
    (".k_proj", Side::Output),
    (".v_proj", Side::Output),
    (".c_attn", Side::Output),
    (".down_proj", Side::Input),
    (".mlp.c_proj", Side::Input),
];

/// The scales of a model, one after the other, in the order in which a forward meets them.
#[derive(Clone, Debug, PartialEq)]
pub struct Scales {
    all: Vec<Scale>,
    values: Vec<f32>,
}

#[derive(Clone, Debug, PartialEq)]
struct Scale {
    /// Of the map.
    map: usize,
    /// Of what is added behind the map, where something is.
    shift: Option<usize>,
    side: Side,
    /// As a file has it: PEFT's name.
    slot: Slot,
}

impl Scale {
    /// Where a forward applies it.
    fn at(&self) -> usize {
        match self.side {
            Side::Input => self.map,
            Side::Output => self.shift.unwrap_or(self.map),
        }
    }
}

fn scales(shape: &Shape) -> impl Iterator<Item = Scale> {
    shape.maps().filter_map(|(map, [input, output])| {
        let module = shape.slots[map].module();
        let (_, side) = SCALED.into_iter().find(|(end, _)| module.ends_with(end))?;
        let width = match side {
            Side::Input => input,
            Side::Output => output,
        };
        let shifted = shape.slots.get(map + 1).is_some_and(|next| next.kind == Kind::Shift);
        Some(Scale {
            map,
            shift: shifted.then_some(map + 1),
            side,
            slot: Slot::new(format!("{module}.ia3_l"), Kind::Shift, vec![width]),
        })
    })
}

/// Scales on a device: by the slot of the map or of the shift at which a forward applies them.
pub type Placed = BTreeMap<usize, (Side, Tensor<1>)>;

impl Scales {
    /// Those of `model`, none of which changes anything yet.
    pub fn of(model: &LanguageModel) -> Self {
        let all: Vec<Scale> = scales(model.shape()).collect();
        let values = vec![1.0; all.iter().map(|scale| scale.slot.len()).sum()];
        Scales { all, values }
    }

    /// How many values there are.
    pub fn count(shape: &Shape) -> usize {
        scales(shape).map(|scale| scale.slot.len()).sum()
    }

    /// All values.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The same, for the optimizer.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    fn each(&self) -> impl Iterator<Item = (&Scale, &[f32])> {
        let mut rest = self.values.as_slice();
        self.all.iter().map(move |scale| {
            let (own, others) = rest.split_at(scale.slot.len());
            rest = others;
            (scale, own)
        })
    }

    /// On `device`.
    pub fn placed(&self, device: &Device) -> Placed {
        let place = |(scale, values): (&Scale, &[f32])| (scale.at(), (scale.side, Tensor::from_data(values, device)));
        self.each().map(place).collect()
    }

    /// `base` with these scales in its maps, and in what is added behind them.
    pub fn merged(&self, base: &LanguageModel) -> LanguageModel {
        let device = base.device();
        let of_map: BTreeMap<usize, (Side, Tensor<1>)> = self
            .each()
            .map(|(scale, values)| (scale.map, (scale.side, Tensor::from_data(values, &device))))
            .collect();
        let scaled = base.with_maps(|slot, weight| match of_map.get(&slot) {
            None => weight,
            Some((Side::Input, scale)) => weight * scale.clone().unsqueeze_dim(0),
            Some((Side::Output, scale)) => weight * scale.clone().unsqueeze_dim(1),
        });
        let shifts: BTreeMap<usize, Vec<f32>> = self
            .each()
            .filter(|(scale, _)| scale.side == Side::Output)
            .filter_map(|(scale, values)| {
                let shift = scale.shift?;
                let own = base.vector_values(shift);
                Some((shift, own.iter().zip(values).map(|(own, by)| own * by).collect()))
            })
            .collect();
        scaled.with_vectors(&shifts.iter().map(|(slot, values)| (*slot, values.as_slice())).collect())
    }

    /// Writes safetensors with PEFT's names.
    pub fn save(&self, path: &Path) -> Result<()> {
        weights::write(path, self.each().map(|(scale, values)| (&scale.slot, values)))
    }

    /// Reads what [`Scales::save`] wrote, for a model like `base`.
    ///
    /// # Errors
    /// Data: the file is broken, or another model's.
    pub fn load(path: &Path, base: &LanguageModel) -> Result<Self> {
        let all: Vec<Scale> = scales(base.shape()).collect();
        let values = weights::read(path, all.iter().map(|scale| &scale.slot), "scales")?;
        Ok(Scales { all, values })
    }
}
