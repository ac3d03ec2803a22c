//! How deeply a text may nest, judged before any recursive code sees it.

/// Levels of nesting that binding accepts, if the stack does.
pub const MAX_DEPTH: usize = 10_000;

/// What one open bracket, or the text outside of all, has so far.
#[derive(Clone, Copy, Default)]
struct Level {
    /// Tokens since the last separator: operators may nest all of them.
    here: usize,
    /// Joins and set operations: each nests what stands before it, separators included.
    chain: usize,
    /// Opened by CASE rather than by a bracket.
    case: bool,
}

/// An upper bound of the nesting of the parse tree of `text`. Brackets and CASE open a level; a comma, AND, OR, WHEN, THEN and ELSE
/// stand between siblings, so that tokens count from the last of them. Strings, quoted names and comments count as one token at most.
pub(super) fn bound(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut open: Vec<Level> = Vec::new();
    let mut level = Level::default();
    // Nesting of the open levels.
    let mut below = 0usize;
    let mut max = 0usize;
    let mut i = 0;
    while let Some(&b) = bytes.get(i) {
        match b {
            b'\'' | b'"' => {
                i = end_of_quoted(bytes, i, false);
                level.here += 1;
            }
            b'-' if bytes.get(i + 1) == Some(&b'-') => {
                while bytes.get(i + 1).is_some_and(|c| *c != b'\n' && *c != b'\r') {
                    i += 1;
                }
            }
            b'/' if bytes.get(i + 1) == Some(&b'*') => i = end_of_comment(bytes, i),
            b'$' => {
                i = end_of_dollar(bytes, i);
                level.here += 1;
            }
            b'(' | b'[' => {
                level.here += 1;
                below += level.here + level.chain;
                open.push(std::mem::take(&mut level));
            }
            b')' | b']' => {
                // An END may be missing where the text is wrong; the bracket closes all the same.
                while let Some(outer) = open.pop() {
                    below -= outer.here + outer.chain;
                    let case = level.case;
                    level = outer;
                    if !case {
                        break;
                    }
                }
            }
            b',' => level.here = 0,
            b';' => level = Level { case: level.case, ..Level::default() },
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => {}
            c if c.is_ascii_alphanumeric() || c == b'_' || c >= 0x80 => {
                let start = i;
                while bytes.get(i + 1).is_some_and(|c| c.is_ascii_alphanumeric() || matches!(*c, b'_' | b'.' | b'$') || *c >= 0x80) {
                    i += 1;
                }
                let word = bytes.get(start..=i).unwrap_or_default();
                let is = |keyword: &str| word.eq_ignore_ascii_case(keyword.as_bytes());
                if is("e") && bytes.get(i + 1) == Some(&b'\'') {
                    i = end_of_quoted(bytes, i + 1, true);
                    level.here += 1;
                } else if is("case") {
                    level.here += 1;
                    below += level.here + level.chain;
                    open.push(std::mem::replace(&mut level, Level { case: true, ..Level::default() }));
                } else if is("end") && level.case {
                    if let Some(outer) = open.pop() {
                        below -= outer.here + outer.chain;
                        level = outer;
                    }
                } else if is("and") || is("or") || is("when") || is("then") || is("else") {
                    level.here = 1;
                } else if is("join") || is("union") || is("intersect") || is("except") {
                    level.chain += 1;
                    level.here += 1;
                } else {
                    level.here += 1;
                }
            }
            _ => level.here += 1,
        }
        max = max.max(below + level.here + level.chain);
        i += 1;
    }
    max
}

/// Place of the quote that ends what begins at `start`, or of the last byte.
fn end_of_quoted(bytes: &[u8], start: usize, escapes: bool) -> usize {
    let quote = bytes.get(start);
    let mut i = start + 1;
    while let Some(c) = bytes.get(i) {
        if escapes && *c == b'\\' {
            i += 1;
        } else if Some(c) == quote {
            return i;
        }
        i += 1;
    }
    i
}

/// Place of the last byte of the comment that begins at `start`; comments nest.
fn end_of_comment(bytes: &[u8], start: usize) -> usize {
    let mut depth = 0usize;
    let mut i = start;
    while i < bytes.len() {
        match (bytes.get(i), bytes.get(i + 1)) {
            (Some(b'/'), Some(b'*')) => {
                depth += 1;
                i += 1;
            }
            (Some(b'*'), Some(b'/')) => {
                depth -= 1;
                i += 1;
                if depth == 0 {
                    return i;
                }
            }
            _ => {}
        }
        i += 1;
    }
    i
}

/// Place of the last byte of the dollar-quoted string that begins at `start`; `start` itself if none does.
fn end_of_dollar(bytes: &[u8], start: usize) -> usize {
    let mut i = start + 1;
    while let Some(c) = bytes.get(i) {
        let first = i == start + 1;
        if *c == b'$' {
            break;
        }
        if !(c.is_ascii_alphabetic() || *c == b'_' || *c >= 0x80 || (!first && c.is_ascii_digit())) {
            return start;
        }
        i += 1;
    }
    let Some(tag) = bytes.get(start..=i) else { return start };
    let body = i + 1;
    match bytes.get(body..).and_then(|rest| rest.windows(tag.len()).position(|w| w == tag)) {
        Some(at) => body + at + tag.len() - 1,
        None => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::bound;

    #[test]
    fn lists_do_not_nest_and_chains_do() {
        assert!(bound(&format!("insert into t values {}", vec!["(1,2,'a')"; 1000].join(","))) < 20);
        assert!(bound(&vec!["1"; 1000].join("+")) >= 1000);
        assert!(bound(&"(".repeat(500)) >= 500);
        assert!(bound("select 'a(((((((' -- ((((\n, 1") < 6);
        assert!(bound(&format!("select {}", vec!["a = 1 and b = 2"; 1000].join(" or "))) < 20);
        assert!(bound(&vec!["select 1, 2"; 1000].join(" union all ")) >= 1000);
        assert!(bound(&format!("select 1 from t {}", "join t on a = b and c = d ".repeat(1000))) >= 1000);
    }

    #[test]
    fn case_nests_and_its_arms_do_not() {
        assert!(bound(&format!("select {}", "case when a and ".repeat(1000))) >= 1000);
        assert!(bound(&format!("select case {} end", "when a = 1 then 2 ".repeat(1000))) < 20);
        assert!(bound(&"case when a then 1 end, ".repeat(1000)) < 20);
    }

    #[test]
    fn quotes_do_not_hide_what_follows() {
        let deep = "(".repeat(1000);
        for head in [
            r"select E'\'' + ",
            "select /* don't */ ",
            "select $$'$$ || ",
            "select $a$ ' $$ $a$ || ",
            "select e'\\\\' || ",
            "select \"'\" || ",
        ] {
            assert!(bound(&format!("{head}{deep}")) >= 1000, "{head}");
        }
        assert!(bound(&format!("do $$ {deep} $$")) < 5);
        assert!(bound(&format!("select 1 /* {deep} /* ' */ {deep} */")) < 5);
    }
}
