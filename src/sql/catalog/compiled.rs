//! Rows of the catalogs that are compiled in: types, functions, operators and what surrounds them.

use super::load::CatalogReader as _;
use super::relation::{BOOTSTRAP_ROLE, PG_CATALOG_NAMESPACE, RelKind, row_type_of};
use super::schema::{
    self, pg_aggregate, pg_am, pg_amop, pg_amproc, pg_cast, pg_class, pg_collation, pg_language, pg_opclass, pg_operator, pg_opfamily,
    pg_proc, pg_range, pg_type,
};
use super::virtual_table::{VirtualCx, VirtualTable};
use crate::sql::functions::registry;
use crate::sql::types::registry::{all_types, type_by_oid};
use crate::sql::types::{ArrayValue, Datum, Oid, oids};
use crate::sqlstate::SqlError;

/// Takes the rows a provider makes.
pub type Emit<'a> = &'a mut dyn FnMut(&[Datum]) -> Result<(), SqlError>;

/// A provider that is a function.
pub struct FnTable(pub fn(&mut VirtualCx<'_>, Emit<'_>) -> Result<(), SqlError>);

impl VirtualTable for FnTable {
    fn rows(&self, cx: &mut VirtualCx<'_>, emit: Emit<'_>) -> Result<(), SqlError> {
        (self.0)(cx, emit)
    }
}

/// The provider of a virtual catalog.
pub(super) fn provider(catalog: Oid) -> Option<FnTable> {
    Some(FnTable(match catalog {
        pg_type::ID => types,
        pg_proc::ID => procs,
        pg_operator::ID => operators,
        pg_cast::ID => casts,
        pg_aggregate::ID => aggregates,
        pg_am::ID => access_methods,
        pg_amop::ID => amops,
        pg_amproc::ID => amprocs,
        pg_opclass::ID => opclasses,
        pg_opfamily::ID => opfamilies,
        pg_collation::ID => collations,
        pg_language::ID => languages,
        pg_range::ID => ranges,
        _ => return None,
    }))
}

fn blank(def: &schema::CatalogDef) -> Vec<Datum> {
    vec![Datum::Null; def.columns.len()]
}

/// A one-dimensional array that counts from 0, as `oidvector` and `int2vector` do.
pub fn oidvector(list: &[Oid]) -> Datum {
    Datum::array(ArrayValue::with_lower(oids::OID, list.iter().map(|&o| Datum::Oid(o)).collect(), 0))
}

/// An `int2vector`.
pub fn int2vector(list: &[i16]) -> Datum {
    Datum::array(ArrayValue::with_lower(oids::INT2, list.iter().map(|&n| Datum::Int2(n)).collect(), 0))
}

/// A `text[]`, or NULL when empty.
pub fn text_array<S: AsRef<str>>(list: &[S]) -> Datum {
    if list.is_empty() {
        return Datum::Null;
    }
    Datum::array(ArrayValue::one_dim(oids::TEXT, list.iter().map(Datum::text).collect()))
}

