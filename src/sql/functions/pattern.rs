//! LIKE, SIMILAR TO and regular expressions.
//!
//! PostgreSQL's advanced regular expressions are translated for the regex library: same classes, quantifiers, lookaround
//! and back references. One difference stays: among alternatives the first that matches wins, not the longest.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use fancy_regex::{Captures, Regex, RegexBuilder};

use super::call::{Call, ScalarFn};
use crate::sql::types::{ArrayValue, Datum, oids};
use crate::sqlstate::{SqlError, SqlState};

type Out = Result<Datum, SqlError>;

// ---------------------------------------------------------------------------------------------------------------------
// LIKE

/// `LIKE` over bytes of UTF-8 (or of `bytea`): `_` is one character, `%` any run, backslash takes the next literally.
fn like(s: &[u8], p: &[u8], utf8: bool) -> Result<bool, SqlError> {
    let width = |b: &[u8]| {
        if !utf8 || b[0] < 0x80 { 1 } else { 1 + b[1..].iter().take_while(|c| **c & 0xC0 == 0x80).count() }
    };
    let (mut si, mut pi) = (0, 0);
    // Where to resume when the part after the last `%` does not fit here.
    let mut back: Option<(usize, usize)> = None;
    loop {
        let advanced = match p.get(pi) {
            Some(b'%') => {
                back = Some((pi + 1, si));
                pi += 1;
                continue;
            }
            Some(b'_') if si < s.len() => {
                si += width(&s[si..]);
                pi += 1;
                true
            }
            Some(b'\\') => {
                let Some(c) = p.get(pi + 1) else {
                    // Seen only by who gets there with characters left, or right after a `%`.
                    if si == s.len() && back.is_none_or(|(after, _)| after != pi) {
                        return Ok(false);
                    }
                    return Err(SqlError::new(SqlState::INVALID_ESCAPE_SEQUENCE, "LIKE pattern must not end with escape character"));
                };
                let hit = s.get(si) == Some(c);
                if hit {
                    si += 1;
                    pi += 2;
                }
                hit
            }
            Some(c) if *c != b'_' && s.get(si) == Some(c) => {
                si += 1;
                pi += 1;
                true
            }
            None if si == s.len() => return Ok(true),
            _ => false,
        };
        if advanced {
            continue;
        }
        match &mut back {
            Some((after, from)) if *from < s.len() => {
                *from += width(&s[*from..]);
                (pi, si) = (*after, *from);
            }
            _ => return Ok(false),
        }
    }
}

fn text_like(a: &[Datum], negate: bool) -> Out {
    Ok(Datum::Bool(like(a[0].as_str()?.as_bytes(), a[1].as_str()?.as_bytes(), true)? != negate))
}

fn text_ilike(a: &[Datum], negate: bool) -> Out {
    let (s, p) = (a[0].as_str()?.to_lowercase(), a[1].as_str()?.to_lowercase());
    Ok(Datum::Bool(like(s.as_bytes(), p.as_bytes(), true)? != negate))
}

fn bytea_like(a: &[Datum], negate: bool) -> Out {
    Ok(Datum::Bool(like(a[0].as_bytes()?, a[1].as_bytes()?, false)? != negate))
}

fn bad_escape() -> SqlError {
    SqlError::new(SqlState::INVALID_ESCAPE_SEQUENCE, "invalid escape string").hint("Escape string must be empty or one character.")
}

fn one_char(s: &str) -> Result<Option<char>, SqlError> {
    let mut chars = s.chars();
    match (chars.next(), chars.next()) {
        (c, None) => Ok(c),
        _ => Err(bad_escape()),
    }
}

/// `like_escape`: a pattern with another escape character, as one with backslash.
fn like_escape(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let p = a[0].as_str()?;
    let escape = one_char(a[1].as_str()?)?;
    if escape == Some('\\') {
        return Ok(a[0].clone());
    }
    let mut out = String::new();
    let mut chars = p.chars();
    while let Some(c) = chars.next() {
        if Some(c) == escape {
            out.push('\\');
            out.extend(chars.next());
        } else if c == '\\' {
            out.push_str("\\\\");
        } else {
            out.push(c);
        }
    }
    Ok(Datum::from(out))
}

