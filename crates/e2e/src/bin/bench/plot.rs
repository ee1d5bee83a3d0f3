//! A plot of horizontal bars, as SVG text.

use std::fmt::Write as _;

const BAR: usize = 9;
const GAP: usize = 8;
const LEFT: usize = 110;
const WIDTH: usize = 520;
const COLOURS: [&str; 4] = ["#3b6fb6", "#e08a3c", "#5aa469", "#8c6bb1"];

/// Bars of each series for each label, with a line at 1.
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
