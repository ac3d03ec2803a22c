//! The COPY statement.

use std::fs::File;
use std::io::{Read, Write};
use std::sync::Arc;

use pg_query::protobuf::CopyStmt;

use super::input::{CopyInState, refuses_text};
use super::options::{Format, Options};
use super::output::CopyWriter;
use crate::access::heap::HeapScan;
use crate::executor::ddl::expression;
use crate::executor::ddl::nodes;
use crate::executor::portal::PortalStatus;
use crate::executor::{Portal, RawStmt, RowSink, SessionContext};
use crate::sql::catalog::relation::{Persistence, RelKind, Relation};
use crate::sql::catalog::virtual_table::VirtualCx;
use crate::sql::catalog::{Source, privilege};
use crate::sql::types::{Datum, oids, row};
use crate::sqlstate::{SqlError, SqlState};
use crate::txn::LockMode;

/// COPY. Input from the client is taken by the state returned.
pub(crate) fn run(ctx: &mut SessionContext, stmt: &CopyStmt, raw: &RawStmt, sink: &mut dyn RowSink) -> Result<PortalStatus, SqlError> {
    let options = Options::parse(stmt)?;
    if stmt.is_program {
        return Err(SqlError::unsupported("COPY with PROGRAM"));
    }
    if !stmt.filename.is_empty() {
        check_file_access(ctx, stmt)?;
    }
    if stmt.is_from { copy_from(ctx, stmt, options, raw) } else { copy_to(ctx, stmt, options, raw, sink) }
}

fn check_file_access(ctx: &SessionContext, stmt: &CopyStmt) -> Result<(), SqlError> {
    let (role, verb) = if stmt.is_from { (4569, "from") } else { (4570, "to") };
    let name = if stmt.is_from { "pg_read_server_files" } else { "pg_write_server_files" };
    if !ctx.is_superuser()? && !ctx.catalog.roles_of(ctx.user, true)?.contains(&role) {
        return Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, format!("permission denied to COPY {verb} a file"))
            .detail(format!("Only roles with privileges of the \"{name}\" role may COPY {verb} a file."))
            .hint("Anyone can COPY to stdout or from stdin. psql's \\copy command also works for anyone."));
    }
    if !std::path::Path::new(&stmt.filename).is_absolute() && !stmt.is_from {
        return Err(SqlError::new(SqlState::INVALID_NAME, "relative path not allowed for COPY to file"));
    }
    Ok(())
}

/// Positions of the columns a statement names, or of all live ones.
fn columns(relation: &Relation, stmt: &CopyStmt) -> Result<Vec<usize>, SqlError> {
    let position = |attnum: i16| usize::try_from(attnum - 1).unwrap_or(0);
    if stmt.attlist.is_empty() {
        return Ok(relation.live_columns().filter(|c| !c.generated).map(|c| position(c.attnum)).collect());
    }
    let mut out = Vec::new();
    for name in nodes::strings(&stmt.attlist) {
        let column = relation.column(name).ok_or_else(|| {
            SqlError::new(SqlState::UNDEFINED_COLUMN, format!("column \"{name}\" of relation \"{}\" does not exist", relation.name))
        })?;
        if column.generated {
            return Err(SqlError::new(SqlState::INVALID_COLUMN_REFERENCE, format!("column \"{name}\" is a generated column"))
                .detail("Generated columns cannot be used in COPY."));
        }
        let i = position(column.attnum);
        if out.contains(&i) {
            return Err(SqlError::new(SqlState::DUPLICATE_COLUMN, format!("column \"{name}\" specified more than once")));
        }
        out.push(i);
    }
    Ok(out)
}