/// A SIMILAR TO pattern as a regular expression.
fn similar_escape(p: &str, escape: Option<char>) -> Result<String, SqlError> {
    let mut out = String::from("^(?:");
    let mut quotes = 0;
    let mut chars = p.chars().peekable();
    // Inside brackets: how many characters since the opening one.
    let mut class: Option<u32> = None;
    while let Some(c) = chars.next() {
        if Some(c) == escape {
            match chars.next() {
                Some('"') if class.is_none() => {
                    match quotes {
                        0 => out.push_str("){1,1}?("),
                        1 => out.push_str("){1,1}(?:"),
                        _ => {
                            return Err(SqlError::new(
                                SqlState("2200C"),
                                "SQL regular expression may not contain more than two escape-double-quote separators",
                            ));
                        }
                    }
                    quotes += 1;
                }
                Some(c) => {
                    out.push('\\');
                    out.push(c);
                }
                None => {}
            }
            continue;
        }
        if let Some(n) = class {
            if c == ']' && n > 0 {
                class = None;
            } else if !(c == '^' && n == 0) {
                class = Some(n + 1);
            }
            if c == '\\' {
                out.push('\\');
            }
            out.push(c);
            continue;
        }
        match c {
            '[' => {
                class = Some(0);
                out.push(c);
            }
            '%' => out.push_str(".*"),
            '_' => out.push('.'),
            '(' => out.push_str("(?:"),
            '\\' | '.' | '^' | '$' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out.push_str(")$");
    Ok(out)
}

// ---------------------------------------------------------------------------------------------------------------------
// Regular expressions

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
struct Flags {
    global: bool,
    ignore_case: bool,
    /// `.` and `[^x]` do not match a newline.
    partial: bool,
    /// `^` and `$` match at lines.
    lines: bool,
    expanded: bool,
    quoted: bool,
}

fn flags(text: &str, what: &str, allow_global: bool) -> Result<Flags, SqlError> {
    let mut f = Flags::default();
    for c in text.chars() {
        match c {
            'g' if allow_global => f.global = true,
            'i' => f.ignore_case = true,
            'c' => f.ignore_case = false,
            'm' | 'n' => (f.partial, f.lines) = (true, true),
            'p' => (f.partial, f.lines) = (true, false),
            's' => (f.partial, f.lines) = (false, false),
            'w' => (f.partial, f.lines) = (false, true),
            'x' => f.expanded = true,
            't' => f.expanded = false,
            'q' => f.quoted = true,
            'b' | 'e' => {}
            'g' => {
                return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, format!("{what}() does not support the \"global\" option")));
            }
            c => {
                return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, format!("invalid regular expression option: \"{c}\"")));
            }
        }
    }
    Ok(f)
}

/// Translates a pattern; `flags` may be changed by its prefix.
fn translate(pattern: &str, f: &mut Flags) -> String {
    let mut p = pattern;
    if let Some(rest) = p.strip_prefix("***=") {
        f.quoted = true;
        p = rest;
    } else if let Some(rest) = p.strip_prefix("***:") {
        p = rest;
    }
    if f.quoted {
        return regex::escape(p);
    }
    // Embedded options at the very start: `(?i)`, `(?n)`.
    if let Some(body) = p.strip_prefix("(?")
        && let Some(end) = body.find(')')
        && !body[..end].is_empty()
        && body[..end].bytes().all(|c| c.is_ascii_lowercase())
        && let Ok(embedded) = flags(&body[..end], "", false)
    {
        let on = |letters: &str| body[..end].contains(|c| letters.contains(c));
        if on("ic") {
            f.ignore_case = embedded.ignore_case;
        }
        if on("mnpsw") {
            (f.partial, f.lines) = (embedded.partial, embedded.lines);
        }
        if on("xt") {
            f.expanded = embedded.expanded;
        }
        if embedded.quoted {
            return regex::escape(&body[end + 1..]);
        }
        p = &body[end + 1..];
    }
    let mut out = String::with_capacity(p.len() + 8);
    let mut chars = p.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('y') => out.push_str("\\b"),
                Some('Y') => out.push_str("\\B"),
                Some('m') => out.push_str("\\b(?=\\w)"),
                Some('M') => out.push_str("\\b(?<=\\w)"),
                Some('Z') => out.push_str("\\z"),
                Some('A') => out.push_str("\\A"),
                Some('e') => out.push_str("\\x1B"),
                Some('b') => out.push_str("\\x08"),
                Some('B') => out.push_str("\\\\"),
                Some('u') => hex_escape(&mut chars, 4, &mut out),
                Some('U') => hex_escape(&mut chars, 8, &mut out),
                Some('c') => {
                    if let Some(x) = chars.next() {
                        out.push_str(&format!("\\x{:02x}", u32::from(x) & 31));
                    }
                }
                Some(e) if e.is_ascii_alphanumeric() => {
                    out.push('\\');
                    out.push(e);
                }
                Some(e) => out.push_str(&regex::escape(&e.to_string())),
                None => out.push('\\'),
            },
            '[' => class(&mut chars, &mut out),
            // A brace that starts no bound is literal.
            '{' if !chars.peek().is_some_and(char::is_ascii_digit) => out.push_str("\\{"),
            '}' if !open_bound(&out) => out.push_str("\\}"),
            c => out.push(c),
        }
    }
    out
}

