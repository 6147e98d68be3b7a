//! Which crate may know which: dependencies in the manifests, and words in the sources.
//!
//! ```text
//! schema-derive <- schema <- engine <- cluster <- quorate (facade) <- cli, samples, benches
//!                        consensus <- cluster
//! ```
//!
//! The manifests alone would not do: the standard library needs no dependency, and it is there that
//! clocks, sockets, files and threads are. So the layers that must not know them are searched for
//! their names as well.

use crate::Finding;
use crate::manifest::Manifest;
use crate::source::Source;

struct Layer {
    /// Its folder, with `/`.
    folder: &'static str,
    /// Our crates it may depend on.
    ours: &'static [&'static str],
    /// Foreign crates it may depend on outside of tests; `None` for any.
    foreign: Option<&'static [&'static str]>,
    /// Words its code must not contain outside of tests, each with the reason.
    words: &'static [(&'static str, &'static str)],
}

const NO_CLOCK: &str = "knows no clock: time comes in with the input";
const NO_NETWORK: &str = "knows no network";
const NO_FILE: &str = "knows no file: what must be stored goes out as output";
const NO_THREAD: &str = "knows no thread: it is a function of its input";
const NO_CLUSTER: &str = "never hears of nodes";
const ORDER: &str = "has an order that differs from run to run: use a BTree or a Vec";
const NO_CHANCE: &str = "draws no chance: randomness comes in with the input";
const NO_WALL_CLOCK: &str = "reads monotonic time only: a wall clock can be stepped";
const NO_STORE: &str = "knows no storage and no nodes";

const LAYERS: &[Layer] = &[
    Layer { folder: "schema/derive/", ours: &[], foreign: None, words: &[] },
    Layer {
        folder: "schema/",
        ours: &["quorate-schema-derive"],
        foreign: None,
        words: &[
            ("quorate_engine", NO_STORE),
            ("quorate_cluster", NO_STORE),
            ("quorate_consensus", NO_STORE),
            ("std::fs", NO_STORE),
            ("std::net", NO_STORE),
            ("std::thread", NO_THREAD),
        ],
    },
    Layer {
        folder: "engine/",
        ours: &["quorate-schema"],
        foreign: None,
        words: &[
            ("quorate_cluster", NO_CLUSTER),
            ("quorate_consensus", NO_CLUSTER),
            ("std::net", NO_NETWORK),
            ("mio", NO_NETWORK),
            ("socket2", NO_NETWORK),
            ("SystemTime", NO_WALL_CLOCK),
            ("UNIX_EPOCH", NO_WALL_CLOCK),
        ],
    },
    Layer {
        folder: "consensus/",
        ours: &[],
        foreign: Some(&["thiserror"]),
        words: &[
            ("std::time", NO_CLOCK),
            ("Instant", NO_CLOCK),
            ("SystemTime", NO_CLOCK),
            ("std::net", NO_NETWORK),
            ("std::fs", NO_FILE),
            ("std::io", NO_FILE),
            ("std::env", NO_FILE),
            ("std::process", NO_THREAD),
            ("std::thread", NO_THREAD),
            ("Mutex", NO_THREAD),
            ("RwLock", NO_THREAD),
            ("Condvar", NO_THREAD),
            ("mpsc", NO_THREAD),
            ("thread_local!", NO_THREAD),
            ("HashMap", ORDER),
            ("HashSet", ORDER),
            ("RandomState", NO_CHANCE),
            ("getrandom", NO_CHANCE),
        ],
    },
    // The time that procedures are told: logged, never compared with anything here.
    Layer {
        folder: "cluster/src/wall_clock.rs",
        ours: &["quorate-engine", "quorate-consensus", "quorate-schema"],
        foreign: None,
        words: &[],
    },
    Layer {
        folder: "cluster/",
        ours: &["quorate-engine", "quorate-consensus", "quorate-schema"],
        foreign: None,
        words: &[("SystemTime", NO_WALL_CLOCK), ("UNIX_EPOCH", NO_WALL_CLOCK)],
    },
    Layer { folder: "cli/", ours: &["quorate"], foreign: None, words: &[] },
    Layer { folder: "samples/", ours: &["quorate"], foreign: None, words: &[] },
    Layer { folder: "benches/", ours: &["quorate"], foreign: None, words: &[] },
    // What users have, and nothing below it.
    Layer {
        folder: "tests/faults/",
        ours: &["quorate", "quorate-histories"],
        foreign: None,
        words: &[],
    },
    Layer { folder: "xtask/", ours: &[], foreign: Some(&[]), words: &[] },
    Layer {
        folder: "src/",
        ours: &[],
        foreign: None,
        words: &[
            ("fn", "re-exports and documents, it has no logic"),
            ("struct", "re-exports and documents, it has no types of its own"),
            ("enum", "re-exports and documents, it has no types of its own"),
            ("impl", "re-exports and documents, it has no logic"),
        ],
    },
];

/// The folder's layer. The first that fits: folders inside folders come first in the table.
fn layer_of(path: &str) -> Option<&'static Layer> {
    LAYERS.iter().find(|layer| path.starts_with(layer.folder))
}

