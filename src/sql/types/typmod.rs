//! Type names as SQL writes them, and type modifiers.

use super::registry::{array_type, element_type, type_by_name, type_by_oid};
use super::scalar::{fit_bpchar, fit_varchar};
use super::settings::ObjectKind;
use super::{Datum, IoSettings, Oid, names, oids};
use crate::sqlstate::{SqlError, SqlState};

/// SQL name of a built-in type, with its modifier: `numeric(10,2)`, `character varying(20)[]`. `???` when unknown.
/// -1 is "no modifier", so `bpchar` prints as such, not as `character`, which would mean one character.
pub fn format_type(oid: Oid, typmod: i32) -> String {
    format_built_in(oid, Some(typmod)).unwrap_or_else(|| "???".to_owned())
}

/// SQL name of a type as messages print it: no modifier.
pub fn type_name(oid: Oid) -> String {
    format_built_in(oid, None).unwrap_or_else(|| "???".to_owned())
}

/// [`format_type`], asking the catalog for types that are not built in. `typmod` `None` as [`type_name`].
///
/// # Errors
/// What the catalog lookup failed with.
pub fn format_type_with(oid: Oid, typmod: Option<i32>, io: &IoSettings) -> Result<String, SqlError> {
    if oid == 0 {
        return Ok("-".to_owned());
    }
    if let Some(s) = format_built_in(oid, typmod) {
        return Ok(s);
    }
    if let Some(names) = &io.names
        && let Some((schema, name)) = names.name_of(ObjectKind::Type, oid)?
    {
        // The catalog names the array types it makes `_element`.
        let quoted = match name.strip_prefix('_').filter(|_| names.is_array_type(oid)) {
            Some(elem) => format!("{}[]", names::qualify(schema.as_deref(), elem)),
            None => names::qualify(schema.as_deref(), &name),
        };
        return Ok(quoted);
    }
    Ok("???".to_owned())
}

fn format_built_in(oid: Oid, typmod: Option<i32>) -> Option<String> {
    if let Some(array) = type_by_oid(oid).filter(|t| t.is_array()) {
        return Some(format!("{}[]", format_built_in(array.elem, typmod)?));
    }
    let given = typmod.filter(|&t| t >= 0);
    let precision = |head: &str, tail: &str| match given {
        Some(p) => format!("{head}({p}){tail}"),
        None => format!("{head}{tail}"),
    };
    Some(match oid {
        oids::BOOL => "boolean".to_owned(),
        oids::INT2 => "smallint".to_owned(),
        oids::INT4 => "integer".to_owned(),
        oids::INT8 => "bigint".to_owned(),
        oids::FLOAT4 => "real".to_owned(),
        oids::FLOAT8 => "double precision".to_owned(),
        oids::BPCHAR => match (typmod, given) {
            (_, Some(t)) => format!("character({})", t - 4),
            (Some(_), None) => "bpchar".to_owned(),
            (None, None) => "character".to_owned(),
        },
        oids::VARCHAR => match given {
            Some(t) => format!("character varying({})", t - 4),
            None => "character varying".to_owned(),
        },
        oids::BIT => match (typmod, given) {
            (_, Some(t)) => format!("bit({t})"),
            (Some(_), None) => "\"bit\"".to_owned(),
            (None, None) => "bit".to_owned(),
        },
        oids::VARBIT => precision("bit varying", ""),
        oids::NUMERIC => match given.filter(|&t| t >= 4) {
            Some(t) => {
                let (p, s) = numeric_typmod(t);
                format!("numeric({p},{s})")
            }
            None => "numeric".to_owned(),
        },
        oids::TIME => precision("time", " without time zone"),
        oids::TIMETZ => precision("time", " with time zone"),
        oids::TIMESTAMP => precision("timestamp", " without time zone"),
        oids::TIMESTAMPTZ => precision("timestamp", " with time zone"),
        oids::INTERVAL => match given {
            Some(t) => super::interval::typmod_name(t),
            None => "interval".to_owned(),
        },
        _ => {
            let name = type_by_oid(oid)?.name;
            names::quote_ident(name).into_owned()
        }
    })
}

/// Precision and scale of a `numeric` modifier.
pub fn numeric_typmod(typmod: i32) -> (i32, i32) {
    ((typmod - 4) >> 16 & 0xFFFF, ((typmod - 4) & 0x7FF ^ 1024) - 1024)
}

fn invalid(message: String) -> SqlError {
    SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message)
}