fn copy_from(ctx: &mut SessionContext, stmt: &CopyStmt, options: Options, raw: &RawStmt) -> Result<PortalStatus, SqlError> {
    ctx.transaction()?.check_not_in_recovery("execute COPY")?;
    let range = nodes::relation(stmt.relation.as_ref())?;
    let relation = ctx.open_locked(range, &raw.source, LockMode::RowExclusive)?;
    let relation = ctx.lock_large_values(relation)?;
    if relation.persistence != Persistence::Temporary {
        ctx.check_writable("COPY FROM")?;
    }
    if relation.kind != RelKind::Table {
        let kind = relation.kind.noun();
        return Err(SqlError::new(SqlState::WRONG_OBJECT_TYPE, format!("cannot copy to {kind} \"{}\"", relation.name)));
    }
    if !privilege::on_relation(&ctx.catalog, ctx.user, &relation, privilege::INSERT)? || (relation.is_system() && !ctx.is_superuser()?) {
        let message = format!("permission denied for table {}", relation.name);
        return Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, message));
    }
    if relation.is_system() {
        let message = format!("permission denied: \"{}\" is a system catalog", relation.name);
        return Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, message));
    }
    let columns = columns(&relation, stmt)?;
    for &i in &columns {
        let column = &relation.columns[i];
        if options.format != Format::Binary && refuses_text(column.type_oid) {
            return Err(SqlError::unsupported(format_args!("COPY of column \"{}\"", column.name)));
        }
    }
    let condition = match &stmt.where_clause {
        Some(node) => {
            let target = Some((oids::BOOL, -1));
            Some(expression::store(ctx, node, Some(&relation), target, "COPY FROM WHERE conditions")?.expr)
        }
        None => None,
    };
    let mut state = CopyInState::new(ctx, relation, options, columns, condition)?;
    if stmt.filename.is_empty() {
        return Ok(PortalStatus::CopyIn(Box::new(state)));
    }
    let failed = |what: &str, e: std::io::Error| {
        let state = if e.kind() == std::io::ErrorKind::NotFound { SqlState::UNDEFINED_FILE } else { SqlState::IO_ERROR };
        let why = io_text(&e);
        SqlError::new(state, format!("could not {what} file \"{}\" for reading: {why}", stmt.filename)).hint(
            "COPY FROM instructs the PostgreSQL server process to read a file. You may want a client-side facility such as psql's \\copy.",
        )
    };
    let mut file = File::open(&stmt.filename).map_err(|e| failed("open", e))?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let n = file.read(&mut buffer).map_err(|e| failed("read", e))?;
        if n == 0 {
            break;
        }
        state.data(ctx, &buffer[..n])?;
    }
    state.finish(ctx).map(PortalStatus::Complete)
}

/// The operating system's text for an error, as PostgreSQL prints it.
fn io_text(e: &std::io::Error) -> String {
    let text = e.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

fn copy_to(
    ctx: &mut SessionContext,
    stmt: &CopyStmt,
    options: Options,
    raw: &RawStmt,
    sink: &mut dyn RowSink,
) -> Result<PortalStatus, SqlError> {
    let mut file_sink;
    let sink: &mut dyn RowSink = if stmt.filename.is_empty() {
        sink
    } else {
        let file = File::create(&stmt.filename).map_err(|e| {
            let message = format!("could not open file \"{}\" for writing: {}", stmt.filename, io_text(&e));
            SqlError::new(SqlState::IO_ERROR, message)
                .hint("COPY TO instructs the PostgreSQL server process to write a file. You may want a client-side facility such as psql's \\copy.")
        })?;
        file_sink = FileSink { file, path: stmt.filename.clone() };
        &mut file_sink
    };
    if let Some(query) = &stmt.query {
        return copy_query(ctx, query, options, raw, sink);
    }
    let range = nodes::relation(stmt.relation.as_ref())?;
    let relation = ctx.open_locked(range, &raw.source, LockMode::AccessShare)?;
    if !privilege::on_relation(&ctx.catalog, ctx.user, &relation, privilege::SELECT)? {
        let message = format!("permission denied for table {}", relation.name);
        return Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, message));
    }
    if !matches!(relation.kind, RelKind::Table) {
        let noun = relation.kind.noun();
        let e = SqlError::new(SqlState::WRONG_OBJECT_TYPE, format!("cannot copy from {noun} \"{}\"", relation.name));
        return Err(if matches!(relation.kind, RelKind::View | RelKind::MatView) {
            e.hint("Try the COPY (SELECT ...) TO variant.")
        } else {
            e
        });
    }
    let columns = columns(&relation, stmt)?;
    let names = columns.iter().map(|&i| (relation.columns[i].name.to_string(), relation.columns[i].type_oid)).collect();
    let mut writer = CopyWriter::new(sink, options, names, ctx.io.clone());
    writer.begin()?;
    scan(ctx, &relation, &columns, &mut writer)?;
    writer.end()?;
    Ok(PortalStatus::Complete(format!("COPY {}", writer.rows)))
}

