//! Plots as SVG text: horizontal bars, and lines over time.

use std::fmt::Write as _;

const BAR: usize = 9;
const GAP: usize = 8;
const LEFT: usize = 110;
const WIDTH: usize = 520;
const COLOURS: [&str; 4] = ["#3b6fb6", "#e08a3c", "#5aa469", "#8c6bb1"];

/// Bars of each series for each label, with a line at 1.
#[must_use]
pub fn bars(title: &str, labels: &[&str], series: &[(String, Vec<f64>)]) -> String {
    let most = series.iter().flat_map(|(_, values)| values).fold(1.5_f64, |most, value| most.max(*value));
    let scale = WIDTH as f64 / most;
    let row = series.len() * BAR + GAP;
    let (top, bottom) = (48, 24);
    let height = top + labels.len() * row + bottom;
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{}" height="{height}" font-family="sans-serif" font-size="11">"#,
        LEFT + WIDTH + 50
    );
    let _ = writeln!(out, r#"<text x="8" y="16" font-size="13">{title}</text>"#);
    for (at, (name, _)) in series.iter().enumerate() {
        let (x, colour) = (LEFT + at * 70, COLOURS[at % COLOURS.len()]);
        let _ = writeln!(out, r#"<rect x="{x}" y="25" width="9" height="9" fill="{colour}"/>"#);
        let _ = writeln!(out, r#"<text x="{}" y="34">{name}</text>"#, x + 14);
    }
    for (number, label) in labels.iter().enumerate() {
        let y = top + number * row;
        let middle = y + series.len() * BAR / 2 + 4;
        let _ = writeln!(out, r#"<text x="{}" y="{middle}" text-anchor="end">{label}</text>"#, LEFT - 6);
        for (at, (_, values)) in series.iter().enumerate() {
            let value = values.get(number).copied().unwrap_or(0.0);
            let (y, width, colour) = (y + at * BAR, value * scale, COLOURS[at % COLOURS.len()]);
            let height = BAR - 1;
            let _ = writeln!(out, r#"<rect x="{LEFT}" y="{y}" width="{width:.1}" height="{height}" fill="{colour}"/>"#);
            let _ = writeln!(
                out,
                r#"<text x="{:.1}" y="{}" font-size="8">{value:.2}</text>"#,
                LEFT as f64 + width + 3.0,
                y + BAR - 1
            );
        }
    }
    let one = LEFT as f64 + scale;
    let _ = writeln!(out, r##"<line x1="{one:.1}" y1="{top}" x2="{one:.1}" y2="{}" stroke="#444"/>"##, height - bottom);
    let _ = writeln!(out, r#"<text x="{one:.1}" y="{}" text-anchor="middle">1</text>"#, height - bottom + 14);
    out.push_str("</svg>\n");
    out
}

/// Lines over time.
#[derive(Clone, Debug, Default)]
pub struct Lines<'a> {
    /// What stands above.
    pub title: &'a str,
    /// What the vertical axis counts.
    pub unit: &'a str,
    /// Whether its steps are powers of ten.
    pub logarithmic: bool,
    /// Names, and points of seconds and values.
    pub series: Vec<(String, Vec<(f64, f64)>)>,
    /// Spans of seconds that are marked, and what they are.
    pub marked: (&'a str, Vec<(f64, f64)>),
}

impl Lines<'_> {
    /// Draws them.
    #[must_use]
    pub fn draw(&self) -> String {
        let (left, top, width, height) = (64.0, 52.0, 640.0, 220.0);
        let points = || self.series.iter().flat_map(|(_, points)| points);
        let end = points().fold(1e-9_f64, |most, (x, _)| most.max(*x));
        let most = points().fold(1e-9_f64, |most, (_, y)| most.max(*y));
        let least = points().filter(|(_, y)| *y > 0.0).fold(most, |least, (_, y)| least.min(*y));
        let (low, high) = if self.logarithmic {
            (10f64.powf(least.log10().floor()), 10f64.powf(most.log10().ceil()).max(least * 10.0))
        } else {
            (0.0, round_up(most))
        };
        let y = |value: f64| {
            let part = if self.logarithmic {
                (value.max(low).log10() - low.log10()) / (high.log10() - low.log10())
            } else {
                value / high
            };
            top + height * (1.0 - part)
        };
        let x = |seconds: f64| left + width * (seconds / end).clamp(0.0, 1.0);
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            r#"<svg xmlns="http://www.w3.org/2000/svg" width="{}" height="{}" font-family="sans-serif" font-size="11">"#,
            left + width + 20.0,
            top + height + 36.0
        );
        let _ = writeln!(out, r#"<text x="8" y="16" font-size="13">{}</text>"#, self.title);
        for (at, (name, _)) in self.series.iter().enumerate() {
            let (x, colour) = (left + at as f64 * 110.0, COLOURS[at % COLOURS.len()]);
            let _ = writeln!(out, r#"<rect x="{x}" y="27" width="9" height="9" fill="{colour}"/>"#);
            let _ = writeln!(out, r#"<text x="{}" y="36">{name}</text>"#, x + 14.0);
        }
        let (what, spans) = &self.marked;
        if !spans.is_empty() {
            let at = left + self.series.len() as f64 * 110.0;
            let _ = writeln!(out, r##"<rect x="{at}" y="27" width="9" height="9" fill="#ddd"/>"##);
            let _ = writeln!(out, r#"<text x="{}" y="36">{what}</text>"#, at + 14.0);
        }
        for (from, to) in spans {
            let width = (x(*to) - x(*from)).max(1.0);
            let _ = writeln!(
                out,
                r##"<rect x="{:.1}" y="{top}" width="{width:.1}" height="{height}" fill="#ddd"/>"##,
                x(*from)
            );
        }
        for mark in self.marks(low, high) {
            let (y, right) = (y(mark), left + width);
            let _ = writeln!(out, r##"<line x1="{left}" y1="{y:.1}" x2="{right}" y2="{y:.1}" stroke="#eee"/>"##);
            let _ = writeln!(
                out,
                r#"<text x="{}" y="{:.1}" text-anchor="end">{}</text>"#,
                left - 6.0,
                y + 4.0,
                brief(mark)
            );
        }
        let _ = writeln!(out, r#"<text x="{}" y="{}" text-anchor="end">{}</text>"#, left - 6.0, top - 10.0, self.unit);
        for step in 0..=8 {
            let seconds = end * f64::from(step) / 8.0;
            let y = top + height + 16.0;
            let _ =
                writeln!(out, r#"<text x="{:.1}" y="{y}" text-anchor="middle">{}</text>"#, x(seconds), brief(seconds));
        }
        let _ = writeln!(out, r#"<text x="{left}" y="{}">seconds</text>"#, top + height + 31.0);
        for (at, (_, points)) in self.series.iter().enumerate() {
            let path: Vec<String> = points.iter().map(|(s, v)| format!("{:.1},{:.1}", x(*s), y(*v))).collect();
            let _ = writeln!(
                out,
                r#"<polyline points="{}" fill="none" stroke="{}"/>"#,
                path.join(" "),
                COLOURS[at % COLOURS.len()]
            );
        }
        out.push_str("</svg>\n");
        out
    }

    /// Where the vertical axis has its numbers.
    fn marks(&self, low: f64, high: f64) -> Vec<f64> {
        if !self.logarithmic {
            return (0..=4).map(|step| high * f64::from(step) / 4.0).collect();
        }
        let decades = (high / low).log10().round() as i32;
        (0..=decades).map(|decade| low * 10f64.powi(decade)).collect()
    }
}

/// The next number above that is 1, 2, 4 or 8 with zeros behind.
fn round_up(value: f64) -> f64 {
    let decade = 10f64.powf(value.log10().floor());
    [1.0, 2.0, 4.0, 8.0, 10.0].into_iter().map(|step| step * decade).find(|step| *step >= value).unwrap_or(value)
}

/// A number for an axis.
fn brief(value: f64) -> String {
    match value {
        _ if value >= 1e6 => format!("{}M", short(value / 1e6)),
        _ if value >= 1e4 => format!("{}k", short(value / 1e3)),
        _ => short(value),
    }
}

/// A number with as many decimals as it needs, two or three digits.
fn short(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 10.0 || size == 0.0 => 0,
        size if size >= 1.0 => 1,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_string() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_numbers() {
        assert_eq!([0.7, 1.0, 3.0, 95_000.0].map(round_up), [0.8, 1.0, 4.0, 100_000.0]);
        assert_eq!([0.0, 0.05, 2.5, 40.0, 25_000.0, 1.2e6].map(brief), ["0", "0.05", "2.5", "40", "25k", "1.2M"]);
    }

    #[test]
    fn lines_stay_within_their_frame() {
        let series = vec![("p50".to_string(), vec![(0.0, 0.5), (1.0, 20.0)]), ("none".to_string(), Vec::new())];
        let mut lines =
            Lines { title: "t", unit: "ms", logarithmic: true, series, marked: ("checkpoint", vec![(0.2, 0.4)]) };
        assert!(lines.draw().contains("points=\"64.0,"), "{}", lines.draw());
        lines.logarithmic = false;
        lines.series.clear();
        assert!(!lines.draw().contains("NaN"));
    }
}
