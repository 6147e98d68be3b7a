//! Calls that have a better replacement here, and words that must not be left behind.
//!
//! A ban names what to write instead. An exception is a row in [`ALLOWED`] with its reason: one
//! file, one call.

use crate::Finding;
use crate::source::{Source, has_word};

/// Folders of the library: they run inside somebody else's process.
pub(crate) const LIBRARY: &[&str] =
    &["src/", "schema/", "engine/", "consensus/", "cluster/", "coordination/"];

/// Everything of ours.
const EVERYWHERE: &[&str] = &[""];

struct Ban {
    needle: &'static str,
    /// Path prefixes where it holds.
    folders: &'static [&'static str],
    instead: &'static str,
}

const BANS: &[Ban] = &[
    Ban { needle: "println!", folders: LIBRARY, instead: "a `tracing` event" },
    Ban { needle: "eprintln!", folders: LIBRARY, instead: "a `tracing` event" },
    Ban { needle: "print!", folders: LIBRARY, instead: "a `tracing` event" },
    Ban { needle: "eprint!", folders: LIBRARY, instead: "a `tracing` event" },
    Ban { needle: "dbg!", folders: EVERYWHERE, instead: "a `tracing` event" },
    Ban { needle: "process::exit", folders: LIBRARY, instead: "an error to the caller" },
    Ban { needle: "process::abort", folders: LIBRARY, instead: "an error to the caller" },
    Ban { needle: "env::set_var", folders: EVERYWHERE, instead: "a parameter" },
    Ban { needle: "env::remove_var", folders: EVERYWHERE, instead: "a parameter" },
    Ban {
        needle: "thread::sleep",
        folders: LIBRARY,
        instead: "a condition variable or the poll's time-out, so that the wait can be ended",
    },
    Ban { needle: "Instant::now", folders: PURE, instead: "time passed in by the caller" },
    Ban { needle: "SystemTime::now", folders: PURE, instead: "time passed in by the caller" },
    Ban {
        needle: ".unwrap()",
        folders: EVERYWHERE,
        instead: "an error, or `expect` with the reason why it cannot fail",
    },
    Ban { needle: "mem::forget", folders: EVERYWHERE, instead: "`ManuallyDrop`" },
    Ban { needle: "static mut", folders: EVERYWHERE, instead: "an atomic or a lock" },
];

/// Folders whose results must not depend on when they run.
const PURE: &[&str] = &["schema/", "engine/", "consensus/"];

/// (file, needle, reason). Empty is the goal.
const ALLOWED: &[(&str, &str, &str)] = &[(
    "engine/src/clock.rs",
    "Instant::now",
    "a node's limit on its own open transactions; no decision depends on it",
)];

/// Words that mark something unfinished or a place on one developer's machine. Spelled in pieces,
/// because this file is checked too.
const LEFTOVERS: &[(&str, &str)] = &[
    (concat!("FIX", "ME"), "mend it, or open an issue"),
    (concat!("X", "XX"), "mend it, or open an issue"),
    (concat!("HA", "CK"), "mend it, or say why it is right"),
    (concat!("TO", "DO"), "do it, or open an issue"),
    (concat!("todo", "!"), "write it"),
    (concat!("unimpl", "emented!"), "write it, or return an error"),
    (concat!("#[ig", "nore"), "mend the test or remove it"),
    (concat!("/wo", "rk/"), "a path from the root of the tree"),
    (concat!("/tm", "p/spec"), "a path from the root of the tree"),
];

/// Calls, in code outside of tests.
pub(crate) fn check_calls(source: &Source, findings: &mut Vec<Finding>) {
    for Ban { needle, folders, instead } in BANS {
        let holds = folders.iter().any(|folder| source.path.starts_with(folder));
        let allowed = ALLOWED.iter().any(|(path, call, _)| *path == source.path && call == needle);
        if !holds || allowed {
            continue;
        }
        for line in source.lines_with(needle).filter(|line| !source.is_test(*line)) {
            let message = format!("`{needle}` is banned here; instead: {instead}");
            findings.push(Finding::new(&source.path, line, message));
        }
    }
}

/// Leftovers, in any text.
pub(crate) fn check_leftovers(path: &str, text: &str, findings: &mut Vec<Finding>) {
    for (i, line) in text.lines().enumerate() {
        for (needle, instead) in LEFTOVERS {
            if has_word(line, needle) {
                findings.push(Finding::new(path, i + 1, format!("`{needle}`: {instead}")));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(path: &str, text: &str) -> Vec<usize> {
        let mut findings = Vec::new();
        check_calls(&Source::new(path, text, false), &mut findings);
        findings.iter().map(|f| f.line).collect()
    }

    #[test]
    fn every_ban_is_found_where_it_holds_and_names_its_replacement() {
        for Ban { needle, folders, instead } in BANS {
            for folder in *folders {
                let path = format!("{folder}src/x.rs");
                let text = format!("fn f() {{\n    a{needle} b;\n    {needle} b;\n}}\n");
                let mut findings = Vec::new();
                check_calls(&Source::new(&path, &text, false), &mut findings);
                let found = findings.iter().any(|f| f.line == 3 && f.message.contains(instead));
                assert!(found, "{needle} in {path}: {findings:?}");
            }
        }
    }

    #[test]
    fn tests_comments_and_literals_may_say_it() {
        let text = "// println!\nconst A: &str = \".unwrap()\";\n\
                    #[cfg(test)]\nmod tests {\n    fn f() { g().unwrap(); }\n}\n";
        assert_eq!(calls("engine/src/x.rs", text), []);
        assert_eq!(calls("engine/tests/x.rs", "fn f() { g().unwrap(); }\n"), []);
    }

    #[test]
    fn a_command_may_print_and_read_the_clock() {
        let text = "fn f() { println!(); Instant::now(); }\n";
        assert_eq!(calls("cli/src/main.rs", text), []);
        assert_eq!(calls("consensus/src/core.rs", text), [1, 1]);
    }

    #[test]
    fn every_leftover_is_found_in_any_text() {
        for (needle, _) in LEFTOVERS {
            let mut findings = Vec::new();
            check_leftovers("README.md", &format!("first\nthe {needle} one\n"), &mut findings);
            assert_eq!(findings.len(), 1, "{needle}: {findings:?}");
            assert_eq!(findings[0].line, 2);
        }
        let mut findings = Vec::new();
        check_leftovers("README.md", "todos, hacks and works\n", &mut findings);
        assert_eq!(findings, []);
    }
}
