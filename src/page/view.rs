//! What the templates see: text, tables and geometry. Everything here is escaped by the template engine.

use serde::Serialize;

use super::charts::{Matrix, Plot, Series};
use super::guarantee::ShownGuarantee;

/// A page.
#[derive(Debug, Serialize)]
pub struct View {
    /// Of the window.
    pub title: String,
    pub run: String,
    /// What the page says in one sentence.
    pub lead: String,
    /// Short facts below it.
    pub facts: Vec<String>,
    /// What must be read before anything else, such as NOT PRIVATE.
    pub marks: Vec<String>,
    /// Stages that are not done.
    pub missing: Vec<Missing>,
    pub guarantee: Option<ShownGuarantee>,
    /// What it means for attacks, in a sentence below it.
    pub attacks: Option<String>,
    /// Beside the guarantee, in the first view.
    pub answer_title: &'static str,
    pub answer: Vec<Block>,
    pub verdict: Option<Verdict>,
    pub sections: Vec<Section>,
    pub program_version: String,
}

#[derive(Debug, Serialize)]
pub struct Missing {
    pub stage: &'static str,
    /// What it would do.
    pub what: &'static str,
}

/// What the audit came to.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// `pass`, `advice`, `fail` or `none`.
    pub state: &'static str,
    pub headline: String,
    pub text: String,
    /// What to type next.
    pub command: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct Section {
    pub id: &'static str,
    pub title: &'static str,
    pub intro: String,
    /// A warning beside the title.
    pub mark: Option<&'static str>,
    pub blocks: Vec<Block>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Block {
    Plot {
        plot: Plot,
        table: Table,
        note: Option<String>,
    },
    Matrix {
        matrix: Matrix,
        table: Table,
        note: Option<String>,
    },
    /// Counts small enough to be read as they are.
    Heats {
        title: String,
        note: String,
        heats: Vec<Heat>,
    },
    Table {
        table: Table,
        note: Option<String>,
        /// Whether it is folded away at first.
        folded: bool,
    },
    Text {
        text: String,
    },
    List {
        title: String,
        items: Vec<String>,
    },
    Samples(Samples),
    Pairs(Pairs),
}

/// Cells as text; the first of a row names it.
#[derive(Debug, Default, Serialize)]
pub struct Table {
    pub caption: String,
    pub head: Vec<String>,
    pub rows: Vec<Vec<String>>,
    /// Columns from this one on hold numbers.
    pub numbers: usize,
}

impl Table {
    pub fn new(caption: impl Into<String>, head: &[&str], numbers: usize) -> Self {
        Table {
            caption: caption.into(),
            head: head.iter().map(ToString::to_string).collect(),
            rows: Vec::new(),
            numbers,
        }
    }
}

/// A table of counts whose cells are shaded.
#[derive(Debug, Serialize)]
pub struct Heat {
    pub caption: String,
    pub head: Vec<String>,
    pub rows: Vec<HeatRow>,
}

#[derive(Debug, Serialize)]
pub struct HeatRow {
    pub name: String,
    pub cells: Vec<HeatCell>,
}

#[derive(Debug, Serialize)]
pub struct HeatCell {
    pub count: String,
    pub share: String,
    /// 0 to 1.
    pub strength: f64,
    pub right: bool,
}

/// Records side by side.
#[derive(Debug, Serialize)]
pub struct Samples {
    pub arms: Vec<SampleArm>,
    pub groups: Vec<SampleGroup>,
    pub shown: usize,
}

#[derive(Debug, Serialize)]
pub struct SampleArm {
    pub series: Series,
    pub name: &'static str,
    /// Records there are.
    pub records: String,
}

#[derive(Debug, Serialize)]
pub struct SampleGroup {
    pub label: String,
    /// Row by row.
    pub first: Vec<Sample>,
    pub more: Vec<Sample>,
    pub more_rows: usize,
}

#[derive(Debug, Serialize)]
pub struct Sample {
    pub series: Series,
    pub name: &'static str,
    /// Column, from 1.
    pub column: usize,
    pub text: String,
    pub cut: bool,
}

/// Synthetic records and the training records that are nearest to them. PRIVATE.
#[derive(Debug, Serialize)]
pub struct Pairs {
    pub pairs: Vec<Pair>,
}

#[derive(Debug, Serialize)]
pub struct Pair {
    pub similarity: String,
    pub label: String,
    pub neighbour_label: String,
    /// Words in a row that both have.
    pub words: usize,
    pub synthetic: Marked,
    pub training: Marked,
}

/// A text with a part that is marked.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Marked {
    pub before: String,
    pub mark: String,
    pub after: String,
}