/// Is there a `{` in the output that waits for its `}`?
fn open_bound(out: &str) -> bool {
    let tail = out.trim_end_matches(|c: char| c.is_ascii_digit() || c == ',');
    tail.ends_with('{') && !tail.ends_with("\\{")
}

fn hex_escape(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, n: usize, out: &mut String) {
    let digits: String = std::iter::from_fn(|| chars.next_if(char::is_ascii_hexdigit)).take(n).collect();
    out.push_str(&format!("\\x{{{digits}}}"));
}

/// A bracket expression, after its `[`.
fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, out: &mut String) {
    // `[[:<:]]` and `[[:>:]]` are word boundaries.
    let rest: String = chars.clone().take(7).collect();
    for (word, boundary) in [("[:<:]]", "\\b(?=\\w)"), ("[:>:]]", "\\b(?<=\\w)")] {
        if rest.starts_with(word) {
            for _ in 0..word.len() {
                chars.next();
            }
            out.push_str(boundary);
            return;
        }
    }
    out.push('[');
    if chars.next_if_eq(&'^').is_some() {
        out.push('^');
    }
    if chars.next_if_eq(&']').is_some() {
        out.push_str("\\]");
    }
    while let Some(c) = chars.next() {
        match c {
            ']' => {
                out.push(']');
                return;
            }
            '[' => match chars.peek().copied() {
                Some(kind @ (':' | '.' | '=')) => {
                    chars.next();
                    let mut name = String::new();
                    while let Some(c) = chars.next() {
                        if c == kind && chars.next_if_eq(&']').is_some() {
                            break;
                        }
                        name.push(c);
                    }
                    if kind == ':' {
                        out.push_str(match name.as_str() {
                            "alpha" => "\\p{Alphabetic}",
                            "digit" => "0-9",
                            "alnum" => "\\p{Alphabetic}0-9",
                            "upper" => "\\p{Uppercase}",
                            "lower" => "\\p{Lowercase}",
                            "space" => "\\s",
                            "blank" => " \\t",
                            "punct" => "!-/:-@\\[-`{-~",
                            "cntrl" => "\\x00-\\x1F\\x7F",
                            "xdigit" => "0-9A-Fa-f",
                            "graph" => "!-~",
                            "print" => " -~",
                            "word" => "\\w",
                            _ => "",
                        });
                    } else {
                        out.push_str(&regex::escape(&name));
                    }
                }
                _ => out.push_str("\\["),
            },
            '\\' => match chars.next() {
                Some('b') => out.push_str("\\x08"),
                Some('e') => out.push_str("\\x1B"),
                Some('B') => out.push_str("\\\\"),
                Some(e) if e.is_ascii_alphanumeric() => {
                    out.push('\\');
                    out.push(e);
                }
                Some(e) => out.push_str(&regex::escape(&e.to_string())),
                None => out.push('\\'),
            },
            '&' | '~' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
}

/// Patterns lately compiled on this thread, newest last.
const CACHED: usize = 32;

type Cached = (String, Flags, Arc<Regex>);

thread_local! {
    static CACHE: RefCell<Vec<Cached>> = const { RefCell::new(Vec::new()) };
}

fn compile(pattern: &str, f: Flags) -> Result<Arc<Regex>, SqlError> {
    let hit = CACHE.with_borrow_mut(|cache| {
        let at = cache.iter().position(|(p, g, _)| *g == f && p == pattern)?;
        let entry = cache.remove(at);
        let regex = Arc::clone(&entry.2);
        cache.push(entry);
        Some(regex)
    });
    if let Some(r) = hit {
        return Ok(r);
    }
    let mut g = f;
    let body = translate(pattern, &mut g);
    let mut options = String::new();
    if g.ignore_case {
        options.push('i');
    }
    if !g.partial {
        options.push('s');
    }
    if g.lines {
        options.push('m');
    }
    if g.expanded {
        options.push('x');
    }
    let full = if options.is_empty() { body } else { format!("(?{options}){body}") };
    let regex = RegexBuilder::new(&full).backtrack_limit(10_000_000).build().map_err(|e| invalid(pattern, &e))?;
    let regex = Arc::new(regex);
    CACHE.with_borrow_mut(|cache| {
        if cache.len() >= CACHED {
            cache.remove(0);
        }
        cache.push((pattern.to_owned(), f, Arc::clone(&regex)));
    });
    Ok(regex)
}

fn invalid(pattern: &str, e: &fancy_regex::Error) -> SqlError {
    // PostgreSQL's words for the usual mistakes; the library's own otherwise.
    let text = e.to_string();
    let open = |o: char, c: char| pattern.matches(o).count() > pattern.matches(c).count();
    let why = if text.contains("repetition operator missing") || text.contains("Target of repeat operator is invalid") {
        "quantifier operand invalid".to_owned()
    } else if open('(', ')') || text.contains("arenthes") || text.contains("unclosed group") {
        "parentheses () not balanced".to_owned()
    } else if open('[', ']') {
        "brackets [] not balanced".to_owned()
    } else if pattern.ends_with('\\') {
        "invalid escape \\ sequence".to_owned()
    } else {
        text.lines().last().unwrap_or(&text).trim().to_owned()
    };
    SqlError::new(SqlState::INVALID_REGULAR_EXPRESSION, format!("invalid regular expression: {why}"))
}

fn run_failed(e: &fancy_regex::Error) -> SqlError {
    SqlError::new(SqlState::INVALID_REGULAR_EXPRESSION, format!("regular expression failed: {e}"))
}

fn is_match(a: &[Datum], ignore_case: bool, negate: bool) -> Out {
    let regex = compile(a[1].as_str()?, Flags { ignore_case, ..Flags::default() })?;
    Ok(Datum::Bool(regex.is_match(a[0].as_str()?).map_err(|e| run_failed(&e))? != negate))
}

/// All matches, or the first; each as captures.
fn find<'t>(regex: &Regex, s: &'t str, global: bool) -> Result<Vec<Captures<'t>>, SqlError> {
    let mut out = Vec::new();
    for captures in regex.captures_iter(s) {
        out.push(captures.map_err(|e| run_failed(&e))?);
        if !global {
            break;
        }
    }
    Ok(out)
}

