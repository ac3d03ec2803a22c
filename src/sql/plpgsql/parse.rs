//! Bodies to trees. PostgreSQL: pl_gram.y.

use super::ast::{Block, Expr, Function, Handler, Into, Raise, Rows, Scope, Stmt, StmtKind, Target, TypeName, Variable};
use super::conditions;
use super::lexer::{Kind, Token, tokens};
use crate::sql::types::oids;
use crate::sqlstate::{SqlError, SqlState};

/// An argument of a function.
pub(super) struct Argument {
    /// Its name, empty if none.
    pub(super) name: String,
    /// Its type.
    pub(super) type_oid: u32,
}

/// Deepest nesting of blocks and loops.
const MAX_DEPTH: usize = 500;

struct Parser<'s> {
    source: &'s str,
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
    scope: usize,
    /// Where the message says the error is.
    f: Function,
}

/// Reads a function's body.
pub(super) fn function(source: &str, name: &str, arguments: &[Argument], trigger: bool) -> Result<Function, SqlError> {
    let mut p = Parser { source, tokens: tokens(source)?, at: 0, depth: 0, scope: 0, f: Function::default() };
    // The arguments' scope is labelled with the function's name.
    p.f.scopes.push(Scope { parent: None, label: (!name.is_empty()).then(|| name.to_owned()), names: Vec::new() });
    for (i, argument) in arguments.iter().enumerate() {
        let n = p.known(&argument.name, argument.type_oid);
        p.bind(&format!("${}", i + 1), n);
        if !argument.name.is_empty() {
            p.bind(&argument.name, n);
        }
    }
    if trigger {
        for name in ["old", "new"] {
            let n = p.variable(name, TypeName::Record, 0);
            p.bind(name, n);
            p.f.trigger.get_or_insert(n);
        }
        for (name, type_oid) in super::ast::TRIGGER_VARIABLES {
            let n = p.known(name, type_oid);
            p.bind(name, n);
        }
    }
    p.f.found = p.known("found", oids::BOOL);
    p.bind("found", p.f.found);
    let label = p.label()?;
    let body = p.block(label)?;
    p.f.body = body;
    p.accept(";");
    if p.peek().kind != Kind::End {
        return Err(p.unexpected());
    }
    Ok(p.f)
}