fn types(cx: &mut VirtualCx<'_>, emit: Emit<'_>) -> Result<(), SqlError> {
    let mut row = blank(&pg_type::DEF);
    row_types(cx, emit)?;
    for t in all_types() {
        row[pg_type::oid] = Datum::Oid(t.oid);
        row[pg_type::typname] = Datum::text(t.name);
        row[pg_type::typnamespace] = Datum::Oid(PG_CATALOG_NAMESPACE);
        row[pg_type::typowner] = Datum::Oid(BOOTSTRAP_ROLE);
        row[pg_type::typlen] = Datum::Int2(t.len);
        row[pg_type::typbyval] = Datum::Bool(t.by_value);
        row[pg_type::typtype] = Datum::Char(t.kind);
        row[pg_type::typcategory] = Datum::Char(t.category);
        row[pg_type::typispreferred] = Datum::Bool(t.preferred);
        row[pg_type::typisdefined] = Datum::Bool(true);
        row[pg_type::typdelim] = Datum::Char(t.delimiter);
        row[pg_type::typrelid] = Datum::Oid(t.relid);
        row[pg_type::typsubscript] = Datum::Oid(t.subscript);
        row[pg_type::typelem] = Datum::Oid(t.elem);
        row[pg_type::typarray] = Datum::Oid(t.array);
        row[pg_type::typinput] = Datum::Oid(t.input);
        row[pg_type::typoutput] = Datum::Oid(t.output);
        row[pg_type::typreceive] = Datum::Oid(t.receive);
        row[pg_type::typsend] = Datum::Oid(t.send);
        row[pg_type::typmodin] = Datum::Oid(t.modin);
        row[pg_type::typmodout] = Datum::Oid(t.modout);
        row[pg_type::typanalyze] = Datum::Oid(t.analyze);
        row[pg_type::typalign] = Datum::Char(t.align);
        row[pg_type::typstorage] = Datum::Char(t.storage);
        row[pg_type::typnotnull] = Datum::Bool(false);
        row[pg_type::typbasetype] = Datum::Oid(0);
        row[pg_type::typtypmod] = Datum::Int4(-1);
        row[pg_type::typndims] = Datum::Int4(0);
        row[pg_type::typcollation] = Datum::Oid(t.collation);
        emit(&row)?;
    }
    Ok(())
}

/// The row types of tables and views: all that is to be said of one follows from its relation.
fn row_types(cx: &mut VirtualCx<'_>, emit: Emit<'_>) -> Result<(), SqlError> {
    for class in cx.catalog.reader()?.rows(&pg_class::DEF, 0, &[])? {
        let oid = class.oid(pg_class::oid)?;
        let Some(kind) = RelKind::from_letter(class.char(pg_class::relkind)?) else { continue };
        if row_type_of(oid, kind) == 0 {
            continue;
        }
        let mut row = blank(&pg_type::DEF);
        let proc = |name: &str| Datum::Oid(registry::all_procs().iter().find(|p| p.name == name).map_or(0, |p| p.oid));
        let values = [
            (pg_type::oid, Datum::Oid(oid)),
            (pg_type::typname, Datum::text(class.str(pg_class::relname)?)),
            (pg_type::typnamespace, Datum::Oid(class.oid(pg_class::relnamespace)?)),
            (pg_type::typowner, Datum::Oid(class.oid(pg_class::relowner)?)),
            (pg_type::typlen, Datum::Int2(-1)),
            (pg_type::typbyval, Datum::Bool(false)),
            (pg_type::typtype, Datum::Char(b'c')),
            (pg_type::typcategory, Datum::Char(b'C')),
            (pg_type::typispreferred, Datum::Bool(false)),
            (pg_type::typisdefined, Datum::Bool(true)),
            (pg_type::typdelim, Datum::Char(b',')),
            (pg_type::typrelid, Datum::Oid(oid)),
            (pg_type::typsubscript, Datum::Oid(0)),
            (pg_type::typelem, Datum::Oid(0)),
            (pg_type::typarray, Datum::Oid(0)),
            (pg_type::typinput, proc("record_in")),
            (pg_type::typoutput, proc("record_out")),
            (pg_type::typreceive, proc("record_recv")),
            (pg_type::typsend, proc("record_send")),
            (pg_type::typmodin, Datum::Oid(0)),
            (pg_type::typmodout, Datum::Oid(0)),
            (pg_type::typanalyze, Datum::Oid(0)),
            (pg_type::typalign, Datum::Char(b'd')),
            (pg_type::typstorage, Datum::Char(b'x')),
            (pg_type::typnotnull, Datum::Bool(false)),
            (pg_type::typbasetype, Datum::Oid(0)),
            (pg_type::typtypmod, Datum::Int4(-1)),
            (pg_type::typndims, Datum::Int4(0)),
            (pg_type::typcollation, Datum::Oid(0)),
        ];
        for (position, value) in values {
            row[position] = value;
        }
        emit(&row)?;
    }
    Ok(())
}

