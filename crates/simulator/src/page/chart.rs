//! Charts as inline SVG. Colours are those of Okabe and Ito, which the colour-blind can tell apart; lines differ in their
//! dashes as well, and every line and bar tells its name and value to who points at it.

use std::fmt::{self, Write};

use super::Escaped;
use super::scale::{Scale, short};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 44.0;
/// Height of a line of the legend.
const LEGEND: f64 = 18.0;
/// Names in a line of the legend.
const LEGEND_COLUMNS: usize = 4;
/// Colours there are; further series begin again with other dashes.
const COLOURS: usize = 8;
const DASHES: [&str; 4] = ["none", "6 3", "2 3", "8 3 2 3"];

/// An axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Axis {
    /// What it shows, with its unit.
    pub label: String,
    /// Whether a step on it is a multiple rather than a sum.
    pub logarithmic: bool,
}

/// A line.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// What it shows.
    pub name: String,
    /// Its points, ascending in the first value.
    pub points: Vec<(f64, f64)>,
}

/// Lines in one chart.
#[derive(Debug, Clone, PartialEq)]
pub struct Lines {
    /// What it shows.
    pub caption: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// The lines.
    pub series: Vec<Series>,
}

/// Groups of bars in one chart.
#[derive(Debug, Clone, PartialEq)]
pub struct Bars {
    /// What it shows.
    pub caption: String,
    /// The vertical axis.
    pub y: Axis,
    /// The names of the groups.
    pub groups: Vec<String>,
    /// Names, and a value for each group.
    pub series: Vec<(String, Vec<f64>)>,
}

impl Lines {
    pub(super) fn write(&self, out: &mut String) -> fmt::Result {
        let names: Vec<&str> = self.series.iter().map(|series| series.name.as_str()).collect();
        let height = begin(out, &self.caption, &names)?;
        let points = || self.series.iter().flat_map(|series| &series.points);
        let x = Scale::of(points().map(|point| point.0), self.x.logarithmic, LEFT, WIDTH - RIGHT);
        let y = Scale::of(points().map(|point| point.1), self.y.logarithmic, height - BOTTOM, top(&names));
        grid(out, &y, &self.y.label, height)?;
        for tick in x.ticks() {
            let (at, below) = (x.place(tick), height - BOTTOM + 16.0);
            write!(
                out,
                "<text x=\"{at:.1}\" y=\"{below:.1}\" text-anchor=\"middle\">{}</text>",
                short(tick)
            )?;
        }
        let middle = f64::midpoint(LEFT, WIDTH - RIGHT);
        let below = height - 8.0;
        let label = Escaped(&self.x.label);
        write!(out, "<text x=\"{middle:.1}\" y=\"{below:.1}\" text-anchor=\"middle\">{label}</text>")?;
        for (at, series) in self.series.iter().enumerate() {
            let (colour, dash) = look(at);
            write!(out, "<path class=\"c k{colour}\" stroke-dasharray=\"{dash}\" d=\"")?;
            let mut pen = 'M';
            for (across, up) in &series.points {
                if across.is_finite() && up.is_finite() {
                    write!(out, "{pen}{:.1} {:.1}", x.place(*across), y.place(*up))?;
                    pen = 'L';
                } else {
                    pen = 'M';
                }
            }
            write!(out, "\"><title>{}</title></path>", Escaped(&series.name))?;
        }
        end(out, &self.caption)
    }
}

impl Bars {
    pub(super) fn write(&self, out: &mut String) -> fmt::Result {
        let names: Vec<&str> = self.series.iter().map(|(name, _)| name.as_str()).collect();
        let height = begin(out, &self.caption, &names)?;
        let values = || self.series.iter().flat_map(|(_, values)| values.iter().copied());
        let y = Scale::of(values(), self.y.logarithmic, height - BOTTOM, top(&names));
        grid(out, &y, &self.y.label, height)?;
        let group_width = (WIDTH - RIGHT - LEFT) / self.groups.len().max(1) as f64;
        let bar_width = (group_width * 0.8 / self.series.len().max(1) as f64).min(60.0);
        for (group, name) in self.groups.iter().enumerate() {
            let middle = LEFT + (group as f64 + 0.5) * group_width;
            let below = height - BOTTOM + 16.0;
            let label = Escaped(name);
            write!(out, "<text x=\"{middle:.1}\" y=\"{below:.1}\" text-anchor=\"middle\">{label}</text>")?;
            let first = middle - bar_width * self.series.len() as f64 / 2.0;
            for (at, (series, values)) in self.series.iter().enumerate() {
                let Some(value) = values.get(group).filter(|value| value.is_finite()) else { continue };
                let (x, up) = (first + bar_width * at as f64, y.place(*value));
                let (wide, tall) = (bar_width * 0.9, (height - BOTTOM - up).max(0.0));
                let colour = at % COLOURS;
                write!(
                    out,
                    "<rect class=\"f{colour}\" x=\"{x:.1}\" y=\"{up:.1}\" width=\"{wide:.1}\" \
                     height=\"{tall:.1}\"><title>{} {label}: {}</title></rect>",
                    Escaped(series),
                    short(*value)
                )?;
            }
        }
        end(out, &self.caption)
    }
}

/// Where the drawing begins, below the legend.
fn top(names: &[&str]) -> f64 {
    TOP + LEGEND * names.len().div_ceil(LEGEND_COLUMNS) as f64
}

/// The colour and the dashes of a series.
fn look(at: usize) -> (usize, &'static str) {
    (at % COLOURS, DASHES[(at + at / COLOURS) % DASHES.len()])
}

/// Opens a chart and writes its legend; gives its height.
fn begin(out: &mut String, caption: &str, names: &[&str]) -> Result<f64, fmt::Error> {
    let height = HEIGHT + top(names) - TOP;
    let caption = Escaped(caption);
    write!(
        out,
        "<figure>\n<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{caption}\">\
         <title>{caption}</title>"
    )?;
    for (at, name) in names.iter().enumerate() {
        let x = LEFT + (at % LEGEND_COLUMNS) as f64 * (WIDTH - LEFT - RIGHT) / LEGEND_COLUMNS as f64;
        let y = TOP + (at / LEGEND_COLUMNS) as f64 * LEGEND;
        let (colour, dash) = look(at);
        write!(
            out,
            "<path class=\"c k{colour}\" stroke-dasharray=\"{dash}\" d=\"M{x:.1} {y:.1}h26\"/>\
             <text class=\"name\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            x + 32.0,
            y + 4.0,
            Escaped(name)
        )?;
    }
    Ok(height)
}

/// Lines at round values, and the name of the vertical axis.
fn grid(out: &mut String, y: &Scale, label: &str, height: f64) -> fmt::Result {
    for tick in y.ticks() {
        let at = y.place(tick);
        write!(
            out,
            "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0,
            short(tick)
        )?;
    }
    let middle = height / 2.0;
    let label = Escaped(label);
    write!(
        out,
        "<text transform=\"rotate(-90 14 {middle:.1})\" x=\"14\" y=\"{middle:.1}\" text-anchor=\"middle\">{label}</text>"
    )
}

fn end(out: &mut String, caption: &str) -> fmt::Result {
    writeln!(out, "</svg>\n<figcaption>{}</figcaption>\n</figure>", Escaped(caption))
}
