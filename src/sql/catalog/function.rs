//! Functions that users made, from `pg_proc`.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use afterimage_wal::Oid;

use super::load::CatalogRow;
use super::schema::pg_proc;
use crate::sql::functions::{ProcBody, ProcEntry};
use crate::sql::types::Datum;
use crate::sqlstate::SqlError;

/// A function and where it belongs.
#[derive(Clone, Copy, Debug)]
pub struct UserFunction {
    /// What expressions call.
    pub entry: &'static ProcEntry,
    /// Its schema.
    pub namespace: Oid,
    /// Its owner.
    pub owner: Oid,
}

/// Descriptors made so far, by what they say. Plans point into them, so each definition is kept for the life of the process, once.
static KNOWN: LazyLock<Mutex<HashMap<String, &'static ProcEntry>>> = LazyLock::new(Mutex::default);

fn leak(text: &str) -> &'static str {
    String::leak(text.to_owned())
}

/// The function a row describes.
pub(super) fn from_row(row: &CatalogRow) -> Result<UserFunction, SqlError> {
    let key = format!("{:?}", row.values);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let entry = match known.get(&key) {
        Some(entry) => *entry,
        None => {
            let entry: &'static ProcEntry = Box::leak(Box::new(entry(row)?));
            known.insert(key, entry);
            entry
        }
    };
    Ok(UserFunction { entry, namespace: row.oid(pg_proc::pronamespace)?, owner: row.oid(pg_proc::proowner)? })
}

fn entry(row: &CatalogRow) -> Result<ProcEntry, SqlError> {
    let modes: Vec<u8> =
        row.list(pg_proc::proargmodes)?.iter().filter_map(|d| if let Datum::Char(c) = d { Some(*c) } else { None }).collect();
    let names: Vec<String> = row.strs(pg_proc::proargnames)?.iter().map(|n| n.to_string()).collect();
    let defaults = row.opt_str(pg_proc::proargdefaults)?;
    Ok(ProcEntry {
        oid: row.oid(pg_proc::oid)?,
        name: leak(row.str(pg_proc::proname)?),
        kind: row.char(pg_proc::prokind)?,
        strict: row.bool(pg_proc::proisstrict)?,
        volatility: row.char(pg_proc::provolatile)?,
        parallel: row.char(pg_proc::proparallel)?,
        returns_set: row.bool(pg_proc::proretset)?,
        leakproof: row.bool(pg_proc::proleakproof)?,
        cost: row.float4(pg_proc::procost)?,
        rows: row.float4(pg_proc::prorows)?,
        variadic: row.oid(pg_proc::provariadic)?,
        support: 0,
        language: row.oid(pg_proc::prolang)?,
        result: row.oid(pg_proc::prorettype)?,
        args: row.oids(pg_proc::proargtypes)?.into(),
        all_args: row.oids(pg_proc::proallargtypes)?.into(),
        arg_modes: leak(&String::from_utf8_lossy(&modes)),
        arg_names: leak(&names.join(" ")),
        default_count: usize::try_from(row.int2(pg_proc::pronargdefaults)?).unwrap_or(0),
        defaults: leak(defaults.as_deref().unwrap_or_default()),
        source: leak(row.str(pg_proc::prosrc)?),
        body: ProcBody::External,
    })
}
