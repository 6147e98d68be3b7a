//! Tokens to declarations: a recursive descent that goes on after an error.
//!
//! A function that meets something wrong reports it and gives up its declaration by returning
//! [`Lost`]; whoever parses lists of declarations then looks for firm ground: after the next `;`,
//! or before the `}` of the body it is in. So one slip costs one declaration and one message.

use std::ops::Range;

use super::error::{Errors, did_you_mean};
use super::syntax::*;
use super::token::{Spanned, Token};

/// How deep `vector<vector<..` may go. Also keeps hostile text from using up the stack.
const MAX_TYPE_DEPTH: usize = 8;

const TOP_WORDS: &[&str] =
    &["declare", "enum", "struct", "class", "local", "persistent", "transient"];

/// Members of classes that other products of the family have and this one does not.
const UNKNOWN_MEMBERS: &[&str] =
    &["oid", "rtree", "trie", "trigram", "kdtree", "userdef", "voluntary", "compact"];

/// The declaration could not be read; the error is reported already.
struct Lost;

type Parsed<T> = Result<T, Lost>;

/// All declarations that could be read.
pub(crate) fn declarations(tokens: &[Spanned], errors: &mut Errors<'_>) -> Declarations {
    let mut parser = Parser { tokens, at: 0, errors };
    let mut declarations = Declarations::default();
    while *parser.peek() != Token::End && !parser.errors.are_enough() {
        if parser.take_sign(';') {
            continue;
        }
        let start = parser.at;
        if parser.top(&mut declarations).is_err() {
            declarations.incomplete = true;
            parser.recover_top(start);
        }
    }
    declarations
}

struct Parser<'a, 't> {
    /// Ends with [`Token::End`].
    tokens: &'a [Spanned],
    at: usize,
    errors: &'a mut Errors<'t>,
}

impl Parser<'_, '_> {
    fn top(&mut self, declarations: &mut Declarations) -> Parsed<()> {
        match self.peek_word() {
            Some("declare") => {
                self.advance();
                self.word("database")?;
                let name = self.name("the name of the database")?;
                declarations.databases.push(name);
                self.end_of_statement(&["`;`"])
            }
            Some("enum") => {
                self.advance();
                let declared = self.enumeration()?;
                declarations.enums.push(declared);
                Ok(())
            }
            Some("struct") => {
                self.advance();
                let declared = self.structure()?;
                declarations.structs.push(declared);
                Ok(())
            }
            Some("class" | "local" | "persistent" | "transient") => {
                let mut local = false;
                while let Some(word @ ("local" | "persistent" | "transient")) = self.peek_word() {
                    // Where records are stored is the database's parameter, not the class's.
                    local |= word == "local";
                    self.advance();
                }
                self.word("class")?;
                let declared = self.class(local)?;
                declarations.classes.push(declared);
                Ok(())
            }
            other => {
                let hint = other.and_then(|word| did_you_mean(word, TOP_WORDS.iter().copied()));
                self.expected(&["`declare`", "`enum`", "`struct`", "`class`"], hint)
            }
        }
    }

    fn enumeration(&mut self) -> Parsed<EnumSyntax> {
        let name = self.name("the name of the enum")?;
        self.sign('{')?;
        let mut members = Vec::new();
        while !self.take_sign('}') {
            let member = self.name("the name of a member")?;
            let number = if self.take_sign('=') { Some(self.number()?) } else { None };
            members.push((member, number));
            if !self.take_sign(',') && *self.peek() != Token::Sign('}') {
                return self.expected(&["`,`", "`=`", "`}`"], None);
            }
        }
        self.take_sign(';');
        Ok(EnumSyntax { name, members })
    }

    fn structure(&mut self) -> Parsed<StructSyntax> {
        let name = self.name("the name of the struct")?;
        self.sign('{')?;
        let mut fields = Vec::new();
        let complete = self.body(|parser| {
            fields.push(parser.field()?);
            Ok(())
        })?;
        Ok(StructSyntax { name, fields, complete })
    }

