//! What a model declares of itself: its weights, a slot each, and its attention.
//!
//! Everything that is not the forward follows from this: the adapter, the flat vector that is trained, the names in files,
//! operations, the cache and the memory plan.

use std::sync::Arc;

use crate::{Error, Result};

/// No count of a model's shape is larger: one that is comes from a broken file.
pub const MAX_COUNT: usize = 1 << 20;

/// Layers of a model, at most: tables are made of what a file declares.
pub const MAX_LAYERS: usize = 1 << 10;

/// Width of a head, at most.
pub const MAX_HEAD: usize = 1 << 12;

/// Tokens that a model is asked to look at, at most: no text here is longer, and there is a table of all positions.
pub const MAX_CONTEXT: usize = 1 << 15;

/// A weight.
#[derive(Clone, Debug, PartialEq)]
pub struct Slot {
    /// In Hugging Face checkpoints, such as `model.layers.0.mlp.up_proj.weight`, whole: files may leave out the first part.
    pub name: String,
    /// Outermost dimension first; of a map `[out, in]`.
    pub shape: Vec<usize>,
    pub kind: Kind,
}

/// What a weight does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Rows by token, `[vocabulary, width]`: the embedding, which is the head too where there is no [`Kind::Head`].
    Table,
    /// Rows by token, `[vocabulary, width]`: a head of its own. The last slot.
    Head,
    /// Rows by position, `[context, width]`.
    Positions,
    /// A linear map, `[out, in]`.
    Map(Stored),
    /// Multiplies what was normed, as wide as that is.
    Gain(Gain),
    /// Is added to the output of the map or the norm before it.
    Shift,
}

/// How checkpoints store a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// `[out, in]`, as PyTorch's `Linear`.
    Linear,
    /// `[in, out]`, as the `Conv1D` of GPT-2.
    Conv1d,
}

/// How checkpoints store a gain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gain {
    /// As it is.
    Whole,
    /// Less one, as Gemma does.
    LessOne,
}

/// The attention of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    pub heads: usize,
    /// Heads of keys and values; divides `heads`.
    pub kv_heads: usize,
    pub head_width: usize,
    /// Positions in which each pair of a head turns by a radian, `head_width / 2` of them; none where positions are not rotated.
    pub rotation: Option<Arc<[f64]>>,
    /// A token sees itself and those before it, so many in all; none: all of them.
    pub window: Option<usize>,
}

/// The whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    pub width: usize,
    pub vocabulary: usize,
    /// Longest sequence in tokens.
    pub context: usize,
    /// By layer.
    pub attention: Vec<Attention>,
    /// In the order in which a forward meets them.
    pub slots: Vec<Slot>,
}

impl Slot {
    /// A weight by its name in checkpoints.
    pub fn new(name: impl Into<String>, kind: Kind, shape: Vec<usize>) -> Self {
        Slot {
            name: name.into(),
            shape,
            kind,
        }
    }

    /// `[in, out]` of a linear map; none of another weight.
    pub fn map(&self) -> Option<[usize; 2]> {
        match self.kind {
            Kind::Map(_) => Some([self.shape[1], self.shape[0]]),
            _ => None,
        }
    }

    /// Whether it is a vector: a gain, or what is added.
    pub fn is_vector(&self) -> bool {
        matches!(self.kind, Kind::Gain(_) | Kind::Shift)
    }

    /// Values in it.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Never: a weight has values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its name without `.weight`: what PEFT calls the module.
    pub fn module(&self) -> &str {
        self.name.strip_suffix(".weight").unwrap_or(&self.name)
    }

    /// `values` as checkpoints store them.
    pub fn stored<'a>(&self, values: &'a [f32]) -> (Vec<usize>, std::borrow::Cow<'a, [f32]>) {
        match (self.kind, &self.shape[..]) {
            (Kind::Map(Stored::Conv1d), [out, input]) => (vec![*input, *out], transposed(values, *out, *input).into()),
            (Kind::Gain(Gain::LessOne), _) => (self.shape.clone(), values.iter().map(|v| v - 1.0).collect()),
            _ => (self.shape.clone(), values.into()),
        }
    }
}

