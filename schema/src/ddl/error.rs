//! Errors of DDL text: where, what was expected, what to do about it.
//!
//! All errors of a text are collected before any is shown. They keep the text, so they can show
//! the line they are about wherever they are printed. Of a long line only a part is shown, so what
//! is printed does not grow with the text.

use std::fmt;
use std::ops::Range;

use ariadne::{Config, IndexType, Label, Report, ReportKind, Source};

/// The most errors reported for one text; checking stops at the next.
const MAX_ERRORS: usize = 100;

/// The longest line shown whole, in characters. Of a longer one as much is shown, half of it before
/// the error and half from the error on.
const SHOWN_CHARS: usize = 160;

/// The longest message, in characters: a name in it may be as long as the text.
const MESSAGE_CHARS: usize = 400;

/// Printed where errors were cut off.
const CUT_OFF: &str = "more errors are not shown";

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
    are_cut_off: bool,
    text: String,
}

/// As much of a line as is shown of it.
///
/// Invariants: `before` ends where the error starts, `after` starts there; each is of one line;
/// together they are the line, or at most [`SHOWN_CHARS`] of it and dots for the rest.
struct Excerpt {
    before: String,
    after: String,
    /// How much of `after` is marked, in characters.
    marked: usize,
}

impl SchemaErrors {
    /// The errors, in order of their places; at most 100.
    pub fn errors(&self) -> &[SchemaError] {
        &self.errors
    }

    /// True if the text has more errors than [`SchemaErrors::errors`] holds.
    pub fn are_cut_off(&self) -> bool {
        self.are_cut_off
    }

    /// The DDL text they are about.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The errors drawn over the lines of the text, without colours. `source_name` is what people
    /// call the text, such as the name of its file.
    pub fn render(&self, source_name: &str) -> String {
        let whole = Source::from(self.text.as_str());
        let mut drawn: String = self
            .errors
            .iter()
            .map(|error| match self.lines_fit(&error.span) {
                true => draw(error, source_name, &whole, error.span.clone()),
                false => self.draw_in_part(error, source_name),
            })
            .collect();
        if self.are_cut_off {
            drawn += CUT_OFF;
            drawn.push('\n');
        }
        drawn
    }

    /// An error drawn over a part of its line.
    fn draw_in_part(&self, error: &SchemaError, source_name: &str) -> String {
        // The end of a text that ends with a newline is drawn at the end of the line before.
        let SchemaError { line, column, ref span, .. } = *error;
        let after_newline = span.start == self.text.len() && self.text.ends_with('\n');
        let moved = usize::from(after_newline);
        let Excerpt { before, after, marked } =
            Excerpt::new(&self.text, &(span.start - moved..span.end - moved));
        let part_column = before.chars().count() + 1;
        let part = format!("{}{before}{after}", "\n".repeat(line - moved - 1));
        let start = part.len() - after.len();
        let end = start + after.chars().take(marked).map(char::len_utf8).sum::<usize>();
        let drawn = draw(error, source_name, &Source::from(part.as_str()), start..end);
        let in_part = format!("{source_name}:{}:{part_column} ]", line - moved);
        drawn.replacen(&in_part, &format!("{source_name}:{line}:{column} ]"), 1)
    }

    /// True if all lines that a span touches are short enough to be shown whole.
    fn lines_fit(&self, span: &Range<usize>) -> bool {
        // The newline before the end of a text counts to the line it ends.
        let at = span.start.min(self.text.trim_end_matches('\n').len());
        let from = self.text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let to = line_end(&self.text, span.end);
        self.text[from..to].split('\n').all(is_short)
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
            let Excerpt { before, after, marked } = Excerpt::new(&self.text, &error.span);
            let blank: String =
                before.chars().map(|char| if char == '\t' { '\t' } else { ' ' }).collect();
            let line = before + &after;
            write!(f, "\n  | {}\n  | {blank}{}", line.trim_end(), "^".repeat(marked.max(1)))?;
            if let Some(hint) = &error.hint {
                write!(f, "\n  = {hint}")?;
            }
        }
        if self.are_cut_off {
            write!(f, "\n{CUT_OFF}")?;
        }
        Ok(())
    }
}

impl Excerpt {
    /// What is shown of the line where `span` starts.
    fn new(text: &str, span: &Range<usize>) -> Self {
        let at = span.start;
        let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let end = line_end(text, at);
        let (before, after) = (&text[start..at], &text[at..end]);
        let marked = &text[at..span.end.min(end)];
        let marked = marked.trim_end_matches('\r').chars().take(SHOWN_CHARS).count();
        if is_short(&text[start..end]) {
            return Excerpt { before: before.to_owned(), after: after.to_owned(), marked };
        }
        let half = SHOWN_CHARS / 2;
        let from = before.char_indices().rev().nth(half - 1).map_or(0, |(place, _)| place);
        let to = after.char_indices().nth(half).map_or(after.len(), |(place, _)| place);
        let dots = |cut: bool| if cut { "..." } else { "" };
        Excerpt {
            before: format!("{}{}", dots(from > 0), &before[from..]),
            after: format!("{}{}", &after[..to], dots(to < after.len())),
            marked: marked.min(half),
        }
    }
}

/// One error drawn over a text in which it is at `span`.
fn draw(error: &SchemaError, source_name: &str, text: &Source<&str>, span: Range<usize>) -> String {
    let place = (source_name, span);
    let label = match error.expected.as_slice() {
        [] => "here".to_owned(),
        expected => format!("expected {}", one_of(expected)),
    };
    let config = Config::default().with_color(false).with_index_type(IndexType::Byte);
    let mut report = Report::build(ReportKind::Error, place.clone())
        .with_config(config)
        .with_message(&error.message)
        .with_label(Label::new(place).with_message(label));
    if let Some(hint) = &error.hint {
        report = report.with_help(hint);
    }
    let mut out = Vec::new();
    let written = report.finish().write((source_name, text), &mut out);
    written.expect("a vector takes all that is written");
    let drawn = String::from_utf8_lossy(&out);
    drawn.lines().flat_map(|line| [line.trim_end(), "\n"]).collect()
}

/// Where the line of a place ends, before its newline.
fn line_end(text: &str, at: usize) -> usize {
    text[at..].find('\n').map_or(text.len(), |length| at + length)
}

fn is_short(line: &str) -> bool {
    line.chars().nth(SHOWN_CHARS).is_none()
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

    /// True once so many errors were found that looking for more helps nobody: one more than is
    /// reported, so that it is known that there are more.
    pub(crate) fn are_enough(&self) -> bool {
        self.errors.len() > MAX_ERRORS
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
            message: shortened(message),
            expected,
            hint,
        });
    }

    /// The errors, if there are any.
    pub(crate) fn finish(mut self) -> Result<(), SchemaErrors> {
        if self.errors.is_empty() {
            return Ok(());
        }
        let are_cut_off = self.are_enough();
        self.errors.truncate(MAX_ERRORS);
        self.errors.sort_by_key(|error| error.span.start);
        Err(SchemaErrors { errors: self.errors, are_cut_off, text: self.text.to_owned() })
    }
}

fn shortened(message: String) -> String {
    match message.char_indices().nth(MESSAGE_CHARS) {
        Some((end, _)) => format!("{}...", &message[..end]),
        None => message,
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