/// A match as `regexp_match` shows it: its groups, or the whole when there are none.
fn groups(c: &Captures<'_>) -> Datum {
    let item = |i: usize| c.get(i).map_or(Datum::Null, |m| Datum::text(m.as_str()));
    let values = if c.len() > 1 { (1..c.len()).map(item).collect() } else { vec![item(0)] };
    Datum::array(ArrayValue::one_dim(oids::TEXT, values))
}

fn flags_of(a: &[Datum], at: usize, what: &str, global: bool) -> Result<Flags, SqlError> {
    a.get(at).map_or(Ok(Flags::default()), |f| flags(f.as_str()?, what, global))
}

fn regexp_match(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let f = a.get(2).map_or(Ok(Flags::default()), |t| {
        flags(t.as_str()?, "regexp_match", false).map_err(|e| e.hint("Use the regexp_matches function instead."))
    })?;
    let regex = compile(a[1].as_str()?, f)?;
    let s = a[0].as_str()?;
    Ok(find(&regex, s, false)?.first().map_or(Datum::Null, groups))
}

/// `regexp_matches`.
///
/// # Errors
/// `2201B` for an invalid pattern.
pub(super) fn matches(a: &[Datum]) -> Result<Vec<Datum>, SqlError> {
    let f = flags_of(a, 2, "regexp_matches", true)?;
    let regex = compile(a[1].as_str()?, Flags { global: false, ..f })?;
    Ok(find(&regex, a[0].as_str()?, f.global)?.iter().map(groups).collect())
}