/// Words of other layers in the code of one.
pub(crate) fn check_words(source: &Source, findings: &mut Vec<Finding>) {
    let Some(layer) = layer_of(&source.path) else { return };
    for (word, reason) in layer.words {
        for line in source.lines_with(word).filter(|line| !source.is_test(*line)) {
            let message = format!("`{word}`: {} {reason}", layer.folder);
            findings.push(Finding::new(&source.path, line, message));
        }
    }
}

/// Versions only in the workspace's table, lints the workspace's, dependencies downwards only.
pub(crate) fn check_manifest(path: &str, text: &str, findings: &mut Vec<Finding>) {
    let manifest = Manifest::parse(text);
    if !manifest.has_workspace_lints {
        let message = "write `[lints]` and `workspace = true`: one set of lints for all";
        findings.push(Finding::new(path, 0, message));
    }
    let is_outside = path == "Cargo.toml" || path.starts_with("tests/");
    if layer_of(path).is_none() && !is_outside {
        let message = "this crate has no row in the tidy test's table of layers: add one";
        findings.push(Finding::new(path, 0, message));
    }
    let is_ours = |name: &str| name == "quorate" || name.starts_with("quorate-");
    for dependency in &manifest.dependencies {
        let (name, line) = (dependency.name.as_str(), dependency.line);
        if !dependency.inherited {
            let message = format!("{name}: versions stand in the root's table; `workspace = true`");
            findings.push(Finding::new(path, line, message));
        }
        let Some(layer) = layer_of(path) else { continue };
        if is_ours(name) && !layer.ours.contains(&name) {
            let message = format!("{} may not depend on {name}", layer.folder);
            findings.push(Finding::new(path, line, message));
        }
        let foreign_ok = dependency.for_tests
            || is_ours(name)
            || layer.foreign.is_none_or(|allowed| allowed.contains(&name));
        if !foreign_ok {
            let message = format!("{} may not depend on {name}: not in its list", layer.folder);
            findings.push(Finding::new(path, line, message));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(path: &str, dependencies: &str) -> Vec<usize> {
        let text = format!("[lints]\nworkspace = true\n[dependencies]\n{dependencies}\n");
        let mut findings = Vec::new();
        check_manifest(path, &text, &mut findings);
        findings.iter().map(|f| f.line).collect()
    }

    #[test]
    fn every_banned_word_is_found_in_its_layer_but_not_in_tests() {
        for layer in LAYERS {
            for (word, reason) in layer.words {
                let text = format!("//! x {word}\nuse {word};\n#[cfg(test)]\nuse {word};\n");
                let mut findings = Vec::new();
                let path = format!("{}lib.rs", layer.folder);
                check_words(&Source::new(&path, &text, false), &mut findings);
                assert!(findings.iter().any(|f| f.line == 2 && f.message.contains(reason)));
                assert!(findings.iter().all(|f| f.line == 2), "{findings:?}");
            }
        }
    }

    #[test]
    fn dependencies_point_one_way() {
        assert_eq!(manifest("engine/Cargo.toml", "quorate-schema.workspace = true"), []);
        assert_eq!(manifest("engine/Cargo.toml", "quorate-cluster.workspace = true"), [4]);
        assert_eq!(manifest("schema/Cargo.toml", "quorate-engine.workspace = true"), [4]);
        assert_eq!(manifest("schema/derive/Cargo.toml", "quorate-schema.workspace = true"), [4]);
        assert_eq!(manifest("consensus/Cargo.toml", "quorate-schema.workspace = true"), [4]);
        assert_eq!(manifest("cluster/Cargo.toml", "quorate.workspace = true"), [4]);
        assert_eq!(manifest("cli/Cargo.toml", "quorate-engine.workspace = true"), [4]);
        assert_eq!(manifest("tests/simulation/Cargo.toml", "quorate-engine.workspace = true"), []);
        assert_eq!(manifest("tests/faults/Cargo.toml", "quorate-cluster.workspace = true"), [4]);
    }

    #[test]
    fn consensus_takes_no_crate_outside_its_list_except_in_tests() {
        assert_eq!(manifest("consensus/Cargo.toml", "thiserror.workspace = true"), []);
        assert_eq!(manifest("consensus/Cargo.toml", "rand.workspace = true"), [4]);
        let tests = "[dev-dependencies]\nproptest.workspace = true";
        assert_eq!(manifest("consensus/Cargo.toml", tests), []);
    }

    #[test]
    fn a_crate_without_a_layer_is_found() {
        assert_eq!(manifest("coordination/Cargo.toml", ""), [0]);
        assert_eq!(manifest("Cargo.toml", "quorate-cluster.workspace = true"), []);
    }

    #[test]
    fn a_version_outside_the_table_and_missing_lints_are_found() {
        assert_eq!(manifest("cluster/Cargo.toml", "mio = \"1.2\""), [4]);
        let mut findings = Vec::new();
        check_manifest("cluster/Cargo.toml", "[package]\nname = \"x\"\n", &mut findings);
        assert_eq!(findings.len(), 1);
        assert!(findings[0].message.contains("[lints]"));
    }
}
