//! Names of catalog objects, for `regclass` and its kin.

use std::sync::Arc;

use crate::sql::catalog::CatalogHandle;
use crate::sql::catalog::compiled::{collation_by_name, collation_name};
use crate::sql::types::{NameLookup, ObjectKind, Oid, TupleDesc};
use crate::sqlstate::{SqlError, SqlState};

impl NameLookup for CatalogHandle {
    fn oid_of(&self, kind: ObjectKind, schema: Option<&str>, name: &str) -> Result<Option<Oid>, SqlError> {
        match kind {
            ObjectKind::Relation => match self.find_relation(schema, name) {
                Ok(found) => Ok(found.map(|r| r.oid)),
                Err(e) if e.state() == SqlState::INVALID_SCHEMA_NAME => Ok(None),
                Err(e) => Err(e),
            },
            ObjectKind::Namespace => self.find_namespace(name),
            ObjectKind::Role => Ok(self.find_role(name)?.map(|r| r.oid)),
            ObjectKind::Collation => Ok(collation_by_name(name)),
            ObjectKind::Function => Ok(self.functions(schema, name)?.first().map(|f| f.oid)),
            ObjectKind::Type => match self.find_relation(schema, name) {
                Ok(found) => Ok(found.map(|r| r.row_type).filter(|t| *t != 0)),
                Err(e) if e.state() == SqlState::INVALID_SCHEMA_NAME => Ok(None),
                Err(e) => Err(e),
            },
        }
    }

    fn composite(&self, type_oid: Oid) -> Result<Option<Arc<TupleDesc>>, SqlError> {
        // A row type has its relation's OID.
        Ok(self.relation(type_oid)?.filter(|r| r.row_type == type_oid).map(|r| r.row_desc()))
    }

    fn functions_named(&self, schema: Option<&str>, name: &str) -> Result<Vec<(Oid, Vec<Oid>)>, SqlError> {
        Ok(self.functions(schema, name)?.into_iter().map(|f| (f.oid, f.args.to_vec())).collect())
    }

    fn arguments_of(&self, function: Oid) -> Result<Option<Vec<Oid>>, SqlError> {
        Ok(self.function(function)?.map(|f| f.entry.args.to_vec()))
    }

    fn name_of(&self, kind: ObjectKind, oid: Oid) -> Result<Option<(Option<String>, String)>, SqlError> {
        match kind {
            ObjectKind::Relation | ObjectKind::Type => {
                let Some(relation) = self.relation(oid)?.filter(|r| kind == ObjectKind::Relation || r.row_type == oid) else {
                    return Ok(None);
                };
                let schema = (!self.is_visible(&relation)?).then(|| relation.namespace_name.to_string());
                Ok(Some((schema, relation.name.to_string())))
            }
            ObjectKind::Namespace => Ok(self.namespace_name(oid)?.map(|n| (None, n.to_string()))),
            ObjectKind::Role => Ok(self.role(oid)?.map(|r| (None, r.name.to_string()))),
            ObjectKind::Collation => Ok(collation_name(oid).map(|n| (None, n.to_owned()))),
            ObjectKind::Function => {
                let Some(f) = self.function(oid)? else { return Ok(None) };
                let first = self.functions(None, f.entry.name)?.into_iter().find(|o| o.args == f.entry.args);
                let visible = first.is_some_and(|o| o.oid == oid);
                let schema = if visible { None } else { self.namespace_name(f.namespace)?.map(|n| n.to_string()) };
                Ok(Some((schema, f.entry.name.to_owned())))
            }
        }
    }
}
