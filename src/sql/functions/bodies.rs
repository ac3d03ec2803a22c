//! Which body runs for which `prosrc`.

use std::sync::LazyLock;

use rustc_hash::FxHashMap;

use super::registry::{ProcBody, ProcEntry};
use super::{
    aggregate, array, cast, comparison, datetime, float, format, hash, integer, json, misc, numeric, pattern, series, string, window,
};
use crate::sql::types::oids;
use crate::sql::types::registry::all_types;

/// Bodies by `prosrc`.
static BY_SOURCE: LazyLock<FxHashMap<&'static str, ProcBody>> = LazyLock::new(|| {
    let scalars = [
        integer::SCALARS,
        float::SCALARS,
        format::SCALARS,
        numeric::SCALARS,
        cast::SCALARS,
        string::SCALARS,
        pattern::SCALARS,
        datetime::SCALARS,
        array::SCALARS,
        json::SCALARS,
        misc::SCALARS,
        hash::SCALARS,
    ];
    let mut map = FxHashMap::default();
    map.extend(scalars.into_iter().flatten().map(|&(source, f)| (source, ProcBody::Scalar(f))));
    map.extend([series::SETS, json::SETS].into_iter().flatten().map(|&(source, f)| (source, ProcBody::Set(f))));
    map.extend(window::WINDOWS.iter().map(|&(source, f)| (source, ProcBody::Window(f))));
    map
});

/// Type input, output and send functions, which read and write values as the types layer does.
static TYPE_IO: LazyLock<FxHashMap<u32, ProcBody>> = LazyLock::new(|| {
    let mut map = FxHashMap::default();
    for t in all_types() {
        // Pseudo-types and arrays share their functions with many types; calls by name say which through their result.
        if t.kind != b'p' || matches!(t.oid, oids::CSTRING | oids::UNKNOWN | oids::VOID) {
            map.insert(t.input, ProcBody::Scalar(cast::call_input));
            map.insert(t.output, ProcBody::Scalar(cast::call_output));
            map.insert(t.send, ProcBody::Scalar(cast::call_send));
        }
    }
    map
});

/// The body of a function.
pub(crate) fn find(proc: &ProcEntry) -> ProcBody {
    match proc.kind {
        b'a' => return aggregate::body(proc).map_or(ProcBody::External, ProcBody::Aggregate),
        b'w' => {
            if let Some(body) = BY_SOURCE.get(proc.source) {
                return *body;
            }
            return ProcBody::External;
        }
        _ => {}
    }
    if let Some(f) = comparison::body(proc) {
        return ProcBody::Scalar(f);
    }
    if let Some(body) = BY_SOURCE.get(proc.source) {
        return *body;
    }
    TYPE_IO.get(&proc.oid).copied().unwrap_or(ProcBody::External)
}