/// The modifier from the constants in parentheses after a type name (`typmodin`).
///
/// # Errors
/// `22023` for values out of range, `42601` when the type takes none.
pub fn typmod_in(oid: Oid, args: &[i32]) -> Result<i32, SqlError> {
    if let Some(elem) = element_type(oid) {
        return typmod_in(elem, args);
    }
    let bad = || invalid("invalid type modifier".to_owned());
    let length = |name: &str, most: i32| match args {
        [n] if *n < 1 => Err(invalid(format!("length for type {name} must be at least 1"))),
        [n] if *n > most => Err(invalid(format!("length for type {name} cannot exceed {most}"))),
        [n] => Ok(*n),
        _ => Err(bad()),
    };
    match oid {
        oids::BPCHAR => length("char", 10_485_760).map(|n| n + 4),
        oids::VARCHAR => length("varchar", 10_485_760).map(|n| n + 4),
        oids::BIT => length("bit", 83_886_080),
        oids::VARBIT => length("bit varying", 83_886_080),
        oids::NUMERIC => {
            let (p, s) = match args {
                [p] => (*p, 0),
                [p, s] => (*p, *s),
                _ => return Err(invalid("invalid NUMERIC type modifier".to_owned())),
            };
            if !(1..=1000).contains(&p) {
                return Err(invalid(format!("NUMERIC precision {p} must be between 1 and 1000")));
            }
            if !(-1000..=1000).contains(&s) {
                return Err(invalid(format!("NUMERIC scale {s} must be between -1000 and 1000")));
            }
            Ok((p << 16 | s & 0x7FF) + 4)
        }
        oids::TIME | oids::TIMETZ | oids::TIMESTAMP | oids::TIMESTAMPTZ => {
            let [p] = args else { return Err(bad()) };
            let name = match oid {
                oids::TIME | oids::TIMETZ => "TIME",
                _ => "TIMESTAMP",
            };
            let zone = if matches!(oid, oids::TIMETZ | oids::TIMESTAMPTZ) { " WITH TIME ZONE" } else { "" };
            if *p < 0 {
                return Err(invalid(format!("{name}({p}){zone} precision must not be negative")));
            }
            Ok((*p).min(6))
        }
        oids::INTERVAL => super::interval::typmod_in(args),
        _ => Err(SqlError::new(
            SqlState::SYNTAX_ERROR,
            format!("type modifier is not allowed for type \"{}\"", type_by_oid(oid).map_or("???", |t| t.name)),
        )),
    }
}

/// Fits a value to a type modifier (the length coercion casts): `varchar(3)`, `numeric(4,1)`, `timestamp(0)`.
/// `explicit` casts truncate strings silently.
///
/// # Errors
/// `22001` value too long, `22003` numeric field overflow.
pub fn coerce_typmod(value: Datum, type_oid: Oid, typmod: i32, explicit: bool) -> Result<Datum, SqlError> {
    if typmod < 0 {
        return Ok(value);
    }
    Ok(match (type_oid, value) {
        (oids::VARCHAR, Datum::Text(t)) => Datum::Text(fit_varchar(t, typmod, explicit)?),
        (oids::BPCHAR, Datum::Text(t)) => Datum::Text(fit_bpchar(t, typmod, explicit)?),
        (oids::NUMERIC, Datum::Numeric(n)) => Datum::Numeric(n.fit(typmod)?),
        (oids::BIT | oids::VARBIT, Datum::Bits(b)) => super::bits::fit(b, type_oid == oids::BIT, typmod, explicit)?,
        (_, Datum::Array(a)) => {
            if let Some(elem) = element_type(type_oid) {
                let values = a.values.iter().map(|v| coerce_typmod(v.clone(), elem, typmod, explicit)).collect::<Result<_, _>>()?;
                Datum::array(super::ArrayValue { elem: a.elem, dims: a.dims.clone(), values })
            } else {
                Datum::Array(a)
            }
        }
        (_, v) => super::datetime::fit(v, typmod)?,
    })
}

/// A type name in SQL's spelling (`integer[]`, `character varying(10)`, `pg_catalog.int4`), as `regtype` input and casts read it.
///
/// # Errors
/// `42704` when there is no such type.
pub fn parse_type(s: &str, io: &IoSettings) -> Result<(Oid, i32), SqlError> {
    let text = s.trim();
    let mut body = text;
    let mut is_array = false;
    while let Some(head) = body.strip_suffix(']') {
        let Some(open) = head.rfind('[') else { break };
        if !head[open + 1..].trim().bytes().all(|b| b.is_ascii_digit()) {
            break;
        }
        body = head[..open].trim_end();
        is_array = true;
    }
    let (oid, typmod) = parse_element(body, text, io)?;
    if !is_array {
        return Ok((oid, typmod));
    }
    let array = match array_type(oid) {
        Some(a) => Some(a),
        None => io.names.as_ref().and_then(|n| n.array_type_of(oid)),
    };
    array.map(|a| (a, typmod)).ok_or_else(|| SqlError::new(SqlState::UNDEFINED_OBJECT, format!("type \"{text}\" does not exist")))
}