impl Parser<'_> {
    // ---- tokens

    fn peek(&self) -> &Token {
        self.ahead(0)
    }

    fn ahead(&self, n: usize) -> &Token {
        let last = self.tokens.len() - 1;
        &self.tokens[(self.at + n).min(last)]
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        if token.kind != Kind::End {
            self.at += 1;
        }
        token
    }

    fn is(&self, word: &str) -> bool {
        self.ahead_is(0, word)
    }

    fn ahead_is(&self, n: usize, word: &str) -> bool {
        let t = self.ahead(n);
        matches!(t.kind, Kind::Word { quoted: false } | Kind::Mark) && t.text == word
    }

    fn accept(&mut self, word: &str) -> bool {
        let found = self.is(word);
        if found {
            self.at += 1;
        }
        found
    }

    fn expect(&mut self, word: &str) -> Result<(), SqlError> {
        if self.accept(word) { Ok(()) } else { Err(self.unexpected()) }
    }

    fn unexpected(&self) -> SqlError {
        let t = self.peek();
        if t.kind == Kind::End {
            return self.place(SqlError::new(SqlState::SYNTAX_ERROR, "syntax error at end of input"), t.start);
        }
        let text = self.source.get(t.start..t.end).unwrap_or_default();
        self.place(SqlError::new(SqlState::SYNTAX_ERROR, format!("syntax error at or near \"{text}\"")), t.start)
    }

    /// An error at a byte of the body.
    fn place(&self, e: SqlError, byte: usize) -> SqlError {
        e.at(crate::sql::parse::char_position(self.source, byte))
    }

    fn name(&mut self) -> Result<String, SqlError> {
        match self.peek().kind {
            Kind::Word { .. } => Ok(self.next().text),
            Kind::Text | Kind::Number | Kind::Param | Kind::Mark | Kind::End => Err(self.unexpected()),
        }
    }

    // ---- names

    fn bind(&mut self, name: &str, variable: usize) {
        if let Some(scope) = self.f.scopes.get_mut(self.scope) {
            scope.names.push((name.to_owned(), variable));
        }
    }

    fn variable(&mut self, name: &str, ty: TypeName, line: u32) -> usize {
        let variable = Variable { name: name.to_owned(), ty, constant: false, not_null: false, default: None, line, cursor: None };
        self.f.variables.push(variable);
        self.f.variables.len() - 1
    }

    fn known(&mut self, name: &str, type_oid: u32) -> usize {
        self.variable(name, TypeName::Known(type_oid, -1), 0)
    }

    /// The variable a name means here.
    fn find(&self, name: &str) -> Option<usize> {
        let mut scope = Some(self.scope);
        while let Some(found) = scope.and_then(|s| self.f.scopes.get(s)) {
            if let Some((_, n)) = found.names.iter().rev().find(|(n, _)| n == name) {
                return Some(*n);
            }
            scope = found.parent;
        }
        None
    }

    fn find_in_label(&self, label: &str, name: &str) -> Option<usize> {
        let mut scope = Some(self.scope);
        while let Some(found) = scope.and_then(|s| self.f.scopes.get(s)) {
            if found.label.as_deref() == Some(label)
                && let Some((_, n)) = found.names.iter().rev().find(|(n, _)| n == name)
            {
                return Some(*n);
            }
            scope = found.parent;
        }
        None
    }

    fn open_scope(&mut self, label: Option<String>) -> usize {
        let outer = self.scope;
        self.f.scopes.push(Scope { parent: Some(outer), label, names: Vec::new() });
        self.scope = self.f.scopes.len() - 1;
        outer
    }

    // ---- expressions

    fn expr(&mut self, prefix: &str, text: &str) -> Expr {
        let id = self.f.expressions;
        self.f.expressions += 1;
        Expr { id, text: format!("{prefix}{text}"), shown: text.to_owned(), scope: self.scope }
    }

    /// Text up to one of the words outside brackets, which stays to be read.
    fn until(&mut self, stops: &[&str]) -> Result<String, SqlError> {
        let start = self.peek().start;
        let mut end = start;
        let mut depth = 0_usize;
        let mut cases = 0_usize;
        loop {
            let t = self.peek();
            if t.kind == Kind::End {
                return Err(self.unexpected());
            }
            let plain = matches!(t.kind, Kind::Word { quoted: false } | Kind::Mark);
            if plain && depth == 0 && cases == 0 && stops.contains(&t.text.as_str()) {
                break;
            }
            if plain {
                match t.text.as_str() {
                    "(" | "[" => depth += 1,
                    ")" | "]" => {
                        if depth == 0 {
                            return Err(self.unexpected());
                        }
                        depth -= 1;
                    }
                    // CASE ... END inside an expression.
                    "case" => cases += 1,
                    "end" if cases > 0 => cases -= 1,
                    ";" => return Err(self.unexpected()),
                    _ => {}
                }
            }
            end = t.end;
            self.at += 1;
        }
        let text = self.source.get(start..end).unwrap_or_default().trim();
        if text.is_empty() {
            return Err(match self.peek().text.as_str() {
                ";" | "then" | "loop" => {
                    SqlError::new(SqlState::SYNTAX_ERROR, "missing expression at or near \"".to_owned() + &self.peek().text + "\"")
                }
                _ => self.unexpected(),
            });
        }
        Ok(text.to_owned())
    }

    /// An expression up to one of the words.
    fn value(&mut self, stops: &[&str]) -> Result<Expr, SqlError> {
        let text = self.until(stops)?;
        Ok(self.expr("SELECT ", &text))
    }

    /// Expressions separated by commas, up to one of the words.
    fn values(&mut self, stops: &[&str]) -> Result<Vec<Expr>, SqlError> {
        let mut stops = stops.to_vec();
        stops.push(",");
        let mut out = vec![self.value(&stops)?];
        while self.accept(",") {
            out.push(self.value(&stops)?);
        }
        Ok(out)
    }

    fn target(&mut self) -> Result<Target, SqlError> {
        let start = self.peek().start;
        self.target_here().map_err(|e| if e.fields().position.is_none() { self.place(e, start) } else { e })
    }

    fn target_here(&mut self) -> Result<Target, SqlError> {
        let first = self.next();
        let mut names = vec![match first.kind {
            Kind::Word { .. } | Kind::Param => first.text.clone(),
            Kind::Text | Kind::Number | Kind::Mark | Kind::End => {
                self.at -= usize::from(first.kind != Kind::End);
                return Err(self.unexpected());
            }
        }];
        while self.is(".") && matches!(self.ahead(1).kind, Kind::Word { .. }) {
            self.at += 1;
            names.push(self.next().text);
        }
        let parts: Vec<&str> = names.iter().map(String::as_str).collect();
        let unknown = || SqlError::new(SqlState::SYNTAX_ERROR, format!("\"{}\" is not a known variable", names.join(".")));
        let (variable, field) = match parts.as_slice() {
            [one] => (self.find(one).ok_or_else(unknown)?, None),
            [a, b] => match (self.find_in_label(a, b), self.find(a)) {
                (Some(v), _) => (v, None),
                (None, Some(v)) => (v, Some((*b).to_owned())),
                (None, None) => return Err(unknown()),
            },
            [a, b, c] => (self.find_in_label(a, b).ok_or_else(unknown)?, Some((*c).to_owned())),
            _ => return Err(unknown()),
        };
        if let Some(v) = self.f.variables.get(variable)
            && v.constant
        {
            let message = format!("variable \"{}\" is declared CONSTANT", v.name);
            return Err(SqlError::new(SqlState::ERROR_IN_ASSIGNMENT, message));
        }
        if let Some(field) = field {
            return Ok(Target::Field(variable, field));
        }
        let mut subscripts = Vec::new();
        while self.accept("[") {
            subscripts.push(self.value(&["]"])?);
            self.expect("]")?;
        }
        Ok(if subscripts.is_empty() { Target::Variable(variable) } else { Target::Element(variable, subscripts) })
    }

    fn targets(&mut self) -> Result<Vec<Target>, SqlError> {
        let mut out = vec![self.target()?];
        while self.accept(",") {
            out.push(self.target()?);
        }
        Ok(out)
    }

    /// True if what follows begins an assignment.
    fn is_assignment(&self) -> bool {
        if !matches!(self.peek().kind, Kind::Word { .. } | Kind::Param) {
            return false;
        }
        let mut n = 1;
        loop {
            if self.ahead_is(n, ":=") || self.ahead_is(n, "=") {
                return true;
            }
            if self.ahead_is(n, ".") && matches!(self.ahead(n + 1).kind, Kind::Word { .. }) {
                n += 2;
            } else if self.ahead_is(n, "[") {
                let mut depth = 0_usize;
                loop {
                    let t = self.ahead(n);
                    match (&t.kind, t.text.as_str()) {
                        (Kind::End, _) | (Kind::Mark, ";") => return false,
                        (Kind::Mark, "[") => depth += 1,
                        (Kind::Mark, "]") => depth -= 1,
                        _ => {}
                    }
                    n += 1;
                    if depth == 0 {
                        break;
                    }
                }
            } else {
                return false;
            }
        }
    }

    // ---- blocks

    /// `<<label>>`
    fn label(&mut self) -> Result<Option<String>, SqlError> {
        if !self.accept("<<") {
            return Ok(None);
        }
        let name = self.name()?;
        self.expect(">>")?;
        Ok(Some(name))
    }

    fn block(&mut self, label: Option<String>) -> Result<Block, SqlError> {
        let outer = self.open_scope(label.clone());
        let mut declared = Vec::new();
        while self.accept("declare") {
            while !self.is("begin") && !self.is("declare") {
                declared.extend(self.declaration()?);
            }
        }
        self.expect("begin")?;
        let body = self.body(&["exception", "end"])?;
        let (mut handlers, mut error) = (Vec::new(), None);
        if self.accept("exception") {
            let inside = self.open_scope(None);
            let state = self.known("sqlstate", oids::TEXT);
            let message = self.known("sqlerrm", oids::TEXT);
            self.bind("sqlstate", state);
            self.bind("sqlerrm", message);
            error = Some((state, message));
            while self.accept("when") {
                let mut states = Vec::new();
                loop {
                    self.condition(&mut states)?;
                    if !self.accept("or") {
                        break;
                    }
                }
                self.expect("then")?;
                let body = self.body(&["when", "end"])?;
                handlers.push(Handler { states, body });
            }
            if handlers.is_empty() {
                return Err(self.unexpected());
            }
            self.scope = inside;
        }
        self.expect("end")?;
        self.end_label(label.as_ref())?;
        self.scope = outer;
        Ok(Block { label, declared, body, handlers, error })
    }

    fn condition(&mut self, states: &mut Vec<Option<String>>) -> Result<(), SqlError> {
        let name = self.name()?;
        if name == "sqlstate" {
            let code = self.next();
            if code.kind != Kind::Text || code.text.len() != 5 {
                return Err(SqlError::new(SqlState::SYNTAX_ERROR, "invalid SQLSTATE code"));
            }
            states.push(Some(code.text));
        } else if name == "others" {
            states.push(None);
        } else {
            let before = states.len();
            states.extend(conditions::states(&name).map(|s| Some(s.to_owned())));
            if states.len() == before {
                return Err(unrecognized_condition(&name));
            }
        }
        Ok(())
    }

    fn end_label(&mut self, label: Option<&String>) -> Result<(), SqlError> {
        if let Kind::Word { .. } = self.peek().kind {
            let name = self.next().text;
            match label {
                Some(label) if *label == name => {}
                Some(label) => {
                    let message = format!("end label \"{name}\" differs from block's label \"{label}\"");
                    return Err(SqlError::new(SqlState::SYNTAX_ERROR, message));
                }
                None => {
                    return Err(SqlError::new(SqlState::SYNTAX_ERROR, format!("end label \"{name}\" specified for unlabeled block")));
                }
            }
        }
        Ok(())
    }

    fn declaration(&mut self) -> Result<Vec<usize>, SqlError> {
        let line = self.peek().line;
        let name = self.name()?;
        if self.f.scopes.get(self.scope).is_some_and(|s| s.names.iter().any(|(n, _)| *n == name)) {
            return Err(SqlError::new(SqlState::SYNTAX_ERROR, format!("duplicate declaration at or near \"{name}\"")));
        }
        if self.accept("alias") {
            self.expect("for")?;
            let other = self.next().text;
            let Some(variable) = self.find(&other) else {
                return Err(SqlError::new(SqlState::UNDEFINED_OBJECT, format!("variable \"{other}\" does not exist")));
            };
            self.bind(&name, variable);
            self.expect(";")?;
            return Ok(Vec::new());
        }
        let scroll = (self.is("no") && self.ahead_is(1, "scroll")) || self.is("scroll");
        if self.is("cursor") || scroll {
            return self.cursor_declaration(name, line);
        }
        let constant = self.accept("constant");
        let ty = self.type_name(&["not", "default", ":=", "=", ";", "collate"])?;
        if self.accept("collate") {
            self.name()?;
        }
        let not_null = self.accept("not");
        if not_null {
            self.expect("null")?;
        }
        let default = if self.accept("default") || self.accept(":=") || self.accept("=") { Some(self.value(&[";"])?) } else { None };
        self.expect(";")?;
        if not_null && default.is_none() {
            let message = format!("variable \"{name}\" must have a default value, since it's declared NOT NULL");
            return Err(SqlError::new(SqlState::NULL_VALUE_NOT_ALLOWED, message));
        }
        let variable = self.variable(&name, ty, line);
        if let Some(v) = self.f.variables.get_mut(variable) {
            (v.constant, v.not_null, v.default) = (constant, not_null, default);
        }
        self.bind(&name, variable);
        Ok(vec![variable])
    }

    fn cursor_declaration(&mut self, name: String, line: u32) -> Result<Vec<usize>, SqlError> {
        if self.accept("no") {
            self.expect("scroll")?;
        } else {
            self.accept("scroll");
        }
        self.expect("cursor")?;
        let outer = self.open_scope(None);
        let mut arguments = Vec::new();
        if self.accept("(") {
            loop {
                let line = self.peek().line;
                let argument = self.name()?;
                let ty = self.type_name(&[",", ")"])?;
                let variable = self.variable(&argument, ty, line);
                self.bind(&argument, variable);
                arguments.push(variable);
                if !self.accept(",") {
                    break;
                }
            }
            self.expect(")")?;
        }
        if !self.accept("for") {
            self.expect("is")?;
        }
        let text = self.until(&[";"])?;
        let query = self.expr("", &text);
        self.expect(";")?;
        self.scope = outer;
        let variable = self.variable(&name, TypeName::Known(oids::REFCURSOR, -1), line);
        if let Some(v) = self.f.variables.get_mut(variable) {
            v.cursor = Some((query, arguments.clone()));
        }
        self.bind(&name, variable);
        arguments.push(variable);
        Ok(arguments)
    }

    fn type_name(&mut self, stops: &[&str]) -> Result<TypeName, SqlError> {
        let start = self.at;
        let text = self.until(stops)?;
        let words: Vec<String> =
            self.tokens[start..self.at].iter().filter(|t| matches!(t.kind, Kind::Word { .. })).map(|t| t.text.clone()).collect();
        if let Some((last, names)) = words.split_last()
            && text.contains('%')
        {
            return match last.as_str() {
                "type" => Ok(TypeName::Same(names.to_vec())),
                "rowtype" => Ok(TypeName::RowOf(names.to_vec())),
                _ => Err(self.unexpected()),
            };
        }
        Ok(if text.eq_ignore_ascii_case("record") { TypeName::Record } else { TypeName::Named(text) })
    }

    // ---- statements

    /// Statements up to one of the words.
    fn body(&mut self, stops: &[&str]) -> Result<Vec<Stmt>, SqlError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(crate::stack::too_deep());
        }
        let mut out = Vec::new();
        while !stops.iter().any(|s| self.is(s)) {
            if self.peek().kind == Kind::End {
                return Err(self.unexpected());
            }
            let line = self.peek().line;
            let kind = self.statement()?;
            out.push(Stmt { line, kind });
        }
        self.depth -= 1;
        Ok(out)
    }

    fn statement(&mut self) -> Result<StmtKind, SqlError> {
        let label = self.label()?;
        if self.is("declare") || (self.is("begin") && !self.ahead_is(1, ";")) {
            let block = self.block(label)?;
            self.expect(";")?;
            return Ok(StmtKind::Block(block));
        }
        if self.is_assignment() {
            let target = self.target()?;
            self.at += 1;
            let value = self.value(&[";"])?;
            self.expect(";")?;
            return Ok(StmtKind::Assign(target, value));
        }
        let word = if let Kind::Word { quoted: false } = self.peek().kind { self.peek().text.clone() } else { String::new() };
        match word.as_str() {
            "if" => self.if_statement(),
            "case" => self.case_statement(),
            "loop" => {
                let body = self.loop_body(label.as_ref())?;
                Ok(StmtKind::Loop(label, body))
            }
            "while" => {
                self.at += 1;
                let condition = self.value(&["loop"])?;
                let body = self.loop_body(label.as_ref())?;
                Ok(StmtKind::While(label, condition, body))
            }
            "for" => self.for_statement(label),
            "foreach" => {
                self.at += 1;
                let target = self.target()?;
                let mut slice = 0;
                if self.accept("slice") {
                    slice = self.next().text.parse().map_err(|_| self.unexpected())?;
                }
                self.expect("in")?;
                self.expect("array")?;
                let array = self.value(&["loop"])?;
                let body = self.loop_body(label.as_ref())?;
                Ok(StmtKind::ForEach(label, target, slice, array, body))
            }
            "exit" | "continue" => {
                let exit = self.next().text == "exit";
                let label = if self.is(";") || self.is("when") { None } else { Some(self.name()?) };
                let when = if self.accept("when") { Some(self.value(&[";"])?) } else { None };
                self.expect(";")?;
                Ok(StmtKind::Exit(exit, label, when))
            }
            "return" => self.return_statement(),
            "raise" => self.raise(),
            "assert" => {
                self.at += 1;
                let condition = self.value(&[",", ";"])?;
                let message = if self.accept(",") { Some(self.value(&[";"])?) } else { None };
                self.expect(";")?;
                Ok(StmtKind::Assert(condition, message))
            }
            "perform" => {
                self.at += 1;
                let text = format!("SELECT {}", self.until(&[";"])?);
                let query = self.expr("", &text);
                self.expect(";")?;
                Ok(StmtKind::Perform(query))
            }
            "execute" => self.execute(),
            "get" => self.diagnostics(),
            "open" => self.open(),
            "fetch" | "move" => {
                let fetch = self.next().text == "fetch";
                self.accept("next");
                if !self.accept("from") {
                    self.accept("in");
                }
                let cursor = self.cursor()?;
                let targets = if fetch {
                    self.expect("into")?;
                    self.targets()?
                } else {
                    Vec::new()
                };
                self.expect(";")?;
                Ok(StmtKind::Fetch(cursor, targets))
            }
            "close" => {
                self.at += 1;
                let cursor = self.cursor()?;
                self.expect(";")?;
                Ok(StmtKind::Close(cursor))
            }
            "null" if self.ahead_is(1, ";") => {
                self.at += 2;
                Ok(StmtKind::Nothing)
            }
            "commit" | "rollback" => {
                let commit = self.next().text == "commit";
                if self.accept("and") {
                    self.accept("no");
                    self.expect("chain")?;
                }
                self.expect(";")?;
                Ok(StmtKind::Transaction(commit))
            }
            _ => self.sql(),
        }
    }

    fn cursor(&mut self) -> Result<usize, SqlError> {
        let name = self.name()?;
        self.find(&name).ok_or_else(|| SqlError::new(SqlState::SYNTAX_ERROR, format!("\"{name}\" is not a known variable")))
    }

    fn loop_body(&mut self, label: Option<&String>) -> Result<Vec<Stmt>, SqlError> {
        self.expect("loop")?;
        let outer = self.open_scope(label.cloned());
        let body = self.body(&["end"])?;
        self.scope = outer;
        self.expect("end")?;
        self.expect("loop")?;
        self.end_label(label)?;
        self.expect(";")?;
        Ok(body)
    }

    fn if_statement(&mut self) -> Result<StmtKind, SqlError> {
        const STOPS: [&str; 4] = ["elsif", "elseif", "else", "end"];
        let (mut arms, mut otherwise) = (Vec::new(), Vec::new());
        loop {
            self.at += 1;
            let condition = self.value(&["then"])?;
            self.expect("then")?;
            arms.push((condition, self.body(&STOPS)?));
            if self.accept("else") {
                otherwise = self.body(&["end"])?;
            }
            if self.is("end") {
                break;
            }
        }
        self.expect("end")?;
        self.expect("if")?;
        self.expect(";")?;
        Ok(StmtKind::If(arms, otherwise))
    }

    fn case_statement(&mut self) -> Result<StmtKind, SqlError> {
        self.at += 1;
        let tested = if self.is("when") {
            None
        } else {
            let value = self.value(&["when"])?;
            let name = format!("__case__variable_{}__", self.f.variables.len());
            let variable = self.variable(&name, TypeName::Known(0, -1), 0);
            self.bind(&name, variable);
            Some((variable, value))
        };
        let (mut arms, mut otherwise) = (Vec::new(), None);
        while self.accept("when") {
            let text = self.until(&["then"])?;
            let condition = match &tested {
                Some((variable, _)) => {
                    let name = self.f.variables.get(*variable).map_or("", |v| &v.name).to_owned();
                    self.expr(&format!("SELECT \"{name}\" IN ("), &format!("{text})"))
                }
                None => self.expr("SELECT ", &text),
            };
            self.expect("then")?;
            arms.push((condition, self.body(&["when", "else", "end"])?));
        }
        if self.accept("else") {
            otherwise = Some(self.body(&["end"])?);
        }
        self.expect("end")?;
        self.expect("case")?;
        self.expect(";")?;
        Ok(StmtKind::Case(tested, arms, otherwise))
    }

    fn for_statement(&mut self, label: Option<String>) -> Result<StmtKind, SqlError> {
        self.at += 1;
        let line = self.peek().line;
        let start = self.at;
        // The targets of a loop over rows exist; an integer's is made here.
        self.until(&["in"])?;
        let names: Vec<Token> = self.tokens[start..self.at].to_vec();
        self.expect("in")?;
        let reverse = self.is("reverse");
        let body_of = |p: &mut Self| p.loop_body(label.as_ref());
        if self.is("execute") {
            self.at += 1;
            let text = self.value(&["loop", "using"])?;
            let using = if self.accept("using") { self.values(&["loop"])? } else { Vec::new() };
            let targets = self.reread_targets(start)?;
            let body = body_of(self)?;
            return Ok(StmtKind::ForRows(label, targets, Rows::Dynamic(text, using), body));
        }
        // A range has `..` outside brackets before LOOP.
        let (mut n, mut depth, mut range) = (0, 0_i32, false);
        loop {
            let t = self.ahead(n);
            match (&t.kind, t.text.as_str()) {
                (Kind::End, _) => return Err(self.unexpected()),
                (Kind::Word { quoted: false }, "loop") if depth == 0 => break,
                (Kind::Mark, "(" | "[") => depth += 1,
                (Kind::Mark, ")" | "]") => depth -= 1,
                (Kind::Mark, "..") if depth == 0 => range = true,
                _ => {}
            }
            n += 1;
        }
        if range {
            let [name] = names.as_slice() else {
                return Err(SqlError::new(SqlState::SYNTAX_ERROR, "integer FOR loop must have only one target variable"));
            };
            if reverse {
                self.at += 1;
            }
            let from = self.value(&[".."])?;
            self.expect("..")?;
            let to = self.value(&["loop", "by"])?;
            let step = if self.accept("by") { Some(self.value(&["loop"])?) } else { None };
            let outer = self.open_scope(label.clone());
            let variable = self.variable(&name.text, TypeName::Known(oids::INT4, -1), line);
            self.bind(&name.text, variable);
            let body = self.loop_body(label.as_ref())?;
            self.scope = outer;
            return Ok(StmtKind::For(label, variable, from, to, step, reverse, body));
        }
        // A bound cursor, perhaps with arguments.
        if let Kind::Word { .. } = self.peek().kind
            && let Some(cursor) = self.find(&self.peek().text.clone())
            && self.f.variables.get(cursor).is_some_and(|v| v.cursor.is_some())
        {
            self.at += 1;
            let arguments = if self.accept("(") {
                let arguments = self.values(&[")"])?;
                self.expect(")")?;
                arguments
            } else {
                Vec::new()
            };
            let outer = self.open_scope(None);
            let name = names.first().map(|t| t.text.clone()).unwrap_or_default();
            let variable = self.variable(&name, TypeName::Record, line);
            self.bind(&name, variable);
            let body = self.loop_body(label.as_ref())?;
            self.scope = outer;
            return Ok(StmtKind::ForRows(label, vec![Target::Variable(variable)], Rows::Cursor(cursor, arguments), body));
        }
        let text = self.until(&["loop"])?;
        let query = self.expr("", &text);
        let targets = self.reread_targets(start)?;
        let body = self.loop_body(label.as_ref())?;
        Ok(StmtKind::ForRows(label, targets, Rows::Query(query), body))
    }

    /// Reads the targets of a loop, whose place was passed.
    fn reread_targets(&mut self, start: usize) -> Result<Vec<Target>, SqlError> {
        let here = std::mem::replace(&mut self.at, start);
        let targets = self.targets().map_err(|_| {
            SqlError::new(
                SqlState::DATATYPE_MISMATCH,
                "loop variable of loop over rows must be a record variable or list of scalar variables",
            )
        })?;
        self.at = here;
        Ok(targets)
    }

    /// `EXECUTE text [USING ..]` or a query, up to the semicolon.
    fn rows(&mut self) -> Result<Rows, SqlError> {
        if self.accept("execute") {
            let text = self.value(&[";", "using"])?;
            let using = if self.accept("using") { self.values(&[";"])? } else { Vec::new() };
            return Ok(Rows::Dynamic(text, using));
        }
        let text = self.until(&[";"])?;
        Ok(Rows::Query(self.expr("", &text)))
    }

    fn return_statement(&mut self) -> Result<StmtKind, SqlError> {
        self.at += 1;
        if self.accept(";") {
            return Ok(StmtKind::Return(None));
        }
        if self.accept("next") {
            let value = if self.is(";") { None } else { Some(self.value(&[";"])?) };
            self.expect(";")?;
            return Ok(StmtKind::ReturnNext(value));
        }
        if self.is("query") {
            self.at += 1;
            let rows = self.rows()?;
            self.expect(";")?;
            return Ok(StmtKind::ReturnQuery(rows));
        }
        let value = self.value(&[";"])?;
        self.expect(";")?;
        Ok(StmtKind::Return(Some(value)))
    }

    fn raise(&mut self) -> Result<StmtKind, SqlError> {
        self.at += 1;
        let mut raise = Raise { level: Some("EXCEPTION"), ..Raise::default() };
        if self.accept(";") {
            raise.level = None;
            return Ok(StmtKind::Raise(raise));
        }
        for (word, level) in
            [("exception", "EXCEPTION"), ("warning", "WARNING"), ("notice", "NOTICE"), ("info", "INFO"), ("log", "LOG"), ("debug", "DEBUG")]
        {
            if self.accept(word) {
                raise.level = Some(level);
                break;
            }
        }
        if self.peek().kind == Kind::Text {
            let format = self.next().text;
            while self.accept(",") {
                raise.args.push(self.value(&[",", ";", "using"])?);
            }
            let places = format.replace("%%", "").matches('%').count();
            if places > raise.args.len() {
                return Err(SqlError::new(SqlState::SYNTAX_ERROR, "too few parameters specified for RAISE"));
            }
            if places < raise.args.len() {
                return Err(SqlError::new(SqlState::SYNTAX_ERROR, "too many parameters specified for RAISE"));
            }
            raise.format = Some(format);
        } else if !self.is("using") && !self.is(";") {
            let name = self.name()?;
            if name == "sqlstate" {
                let code = self.next();
                if code.kind != Kind::Text || code.text.len() != 5 {
                    return Err(SqlError::new(SqlState::SYNTAX_ERROR, "invalid SQLSTATE code"));
                }
                raise.condition = Some(code.text.clone());
                raise.state = Some(code.text);
            } else {
                let Some(state) = conditions::states(&name).next() else { return Err(unrecognized_condition(&name)) };
                raise.state = Some(state.to_owned());
                raise.condition = Some(name);
            }
        }
        if self.accept("using") {
            loop {
                let option = self.name()?;
                if !self.accept("=") {
                    self.expect(":=")?;
                }
                let known = ["errcode", "message", "detail", "hint", "column", "constraint", "datatype", "table", "schema"];
                if !known.contains(&option.as_str()) {
                    return Err(SqlError::new(SqlState::SYNTAX_ERROR, "unrecognized RAISE statement option"));
                }
                let value = self.value(&[",", ";"])?;
                raise.options.push((option, value));
                if !self.accept(",") {
                    break;
                }
            }
        }
        self.expect(";")?;
        Ok(StmtKind::Raise(raise))
    }

    fn into(&mut self) -> Result<Into, SqlError> {
        let strict = self.accept("strict");
        Ok(Into { strict, targets: self.targets()? })
    }

    fn execute(&mut self) -> Result<StmtKind, SqlError> {
        self.at += 1;
        let text = self.value(&[";", "into", "using"])?;
        let (mut into, mut using) = (None, Vec::new());
        loop {
            if self.accept("into") {
                into = Some(self.into()?);
            } else if self.accept("using") {
                using = self.values(&[";", "into"])?;
            } else {
                break;
            }
        }
        self.expect(";")?;
        Ok(StmtKind::Execute(text, into, using))
    }

    fn diagnostics(&mut self) -> Result<StmtKind, SqlError> {
        self.at += 1;
        let stacked = self.accept("stacked");
        if !stacked {
            self.accept("current");
        }
        self.expect("diagnostics")?;
        let mut items = Vec::new();
        loop {
            let target = self.target()?;
            if !self.accept("=") {
                self.expect(":=")?;
            }
            items.push((target, self.name()?));
            if !self.accept(",") {
                break;
            }
        }
        self.expect(";")?;
        Ok(StmtKind::Diagnostics(stacked, items))
    }

    fn open(&mut self) -> Result<StmtKind, SqlError> {
        self.at += 1;
        let cursor = self.cursor()?;
        if self.accept("no") {
            self.expect("scroll")?;
        } else {
            self.accept("scroll");
        }
        let (mut rows, mut arguments) = (None, Vec::new());
        if self.accept("for") {
            rows = Some(self.rows()?);
        } else if self.accept("(") {
            arguments = self.values(&[")"])?;
            self.expect(")")?;
        }
        self.expect(";")?;
        Ok(StmtKind::Open(cursor, rows, arguments))
    }

    /// An SQL statement; INTO is taken out of it.
    fn sql(&mut self) -> Result<StmtKind, SqlError> {
        let start = self.peek().start;
        let first = self.peek().text.clone();
        if !matches!(self.peek().kind, Kind::Word { .. }) && !self.is("(") {
            return Err(self.unexpected());
        }
        let (mut text, mut end, mut into, mut depth) = (String::new(), start, None, 0_usize);
        let mut from = start;
        let mut previous = String::new();
        loop {
            let t = self.peek().clone();
            let plain = matches!(t.kind, Kind::Word { quoted: false } | Kind::Mark);
            match t.text.as_str() {
                _ if t.kind == Kind::End => return Err(self.unexpected()),
                ";" if plain && depth == 0 => break,
                "(" | "[" if plain => depth += 1,
                ")" | "]" if plain => depth = depth.saturating_sub(1),
                "into"
                    if plain
                        && into.is_none()
                        && depth == 0
                        && !matches!(previous.as_str(), "insert" | "merge" | "import")
                        && first != "create" =>
                {
                    text.push_str(self.source.get(from..end).unwrap_or_default());
                    self.at += 1;
                    into = Some(self.into()?);
                    from = self.peek().start;
                    // Blanks instead, so that positions stay what they are.
                    text.extend(std::iter::repeat_n(' ', from.saturating_sub(end)));
                    end = from;
                    previous.clear();
                    continue;
                }
                _ => {}
            }
            previous.clone_from(&t.text);
            end = t.end;
            self.at += 1;
        }
        text.push_str(self.source.get(from..end).unwrap_or_default());
        let text = text.trim().to_owned();
        self.expect(";")?;
        let statement = self.expr("", &text);
        Ok(StmtKind::Sql(statement, into))
    }
}

