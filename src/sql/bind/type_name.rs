//! Type names.

use pg_query::NodeEnum;
use pg_query::protobuf::{TypeName, a_const};

use super::scope::{Binder, strings_of};
use crate::sql::types::settings::ObjectKind;
use crate::sql::types::{Oid, registry, type_by_name, type_by_oid, typmod};
use crate::sqlstate::{SqlError, SqlState};

impl Binder<'_> {
    /// The type a type name denotes, with its modifier.
    ///
    /// # Errors
    /// 42704 if there is none; errors about modifiers.
    pub fn type_name(&mut self, name: &TypeName) -> Result<(Oid, i32), SqlError> {
        let names = strings_of(&name.names);
        let (schema, base) = match names.as_slice() {
            [n] => (None, *n),
            [s, n] => (Some(*s), *n),
            [_, s, n] => (Some(*s), *n),
            _ if name.type_oid != 0 => return Ok((name.type_oid, name.typemod)),
            _ => return Err(SqlError::internal("type name without a name")),
        };
        if name.pct_type {
            return Err(self.error(SqlState::FEATURE_NOT_SUPPORTED, "%TYPE is not supported here", name.location));
        }
        let mut oid = match schema {
            None | Some("pg_catalog") => type_by_name(base).map(|t| t.oid),
            Some(_) => None,
        };
        if oid.is_none()
            && let Some(lookup) = self.session.io().names.clone()
        {
            oid = lookup.oid_of(ObjectKind::Type, schema, base)?;
        }
        let Some(mut oid) = oid else {
            let full = names.join(".");
            return Err(self.error(SqlState::UNDEFINED_OBJECT, format!("type \"{full}\" does not exist"), name.location));
        };
        let modifier = if name.typmods.is_empty() {
            name.typemod
        } else {
            let mut values = Vec::with_capacity(name.typmods.len());
            for node in &name.typmods {
                match &node.node {
                    Some(NodeEnum::AConst(c)) => match &c.val {
                        Some(a_const::Val::Ival(i)) => values.push(i.ival),
                        None if !c.isnull => values.push(0),
                        _ => {
                            return Err(self.error(
                                SqlState::SYNTAX_ERROR,
                                "type modifiers must be simple constants or identifiers",
                                name.location,
                            ));
                        }
                    },
                    _ => {
                        return Err(self.error(
                            SqlState::SYNTAX_ERROR,
                            "type modifiers must be simple constants or identifiers",
                            name.location,
                        ));
                    }
                }
            }
            typmod::typmod_in(oid, &values).map_err(|e| self.position(e, name.location))?
        };
        if !name.array_bounds.is_empty() && oid >= crate::sql::types::oids::FIRST_NORMAL {
            return Err(self.error(SqlState::FEATURE_NOT_SUPPORTED, "arrays of row types are not supported", name.location));
        }
        if !name.array_bounds.is_empty() && registry::element_type(oid).is_none_or(|_| type_by_oid(oid).is_none_or(|t| !t.is_array())) {
            oid = registry::array_type(oid).ok_or_else(|| {
                self.error(
                    SqlState::UNDEFINED_OBJECT,
                    format!("could not find array type for data type {}", typmod::format_type(oid, -1)),
                    name.location,
                )
            })?;
        }
        Ok((oid, modifier))
    }
}
