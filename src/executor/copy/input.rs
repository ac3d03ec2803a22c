//! COPY FROM: fields to rows of a table.

use std::sync::Arc;

use super::options::{Format, Header, Options};
use super::parse::{Fields, RowReader};
use crate::executor::SessionContext;
use crate::executor::ddl::alter::evaluate;
use crate::executor::front_end::TableExpr;
use crate::executor::loader::Loader;
use crate::sql::catalog::relation::Relation;
use crate::sql::types::{Datum, binary_recv, oids, text_in};
use crate::sqlstate::{SqlError, SqlState};

/// A COPY FROM STDIN that waits for data.
#[derive(Debug)]
pub struct CopyInState {
    relation: Arc<Relation>,
    options: Options,
    reader: RowReader,
    loader: Loader,
    /// Positions of the columns the input has, in its order.
    columns: Vec<usize>,
    /// Per input column: an empty unquoted value is no NULL; a quoted NULL text is one.
    force_not_null: Vec<bool>,
    force_null: Vec<bool>,
    /// Defaults of the other columns.
    defaults: Vec<(usize, TableExpr)>,
    condition: Option<TableExpr>,
    header_pending: bool,
    /// Why it is not to be.
    refused: Option<SqlError>,
    fields: Fields,
    quoted: Vec<bool>,
    /// The row at hand: one vector for all.
    row: Vec<Datum>,
    copied: u64,
}

impl CopyInState {
    pub(super) fn new(
        ctx: &mut SessionContext,
        relation: Arc<Relation>,
        options: Options,
        columns: Vec<usize>,
        condition: Option<TableExpr>,
    ) -> Result<Self, SqlError> {
        let forced = |list: &[String]| -> Vec<bool> {
            let named = |i: usize| relation.columns.get(i).is_some_and(|c| list.iter().any(|n| n == "*" || **n == *c.name));
            columns.iter().map(|&i| named(i)).collect()
        };
        let (force_not_null, force_null) = (forced(&options.force_not_null), forced(&options.force_null));
        let mut defaults = Vec::new();
        for (i, column) in relation.columns.iter().enumerate() {
            if columns.contains(&i) || column.dropped || column.generated {
                continue;
            }
            if let Some(text) = &column.default {
                let target = Some((column.type_oid, column.typmod));
                let front_end = ctx.front_end;
                let expr = front_end.table_expression_text(ctx, text, None, target, "DEFAULT expressions")?;
                defaults.push((i, expr));
            }
        }
        let mut loader = Loader::new(ctx, relation.clone())?;
        // Said once the client sends its rows, as PostgreSQL does: psql takes the lines behind a COPY it is refused for statements.
        let refused = if options.freeze { loader.freeze(ctx).err() } else { None };
        loader.fire_triggers(ctx)?;
        Ok(Self {
            reader: RowReader::new(&options),
            header_pending: options.header != Header::Off,
            refused,
            relation,
            options,
            loader,
            columns,
            force_not_null,
            force_null,
            defaults,
            condition,
            fields: Fields::default(),
            quoted: Vec::new(),
            row: Vec::new(),
            copied: 0,
        })
    }

    /// Whether the client is to send PostgreSQL's binary format.
    pub fn is_binary(&self) -> bool {
        self.options.format == Format::Binary
    }

    /// Number of columns, for CopyInResponse.
    pub fn columns(&self) -> usize {
        self.columns.len()
    }

    /// Takes the bytes of one CopyData message; they end anywhere.
    ///
    /// # Errors
    /// Malformed data, or what inserting a row fails with.
    pub fn data(&mut self, session: &mut SessionContext, bytes: &[u8]) -> Result<(), SqlError> {
        self.reader.push(bytes);
        self.take_rows(session, false)
    }

    /// The client sent CopyDone: inserts what is left. Returns the command tag.
    ///
    /// # Errors
    /// As [`Self::data`].
    pub fn finish(mut self, session: &mut SessionContext) -> Result<String, SqlError> {
        self.take_rows(session, true)?;
        self.loader.flush(session).map_err(|e| self.with_context(e, None))?;
        self.loader.finish(session)?;
        Ok(format!("COPY {}", self.copied))
    }

    fn take_rows(&mut self, ctx: &mut SessionContext, last: bool) -> Result<(), SqlError> {
        if let Some(refused) = self.refused.take() {
            return Err(refused);
        }
        loop {
            let (mut fields, mut quoted) = (std::mem::take(&mut self.fields), std::mem::take(&mut self.quoted));
            let found = self.reader.next(last, &mut fields, &mut quoted).map_err(|e| self.with_context(e, None));
            let result = match found {
                Ok(true) => self.take_row(ctx, &fields, &quoted),
                Ok(false) => return Ok(()),
                Err(e) => Err(e),
            };
            self.fields = fields;
            self.quoted = quoted;
            result?;
        }
    }