fn procs(cx: &mut VirtualCx<'_>, emit: Emit<'_>) -> Result<(), SqlError> {
    for row in cx.catalog.reader()?.rows(&pg_proc::DEF, 0, &[])? {
        emit(&row.values)?;
    }
    for p in registry::all_procs() {
        let mut row = blank(&pg_proc::DEF);
        row[pg_proc::oid] = Datum::Oid(p.oid);
        row[pg_proc::proname] = Datum::text(p.name);
        row[pg_proc::pronamespace] = Datum::Oid(PG_CATALOG_NAMESPACE);
        row[pg_proc::proowner] = Datum::Oid(BOOTSTRAP_ROLE);
        row[pg_proc::prolang] = Datum::Oid(p.language);
        row[pg_proc::procost] = Datum::Float4(p.cost);
        row[pg_proc::prorows] = Datum::Float4(p.rows);
        row[pg_proc::provariadic] = Datum::Oid(p.variadic);
        row[pg_proc::prosupport] = Datum::Oid(p.support);
        row[pg_proc::prokind] = Datum::Char(p.kind);
        row[pg_proc::prosecdef] = Datum::Bool(false);
        row[pg_proc::proleakproof] = Datum::Bool(p.leakproof);
        row[pg_proc::proisstrict] = Datum::Bool(p.strict);
        row[pg_proc::proretset] = Datum::Bool(p.returns_set);
        row[pg_proc::provolatile] = Datum::Char(p.volatility);
        row[pg_proc::proparallel] = Datum::Char(p.parallel);
        row[pg_proc::pronargs] = Datum::Int2(i16::try_from(p.args.len()).unwrap_or(i16::MAX));
        row[pg_proc::pronargdefaults] = Datum::Int2(i16::try_from(p.default_count).unwrap_or(i16::MAX));
        row[pg_proc::prorettype] = Datum::Oid(p.result);
        row[pg_proc::proargtypes] = oidvector(&p.args);
        if !p.all_args.is_empty() {
            row[pg_proc::proallargtypes] =
                Datum::array(ArrayValue::one_dim(oids::OID, p.all_args.iter().map(|&o| Datum::Oid(o)).collect()));
        }
        if !p.arg_modes.is_empty() {
            row[pg_proc::proargmodes] = Datum::array(ArrayValue::one_dim(oids::CHAR, p.arg_modes.bytes().map(Datum::Char).collect()));
        }
        if !p.arg_names.is_empty() {
            row[pg_proc::proargnames] = text_array(&p.arg_names.split(' ').collect::<Vec<_>>());
        }
        if !p.defaults.is_empty() {
            row[pg_proc::proargdefaults] = Datum::text(p.defaults);
        }
        row[pg_proc::prosrc] = Datum::text(p.source);
        emit(&row)?;
    }
    Ok(())
}

fn operators(_cx: &mut VirtualCx<'_>, emit: Emit<'_>) -> Result<(), SqlError> {
    let mut row = blank(&pg_operator::DEF);
    for o in registry::all_opers() {
        row[pg_operator::oid] = Datum::Oid(o.oid);
        row[pg_operator::oprname] = Datum::text(o.name);
        row[pg_operator::oprnamespace] = Datum::Oid(PG_CATALOG_NAMESPACE);
        row[pg_operator::oprowner] = Datum::Oid(BOOTSTRAP_ROLE);
        row[pg_operator::oprkind] = Datum::Char(o.kind);
        row[pg_operator::oprcanmerge] = Datum::Bool(o.can_merge);
        row[pg_operator::oprcanhash] = Datum::Bool(o.can_hash);
        row[pg_operator::oprleft] = Datum::Oid(o.left);
        row[pg_operator::oprright] = Datum::Oid(o.right);
        row[pg_operator::oprresult] = Datum::Oid(o.result);
        row[pg_operator::oprcom] = Datum::Oid(o.commutator);
        row[pg_operator::oprnegate] = Datum::Oid(o.negator);
        row[pg_operator::oprcode] = Datum::Oid(o.func);
        row[pg_operator::oprrest] = Datum::Oid(o.restrict);
        row[pg_operator::oprjoin] = Datum::Oid(o.join);
        emit(&row)?;
    }
    Ok(())
}

