//! How deeply a text may nest, judged before any recursive code sees it.

/// Levels of nesting that binding, planning and execution accept.
pub const MAX_DEPTH: usize = 4000;

/// An upper bound of the nesting of the parse tree of `text`: open brackets, plus the tokens since the last comma or
/// semicolon at each level still open. Strings, quoted names and comments count as one token.
pub(super) fn bound(text: &str) -> usize {
    let bytes = text.as_bytes();
    // Tokens before each open bracket, and their sum.
    let mut open: Vec<usize> = Vec::new();
    let mut below = 0usize;
    let mut here = 0usize;
    let mut max = 0usize;
    let mut i = 0;
    while let Some(&b) = bytes.get(i) {
        match b {
            b'\'' | b'"' => {
                i += 1;
                while let Some(&c) = bytes.get(i) {
                    if c == b {
                        break;
                    }
                    i += 1;
                }
                here += 1;
            }
            b'-' if bytes.get(i + 1) == Some(&b'-') => {
                while let Some(&c) = bytes.get(i) {
                    if c == b'\n' {
                        break;
                    }
                    i += 1;
                }
            }
            b'(' | b'[' => {
                open.push(here + 1);
                below += here + 1;
                here = 0;
            }
            b')' | b']' => {
                let outer = open.pop().unwrap_or(0);
                below -= outer;
                here = outer;
            }
            b',' | b';' => here = 0,
            b' ' | b'\t' | b'\n' | b'\r' => {}
            c if c.is_ascii_alphanumeric() || c == b'_' || c >= 0x80 => {
                while bytes.get(i + 1).is_some_and(|c| c.is_ascii_alphanumeric() || *c == b'_' || *c == b'.' || *c >= 0x80) {
                    i += 1;
                }
                here += 1;
            }
            _ => here += 1,
        }
        max = max.max(below + here);
        i += 1;
    }
    max
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
    }
}
