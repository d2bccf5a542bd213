//! A configuration to begin with, of what stands in a file.

use std::borrow::Cow;
use std::collections::HashSet;
use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Value, context};
use toml::Value as Toml;

use super::Escape;
use super::dataset::{TextColumn, written};
use super::turn::is_variable;
use crate::tables::{ColumnSeen, Declared, Inspection, is_name, short, whole};
use crate::{Error, Result};

/// More labels than this are not written out.
const MOST_LABELS: usize = 200;

/// TOML for the file that was inspected: `text` and `label` name its columns, or the ones that look most like it are taken.
///
/// It reads private records, and says so: what it declares public is for a person to confirm.
///
/// # Errors
/// Usage: there is no such column, or none that could be it.
pub fn draft(seen: &Inspection, declared: &Declared, text: Option<&str>, label: Option<&str>) -> Result<String> {
    let find = |name: &str| {
        seen.columns.iter().find(|c| c.name == name).ok_or_else(|| {
            let names: Vec<String> = seen.columns.iter().map(|c| format!("`{}`", short(&c.name))).collect();
            Error::usage(format!("{} has no column `{name}`", seen.path.display()))
                .hint(format!("its columns are {}", names.join(", ")))
        })
    };
    let none = |what: &str, flag: &str| {
        Error::usage(format!("no column of {} looks like {what}", seen.path.display()))
            .hint(format!("name it: {flag} COLUMN"))
    };
    let text = match text {
        Some(name) => find(name)?,
        None => seen.text_beside(label).ok_or_else(|| none("a text", "--text"))?,
    };
    let label = match label {
        Some(name) => find(name)?,
        None => (seen.labels().into_iter().find(|c| c.name != text.name)).ok_or_else(|| none("a label", "--label"))?,
    };
    let names = names(label)?;
    let nameable = (is_name(&label.name) || whole(&label.name).is_some()) && !is_id(&label.name);
    let label_as = (!nameable).then_some("label");
    let topic = label_as.map_or_else(|| written(&label.name, &None), Cow::from);
    let topic = match is_variable(&topic) {
        true => format!("{{{{ {topic} }}}}"),
        false => format!("{{{{ row[{}] }}}}", Toml::from(label.name.as_str())),
    };
    let plain = TextColumn::from(text.name.as_str()).written() == text.name && !is_id(&text.name);
    let public_size = public_size(seen.rows);
    let mut templates = Environment::new();
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .keep_trailing_newline(true)
        .build();
    templates.set_syntax(syntax.expect("the delimiters are the usual ones"));
    templates.add_filter("toml", |value: Value| {
        Toml::try_from(value).map(|v| v.to_string()).unwrap_or_default()
    });
    let filled = templates.render_str(
        include_str!("draft.toml.jinja"),
        context! {
            name => run_name(&seen.path),
            path => seen.path.to_string_lossy(),
            text => &text.name,
            text_as => (!plain).then_some("text"),
            reading => reading(declared),
            label => &label.name,
            label_as,
            integers => label.is_integer() && label.kind != "text",
            names,
            public_size,
            user => format!("Write a text whose label is {topic}."),
            expected_batch_size => (public_size < 2048).then_some((public_size / 8).max(1)),
        },
    );
    filled.map_err(|e| Error::other(format!("the configuration cannot be written: {e}")))
}

/// What is declared of reading, as keys of `[dataset]`.
fn reading(declared: &Declared) -> Vec<(&'static str, Value)> {
    let mut out = Vec::new();
    let mut key = |key, value: Option<Value>| out.extend(value.map(|value| (key, value)));
    key(
        "separator",
        declared.separator.map(|s| char::from(s).to_string().into()),
    );
    key("quote", declared.quote.map(Value::from));
    let escape = |escape| match escape {
        Escape::Doubled => "doubled",
        Escape::Backslash => "backslash",
    };
    key("escape", declared.escape.map(|e| escape(e).into()));
    key("header", (!declared.header).then_some(false.into()));
    key(
        "columns",
        (!declared.columns.is_empty()).then(|| declared.columns.clone().into()),
    );
    key("encoding", declared.encoding.map(|e| e.name().to_lowercase().into()));
    out
}

/// A name for the run: the file's, or its folder's, which says more than `train` does.
fn run_name(path: &Path) -> String {
    let stem = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let own = stem(path);
    let own = own.split('.').next().unwrap_or_default();
    let folder = stem(path.parent().unwrap_or(Path::new("")));
    let name = match ["train", "test", "data", "all"].contains(&own.to_lowercase().as_str()) && !folder.is_empty() {
        true => folder,
        false => own.to_string(),
    };
    let plain: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    match plain.trim_matches('-') {
        "" => "run".into(),
        name => name.into(),
    }
}

/// Whether synthetic records number themselves by this name.
fn is_id(name: &str) -> bool {
    name.eq_ignore_ascii_case("id")
}

/// The values of a label column, in an order that tells nothing of their counts.
fn names(label: &ColumnSeen) -> Result<Vec<String>> {
    let rows: u64 = label.values.iter().flatten().map(|(_, count)| count).sum();
    // A value for nearly each row is no label.
    let few = |n: u64| rows < 20 || n * 2 <= rows;
    let values = (label.values.as_deref())
        .filter(|values| (2..=MOST_LABELS).contains(&values.len()) && few(values.len() as u64));
    let values = values.ok_or_else(|| {
        let found = label
            .values
            .as_ref()
            .map_or("very many".to_string(), |values| values.len().to_string());
        Error::usage(format!(
            "the column `{}` has {found} different values",
            short(&label.name)
        ))
        .hint(format!(
            "a label has from 2 to {MOST_LABELS} here; declare more in a JSON list: names_file = \"labels.json\""
        ))
    })?;
    let mut names: Vec<String> = values.iter().map(|(value, _)| value.trim().to_string()).collect();
    names.sort_by_cached_key(|name| (name.parse::<i64>().unwrap_or(i64::MAX), name.clone()));
    // 1 and 1.0 are one label, and so are True and true.
    let mut seen = HashSet::new();
    names.retain(|name| seen.insert(whole(name).map_or_else(|| name.to_lowercase(), String::from)));
    match names.len() {
        1 => Err(
            Error::usage(format!("the column `{}` has one value alone", short(&label.name)))
                .hint("a label has at least two: name another column with --label"),
        ),
        _ => Ok(names),
    }
}

/// Four fifths of the rows, down to one digit.
fn public_size(rows: u64) -> u64 {
    let training = (rows * 4 / 5).max(3);
    let digit = 10u64.pow(training.ilog10());
    training / digit * digit
}
