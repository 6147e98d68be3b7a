//! DDL text to tokens, each with its place. Blanks and comments (`//`, `/* */`) end here.

use std::ops::Range;

use winnow::combinator::{alt, delimited, opt, preceded, repeat};
use winnow::error::EmptyError;
use winnow::prelude::*;
use winnow::stream::{LocatingSlice, Location};
use winnow::token::{any, none_of, one_of, take_till, take_until, take_while};

use super::error::Errors;

/// One token.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    /// A name or a word of the language: which of them depends on where it stands.
    Word(String),
    /// A whole number without sign; `None` if it is too large for any type.
    Number(Option<u64>),
    /// A number with point or exponent, as written.
    Float(String),
    /// Text in quotes, escapes resolved.
    Text(String),
    /// One of the signs `; { } < > [ ] , = . -`.
    Sign(char),
    /// What is no token: reported already.
    Bad,
    /// The end of the text.
    End,
}

impl Token {
    /// The token as an error names it.
    pub(crate) fn describe(&self) -> String {
        match self {
            Token::Word(word) => format!("`{word}`"),
            Token::Number(Some(number)) => format!("number {number}"),
            Token::Number(None) => "a number of more than 64 bits".to_owned(),
            Token::Float(text) => format!("number {text}"),
            Token::Text(_) => "text in quotes".to_owned(),
            Token::Sign(sign) => format!("`{sign}`"),
            Token::Bad => "what is no token".to_owned(),
            Token::End => "the end of the text".to_owned(),
        }
    }
}

/// A token and where it stands, in bytes of the text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Spanned {
    pub(crate) token: Token,
    pub(crate) span: Range<usize>,
}

type Input<'t> = LocatingSlice<&'t str>;

/// All tokens of the text, [`Token::End`] last. What is no token is reported.
pub(crate) fn tokens(text: &str, errors: &mut Errors<'_>) -> Vec<Spanned> {
    let mut input = LocatingSlice::new(text);
    let mut tokens = Vec::new();
    loop {
        blanks(&mut input);
        let start = input.current_token_start();
        if start == text.len() || errors.are_enough() {
            tokens.push(Spanned { token: Token::End, span: text.len()..text.len() });
            return tokens;
        }
        match token.parse_next(&mut input) {
            Ok(token) => tokens.push(Spanned { token, span: start..input.current_token_start() }),
            Err(_) => {
                skip_what_is_no_token(text, &mut input, errors);
                let span = start..input.current_token_start();
                tokens.push(Spanned { token: Token::Bad, span });
            }
        }
    }
}

fn blanks(input: &mut Input<'_>) {
    let blank = alt((
        take_while(1.., char::is_whitespace).void(),
        ("//", take_till(0.., '\n')).void(),
        ("/*", take_until(0.., "*/"), "*/").void(),
    ));
    let all: Result<(), EmptyError> = repeat(0.., blank).parse_next(input);
    all.expect("nothing at all is also blank");
}

fn token(input: &mut Input<'_>) -> Result<Token, EmptyError> {
    alt((word, number, text, sign)).parse_next(input)
}

fn word(input: &mut Input<'_>) -> Result<Token, EmptyError> {
    let letter = |char: char| char.is_ascii_alphabetic() || char == '_';
    let more = |char: char| char.is_ascii_alphanumeric() || char == '_';
    (one_of(letter), take_while(0.., more))
        .take()
        .map(|word: &str| Token::Word(word.to_owned()))
        .parse_next(input)
}

fn number(input: &mut Input<'_>) -> Result<Token, EmptyError> {
    alt((hexadecimal, float, decimal)).parse_next(input)
}

fn hexadecimal(input: &mut Input<'_>) -> Result<Token, EmptyError> {
    preceded(alt(("0x", "0X")), take_while(1.., |char: char| char.is_ascii_hexdigit()))
        .map(|digits: &str| Token::Number(u64::from_str_radix(digits, 16).ok()))
        .parse_next(input)
}

fn decimal(input: &mut Input<'_>) -> Result<Token, EmptyError> {
    digits.map(|digits: &str| Token::Number(digits.parse().ok())).parse_next(input)
}

fn float(input: &mut Input<'_>) -> Result<Token, EmptyError> {
    let fraction = (".", digits).void();
    let exponent = || (one_of(['e', 'E']), opt(one_of(['+', '-'])), digits).void();
    (digits, alt(((fraction, opt(exponent())).void(), exponent())))
        .take()
        .map(|text: &str| Token::Float(text.to_owned()))
        .parse_next(input)
}

fn digits<'t>(input: &mut Input<'t>) -> Result<&'t str, EmptyError> {
    take_while(1.., |char: char| char.is_ascii_digit()).parse_next(input)
}

fn text(input: &mut Input<'_>) -> Result<Token, EmptyError> {
    alt((quoted('"'), quoted('\''))).map(Token::Text).parse_next(input)
}

fn quoted<'t>(quote: char) -> impl Parser<Input<'t>, String, EmptyError> {
    let escaped = preceded(
        '\\',
        any.verify_map(|char| match char {
            'n' => Some('\n'),
            'r' => Some('\r'),
            't' => Some('\t'),
            '0' => Some('\0'),
            '\\' | '\'' | '"' => Some(char),
            _ => None,
        }),
    );
    let plain = none_of(move |char| char == quote || char == '\\' || char == '\n');
    delimited(quote, repeat(0.., alt((escaped, plain))), quote)
}

fn sign(input: &mut Input<'_>) -> Result<Token, EmptyError> {
    one_of([';', '{', '}', '<', '>', '[', ']', ',', '=', '.', '-'])
        .map(Token::Sign)
        .parse_next(input)
}

fn skip_what_is_no_token(text: &str, input: &mut Input<'_>, errors: &mut Errors<'_>) {
    let start = input.current_token_start();
    let rest = &text[start..];
    let line_bytes = rest.find('\n').unwrap_or(rest.len());
    let char = rest.chars().next().expect("the end of the text was seen before");
    let (length, message, hint) = if rest.starts_with("/*") {
        (rest.len(), "a comment that is not closed".to_owned(), "close it with `*/`")
    } else if char == '"' || char == '\'' {
        let message = "text that is not closed on its line, or has an unknown escape";
        (line_bytes, message.to_owned(), "escapes are \\n \\r \\t \\0 \\\\ \\' \\\"")
    } else if char == '#' {
        let hint = "there is no preprocessor; int1..int8 and uint1..uint8 are known without it";
        (line_bytes, "a preprocessor line".to_owned(), hint)
    } else {
        let hint = "names are made of A-Z, a-z, 0-9 and _";
        (char.len_utf8(), format!("the character {char:?} has no meaning here"), hint)
    };
    let shown = if rest.starts_with("/*") { 2 } else { length };
    errors.add_with_hint(&(start..start + shown), message, Some(hint.to_owned()));
    let skipped = &rest[..length];
    let taken: Result<&str, EmptyError> = winnow::token::literal(skipped).parse_next(input);
    taken.expect("the input starts with its own rest");
}