fn casts(_cx: &mut VirtualCx<'_>, emit: Emit<'_>) -> Result<(), SqlError> {
    let mut row = blank(&pg_cast::DEF);
    for (oid, c) in (10_100..).zip(registry::all_casts()) {
        row[pg_cast::oid] = Datum::Oid(oid);
        row[pg_cast::castsource] = Datum::Oid(c.source);
        row[pg_cast::casttarget] = Datum::Oid(c.target);
        row[pg_cast::castfunc] = Datum::Oid(c.func);
        row[pg_cast::castcontext] = Datum::Char(c.context);
        row[pg_cast::castmethod] = Datum::Char(c.method);
        emit(&row)?;
    }
    Ok(())
}

fn aggregates(_cx: &mut VirtualCx<'_>, emit: Emit<'_>) -> Result<(), SqlError> {
    let mut row = blank(&pg_aggregate::DEF);
    let optional = |s: &str| if s.is_empty() { Datum::Null } else { Datum::text(s) };
    for a in registry::all_aggregates() {
        row[pg_aggregate::aggfnoid] = Datum::Oid(a.func);
        row[pg_aggregate::aggkind] = Datum::Char(a.kind);
        row[pg_aggregate::aggnumdirectargs] = Datum::Int2(a.direct_args);
        row[pg_aggregate::aggtransfn] = Datum::Oid(a.transition);
        row[pg_aggregate::aggfinalfn] = Datum::Oid(a.finish);
        row[pg_aggregate::aggcombinefn] = Datum::Oid(a.combine);
        row[pg_aggregate::aggserialfn] = Datum::Oid(a.serialize);
        row[pg_aggregate::aggdeserialfn] = Datum::Oid(a.deserialize);
        row[pg_aggregate::aggmtransfn] = Datum::Oid(a.moving_transition);
        row[pg_aggregate::aggminvtransfn] = Datum::Oid(a.moving_inverse);
        row[pg_aggregate::aggmfinalfn] = Datum::Oid(a.moving_finish);
        row[pg_aggregate::aggfinalextra] = Datum::Bool(a.finish_extra);
        row[pg_aggregate::aggmfinalextra] = Datum::Bool(a.moving_finish_extra);
        row[pg_aggregate::aggfinalmodify] = Datum::Char(a.finish_modify);
        row[pg_aggregate::aggmfinalmodify] = Datum::Char(a.moving_finish_modify);
        row[pg_aggregate::aggsortop] = Datum::Oid(a.sort_operator);
        row[pg_aggregate::aggtranstype] = Datum::Oid(a.state_type);
        row[pg_aggregate::aggtransspace] = Datum::Int4(a.state_space);
        row[pg_aggregate::aggmtranstype] = Datum::Oid(a.moving_state_type);
        row[pg_aggregate::aggmtransspace] = Datum::Int4(a.moving_state_space);
        row[pg_aggregate::agginitval] = optional(a.initial);
        row[pg_aggregate::aggminitval] = optional(a.moving_initial);
        emit(&row)?;
    }
    Ok(())
}

/// Access methods: OID, name, handler, kind.
const ACCESS_METHODS: [(Oid, &str, Oid, u8); 3] = [(2, "heap", 3, b't'), (403, "btree", 330, b'i'), (405, "hash", 331, b'i')];

fn access_methods(_cx: &mut VirtualCx<'_>, emit: Emit<'_>) -> Result<(), SqlError> {
    for (oid, name, handler, kind) in ACCESS_METHODS {
        let mut row = blank(&pg_am::DEF);
        row[pg_am::oid] = Datum::Oid(oid);
        row[pg_am::amname] = Datum::text(name);
        row[pg_am::amhandler] = Datum::Oid(handler);
        row[pg_am::amtype] = Datum::Char(kind);
        emit(&row)?;
    }
    Ok(())
}

fn amops(_cx: &mut VirtualCx<'_>, emit: Emit<'_>) -> Result<(), SqlError> {
    let mut row = blank(&pg_amop::DEF);
    for (oid, a) in (10_400..).zip(registry::all_amops()) {
        row[pg_amop::oid] = Datum::Oid(oid);
        row[pg_amop::amopfamily] = Datum::Oid(a.family);
        row[pg_amop::amoplefttype] = Datum::Oid(a.left);
        row[pg_amop::amoprighttype] = Datum::Oid(a.right);
        row[pg_amop::amopstrategy] = Datum::Int2(a.strategy);
        row[pg_amop::amoppurpose] = Datum::Char(a.purpose);
        row[pg_amop::amopopr] = Datum::Oid(a.oper);
        row[pg_amop::amopmethod] = Datum::Oid(a.method);
        row[pg_amop::amopsortfamily] = Datum::Oid(a.sort_family);
        emit(&row)?;
    }
    Ok(())
}

