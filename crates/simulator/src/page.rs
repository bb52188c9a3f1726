//! A report as one HTML page that needs nothing else: no script, no font, no picture from anywhere.
//!
//! Everything that comes from outside (names of models, tenants, files) is text and nothing but text. The same content
//! gives the same bytes.

mod chart;
mod scale;

use std::fmt::{self, Display, Write};

pub use chart::{Axis, Bars, Lines, Series};

/// A page.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// Its title.
    pub title: String,
    /// What it comes to, in a sentence or two.
    pub lead: String,
    /// What it shows, in order.
    pub sections: Vec<Section>,
}

/// A part of a page.
#[derive(Debug, Clone, PartialEq)]
pub struct Section {
    /// Its heading.
    pub heading: String,
    /// What it holds, in order.
    pub blocks: Vec<Block>,
}

/// What a section holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Block {
    /// A paragraph.
    Text(String),
    /// Lines to be typed or copied.
    Code(String),
    /// Figures in rows.
    Table(Table),
    /// Lines over time, or over a share.
    Lines(Lines),
    /// Groups of bars.
    Bars(Bars),
}

/// Figures in rows. The first column names the row.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Table {
    /// What it shows.
    pub caption: String,
    /// The heads of the columns.
    pub columns: Vec<String>,
    /// Its rows, as long as there are columns.
    pub rows: Vec<Vec<Cell>>,
}

/// A figure in a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// What it says.
    pub text: String,
    /// How it stands beside the others of its column.
    pub mark: Mark,
}

/// How a figure stands beside the others of its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// One of several.
    None,
    /// The best.
    Best,
    /// The worst.
    Worst,
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self { text, mark: Mark::None }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl Table {
    /// A column of numbers as cells: the best and the worst are marked where they differ.
    pub fn marked(values: &[f64], lower_is_better: bool, text: impl Fn(f64) -> String) -> Vec<Cell> {
        let known = || values.iter().copied().filter(|value| value.is_finite());
        let (low, high) = (known().fold(f64::INFINITY, f64::min), known().fold(f64::NEG_INFINITY, f64::max));
        let (best, worst) = if lower_is_better { (low, high) } else { (high, low) };
        let same = |a: f64, b: f64| text(a) == text(b);
        let mark = |value: f64| match value {
            _ if !value.is_finite() || values.len() < 2 || same(low, high) => Mark::None,
            value if same(value, best) => Mark::Best,
            value if same(value, worst) => Mark::Worst,
            _ => Mark::None,
        };
        let cell = |value: &f64| Cell {
            text: if value.is_finite() { text(*value) } else { "–".to_owned() },
            mark: mark(*value),
        };
        values.iter().map(cell).collect()
    }
}

/// Text that is nothing but text, in elements and in attributes.
pub(crate) struct Escaped<'a>(pub(crate) &'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;"),
                '<' => f.write_str("&lt;"),
                '>' => f.write_str("&gt;"),
                '"' => f.write_str("&quot;"),
                '\'' => f.write_str("&#39;"),
                // What browsers do not show, or show backwards, has no place in a name.
                '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => f.write_char('\u{fffd}'),
                control if control.is_control() && control != '\n' => f.write_char('\u{fffd}'),
                other => f.write_char(other),
            }?;
        }
        Ok(())
    }
}

const STYLE: &str = include_str!("page/style.css");

impl Page {
    /// The page as HTML.
    pub fn to_html(&self) -> String {
        let mut html = String::with_capacity(64 * 1024);
        // Writing to a string cannot fail.
        let _ = self.write(&mut html);
        html
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        let title = Escaped(&self.title);
        write!(
            out,
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{title}</title>\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
             <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n<p class=\"lead\">{}</p>\n",
            Escaped(&self.lead)
        )?;
        out.push_str("<nav><ul>\n");
        for (at, section) in self.sections.iter().enumerate() {
            writeln!(out, "<li><a href=\"#s{at}\">{}</a></li>", Escaped(&section.heading))?;
        }
        out.push_str("</ul></nav>\n");
        for (at, section) in self.sections.iter().enumerate() {
            writeln!(out, "<section id=\"s{at}\">\n<h2>{}</h2>", Escaped(&section.heading))?;
            for block in &section.blocks {
                block.write(out)?;
            }
            out.push_str("</section>\n");
        }
        out.push_str("</main>\n</body>\n</html>\n");
        Ok(())
    }
}

impl Block {
    fn write(&self, out: &mut String) -> fmt::Result {
        match self {
            Self::Text(text) => writeln!(out, "<p>{}</p>", Escaped(text)),
            Self::Code(code) => writeln!(out, "<pre><code>{}</code></pre>", Escaped(code)),
            Self::Table(table) => table.write(out),
            Self::Lines(lines) => lines.write(out),
            Self::Bars(bars) => bars.write(out),
        }
    }
}

