//! Readers of recorded traffic. What a file is shows in its content; what is wrong with it is told with line and column.
//!
//! - Azure's LLM inference traces: CSV with `TIMESTAMP,ContextTokens,GeneratedTokens`.
//! - Mooncake: a JSON object a line with `timestamp`, `input_length`, `output_length`, `hash_ids` (512-token blocks).
//! - BurstGPT: CSV with `Timestamp`, `Request tokens`, `Response tokens` and more; failures are left out.
//! - The decision log of Pointsman: a JSON object a line.

mod burst;
mod csv;
mod lines;
pub(crate) mod log;
mod mooncake;

use std::fmt;
use std::io::BufRead;

pub use lines::{BadLine, BadLines, Ended, LINE_BYTES_MAX, Lines};

use crate::workload::{Record, Workload};

/// Requests of one file, at most.
const RECORDS_MAX: usize = 20_000_000;

/// What kind of file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Azure's LLM inference traces.
    Azure,
    /// Mooncake's traces.
    Mooncake,
    /// BurstGPT.
    BurstGpt,
    /// Pointsman's own decision log.
    DecisionLog,
}

impl Format {
    /// The name in words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Azure => "Azure LLM inference trace",
            Self::Mooncake => "Mooncake trace",
            Self::BurstGpt => "BurstGPT trace",
            Self::DecisionLog => "decision log",
        }
    }
}

/// What is wrong with a trace, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceError {
    /// The line, from 1; 0 if it is about the file as a whole.
    pub line: u64,
    /// The column: its place from 1 in a JSON line, its name in a CSV.
    pub column: Option<String>,
    /// What is wrong.
    pub message: String,
}

impl TraceError {
    fn new(column: impl Into<Option<String>>, message: impl Into<String>) -> Self {
        Self { line: 0, column: column.into(), message: message.into() }
    }
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, &self.column) {
            (0, _) => f.write_str(&self.message),
            (line, None) => write!(f, "line {line}: {}", self.message),
            (line, Some(column)) => write!(f, "line {line}, column {column}: {}", self.message),
        }
    }
}

impl std::error::Error for TraceError {}

/// What is known of a format beyond its name.
enum Parser {
    Csv(csv::Columns),
    Mooncake,
    Log,
}

/// The records of a file, in its order. Holds one line at a time.
pub struct Reader<R> {
    lines: Lines<R>,
    format: Format,
    parser: Parser,
    /// The line is the last, and may be a part of one.
    cut: bool,
    /// Lines of a decision log that could not be read.
    left_out: BadLines,
    /// The line is a record already, not a header.
    pending: bool,
    over: bool,
}

impl<R: BufRead> Reader<R> {
    /// Looks what the file is.
    ///
    /// # Errors
    ///
    /// When its first line is of no format that is known.
    pub fn new(input: R) -> Result<Self, TraceError> {
        let mut reader = Self {
            lines: Lines::new(input),
            // Until more is known: a line that is too long for a decision log is left out, and is an error elsewhere.
            format: Format::DecisionLog,
            parser: Parser::Log,
            cut: false,
            left_out: BadLines::default(),
            pending: false,
            over: false,
        };
        while reader.read_line()? && reader.lines.line().is_empty() {}
        (reader.format, reader.parser) = recognise(reader.lines.line()).map_err(|error| reader.at(error))?;
        if let (Some(long), true) = (reader.left_out.first.first(), reader.format != Format::DecisionLog) {
            return Err(TraceError { line: long.line, column: None, message: long.what.clone() });
        }
        reader.pending = matches!(reader.parser, Parser::Mooncake | Parser::Log);
        Ok(reader)
    }

    /// What the file is.
    pub fn format(&self) -> Format {
        self.format
    }

    fn at(&self, error: TraceError) -> TraceError {
        TraceError { line: self.lines.number(), ..error }
    }

    /// Reads the next line; false at the end of the file.
    fn read_line(&mut self) -> Result<bool, TraceError> {
        loop {
            let ended = self.lines.advance();
            let ended =
                ended.map_err(|error| self.at(TraceError::new(None, format!("cannot be read: {error}"))))?;
            match ended {
                Some(Ended::TooLong) if self.format == Format::DecisionLog => {
                    self.left_out.note_too_long(self.lines.number());
                }
                Some(Ended::TooLong) => {
                    let what = format!("is longer than {LINE_BYTES_MAX} bytes");
                    return Err(self.at(TraceError::new(None, what)));
                }
                Some(Ended::Whole | Ended::Cut) => {
                    self.cut = ended == Some(Ended::Cut);
                    return Ok(true);
                }
                None => return Ok(false),
            }
        }
    }

    fn parse(&self) -> Result<Option<Record>, TraceError> {
        match &self.parser {
            Parser::Csv(columns) if self.format == Format::Azure => {
                columns.azure(self.lines.line()).map(Some)
            }
            Parser::Csv(columns) => columns.burst(self.lines.line()),
            Parser::Mooncake => mooncake::parse(self.lines.line()).map(Some),
            Parser::Log => log::parse(self.lines.line()),
        }
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Record, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.over {
            if !std::mem::take(&mut self.pending) {
                match self.read_line() {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        self.over = true;
                        return Some(Err(error));
                    }
                }
            }
            if self.lines.line().is_empty() {
                continue;
            }
            match self.parse() {
                Ok(None) => {}
                Ok(Some(record)) => return Some(Ok(record)),
                // Its writer was killed.
                Err(_) if self.cut && self.format == Format::DecisionLog => {
                    self.left_out.note(self.lines.number(), "was cut off");
                }
                Err(error) => {
                    self.over = true;
                    return Some(Err(self.at(error)));
                }
            }
        }
        None
    }
}

/// What a file is, by its first line.
fn recognise(line: &[u8]) -> Result<(Format, Parser), TraceError> {
    let text = String::from_utf8_lossy(line);
    if text.starts_with('{') {
        if text.contains("\"input_length\"") {
            return Ok((Format::Mooncake, Parser::Mooncake));
        }
        if text.contains("\"request_id\"") {
            return Ok((Format::DecisionLog, Parser::Log));
        }
    } else if let Some(columns) = csv::Columns::read(&text) {
        return Ok((columns.format(), Parser::Csv(columns)));
    }
    let known = "a trace is a CSV with the columns TIMESTAMP, ContextTokens, GeneratedTokens (Azure) or Timestamp, Request \
                 tokens, Response tokens (BurstGPT), or a JSON object a line with input_length (Mooncake) or request_id \
                 (decision log)";
    Err(TraceError::new(None, format!("is of no known format: {known}")))
}

/// Reads a whole trace.
///
/// # Errors
///
/// What is wrong with it, and where.
pub fn read(input: impl BufRead) -> Result<Workload, TraceError> {
    let mut reader = Reader::new(input)?;
    let format = reader.format();
    let mut workload = Workload::new(format.name());
    for record in reader.by_ref() {
        if workload.asks().len() == RECORDS_MAX {
            return Err(TraceError::new(
                None,
                format!("has more than {RECORDS_MAX} requests; take a part of it"),
            ));
        }
        workload.push(&record?);
    }
    if workload.asks().is_empty() {
        return Err(TraceError::new(None, "has no requests"));
    }
    workload.left_out = reader.left_out;
    workload.sort();
    match format {
        // Written down about every three seconds, whenever they came.
        Format::Mooncake => workload.spread(None),
        Format::BurstGpt => workload.spread(Some(1_000_000_000)),
        Format::Azure | Format::DecisionLog => {}
    }
    Ok(workload)
}

#[cfg(test)]
mod tests;