fn amprocs(_cx: &mut VirtualCx<'_>, emit: Emit<'_>) -> Result<(), SqlError> {
    let mut row = blank(&pg_amproc::DEF);
    for (oid, a) in (11_000..).zip(registry::all_amprocs()) {
        row[pg_amproc::oid] = Datum::Oid(oid);
        row[pg_amproc::amprocfamily] = Datum::Oid(a.family);
        row[pg_amproc::amproclefttype] = Datum::Oid(a.left);
        row[pg_amproc::amprocrighttype] = Datum::Oid(a.right);
        row[pg_amproc::amprocnum] = Datum::Int2(a.number);
        row[pg_amproc::amproc] = Datum::Oid(a.func);
        emit(&row)?;
    }
    Ok(())
}

fn opclasses(_cx: &mut VirtualCx<'_>, emit: Emit<'_>) -> Result<(), SqlError> {
    let mut row = blank(&pg_opclass::DEF);
    for c in registry::all_opclasses() {
        row[pg_opclass::oid] = Datum::Oid(c.oid);
        row[pg_opclass::opcmethod] = Datum::Oid(c.method);
        row[pg_opclass::opcname] = Datum::text(c.name);
        row[pg_opclass::opcnamespace] = Datum::Oid(PG_CATALOG_NAMESPACE);
        row[pg_opclass::opcowner] = Datum::Oid(BOOTSTRAP_ROLE);
        row[pg_opclass::opcfamily] = Datum::Oid(c.family);
        row[pg_opclass::opcintype] = Datum::Oid(c.input);
        row[pg_opclass::opcdefault] = Datum::Bool(c.is_default);
        row[pg_opclass::opckeytype] = Datum::Oid(c.key);
        emit(&row)?;
    }
    Ok(())
}

fn opfamilies(_cx: &mut VirtualCx<'_>, emit: Emit<'_>) -> Result<(), SqlError> {
    let mut row = blank(&pg_opfamily::DEF);
    for f in registry::all_opfamilies() {
        row[pg_opfamily::oid] = Datum::Oid(f.oid);
        row[pg_opfamily::opfmethod] = Datum::Oid(f.method);
        row[pg_opfamily::opfname] = Datum::text(f.name);
        row[pg_opfamily::opfnamespace] = Datum::Oid(PG_CATALOG_NAMESPACE);
        row[pg_opfamily::opfowner] = Datum::Oid(BOOTSTRAP_ROLE);
        emit(&row)?;
    }
    Ok(())
}

/// Collation `default`.
pub const DEFAULT_COLLATION: Oid = 100;
/// Collation `C`.
pub const C_COLLATION: Oid = 950;

/// Collations: OID, name, encoding, provider.
const COLLATIONS: [(Oid, &str, i32, u8); 5] = [
    (DEFAULT_COLLATION, "default", -1, b'd'),
    (C_COLLATION, "C", -1, b'c'),
    (951, "POSIX", -1, b'c'),
    (12_340, "ucs_basic", 6, b'c'),
    (12_341, "C.utf8", 6, b'c'),
];

/// The built-in collation of this name.
pub fn collation_by_name(name: &str) -> Option<Oid> {
    COLLATIONS.iter().find(|c| c.1 == name).map(|c| c.0)
}

/// Name of a built-in collation.
pub fn collation_name(oid: Oid) -> Option<&'static str> {
    COLLATIONS.iter().find(|c| c.0 == oid).map(|c| c.1)
}

