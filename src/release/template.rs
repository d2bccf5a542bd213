//! Templates of what people read.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior};
use serde_json::Value;

use crate::{Error, Result};

/// `template` with these values; the filter `cell` makes a text fit into a cell of a Markdown table.
///
/// # Errors
/// Other: it does not render, which its test would have shown.
pub fn render(template: &str, values: &Value) -> Result<String> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .keep_trailing_newline(true)
        .build();
    environment.set_syntax(syntax.expect("the delimiters are the usual ones"));
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.add_filter("cell", |text: String| {
        text.replace('|', "\\|").replace(['\n', '\r'], " ")
    });
    environment
        .render_str(template, Serde(values))
        .map_err(|e| Error::other(format!("a template does not render: {e}")))
}