    fn take_row(&mut self, ctx: &mut SessionContext, fields: &Fields, quoted: &[bool]) -> Result<(), SqlError> {
        if self.header_pending {
            self.header_pending = false;
            return if self.options.header == Header::Match { self.match_header(fields) } else { Ok(()) };
        }
        let mut row = std::mem::take(&mut self.row);
        self.values(ctx, fields, quoted, &mut row)?;
        let wanted = match &self.condition {
            Some(condition) => evaluate(ctx, condition, &row)?.is_true(),
            None => true,
        };
        if wanted && self.loader.add(ctx, &mut row).map_err(|e| self.with_context(e, None))? {
            self.copied += 1;
        }
        self.row = row;
        Ok(())
    }

    /// Fields to values of the row's attributes.
    fn values(&self, ctx: &mut SessionContext, fields: &Fields, quoted: &[bool], values: &mut Vec<Datum>) -> Result<(), SqlError> {
        let bad = |message: String| self.with_context(SqlError::new(SqlState::BAD_COPY_FILE_FORMAT, message), None);
        if self.is_binary() && fields.len() != self.columns.len() {
            return Err(bad(format!("row field count is {}, expected {}", fields.len(), self.columns.len())));
        }
        if fields.len() > self.columns.len() && !(self.columns.is_empty() && fields.len() == 1) {
            return Err(bad("extra data after last expected column".into()));
        }
        values.clear();
        values.resize(self.relation.columns.len(), Datum::Null);
        for (k, &i) in self.columns.iter().enumerate() {
            let Some(column) = self.relation.columns.get(i) else { continue };
            let Some(field) = fields.get(k) else {
                return Err(bad(format!("missing data for column \"{}\"", column.name)));
            };
            let value = match field {
                Some(bytes) if self.force_null[k] && bytes == self.options.null && quoted.get(k) == Some(&true) => None,
                Some(bytes) => Some(bytes),
                None if self.force_not_null[k] => Some(self.options.null.as_slice()),
                None => None,
            };
            let Some(bytes) = value else { continue };
            let parsed = if self.is_binary() {
                binary_recv(column.type_oid, column.typmod, bytes, ctx.io())
            } else {
                match std::str::from_utf8(bytes) {
                    Ok(text) if !text.contains('\0') => text_in(column.type_oid, column.typmod, text, ctx.io()),
                    _ => Err(invalid_encoding(bytes)),
                }
            };
            values[i] = parsed.map_err(|e| {
                let shown = (!self.is_binary()).then(|| String::from_utf8_lossy(bytes).into_owned());
                self.with_context(e, Some((&column.name, shown)))
            })?;
        }
        for (i, expr) in &self.defaults {
            values[*i] = evaluate(ctx, expr, &[])?;
        }
        Ok(())
    }

    fn match_header(&self, fields: &Fields) -> Result<(), SqlError> {
        let bad = |message: String| self.with_context(SqlError::new(SqlState::BAD_COPY_FILE_FORMAT, message), None);
        if fields.len() != self.columns.len() {
            return Err(bad(format!("wrong number of fields in header line: got {}, expected {}", fields.len(), self.columns.len())));
        }
        for (k, (&i, field)) in self.columns.iter().zip(fields.iter()).enumerate() {
            let name = self.relation.columns.get(i).map_or("", |c| &c.name);
            let Some(bytes) = field else {
                let null = String::from_utf8_lossy(&self.options.null);
                return Err(bad(format!(
                    "column name mismatch in header line field {}: got null value (\"{null}\"), expected \"{name}\"",
                    k + 1
                )));
            };
            if bytes != name.as_bytes() {
                return Err(bad(format!(
                    "column name mismatch in header line field {}: got \"{}\", expected \"{name}\"",
                    k + 1,
                    String::from_utf8_lossy(bytes)
                )));
            }
        }
        Ok(())
    }

    /// Adds the CONTEXT that says where in the input it was. PostgreSQL: `CopyFromErrorCallback`.
    fn with_context(&self, e: SqlError, column: Option<(&str, Option<String>)>) -> SqlError {
        if e.fields().context.is_some() {
            return e;
        }
        let (table, line) = (&self.relation.name, self.reader.line.max(1));
        let mut text = format!("COPY {table}, line {line}");
        if let Some((column, value)) = column {
            text.push_str(&format!(", column {column}"));
            if let Some(value) = value {
                let end = (0..=value.len().min(100)).rev().find(|&i| value.is_char_boundary(i)).unwrap_or(0);
                let more = if end < value.len() { "..." } else { "" };
                text.push_str(&format!(": \"{}{more}\"", &value[..end]));
            }
        }
        e.context(text)
    }
}

fn invalid_encoding(bytes: &[u8]) -> SqlError {
    let at = std::str::from_utf8(bytes).err().map_or_else(|| bytes.iter().position(|&b| b == 0).unwrap_or(0), |e| e.valid_up_to());
    let shown: Vec<String> = bytes.iter().skip(at).take(4).map(|b| format!("0x{b:02x}")).collect();
    let shown = shown.first().cloned().unwrap_or_default();
    SqlError::new(SqlState::CHARACTER_NOT_IN_REPERTOIRE, format!("invalid byte sequence for encoding \"UTF8\": {shown}"))
}

/// True for types whose values COPY cannot read as text.
pub(super) fn refuses_text(type_oid: crate::sql::types::Oid) -> bool {
    type_oid == oids::ANYARRAY
}
