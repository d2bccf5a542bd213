//! From numbers to the geometry of charts.
//!
//! Across, everything is in per cent of the width, down in pixels: text keeps its size on a phone and on a wide screen,
//! and no script is needed. Series differ by colour, by the shape of their marks and by the dash of their lines.

use serde::Serialize;

/// Whose numbers these are; decides colour, shape and dash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Series {
    Real,
    Synthetic,
    ZeroShot,
    NonPrivate,
    /// Of none of the arms.
    Plain,
}

impl Series {
    /// As people read it.
    pub fn name(self) -> &'static str {
        match self {
            Series::Real => "real",
            Series::Synthetic => "synthetic",
            Series::ZeroShot => "zero-shot",
            Series::NonPrivate => "non-private (NOT PRIVATE)",
            Series::Plain => "",
        }
    }
}

/// What a chart is called, and what it shows to who cannot see it.
#[derive(Clone, Debug, Serialize)]
pub struct Frame {
    /// Unique on the page.
    pub id: &'static str,
    pub title: String,
    pub description: String,
}

/// A chart, ready to be drawn.
#[derive(Clone, Debug, Serialize)]
pub struct Plot {
    #[serde(flatten)]
    pub frame: Frame,
    /// In pixels.
    pub height: f64,
    pub lines: Vec<Line>,
    pub bars: Vec<Bar>,
    pub marks: Vec<Mark>,
    pub texts: Vec<Text>,
    /// The series that a reader must tell apart.
    pub legend: Vec<Key>,
}

/// A line of the legend.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Key {
    pub series: Series,
    pub name: &'static str,
    /// Whether the series is drawn as a line.
    pub dashed: bool,
}

#[derive(Clone, Debug, Serialize)]
pub struct Line {
    pub x1: f64,
    pub y1: f64,
    pub x2: f64,
    pub y2: f64,
    /// `grid`, `axis`, `curve` or `whisker`.
    pub class: &'static str,
    pub series: Series,
}

#[derive(Clone, Debug, Serialize)]
pub struct Bar {
    pub x: f64,
    pub y: f64,
    pub width: f64,
    pub height: f64,
    pub class: &'static str,
    pub series: Series,
}

#[derive(Clone, Debug, Serialize)]
pub struct Mark {
    pub x: f64,
    pub y: f64,
    pub series: Series,
    /// Shown where the pointer rests.
    pub tip: String,
}

#[derive(Clone, Debug, Serialize)]
pub struct Text {
    pub x: f64,
    pub y: f64,
    /// `start`, `middle` or `end`.
    pub anchor: &'static str,
    /// `tick`, `title`, `row` or `value`.
    pub class: &'static str,
    pub text: String,
}

impl Plot {
    fn new(frame: Frame) -> Self {
        Plot {
            frame,
            height: 0.0,
            lines: Vec::new(),
            bars: Vec::new(),
            marks: Vec::new(),
            texts: Vec::new(),
            legend: Vec::new(),
        }
    }

    fn text(&mut self, class: &'static str, anchor: &'static str, (x, y): (f64, f64), text: impl Into<String>) {
        let text = text.into();
        let (x, y) = (round(x), round(y));
        self.texts.push(Text {
            x,
            y,
            anchor,
            class,
            text,
        });
    }

    fn line(&mut self, class: &'static str, series: Series, from: (f64, f64), to: (f64, f64)) {
        self.lines.push(Line {
            x1: round(from.0),
            y1: round(from.1),
            x2: round(to.0),
            y2: round(to.1),
            class,
            series,
        });
    }

    fn bar(&mut self, class: &'static str, series: Series, (x, y): (f64, f64), (width, height): (f64, f64)) {
        self.bars.push(Bar {
            x: round(x),
            y: round(y),
            width: round(width.max(0.0)),
            height: round(height.max(0.0)),
            class,
            series,
        });
    }

    fn mark(&mut self, series: Series, (x, y): (f64, f64), tip: String) {
        let (x, y) = (round(x), round(y));
        self.marks.push(Mark { x, y, series, tip });
    }
}

/// Two decimals: a hundredth of a pixel is not seen, and what is no number draws nothing far away.
fn round(v: f64) -> f64 {
    if v.is_finite() {
        (v * 100.0).round() / 100.0
    } else {
        0.0
    }
}