    fn class(&mut self, local: bool) -> Parsed<ClassSyntax> {
        let name = self.name("the name of the class")?;
        self.sign('{')?;
        let mut class = ClassSyntax {
            name,
            local,
            fields: Vec::new(),
            indexes: Vec::new(),
            events: Vec::new(),
            list: false,
            complete: true,
        };
        class.complete = self.body(|parser| parser.member(&mut class))?;
        Ok(class)
    }

    /// Members up to and with `}`, and a `;` if one follows. False if some could not be read.
    fn body(&mut self, mut member: impl FnMut(&mut Self) -> Parsed<()>) -> Parsed<bool> {
        let mut complete = true;
        loop {
            if self.take_sign(';') {
                continue;
            }
            if self.take_sign('}') {
                self.take_sign(';');
                return Ok(complete);
            }
            if *self.peek() == Token::End || self.errors.are_enough() {
                return self.expected(&["a field", "`}`"], None);
            }
            let start = self.at;
            if member(self).is_err() {
                complete = false;
                if self.at == start {
                    self.advance();
                }
                self.recover_member();
            }
        }
    }

    fn member(&mut self, class: &mut ClassSyntax) -> Parsed<()> {
        let Some(word) = self.peek_word() else {
            return self.expected(&["a field", "an index", "`}`"], None);
        };
        match (word, self.peek_after()) {
            ("unique" | "nonunique", Token::Word(_)) => {
                let unique = word == "unique";
                self.advance();
                class.indexes.push(self.index(unique)?);
            }
            ("tree" | "hash", Token::Sign('<')) => class.indexes.push(self.index(false)?),
            ("list", Token::Sign(';')) => {
                self.advance();
                class.list = true;
                self.end_of_statement(&["`;`"])?;
            }
            ("autoid", Token::Sign(';' | '[')) => self.bare_autoid(class)?,
            ("event", Token::Sign('<')) => class.events.push(self.event()?),
            (word, Token::Sign('<' | ';' | '[')) if UNKNOWN_MEMBERS.contains(&word) => {
                let message = format!("`{word}` is not supported");
                let span = self.span();
                self.errors.push(&span, message, to_strings(&["`tree`", "`hash`", "`list`"]), None);
                return Err(Lost);
            }
            _ => {
                let field = self.field()?;
                class.fields.push(field);
            }
        }
        Ok(())
    }

    /// `autoid;` or `autoid[n];`: a field and the index to find it by.
    fn bare_autoid(&mut self, class: &mut ClassSyntax) -> Parsed<()> {
        let span = self.span();
        self.advance();
        self.size_hint()?;
        self.end_of_statement(&["`;`"])?;
        let named = |text: &str| Name { text: text.to_owned(), span: span.clone() };
        class.fields.push(FieldSyntax {
            name: named("autoid"),
            nullable: false,
            ty: TypeSyntax { name: named("autoid"), argument: None },
            count: None,
            default: None,
        });
        class.indexes.push(IndexSyntax {
            name: named("by_autoid"),
            tree: false,
            unique: true,
            parts: vec![PartSyntax { path: vec![named("autoid")], descending: None }],
        });
        Ok(())
    }

    fn field(&mut self) -> Parsed<FieldSyntax> {
        let mut nullable = false;
        while matches!(self.peek_word(), Some("nullable" | "optional"))
            && matches!(self.peek_after(), Token::Word(_))
        {
            nullable = true;
            self.advance();
        }
        let ty = self.type_name(0)?;
        let name = self.name("the name of the field")?;
        let mut count = None;
        if self.take_sign('[') {
            count = Some(self.number()?);
            self.sign(']')?;
        }
        let default = if self.take_sign('=') { Some(self.literal()?) } else { None };
        match (&count, &default) {
            (_, Some(_)) => self.end_of_statement(&["`;`"])?,
            (Some(_), None) => self.end_of_statement(&["`=`", "`;`"])?,
            (None, None) => self.end_of_statement(&["`[`", "`=`", "`;`"])?,
        }
        if ty.name.text == "autoid" {
            // A size hint, as in `autoid id[1000]`; there are no arrays of autoids.
            count = None;
        }
        Ok(FieldSyntax { name, nullable, ty, count, default })
    }

