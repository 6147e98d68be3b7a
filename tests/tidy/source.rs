//! One Rust file, with every character known as code, comment or literal.
//!
//! The problem: a rule about code must not fire on a word in a comment or a string, and lengths of
//! functions need braces matched, which strings and comments may contain. A full parser would know
//! more than is needed; what is needed is the part of the lexer that knows where literals and
//! comments begin and end:
//!
//! * `//` to the end of the line, `/* */` nested;
//! * `"..."` with escapes, also after `b` or `c`; `r"..."`, `r#"..."#` with any number of `#`;
//! * `'x'` and `'\n'` are literals, `'a` is a lifetime and stays code.
//!
//! Invariants: `code` has exactly the lines of `text`, and characters that are not code are blank
//! in it, so that places found in one are places in the other.

/// A Rust file, taken apart.
pub(crate) struct Source {
    /// Path from the root of the tree, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
    /// The text with comments and literals blanked.
    pub(crate) code: String,
    /// The text with literals blanked and comments kept.
    pub(crate) code_and_comments: String,
    /// Whether line `i` (from 0) belongs to a test.
    is_test_line: Vec<bool>,
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    /// The line of `fn`, from 1.
    pub(crate) line: usize,
    /// Lines from `fn` to the closing brace, both counted.
    pub(crate) lines: usize,
}

/// What a character is part of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Code,
    Comment,
    Literal,
}

impl Source {
    /// `declared_as_test`: the module declaration elsewhere says `#[cfg(test)]`.
    pub(crate) fn new(path: &str, text: &str, declared_as_test: bool) -> Source {
        let characters: Vec<char> = text.chars().collect();
        let parts = classify(&characters);
        assert_eq!(characters.len(), parts.len(), "every character of {path} is classified");
        let keep = |kept: &[Part]| -> String {
            let blank = |(c, part): (&char, &Part)| match c {
                '\n' => '\n',
                _ if kept.contains(part) => *c,
                _ => ' ',
            };
            characters.iter().zip(&parts).map(blank).collect()
        };
        let code = keep(&[Part::Code]);
        let is_test_line = if declared_as_test || is_test_path(path) {
            vec![true; text.lines().count()]
        } else {
            test_lines(&code)
        };
        Source {
            path: path.to_string(),
            text: text.to_string(),
            code_and_comments: keep(&[Part::Code, Part::Comment]),
            code,
            is_test_line,
        }
    }

    /// Whether the line (from 1) is part of a test.
    pub(crate) fn is_test(&self, line: usize) -> bool {
        line > 0 && self.is_test_line.get(line - 1).copied().unwrap_or(false)
    }

    /// Lines (from 1) of code that contain `needle` as whole words.
    pub(crate) fn lines_with<'a>(&'a self, needle: &'a str) -> impl Iterator<Item = usize> + 'a {
        self.code.lines().enumerate().filter(|(_, line)| has_word(line, needle)).map(|(i, _)| i + 1)
    }

    /// All functions that have a body, in order of their first lines.
    pub(crate) fn functions(&self) -> Vec<Function> {
        functions(&self.code)
    }

    /// Names declared as `#[cfg(test)] mod name;`.
    pub(crate) fn test_modules(&self) -> Vec<String> {
        let mut names = Vec::new();
        for (i, line) in self.code.lines().enumerate() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let name = words.iter().skip_while(|word| **word != "mod").nth(1);
            if let Some(name) = name.and_then(|name| name.strip_suffix(';'))
                && self.is_test(i + 1)
            {
                names.push(name.to_string());
            }
        }
        names
    }
}

/// True if `needle` occurs and is not a piece of a longer word.
pub(crate) fn has_word(line: &str, needle: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(needle).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + needle.len()..].chars().next();
        let starts_word = needle.starts_with(is_word);
        let ends_word = needle.ends_with(is_word);
        !(starts_word && before.is_some_and(is_word) || ends_word && after.is_some_and(is_word))
    })
}

fn is_test_path(path: &str) -> bool {
    let in_tests = path.split('/').any(|folder| folder == "tests");
    // Simulator and model are programs of their own that happen to live among the tests.
    let is_program = ["tests/simulation/src/", "tests/model/src/"];
    let is_program = is_program.iter().any(|folder| path.starts_with(folder));
    in_tests && !is_program || path.ends_with("/tests.rs")
}

