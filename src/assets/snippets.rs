//! movie-snippets: from a rated text file inside a Python source archive to a labelled split in Parquet.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use flate2::read::GzDecoder;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use sha2::{Digest, Sha256};

use super::registry::SourceArchive;

/// Mean ratings nearer to 0 than this say neither positive nor negative.
const LEAST_RATING: f64 = 0.2;

/// A sentence and its label: 0 negative, 1 positive.
type Row<'a> = (&'a str, i64);

/// Reads the text file out of the zip and writes both halves of the split.
pub(super) fn prepare(zip: &Path, source: &SourceArchive, train: &Path, test: &Path) -> Result<(), String> {
    let text = extract(zip, source)?;
    let (train_rows, test_rows) = split(&text)?;
    write(train, &train_rows)?;
    write(test, &test_rows)
}

fn extract(zip: &Path, source: &SourceArchive) -> Result<String, String> {
    let broken = |e: &dyn std::fmt::Display| format!("cannot unpack {}: {e}", source.file);
    let mut zip = zip::ZipArchive::new(File::open(zip).map_err(|e| broken(&e))?).map_err(|e| broken(&e))?;
    let archive = zip.by_name(&source.archive).map_err(|e| broken(&e))?;
    let mut archive = tar::Archive::new(GzDecoder::new(archive));
    for entry in archive.entries().map_err(|e| broken(&e))? {
        let mut entry = entry.map_err(|e| broken(&e))?;
        if entry.path().map_err(|e| broken(&e))? == Path::new(&source.member) {
            let mut text = String::new();
            entry.read_to_string(&mut text).map_err(|e| broken(&e))?;
            return Ok(text);
        }
    }
    Err(broken(&format!("{} is not in it", source.member)))
}

/// Labels each `id \t mean rating \t text` by the sign of the rating and splits 80/20 by the sha256 of the text, so
/// that the same sentence is always on the same side.
fn split(text: &str) -> Result<(Vec<Row<'_>>, Vec<Row<'_>>), String> {
    let (mut train, mut test) = (Vec::new(), Vec::new());
    for (index, line) in text.lines().enumerate() {
        let mut columns = line.splitn(3, '\t').skip(1);
        let rating = columns.next().and_then(|r| r.trim().parse::<f64>().ok());
        let (Some(rating), Some(text)) = (rating, columns.next().map(str::trim)) else {
            return Err(format!("line {} is not `id, rating, text`", index + 1));
        };
        if rating.abs() < LEAST_RATING || text.is_empty() {
            continue;
        }
        let first_byte_pair = u16::from_be_bytes([Sha256::digest(text)[0], Sha256::digest(text)[1]]);
        let side = if first_byte_pair % 5 == 0 {
            &mut test
        } else {
            &mut train
        };
        side.push((text, i64::from(rating > 0.0)));
    }
    Ok((train, test))
}

fn write(path: &Path, rows: &[Row<'_>]) -> Result<(), String> {
    let told = |e: &dyn std::fmt::Display| format!("cannot write {}: {e}", path.display());
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|(text, _)| text)));
    let labels: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, label)| *label)));
    let batch = RecordBatch::try_from_iter([("text", texts), ("label", labels)]).map_err(|e| told(&e))?;
    let file = File::create(path).map_err(|e| told(&e))?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .build();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).map_err(|e| told(&e))?;
    writer.write(&batch).map_err(|e| told(&e))?;
    writer.close().map_err(|e| told(&e))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_the_sign_of_the_rating_and_unclear_ratings_are_dropped() {
        let text = "1\t2.3\tgood\r\n2\t-0.2\tbad\r\n3\t0.1\tmeh\r\n4\t-0.19\tmeh too\r\n5\t0.2\tfine\tand tabbed\r\n";
        let (mut train, test) = split(text).unwrap();
        train.extend(test);
        train.sort();
        assert_eq!(train, [("bad", 0), ("fine\tand tabbed", 1), ("good", 1)]);
    }

    #[test]
    fn the_split_is_four_to_one_and_keeps_equal_texts_together() {
        let text: String = (0..10_000).map(|i| format!("{i}\t1\tsentence {}\n", i / 2)).collect();
        let (train, test) = split(&text).unwrap();
        let share = test.len() as f64 / 10_000.0;
        assert!((0.18..0.22).contains(&share), "{share}");
        let train: std::collections::HashSet<_> = train.iter().map(|(text, _)| text).collect();
        assert!(test.iter().all(|(text, _)| !train.contains(text)));
    }

    #[test]
    fn a_line_of_another_form_is_refused_with_its_number() {
        assert_eq!(
            split("1\t2.0\tgood\nnonsense\n").unwrap_err(),
            "line 2 is not `id, rating, text`"
        );
    }
}
