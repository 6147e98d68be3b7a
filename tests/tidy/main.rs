//! The house rules that a machine can hold: sizes, banned calls, leftovers, layering.
//!
//! What lives here: checks that read the tree as text and report places. What must never live
//! here: anything that compiles or runs the product; lints that clippy and rustc already have.
//!
//! Each check is a function from text to [`Finding`]s, so that each is tested on a planted
//! violation, and the whole tree is judged by one test which shows all findings at once. The only
//! hard part is telling code from comments and literals; [`source`] does that once for all checks.
#![allow(missing_docs, reason = "a test crate has no readers of its documentation")]

mod banned;
mod files;
mod layering;
mod manifest;
mod source;
mod style;

use std::fmt;

use files::{Kind, Tree};
use source::Source;

/// A place that breaks a rule, with what to do instead.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    /// From 1; 0 for the file as a whole.
    line: usize,
    message: String,
}

impl Finding {
    fn new(path: &str, line: usize, message: impl Into<String>) -> Finding {
        Finding { path: path.to_string(), line, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

/// Everything that is wrong with the tree.
fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = files::check(tree);
    let test_files = files::declared_as_tests(tree);
    for file in &tree.files {
        let Some(text) = &file.text else { continue };
        banned::check_leftovers(&file.path, text, &mut findings);
        if file.kind == Kind::Rust {
            let source = Source::new(&file.path, text, test_files.contains(&file.path));
            style::check(&source, &mut findings);
            banned::check_calls(&source, &mut findings);
            layering::check_words(&source, &mut findings);
        }
        if file.kind == Kind::Manifest {
            layering::check_manifest(&file.path, text, &mut findings);
        }
    }
    findings.sort();
    findings
}

#[test]
fn the_tree_keeps_the_house_rules() {
    let tree = Tree::read(env!("CARGO_MANIFEST_DIR").as_ref()).expect("the tree can be read");
    assert!(tree.files.len() > 30, "only {} files: is this the tree?", tree.files.len());
    let findings = check(&tree);
    let report: Vec<String> = findings.iter().map(Finding::to_string).collect();
    assert!(findings.is_empty(), "{} findings:\n{}\n", findings.len(), report.join("\n"));
}

#[test]
fn a_planted_violation_in_a_tree_is_reported_with_its_place() {
    let planted = [
        ("engine/src/lib.rs", "//! One node.\n\nfn f() {\n    std::process::exit(1);\n}\n"),
        ("engine/Cargo.toml", "[dependencies]\nmio = \"1\"\n\n[lints]\nworkspace = true\n"),
        ("notes.docx", "text"),
    ];
    let found: Vec<(String, usize)> =
        check(&Tree::of(&planted)).into_iter().map(|f| (f.path, f.line)).collect();
    assert!(found.contains(&("engine/src/lib.rs".to_string(), 4)), "{found:?}");
    assert!(found.contains(&("engine/Cargo.toml".to_string(), 2)), "{found:?}");
    assert!(found.contains(&("notes.docx".to_string(), 0)), "{found:?}");
}
