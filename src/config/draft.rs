//! A configuration to begin with, of what stands in a file.

use std::collections::HashSet;
use std::path::Path;

use toml::Value;

use super::dataset::{Escape, TextColumn, written};
use crate::records::prompt::is_variable;
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
    let values = names(label)?;
    let quoted = |text: &str| Value::String(text.to_string()).to_string();
    let list = values.iter().map(|value| quoted(value)).collect::<Vec<_>>().join(", ");
    let stem = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let own = stem(&seen.path);
    let own = own.split('.').next().unwrap_or_default().to_string();
    // A folder says more than `train` does.
    let folder = stem(seen.path.parent().unwrap_or(Path::new("")));
    let stem = match own.to_lowercase() {
        split if ["train", "test", "data", "all"].contains(&split.as_str()) && !folder.is_empty() => folder,
        _ => own,
    };
    let name: String = stem
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let name = name.trim_matches('-');
    let mut out = vec![
        "# Written by `dpsynth init`, which read private records: look at each line before you share it.".to_string(),
        format!("name = {}", quoted(if name.is_empty() { "run" } else { name })),
        String::new(),
        "[dataset]".into(),
        format!("train = {}", quoted(&seen.path.to_string_lossy())),
        "# A fifth of the records never trains and judges the synthetic ones; or name a file of its own.".into(),
        "test = 0.2".into(),
        match TextColumn::from(text.name.as_str()).written() == text.name && !is_id(&text.name) {
            true => format!("text = {}", quoted(&text.name)),
            false => format!("text = {{ column = {}, as = \"text\" }}", quoted(&text.name)),
        },
    ];
    if let Some(separator) = declared.separator {
        out.push(format!("separator = {}", quoted(&char::from(separator).to_string())));
    }
    if let Some(quote) = declared.quote {
        out.push(format!("quote = {quote}"));
    }
    match declared.escape {
        Some(Escape::Backslash) => out.push("escape = \"backslash\"".into()),
        Some(Escape::Doubled) => out.push("escape = \"doubled\"".into()),
        None => {}
    }
    if !declared.header {
        out.push("header = false".into());
    }
    if !declared.columns.is_empty() {
        let names: Vec<String> = declared.columns.iter().map(|name| quoted(name)).collect();
        out.push(format!("columns = [{}]", names.join(", ")));
    }
    if let Some(encoding) = declared.encoding {
        out.push(format!("encoding = {}", quoted(&encoding.name().to_lowercase())));
    }
    let short_name = is_name(&label.name) || whole(&label.name).is_some();
    let (topic, own_name) = match short_name && !is_id(&label.name) {
        true => (written(&label.name, &None).into_owned(), String::new()),
        false => ("label".to_string(), ", as = \"label\"".to_string()),
    };
    let kind = if label.is_integer() && label.kind != "text" {
        ", type = \"integer\""
    } else {
        ""
    };
    out.push(
        "# The names are what stands in the file. They become public, and so does that each of them exists: leave out what\n\
         # only few records bear. Where another name says more to the model, put it into names, and these into values."
            .into(),
    );
    out.push(format!(
        "labels = [{{ column = {}{own_name}{kind}, names = [{list}] }}]",
        quoted(&label.name)
    ));
    let size = public_size(seen.rows);
    out.push("# A round number near the training records. It becomes public: declare one that may.".into());
    out.push(format!("public_size = {size}"));
    out.extend([String::new(), "[prompt]".into()]);
    out.push("# What the model is asked for.".into());
    let topic = match is_variable(&topic) {
        true => format!("{{{{ {topic} }}}}"),
        false => format!("{{{{ row[{}] }}}}", quoted(&label.name)),
    };
    out.push(format!(
        "user = {}",
        quoted(&format!("Write a text whose label is {topic}."))
    ));
    if size < 1000 {
        out.extend([
            String::new(),
            "# Few records: small batches.".into(),
            "[profile.quick.finetune]".into(),
        ]);
        out.push(format!("expected_batch_size = {}", (size / 8).max(1)));
    }
    Ok(out.join("\n") + "\n")
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