impl Table {
    fn write(&self, out: &mut String) -> fmt::Result {
        write!(
            out,
            "<div class=\"wide\"><table>\n<caption>{}</caption>\n<thead><tr>",
            Escaped(&self.caption)
        )?;
        for column in &self.columns {
            write!(out, "<th scope=\"col\">{}</th>", Escaped(column))?;
        }
        out.push_str("</tr></thead>\n<tbody>\n");
        for row in &self.rows {
            out.push_str("<tr>");
            for (at, cell) in row.iter().enumerate() {
                let text = Escaped(&cell.text);
                match cell.mark {
                    _ if at == 0 => write!(out, "<th scope=\"row\">{text}</th>")?,
                    Mark::None => write!(out, "<td>{text}</td>")?,
                    Mark::Best => write!(out, "<td class=\"best\">{text} <small>best</small></td>")?,
                    Mark::Worst => write!(out, "<td class=\"worst\">{text}</td>")?,
                }
            }
            out.push_str("</tr>\n");
        }
        out.push_str("</tbody></table></div>\n");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(name: &str) -> Page {
        let series = |name: &str| Series { name: name.to_owned(), points: vec![(0.0, 1.0), (1.0, 3.0)] };
        let axis = |label: &str| Axis { label: label.to_owned(), logarithmic: false };
        Page {
            title: format!("Compared: {name}"),
            lead: name.to_owned(),
            sections: vec![Section {
                heading: name.to_owned(),
                blocks: vec![
                    Block::Text(name.to_owned()),
                    Block::Code(name.to_owned()),
                    Block::Table(Table {
                        caption: name.to_owned(),
                        columns: vec![name.to_owned(), "mean".to_owned()],
                        rows: vec![vec![name.into(), "1".into()]],
                    }),
                    Block::Lines(Lines {
                        caption: name.to_owned(),
                        x: axis(name),
                        y: axis("ms"),
                        series: vec![series(name), series("other")],
                    }),
                    Block::Bars(Bars {
                        caption: name.to_owned(),
                        y: axis(name),
                        groups: vec![name.to_owned(), "p99".to_owned()],
                        series: vec![(name.to_owned(), vec![1.0, f64::NAN])],
                    }),
                ],
            }],
        }
    }

    /// Every element that is opened is closed, in order.
    fn is_balanced(html: &str) -> bool {
        const VOID: [&str; 2] = ["meta", "!doctype"];
        let mut open: Vec<&str> = Vec::new();
        for tag in html.split('<').skip(1) {
            let Some((tag, _)) = tag.split_once('>') else { return false };
            let name = tag.trim_start_matches('/').split([' ', '\n', '/']).next().unwrap_or("");
            if tag.starts_with('/') {
                if open.pop() != Some(name) {
                    return false;
                }
            } else if !tag.ends_with('/') && !VOID.contains(&name) {
                open.push(name);
            }
        }
        open.is_empty()
    }

    #[test]
    fn d17_names_are_text_and_nothing_else() {
        let nasty = "<script>alert(1)</script>\"' onload=x & \u{202e}\u{0}";
        let html = page(nasty).to_html();
        assert!(is_balanced(&html));
        assert!(!html.contains("<script") && !html.contains("\u{202e}") && !html.contains('\0'));
        assert!(!html.contains("\"' onload"), "no attribute is left open");
    }

    #[test]
    fn a_page_needs_nothing_from_anywhere_and_is_the_same_again() {
        let html = page("a").to_html();
        assert!(is_balanced(&html));
        for outside in ["http:", "https:", "src=", "@import", "url("] {
            assert!(!html.contains(outside), "{outside}");
        }
        assert_eq!(html, page("a").to_html());
    }

    #[test]
    fn the_best_and_the_worst_are_marked_where_they_differ() {
        let marks = |values: &[f64]| -> Vec<Mark> {
            Table::marked(values, true, |value| format!("{value:.0}")).iter().map(|cell| cell.mark).collect()
        };
        assert_eq!(marks(&[1.0, 2.0, 3.0]), [Mark::Best, Mark::None, Mark::Worst]);
        assert_eq!(marks(&[1.0, 1.1]), [Mark::None, Mark::None], "they read the same");
        assert_eq!(marks(&[f64::NAN, 2.0, 3.0]), [Mark::None, Mark::Best, Mark::Worst]);
        assert_eq!(marks(&[1.0]), [Mark::None]);
    }
}