    fn type_name(&mut self, depth: usize) -> Parsed<TypeSyntax> {
        let start = self.span();
        let name = self.name("a type")?;
        if depth == MAX_TYPE_DEPTH {
            self.errors.add(&start, format!("types nest deeper than {MAX_TYPE_DEPTH}"));
            return Err(Lost);
        }
        if !self.take_sign('<') {
            return Ok(TypeSyntax { name, argument: None });
        }
        let argument = match self.peek() {
            Token::Word(_) => ArgumentSyntax::Type(Box::new(self.type_name(depth + 1)?)),
            Token::Number(_) | Token::Sign('-') => ArgumentSyntax::Number(self.number()?),
            _ => return self.expected(&["a number", "a type"], None),
        };
        self.sign('>')?;
        Ok(TypeSyntax { name, argument: Some(argument) })
    }

    fn index(&mut self, unique: bool) -> Parsed<IndexSyntax> {
        let tree = match self.peek_word() {
            Some("tree") => true,
            Some("hash") => false,
            other => {
                let hint = other.and_then(|word| did_you_mean(word, ["tree", "hash"]));
                return self.expected(&["`tree`", "`hash`"], hint);
            }
        };
        self.advance();
        self.sign('<')?;
        let mut parts = vec![self.part()?];
        while self.take_sign(',') {
            parts.push(self.part()?);
        }
        if *self.peek() != Token::Sign('>') {
            return self.expected(&["`,`", "`asc`", "`desc`", "`>`"], None);
        }
        self.advance();
        let name = self.name("the name of the index")?;
        self.size_hint()?;
        self.end_of_statement(&["`;`"])?;
        Ok(IndexSyntax { name, tree, unique, parts })
    }

    fn part(&mut self) -> Parsed<PartSyntax> {
        let mut path = vec![self.name("the name of a field")?];
        while self.take_sign('.') {
            path.push(self.name("the name of a field")?);
        }
        let mut descending = None;
        match self.peek_word() {
            Some("asc") => self.advance(),
            Some("desc") => {
                descending = Some(self.span());
                self.advance();
            }
            _ => {}
        }
        Ok(PartSyntax { path, descending })
    }

    fn event(&mut self) -> Parsed<EventSyntax> {
        self.advance();
        self.sign('<')?;
        let what = self.name("`new`, `update`, `delete` or a field")?;
        let kind = match (what.text.as_str(), self.peek()) {
            (_, Token::Word(word)) if word == "update" => {
                self.advance();
                EventKindSyntax::Field(what)
            }
            ("new", _) => EventKindSyntax::New,
            ("update", _) => EventKindSyntax::Update,
            ("delete", _) => EventKindSyntax::Delete,
            _ => return self.expected(&["`update`"], None),
        };
        self.sign('>')?;
        let name = self.name("the name of the event")?;
        self.end_of_statement(&["`;`"])?;
        Ok(EventSyntax { name, kind })
    }

    /// `[n]`: how many records are expected, which nothing here depends on.
    fn size_hint(&mut self) -> Parsed<()> {
        if self.take_sign('[') {
            self.number()?;
            self.sign(']')?;
        }
        Ok(())
    }

    fn literal(&mut self) -> Parsed<LiteralSyntax> {
        let start = self.span();
        let negative = self.take_sign('-');
        let literal = match (self.peek().clone(), negative) {
            (Token::Number(Some(value)), _) => {
                let value = i128::from(value);
                Literal::Number(if negative { -value } else { value })
            }
            (Token::Float(text), false) => Literal::Float(text),
            (Token::Float(text), true) => Literal::Float(format!("-{text}")),
            (Token::Text(text), false) => Literal::Text(text),
            (Token::Word(word), false) => Literal::Word(word),
            (_, true) => return self.expected(&["a number"], None),
            (_, false) => return self.expected(&["a number", "text", "a word"], None),
        };
        let span = start.start..self.span().end;
        self.advance();
        Ok(LiteralSyntax { literal, span })
    }

    fn number(&mut self) -> Parsed<NumberSyntax> {
        let start = self.span();
        let negative = self.take_sign('-');
        let Token::Number(Some(value)) = *self.peek() else {
            return self.expected(&["a number"], None);
        };
        let span = start.start..self.span().end;
        self.advance();
        let value = i128::from(value);
        Ok(NumberSyntax { value: if negative { -value } else { value }, span })
    }

