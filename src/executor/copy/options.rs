//! The options of COPY.

use pg_query::NodeEnum;
use pg_query::protobuf::CopyStmt;

use crate::executor::ddl::nodes;
use crate::sqlstate::{SqlError, SqlState};

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Tab-separated with backslash escapes.
    Text,
    /// RFC 4180 and its dialects.
    Csv,
    /// PostgreSQL's own.
    Binary,
}

/// HEADER.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Header {
    /// None.
    Off,
    /// A first line of column names, skipped on input.
    On,
    /// The same, and on input it must match.
    Match,
}

/// Options of one COPY.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) format: Format,
    pub(super) delimiter: u8,
    pub(super) null: Vec<u8>,
    /// Rows are written as ones that everybody sees.
    pub(super) freeze: bool,
    pub(super) header: Header,
    pub(super) quote: u8,
    pub(super) escape: u8,
    /// Columns, `*` for all.
    pub(super) force_quote: Vec<String>,
    pub(super) force_not_null: Vec<String>,
    pub(super) force_null: Vec<String>,
}

fn bad(message: impl Into<String>) -> SqlError {
    SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message)
}

fn one_byte(name: &str, text: &str) -> Result<u8, SqlError> {
    match text.as_bytes() {
        [b] => Ok(*b),
        _ => Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, format!("COPY {name} must be a single one-byte character"))),
    }
}

impl Options {
    /// Reads and checks a statement's options. PostgreSQL: `ProcessCopyOptions`.
    pub(super) fn parse(stmt: &CopyStmt) -> Result<Self, SqlError> {
        let mut format = None;
        let (mut delimiter, mut null, mut quote, mut escape, mut header) = (None, None, None, None, None);
        let mut freeze = false;
        let (mut force_quote, mut force_not_null, mut force_null) = (Vec::new(), Vec::new(), Vec::new());
        let mut seen: Vec<&str> = Vec::new();
        for option in nodes::options(&stmt.options) {
            let name = option.defname.as_str();
            if seen.contains(&name) {
                return Err(SqlError::new(SqlState::SYNTAX_ERROR, "conflicting or redundant options"));
            }
            seen.push(name);
            let text = || nodes::option_text(option).unwrap_or_default();
            match name {
                "format" => {
                    format = Some(match text().as_str() {
                        "text" => Format::Text,
                        "csv" => Format::Csv,
                        "binary" => Format::Binary,
                        other => return Err(bad(format!("COPY format \"{other}\" not recognized"))),
                    });
                }
                "delimiter" => delimiter = Some(one_byte("delimiter", &text())?),
                "null" => null = Some(text().into_bytes()),
                "header" => {
                    header = Some(match text().to_ascii_lowercase().as_str() {
                        "" | "true" | "on" | "1" => Header::On,
                        "false" | "off" | "0" => Header::Off,
                        "match" => {
                            if !stmt.is_from {
                                return Err(bad("cannot use \"match\" with HEADER in COPY TO"));
                            }
                            Header::Match
                        }
                        _ => {
                            let message = "header requires a Boolean value or \"match\"";
                            return Err(SqlError::new(SqlState::SYNTAX_ERROR, message));
                        }
                    });
                }
                "quote" => quote = Some(one_byte("quote", &text())?),
                "escape" => escape = Some(one_byte("escape", &text())?),
                "force_quote" => force_quote = column_list(option),
                "force_not_null" => force_not_null = column_list(option),
                "force_null" => force_null = column_list(option),
                "freeze" => freeze = nodes::option_bool(option)?,
                "encoding" => {
                    let encoding = text().to_ascii_uppercase().replace(['-', '_'], "");
                    if !matches!(encoding.as_str(), "UTF8" | "UNICODE" | "SQLASCII") {
                        return Err(SqlError::unsupported(format_args!("COPY ENCODING '{}'", text())));
                    }
                }
                other => {
                    return Err(SqlError::new(SqlState::SYNTAX_ERROR, format!("option \"{other}\" not recognized")));
                }
            }
        }
        let format = format.unwrap_or(Format::Text);
        if format == Format::Binary && delimiter.is_some() {
            return Err(SqlError::new(SqlState::SYNTAX_ERROR, "cannot specify DELIMITER in BINARY mode"));
        }
        if format == Format::Binary && null.is_some() {
            return Err(SqlError::new(SqlState::SYNTAX_ERROR, "cannot specify NULL in BINARY mode"));
        }
        let this = Self {
            format,
            delimiter: delimiter.unwrap_or(if format == Format::Csv { b',' } else { b'\t' }),
            null: null.unwrap_or_else(|| if format == Format::Csv { Vec::new() } else { b"\\N".to_vec() }),
            freeze,
            header: header.unwrap_or(Header::Off),
            quote: quote.unwrap_or(b'"'),
            escape: escape.or(quote).unwrap_or(b'"'),
            force_quote,
            force_not_null,
            force_null,
        };
        this.check(stmt, quote.is_some(), escape.is_some())?;
        Ok(this)
    }

    fn check(&self, stmt: &CopyStmt, quote_given: bool, escape_given: bool) -> Result<(), SqlError> {
        let unsupported = |message: &str| Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, message));
        let csv = self.format == Format::Csv;
        if matches!(self.delimiter, b'\r' | b'\n') {
            return Err(bad("COPY delimiter cannot be newline or carriage return"));
        }
        if self.null.iter().any(|b| matches!(b, b'\r' | b'\n')) {
            return Err(bad("COPY null representation cannot use newline or carriage return"));
        }
        if !csv && b"\\.abcdefghijklmnopqrstuvwxyz0123456789".contains(&self.delimiter) {
            return Err(bad(format!("COPY delimiter cannot be \"{}\"", char::from(self.delimiter))));
        }
        if self.header != Header::Off && self.format == Format::Binary {
            return unsupported("cannot specify HEADER in BINARY mode");
        }
        if quote_given && !csv {
            return unsupported("COPY quote available only in CSV mode");
        }
        if csv && self.delimiter == self.quote {
            return Err(bad("COPY delimiter and quote must be different"));
        }
        if escape_given && !csv {
            return unsupported("COPY escape available only in CSV mode");
        }
        if !self.force_quote.is_empty() && (!csv || stmt.is_from) {
            return unsupported(if csv {
                "COPY force quote only available using COPY TO"
            } else {
                "COPY force quote available only in CSV mode"
            });
        }
        if !self.force_not_null.is_empty() && (!csv || !stmt.is_from) {
            return unsupported(if csv {
                "COPY force not null only available using COPY FROM"
            } else {
                "COPY force not null available only in CSV mode"
            });
        }
        if !self.force_null.is_empty() && (!csv || !stmt.is_from) {
            return unsupported(if csv {
                "COPY force null only available using COPY FROM"
            } else {
                "COPY force null available only in CSV mode"
            });
        }
        if self.format != Format::Binary && self.null.contains(&self.delimiter) {
            return unsupported("COPY delimiter must not appear in the NULL specification");
        }
        if csv && self.null.contains(&self.quote) {
            return unsupported("CSV quote character must not appear in the NULL specification");
        }
        Ok(())
    }
}

fn column_list(option: &pg_query::protobuf::DefElem) -> Vec<String> {
    match option.arg.as_ref().and_then(|a| a.node.as_ref()) {
        Some(NodeEnum::List(list)) => nodes::strings(&list.items).into_iter().map(str::to_owned).collect(),
        Some(NodeEnum::AStar(_)) => vec!["*".to_owned()],
        Some(NodeEnum::String(s)) => vec![s.sval.clone()],
        _ => Vec::new(),
    }
}
