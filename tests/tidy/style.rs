//! How a Rust file looks: length, width, ASCII, length of functions, an opening paragraph.

use crate::Finding;
use crate::source::Source;

/// Files should stay under 700 lines; from here on they are refused.
const FILE_LINES_MAX: usize = 1000;

const FUNCTION_LINES_MAX: usize = 70;

const LINE_COLUMNS_MAX: usize = 100;

/// An opening paragraph shorter than this says nothing.
const OPENING_CHARACTERS_MIN: usize = 20;

/// Files that may be longer, each with its reason. Empty is the goal.
const LONG_FILES: &[(&str, &str)] = &[];

pub(crate) fn check(source: &Source, findings: &mut Vec<Finding>) {
    check_length(source, findings);
    check_lines(source, findings);
    check_functions(source, findings);
    check_opening(source, findings);
}

fn check_length(source: &Source, findings: &mut Vec<Finding>) {
    let lines = source.text.lines().count();
    let excused = LONG_FILES.iter().any(|(path, _)| *path == source.path);
    if lines > FILE_LINES_MAX && !excused {
        let message = format!("{lines} lines, at most {FILE_LINES_MAX}: split by the state owned");
        findings.push(Finding::new(&source.path, 0, message));
    }
}

fn check_lines(source: &Source, findings: &mut Vec<Finding>) {
    for (i, line) in source.text.lines().enumerate() {
        let columns = line.chars().count();
        if columns > LINE_COLUMNS_MAX {
            let message = format!("{columns} columns, at most {LINE_COLUMNS_MAX}: break the line");
            findings.push(Finding::new(&source.path, i + 1, message));
        }
    }
    for (i, line) in source.code_and_comments.lines().enumerate() {
        if let Some(c) = line.chars().find(|c| !c.is_ascii()) {
            let message = format!("{c:?} is not ASCII: only literals may hold such characters");
            findings.push(Finding::new(&source.path, i + 1, message));
        }
    }
}

fn check_functions(source: &Source, findings: &mut Vec<Finding>) {
    for function in source.functions() {
        if function.lines > FUNCTION_LINES_MAX {
            let (name, lines) = (&function.name, function.lines);
            let message =
                format!("{name} has {lines} lines, at most {FUNCTION_LINES_MAX}: name its steps");
            findings.push(Finding::new(&source.path, function.line, message));
        }
    }
}

fn check_opening(source: &Source, findings: &mut Vec<Finding>) {
    // Inputs of compile-failure tests are judged whole by their expected errors.
    if source.path.contains("/ui/") {
        return;
    }
    let opening: String = source.text.lines().map_while(|line| line.strip_prefix("//!")).collect();
    if opening.trim().chars().count() < OPENING_CHARACTERS_MIN {
        let message = "opens without a `//!` paragraph: say what lives here and what must not";
        findings.push(Finding::new(&source.path, 1, message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPENING: &str = "//! What lives in this module.\n";

    fn findings(text: &str) -> Vec<(usize, String)> {
        let mut findings = Vec::new();
        check(&Source::new("engine/src/x.rs", text, false), &mut findings);
        findings.into_iter().map(|f| (f.line, f.message)).collect()
    }

    fn only_finding(text: &str, line: usize, part: &str) {
        let found = findings(text);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].0, line, "{found:?}");
        assert!(found[0].1.contains(part), "{found:?}");
    }

    #[test]
    fn limits_themselves_are_allowed() {
        let function = format!("fn f() {{\n{}}}\n", "    g();\n".repeat(68));
        let padding = "\n".repeat(1000 - 1 - 70 - 1);
        let wide = format!("//{}\n", "x".repeat(98));
        assert_eq!(findings(&format!("{OPENING}{function}{wide}{padding}")), []);
    }

    #[test]
    fn a_file_of_1001_lines_is_found() {
        only_finding(&format!("{OPENING}{}", "\n".repeat(1000)), 0, "1001 lines");
    }

    #[test]
    fn a_line_of_101_columns_is_found() {
        only_finding(&format!("{OPENING}//{}\n", "x".repeat(99)), 2, "101 columns");
    }

    #[test]
    fn a_function_of_71_lines_is_found() {
        let text = format!("{OPENING}\nfn long() {{\n{}}}\n", "    g();\n".repeat(69));
        only_finding(&text, 3, "long has 71 lines");
    }

    #[test]
    fn non_ascii_is_found_in_comments_and_code_but_not_in_literals() {
        only_finding(&format!("{OPENING}// caf\u{e9}\n"), 2, "not ASCII");
        only_finding(&format!("{OPENING}fn caf\u{e9}() {{}}\n"), 2, "not ASCII");
        assert_eq!(findings(&format!("{OPENING}const A: &str = \"caf\u{e9}\";\n")), []);
    }

    #[test]
    fn a_missing_or_empty_opening_is_found() {
        only_finding("fn f() {}\n", 1, "opens without");
        only_finding("//! Short.\nfn f() {}\n", 1, "opens without");
    }
}
