//! Files as people have them: each kind that once failed at the first try, or was read wrongly without a word.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int8Array, Int64Array, ListBuilder, RecordBatch,
    StringArray, StringBuilder, UInt64Array,
};
use dpsynth::config::{ColumnKind, DatasetConfig, Escape, LabelConfig, PrepareConfig, UnitConfig};
use dpsynth::records::{LabelSpace, RawLabel, ReadReport, Record, read};
use dpsynth::tables::{Declared, Split, Table, Value, Wanted, find};
use dpsynth::{Error, Result};
use proptest::prelude::*;
use tempfile::TempDir;

/// A folder for one test.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Folder(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    fn parquet(&self, name: &str, columns: Vec<(&str, ArrayRef)>) -> PathBuf {
        self.write(name, parquet_bytes(columns))
    }
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true))).unwrap()
}

fn parquet_bytes(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
    let batch = batch(columns);
    let mut bytes = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

fn texts(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn label(column: &str, names: &[&str]) -> LabelConfig {
    LabelConfig {
        column: column.into(),
        written_as: None,
        names: names.iter().map(|n| n.to_string()).collect(),
        names_file: None,
        kind: ColumnKind::Text,
        values: None,
    }
}

fn dataset(labels: &[LabelConfig]) -> DatasetConfig {
    DatasetConfig {
        labels: labels.to_vec(),
        public_size: 10,
        ..DatasetConfig::default()
    }
}

fn good_or_bad() -> DatasetConfig {
    dataset(&[label("label", &["bad", "good"])])
}

fn read_as(path: &Path, dataset: &DatasetConfig) -> Result<(Vec<Record>, ReadReport)> {
    let labels = LabelSpace::from_config(&dataset.labels)?;
    read(path, dataset, &labels, &PrepareConfig::default())
}

/// Text and label of each record.
fn pairs(path: &Path, dataset: &DatasetConfig) -> Result<Vec<(String, usize)>> {
    Ok(read_as(path, dataset)?
        .0
        .into_iter()
        .map(|r| (r.text, r.label))
        .collect())
}

fn expect(path: &Path, dataset: &DatasetConfig, records: &[(&str, usize)]) {
    let found = pairs(path, dataset).unwrap_or_else(|e| panic!("{}: {e} ({:?})", path.display(), e.hint_text()));
    let records: Vec<(String, usize)> = records.iter().map(|(t, l)| (t.to_string(), *l)).collect();
    assert_eq!(found, records, "{}", path.display());
}

/// A row is left out for its label, and a warning holds `pieces`.
fn left_out(path: &Path, dataset: &DatasetConfig, pieces: &[&str]) {
    let (_, report) = read_as(path, dataset).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert_eq!(report.dropped["a label that is not declared"], 1, "{report:?}");
    let told = |w: &String| pieces.iter().all(|piece| w.contains(piece));
    assert!(report.warnings.iter().any(told), "{:?}", report.warnings);
}

/// The error, with its hint, holds `pieces`, and `private` nowhere.
fn refused(path: &Path, dataset: &DatasetConfig, pieces: &[&str], private: &[&str]) {
    let error: Error = match read_as(path, dataset) {
        Err(error) => error,
        Ok((records, _)) => panic!("{} was read: {records:?}", path.display()),
    };
    let said = format!("{error} {}", error.hint_text().unwrap_or_default());
    for piece in pieces {
        assert!(said.contains(piece), "`{piece}` is not in: {said}");
    }
    for text in private {
        assert!(!said.contains(text), "`{text}` is in: {said}");
    }
}

mod one_rule_for_labels {
    use super::*;

    const TEXTS: [&str; 4] = ["one", "two", "three", "four"];

    /// The same rows in every format, with labels 1 to 4.
    fn files(folder: &Folder, written: &[&str], typed: ArrayRef) -> Vec<PathBuf> {
        let rows = |line: &dyn Fn(&str, &str) -> String| -> String {
            TEXTS
                .iter()
                .zip(written)
                .map(|(text, label)| line(text, label))
                .collect()
        };
        vec![
            folder.parquet("d.parquet", vec![("text", texts(&TEXTS)), ("label", typed)]),
            folder.write(
                "d.csv",
                "text,label\n".to_string() + &rows(&|t, l| format!("{t},{l}\n")),
            ),
            folder.write(
                "d.tsv",
                "text\tlabel\n".to_string() + &rows(&|t, l| format!("{t}\t{l}\n")),
            ),
            folder.write("d.jsonl", rows(&|t, l| format!("{{\"text\":\"{t}\",\"label\":{l}}}\n"))),
            folder.write(
                "s.jsonl",
                rows(&|t, l| format!("{{\"text\":\"{t}\",\"label\":\"{l}\"}}\n")),
            ),
        ]
    }

    #[test]
    fn names_that_are_integers_are_the_values_and_not_positions() {
        let folder = Folder::new();
        let mut stars = label("label", &["1", "2", "3", "4", "5"]);
        stars.kind = ColumnKind::Integer;
        let typed = Arc::new(Int64Array::from(vec![1, 2, 3, 4]));
        for file in files(&folder, &["1", "2", "3", "4"], typed) {
            expect(
                &file,
                &dataset(std::slice::from_ref(&stars)),
                &[("one", 0), ("two", 1), ("three", 2), ("four", 3)],
            );
        }
        let space = LabelSpace::from_config(&[stars]).unwrap();
        assert_eq!(space.raw(4), [RawLabel::Integer(5)], "what was 5 is written as 5");
    }

    #[test]
    fn names_of_which_only_some_are_integers_need_values() {
        let mut mixed = label("label", &["1", "many"]);
        mixed.kind = ColumnKind::Integer;
        let error = LabelSpace::from_config(std::slice::from_ref(&mixed)).unwrap_err();
        assert!(
            error.to_string().contains("only some of its names are integers"),
            "{error}"
        );
        // And as text no position is taken for one of them.
        mixed.kind = ColumnKind::Text;
        let folder = Folder::new();
        let file = folder.parquet(
            "d.parquet",
            vec![("text", texts(&["a"])), ("label", Arc::new(Int64Array::from(vec![0])))],
        );
        refused(&file, &dataset(&[mixed]), &["`0`", "declared are `1`, `many`"], &[]);
    }

    /// Names 1 to 5 for values 0 to 4: a 4 was taken for a value and a 5 for a name.
    #[test]
    fn a_name_that_is_another_labels_value_is_never_what_stands_in_the_file() {
        let stars = dataset(&[LabelConfig {
            values: Some(["0", "1", "2"].map(String::from).into()),
            ..label("label", &["1", "2", "3"])
        }]);
        let folder = Folder::new();
        let file = folder.write("d.csv", "text,label\na,0\nb,2\n");
        expect(&file, &stars, &[("a", 0), ("b", 2)]);
        let file = folder.write("e.csv", "text,label\na,1\nb,3\n");
        left_out(&file, &stars, &["line 3", "`3`", "declared are `0` (1)"]);
    }

    #[test]
    fn booleans_that_are_taken_for_positions_are_told() {
        let folder = Folder::new();
        let file = folder.write("d.csv", "text,label\na,True\nb,False\nc,True\nd,False\n");
        let (_, report) = read_as(&file, &dataset(&[label("label", &["spam", "ham"])])).unwrap();
        assert!(
            report.warnings[0].contains("is taken for 1, which is `ham`"),
            "{:?}",
            report.warnings
        );
    }

    #[test]
    fn whole_floats_booleans_and_narrow_integers_are_labels() {
        let folder = Folder::new();
        let whole = ["1.0", "0.0", "1.0", "1.0"];
        let records = [("one", 1), ("two", 0), ("three", 1), ("four", 1)];
        let floats = Arc::new(Float64Array::from(vec![1.0, 0.0, 1.0, 1.0]));
        for file in files(&folder, &whole, floats) {
            expect(&file, &good_or_bad(), &records);
        }
        let booleans = Arc::new(BooleanArray::from(vec![true, false, true, true]));
        let yes_no = dataset(&[LabelConfig {
            values: Some(vec!["false".into(), "true".into()]),
            ..label("label", &["no", "yes"])
        }]);
        for declared in [&good_or_bad(), &yes_no] {
            for file in files(&folder, &["true", "false", "true", "true"], booleans.clone()) {
                expect(&file, declared, &records);
            }
        }
        let pandas = folder.write("p.csv", "text,label\none,True\ntwo,FALSE\n");
        expect(&pandas, &yes_no, &[("one", 1), ("two", 0)]);
        let narrow = Arc::new(Int8Array::from(vec![1, 0, 1, 1]));
        for file in files(&folder, &["1", "0", "1", "1"], narrow) {
            expect(&file, &good_or_bad(), &records);
        }
        let stars = dataset(&[LabelConfig {
            values: Some(vec!["1".into(), "5".into()]),
            ..label("label", &["one", "five"])
        }]);
        let file = folder.write(
            "y.jsonl",
            "{\"text\":\"a\",\"label\":5.0}\n{\"text\":\"b\",\"label\":1.0}\n",
        );
        expect(&file, &stars, &[("a", 1), ("b", 0)]);
        let declared_so = dataset(&[LabelConfig {
            values: Some(vec!["1.0".into(), "5.0".into()]),
            ..label("label", &["one", "five"])
        }]);
        expect(&file, &declared_so, &[("a", 1), ("b", 0)]);
    }

    #[test]
    fn a_missing_number_is_a_missing_label() {
        let folder = Folder::new();
        let labels = Arc::new(Float64Array::from(vec![Some(1.0), None, Some(f64::NAN)]));
        let file = folder.parquet("d.parquet", vec![("text", texts(&["a", "b", "c"])), ("label", labels)]);
        let (records, report) = read_as(&file, &good_or_bad()).unwrap();
        assert_eq!((records.len(), report.dropped["no label"]), (1, 2));
    }

    #[test]
    fn decimals_of_scale_0_are_integers() {
        let folder = Folder::new();
        let labels = Decimal128Array::from(vec![1, 0])
            .with_precision_and_scale(38, 0)
            .unwrap();
        let file = folder.parquet(
            "d.parquet",
            vec![("text", texts(&["a", "b"])), ("label", Arc::new(labels))],
        );
        expect(&file, &good_or_bad(), &[("a", 1), ("b", 0)]);
    }

    #[test]
    fn positions_are_told_and_what_counts_from_one_is_pointed_out() {
        let stars = dataset(&[label("stars", &["one", "two", "three", "four", "five"])]);
        let folder = Folder::new();
        let file = folder.write("d.csv", "text,stars\na,1\nb,5\n");
        left_out(
            &file,
            &stars,
            &["line 3", "`5`", "`one` or 0, `two` or 1", "values = [\"1\""],
        );
        let file = folder.write("e.csv", "text,stars\na,1\nb,1\nc,4\nd,4\n");
        let (_, report) = read_as(&file, &stars).unwrap();
        assert!(
            report.warnings.iter().any(|w| w.contains("count the names from 0")),
            "{:?}",
            report.warnings
        );
    }

    #[test]
    fn several_labels_in_one_cell_are_told_what_to_do() {
        let folder = Folder::new();
        let mut lists = ListBuilder::new(StringBuilder::new());
        lists.append_value([Some("good"), Some("bad")]);
        let files = [
            folder.parquet(
                "d.parquet",
                vec![("text", texts(&["a"])), ("label", Arc::new(lists.finish()))],
            ),
            folder.write("d.jsonl", "{\"text\":\"a\",\"label\":[\"good\",\"bad\"]}\n"),
            folder.write("d.csv", "text,label\na,good;bad\n"),
            folder.write("e.csv", "text,label\na,\"['good', 'bad']\"\n"),
        ];
        for file in files {
            refused(&file, &good_or_bad(), &["one label a column"], &[]);
        }
    }

    #[test]
    fn many_labels_without_records_take_one_line() {
        let names: Vec<String> = (0..1500).map(|i| format!("topic {i}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let folder = Folder::new();
        let file = folder.write("d.csv", "text,label\na,topic 7\nb,topic 7\nc,topic 8\n");
        let (_, report) = read_as(&file, &dataset(&[label("label", &names)])).unwrap();
        assert_eq!(report.warnings.len(), 2, "{:?}", report.warnings);
        assert!(
            report.warnings[0].contains("1498") && report.warnings[0].len() < 300,
            "{:?}",
            report.warnings
        );
    }
}

mod csv {
    use super::*;

    #[test]
    fn quotes_behind_backslashes_are_refused_with_their_line_until_declared() {
        let folder = Folder::new();
        let merged = folder.write(
            "d.csv",
            "label,text\ngood,\"the guest wrote \\\"help\"\nbad,\"the other said\\\" no, never\"\nbad,third one\n",
        );
        let quoted = folder.write("e.csv", "label,text\ngood,\"she said \\\"wow\\\", twice\"\nbad,slow\n");
        for file in [&merged, &quoted] {
            refused(file, &good_or_bad(), &["line 2", "dataset.escape"], &["guest", "wow"]);
        }
        let mut escaped = good_or_bad();
        escaped.escape = Some(Escape::Backslash);
        expect(
            &merged,
            &escaped,
            &[
                ("the guest wrote \"help", 1),
                ("the other said\" no, never", 0),
                ("third one", 0),
            ],
        );
        expect(&quoted, &escaped, &[("she said \"wow\", twice", 1), ("slow", 0)]);
        let path = folder.write("f.csv", "label,text\ngood,\"C:\\dir\\\"\nbad,slow\n");
        let mut doubled = good_or_bad();
        doubled.escape = Some(Escape::Doubled);
        expect(&path, &doubled, &[("C:\\dir\\", 1), ("slow", 0)]);
    }

    #[test]
    fn a_quote_within_an_unquoted_cell_is_text() {
        let folder = Folder::new();
        let file = folder.write("d.csv", "label,text\ngood,the 5\" screen works\nbad,\"a \"\"b\"\"\"\n");
        expect(&file, &good_or_bad(), &[("the 5\" screen works", 1), ("a \"b\"", 0)]);
    }

    #[test]
    fn what_cannot_be_read_in_one_way_is_refused_with_its_line_and_without_a_word_of_it() {
        let folder = Folder::new();
        for (content, line) in [
            ("text,label\nfine,good\nsecret one, and two,bad\n", "line 3 of"),
            ("text,label\nfine,good\nsecret\n", "line 3 of"),
            ("text,label\nfine,good\n\"secret,bad\nfine,good\n", "line 3 of"),
            ("text,label\n\"two\nlines\",good\n\"secret\" one,bad\n", "line 4 of"),
            ("text,label\nfine,good\r\nbad, \"secret\"\r\n", "line 3 of"),
        ] {
            let file = folder.write("d.csv", content);
            refused(&file, &good_or_bad(), &[line], &["secret"]);
        }
        let cut = folder.write("d.csv.gz", &gzip(b"text,label\nfine,good\nslow,bad\n")[..30]);
        refused(&cut, &good_or_bad(), &["cut off"], &["slow"]);
    }

    #[test]
    fn other_separators_are_found_by_extension_or_header() {
        let folder = Folder::new();
        let records = [("fine thing", 1), ("broken; thing", 0)];
        for (name, content) in [
            ("a.csv", "text|label\nfine thing|good\nbroken; thing|bad\n"),
            (
                "b.csv",
                "\u{feff}text;score;label\r\nfine thing;1,5;good\r\n\"broken; thing\";4,0;bad\r\n",
            ),
            ("c.tsv", "text\tlabel\nfine thing\tgood\nbroken; thing\tbad\n"),
            ("d.csv", "text\tlabel\nfine thing\tgood\nbroken; thing\tbad\n"),
            ("e.csv", "sep=;\ntext;label\nfine thing;good\n\"broken; thing\";bad\n"),
            (
                "f.tab",
                "\"text\"\t\"label\"\n\"fine thing\"\t\"good\"\n\"broken; thing\"\t\"bad\"\n",
            ),
        ] {
            expect(&folder.write(name, content), &good_or_bad(), &records);
        }
        let declared = DatasetConfig {
            separator: Some('~'),
            ..good_or_bad()
        };
        expect(
            &folder.write("g.txt", "text~label\nfine thing~good\n"),
            &declared,
            &[("fine thing", 1)],
        );
    }

    #[test]
    fn quotes_in_tsv_are_text_unless_they_may_be_the_formats() {
        let folder = Folder::new();
        let file = folder.write("a.tsv", "label\ttext\ngood\tit \"works\nbad\t\"never\" again\n");
        expect(&file, &good_or_bad(), &[("it \"works", 1), ("\"never\" again", 0)]);
        let file = folder.write("b.tsv", "label\ttext\ngood\t\"fine\"\n");
        refused(&file, &good_or_bad(), &["line 2", "dataset.quote"], &["fine"]);
        let with = |quote| DatasetConfig {
            quote: Some(quote),
            ..good_or_bad()
        };
        expect(&file, &with(true), &[("fine", 1)]);
        expect(&file, &with(false), &[("\"fine\"", 1)]);
    }

    #[test]
    fn a_file_without_a_header_is_told_without_its_first_record() {
        let folder = Folder::new();
        let content = "good,Guest of room 12 was pleased with the view\nbad,noisy\n";
        let file = folder.write("d.csv", content);
        refused(
            &file,
            &good_or_bad(),
            &["dataset.header = false"],
            &["room 12", "pleased"],
        );
        // A short record is no list of names either: it holds a label.
        let file = folder.write("e.csv", "good,fine\nbad,Smith\n");
        refused(&file, &good_or_bad(), &["dataset.header = false"], &["fine", "Smith"]);
        let numbered = |text: &str, label: &str| {
            let mut d = good_or_bad();
            d.header = false;
            d.text = text.into();
            d.labels[0].column = label.into();
            d
        };
        let file = folder.write("d.csv", content);
        let records = [("Guest of room 12 was pleased with the view", 1), ("noisy", 0)];
        for declared in [numbered("column_2", "column_1"), numbered("2", "1")] {
            declared.check().unwrap();
            expect(&file, &declared, &records);
            let written = declared.as_written();
            assert_eq!(
                (written.text.column.as_str(), written.labels[0].column.as_str()),
                ("column_2", "column_1")
            );
        }
        let mut named = good_or_bad();
        named.header = false;
        named.columns = vec!["label".into(), "text".into()];
        expect(&file, &named, &records);
        named.columns.push("more".into());
        refused(&file, &named, &["line 1", "2 fields", "names 3"], &["room 12"]);
    }

    /// A first record of `sep=;` once changed how all the others were read.
    #[test]
    fn p5_the_first_record_of_a_file_without_a_header_is_a_record() {
        let folder = Folder::new();
        let mut bare = good_or_bad();
        bare.header = false;
        bare.columns = ["text", "label"].map(String::from).into();
        let records = [("a;b", 1), ("c;d", 0)];
        expect(&folder.write("d.csv", "a;b,good\nc;d,bad\n"), &bare, &records);
        refused(
            &folder.write("e.csv", "sep=;\na;b,good\nc;d,bad\n"),
            &bare,
            &["1 field"],
            &[],
        );
        // And what it begins with says nothing of an encoding that is declared.
        bare.encoding = Some("windows-1252".into());
        expect(
            &folder.write("f.csv", b"\xef\xbb\xbfa,good\nc,bad\n"),
            &bare,
            &[("ï»¿a", 1), ("c", 0)],
        );
        expect(
            &folder.write("g.csv", b"\xff\xfea,good\nc,bad\n"),
            &bare,
            &[("ÿþa", 1), ("c", 0)],
        );
        // A mark in the middle is left of files that were joined.
        let joined = folder.write("h.csv", "\u{feff}text,label\nfine,good\n\u{feff}slow,bad\n");
        expect(&joined, &good_or_bad(), &[("fine", 1), ("slow", 0)]);
    }

    #[test]
    fn a_cell_that_opens_a_quote_in_tsv_is_refused_until_declared() {
        let folder = Folder::new();
        let file = folder.write("a.tsv", "label\ttext\ngood\t\"line one\nbad\tline two\"\n");
        refused(&file, &good_or_bad(), &["line 2", "dataset.quote"], &[]);
    }

    #[test]
    fn an_encoding_that_garbles_is_pointed_out() {
        let folder = Folder::new();
        let mut declared = good_or_bad();
        declared.encoding = Some("windows-1252".into());
        let file = folder.write("d.csv", "text,label\nGrüße,good\n");
        let (_, report) = read_as(&file, &declared).unwrap();
        assert!(
            report.warnings[0].contains("begins as UTF-8 does"),
            "{:?}",
            report.warnings
        );
    }

    #[test]
    fn a_header_is_shown_and_the_nearest_name_offered() {
        let folder = Folder::new();
        let file = folder.write("d.csv", "text,label,When was it?\na,good,today\n");
        let typo = dataset(&[label("lable", &["bad", "good"])]);
        refused(
            &file,
            &typo,
            &["no column `lable`", "did you mean `label`?"],
            &["today"],
        );
        let file = folder.write("e.csv", "review,sentiment\na,good\n");
        // They may be a record: only their owner is shown them.
        refused(&file, &good_or_bad(), &["dpsynth inspect"], &["review", "sentiment"]);
        let file = folder.write("f.csv", "text,label,text\na,good,b\n");
        refused(&file, &good_or_bad(), &["two columns `text`"], &[]);
    }

    #[test]
    fn encodings_are_declared_or_marked_and_never_guessed() {
        let folder = Folder::new();
        let windows = folder.write("d.csv", b"text,label\nit\x92s \x80 5,good\n");
        refused(
            &windows,
            &good_or_bad(),
            &["not UTF-8 in line 2", "windows-1252"],
            &["LATIN1"],
        );
        let declared = |name: &str| DatasetConfig {
            encoding: Some(name.into()),
            ..good_or_bad()
        };
        expect(&windows, &declared("windows-1252"), &[("it\u{2019}s \u{20ac} 5", 1)]);
        let utf16: Vec<u8> = "\u{feff}text,label\nfine é,good\n"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        let marked = folder.write("u.csv", &utf16);
        expect(&marked, &good_or_bad(), &[("fine é", 1)]);
        let (_, report) = read_as(&marked, &good_or_bad()).unwrap();
        assert!(report.warnings[0].contains("UTF-16LE"), "{:?}", report.warnings);
        let unmarked = folder.write("v.csv", &utf16[2..]);
        refused(
            &unmarked,
            &good_or_bad(),
            &["UTF-16", "dataset.encoding = \"utf-16le\""],
            &[],
        );
        expect(&unmarked, &declared("utf-16le"), &[("fine é", 1)]);
        let error = declared("klingon").declared().unwrap_err();
        assert!(error.to_string().contains("klingon"));
        // What went through LATIN1 is pointed out.
        let converted = folder.write("w.csv", "text,label\nit\u{92}s,good\n");
        let (_, report) = read_as(&converted, &good_or_bad()).unwrap();
        assert!(report.warnings[0].contains("WINDOWS-1252"), "{:?}", report.warnings);
    }

    #[test]
    fn a_column_that_nobody_asked_for_breaks_nothing() {
        let folder = Folder::new();
        let file = folder.write("d.csv", b"text,label,other\nfine,good,\xff\xfe\nslow,bad,\n");
        expect(&file, &good_or_bad(), &[("fine", 1), ("slow", 0)]);
    }
}

mod json {
    use super::*;

    #[test]
    fn columns_that_nobody_asked_for_cost_nothing_and_break_nothing() {
        let folder = Folder::new();
        let nested: String = (0..3000)
            .map(|i| {
                let votes: Vec<String> = (0..20).map(|v| format!("\"reader {i} {v}\":{v}")).collect();
                format!(
                    "{{\"text\":\"note {i}\",\"label\":\"good\",\"votes\":{{{}}}}}\n",
                    votes.join(",")
                )
            })
            .collect();
        let begun = std::time::Instant::now();
        assert_eq!(
            pairs(&folder.write("n.jsonl", nested), &good_or_bad()).unwrap().len(),
            3000
        );
        // It once took minutes. No more is said of the time than that.
        assert!(begun.elapsed().as_secs() < 20);
        for other in [
            "NaN",
            "-Infinity",
            "Infinity",
            "18446744073709551616",
            "123456789012345678901234567890",
            "1e999",
            "-9223372036854775809",
            "\"\\ud83d\"",
            "{\"\\ud83d\":1}",
            "[[[]]]",
        ] {
            let file = folder.write(
                "d.jsonl",
                format!("{{\"x\":{other},\"text\":\"fine\",\"label\":\"good\"}}\n"),
            );
            expect(&file, &good_or_bad(), &[("fine", 1)]);
        }
    }

    #[test]
    fn half_an_emoji_becomes_a_replacement_character_and_is_told() {
        let folder = Folder::new();
        let file = folder.write("d.jsonl", "{\"text\":\"cut \\ud83d here\",\"label\":\"good\"}\n");
        expect(&file, &good_or_bad(), &[("cut \u{fffd} here", 1)]);
        let (_, report) = read_as(&file, &good_or_bad()).unwrap();
        assert!(report.warnings[0].contains("U+FFFD"), "{:?}", report.warnings);
    }

    #[test]
    fn errors_name_the_line_and_nothing_of_the_record() {
        let folder = Folder::new();
        let fine = "{\"text\":\"fine\",\"label\":\"good\"}\n";
        for (rest, pieces) in [
            (
                "{\"text\":\"secret\n{\"text\":\"b\",\"label\":\"bad\"}\n",
                ["line 2", "not JSON"],
            ),
            ("\"secret\"\n", ["line 2", "other than a record"]),
            ("[\"secret\"]\n", ["line 2", "other than a record"]),
            ("{\"text\":\"secret\",\"lab", ["line 2", "cut off"]),
            (
                "{\"text\":{\"secret\":1},\"label\":\"bad\"}\n",
                ["line 2", "an object, not text"],
            ),
            ("{\"text\":7,\"label\":\"bad\"}\n", ["line 2", "a number, not text"]),
        ] {
            refused(
                &folder.write("d.jsonl", fine.to_string() + rest),
                &good_or_bad(),
                &pieces,
                &["secret"],
            );
        }
        let listed = folder.write(
            "d.json",
            "[\n{\"text\":\"fine\",\"label\":\"good\"},\n{\"text\":\"secret\" \"label\"}\n]",
        );
        refused(&listed, &good_or_bad(), &["line 3"], &["secret"]);
    }

    /// Whether a row is there decides nothing but itself: a label or a unit that is no value leaves its row out.
    #[test]
    fn p9_a_list_for_a_label_or_a_unit_aborted_the_run() {
        let folder = Folder::new();
        let lines = "{\"text\":\"fine\",\"label\":\"good\",\"user\":\"a\"}\n{\"text\":\"secret\",\"label\":{},\"user\":\"b\"}\n{\"text\":\"secret\",\"label\":\"bad\",\"user\":[\"b\"]}\n";
        let file = folder.write("d.jsonl", lines);
        let mut by_user = good_or_bad();
        by_user.unit = Some(UnitConfig {
            column: "user".into(),
            max_records: 2,
        });
        let (records, report) = read_as(&file, &by_user).unwrap();
        assert_eq!(records.len(), 1, "{:?}", report.dropped);
        assert!(
            report
                .warnings
                .iter()
                .any(|w| w.contains("line 2") && w.contains("an object"))
        );
        assert!(!report.warnings.concat().contains("secret"));
    }

    #[test]
    fn objects_over_several_lines_and_lists_are_read() {
        let folder = Folder::new();
        let records = [("fine", 1), ("slow", 0)];
        for content in [
            "{\n \"text\": \"fine\",\n \"label\": \"good\"\n}\n{\n \"text\": \"slow\",\n \"label\": \"bad\"\n}\n",
            "\n\n[{\"text\":\"fine\",\"label\":\"good\"},\n{\"text\":\"slow\",\"label\":\"bad\"}]\n",
            "{\"text\":\"fine\",\"label\":\"good\"}{\"text\":\"slow\",\"label\":\"bad\"}",
        ] {
            expect(&folder.write("d.json", content), &good_or_bad(), &records);
        }
        let splits = folder.write("s.json", "{\"train\": [{\"text\":\"fine\",\"label\":\"good\"}]}");
        refused(
            &splits,
            &good_or_bad(),
            &["list inside it, such as `train`", "jq"],
            &["fine"],
        );
        let other = folder.write("o.jsonl", "{\"body\":\"secret\",\"label\":\"good\"}\n");
        refused(
            &other,
            &good_or_bad(),
            &["no column `text`", "body, label"],
            &["secret"],
        );
    }
}

mod wrapped {
    use super::*;

    const CSV: &[u8] = b"text,label\nfine thing,good\nbroken thing,bad\n";
    const RECORDS: [(&str, usize); 2] = [("fine thing", 1), ("broken thing", 0)];

    #[test]
    fn gzip_and_zstd_are_read_whatever_the_file_is_called() {
        let folder = Folder::new();
        let zstd = ::zstd::encode_all(CSV, 3).unwrap();
        let two = [gzip(&CSV[..11]), gzip(&CSV[11..])].concat();
        for (name, bytes) in [
            ("a.csv.gz", gzip(CSV)),
            ("b.csv", gzip(CSV)),
            ("c.csv.zst", zstd.clone()),
            ("d.csv", zstd),
            ("e.csv.gz", two),
            (
                "f.jsonl.gz",
                gzip(b"{\"text\":\"fine thing\",\"label\":\"good\"}\n{\"text\":\"broken thing\",\"label\":\"bad\"}\n"),
            ),
        ] {
            expect(&folder.write(name, bytes), &good_or_bad(), &RECORDS);
        }
        let parquet = parquet_bytes(vec![("text", texts(&["a"])), ("label", texts(&["good"]))]);
        refused(
            &folder.write("g.parquet.gz", gzip(&parquet)),
            &good_or_bad(),
            &["Parquet inside gzip"],
            &[],
        );
    }

    #[test]
    fn what_is_not_read_is_named_by_its_first_bytes() {
        let folder = Folder::new();
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
        for (name, bytes, said) in [
            ("a.parquet", pointer.as_bytes(), "git lfs pull"),
            ("a.csv", pointer.as_bytes(), "git lfs pull"),
            ("a.jsonl", pointer.as_bytes(), "git lfs pull"),
            ("b.csv", b"PK\x03\x04......[Content_Types].xml".as_slice(), "Excel"),
            ("b.xlsx", b"PK\x03\x04......xl/workbook.xml", "Excel"),
            ("c.csv", b"PK\x03\x04......data.csv", "zip"),
            ("d.csv", b"BZh91AY&SY", "bzip2"),
            ("e.csv", b"\xfd7zXZ\0", "xz"),
            ("f.csv", b"<!DOCTYPE html><html>", "web page"),
            ("g.pkl", b"\x80\x04\x95", "pickle"),
            ("h.xls", b"\xd0\xcf\x11\xe0", "Office"),
            ("i.db", b"SQLite format 3\0", "SQLite"),
        ] {
            refused(&folder.write(name, bytes), &good_or_bad(), &[said], &[]);
        }
    }

    #[test]
    fn arrow_files_and_streams_are_read() {
        let folder = Folder::new();
        let batch = batch(vec![
            ("text", texts(&["fine thing", "broken thing"])),
            ("label", Arc::new(Int64Array::from(vec![1, 0]))),
        ]);
        let mut file = arrow::ipc::writer::FileWriter::try_new(Vec::new(), &batch.schema()).unwrap();
        file.write(&batch).unwrap();
        let mut stream = arrow::ipc::writer::StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
        stream.write(&batch).unwrap();
        stream.finish().unwrap();
        expect(
            &folder.write("a.feather", file.into_inner().unwrap()),
            &good_or_bad(),
            &RECORDS,
        );
        expect(
            &folder.write("a.arrow", stream.into_inner().unwrap()),
            &good_or_bad(),
            &RECORDS,
        );
    }
}

mod several_files {
    use super::*;

    fn names(found: &[PathBuf]) -> Vec<String> {
        found
            .iter()
            .map(|p| p.file_name().unwrap().to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn patterns_folders_and_saved_datasets_mean_their_shards() {
        let folder = Folder::new();
        for name in [
            "train-00001-of-00002.csv",
            "train-00000-of-00002.csv",
            "test.csv",
            "_SUCCESS",
            "training-notes.csv",
        ] {
            folder.write(&format!("d/{name}"), "text,label\na,good\n");
        }
        let at = |path: &str| folder.0.path().join(path);
        let shards = ["train-00000-of-00002.csv", "train-00001-of-00002.csv"];
        assert_eq!(names(&find(&at("d/train-*.csv"), Split::Train).unwrap()), shards);
        assert_eq!(
            names(&find(&at("d"), Split::Train).unwrap()),
            shards,
            "of a folder with both, its own"
        );
        assert_eq!(names(&find(&at("d"), Split::Test).unwrap()), ["test.csv"]);
        folder.write("s/dataset_dict.json", "{\"splits\":[\"train\",\"test\"]}");
        folder.write(
            "s/train/state.json",
            "{\"_data_files\":[{\"filename\":\"b.arrow\"},{\"filename\":\"a.arrow\"}]}",
        );
        folder.write("s/train/a.arrow", "");
        folder.write("s/train/b.arrow", "");
        assert_eq!(
            names(&find(&at("s"), Split::Train).unwrap()),
            ["b.arrow", "a.arrow"],
            "in the order of state.json"
        );
        folder.write(
            "e/train/state.json",
            "{\"_data_files\":[{\"filename\":\"../../d/test.csv\"}]}",
        );
        assert!(
            find(&at("e"), Split::Train)
                .unwrap_err()
                .to_string()
                .contains("not beside it")
        );
        folder.write("m/a.csv", "");
        folder.write("m/b.parquet", "");
        for (path, said) in [
            ("m", "several kinds"),
            ("none-*.csv", "no file matches"),
            ("gone.csv", "there is no file"),
        ] {
            let error = find(&at(path), Split::Train).unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
        }
        fs::create_dir(at("empty")).unwrap();
        assert!(
            find(&at("empty"), Split::Train)
                .unwrap_err()
                .to_string()
                .contains("is a folder")
        );
    }
}

mod units {
    use super::*;

    /// A person whose number one file writes as an integer and another as a float was two units, and had two bounds.
    #[test]
    fn a_unit_is_one_however_its_number_is_written() {
        let folder = Folder::new();
        let mut by_user = good_or_bad();
        by_user.unit = Some(UnitConfig {
            column: "user".into(),
            max_records: 9,
        });
        let csv = "text,label,user\na,good,7\nb,bad,7.0\nc,bad, 7 \nd,bad,u1\ne,bad,u1  \nf,bad,7e0\ng,bad,1e+16\nh,bad,10000000000000000\n";
        let json: String = ["1000", "1e3", "1.0e3", "\"1e3\"", "\"1000\""]
            .map(|user| format!("{{\"text\":\"a\",\"label\":\"good\",\"user\":{user}}}\n"))
            .concat();
        let units = |path: &Path| -> Vec<u32> { read_as(path, &by_user).unwrap().0.iter().map(|r| r.unit).collect() };
        assert_eq!(units(&folder.write("d.csv", csv)), [0, 0, 0, 1, 1, 0, 2, 2]);
        assert_eq!(units(&folder.write("d.jsonl", json)), [0; 5]);
    }

    #[test]
    fn any_value_names_a_unit_and_no_message_shows_it() {
        let folder = Folder::new();
        let mut by_user = good_or_bad();
        by_user.unit = Some(UnitConfig {
            column: "user".into(),
            max_records: 2,
        });
        let users: [ArrayRef; 4] = [
            Arc::new(arrow::array::BinaryArray::from(vec![
                b"\xff\x00".as_slice(),
                b"\xfe",
                b"\xff\x00",
            ])),
            Arc::new(UInt64Array::from(vec![u64::MAX, 5, u64::MAX])),
            Arc::new(Float64Array::from(vec![1e17, 5.0, 1e17])),
            texts(&["ann", "bob", "ann"]),
        ];
        for users in users {
            let file = folder.parquet(
                "d.parquet",
                vec![
                    ("text", texts(&["a", "b", "c"])),
                    ("label", texts(&["good", "bad", "bad"])),
                    ("user", users),
                ],
            );
            let units: Vec<u32> = read_as(&file, &by_user).unwrap().0.iter().map(|r| r.unit).collect();
            assert_eq!(units, [0, 1, 0]);
        }
        let file = folder.write(
            "d.jsonl",
            "{\"text\":\"a\",\"label\":\"good\",\"user\":18446744073709551616}\n{\"text\":\"b\",\"label\":\"bad\",\"user\":[1]}\n",
        );
        let (records, report) = read_as(&file, &by_user).unwrap();
        assert_eq!((records.len(), report.dropped.get("no unit")), (1, Some(&1)));
        assert!(!format!("{report:?}").contains("18446744073709551616"));
    }
}

mod strangers {
    use super::*;

    /// A header may begin with the letters by which a binary file is known.
    #[test]
    fn a_header_is_not_taken_for_a_binary_file() {
        let folder = Folder::new();
        for first in ["PARENT_ID", "PAR1", "ORCID", "BZhours", "Rar!", "ARROW1", "Obj", "FEA1"] {
            let file = folder.write("d.csv", format!("{first},text,label\n1,fine,good\n"));
            expect(&file, &good_or_bad(), &[("fine", 1)]);
        }
    }

    #[test]
    fn types_of_other_columns_do_not_matter_and_moments_name_units() {
        let folder = Folder::new();
        let moments = arrow::array::TimestampMicrosecondArray::from(vec![1, 2, 1]).with_timezone("Europe/Berlin");
        let far = arrow::array::Date64Array::from(vec![i64::MAX; 3]);
        let file = folder.parquet(
            "d.parquet",
            vec![
                ("text", texts(&["a", "b", "c"])),
                ("label", texts(&["good", "bad", "bad"])),
                ("when", Arc::new(moments)),
                ("far", Arc::new(far)),
            ],
        );
        expect(&file, &good_or_bad(), &[("a", 1), ("b", 0), ("c", 0)]);
        let mut by_moment = good_or_bad();
        by_moment.unit = Some(UnitConfig {
            column: "when".into(),
            max_records: 2,
        });
        let units: Vec<u32> = read_as(&file, &by_moment).unwrap().0.iter().map(|r| r.unit).collect();
        assert_eq!(units, [0, 1, 0]);
        let mut of_moments = good_or_bad();
        of_moments.text = "when".into();
        refused(&file, &of_moments, &["dates or times, not text"], &[]);
    }

    /// The readers of Parquet and Arrow panic on some files that are damaged.
    #[test]
    fn a_damaged_file_is_an_error_and_no_panic() {
        let folder = Folder::new();
        let many: Vec<String> = (0..200).map(|i| format!("text number {i}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let batch = batch(vec![("text", texts(&many)), ("label", texts(&["good"; 200]))]);
        let mut stream = arrow::ipc::writer::StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
        stream.write(&batch).unwrap();
        let parquet = parquet_bytes(vec![("text", texts(&many)), ("label", texts(&["good"; 200]))]);
        for (name, bytes) in [("d.arrow", stream.into_inner().unwrap()), ("d.parquet", parquet)] {
            let mut seed = 1u64;
            for _ in 0..400 {
                let mut spoilt = bytes.clone();
                for _ in 0..3 {
                    seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    let at = (seed >> 33) as usize % spoilt.len();
                    spoilt[at] ^= 1 << (seed >> 30 & 7);
                }
                let path = folder.write(name, &spoilt);
                let _ = read_as(&path, &good_or_bad());
            }
        }
    }

    #[test]
    fn files_that_programs_leave_beside_data_are_not_data() {
        let folder = Folder::new();
        for name in [
            "a.csv",
            "._a.csv",
            ".~lock.a.csv",
            ".ipynb_checkpoints/a-checkpoint.csv",
            "_tmp/part.csv",
            "sub/b.csv",
        ] {
            folder.write(&format!("d/{name}"), "text,label\na,good\n");
        }
        let count = |pattern: &str| find(&folder.0.path().join(pattern), Split::Train).unwrap().len();
        assert_eq!(
            (count("d/*.csv"), count("d/**/*.csv"), count("d/_tmp/*.csv")),
            (1, 2, 1)
        );
    }
}

mod messages {
    use super::*;

    /// Text and label exchanged: the record once stood in the message in full.
    #[test]
    fn a_text_in_the_labels_place_is_not_shown() {
        let folder = Folder::new();
        let text = "The guest of room 12 tells of a lost ring and of much else ".repeat(20);
        let file = folder.write("d.csv", format!("text,label\ngood,\"{text}\"\n"));
        refused(
            &file,
            &good_or_bad(),
            &["line 2", "column `label`", "a text of 1180 characters"],
            &["guest", "room"],
        );
        let file = folder.write("e.csv", "text,label\ngood,Anna M. is HIV positive\n");
        refused(
            &file,
            &good_or_bad(),
            &["line 2", "a text of 23 characters"],
            &["Anna", "HIV"],
        );
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

/// What a file holds: the line or row of each row, and its cells. None where it is refused.
fn rows(path: &Path, declared: &Declared, columns: &[&str]) -> Option<Vec<(u64, Vec<Value>)>> {
    let mut out = Vec::new();
    let wanted = Wanted {
        columns: columns.to_vec(),
        is_label: &|_| false,
    };
    let table = Table::open(path, declared).ok()?;
    let outcome = table.rows(&wanted, &mut |row| {
        let dpsynth::tables::Place::Line(line) = row.place else {
            panic!("CSV and JSON have lines")
        };
        out.push((line, row.values));
        Ok(())
    });
    outcome.ok().map(|()| out)
}

/// Holds that a file without any one of its rows has the other rows, unchanged: what "add or remove one record" rests on.
fn without_any_row(folder: &Folder, name: &str, header: &str, body: &str, declared: &Declared) -> usize {
    let path = folder.write(name, header.to_string() + body);
    let Some(all) = rows(&path, declared, &["a", "b"]) else {
        return 0;
    };
    let lines: Vec<&str> = body.split_inclusive('\n').collect();
    let first = header.matches('\n').count() as u64 + 1;
    for (i, (line, _)) in all.iter().enumerate() {
        let end = all.get(i + 1).map_or(lines.len(), |(next, _)| (next - first) as usize);
        let mut left = lines.clone();
        left.drain((line - first) as usize..end);
        let path = folder.write(name, header.to_string() + &left.concat());
        let fewer = rows(&path, declared, &["a", "b"]).unwrap_or_else(|| panic!("without row {i}: {body:?}"));
        let mut expected: Vec<Vec<Value>> = all.iter().map(|(_, cells)| cells.clone()).collect();
        expected.remove(i);
        let fewer: Vec<Vec<Value>> = fewer.into_iter().map(|(_, cells)| cells).collect();
        assert_eq!(fewer, expected, "without row {i} of {body:?}");
    }
    all.len()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever stands in a CSV file: where it is read at all, no row changes how another is read.
    #[test]
    fn p5_a_row_of_a_csv_file_never_changes_another(
        body in proptest::collection::vec(proptest::sample::select(vec!["x", "y,", ",z", "\"", "\"\"", "\\", "\n", "\r\n", "x,y\n", "\"x\",\"y\"\n", " ", "\t"]), 0..14),
        quote in proptest::option::of(any::<bool>()),
        escape in proptest::sample::select(vec![None, Some(Escape::Doubled), Some(Escape::Backslash)]),
        tabs in any::<bool>(),
    ) {
        let folder = Folder::new();
        let declared = Declared { quote, escape, ..Declared::default() };
        let (name, header, body) = match tabs {
            true => ("t.tsv", "a\tb\n", body.concat().replace(',', "\t")),
            false => ("t.csv", "a,b\n", body.concat()),
        };
        without_any_row(&folder, name, header, &body, &declared);
    }

    /// What the csv crate writes is read as it was, cell by cell.
    #[test]
    fn what_is_written_as_csv_is_read_as_it_was(
        cells in proptest::collection::vec(("[ab \"\\\\,;\n\té]{0,8}", "[ab \"',;]{0,4}"), 1..8),
        always in any::<bool>(),
    ) {
        let mut writer = ::csv::WriterBuilder::new();
        if always {
            writer.quote_style(::csv::QuoteStyle::Always);
        }
        let mut writer = writer.from_writer(Vec::new());
        writer.write_record(["a", "b"]).unwrap();
        for (a, b) in &cells {
            writer.write_record([a, b]).unwrap();
        }
        let folder = Folder::new();
        let path = folder.write("d.csv", writer.into_inner().unwrap());
        let declared = Declared { escape: Some(Escape::Doubled), ..Declared::default() };
        let read = rows(&path, &declared, &["a", "b"]);
        let expected: Vec<Vec<Value>> = cells.iter().map(|(a, b)| vec![Value::Text(a.clone()), Value::Text(b.clone())]).collect();
        match read {
            Some(read) => prop_assert_eq!(read.into_iter().map(|(_, cells)| cells).collect::<Vec<_>>(), expected),
            // Refused, never read otherwise: blanks before a quote, which the writer leaves bare.
            None => prop_assert!(cells.iter().any(|(a, b)| [a, b].iter().any(|c| c.trim_start().starts_with('"') || c.starts_with(' ')))),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// The same of JSON Lines.
    #[test]
    fn p5_a_row_of_a_json_file_never_changes_another(
        body in proptest::collection::vec(proptest::sample::select(vec![
            "{\"a\":\"x\",\"b\":1}\n", "{\"b\":NaN}\n", "{\"a\":\"\\ud83d\"}\n", "\n", "{\"a\":", "{}\n", "{\"c\":[{}]}\n", "\"", "}",
        ]), 0..8),
    ) {
        let folder = Folder::new();
        // Every column stands in the first row, which is not taken out.
        let header = "{\"a\":null,\"b\":null}\n";
        let path = folder.write("d.jsonl", header.to_string() + &body.concat());
        if let Some(all) = rows(&path, &Declared::default(), &["a", "b"]) {
            let lines: Vec<&str> = body.iter().filter(|b| **b != "\n").copied().collect();
            for i in 0..lines.len() {
                let mut left = lines.clone();
                left.remove(i);
                let path = folder.write("d.jsonl", header.to_string() + &left.concat());
                let Some(fewer) = rows(&path, &Declared::default(), &["a", "b"]) else { continue };
                let cells = |rows: Vec<(u64, Vec<Value>)>| rows.into_iter().map(|(_, cells)| cells).collect::<Vec<_>>();
                let mut expected = cells(all.clone());
                if expected.len() == lines.len() + 1 {
                    expected.remove(i + 1);
                    prop_assert_eq!(cells(fewer), expected);
                }
            }
        }
    }
}

/// Files that pandas, pyarrow and Python's own csv and json wrote (`tests/fixtures/files.py`).
#[test]
fn what_pandas_and_pyarrow_wrote_is_read_as_it_was() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/files");
    let expected = fs::read_to_string(folder.join("expected.json")).unwrap();
    let expected: Vec<(String, usize)> = serde_json::from_str(&expected).unwrap();
    let plain = good_or_bad();
    let of = |change: fn(&mut DatasetConfig)| {
        let mut dataset = good_or_bad();
        change(&mut dataset);
        dataset
    };
    let bare = of(|d| {
        d.header = false;
        d.columns = ["text", "label", "other"].map(String::from).into();
    });
    let mut seen = 0;
    for file in fs::read_dir(&folder).unwrap() {
        let path = file.unwrap().path();
        let dataset = match path.file_name().unwrap().to_str().unwrap() {
            "expected.json" => continue,
            "semicolon-cp1252.csv" => of(|d| d.encoding = Some("windows-1252".into())),
            "escaped.csv" => of(|d| d.escape = Some(Escape::Backslash)),
            "bare.csv" => bare.clone(),
            _ => plain.clone(),
        };
        let found = pairs(&path, &dataset).unwrap_or_else(|e| panic!("{}: {e} ({:?})", path.display(), e.hint_text()));
        assert_eq!(found, expected, "{}", path.display());
        seen += 1;
    }
    assert_eq!(seen, 19);
}
