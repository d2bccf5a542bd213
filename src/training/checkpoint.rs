//! The training state on disk: values, moments, counts and the ledger's head. Never a seed or a generator (P4).

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors};
use sha2::{Digest, Sha256};

use super::optimizer::Optimizer;
use crate::files::{Values, write_tensors};
use crate::hash::hex;
use crate::privacy::LedgerHead;
use crate::{Error, Result};

/// What a resumed run goes on from.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// The trained values.
    pub values: Vec<f32>,
    /// The optimizer's state.
    pub optimizer: Optimizer,
    /// Steps applied to the values.
    pub applied_steps: u64,
    /// Whether any of them was taken on a GPU: the guarantee says so, wherever the last one was taken.
    pub on_gpu: bool,
    /// The ledger's last line when this was written: a ledger without it was rolled back (P7).
    pub ledger: LedgerHead,
}

/// SHA-256 of values.
pub fn sha256_of(values: &[f32]) -> String {
    let mut hash = Sha256::new();
    add(&mut hash, values);
    hex(&hash.finalize())
}

fn add(hash: &mut Sha256, values: &[f32]) {
    for chunk in values.chunks(1 << 14) {
        let bytes: Vec<u8> = chunk.iter().flat_map(|value| value.to_le_bytes()).collect();
        hash.update(bytes);
    }
}

impl Checkpoint {
    /// SHA-256 of everything in it. It goes into the ledger before the file is written, so that a run goes on from its own
    /// states alone.
    pub fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        for values in [&self.values, &self.optimizer.first, &self.optimizer.second] {
            add(&mut hash, values);
        }
        let counts = (self.applied_steps, self.optimizer.steps, self.on_gpu, &self.ledger);
        hash.update(serde_json::to_vec(&counts).expect("counts serialise"));
        hex(&hash.finalize())
    }

    /// Writes `path` atomically.
    pub fn save(&self, path: &Path) -> Result<()> {
        let metadata = HashMap::from([
            ("applied_steps".to_string(), self.applied_steps.to_string()),
            ("optimizer_steps".to_string(), self.optimizer.steps.to_string()),
            ("on_gpu".to_string(), self.on_gpu.to_string()),
            (
                "ledger".to_string(),
                serde_json::to_string(&self.ledger).expect("a head serialises"),
            ),
        ]);
        let all = [
            ("values", &self.values),
            ("first", &self.optimizer.first),
            ("second", &self.optimizer.second),
        ];
        let tensors = all.map(|(name, values)| Values {
            name,
            shape: vec![values.len()],
            values: values.into(),
        });
        write_tensors(path, tensors.into(), metadata)
    }

    /// Reads what [`Checkpoint::save`] wrote, into an optimizer like the one that it was written with, as it was before its
    /// first step.
    pub fn load(path: &Path, mut optimizer: Optimizer) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|e| Error::io("read the checkpoint", path, e))?;
        let broken = |what: &str| {
            Error::data(format!("{} is not a usable checkpoint: {what}", path.display()))
                .hint("delete it to begin training anew; the steps already charged stay charged")
        };
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| broken(&e.to_string()))?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(|e| broken(&e.to_string()))?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let text = |key: &str| metadata.get(key).ok_or_else(|| broken(&format!("`{key}` is missing")));
        let count = |key: &str| {
            text(key)?
                .parse::<u64>()
                .map_err(|_| broken(&format!("`{key}` is no number")))
        };
        let values = |name: &str, len: usize| {
            let view = tensors.tensor(name).map_err(|e| broken(&e.to_string()))?;
            if view.shape() != [len] || view.dtype() != Dtype::F32 {
                return Err(broken(&format!(
                    "`{name}` has shape {:?}, what is trained wants [{len}]",
                    view.shape()
                )));
            }
            let floats = view
                .data()
                .chunks_exact(4)
                .map(|c| f32::from_le_bytes(c.try_into().expect("chunks of four")));
            Ok(floats.collect::<Vec<f32>>())
        };
        let len = optimizer.first.len();
        optimizer.first = values("first", len)?;
        optimizer.second = values("second", optimizer.second.len())?;
        optimizer.steps = count("optimizer_steps")?;
        Ok(Checkpoint {
            values: values("values", len)?,
            optimizer,
            applied_steps: count("applied_steps")?,
            // An earlier version of the program did not say.
            on_gpu: metadata.get("on_gpu").is_some_and(|said| said == "true"),
            ledger: serde_json::from_str(text("ledger")?).map_err(|e| broken(&e.to_string()))?,
        })
    }
}
