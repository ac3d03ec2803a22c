//! Functions, operators and casts against what PostgreSQL 15 answered (`tests/golden.tsv`).
//!
//! A line is: kind (`f`unction, `o`perator, `c`ast), name, PostgreSQL's answer (text, `\N` for NULL, `SQLSTATE: message` after
//! `!`), then the arguments as `type:text`, `\N` for NULL. Backslashes, tabs and newlines in values are escaped as in COPY.
//! `GOLDEN=file` runs another file of the same form and prints all differences.

use std::sync::Arc;

use super::call::{Call, CallTypes, PlainCtx};
use super::resolve::{Coercion, CoercionContext, coercion, reinterpret, resolve_function, resolve_operator};
use crate::sql::types::typmod::{coerce_typmod, parse_type};
use crate::sql::types::{ArrayValue, Datum, IoSettings, Oid, datetime, io, registry};
use crate::sqlstate::{SqlError, SqlState};

fn unescape(s: &str) -> String {
    let mut out = String::new();
    let mut chars = s.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('r') => out.push('\r'),
            Some('b') => out.push('\x08'),
            Some('f') => out.push('\x0c'),
            Some('v') => out.push('\x0b'),
            Some(c) => out.push(c),
            None => {}
        }
    }
    out
}

fn convert(ctx: &mut PlainCtx, v: Datum, from: Oid, to: Oid, typmod: i32, how: CoercionContext) -> Result<Datum, SqlError> {
    let missing = || SqlError::new(SqlState::CANNOT_COERCE, "no cast");
    if v.is_null() {
        return Ok(v);
    }
    Ok(match coercion(from, to, how).ok_or_else(missing)? {
        Coercion::Relabel | Coercion::Record => v,
        Coercion::Reinterpret => reinterpret(v, to),
        Coercion::InOut => {
            let text = io::text_string(&v, from, &ctx.io.clone())?;
            io::text_in(to, typmod, &text, &ctx.io)?
        }
        Coercion::Function(f) => {
            let types = CallTypes { func: f.oid, args: smallvec::smallvec![from], result: to, variadic_array: false };
            let mut args = vec![v];
            if f.args.len() > 1 {
                args.push(Datum::Int4(typmod));
            }
            if f.args.len() > 2 {
                args.push(Datum::Bool(how == CoercionContext::Explicit));
            }
            f.invoke(&mut Call { ctx, types: &types }, &args)?
        }
        Coercion::Array(_, elem) => {
            let a = Arc::clone(v.as_array()?);
            let values = a.values.iter().map(|x| convert(ctx, x.clone(), a.elem, elem, typmod, how)).collect::<Result<_, _>>()?;
            Datum::array(ArrayValue { elem, dims: a.dims.clone(), values })
        }
    })
}

fn run(kind: &str, name: &str, args: &[(Oid, i32, Datum)], ctx: &mut PlainCtx) -> Result<(Datum, Oid), SqlError> {
    let types: Vec<Oid> = args.iter().map(|a| a.0).collect();
    if kind == "c" {
        let (to, typmod) = parse_type(name, &ctx.io)?;
        let (from, _, v) = &args[0];
        let v = if *from == to { v.clone() } else { convert(ctx, v.clone(), *from, to, typmod, CoercionContext::Explicit)? };
        return Ok((coerce_typmod(v, to, typmod, true)?, to));
    }
    let (func, wanted, result, gather, defaults) = if kind == "o" {
        let op = match types.as_slice() {
            [r] => resolve_operator(name, None, *r)?,
            _ => resolve_operator(name, Some(types[0]), types[1])?,
        };
        let wanted = if op.left == 0 { vec![op.right] } else { vec![op.left, op.right] };
        (op.func, wanted, op.result, None, Vec::new())
    } else {
        let f = resolve_function(name, &types, &[], false)?.ok_or_else(|| super::resolve::undefined_function(name, &types))?;
        (f.func, f.arg_types, f.result, f.gather, f.defaults)
    };
    let mut values = Vec::new();
    for ((from, _, v), to) in args.iter().zip(&wanted) {
        values.push(convert(ctx, v.clone(), *from, *to, -1, CoercionContext::Implicit)?);
    }
    let mut arg_types = wanted.clone();
    arg_types.truncate(values.len());
    for (text, ty) in defaults {
        let bare = text.split("::").next().unwrap_or(&text).trim_matches('\'').to_owned();
        values.push(io::text_in(ty, -1, &bare, &ctx.io)?);
        arg_types.push(ty);
    }
    let mut variadic_array = false;
    if let Some((from, elem)) = gather {
        let rest = values.split_off(from);
        values.push(Datum::array(ArrayValue::one_dim(elem, rest)));
        arg_types.truncate(from);
        arg_types.push(registry::array_type(elem).unwrap_or(0));
        variadic_array = true;
    }
    let call = CallTypes { func: func.oid, args: arg_types.into(), result, variadic_array };
    Ok((func.invoke(&mut Call { ctx, types: &call }, &values)?, result))
}

#[test]
fn functions_answer_as_postgres_15() {
    let file = std::env::var("GOLDEN").ok();
    let text = match &file {
        Some(f) => std::fs::read_to_string(f).unwrap(),
        None => include_str!("tests/golden.tsv").to_owned(),
    };
    let zone = datetime::time_zone("America/New_York").unwrap();
    let settings = IoSettings { time_zone: zone, now: 86_400_000_000 * 9000, ..IoSettings::default() };
    let mut ctx = PlainCtx { io: Arc::new(settings) };
    let (mut wrong, mut missing, mut total) = (Vec::new(), std::collections::BTreeMap::<String, usize>::new(), 0);
    for line in text.lines() {
        let mut fields = line.split('\t');
        let (Some(kind), Some(name), Some(want)) = (fields.next(), fields.next(), fields.next()) else { continue };
        total += 1;
        if std::env::var_os("TRACE").is_some() {
            eprintln!("{line}");
        }
        let args: Result<Vec<(Oid, i32, Datum)>, SqlError> = fields
            .map(|f| {
                let (ty, v) = f.split_once(':').unwrap_or((f, "\\N"));
                let (oid, typmod) = parse_type(ty, &ctx.io)?;
                let v = if v == "\\N" { Datum::Null } else { io::text_in(oid, typmod, &unescape(v), &ctx.io)? };
                Ok((oid, typmod, v))
            })
            .collect();
        let got = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            args.and_then(|args| run(kind, name, &args, &mut ctx))
                .and_then(|(v, ty)| if v.is_null() { Ok("\\N".to_owned()) } else { io::text_string(&v, ty, &ctx.io) })
        }))
        .unwrap_or_else(|_| Err(SqlError::internal("PANIC")));
        let got = match got {
            Ok(s) => s,
            Err(e) => format!("!{}: {e}", e.state()),
        };
        let want = if want == "\\N" { want.to_owned() } else { unescape(want) };
        if got.starts_with("!0A000: function ") {
            *missing.entry(name.to_owned()).or_default() += 1;
        } else if got != want {
            wrong.push(format!("{line}\n    got {got}"));
        }
    }
    if file.is_some() {
        println!("{}", wrong.join("\n"));
        println!("{} of {total} differ; without a body: {missing:?}", wrong.len());
    } else {
        assert!(wrong.is_empty() && missing.is_empty(), "{} differ:\n{}\n{missing:?}", wrong.len(), wrong.join("\n"));
    }
}
