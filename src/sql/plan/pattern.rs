//! What every text that matches a pattern begins with: `LIKE 'abc%'`, `~ '^abc'`, `^@ 'abc'` are ranges of an index.
//!
//! Text is ordered by its bytes here, so that texts with one beginning are neighbours in any index on them.
//! PostgreSQL: utils/adt/like_support.c.

use super::selectivity::strip;
use crate::executor::plan::Pattern;
use crate::sql::bind::expr::{CallExpr, Expr, ExprKind};
use crate::sql::functions::CallTypes;
use crate::sql::functions::registry::{oper_by_oid, proc_by_oid};
use crate::sql::types::{Datum, Oid, oids};

/// The kind of pattern an operator matches its right side as.
pub fn kind_of(operator: &str) -> Option<Pattern> {
    match operator {
        "~~" => Some(Pattern::Like),
        "~" => Some(Pattern::Regex),
        "^@" => Some(Pattern::Start),
        _ => None,
    }
}

/// `text_pattern_ops` and `varchar_pattern_ops`.
const PATTERN_OPCLASSES: [Oid; 2] = [4217, 4218];

/// What the index answers of a condition with this pattern, as conditions: between two texts, or equal to one. Nothing if the pattern is not known
/// yet.
pub fn bounds(key: &Expr, pattern: &Expr, kind: Pattern, opclass: Oid) -> Vec<Expr> {
    let ExprKind::Const(Datum::Text(text)) = &strip(pattern).kind else { return Vec::new() };
    let (start, whole) = kind.beginning(text);
    // Operators of text: =, >= and <, and those of the pattern classes, which go by bytes in every collation.
    let (at_least, below) = if PATTERN_OPCLASSES.contains(&opclass) { (2317, 2314) } else { (667, 664) };
    if whole {
        return compare(key, 98, &start).into_iter().collect();
    }
    let mut out: Vec<Expr> = compare(key, at_least, &start).into_iter().collect();
    out.extend(next_text(&start).and_then(|next| compare(key, below, &next)));
    out
}

fn compare(key: &Expr, oper: Oid, value: &str) -> Option<Expr> {
    let oper = oper_by_oid(oper)?;
    let func = proc_by_oid(oper.func)?;
    let value = Expr::constant(Datum::text(value), oids::TEXT);
    let key = if key.ty == oids::TEXT { key.clone() } else { Expr::new(ExprKind::Relabel(Box::new(key.clone())), oids::TEXT, -1) };
    let types =
        CallTypes { func: oper.func, args: [oids::TEXT, oids::TEXT].into_iter().collect(), result: oids::BOOL, variadic_array: false };
    let call = CallExpr { func, oper: Some(oper), types, args: vec![key, value], cast: false };
    Some(Expr::new(ExprKind::Call(Box::new(call)), oids::BOOL, -1))
}

/// The least text after all that begin with `start`, by characters.
fn next_text(start: &str) -> Option<String> {
    let mut kept = start.to_owned();
    while let Some(last) = kept.pop() {
        // Surrogates are no characters.
        let next = u32::from(last) + 1;
        let next = if next == 0xd800 { 0xe000 } else { next };
        if let Some(next) = char::from_u32(next) {
            kept.push(next);
            return Some(kept);
        }
    }
    None
}

impl Pattern {
    /// What every text that matches `pattern` begins with, and whether only that very text does.
    pub fn beginning(self, pattern: &str) -> (String, bool) {
        match self {
            Self::Start => (pattern.to_owned(), false),
            Self::Like => {
                let mut out = String::new();
                let mut rest = pattern.chars();
                while let Some(c) = rest.next() {
                    match c {
                        '%' | '_' => return (out, false),
                        // A pattern that ends so is an error once it is used.
                        '\\' => match rest.next() {
                            Some(escaped) => out.push(escaped),
                            None => return (out, false),
                        },
                        c => out.push(c),
                    }
                }
                (out, true)
            }
            Self::Regex => {
                let mut out = String::new();
                let Some(rest) = pattern.strip_prefix('^') else { return (out, false) };
                // Whatever an alternative begins with would do as well.
                if rest.contains('|') {
                    return (out, false);
                }
                for c in rest.chars() {
                    match c {
                        '*' | '?' | '{' => {
                            out.pop();
                            break;
                        }
                        c if c.is_alphanumeric()
                            || matches!(c, ' ' | '_' | '-' | '/' | ':' | ',' | '@' | '#' | '=' | '%' | '&' | '"' | '\'') =>
                        {
                            out.push(c);
                        }
                        _ => break,
                    }
                }
                (out, false)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_begin_with_what_stands_before_the_first_that_varies() {
        let of = |kind: Pattern, pattern: &str| kind.beginning(pattern);
        let known = |text: &str, whole| (text.to_owned(), whole);
        assert_eq!(of(Pattern::Like, "abc%"), known("abc", false));
        assert_eq!(of(Pattern::Like, "a_c"), known("a", false));
        assert_eq!(of(Pattern::Like, "%a"), known("", false));
        assert_eq!(of(Pattern::Like, "a\\%b\\\\"), known("a%b\\", true));
        assert_eq!(of(Pattern::Like, "ab\\"), known("ab", false));
        assert_eq!(of(Pattern::Like, ""), known("", true));
        assert_eq!(of(Pattern::Regex, "abc"), known("", false));
        assert_eq!(of(Pattern::Regex, "^abc"), known("abc", false));
        assert_eq!(of(Pattern::Regex, "^abc*"), known("ab", false));
        assert_eq!(of(Pattern::Regex, "^abc+"), known("abc", false));
        assert_eq!(of(Pattern::Regex, "^ab{0}"), known("a", false));
        assert_eq!(of(Pattern::Regex, "^ab|c"), known("", false));
        assert_eq!(of(Pattern::Regex, "^a.c"), known("a", false));
        assert_eq!(of(Pattern::Regex, "^(?i)a"), known("", false));
        assert_eq!(of(Pattern::Start, "a%"), known("a%", false));
    }

    #[test]
    fn the_next_text_is_after_all_that_begin_alike() {
        assert_eq!(next_text("abc").as_deref(), Some("abd"));
        assert_eq!(next_text("a\u{10ffff}").as_deref(), Some("b"));
        assert_eq!(next_text("a\u{d7ff}").as_deref(), Some("a\u{e000}"));
        assert_eq!(next_text(""), None);
    }
}
