//! What is seen while the demo runs: a bar on a terminal, lines elsewhere, or nothing.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::output;

/// Shows progress on standard error.
pub(crate) enum Progress {
    /// A bar, with notes above it.
    Bar(ProgressBar),
    /// Notes only.
    Lines,
    /// Nothing.
    Silent,
}

impl Progress {
    /// A bar if standard error is a terminal, lines if not, nothing if silence is wanted.
    pub(crate) fn new(silent: bool) -> Self {
        if silent {
            return Self::Silent;
        }
        if !std::io::stderr().is_terminal() {
            return Self::Lines;
        }
        let bar = ProgressBar::new(1);
        let template = "{prefix:>8} [{bar:32}] {percent:>3}%  {msg}";
        bar.set_style(
            ProgressStyle::with_template(template).expect("a valid template").progress_chars("=> "),
        );
        bar.enable_steady_tick(Duration::from_millis(100));
        Self::Bar(bar)
    }

    /// A new phase of so many steps begins.
    pub(crate) fn phase(&self, name: &'static str, steps: u64) {
        if let Self::Bar(bar) = self {
            bar.set_prefix(name);
            bar.set_message("");
            bar.set_length(steps.max(1));
            bar.set_position(0);
        }
    }

    /// So many steps of the phase are done.
    pub(crate) fn at(&self, step: u64, message: impl FnOnce() -> String) {
        if let Self::Bar(bar) = self {
            bar.set_position(step);
            bar.set_message(message());
        }
    }

    /// Something happened that is worth a line.
    pub(crate) fn note(&self, text: &str) {
        match self {
            Self::Bar(bar) => bar.println(text),
            Self::Lines => output::note(text),
            Self::Silent => {}
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}
