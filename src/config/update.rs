//! `[finetune.update]` and `[evaluate.dp_direct.update]`: how a private step is taken.

use serde::{Deserialize, Serialize};

use super::rules::{self, refuse};
use crate::Result;

/// A way to take private steps. Each costs the same epsilon; see docs/guide/methods.md.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    tag = "kind",
    rename_all = "kebab-case",
    deny_unknown_fields,
    expecting = "a table such as { kind = \"flat\" }"
)]
pub enum Update {
    /// Along the gradient.
    Gradient {},
    /// Along the gradient a short way up, so that training ends where the loss is flat (DP-Flat).
    Flat {
        /// How far up.
        #[serde(default = "Update::flat_radius")]
        radius: f64,
        /// Which way is up.
        #[serde(default)]
        ascent: Ascent,
    },
    /// By differences of losses, without gradients (DP-ZO, DPZero).
    ZerothOrder {
        /// Numbers that a step releases.
        #[serde(default = "Update::few")]
        directions: usize,
        /// How far to each side the loss is looked at.
        #[serde(default = "Update::short")]
        radius: f64,
    },
    /// Along a few directions that the gradients of public records span, and apart from that along the rest (GEP).
    Projection {
        /// At most so many.
        #[serde(default = "Update::many")]
        directions: usize,
    },
    /// To where the noisy normal equations of least squares are solved: one step, on `method = "features"`.
    NormalEquations {},
    /// Along the gradients of public records alone (as PE-SGD injects noise).
    Candidates {
        /// At most so many.
        #[serde(default = "Update::many")]
        directions: usize,
    },
}

/// Which way up [`Update::Flat`] looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", try_from = "String")]
pub enum Ascent {
    /// Where earlier steps came from: free.
    #[default]
    Previous,
    /// Each record's own: another pass.
    Record,
}

impl TryFrom<String> for Ascent {
    type Error = String;

    fn try_from(named: String) -> std::result::Result<Self, String> {
        let choices = [("previous", Ascent::Previous), ("record", Ascent::Record)];
        chosen(
            "an ascent",
            choices,
            &named,
            (
                "batch",
                "a batch's ascent is not private: taken without noise it would be in every record's gradient, and one record could move them all; \"previous\" takes the way that earlier steps released, \"record\" each record's own",
            ),
        )
    }
}

impl Default for Update {
    fn default() -> Self {
        Update::Gradient {}
    }
}

impl Update {
    /// As it is written.
    pub fn kind(&self) -> &'static str {
        match self {
            Update::Gradient {} => "gradient",
            Update::Flat { .. } => "flat",
            Update::ZerothOrder { .. } => "zeroth-order",
            Update::Projection { .. } => "projection",
            Update::Candidates { .. } => "candidates",
            Update::NormalEquations {} => "normal-equations",
        }
    }

    fn flat_radius() -> f64 {
        0.05
    }

    fn few() -> usize {
        16
    }

    fn short() -> f64 {
        1e-3
    }

    fn many() -> usize {
        100
    }

    /// Directions that a step releases numbers of, where they are few.
    pub fn directions(&self) -> usize {
        match *self {
            Update::ZerothOrder { directions, .. }
            | Update::Projection { directions }
            | Update::Candidates { directions } => directions,
            _ => 0,
        }
    }

    /// Whether it takes the gradients of public records.
    pub fn needs_public(&self) -> bool {
        matches!(self, Update::Projection { .. } | Update::Candidates { .. })
    }

    /// Whether a step's noise is another in each coordinate of the gradient than the plan says.
    pub fn spreads_noise(&self) -> bool {
        self.needs_public() || matches!(self, Update::ZerothOrder { .. })
    }

    /// Refuses values that mean nothing.
    ///
    /// # Errors
    /// Usage, with the key.
    pub fn check(&self, key: &str) -> Result<()> {
        let radius_key = format!("{key}.radius");
        let directions_key = format!("{key}.directions");
        match *self {
            Update::Gradient {} | Update::NormalEquations {} => {}
            Update::Flat { radius, .. } => rules::zero_or_more(&[(radius_key.as_str(), radius)])?,
            Update::ZerothOrder { directions, radius } => {
                rules::above_zero(&[(radius_key.as_str(), radius)])?;
                if radius < 1e-5 {
                    return refuse(
                        &radius_key,
                        "1e-5 or more: below, differences of losses are rounding",
                        radius,
                    );
                }
                rules::at_least_one(&[(directions_key.as_str(), directions)])?;
            }
            Update::Projection { directions } | Update::Candidates { directions } => {
                rules::at_least_one(&[(directions_key.as_str(), directions)])?;
            }
        }
        Ok(())
    }
}

/// Public values that a classifier is drawn toward in each step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table such as { strength = 0.1 }")]
pub struct Toward {
    /// λ of λ/2 · ‖v − reference‖².
    pub strength: f64,
    /// Which.
    #[serde(default)]
    pub reference: ReferenceValues,
}

/// Where [`Toward`] draws to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", try_from = "String")]
pub enum ReferenceValues {
    /// Where training began.
    #[default]
    Initial,
    /// Where training without privacy on the public records ends.
    Public,
}

impl TryFrom<String> for ReferenceValues {
    type Error = String;

    fn try_from(named: String) -> std::result::Result<Self, String> {
        let choices = [
            ("initial", ReferenceValues::Initial),
            ("public", ReferenceValues::Public),
        ];
        chosen(
            "a reference",
            choices,
            &named,
            (
                "private",
                "a reference that was trained on the private records without privacy is not private, and what is drawn toward it is not either; \"initial\" and \"public\" are",
            ),
        )
    }
}

impl Toward {
    /// Whether it takes public records.
    pub fn needs_public(&self) -> bool {
        self.reference == ReferenceValues::Public
    }

    /// Refuses values that mean nothing.
    ///
    /// # Errors
    /// Usage, with the key.
    pub fn check(&self, key: &str) -> Result<()> {
        rules::zero_or_more(&[(format!("{key}.strength").as_str(), self.strength)])
    }
}

/// One of two choices by its name; a third, which the papers have, is refused with the reason.
fn chosen<T>(
    what: &str,
    choices: [(&str, T); 2],
    named: &str,
    (refused, why): (&str, &str),
) -> std::result::Result<T, String> {
    let [(first, a), (second, b)] = choices;
    match named {
        _ if named == first => Ok(a),
        _ if named == second => Ok(b),
        _ if named == refused => Err(why.into()),
        _ => Err(format!("{what} is \"{first}\" or \"{second}\", not {named:?}")),
    }
}