impl Shape {
    /// Refuses what no forward of this program computes.
    ///
    /// # Errors
    /// Data: heads that do not divide, an odd width of a head, another table than the embedding's, a head that is not the last
    /// slot, too few positions.
    pub fn check(&self) -> Result<()> {
        let of = |kind: Kind| self.slots.iter().filter(move |slot| slot.kind == kind);
        let heads = |a: &Attention| {
            a.kv_heads > 0
                && a.heads > 0
                && a.heads.is_multiple_of(a.kv_heads)
                && a.head_width > 0
                && a.head_width.is_multiple_of(2)
                && a.rotation.as_ref().is_none_or(|r| r.len() == a.head_width / 2)
        };
        let table = [self.vocabulary, self.width];
        let last = self.slots.len().saturating_sub(1);
        let mut heads_of_their_own = self
            .slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.kind == Kind::Head);
        let wrong = match () {
            () if self.attention.iter().any(|a| a.window == Some(0)) => "a layer looks through a window of no token",
            () if !self.attention.iter().all(heads) => "its heads do not divide, or their width is odd",
            () if of(Kind::Table).count() != 1 => "it has not one table of tokens",
            () if of(Kind::Table).any(|t| t.shape != table) => "its table has another shape",
            () if heads_of_their_own.any(|(at, head)| at != last || head.shape != table) => {
                "its head has another shape, or is not the last"
            }
            () if of(Kind::Positions).any(|p| p.shape[0] < self.context) => "it has fewer positions than its context",
            () => return Ok(()),
        };
        Err(Error::data(format!("the model's counts do not fit together: {wrong}"))
            .hint("check that its configuration is its own"))
    }

    /// The slot of the head's weights: its own, or the table's.
    pub fn head(&self) -> usize {
        let of = |kind: Kind| self.slots.iter().position(|slot| slot.kind == kind);
        of(Kind::Head).or_else(|| of(Kind::Table)).expect("a model has a table")
    }

    /// Whether the head has weights of its own.
    pub fn is_untied(&self) -> bool {
        self.slots[self.head()].kind == Kind::Head
    }

    pub fn layers(&self) -> usize {
        self.attention.len()
    }

    /// The vectors by their slots.
    pub fn vectors(&self) -> impl Iterator<Item = (usize, &Slot)> {
        self.slots.iter().enumerate().filter(|(_, slot)| slot.is_vector())
    }

    /// The linear maps in order: slot, and `[in, out]`.
    pub fn maps(&self) -> impl Iterator<Item = (usize, [usize; 2])> {
        let slots = self.slots.iter().enumerate();
        slots.filter_map(|(slot, weight)| Some((slot, weight.map()?)))
    }

    /// The sum over all linear maps of `of(in, out)`.
    pub fn over_maps(&self, of: impl Fn(usize, usize) -> usize) -> usize {
        self.maps().map(|(_, [input, output])| of(input, output)).sum()
    }

    /// Number of weights.
    pub fn parameters(&self) -> usize {
        self.slots.iter().map(Slot::len).sum()
    }

    /// Floating-point operations of a forward pass for one token, attention scores left out.
    pub fn flops_per_token(&self) -> f64 {
        2.0 * (self.over_maps(|input, output| input * output) + self.vocabulary * self.width) as f64
    }

    /// Numbers of keys and values that are kept of a token.
    pub fn held_per_token(&self) -> usize {
        self.attention.iter().map(|a| 2 * a.kv_heads * a.head_width).sum()
    }
}

/// What is said of counts of a family that do not fit together.
pub fn wrong_counts(counts: &dyn std::fmt::Debug) -> Error {
    Error::data(format!("the model's counts do not fit together: {counts:?}"))
        .hint("check that its configuration is its own")
}

/// Tokens that a model is asked to look at, of the `declared` ones; a number that is no count stays, to be refused.
pub fn usable(declared: usize) -> usize {
    match declared <= MAX_COUNT {
        true => declared.min(MAX_CONTEXT),
        false => declared,
    }
}

/// Which layers look at all tokens, by the `layer_types` of `config.json`.
///
/// # Errors
/// Data: another number of layers, or a kind that is not known.
pub fn look_at_all(kinds: &[String], layers: usize) -> Result<Vec<bool>> {
    let wrong = |what: String| Error::data(what).hint("check that config.json is the model's own");
    if kinds.len() != layers {
        return Err(wrong(format!(
            "`layer_types` names {} layers, the model has {layers}",
            kinds.len()
        )));
    }
    let kind = |kind: &String| match kind.as_str() {
        "full_attention" => Ok(true),
        "sliding_attention" => Ok(false),
        other => Err(wrong(format!("`layer_types` names `{other}`, which is not known"))),
    };
    kinds.iter().map(kind).collect()
}

/// `v [rows, columns]` as `[columns, rows]`.
pub fn transposed(v: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..rows * columns)
        .map(|i| v[(i % rows) * columns + i / rows])
        .collect()
}