/// `regexp_split_to_*`.
///
/// # Errors
/// `2201B` for an invalid pattern.
fn split(a: &[Datum]) -> Result<Vec<Datum>, SqlError> {
    let s = a[0].as_str()?;
    Ok(pieces(a)?.into_iter().map(|piece| Datum::text(&s[piece])).collect())
}

/// Where the pieces lie that a pattern splits a text into.
pub(super) fn pieces(a: &[Datum]) -> Result<Vec<Range<usize>>, SqlError> {
    let f = flags_of(a, 2, "regexp_split_to_table", false)?;
    let regex = compile(a[1].as_str()?, f)?;
    let s = a[0].as_str()?;
    let mut out = Vec::new();
    let mut from = 0;
    for m in regex.find_iter(s) {
        let m = m.map_err(|e| run_failed(&e))?;
        // Empty matches at the ends, or right after a match, split nothing.
        if m.end() == m.start() && (m.start() == from && m.start() == 0 || m.start() >= s.len() || m.start() == from) {
            continue;
        }
        out.push(from..m.start());
        from = m.end();
    }
    out.push(from..s.len());
    Ok(out)
}

/// Appends a replacement: `\1` to `\9`, `\&`, `\\`.
fn expand(template: &str, c: &Captures<'_>, out: &mut String) {
    let mut chars = template.chars();
    while let Some(ch) = chars.next() {
        if ch != '\\' {
            out.push(ch);
            continue;
        }
        match chars.next() {
            Some('&') => out.push_str(c.get(0).map_or("", |m| m.as_str())),
            Some(d @ '1'..='9') => {
                let i = d.to_digit(10).unwrap_or(0) as usize;
                out.push_str(c.get(i).map_or("", |m| m.as_str()));
            }
            Some('\\') => out.push('\\'),
            Some(other) => {
                out.push('\\');
                out.push(other);
            }
            None => out.push('\\'),
        }
    }
}

/// Replaces the `n`th match from `start`, or all when `n` is 0.
fn replace(s: &str, regex: &Regex, with: &str, start: usize, n: usize) -> Out {
    let mut out = String::with_capacity(s.len());
    let mut from = 0;
    for (i, c) in find(regex, &s[start..], n != 1)?.iter().enumerate() {
        if n > 0 && i + 1 != n {
            continue;
        }
        let Some(m) = c.get(0) else { continue };
        out.push_str(&s[from..start + m.start()]);
        expand(with, c, &mut out);
        from = start + m.end();
        if n > 0 {
            break;
        }
    }
    out.push_str(&s[from..]);
    Ok(Datum::from(out))
}

fn regexp_replace(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let (s, pattern, with) = (a[0].as_str()?, a[1].as_str()?, a[2].as_str()?);
    if let Some(first) = a.get(3).map(Datum::as_str).transpose()?.and_then(|f| f.chars().next())
        && first.is_ascii_digit()
    {
        return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, format!("invalid regular expression option: \"{first}\""))
            .hint("If you meant to use regexp_replace() with a start parameter, cast the fourth argument to integer explicitly."));
    }
    let f = flags_of(a, 3, "regexp_replace", true)?;
    let regex = compile(pattern, Flags { global: false, ..f })?;
    replace(s, &regex, with, 0, usize::from(!f.global))
}

fn positive(a: &[Datum], at: usize, name: &str, zero: bool) -> Result<Option<usize>, SqlError> {
    let Some(d) = a.get(at) else { return Ok(None) };
    let n = d.as_i32()?;
    usize::try_from(n)
        .ok()
        .filter(|n| zero || *n > 0)
        .map(Some)
        .ok_or_else(|| SqlError::new(SqlState::INVALID_PARAMETER_VALUE, format!("invalid value for parameter \"{name}\": {n}")))
}

/// Byte offset of the `n`th character (from 1).
fn offset(s: &str, n: usize) -> usize {
    s.char_indices().nth(n - 1).map_or(s.len(), |(i, _)| i)
}

