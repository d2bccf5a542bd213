//! Reading labelled records: what is read, what is left out, what is refused and how that is said.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, DictionaryArray, Int32Array, Int64Array, LargeStringArray, RecordBatch, StringArray, UInt32Array,
    UInt64Array,
};
use arrow::datatypes::Int32Type;
use dpsynth::config::{ColumnKind, DatasetConfig, LabelConfig, PrepareConfig, UnitConfig};
use dpsynth::error::Kind;
use dpsynth::records::{
    Encoded, LabelSpace, RawLabel, ReadReport, Record, TextHashes, Units, content_hash, fixed_sample, read, text_hash,
};
use dpsynth::{Error, Result};
use tempfile::TempDir;

fn column(name: &str, names: &[&str]) -> LabelConfig {
    LabelConfig {
        column: name.into(),
        names: names.iter().map(|n| n.to_string()).collect(),
        written_as: None,
        names_file: None,
        kind: Default::default(),
        values: None,
    }
}

fn with_values(mut label: LabelConfig, values: &[&str]) -> LabelConfig {
    label.values = Some(values.iter().map(|v| v.to_string()).collect());
    label
}

fn sentiment() -> Vec<LabelConfig> {
    vec![column("label", &["negative", "positive"])]
}

fn read_prepared(path: &Path, labels: &[LabelConfig], prepare: &PrepareConfig) -> Result<(Vec<Record>, ReadReport)> {
    let dataset = DatasetConfig {
        labels: labels.to_vec(),
        public_size: 100,
        ..DatasetConfig::default()
    };
    read(path, &dataset, &LabelSpace::from_config(labels)?, prepare)
}

fn read_with(path: &Path, labels: &[LabelConfig]) -> Result<(Vec<Record>, ReadReport)> {
    read_prepared(path, labels, &PrepareConfig::default())
}

/// A file made for one test; the folder lives as long as it.
struct Made {
    _folder: TempDir,
    path: PathBuf,
}

fn file(name: &str, content: impl AsRef<[u8]>) -> Made {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, content).unwrap();
    Made { _folder: folder, path }
}

fn parquet(columns: Vec<(&str, ArrayRef)>) -> Made {
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true))).unwrap();
    let mut bytes = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    file("data.parquet", bytes)
}