/// From values to places between 0 and 1.
#[derive(Clone, Debug)]
pub struct Axis {
    low: f64,
    high: f64,
    logarithmic: bool,
    ticks: Vec<f64>,
}

impl Axis {
    /// From the round number at or below `low` to the one at or above `high`, with about so many ticks at round numbers.
    pub fn linear(low: f64, high: f64, about: usize) -> Self {
        let (low, high) = ordered(low, high);
        let raw = (high - low) / about.max(1) as f64;
        let magnitude = 10f64.powf(raw.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0]
            .into_iter()
            .map(|m| m * magnitude)
            .find(|s| *s >= raw * 0.999)
            .unwrap_or(10.0 * magnitude);
        let (first, last) = ((low / step + 1e-9).floor(), (high / step - 1e-9).ceil());
        let count = (last - first).max(1.0) as usize;
        Axis {
            low: first * step,
            high: (first + count as f64) * step,
            logarithmic: false,
            ticks: (0..=count).map(|i| (first + i as f64) * step).collect(),
        }
    }

    /// Between two powers of ten or their doubles and fivefolds; `low` is above 0.
    pub fn logarithmic(low: f64, high: f64) -> Self {
        let (low, high) = ordered(low.max(1e-12), high.max(1e-12));
        let (from, to) = (low.log10().floor() as i32, high.log10().ceil() as i32);
        let all = |steps: &[f64]| -> Vec<f64> {
            let values = (from..=to).flat_map(|p| steps.iter().map(move |m| m * 10f64.powi(p)));
            values.collect()
        };
        let fine = all(&[1.0, 2.0, 5.0]);
        let below = fine.iter().copied().rfind(|v| *v <= low * 1.0001);
        let above = fine.iter().copied().find(|v| *v >= high * 0.9999);
        let (low, high) = (below.unwrap_or(low), above.unwrap_or(high));
        let inside = |ticks: Vec<f64>| -> Vec<f64> {
            let inside = ticks.into_iter();
            inside.filter(|v| *v >= low * 0.999 && *v <= high * 1.001).collect()
        };
        let coarse = inside(all(&[1.0]));
        Axis {
            low,
            high,
            logarithmic: true,
            ticks: if coarse.len() >= 3 { coarse } else { inside(fine) },
        }
    }

    /// Where `value` stands, 0 to 1; what is outside stands at the end.
    fn at(&self, value: f64) -> f64 {
        let place = match self.logarithmic {
            true => (value.max(1e-300) / self.low).ln() / (self.high / self.low).ln(),
            false => (value - self.low) / (self.high - self.low),
        };
        place.clamp(0.0, 1.0)
    }
}

/// In order and apart, whatever came in.
fn ordered(low: f64, high: f64) -> (f64, f64) {
    let (low, high) = match low.is_finite() && high.is_finite() {
        true => (low.min(high), low.max(high)),
        false => (0.0, 1.0),
    };
    match high - low > 1e-9 * high.abs().max(1e-3) {
        true => (low, high),
        false => (low - 0.1 * low.abs().max(1.0), high + 0.1 * high.abs().max(1.0)),
    }
}

/// The smallest and the largest of `values`; 0 and 1 where there are none.
pub fn range(values: impl IntoIterator<Item = f64>) -> (f64, f64) {
    let finite = values.into_iter().filter(|v| v.is_finite());
    let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    if low <= high { (low, high) } else { (0.0, 1.0) }
}

/// How a value stands at an axis.
pub type Show = fn(f64) -> String;

/// A tick without needless decimals.
pub fn plain(v: f64) -> String {
    match v.abs() {
        a if a >= 10_000.0 => thousands(v.round() as u64),
        a if a >= 100.0 || (v - v.round()).abs() < 1e-9 => format!("{v:.0}"),
        a if a >= 0.1 => trimmed(format!("{v:.2}")),
        _ => trimmed(format!("{v:.4}")),
    }
}

/// A share in whole per cent, or with the decimals it needs.
pub fn percent(v: f64) -> String {
    format!("{} %", plain(100.0 * v))
}