fn scan(ctx: &mut SessionContext, relation: &Arc<Relation>, columns: &[usize], writer: &mut CopyWriter<'_>) -> Result<(), SqlError> {
    let mut out = vec![Datum::Null; columns.len()];
    if let Source::Virtual(table) = &relation.source {
        let catalog = ctx.catalog.clone();
        let mut cx = VirtualCx { catalog: &catalog, session: ctx };
        return table.rows(&mut cx, &mut |values| {
            for (place, &i) in out.iter_mut().zip(columns) {
                *place = values.get(i).cloned().unwrap_or_default();
            }
            writer.row(&out)
        });
    }
    let handle = relation.rel_handle().ok_or_else(|| SqlError::internal("table without file"))?;
    let access = ctx.access();
    let snapshot = ctx.transaction()?.snapshot()?;
    let mut scan = HeapScan::new(&access, &handle, &snapshot)?;
    let mut values = vec![Datum::Null; relation.columns.len()];
    let mut count = 0_u32;
    while let Some((_, bytes)) = scan.next(&access)? {
        row::decode(&relation.desc, bytes, values.len(), &mut values)?;
        for (place, &i) in out.iter_mut().zip(columns) {
            *place = std::mem::take(&mut values[i]);
        }
        crate::executor::large::unpack_row(&access, &mut out)?;
        writer.row(&out)?;
        count = count.wrapping_add(1);
        if count.is_multiple_of(1024) {
            ctx.check_cancel()?;
        }
    }
    Ok(())
}

fn copy_query(
    ctx: &mut SessionContext,
    query: &pg_query::protobuf::Node,
    options: Options,
    raw: &RawStmt,
    sink: &mut dyn RowSink,
) -> Result<PortalStatus, SqlError> {
    let Some(node) = query.node.clone() else { return Err(SqlError::internal("COPY without a query")) };
    let front_end = ctx.front_end;
    let prepared = front_end.prepare(ctx, &raw.with_node(node), &[])?;
    let Some(columns) = &prepared.columns else {
        return Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, "COPY query must have a RETURNING clause"));
    };
    let names = columns.iter().map(|c| (c.name.to_string(), c.type_oid)).collect();
    let mut portal = Portal::open(ctx, prepared.clone(), Vec::new())?;
    let mut writer = CopyWriter::new(sink, options, names, ctx.io.clone());
    writer.begin()?;
    portal.run(ctx, 0, &mut writer)?;
    writer.end()?;
    Ok(PortalStatus::Complete(format!("COPY {}", writer.rows)))
}

/// Writes COPY data to a file of the server.
struct FileSink {
    file: File,
    path: String,
}

impl RowSink for FileSink {
    fn row(&mut self, _values: &[Datum]) -> Result<(), SqlError> {
        Err(SqlError::internal("a row where COPY data was expected"))
    }

    fn copy_out_begin(&mut self, _binary: bool, _columns: usize) -> Result<(), SqlError> {
        Ok(())
    }

    fn copy_data(&mut self, bytes: &[u8]) -> Result<(), SqlError> {
        self.file
            .write_all(bytes)
            .map_err(|e| SqlError::new(SqlState::IO_ERROR, format!("could not write to file \"{}\": {}", self.path, io_text(&e))))
    }
}