    fn name(&mut self, what: &str) -> Parsed<Name> {
        let Token::Word(word) = self.peek() else {
            return self.expected(&[what], None);
        };
        let name = Name { text: word.clone(), span: self.span() };
        self.advance();
        Ok(name)
    }

    fn word(&mut self, word: &str) -> Parsed<()> {
        match self.peek_word() {
            Some(found) if found == word => {
                self.advance();
                Ok(())
            }
            other => {
                let hint = other.and_then(|found| did_you_mean(found, [word]));
                self.expected(&[&format!("`{word}`")], hint)
            }
        }
    }

    fn sign(&mut self, sign: char) -> Parsed<()> {
        if self.take_sign(sign) { Ok(()) } else { self.expected(&[&format!("`{sign}`")], None) }
    }

    /// Takes the `;` that ends a statement. One that is missing at the end of a line is reported
    /// behind what it should follow, and then taken for given, so that the next line is read.
    fn end_of_statement(&mut self, expected: &[&str]) -> Parsed<()> {
        if self.take_sign(';') {
            return Ok(());
        }
        let before = self.tokens[self.at - 1].span.end;
        if !self.errors.text()[before..self.span().start].contains('\n') {
            return self.expected(expected, None);
        }
        let message = format!("`;` is missing before {}", self.peek().describe());
        self.errors.push(&(before..before), message, to_strings(expected), None);
        Ok(())
    }

    fn take_sign(&mut self, sign: char) -> bool {
        let found = *self.peek() == Token::Sign(sign);
        if found {
            self.advance();
        }
        found
    }

    /// Reports that something else stands here than what could.
    fn expected<T>(&mut self, expected: &[&str], hint: Option<String>) -> Parsed<T> {
        let reported = |token: &Token| *token == Token::Bad;
        let after_bad = self.at > 0 && reported(&self.tokens[self.at - 1].token);
        if reported(self.peek()) || after_bad && *self.peek() == Token::End {
            return Err(Lost);
        }
        let message = format!("found {}", self.peek().describe());
        let span = self.span();
        self.errors.push(&span, message, to_strings(expected), hint);
        Err(Lost)
    }

    fn peek(&self) -> &Token {
        &self.tokens[self.at].token
    }

    fn peek_after(&self) -> &Token {
        &self.tokens[(self.at + 1).min(self.tokens.len() - 1)].token
    }

    fn peek_word(&self) -> Option<&str> {
        match self.peek() {
            Token::Word(word) => Some(word),
            _ => None,
        }
    }

    fn span(&self) -> Range<usize> {
        self.tokens[self.at].span.clone()
    }

    /// Goes on, but never past the end.
    fn advance(&mut self) {
        self.at = (self.at + 1).min(self.tokens.len() - 1);
    }

    /// After an error in a member: goes behind its `;`, or before the `}` that shows it has none.
    fn recover_member(&mut self) {
        loop {
            match self.peek() {
                Token::End | Token::Sign('}') => return,
                Token::Sign(';') => {
                    self.advance();
                    return;
                }
                _ => self.advance(),
            }
        }
    }

    /// After an error outside of a body or in an enum: goes to the next top word, behind the
    /// body of what was given up.
    fn recover_top(&mut self, start: usize) {
        if self.at == start {
            self.advance();
        }
        let opened = self.tokens[start..self.at].iter().filter(|t| t.token == Token::Sign('{'));
        let closed = self.tokens[start..self.at].iter().filter(|t| t.token == Token::Sign('}'));
        let mut depth = opened.count().saturating_sub(closed.count());
        loop {
            match self.peek() {
                Token::End => return,
                Token::Sign('{') => depth += 1,
                Token::Sign('}') if depth <= 1 => {
                    self.advance();
                    return;
                }
                Token::Sign('}') => depth -= 1,
                Token::Sign(';') if depth == 0 => return,
                Token::Word(word) if depth == 0 && TOP_WORDS.contains(&word.as_str()) => return,
                _ => {}
            }
            self.advance();
        }
    }
}

fn to_strings(expected: &[&str]) -> Vec<String> {
    expected.iter().map(|text| (*text).to_owned()).collect()
}