fn regexp_replace_extended(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let (s, pattern, with) = (a[0].as_str()?, a[1].as_str()?, a[2].as_str()?);
    let start = positive(a, 3, "start", false)?.unwrap_or(1);
    let n = positive(a, 4, "n", true)?;
    let f = flags_of(a, 5, "regexp_replace", true)?;
    let n = n.unwrap_or(usize::from(!f.global));
    let regex = compile(pattern, Flags { global: false, ..f })?;
    replace(s, &regex, with, offset(s, start), n)
}

fn regexp_count(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let s = a[0].as_str()?;
    let start = positive(a, 2, "start", false)?.unwrap_or(1);
    let regex = compile(a[1].as_str()?, flags_of(a, 3, "regexp_count", false)?)?;
    let n = find(&regex, &s[offset(s, start)..], true)?.len();
    Ok(Datum::Int4(i32::try_from(n).unwrap_or(i32::MAX)))
}

fn regexp_like(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let regex = compile(a[1].as_str()?, flags_of(a, 2, "regexp_like", false)?)?;
    Ok(Datum::Bool(regex.is_match(a[0].as_str()?).map_err(|e| run_failed(&e))?))
}

fn regexp_instr(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let s = a[0].as_str()?;
    let start = positive(a, 2, "start", false)?.unwrap_or(1);
    let n = positive(a, 3, "n", false)?.unwrap_or(1);
    let end = positive(a, 4, "endoption", true)?.unwrap_or(0);
    if end > 1 {
        return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, format!("invalid value for parameter \"endoption\": {end}")));
    }
    let regex = compile(a[1].as_str()?, flags_of(a, 5, "regexp_instr", false)?)?;
    let group = positive(a, 6, "subexpr", true)?.unwrap_or(0);
    if start > s.chars().count() + 1 {
        return Ok(Datum::Int4(0));
    }
    let from = offset(s, start);
    let found = find(&regex, &s[from..], true)?;
    let at = found.get(n - 1).and_then(|c| c.get(group)).map_or(0, |m| {
        let byte = from + if end == 1 { m.end() } else { m.start() };
        i32::try_from(s[..byte].chars().count() + 1).unwrap_or(i32::MAX)
    });
    Ok(Datum::Int4(at))
}

fn regexp_substr(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let s = a[0].as_str()?;
    let start = positive(a, 2, "start", false)?.unwrap_or(1);
    let n = positive(a, 3, "n", false)?.unwrap_or(1);
    let regex = compile(a[1].as_str()?, flags_of(a, 4, "regexp_substr", false)?)?;
    let group = positive(a, 5, "subexpr", true)?.unwrap_or(0);
    let found = find(&regex, &s[offset(s, start)..], true)?;
    Ok(found.get(n - 1).and_then(|c| c.get(group)).map_or(Datum::Null, |m| Datum::text(m.as_str())))
}

/// `substring(s from pattern)`: the first group, or the whole match.
fn substring(s: &str, pattern: &str) -> Out {
    let regex = compile(pattern, Flags::default())?;
    Ok(find(&regex, s, false)?.first().map_or(Datum::Null, |c| {
        let i = usize::from(c.len() > 1);
        c.get(i).map_or(Datum::Null, |m| Datum::text(m.as_str()))
    }))
}