fn trimmed(text: String) -> String {
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// 12 345 with thin spaces between thousands.
pub fn thousands(v: u64) -> String {
    let digits = v.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

/// A value with its interval, in a row of its own.
pub struct Row {
    /// Rows with the same group stand under one heading.
    pub group: String,
    pub name: String,
    pub series: Series,
    pub value: f64,
    /// None where the value has no spread.
    pub interval: Option<(f64, f64)>,
    /// The value as text.
    pub text: String,
}

const LEFT: f64 = 1.5;
const WIDE: f64 = 97.0;

/// Marks with whiskers, a row each, on one axis.
pub fn intervals(frame: Frame, rows: &[Row], show: Show) -> Plot {
    let ends = rows.iter().flat_map(|r| {
        let (low, high) = r.interval.unwrap_or((r.value, r.value));
        [low, high, r.value]
    });
    let (low, high) = range(ends);
    let axis = Axis::linear(low, high, 4);
    let place = |v: f64| LEFT + WIDE * axis.at(v);
    let mut plot = Plot::new(frame);
    let mut y = 0.0;
    let mut bands = Vec::new();
    let mut group = "";
    for row in rows {
        if row.group != group {
            group = &row.group;
            y += if y > 0.0 { 34.0 } else { 16.0 };
            plot.text("title", "start", (0.0, y), group);
            y += 8.0;
        }
        y += 20.0;
        plot.text("row", "start", (0.0, y), &row.name);
        plot.text("value", "end", (100.0, y), &row.text);
        y += 14.0;
        bands.push(y);
        if let Some((low, high)) = row.interval {
            plot.line("whisker", row.series, (place(low), y), (place(high), y));
        }
        plot.mark(row.series, (place(row.value), y), format!("{}: {}", row.name, row.text));
        y += 4.0;
    }
    // The lines of the axis lie below the whiskers.
    let whiskers = std::mem::take(&mut plot.lines);
    for tick in &axis.ticks {
        for band in &bands {
            plot.line(
                "grid",
                Series::Plain,
                (place(*tick), band - 6.0),
                (place(*tick), band + 6.0),
            );
        }
        plot.text("tick", anchor(axis.at(*tick)), (place(*tick), y + 22.0), show(*tick));
    }
    for band in &bands {
        plot.line("grid", Series::Plain, (0.0, *band), (100.0, *band));
    }
    plot.lines.extend(whiskers);
    plot.height = y + 28.0;
    plot
}

fn anchor(at: f64) -> &'static str {
    match at {
        a if a < 0.04 => "start",
        a if a > 0.96 => "end",
        _ => "middle",
    }
}

/// A point of a curve.
pub struct Point {
    pub x: f64,
    pub y: f64,
    pub interval: Option<(f64, f64)>,
    pub tip: String,
}

/// Points of one series, in order of x where they are joined.
pub struct Curve {
    pub series: Series,
    pub points: Vec<Point>,
    pub joined: bool,
    /// Whether each point has a mark.
    pub marked: bool,
}

/// An axis, its name and how its ticks are written.
pub struct Scale {
    pub axis: Axis,
    pub name: String,
    pub show: Show,
}

impl Scale {
    /// The ticks' names; of a linear axis with equally many decimals.
    fn names(&self) -> Vec<String> {
        let names: Vec<String> = self.axis.ticks.iter().map(|t| (self.show)(*t)).collect();
        let decimals = |name: &str| {
            let number = name.split(' ').next().unwrap_or("");
            number.split_once('.').map_or(0, |(_, d)| d.len())
        };
        let most = names.iter().map(|n| decimals(n)).max().unwrap_or(0);
        let padded = |name: String| {
            let (number, unit) = name.split_at(name.find(' ').unwrap_or(name.len()));
            let missing = most - decimals(number);
            let point = if missing > 0 && missing == most { "." } else { "" };
            format!("{number}{point}{}{unit}", "0".repeat(missing))
        };
        match self.axis.logarithmic {
            true => names,
            false => names.into_iter().map(padded).collect(),
        }
    }
}

/// Curves or points on two axes. The names of ticks stand above their lines, the name of the upright axis on top.
pub fn curves(frame: Frame, x: &Scale, y: &Scale, curves: &[Curve]) -> Plot {
    const TOP: f64 = 40.0;
    const HIGH: f64 = 210.0;
    const FROM: f64 = 13.0;
    const ACROSS: f64 = 84.0;
    let mut plot = Plot::new(frame);
    let place = |px: f64, py: f64| (FROM + ACROSS * x.axis.at(px), TOP + HIGH * (1.0 - y.axis.at(py)));
    plot.text("title", "start", (0.0, 14.0), &y.name);
    for (tick, name) in y.axis.ticks.iter().zip(y.names()) {
        let at = TOP + HIGH * (1.0 - y.axis.at(*tick));
        plot.line("grid", Series::Plain, (0.0, at), (100.0, at));
        plot.text("tick", "start", (0.0, at - 4.0), name);
    }
    let bottom = TOP + HIGH;
    plot.line("axis", Series::Plain, (0.0, bottom), (100.0, bottom));
    for (tick, name) in x.axis.ticks.iter().zip(x.names()) {
        let at = FROM + ACROSS * x.axis.at(*tick);
        plot.line("axis", Series::Plain, (at, bottom), (at, bottom + 5.0));
        plot.text(
            "tick",
            if at > 94.0 { "end" } else { "middle" },
            (at.min(100.0), bottom + 20.0),
            name,
        );
    }
    plot.text("title", "end", (100.0, bottom + 40.0), &x.name);
    for curve in curves {
        let places: Vec<(f64, f64)> = curve.points.iter().map(|p| place(p.x, p.y)).collect();
        if curve.joined {
            for pair in places.windows(2) {
                plot.line("curve", curve.series, pair[0], pair[1]);
            }
        }
        for (point, at) in curve.points.iter().zip(&places) {
            if let Some((low, high)) = point.interval {
                plot.line("whisker", curve.series, place(point.x, low), place(point.x, high));
            }
            if curve.marked {
                plot.mark(curve.series, *at, point.tip.clone());
            }
        }
        if curve.series != Series::Plain {
            plot.legend.push(Key {
                series: curve.series,
                name: curve.series.name(),
                dashed: curve.joined,
            });
        }
    }
    plot.height = bottom + 48.0;
    plot
}

/// A value as a bar.
pub struct Level {
    pub name: String,
    pub value: f64,
    /// The value as text.
    pub text: String,
    pub series: Series,
    /// Up to here the bar goes on lighter: what is not spent and not free either.
    pub set_aside: f64,
}

/// Bars from 0 to at most `full`, a row each; `limit` is drawn across all of them.
pub fn bars(frame: Frame, levels: &[Level], full: f64, limit: Option<(f64, String)>) -> Plot {
    let full = if full > 0.0 && full.is_finite() { full } else { 1.0 };
    let mut plot = Plot::new(frame);
    let place = |v: f64| 100.0 * (v / full).clamp(0.0, 1.0);
    let mut y = if limit.is_some() { 22.0 } else { 0.0 };
    let top = y;
    for level in levels {
        plot.text("row", "start", (0.0, y + 14.0), &level.name);
        plot.text("value", "end", (100.0, y + 14.0), &level.text);
        plot.bar("track", Series::Plain, (0.0, y + 21.0), (100.0, 9.0));
        // What is above 0 is seen.
        let width = if level.value > 0.0 {
            place(level.value).max(0.4)
        } else {
            0.0
        };
        if level.set_aside > level.value {
            plot.bar("aside", level.series, (0.0, y + 21.0), (place(level.set_aside), 9.0));
        }
        plot.bar("filled", level.series, (0.0, y + 21.0), (width, 9.0));
        y += 44.0;
    }
    if let Some((value, name)) = limit {
        let at = place(value);
        plot.line("limit", Series::Plain, (at, top), (at, y - 8.0));
        plot.text("tick", anchor(at / 100.0), (at, 14.0), name);
    }
    plot.height = (y - 8.0).max(10.0);
    plot
}

/// Shares by bin, a strip of upright bars for each series, one below the other on the same axis.
pub fn strips(frame: Frame, bins: &[String], series: &[(Series, Vec<f64>)], unit: &str) -> Plot {
    const STRIP: f64 = 84.0;
    const BAR: f64 = 56.0;
    let mut plot = Plot::new(frame);
    let most = range(series.iter().flat_map(|(_, shares)| shares.iter().copied()))
        .1
        .max(1e-9);
    let slot = 100.0 / bins.len().max(1) as f64;
    for (i, (series, shares)) in series.iter().enumerate() {
        let base = STRIP * (i + 1) as f64;
        plot.text("row", "start", (0.0, base - BAR - 10.0), series.name());
        plot.line("axis", Series::Plain, (0.0, base), (100.0, base));
        for (bin, share) in shares.iter().enumerate() {
            let height = BAR * share / most;
            let from = (bin as f64 * slot + 0.1 * slot, base - height);
            plot.bar("filled", *series, from, (0.8 * slot, height));
        }
    }
    let bottom = STRIP * series.len() as f64;
    // As many names as a phone has room for.
    let every = bins.len().div_ceil(7).max(1);
    for (i, name) in bins.iter().enumerate().filter(|(i, _)| i.is_multiple_of(every)) {
        plot.text("tick", "middle", ((i as f64 + 0.5) * slot, bottom + 17.0), name);
    }
    plot.text("title", "end", (100.0, bottom + 38.0), unit);
    plot.height = bottom + 46.0;
    plot
}

/// A large table of counts as a picture: a cell for each that is not 0.
#[derive(Clone, Debug, Serialize)]
pub struct Matrix {
    #[serde(flatten)]
    pub frame: Frame,
    pub size: usize,
    pub cells: Vec<Cell>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    pub x: usize,
    pub y: usize,
    /// 0 to 1.
    pub strength: f64,
    /// Whether it is on the diagonal.
    pub right: bool,
    pub tip: String,
}

/// Shares of each row, a cell each; `tip` names one.
pub fn matrix(frame: Frame, shares: &[Vec<f64>], tip: impl Fn(usize, usize) -> String) -> Matrix {
    let mut cells = Vec::new();
    for (y, row) in shares.iter().enumerate() {
        for (x, share) in row.iter().enumerate().filter(|(_, share)| **share > 0.0) {
            cells.push(Cell {
                x,
                y,
                // The root lets a few mistakes be seen.
                strength: round(share.min(1.0).sqrt().max(0.12)),
                right: x == y,
                tip: tip(y, x),
            });
        }
    }
    Matrix {
        frame,
        size: shares.len(),
        cells,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Frame {
        Frame {
            id: "x",
            title: "t".into(),
            description: "d".into(),
        }
    }

    #[test]
    fn axes_have_round_ticks_that_enclose_the_values() {
        for (low, high) in [
            (0.608, 0.858),
            (0.0, 8.0),
            (3.77, 4.08),
            (5.0, 5.0),
            (f64::NAN, 2.0),
            (-1.0, 1e6),
        ] {
            let axis = Axis::linear(low, high, 4);
            assert!((2..=8).contains(&axis.ticks.len()), "{low} {high}: {:?}", axis.ticks);
            if low.is_finite() {
                assert!(axis.low <= low && axis.high >= high, "{low} {high}: {axis:?}");
                assert!(axis.at(low) >= 0.0 && axis.at(high) <= 1.0);
            }
        }
        assert_eq!(Axis::linear(0.608, 0.858, 4).ticks.len(), 4);
        let axis = Axis::logarithmic(3.0, 700.0);
        assert_eq!((axis.low, axis.high), (2.0, 1000.0));
        assert!((axis.at(2.0), axis.at(1000.0)) == (0.0, 1.0));
    }

    #[test]
    fn what_is_no_number_draws_no_nonsense() {
        let rows = [Row {
            group: String::new(),
            name: "r".into(),
            series: Series::Real,
            value: f64::NAN,
            interval: Some((f64::NEG_INFINITY, f64::INFINITY)),
            text: "?".into(),
        }];
        let plot = intervals(frame(), &rows, plain);
        assert!(plot.marks.iter().all(|m| m.x.is_finite() && m.y.is_finite()));
        let plot = bars(frame(), &[], f64::INFINITY, None);
        assert!(plot.height > 0.0);
    }

    #[test]
    fn numbers_are_written_without_needless_decimals() {
        assert_eq!(
            [plain(0.25), plain(4.0), plain(3.776), plain(0.0005)],
            ["0.25", "4", "3.78", "0.0005"]
        );
        assert_eq!(
            [thousands(999), thousands(25000)],
            ["999".to_string(), "25\u{202f}000".into()]
        );
        assert_eq!(percent(0.725), "72.5 %");
    }
}
