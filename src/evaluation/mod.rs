//! What synthetic records are worth: classifiers trained on them, tested on real ones.
mod features;
pub mod linear;
pub mod metrics;

/// A labelled text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// The text a classifier sees.
    pub text: String,
    /// Its label, an index below the number of labels.
    pub label: usize,
}

pub mod encoder { pub struct EncoderFiles; impl EncoderFiles { pub fn from_model(_: &crate::assets::ModelFiles) -> crate::Result<Self> { Ok(EncoderFiles) } } }
pub use metrics::Interval;
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub enum ArmName { Real, Synthetic, ZeroShot }
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub enum Classifier { Linear, Encoder }
pub struct Arm<'a> { pub name: ArmName, pub examples: &'a [Example] }
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Score {}
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct UtilityRow { pub arm: ArmName, pub classifier: Classifier, pub records: usize, pub accuracy: Interval, pub macro_f1: Interval }
#[allow(clippy::too_many_arguments)]
pub fn tstr(_: &[Arm], _: &[Example], _: usize, _: &crate::config::EvaluateConfig, _: Option<&encoder::EncoderFiles>, _: &burn::tensor::Device, _: &mut dyn FnMut(&Score) -> crate::Result<()>, _: &[Score], _: &dyn Fn() -> bool, _: &dyn crate::progress::Progress) -> crate::Result<Vec<UtilityRow>> { Ok(vec![]) }