fn texts(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn integers(values: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

fn records(pairs: &[(&str, usize)]) -> Vec<Record> {
    let record = |(unit, &(text, label)): (usize, &(&str, usize))| Record {
        text: text.into(),
        label,
        unit: unit as u32,
    };
    pairs.iter().enumerate().map(record).collect()
}

/// Asserts a data error whose message and hint hold the given pieces.
fn assert_data_error<T: std::fmt::Debug>(outcome: Result<T>, message: &[&str], hint: &str) {
    let error: Error = outcome.unwrap_err();
    assert_eq!(error.kind(), Kind::Data, "{error}");
    assert_eq!(error.exit_code(), 3);
    for piece in message {
        assert!(error.to_string().contains(piece), "`{piece}` is not in: {error}");
    }
    assert!(
        error.hint_text().unwrap().contains(hint),
        "`{hint}` is not in: {:?}",
        error.hint_text()
    );
}

mod formats {
    use super::*;

    #[test]
    fn parquet_csv_and_json_lines_give_the_same_records() {
        let lines = [
            r#"{"text":"good, really","label":1}"#,
            r#"{"label":0,"text":"bad"}"#,
            r#"{"text":"\"fine\"","label":1}"#,
        ];
        let made = [
            parquet(vec![
                ("id", integers(&[7, 8, 9])),
                ("label", integers(&[1, 0, 1])),
                ("text", texts(&["good, really", "bad", "\"fine\""])),
            ]),
            file(
                "d.csv",
                "id,label,text\n7,1,\"good, really\"\n8,0,bad\n9,1,\"\"\"fine\"\"\"\n",
            ),
            file("d.jsonl", lines.join("\n") + "\n"),
            file("d.ndjson", lines.join("\n")),
            file("d.json", format!("[{}]", lines.join(","))),
        ];
        for made in made {
            let (read, report) = read_with(&made.path, &sentiment()).unwrap();
            assert_eq!(
                read,
                records(&[("good, really", 1), ("bad", 0), ("\"fine\"", 1)]),
                "{}",
                made.path.display()
            );
            assert_eq!((report.read, report.kept), (3, 3));
            assert_eq!(report.per_label, [1, 2]);
            assert!(report.dropped.is_empty());
        }
    }

    #[test]
    fn integer_labels_of_32_and_64_bits_are_read() {
        let widths: [ArrayRef; 4] = [
            Arc::new(Int32Array::from(vec![1, 0])),
            Arc::new(UInt32Array::from(vec![1, 0])),
            Arc::new(Int64Array::from(vec![1, 0])),
            Arc::new(UInt64Array::from(vec![1, 0])),
        ];
        for labels in widths {
            let kind = labels.data_type().clone();
            let made = parquet(vec![("text", texts(&["good", "bad"])), ("label", labels)]);
            let (read, _) = read_with(&made.path, &sentiment()).unwrap_or_else(|e| panic!("{kind}: {e}"));
            assert_eq!(read, records(&[("good", 1), ("bad", 0)]), "{kind}");
        }
    }

    #[test]
    fn strings_of_every_encoding_are_read() {
        let labels: DictionaryArray<Int32Type> = vec!["positive", "negative", "positive"].into_iter().collect();
        let made = parquet(vec![
            ("text", Arc::new(LargeStringArray::from(vec!["a", "b", "c"]))),
            ("label", Arc::new(labels)),
        ]);
        let (read, _) = read_with(&made.path, &sentiment()).unwrap();
        assert_eq!(read, records(&[("a", 1), ("b", 0), ("c", 1)]));
    }

    #[test]
    fn csv_text_that_looks_like_a_number_or_spans_lines_stays_text() {
        let made = file("d.csv", "text,label\n007,positive\n\"two\nlines\",negative\n");
        let (read, _) = read_with(&made.path, &sentiment()).unwrap();
        assert_eq!(read, records(&[("007", 1), ("two\nlines", 0)]));
    }

    #[test]
    fn csv_as_spreadsheets_write_it_is_read() {
        let made = file("d.csv", "\u{feff}text,label\r\ngood,1\r\n\"bad, really\",0\r\n");
        let (read, _) = read_with(&made.path, &sentiment()).unwrap();
        assert_eq!(read, records(&[("good", 1), ("bad, really", 0)]));
    }
}

mod labels {
    use super::*;

    #[test]
    fn a_string_is_a_declared_value_or_a_name() {
        let label = with_values(column("label", &["negative", "positive"]), &["neg", "pos"]);
        let made = file("d.csv", "text,label\na,pos\nb,negative\nc,neg\n");
        let (read, _) = read_with(&made.path, &[label]).unwrap();
        assert_eq!(read, records(&[("a", 1), ("b", 0), ("c", 0)]));
    }

    #[test]
    fn declared_integer_values_take_the_place_of_positions() {
        let label = with_values(column("stars", &["one star", "five stars"]), &["1", "5"]);
        let lines = "{\"text\":\"a\",\"stars\":5}\n{\"text\":\"b\",\"stars\":1}\n";
        for made in [file("d.csv", "text,stars\na,5\nb,1\n"), file("d.jsonl", lines)] {
            let (read, _) = read_with(&made.path, std::slice::from_ref(&label)).unwrap();
            assert_eq!(read, records(&[("a", 1), ("b", 0)]));
        }
        let space = LabelSpace::from_config(&[label]).unwrap();
        assert_eq!(space.raw(1), [RawLabel::Text("5".into())]);
    }

    #[test]
    fn two_columns_span_a_product_with_the_last_column_fastest() {
        let labels = [
            column("tone", &["bad", "good"]),
            column("topic", &["plot", "cast", "music"]),
        ];
        let space = LabelSpace::from_config(&labels).unwrap();
        assert_eq!(space.len(), 6);
        assert_eq!(space.name(0), "bad / plot");
        assert_eq!(space.name(1), "bad / cast");
        assert_eq!(space.name(3), "good / plot");
        assert_eq!(space.parts(5), [("tone", "good"), ("topic", "music")]);
        for joint in 0..space.len() {
            assert_eq!(space.join(&space.split(joint)), joint);
        }
        let made = file("d.csv", "topic,text,tone\nmusic,a,1\nplot,b,0\n");
        let (read, _) = read_with(&made.path, &labels).unwrap();
        assert_eq!(read, records(&[("a", 5), ("b", 0)]));
        assert_eq!(
            space.raw(5),
            [RawLabel::Text("good".into()), RawLabel::Text("music".into())]
        );
    }

    #[test]
    fn names_can_stand_in_a_json_file() {
        let names = file("labels.json", "[\"negative\", \"positive\"]");
        let mut label = column("label", &[]);
        label.names_file = Some(names.path.clone());
        let space = LabelSpace::from_config(std::slice::from_ref(&label)).unwrap();
        assert_eq!(space.columns()[0].names(), ["negative", "positive"]);

        fs::write(&names.path, "{\"negative\": 0}").unwrap();
        let error = LabelSpace::from_config(&[label]).unwrap_err();
        assert!(error.to_string().contains("not a JSON list"), "{error}");
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn declarations_that_name_no_label_space_are_refused() {
        let mut both = column("label", &["a", "b"]);
        both.names_file = Some("labels.json".into());
        let wrong: [(Vec<LabelConfig>, &str); 8] = [
            (vec![column("label", &["only"])], "fewer than 2"),
            (vec![column("label", &["a", "b", "a"])], "declared twice"),
            (vec![column("label", &["a", " "])], "empty"),
            (vec![column("label", &[])], "no names"),
            (vec![both], "both given"),
            (
                vec![column("x", &["a", "b"]), column("x", &["c", "d"])],
                "`x` is declared twice",
            ),
            (
                vec![with_values(column("label", &["a", "b"]), &["1"])],
                "1 values are declared for 2 names",
            ),
            (
                vec![with_values(column("label", &["a", "b"]), &["1", "1"])],
                "`1` is declared twice",
            ),
        ];
        for (labels, message) in wrong {
            let error = LabelSpace::from_config(&labels).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage);
            assert!(error.to_string().contains(message), "`{message}` is not in: {error}");
            assert!(error.hint_text().is_some());
        }
    }

    #[test]
    fn p9_a_row_with_an_undeclared_label_is_left_out_and_the_owner_is_told() {
        let declared = "`negative` or 0, `positive` or 1";
        let made = file("d.csv", "text,label\na,0\nb,1\nc,2\na,0\nb,1\nd,2\n");
        let (read, report) = read_with(&made.path, &sentiment()).unwrap();
        // As without those rows.
        let without = file("d.csv", "text,label\na,0\nb,1\na,0\nb,1\n");
        assert_eq!(read, read_with(&without.path, &sentiment()).unwrap().0);
        assert_eq!(report.dropped["a label that is not declared"], 2);
        let [warning] = &report.warnings[..] else {
            panic!("{report:?}")
        };
        for word in ["2 rows", "line 4", "d.csv", "`2`", "`label`", declared] {
            assert!(warning.contains(word), "`{word}` is not in: {warning}");
        }
        // Nothing but such rows is no dataset.
        let made = file("d.jsonl", "{\"text\":\"a\",\"label\":\"neutral\"}\n");
        let message = ["none of the 1 rows", "a label that is not declared"];
        assert_data_error(read_with(&made.path, &sentiment()), &message, "`neutral`");
    }

    #[test]
    fn labels_with_fewer_than_two_records_are_reported_not_refused() {
        let made = file("d.csv", "text,label\na,x\nb,x\nc,y\n");
        let (_, report) = read_with(&made.path, &[column("label", &["x", "y", "z"])]).unwrap();
        assert_eq!(report.warnings.len(), 2);
        assert!(report.warnings[0].contains("`z`") && report.warnings[0].contains("no record"));
        assert!(report.warnings[1].contains("`y`") && report.warnings[1].contains("only one record"));
    }
}

mod cleaning {
    use super::*;

    #[test]
    fn html_breaks_become_line_breaks_where_asked() {
        let text = "one<br /><br />two<BR>three<br/>four <b>bold</b> a<b <<br>>";
        let made = parquet(vec![("text", texts(&[text])), ("label", integers(&[0]))]);
        let (cleaned, _) = read_with(&made.path, &sentiment()).unwrap();
        assert_eq!(cleaned[0].text, "one\n\ntwo\nthree\nfour <b>bold</b> a<b <\n>");
        let prepare = PrepareConfig {
            replace_html_breaks: false,
            ..PrepareConfig::default()
        };
        let (raw, _) = read_prepared(&made.path, &sentiment(), &prepare).unwrap();
        assert_eq!(raw[0].text, text);
    }

    #[test]
    fn rows_without_text_or_label_are_left_out_and_counted() {
        let text: ArrayRef = Arc::new(StringArray::from(vec![
            Some("a"),
            None,
            Some("  \n"),
            Some("b"),
            Some("<br />"),
            Some(""),
        ]));
        let label = Arc::new(Int64Array::from(vec![Some(0), Some(1), Some(1), None, Some(1), None]));
        let made = parquet(vec![("text", text), ("label", label)]);
        let (read, report) = read_with(&made.path, &sentiment()).unwrap();
        assert_eq!(read, records(&[("a", 0)]));
        assert_eq!((report.read, report.kept), (6, 1));
        assert_eq!(report.dropped["no text"], 4);
        assert_eq!(report.dropped["no label"], 1);

        let made = file("d.csv", "text,label\na,0\n,1\nb,\n");
        let (read, report) = read_with(&made.path, &sentiment()).unwrap();
        assert_eq!(read, records(&[("a", 0)]));
        assert_eq!((report.dropped["no text"], report.dropped["no label"]), (1, 1));
    }

    #[test]
    fn a_missing_key_in_json_lines_is_a_missing_value() {
        let made = file(
            "d.jsonl",
            "{\"text\":\"a\",\"label\":0}\n{\"text\":\"b\"}\n{\"label\":1}\n",
        );
        let (read, report) = read_with(&made.path, &sentiment()).unwrap();
        assert_eq!(read, records(&[("a", 0)]));
        assert_eq!((report.dropped["no label"], report.dropped["no text"]), (1, 1));
    }
}

mod bad_input {
    use super::*;

    #[test]
    fn a_missing_column_is_named_beside_those_there_are() {
        let made = [
            parquet(vec![("body", texts(&["a"])), ("label", integers(&[0]))]),
            file("d.csv", "body,label\na,0\n"),
            file("d.jsonl", "{\"body\":\"a\",\"label\":0}\n"),
        ];
        for made in made {
            assert_data_error(
                read_with(&made.path, &sentiment()),
                &["no column `text`"],
                "body, label",
            );
        }
    }

    #[test]
    fn a_file_that_is_not_utf8_is_refused_with_the_line() {
        let csv: &[u8] = b"text,label\na,0\ncaf\xe9,1\n";
        let json: &[u8] = b"{\"text\":\"a\",\"label\":0}\n\n{\"text\":\"caf\xe9\",\"label\":1}\n";
        for (name, bytes) in [("d.csv", csv), ("d.jsonl", json)] {
            let made = file(name, bytes);
            assert_data_error(
                read_with(&made.path, &sentiment()),
                &["not UTF-8", "line 3"],
                "windows-1252",
            );
        }
    }

    #[test]
    fn a_file_that_is_cut_off_is_refused() {
        let many: Vec<String> = (0..500).map(|i| format!("text number {i}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let whole = parquet(vec![("text", texts(&many)), ("label", integers(&[1; 500]))]);
        let bytes = fs::read(&whole.path).unwrap();
        for end in [3, bytes.len() / 2, bytes.len() - 1] {
            let made = file("cut.parquet", &bytes[..end]);
            assert_data_error(read_with(&made.path, &sentiment()), &["cut.parquet"], "cut off");
        }
        let made = file("cut.jsonl", "{\"text\":\"a\",\"label\":0}\n{\"text\":\"b\",\"lab");
        assert_data_error(read_with(&made.path, &sentiment()), &["cut.jsonl"], "cut off");
        let made = file("cut.json", "[{\"text\":\"a\",\"label\":0},{\"text\":\"b\",\"lab");
        assert_data_error(read_with(&made.path, &sentiment()), &["cut.json"], "cut off");
    }

    #[test]
    fn an_unknown_extension_is_refused_with_the_known_ones() {
        for name in ["d.xlsx", "d"] {
            let made = file(name, "text,label\na,0\n");
            assert_data_error(
                read_with(&made.path, &sentiment()),
                &["no known format"],
                ".parquet, .csv",
            );
        }
    }

    #[test]
    fn a_file_without_records_is_refused() {
        assert_data_error(read_with(&file("d.csv", "").path, &sentiment()), &["is empty"], "");
        assert_data_error(
            read_with(&file("d.csv", "text,label\n").path, &sentiment()),
            &["no records"],
            "",
        );
        let none = parquet(vec![("text", texts(&[])), ("label", integers(&[]))]);
        assert_data_error(read_with(&none.path, &sentiment()), &["no records"], "");
        let blank = file("d.csv", "text,label\n ,0\na,\n");
        let message = ["none of the 2 rows", "1 with no text", "1 with no label"];
        assert_data_error(read_with(&blank.path, &sentiment()), &message, "dataset.text");
    }

    #[test]
    fn a_column_of_another_type_is_refused() {
        let made = parquet(vec![("text", integers(&[1])), ("label", integers(&[0]))]);
        assert_data_error(
            read_with(&made.path, &sentiment()),
            &["row 1", "`text`", "a number", "not text"],
            "dataset.text",
        );
    }

    #[test]
    fn a_file_that_is_not_there_is_refused() {
        let missing = Path::new("/nowhere/at/all.parquet");
        assert_data_error(
            read_with(missing, &sentiment()),
            &["/nowhere/at/all.parquet"],
            "data/README.md",
        );
    }

    #[test]
    fn a_column_that_is_both_text_and_label_is_refused() {
        let made = file("d.csv", "text\na\n");
        let error = read_with(&made.path, &[column("text", &["a", "b"])]).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        assert!(error.to_string().contains("both text and label"));
    }
}

mod p9_written_labels {
    use super::*;

    fn written(csv: &str, kind: ColumnKind) -> Vec<RawLabel> {
        let mut label = with_values(column("label", &["negative", "positive"]), &["0", "1"]);
        label.kind = kind;
        let made = file("d.csv", csv);
        read_with(&made.path, std::slice::from_ref(&label)).unwrap();
        LabelSpace::from_config(&[label]).unwrap().raw(1)
    }

    /// The type of the file's label column once decided the type of the synthetic one: one record could flip it.
    #[test]
    fn one_record_never_changes_how_labels_are_written() {
        let without = "text,label\na,0\nb,1\n";
        let with = "text,label\na,0\nb,1\nc,positive\n";
        for (kind, label) in [
            (ColumnKind::Integer, RawLabel::Integer(1)),
            (ColumnKind::Text, RawLabel::Text("1".into())),
        ] {
            assert_eq!(written(without, kind)[0], label);
            assert_eq!(written(with, kind)[0], label);
        }
    }

    /// Reads a CSV file whose records belong to the units of column `who`.
    fn read_units(csv: &str) -> Result<(Vec<Record>, ReadReport)> {
        let made = file("units.csv", csv);
        let dataset = DatasetConfig {
            labels: sentiment(),
            unit: Some(UnitConfig {
                column: "who".into(),
                max_records: 2,
            }),
            public_size: 100,
            ..DatasetConfig::default()
        };
        read(
            &made.path,
            &dataset,
            &LabelSpace::from_config(&dataset.labels)?,
            &PrepareConfig::default(),
        )
    }

    #[test]
    fn records_of_one_unit_are_numbered_alike_and_rows_without_one_are_left_out() {
        let (records, report) = read_units("text,label,who\na,0,ann\nb,1,bob\nc,1,ann\nd,0,\n").unwrap();
        assert_eq!(records.iter().map(|r| r.unit).collect::<Vec<_>>(), [0, 1, 0]);
        assert_eq!(report.dropped.get("no unit"), Some(&1));
        assert_data_error(
            read_units("text,label\na,0\n"),
            &["no column `who`"],
            "columns are text, label",
        );
    }

    #[test]
    fn a_unit_keeps_its_first_records_and_no_other_units_matter() {
        let encoded = |first: u32| Encoded {
            tokens: vec![first, 1, 2],
            prompt: 1,
            label: 0,
        };
        let units = |of: &[u32]| Units::of_groups((0..of.len() as u32).map(encoded).collect(), of, 2);
        let firsts =
            |units: &Units, unit: usize| -> Vec<u32> { units.records(unit).iter().map(|r| r.tokens[0]).collect() };
        let grouped = units(&[0, 1, 0, 2, 0, 1]);
        assert_eq!(grouped.len(), 3);
        assert_eq!((firsts(&grouped, 0), firsts(&grouped, 1)), (vec![0, 2], vec![1, 5]));
        let without = units(&[0, 2, 0, 3, 0, 3]);
        assert_eq!(firsts(&without, 0), firsts(&grouped, 0));
    }

    #[test]
    fn one_record_never_changes_how_another_is_read() {
        let labels = [column("label", &["2", "1", "0"])];
        let read = |csv: &str| read_with(&file("d.csv", csv).path, &labels).unwrap().0;
        let (without, with) = (read("text,label\na,0\nb,1\n"), read("text,label\na,0\nb,1\nc,2\n"));
        assert_eq!(without, records(&[("a", 2), ("b", 1)]));
        assert_eq!(with[..2], without[..]);
    }
}

mod identity {
    use super::*;

    #[test]
    fn the_content_hash_ignores_order_and_labels_and_nothing_else() {
        let base = records(&[("a", 0), ("b", 1), ("c", 1)]);
        let known_by = |records: &[Record]| content_hash(records.iter().map(|r| r.text.as_str())).unwrap();
        let hash = known_by(&base);
        assert_eq!(hash.len(), 64);
        assert_eq!(hash, known_by(&records(&[("c", 1), ("a", 0), ("b", 1)])));
        // P8: declaring the labels otherwise opens no new budget.
        assert_eq!(hash, known_by(&records(&[("a", 1), ("b", 0), ("c", 7)])));
        let others = [
            records(&[("a", 0), ("b", 1)]),
            records(&[("a", 0), ("b", 1), ("c", 1), ("c", 1)]),
            records(&[("a", 0), ("b", 1), ("C", 1)]),
            records(&[("a", 0), ("bc", 1), ("", 1)]),
        ];
        for other in others {
            assert_ne!(hash, known_by(&other), "{other:?}");
        }
    }

    #[test]
    fn shared_texts_are_counted_once() {
        let hashes = |texts: &[&str]| {
            let mut out = TextHashes::default();
            texts.iter().for_each(|text| out.add(text_hash(text)).unwrap());
            out
        };
        let mut train = hashes(&["a", "a", "b", "c"]);
        assert_eq!(train.shared(&mut hashes(&["a", "b", "b", "d"])).unwrap(), 2);
        assert_eq!(train.shared(&mut hashes(&[])).unwrap(), 0);
    }

    /// More hashes than are sorted in memory go to disk, and are the same multiset.
    #[test]
    fn what_does_not_fit_into_memory_is_the_same_dataset() {
        let number = |i: u32| text_hash(&i.to_string());
        let (mut up, mut down) = (TextHashes::default(), TextHashes::default());
        let count = 1_100_000;
        (0..count).for_each(|i| up.add(number(i)).unwrap());
        (0..count).rev().for_each(|i| down.add(number(i)).unwrap());
        let known = up.content_hash().unwrap();
        assert_eq!(known, down.content_hash().unwrap());
        assert_eq!(up.shared(&mut down).unwrap(), count as usize);
        up.add(number(count)).unwrap();
        assert_ne!(known, up.content_hash().unwrap());
    }

    #[test]
    fn a_fixed_sample_does_not_depend_on_the_order_of_rows() {
        let record = |i: usize| Record {
            text: format!("text {i}"),
            label: i % 2,
            unit: i as u32,
        };
        let all: Vec<Record> = (0..100).map(record).collect();
        let reversed: Vec<Record> = all.iter().rev().cloned().collect();
        let sample = fixed_sample(all.clone(), Some(10));
        assert_eq!(sample.len(), 10);
        assert_eq!(sample, fixed_sample(reversed, Some(10)));
        assert_ne!(sample, all[..10], "the first rows are no sample");
        assert_eq!(fixed_sample(all.clone(), None), all);
        assert_eq!(fixed_sample(all.clone(), Some(1000)).len(), 100);
    }
}
