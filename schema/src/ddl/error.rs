//! Errors of DDL text: where, what was expected, what to do about it.
//!
//! All errors of a text are collected before any is shown. They keep the text, so they can show
//! the line they are about wherever they are printed.

use std::fmt;
use std::ops::Range;

use ariadne::{Config, IndexType, Label, Report, ReportKind, Source};

/// The most errors reported for one text; checking stops there.
pub(crate) const MAX_ERRORS: usize = 100;

/// One error in DDL text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaError {
    /// The line, from 1.
    pub line: usize,
    /// The column, in characters from 1.
    pub column: usize,
    /// The place, in bytes of the text.
    pub span: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// What could stand there instead; empty where that is not a matter of syntax.
    pub expected: Vec<String>,
    /// What to do, if that can be guessed.
    pub hint: Option<String>,
}

/// All errors of one DDL text; at least one. No dictionary was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaErrors {
    errors: Vec<SchemaError>,
    text: String,
}

impl SchemaErrors {
    /// The errors, in order of their places.
    pub fn errors(&self) -> &[SchemaError] {
        &self.errors
    }

    /// The DDL text they are about.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The errors drawn over the lines of the text, without colours. `source_name` is what people
    /// call the text, such as the name of its file.
    pub fn render(&self, source_name: &str) -> String {
        let config = Config::default().with_color(false).with_index_type(IndexType::Byte);
        let mut out = Vec::new();
        for error in &self.errors {
            let place = (source_name, error.span.clone());
            let label = match error.expected.as_slice() {
                [] => "here".to_owned(),
                expected => format!("expected {}", one_of(expected)),
            };
            let mut report = Report::build(ReportKind::Error, place.clone())
                .with_config(config)
                .with_message(&error.message)
                .with_label(Label::new(place).with_message(label));
            if let Some(hint) = &error.hint {
                report = report.with_help(hint);
            }
            let source = (source_name, Source::from(self.text.as_str()));
            report.finish().write(source, &mut out).expect("a vector takes all that is written");
        }
        let drawn = String::from_utf8_lossy(&out);
        drawn.lines().flat_map(|line| [line.trim_end(), "\n"]).collect()
    }
}

impl fmt::Display for SchemaErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, error) in self.errors.iter().enumerate() {
            if position > 0 {
                writeln!(f)?;
            }
            write!(f, "schema line {}, column {}: ", error.line, error.column)?;
            write!(f, "{}", error.message)?;
            if !error.expected.is_empty() {
                write!(f, "; expected {}", one_of(&error.expected))?;
            }
            let line = self.text.lines().nth(error.line - 1).unwrap_or("");
            let width = self.text[error.span.clone()].lines().next().unwrap_or("").chars().count();
            let blank: String = line
                .chars()
                .take(error.column - 1)
                .map(|char| if char == '\t' { '\t' } else { ' ' })
                .collect();
            write!(f, "\n  | {}\n  | {blank}{}", line.trim_end(), "^".repeat(width.max(1)))?;
            if let Some(hint) = &error.hint {
                write!(f, "\n  = {hint}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for SchemaErrors {}

/// Where errors are collected.
pub(crate) struct Errors<'t> {
    text: &'t str,
    errors: Vec<SchemaError>,
}

impl<'t> Errors<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        Errors { text, errors: Vec::new() }
    }

    pub(crate) fn text(&self) -> &'t str {
        self.text
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    /// True once so many errors were found that looking for more helps nobody.
    pub(crate) fn are_enough(&self) -> bool {
        self.errors.len() >= MAX_ERRORS
    }

    pub(crate) fn add(&mut self, span: &Range<usize>, message: impl Into<String>) {
        self.push(span, message.into(), Vec::new(), None);
    }

    pub(crate) fn add_with_hint(
        &mut self,
        span: &Range<usize>,
        message: impl Into<String>,
        hint: Option<String>,
    ) {
        self.push(span, message.into(), Vec::new(), hint);
    }

    pub(crate) fn push(
        &mut self,
        span: &Range<usize>,
        message: String,
        expected: Vec<String>,
        hint: Option<String>,
    ) {
        if self.are_enough() {
            return;
        }
        let before = &self.text[..span.start];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        self.errors.push(SchemaError {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            span: span.clone(),
            message,
            expected,
            hint,
        });
    }

    /// The errors, if there are any.
    pub(crate) fn finish(mut self) -> Result<(), SchemaErrors> {
        if self.errors.is_empty() {
            return Ok(());
        }
        self.errors.sort_by_key(|error| error.span.start);
        Err(SchemaErrors { errors: self.errors, text: self.text.to_owned() })
    }
}

/// "a", "a or b", "a, b or c".
fn one_of(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// The candidate most like `name`, as a hint, if one is like it at all.
pub(crate) fn did_you_mean<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    let limit = match name.chars().count() {
        0..=1 => 0,
        2..=5 => 1,
        _ => 2,
    };
    candidates
        .into_iter()
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| format!("did you mean `{candidate}`?"))
}

/// How many characters must be changed, added, left out or swapped with their neighbour to make
/// one name of the other (optimal string alignment). Case counts nothing; names that differ much
/// in length, or are too long to be typed by hand, are like no other.
fn distance(a: &str, b: &str) -> usize {
    if a.len().abs_diff(b.len()) > 2 || a.len() > 64 {
        return usize::MAX;
    }
    let a: Vec<char> = a.to_lowercase().chars().collect();
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut table = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            if i == 0 || j == 0 {
                table[i][j] = i + j;
                continue;
            }
            let changed = table[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = changed.min(table[i - 1][j] + 1).min(table[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(table[i - 2][j - 2] + 1);
            }
            table[i][j] = best;
        }
    }
    table[a.len()][b.len()]
}
