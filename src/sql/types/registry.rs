//! `pg_type`: the built-in types with PostgreSQL's OIDs, read from `tables/pg_type.tsv`.

use std::str::Split;
use std::sync::LazyLock;

use rustc_hash::FxHashMap;

use super::Oid;

/// One built-in type: a row of `pg_type`.
#[derive(Debug)]
pub struct TypeEntry {
    /// OID.
    pub oid: Oid,
    /// Name in `pg_catalog`.
    pub name: &'static str,
    /// Bytes of a value; -1 varlena, -2 cstring.
    pub len: i16,
    /// Passed by value in PostgreSQL.
    pub by_value: bool,
    /// `b`ase, `c`omposite, `d`omain, `e`num, `p`seudo, `r`ange, `m`ultirange.
    pub kind: u8,
    /// Category letter, for overload resolution.
    pub category: u8,
    /// Preferred within its category.
    pub preferred: bool,
    /// Delimiter between array elements.
    pub delimiter: u8,
    /// Table of a composite type.
    pub relid: Oid,
    /// Subscripting handler.
    pub subscript: Oid,
    /// Element type, for arrays and fixed-length pseudo arrays.
    pub elem: Oid,
    /// Type of arrays of this type.
    pub array: Oid,
    /// Text input function.
    pub input: Oid,
    /// Text output function.
    pub output: Oid,
    /// Binary input function.
    pub receive: Oid,
    /// Binary output function.
    pub send: Oid,
    /// Typmod input function.
    pub modin: Oid,
    /// Typmod output function.
    pub modout: Oid,
    /// ANALYZE function.
    pub analyze: Oid,
    /// Alignment letter.
    pub align: u8,
    /// TOAST strategy letter.
    pub storage: u8,
    /// Default collation.
    pub collation: Oid,
}

impl TypeEntry {
    /// Is this an array type that looks like one (`int4[]`, not `int2vector`)?
    pub fn is_array(&self) -> bool {
        self.elem != 0 && self.len == -1 && (self.category == b'A' || self.oid == super::oids::RECORD_ARRAY) && self.name.starts_with('_')
    }
}

/// All built-in types by OID and by name.
struct Types {
    list: Vec<TypeEntry>,
    by_oid: FxHashMap<Oid, usize>,
    by_name: FxHashMap<&'static str, usize>,
}

static TYPES: LazyLock<Types> = LazyLock::new(|| {
    let list: Vec<TypeEntry> = include_str!("tables/pg_type.tsv").lines().map(parse).collect();
    Types {
        by_oid: list.iter().enumerate().map(|(i, t)| (t.oid, i)).collect(),
        by_name: list.iter().enumerate().map(|(i, t)| (t.name, i)).collect(),
        list,
    }
});

fn parse(line: &'static str) -> TypeEntry {
    let mut f = Fields::new(line);
    TypeEntry {
        oid: f.number(),
        name: f.text(),
        len: f.number(),
        by_value: f.flag(),
        kind: f.letter(),
        category: f.letter(),
        preferred: f.flag(),
        delimiter: f.letter(),
        relid: f.number(),
        subscript: f.number(),
        elem: f.number(),
        array: f.number(),
        input: f.number(),
        output: f.number(),
        receive: f.number(),
        send: f.number(),
        modin: f.number(),
        modout: f.number(),
        analyze: f.number(),
        align: f.letter(),
        storage: f.letter(),
        collation: f.number(),
    }
}

/// Tab-separated fields of one line of a built-in table.
pub(crate) struct Fields(Split<'static, char>);

impl Fields {
    pub(crate) fn new(line: &'static str) -> Self {
        Self(line.split('\t'))
    }

    pub(crate) fn text(&mut self) -> &'static str {
        self.0.next().expect("the tables are compiled in and a test reads them all")
    }

    pub(crate) fn number<T: std::str::FromStr<Err: std::fmt::Debug>>(&mut self) -> T {
        self.text().parse().expect("the tables are compiled in and a test reads them all")
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.text() == "1"
    }

    pub(crate) fn letter(&mut self) -> u8 {
        self.text().as_bytes().first().copied().unwrap_or(0)
    }

    pub(crate) fn oids(&mut self) -> Box<[Oid]> {
        self.text().split_ascii_whitespace().map(|s| s.parse().expect("the tables are compiled in and a test reads them all")).collect()
    }
}

/// All built-in types, by rising OID.
pub fn all_types() -> &'static [TypeEntry] {
    &TYPES.list
}

/// The built-in type with this OID.
pub fn type_by_oid(oid: Oid) -> Option<&'static TypeEntry> {
    TYPES.by_oid.get(&oid).map(|&i| &TYPES.list[i])
}

/// The built-in type with this `pg_catalog` name (`int4`, `_text`; not `integer`, see [`super::typmod::parse_type`]).
pub fn type_by_name(name: &str) -> Option<&'static TypeEntry> {
    TYPES.by_name.get(name).map(|&i| &TYPES.list[i])
}

/// The element type of an array type, `int2vector` and `oidvector` included: what subscripts and `anyarray` work on.
pub fn element_type(array: Oid) -> Option<Oid> {
    match array {
        super::oids::INT2VECTOR => Some(super::oids::INT2),
        super::oids::OIDVECTOR => Some(super::oids::OID),
        _ => type_by_oid(array).filter(|t| t.is_array()).map(|t| t.elem),
    }
}

/// The array type over an element type.
pub fn array_type(elem: Oid) -> Option<Oid> {
    match type_by_oid(elem) {
        Some(t) => Some(t.array).filter(|&a| a != 0),
        // Types that users made are row types, which have no arrays of their own.
        None => (elem >= super::oids::FIRST_NORMAL).then_some(super::oids::RECORD_ARRAY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::types::oids;

    #[test]
    fn built_in_types_are_found_by_oid_and_name() {
        assert_eq!(type_by_name("int4").unwrap().oid, oids::INT4);
        assert_eq!(type_by_oid(oids::TEXT).unwrap().name, "text");
        assert_eq!(element_type(oids::INT4_ARRAY), Some(oids::INT4));
        assert_eq!(array_type(oids::NUMERIC), Some(oids::NUMERIC_ARRAY));
        assert_eq!(element_type(oids::OIDVECTOR), Some(oids::OID));
    }
}
