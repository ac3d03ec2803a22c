//! Reading parse nodes.

use pg_query::NodeEnum;
use pg_query::protobuf::{self, Node, RangeVar, RoleSpec, RoleSpecType};

use crate::sqlstate::{SqlError, SqlState};

/// A string node, or a name's only part.
pub(crate) fn string(node: &Node) -> Option<&str> {
    match &node.node {
        Some(NodeEnum::String(s)) => Some(&s.sval),
        _ => None,
    }
}

/// All strings of a list.
pub(crate) fn strings(nodes: &[Node]) -> Vec<&str> {
    nodes.iter().filter_map(string).collect()
}

/// A list node's elements, or the node itself.
pub(crate) fn items(node: &Node) -> &[Node] {
    match &node.node {
        Some(NodeEnum::List(list)) => &list.items,
        _ => std::slice::from_ref(node),
    }
}

/// A possibly qualified name given as a list of strings: schema and name.
pub(crate) fn qualified(nodes: &[Node]) -> Result<(Option<&str>, &str), SqlError> {
    match strings(nodes).as_slice() {
        [name] => Ok((None, name)),
        [schema, name] | [_, schema, name] => Ok((Some(schema), name)),
        _ => Err(SqlError::new(SqlState::SYNTAX_ERROR, "improper qualified name (too many dotted names)")),
    }
}

/// Schema and name of a relation.
pub(crate) fn names(relation: &RangeVar) -> (Option<&str>, &str) {
    ((!relation.schemaname.is_empty()).then_some(relation.schemaname.as_str()), &relation.relname)
}

/// A required relation.
pub(crate) fn relation(relation: Option<&RangeVar>) -> Result<&RangeVar, SqlError> {
    relation.ok_or_else(|| SqlError::internal("statement names no relation"))
}

/// 1-based character position of a byte offset in a statement's source.
pub(crate) fn position(source: &str, location: i32) -> Option<u32> {
    let offset = usize::try_from(location).ok()?;
    let before = source.get(..offset)?;
    u32::try_from(before.chars().count() + 1).ok()
}

/// The error with a place in the statement, unless it has one.
pub(crate) fn located(e: SqlError, source: &str, location: i32) -> SqlError {
    match position(source, location) {
        Some(place) if e.fields().position.is_none() => e.at(place),
        _ => e,
    }
}

/// The options of a statement.
pub(crate) fn options(nodes: &[Node]) -> impl Iterator<Item = &protobuf::DefElem> {
    nodes.iter().filter_map(|node| match &node.node {
        Some(NodeEnum::DefElem(element)) => Some(&**element),
        _ => None,
    })
}

/// An option's value as text: numbers, strings, names, booleans.
pub(crate) fn option_text(element: &protobuf::DefElem) -> Option<String> {
    element.arg.as_deref().and_then(value_text)
}

/// A constant, name or type name as text.
#[expect(clippy::wildcard_enum_match_arm, reason = "every other kind is treated alike here")]
pub(crate) fn value_text(node: &Node) -> Option<String> {
    match node.node.as_ref()? {
        NodeEnum::String(s) => Some(s.sval.clone()),
        NodeEnum::Integer(i) => Some(i.ival.to_string()),
        NodeEnum::Float(f) => Some(f.fval.clone()),
        NodeEnum::Boolean(b) => Some(if b.boolval { "true" } else { "false" }.to_owned()),
        NodeEnum::AConst(c) => match c.val.as_ref()? {
            protobuf::a_const::Val::Sval(s) => Some(s.sval.clone()),
            protobuf::a_const::Val::Ival(i) => Some(i.ival.to_string()),
            protobuf::a_const::Val::Fval(f) => Some(f.fval.clone()),
            protobuf::a_const::Val::Boolval(b) => Some(if b.boolval { "true" } else { "false" }.to_owned()),
            protobuf::a_const::Val::Bsval(b) => Some(b.bsval.clone()),
        },
        NodeEnum::TypeName(t) => strings(&t.names).last().map(|&s| s.to_owned()),
        NodeEnum::List(list) => Some(strings(&list.items).join(".")),
        NodeEnum::AStar(_) => Some("*".to_owned()),
        NodeEnum::TypeCast(cast) => cast.arg.as_deref().and_then(value_text),
        _ => None,
    }
}

/// An option's value as a boolean; no value means true. PostgreSQL: `defGetBoolean`.
pub(crate) fn option_bool(element: &protobuf::DefElem) -> Result<bool, SqlError> {
    let Some(text) = option_text(element) else { return Ok(true) };
    match text.to_ascii_lowercase().as_str() {
        "true" | "on" | "1" => Ok(true),
        "false" | "off" | "0" => Ok(false),
        _ => Err(SqlError::new(SqlState::SYNTAX_ERROR, format!("{} requires a Boolean value", element.defname))),
    }
}

/// An option's value as an integer.
pub(crate) fn option_int(element: &protobuf::DefElem) -> Result<i64, SqlError> {
    let text = option_text(element).filter(|t| t.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.')));
    let text = text.ok_or_else(|| SqlError::new(SqlState::SYNTAX_ERROR, format!("{} requires a numeric value", element.defname)))?;
    text.parse().map_err(|_| {
        if text.contains(['.', 'e', 'E']) {
            SqlError::new(SqlState::INVALID_TEXT_REPRESENTATION, format!("invalid input syntax for type bigint: \"{text}\""))
        } else {
            SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, format!("value \"{text}\" is out of range for type bigint"))
        }
    })
}

/// Before the options that are for the table of large values.
pub(crate) const TOAST_OPTION: &str = "toast.";

/// Splits options into the table's own and those for its table of large values.
pub(crate) fn split_options(options: &[String]) -> (Vec<String>, Vec<String>) {
    let mut own = options.to_vec();
    let toast = own.extract_if(.., |o| o.starts_with(TOAST_OPTION)).map(|o| o[TOAST_OPTION.len()..].to_owned()).collect();
    (own, toast)
}

/// What a role specification names.
pub(crate) enum RoleName<'a> {
    /// A role by name.
    Named(&'a str),
    /// CURRENT_USER, CURRENT_ROLE.
    Current,
    /// SESSION_USER.
    Session,
    /// PUBLIC.
    Public,
}

/// Reads a role specification.
pub(crate) fn role(spec: &RoleSpec) -> RoleName<'_> {
    match spec.roletype() {
        RoleSpecType::RolespecCurrentRole | RoleSpecType::RolespecCurrentUser => RoleName::Current,
        RoleSpecType::RolespecSessionUser => RoleName::Session,
        RoleSpecType::RolespecPublic => RoleName::Public,
        RoleSpecType::RolespecCstring | RoleSpecType::Undefined => RoleName::Named(&spec.rolename),
    }
}

/// The role specifications of a list.
pub(crate) fn roles(nodes: &[Node]) -> impl Iterator<Item = &RoleSpec> {
    nodes.iter().filter_map(|node| match &node.node {
        Some(NodeEnum::RoleSpec(spec)) => Some(spec),
        _ => None,
    })
}