fn classify(characters: &[char]) -> Vec<Part> {
    let mut parts = Vec::with_capacity(characters.len());
    while parts.len() < characters.len() {
        let at = parts.len();
        let (part, end) = token(characters, at);
        assert!(end > at && end <= characters.len(), "token {at}..{end} of {}", characters.len());
        parts.resize(end, part);
    }
    parts
}

/// What starts at `at`, and where it ends. Code comes a word or a character at a time.
fn token(characters: &[char], at: usize) -> (Part, usize) {
    let rest = &characters[at..];
    let word = rest.iter().take_while(|c| c.is_alphanumeric() || **c == '_').count();
    match rest {
        ['/', '/', ..] => (Part::Comment, at + line_length(rest)),
        ['/', '*', ..] => (Part::Comment, at + block_comment_length(rest)),
        ['"', ..] => (Part::Literal, at + quoted_length(rest, '"')),
        ['\'', '\\', ..] => (Part::Literal, at + quoted_length(rest, '\'')),
        ['\'', _, '\'', ..] => (Part::Literal, at + 3),
        _ if word > 0 => {
            let prefix: String = rest[..word].iter().collect();
            let raw = raw_length(&rest[word..]);
            match (prefix.as_str(), &rest[word..]) {
                ("r" | "br" | "cr", _) if raw > 0 => (Part::Literal, at + word + raw),
                ("b" | "c", after @ ['"', ..]) => {
                    (Part::Literal, at + word + quoted_length(after, '"'))
                }
                ("b", after @ ['\'', ..]) => {
                    (Part::Literal, at + word + quoted_length(after, '\''))
                }
                _ => (Part::Code, at + word),
            }
        }
        _ => (Part::Code, at + 1),
    }
}

fn line_length(rest: &[char]) -> usize {
    rest.iter().position(|c| *c == '\n').unwrap_or(rest.len())
}

fn block_comment_length(rest: &[char]) -> usize {
    let (mut depth, mut i) = (0usize, 0);
    while i < rest.len() {
        match &rest[i..] {
            ['/', '*', ..] => (depth, i) = (depth + 1, i + 2),
            ['*', '/', ..] => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            return i;
        }
    }
    rest.len()
}

fn quoted_length(rest: &[char], quote: char) -> usize {
    let mut i = 1;
    while i < rest.len() {
        match rest[i] {
            '\\' => i += 2,
            c if c == quote => return i + 1,
            _ => i += 1,
        }
    }
    rest.len()
}

/// The length of `#..."..."#...`, or 0 if that is not what follows.
fn raw_length(rest: &[char]) -> usize {
    let hashes = rest.iter().take_while(|c| **c == '#').count();
    if rest.get(hashes) != Some(&'"') {
        return 0;
    }
    let mut i = hashes + 1;
    while i < rest.len() {
        let closing = rest[i + 1..].iter().take_while(|c| **c == '#').count();
        if rest[i] == '"' && closing >= hashes {
            return i + 1 + hashes;
        }
        i += 1;
    }
    rest.len()
}

/// Lines that belong to an item under `#[cfg(test)]`, with the attribute.
fn test_lines(code: &str) -> Vec<bool> {
    let mut is_test = vec![false; code.lines().count()];
    for attribute in ["#[cfg(test)]", "#[cfg(any(test", "#[cfg(all(test", "#[test]"] {
        for (at, _) in code.match_indices(attribute) {
            let first = line_of(code, at);
            let last = line_of(code, item_end(code, at + attribute.len()));
            is_test[first - 1..last].fill(true);
        }
    }
    is_test
}

/// Where the item that starts at `at` ends: its closing brace, or a semicolon before any brace.
fn item_end(code: &str, at: usize) -> usize {
    let mut nested = 0usize;
    for (i, c) in code[at..].char_indices() {
        match c {
            '(' | '[' => nested += 1,
            ')' | ']' => nested = nested.saturating_sub(1),
            ';' if nested == 0 => return at + i,
            '{' if nested == 0 => return closing_brace(code, at + i),
            // The item is a field or an arm, and what holds it ends here.
            '}' if nested == 0 => return at + i,
            _ => {}
        }
    }
    code.len() - 1
}

