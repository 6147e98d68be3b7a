//! Which files there are, and whether they should be.
//!
//! The tree is what git would commit, so that build output and ignored files do not count; without
//! git (an unpacked archive) it is everything outside of the folders that builds write.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::{fs, io};

use crate::Finding;
use crate::source::Source;

const FILE_BYTES_MAX: u64 = 4 << 20;

/// Folders to pass over when there is no git to ask.
const OUTPUT_FOLDERS: &[&str] = &["target", ".git"];

/// Endings of files that belong here.
const ENDINGS: &[&str] = &[
    ".rs", ".toml", ".lock", ".md", ".csv", ".ddl", ".txt", ".stderr", ".json", ".sh", ".yml",
    ".py", ".LICENSE",
];

/// Files that belong here by name.
const NAMES: &[&str] = &[".gitignore", ".gitattributes", "LICENSE-MIT", "LICENSE-APACHE"];

pub(crate) struct Tree {
    pub(crate) files: Vec<File>,
}

pub(crate) struct File {
    /// From the root of the tree, with `/`.
    pub(crate) path: String,
    pub(crate) kind: Kind,
    bytes: u64,
    /// `None` if it is not text or too long to be.
    pub(crate) text: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Rust,
    Manifest,
    Other,
}

impl Tree {
    /// Reads all files under `root`.
    pub(crate) fn read(root: &Path) -> io::Result<Tree> {
        let mut files = Vec::new();
        for path in paths(root)? {
            let place = root.join(&path);
            // A file may be gone from the disk and not yet from git's list.
            let Ok(metadata) = fs::symlink_metadata(&place) else { continue };
            let bytes = metadata.len();
            let readable = metadata.is_file() && bytes <= FILE_BYTES_MAX;
            let text = if readable { String::from_utf8(fs::read(&place)?).ok() } else { None };
            files.push(File { kind: kind_of(&path), path, bytes, text });
        }
        Ok(Tree { files })
    }

    /// A tree of the given (path, text) pairs.
    pub(crate) fn of(files: &[(&str, &str)]) -> Tree {
        let file = |(path, text): &(&str, &str)| File {
            path: path.to_string(),
            kind: kind_of(path),
            bytes: text.len() as u64,
            text: Some(text.to_string()),
        };
        Tree { files: files.iter().map(file).collect() }
    }
}

/// Stray kinds of files, files that are too big, and Rust files that are not text.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.files {
        if file.bytes > FILE_BYTES_MAX {
            let message = format!("{} bytes, at most {FILE_BYTES_MAX}", file.bytes);
            findings.push(Finding::new(&file.path, 0, message));
        } else if file.text.is_none() {
            findings.push(Finding::new(&file.path, 0, "not a file of UTF-8 text"));
        }
        if !belongs(&file.path) {
            let message = "a stray kind of file: remove it, or add its ending to the tidy test";
            findings.push(Finding::new(&file.path, 0, message));
        }
    }
    findings
}

/// Paths of Rust files whose module is declared under `#[cfg(test)]` in another file.
pub(crate) fn declared_as_tests(tree: &Tree) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for file in tree.files.iter().filter(|file| file.kind == Kind::Rust) {
        let Some(text) = &file.text else { continue };
        let stem = file.path.trim_end_matches(".rs");
        let (parent, name) = stem.rsplit_once('/').unwrap_or(("", stem));
        let folder = if ["lib", "main", "mod"].contains(&name) { parent } else { stem };
        for module in Source::new(&file.path, text, false).test_modules() {
            let inside = format!("{folder}/{module}/");
            let files = tree.files.iter().map(|file| &file.path);
            found.extend(files.filter(|path| path.starts_with(&inside)).cloned());
            found.insert(format!("{folder}/{module}.rs"));
        }
    }
    found
}

fn kind_of(path: &str) -> Kind {
    match path.rsplit('/').next() {
        Some("Cargo.toml") => Kind::Manifest,
        Some(name) if name.ends_with(".rs") => Kind::Rust,
        _ => Kind::Other,
    }
}

fn belongs(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let is_script = path.starts_with(".ci/");
    // Golden scripts and proptest's regressions have names of their own.
    let is_test_data = path.contains("/tests/") && !name.contains('.');
    let is_regression = path.contains("proptest-regressions/");
    let by_name = NAMES.contains(&name) || ENDINGS.iter().any(|ending| name.ends_with(ending));
    by_name || is_script || is_test_data || is_regression
}

fn paths(root: &Path) -> io::Result<Vec<String>> {
    let listing = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output();
    if let Ok(listing) = listing
        && listing.status.success()
        && !listing.stdout.is_empty()
    {
        let names = String::from_utf8_lossy(&listing.stdout).into_owned();
        return Ok(names.split_terminator('\0').map(str::to_string).collect());
    }
    let mut found = Vec::new();
    walk(root, "", &mut found)?;
    found.sort();
    Ok(found)
}

fn walk(root: &Path, folder: &str, found: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        if entry.file_type()?.is_dir() {
            if !OUTPUT_FOLDERS.contains(&name.as_str()) {
                walk(root, &path, found)?;
            }
        } else {
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stray_big_and_binary_files_are_found() {
        let mut tree = Tree::of(&[("a.md", ""), ("b.exe", ""), ("c.csv", ""), ("d.rs", "")]);
        tree.files[2].bytes = FILE_BYTES_MAX + 1;
        tree.files[3].text = None;
        let found: Vec<String> = check(&tree).into_iter().map(|f| f.path).collect();
        assert_eq!(found, ["b.exe", "c.csv", "d.rs"]);
    }

    #[test]
    fn scripts_golden_files_and_licences_belong() {
        for path in ["LICENSE-MIT", ".ci/run", "engine/tests/scripts/write_skew", "a/b.rs"] {
            assert!(belongs(path), "{path}");
        }
        assert!(!belongs("engine/src/write_skew"));
    }

    #[test]
    fn modules_declared_as_tests_elsewhere_are_known() {
        let tree = Tree::of(&[
            ("engine/src/lib.rs", "#[cfg(test)]\nmod model;\nmod store;\n"),
            ("engine/src/model.rs", ""),
            ("engine/src/model/deep.rs", ""),
            ("engine/src/store.rs", "#[cfg(test)]\nmod oracle;\n"),
            ("engine/src/store/oracle.rs", ""),
        ]);
        let found = declared_as_tests(&tree);
        let expected =
            ["engine/src/model.rs", "engine/src/model/deep.rs", "engine/src/store/oracle.rs"];
        assert_eq!(found.into_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn git_and_the_walk_see_this_file() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert!(paths(root).expect("readable").contains(&"tests/tidy/files.rs".to_string()));
        let mut walked = Vec::new();
        walk(&root.join("tests"), "tidy", &mut walked).expect("readable");
        assert!(walked.contains(&"tidy/files.rs".to_string()), "{walked:?}");
    }
}
