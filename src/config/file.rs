//! Configuration files: `name = value` lines, comments, quoting, include directives. PostgreSQL: `guc-file.l`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One `name = value` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// Setting name as written.
    pub name: String,
    /// Value with quotes and escapes undone.
    pub value: String,
    /// File it stands in.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: u32,
}

/// Why a file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ParseProblem {
    /// The file cannot be read.
    #[error("could not open configuration file \"{}\": {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A line does not read as `name = value`.
    #[error("syntax error in file \"{file}\" line {line}, near {}", if near.is_empty() { "end of line".to_owned() } else { format!("token \"{near}\"") })]
    Syntax {
        /// The file.
        file: String,
        /// Line, from 1.
        line: u32,
        /// What stands there; empty: nothing more.
        near: String,
    },
    /// Files that include each other.
    #[error("could not open configuration file \"{file}\": maximum nesting depth exceeded")]
    Nesting {
        /// The file.
        file: String,
    },
}

const MAX_DEPTH: u32 = 10;

/// Reads `path` and what it includes. A later entry of the same name wins; all are returned, in order.
///
/// # Errors
/// The first problem met.
pub fn parse_file(path: &Path) -> Result<Vec<FileEntry>, ParseProblem> {
    let mut out = Vec::new();
    read(path, 0, &mut out)?;
    Ok(out)
}

/// Parses text as if it stood in `file`; include directives are resolved beside it.
///
/// # Errors
/// The first problem met.
pub fn parse_text(text: &str, file: &Path) -> Result<Vec<FileEntry>, ParseProblem> {
    let mut out = Vec::new();
    parse(text, file, 0, &mut out)?;
    Ok(out)
}

fn read(path: &Path, depth: u32, out: &mut Vec<FileEntry>) -> Result<(), ParseProblem> {
    if depth > MAX_DEPTH {
        return Err(ParseProblem::Nesting { file: path.display().to_string() });
    }
    let bytes = fs::read(path).map_err(|source| ParseProblem::Open { path: path.to_owned(), source })?;
    parse(&String::from_utf8_lossy(&bytes), path, depth, out)
}

fn parse(text: &str, path: &Path, depth: u32, out: &mut Vec<FileEntry>) -> Result<(), ParseProblem> {
    let file: Arc<str> = path.display().to_string().into();
    for (number, line) in (1_u32..).zip(text.split('\n')) {
        let syntax = |near: &str| ParseProblem::Syntax { file: file.to_string(), line: number, near: near.to_owned() };
        let line = line.trim_end_matches('\r');
        let rest = line.trim_start();
        if rest.is_empty() || rest.starts_with('#') {
            continue;
        }
        let end =
            rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.' || c == '$' || !c.is_ascii())).unwrap_or(rest.len());
        let name = &rest[..end];
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit() || c == '.' || c == '$') {
            return Err(syntax(rest.split_whitespace().next().unwrap_or(rest)));
        }
        let mut rest = rest[end..].trim_start();
        if let Some(after) = rest.strip_prefix('=') {
            rest = after.trim_start();
        }
        let Some((value, after)) = parse_value(rest) else {
            return Err(syntax(rest.split_whitespace().next().unwrap_or(rest)));
        };
        let after = after.trim_start();
        if !(after.is_empty() || after.starts_with('#')) {
            return Err(syntax(after.split_whitespace().next().unwrap_or(after)));
        }
        let beside = |name: &str| path.parent().unwrap_or(Path::new("")).join(name);
        match name.to_ascii_lowercase().as_str() {
            "include" => read(&beside(&value), depth + 1, out)?,
            "include_if_exists" => {
                let target = beside(&value);
                if target.exists() {
                    read(&target, depth + 1, out)?;
                }
            }
            "include_dir" => {
                let dir = beside(&value);
                let entries = fs::read_dir(&dir).map_err(|source| ParseProblem::Open { path: dir.clone(), source })?;
                let mut files: Vec<PathBuf> = entries
                    .filter_map(Result::ok)
                    .map(|e| e.path())
                    .filter(|p| {
                        let name = p.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
                        name.ends_with(".conf") && !name.starts_with('.') && p.is_file()
                    })
                    .collect();
                files.sort();
                for file in files {
                    read(&file, depth + 1, out)?;
                }
            }
            _ => out.push(FileEntry { name: name.to_owned(), value, file: Arc::clone(&file), line: number }),
        }
    }
    Ok(())
}

/// A value and what follows it; `None` if there is none.
fn parse_value(s: &str) -> Option<(String, &str)> {
    if let Some(body) = s.strip_prefix('\'') {
        let mut out = String::new();
        let mut chars = body.char_indices().peekable();
        while let Some((i, c)) = chars.next() {
            match c {
                '\'' if chars.peek().is_some_and(|(_, c)| *c == '\'') => {
                    chars.next();
                    out.push('\'');
                }
                '\'' => return Some((out, &body[i + 1..])),
                '\\' => match chars.next()?.1 {
                    'b' => out.push('\u{8}'),
                    'f' => out.push('\u{c}'),
                    'n' => out.push('\n'),
                    'r' => out.push('\r'),
                    't' => out.push('\t'),
                    d @ '0'..='7' => {
                        let mut code = d.to_digit(8).unwrap_or(0);
                        for _ in 0..2 {
                            match chars.peek().and_then(|(_, c)| c.to_digit(8)) {
                                Some(digit) => {
                                    code = code * 8 + digit;
                                    chars.next();
                                }
                                None => break,
                            }
                        }
                        out.push(char::from_u32(code & 0xff)?);
                    }
                    other => out.push(other),
                },
                other => out.push(other),
            }
        }
        return None;
    }
    let end = s.find(|c: char| c.is_whitespace() || c == '#').unwrap_or(s.len());
    let value = &s[..end];
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '/' | '+' | '$') || !c.is_ascii();
    if value.is_empty() || !value.chars().all(plain) {
        return None;
    }
    Some((value.to_owned(), &s[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        parse_text(text, Path::new("/x/postgresql.conf")).unwrap().into_iter().map(|e| (e.name, e.value)).collect()
    }

    #[test]
    fn lines_with_and_without_equals_quotes_and_comments() {
        let got = pairs("a=1\nb = 'x''y\\n' # c\n\n# whole\nc 12MB\nd.e = on\r\n");
        let want = [("a", "1"), ("b", "x'y\n"), ("c", "12MB"), ("d.e", "on")];
        assert_eq!(got, want.map(|(a, b)| (a.to_owned(), b.to_owned())));
    }

    #[test]
    fn junk_after_a_value_is_named() {
        let err = parse_text("a = 1 2\n", Path::new("f")).unwrap_err();
        assert_eq!(err.to_string(), "syntax error in file \"f\" line 1, near token \"2\"");
    }
}