/// The brace that closes the one at `open`.
fn closing_brace(code: &str, open: usize) -> usize {
    let mut depth = 0usize;
    for (i, c) in code[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return open + i,
            '}' => depth -= 1,
            _ => {}
        }
    }
    code.len() - 1
}

fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let before = code[..at].chars().next_back();
        let after = &code[at + 3..];
        let name: String = after.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
        if in_word || name.is_empty() {
            continue;
        }
        let end = item_end(code, at);
        if code[end..].starts_with('}') {
            let line = line_of(code, at);
            found.push(Function { name, line, lines: line_of(code, end) - line + 1 });
        }
    }
    found
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::new("engine/src/x.rs", text, false)
    }

    #[test]
    fn comments_and_literals_are_blank_in_code() {
        let cases = [
            ("a // b { c", "a"),
            ("a /* { /* } */ */ b", "ab"),
            ("f(\"{ \\\" //\") + 1", "f()+1"),
            ("f(r#\"a \" {\"#) {", "f(){"),
            ("br##\"\"# {\"##; x", ";x"),
            ("b\"{\" c\"{\" b'{' '{' '\\'' x", "x"),
            ("fn f<'a>(x: &'a str) {", "fnf<'a>(x:&'astr){"),
            ("for r in 0..1 {", "forrin0..1{"),
            ("r#type + 1", "r#type+1"),
            ("\"unterminated {", ""),
            ("/* unterminated {", ""),
            ("r#\"unterminated {\"", ""),
        ];
        for (text, expected) in cases {
            let code = source(text).code;
            assert_eq!(code.len(), text.len(), "length of the code of {text}");
            assert_eq!(code.replace(' ', ""), expected, "code of {text}");
        }
    }

    #[test]
    fn lines_and_places_survive() {
        let text = "let a = \"one\ntwo {\n\"; // gone\nlet b = '\u{e9}';\n";
        let code = source(text).code;
        assert_eq!(code.lines().count(), text.lines().count());
        assert_eq!(code.lines().nth(3), Some("let b =    ;"));
    }

    #[test]
    fn functions_are_measured_from_fn_to_closing_brace() {
        let text = "trait T {\n    fn declared(&self) -> [u8; 4];\n}\n\
                    fn one() { \"}\"; }\n\
                    const fn two(f: fn(u8) -> u8)\nwhere\n    u8: Copy,\n{\n    // }\n    {}\n}\n";
        let found: Vec<(String, usize, usize)> =
            source(text).functions().into_iter().map(|f| (f.name, f.line, f.lines)).collect();
        assert_eq!(found, [("one".to_string(), 4, 1), ("two".to_string(), 5, 7)]);
    }

    #[test]
    fn a_function_in_a_function_counts_in_both() {
        let found = source("fn a() {\n    fn b() {\n    }\n}\n").functions();
        assert_eq!(found.iter().map(|f| f.lines).collect::<Vec<_>>(), [4, 2]);
    }

    #[test]
    fn test_modules_functions_and_files_are_known() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n\
                    #[cfg(test)]\nmod model;\n";
        let source = source(text);
        let lines: Vec<bool> = (1..=8).map(|line| source.is_test(line)).collect();
        assert_eq!(lines, [false, true, true, true, true, false, true, true]);
        assert_eq!(source.test_modules(), ["model"]);
        assert!(Source::new("schema/tests/keys.rs", "fn a() {}\n", false).is_test(1));
        assert!(Source::new("engine/src/store/tests.rs", "fn a() {}\n", false).is_test(1));
        assert!(Source::new("engine/src/x.rs", "fn a() {}\n", true).is_test(1));
        assert!(!Source::new("tests/simulation/src/lib.rs", "fn a() {}\n", false).is_test(1));
        assert!(!Source::new("tests/model/src/lib.rs", "fn a() {}\n", false).is_test(1));
        assert!(Source::new("tests/model/tests/a.rs", "fn a() {}\n", false).is_test(1));
    }

    #[test]
    fn words_are_whole() {
        assert!(has_word("std::net::TcpStream", "std::net"));
        assert!(!has_word("my_println!(1)", "println!"));
        assert!(!has_word("HashMapLike", "HashMap"));
        assert!(has_word("x.unwrap()", ".unwrap()"));
        assert!(!has_word("x.unwrap_or(1)", ".unwrap()"));
    }
}