fn collations(_cx: &mut VirtualCx<'_>, emit: Emit<'_>) -> Result<(), SqlError> {
    for (oid, name, encoding, provider) in COLLATIONS {
        let locale = match name {
            "default" => Datum::Null,
            "ucs_basic" => Datum::text("C"),
            other => Datum::text(other),
        };
        let mut row = blank(&pg_collation::DEF);
        row[pg_collation::oid] = Datum::Oid(oid);
        row[pg_collation::collname] = Datum::text(name);
        row[pg_collation::collnamespace] = Datum::Oid(PG_CATALOG_NAMESPACE);
        row[pg_collation::collowner] = Datum::Oid(BOOTSTRAP_ROLE);
        row[pg_collation::collprovider] = Datum::Char(provider);
        row[pg_collation::collisdeterministic] = Datum::Bool(true);
        row[pg_collation::collencoding] = Datum::Int4(encoding);
        row[pg_collation::collcollate] = locale.clone();
        row[pg_collation::collctype] = locale;
        emit(&row)?;
    }
    Ok(())
}

/// Languages: OID, name, trusted, validator.
const LANGUAGES: [(Oid, &str, bool, Oid); 4] =
    [(12, "internal", false, 2246), (13, "c", false, 2247), (SQL_LANGUAGE, "sql", true, 2248), (PLPGSQL_LANGUAGE, "plpgsql", true, 0)];

/// Functions in SQL.
pub const SQL_LANGUAGE: Oid = 14;
/// Functions in PL/pgSQL.
pub const PLPGSQL_LANGUAGE: Oid = 13_577;

/// The OID of a language.
pub fn language_by_name(name: &str) -> Option<Oid> {
    LANGUAGES.iter().find(|l| l.1 == name).map(|l| l.0)
}

/// The name of a language.
pub fn language_name(oid: Oid) -> Option<&'static str> {
    LANGUAGES.iter().find(|l| l.0 == oid).map(|l| l.1)
}

fn languages(_cx: &mut VirtualCx<'_>, emit: Emit<'_>) -> Result<(), SqlError> {
    for (oid, name, trusted, validator) in LANGUAGES {
        let mut row = blank(&pg_language::DEF);
        row[pg_language::oid] = Datum::Oid(oid);
        row[pg_language::lanname] = Datum::text(name);
        row[pg_language::lanowner] = Datum::Oid(BOOTSTRAP_ROLE);
        row[pg_language::lanispl] = Datum::Bool(oid == PLPGSQL_LANGUAGE);
        row[pg_language::lanpltrusted] = Datum::Bool(trusted);
        row[pg_language::lanplcallfoid] = Datum::Oid(0);
        row[pg_language::laninline] = Datum::Oid(0);
        row[pg_language::lanvalidator] = Datum::Oid(validator);
        emit(&row)?;
    }
    Ok(())
}

/// Ranges: range, element, multirange, operator class, canonical function, difference function.
const RANGES: [(Oid, Oid, Oid, Oid, Oid, Oid); 6] = [
    (3904, 23, 4451, 1978, 3914, 3922),
    (3906, 1700, 4532, 3125, 0, 3924),
    (3908, 1114, 4533, 3128, 0, 3929),
    (3910, 1184, 4534, 3127, 0, 3930),
    (3912, 1082, 4535, 3122, 3915, 3925),
    (3926, 20, 4536, 3124, 3928, 3923),
];

fn ranges(_cx: &mut VirtualCx<'_>, emit: Emit<'_>) -> Result<(), SqlError> {
    for (range, element, multirange, opclass, canonical, difference) in RANGES {
        let mut row = blank(&pg_range::DEF);
        row[pg_range::rngtypid] = Datum::Oid(range);
        row[pg_range::rngsubtype] = Datum::Oid(element);
        row[pg_range::rngmultitypid] = Datum::Oid(multirange);
        row[pg_range::rngcollation] = Datum::Oid(0);
        row[pg_range::rngsubopc] = Datum::Oid(opclass);
        row[pg_range::rngcanonical] = Datum::Oid(canonical);
        row[pg_range::rngsubdiff] = Datum::Oid(difference);
        emit(&row)?;
    }
    Ok(())
}

/// Default collation of a type's columns.
pub fn type_collation(type_oid: Oid) -> Oid {
    type_by_oid(type_oid).map_or(0, |t| t.collation)
}