fn parse_element(body: &str, whole: &str, io: &IoSettings) -> Result<(Oid, i32), SqlError> {
    let undefined = || SqlError::new(SqlState::UNDEFINED_OBJECT, format!("type \"{whole}\" does not exist"));
    // Take out the modifier, wherever it stands: `time(3) with time zone`.
    let (mut words, mut args) = (body.to_owned(), Vec::new());
    if !body.contains('"')
        && let Some((open, close)) = body.find('(').zip(body.find(')'))
        && open < close
    {
        for arg in body[open + 1..close].split(',') {
            args.push(arg.trim().parse().map_err(|_| undefined())?);
        }
        words = format!("{} {}", &body[..open], &body[close + 1..]);
    }
    let spelled = words.split_ascii_whitespace().map(str::to_ascii_lowercase).collect::<Vec<_>>().join(" ");
    let oid = match spelled.as_str() {
        "int" | "integer" => oids::INT4,
        "smallint" => oids::INT2,
        "bigint" => oids::INT8,
        "real" => oids::FLOAT4,
        "double precision" => oids::FLOAT8,
        "float" => match args.as_slice() {
            [p] if *p <= 24 => return Ok((oids::FLOAT4, -1)),
            _ => return Ok((oids::FLOAT8, -1)),
        },
        "dec" | "decimal" | "numeric" => oids::NUMERIC,
        "boolean" => oids::BOOL,
        "char" | "character" | "nchar" | "national character" | "national char" => {
            if args.is_empty() {
                args.push(1);
            }
            oids::BPCHAR
        }
        "character varying" | "char varying" | "national character varying" | "national char varying" | "nchar varying" => oids::VARCHAR,
        "bit" => {
            if args.is_empty() {
                args.push(1);
            }
            oids::BIT
        }
        "bit varying" => oids::VARBIT,
        "interval" if !args.is_empty() => {
            args.insert(0, 0x7FFF);
            oids::INTERVAL
        }
        s if s.strip_prefix("interval ").is_some_and(|w| super::interval::range_by_name(w).is_some()) => {
            let range = super::interval::range_by_name(&s[9..]).unwrap_or(0x7FFF);
            args.insert(0, range);
            oids::INTERVAL
        }
        "time" | "time without time zone" => oids::TIME,
        "time with time zone" => oids::TIMETZ,
        "timestamp" | "timestamp without time zone" => oids::TIMESTAMP,
        "timestamp with time zone" => oids::TIMESTAMPTZ,
        _ => {
            let parts = names::split_identifiers(words.trim()).ok_or_else(undefined)?;
            let (schema, name) = match parts.as_slice() {
                [name] => (None, name.as_str()),
                [schema, name] => (Some(schema.as_str()), name.as_str()),
                _ => return Err(undefined()),
            };
            let built_in = schema.is_none_or(|s| s == "pg_catalog").then(|| type_by_name(name)).flatten();
            match (built_in, &io.names) {
                (Some(t), _) => t.oid,
                (None, Some(names)) => names.oid_of(ObjectKind::Type, schema, name)?.ok_or_else(undefined)?,
                (None, None) => return Err(undefined()),
            }
        }
    };
    let typmod = if args.is_empty() { -1 } else { typmod_in(oid, &args)? };
    Ok((oid, typmod))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        let io = IoSettings::default();
        for s in [
            "integer",
            "character varying(20)",
            "numeric(10,2)",
            "timestamp(3) with time zone",
            "character(5)",
            "bigint[]",
            "double precision",
            "text",
            "\"char\"",
            "numeric(5,-2)",
        ] {
            let (oid, typmod) = parse_type(s, &io).unwrap();
            assert_eq!(format_type(oid, typmod), s);
        }
        assert_eq!(parse_type("pg_catalog.int4", &io).unwrap(), (oids::INT4, -1));
        assert_eq!(parse_type("nope", &io).unwrap_err().to_string(), "type \"nope\" does not exist");
    }
}