fn unrecognized_condition(name: &str) -> SqlError {
    SqlError::new(SqlState::UNDEFINED_OBJECT, format!("unrecognized exception condition \"{name}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Function, SqlError> {
        function(text, "f", &[Argument { name: "n".into(), type_oid: oids::INT4 }], false)
    }

    #[test]
    fn statements_are_told_apart() {
        let f = parse(
            "<<outer>> declare a int := 1; r record; c cursor (k int) for select k; begin
               a := a + 1; r.x = 2; a[1] := 3;
               if a > 1 then null; elsif a = 2 then null; else perform f(1); end if;
               for i in reverse 10..1 by 2 loop exit when i = 5; continue outer; end loop;
               for r in select 1 as x loop insert into t values (r.x); end loop;
               for r in execute 'select 1' using 1 loop end loop;
               select 1, case when true then 2 end into strict a from t;
               insert into t select 1 returning x into a;
               case a when 1, 2 then null; else null; end case;
               raise exception 'x % %%', a using errcode = '22012', hint = 'h';
               raise division_by_zero;
               execute 'select $1' into a using 1;
             exception when division_by_zero or sqlstate '22003' then null; when others then raise; end outer;",
        )
        .unwrap();
        let names: Vec<&str> = f.body.body.iter().map(|s| s.kind.name()).collect();
        assert_eq!(
            names,
            [
                "assignment",
                "assignment",
                "assignment",
                "IF",
                "FOR with integer loop variable",
                "FOR over SELECT rows",
                "FOR over EXECUTE statement",
                "SQL statement",
                "SQL statement",
                "CASE",
                "RAISE",
                "RAISE",
                "EXECUTE"
            ]
        );
        let StmtKind::Sql(select, Some(into)) = &f.body.body[7].kind else { panic!("not a SELECT INTO") };
        assert_eq!(select.text.split_whitespace().collect::<Vec<_>>().join(" "), "select 1, case when true then 2 end from t");
        assert!(into.strict);
        assert_eq!(f.body.handlers.len(), 2);
    }

    #[test]
    fn errors_name_the_token() {
        assert_eq!(parse("begin if x then end; end").unwrap_err().to_string(), "syntax error at or near \";\"");
        assert_eq!(parse("begin null").unwrap_err().to_string(), "syntax error at end of input");
        assert!(parse("begin y := 1; end").unwrap_err().to_string().contains("\"y\" is not a known variable"));
    }
}
