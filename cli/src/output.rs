//! Writing to standard output and standard error.
//!
//! A reader that went away (`quorate demo | head -1`) is no reason to panic: the text is lost and
//! the exit code still tells how it went.

use std::io::{self, Write as _};

/// Writes a line to standard output.
pub(crate) fn line(text: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Writes a line to standard error.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