/// By `prosrc`.
pub(super) const SCALARS: &[(&str, ScalarFn)] = &[
    ("textlike", |_, a| text_like(a, false)),
    ("textnlike", |_, a| text_like(a, true)),
    ("namelike", |_, a| text_like(a, false)),
    ("namenlike", |_, a| text_like(a, true)),
    ("bytealike", |_, a| bytea_like(a, false)),
    ("byteanlike", |_, a| bytea_like(a, true)),
    ("texticlike", |_, a| text_ilike(a, false)),
    ("texticnlike", |_, a| text_ilike(a, true)),
    ("nameiclike", |_, a| text_ilike(a, false)),
    ("nameicnlike", |_, a| text_ilike(a, true)),
    ("like_escape", like_escape),
    ("similar_to_escape_1", |_, a| similar_escape(a[0].as_str()?, Some('\\')).map(Datum::from)),
    ("similar_to_escape_2", |_, a| similar_escape(a[0].as_str()?, one_char(a[1].as_str()?)?).map(Datum::from)),
    ("similar_escape", |_, a| {
        if a[0].is_null() {
            return Ok(Datum::Null);
        }
        let escape = if a[1].is_null() { Some('\\') } else { one_char(a[1].as_str()?)? };
        similar_escape(a[0].as_str()?, escape).map(Datum::from)
    }),
    ("textregexeq", |_, a| is_match(a, false, false)),
    ("textregexne", |_, a| is_match(a, false, true)),
    ("nameregexeq", |_, a| is_match(a, false, false)),
    ("nameregexne", |_, a| is_match(a, false, true)),
    ("texticregexeq", |_, a| is_match(a, true, false)),
    ("texticregexne", |_, a| is_match(a, true, true)),
    ("nameicregexeq", |_, a| is_match(a, true, false)),
    ("nameicregexne", |_, a| is_match(a, true, true)),
    ("regexp_match", regexp_match),
    ("regexp_match_no_flags", regexp_match),
    ("textregexreplace_noopt", regexp_replace),
    ("textregexreplace", regexp_replace),
    ("textregexreplace_extended", regexp_replace_extended),
    ("textregexreplace_extended_no_n", regexp_replace_extended),
    ("textregexreplace_extended_no_flags", regexp_replace_extended),
    ("regexp_split_to_array", |_, a| split(a).map(|v| Datum::array(ArrayValue::one_dim(oids::TEXT, v)))),
    ("regexp_split_to_array_no_flags", |_, a| split(a).map(|v| Datum::array(ArrayValue::one_dim(oids::TEXT, v)))),
    ("regexp_count", regexp_count),
    ("regexp_count_no_start", regexp_count),
    ("regexp_count_no_flags", regexp_count),
    ("regexp_like", regexp_like),
    ("regexp_like_no_flags", regexp_like),
    ("regexp_instr", regexp_instr),
    ("regexp_instr_no_start", regexp_instr),
    ("regexp_instr_no_n", regexp_instr),
    ("regexp_instr_no_endoption", regexp_instr),
    ("regexp_instr_no_flags", regexp_instr),
    ("regexp_instr_no_subexpr", regexp_instr),
    ("regexp_substr", regexp_substr),
    ("regexp_substr_no_start", regexp_substr),
    ("regexp_substr_no_n", regexp_substr),
    ("regexp_substr_no_flags", regexp_substr),
    ("regexp_substr_no_subexpr", regexp_substr),
    ("textregexsubstr", |_, a| substring(a[0].as_str()?, a[1].as_str()?)),
    ("substring@25,25,25", |_, a| substring(a[0].as_str()?, &similar_escape(a[1].as_str()?, one_char(a[2].as_str()?)?)?)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn like_matches_as_postgres_does() {
        let l = |s: &str, p: &str| like(s.as_bytes(), p.as_bytes(), true).unwrap();
        assert!(l("hello", "h%o") && l("hello", "_ello") && l("héé", "h__") && l("", "%") && l("a%c", "a\\%c"));
        assert!(!l("hello", "h_o") && !l("abc", "a\\%c") && l("aXbXc", "%X%c") && l("aaab", "%a%ab"));
        // As PostgreSQL, only where the escape is looked at.
        for (s, p) in [("xy", "x\\"), ("", "%\\"), ("x", "\\"), ("xyz", "xy%\\")] {
            assert!(like(s.as_bytes(), p.as_bytes(), true).is_err(), "{s} {p}");
        }
        for (s, p) in [("x", "x\\"), ("xy", "y\\"), ("", "\\")] {
            assert!(!like(s.as_bytes(), p.as_bytes(), true).unwrap(), "{s} {p}");
        }
    }

    #[test]
    fn patterns_translate() {
        let m = |p: &str, s: &str| compile(p, Flags::default()).unwrap().is_match(s).unwrap();
        assert!(m("^(pg_class)$", "pg_class") && m("\\mfoo\\M", "a foo b") && !m("\\mfoo\\M", "afoo"));
        assert!(m("[[:alpha:]]+", "abc") && m("a{2}", "aa") && m("(a)\\1", "aa") && m("(?i)ABC", "abc"));
        assert!(m("x{", "x{") && m("[a-c&&b]", "&") && m("a.b", "a\nb"));
        assert_eq!(similar_escape("(a|b)%_", Some('\\')).unwrap(), "^(?:(?:a|b).*.)$");
        assert!(compile("(", Flags::default()).is_err());
    }
}
