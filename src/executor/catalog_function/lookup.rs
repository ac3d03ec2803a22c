//! Names of catalog objects, for `regclass` and its kin.

use crate::sql::catalog::CatalogHandle;
use crate::sql::catalog::compiled::{collation_by_name, collation_name};
use crate::sql::types::{NameLookup, ObjectKind, Oid};
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
            ObjectKind::Type | ObjectKind::Function => Ok(None),
        }
    }

    fn name_of(&self, kind: ObjectKind, oid: Oid) -> Result<Option<(Option<String>, String)>, SqlError> {
        match kind {
            ObjectKind::Relation => {
                let Some(relation) = self.relation(oid)? else { return Ok(None) };
                let schema = (!self.is_visible(&relation)?).then(|| relation.namespace_name.to_string());
                Ok(Some((schema, relation.name.to_string())))
            }
            ObjectKind::Namespace => Ok(self.namespace_name(oid)?.map(|n| (None, n.to_string()))),
            ObjectKind::Role => Ok(self.role(oid)?.map(|r| (None, r.name.to_string()))),
            ObjectKind::Collation => Ok(collation_name(oid).map(|n| (None, n.to_owned()))),
            ObjectKind::Type | ObjectKind::Function => Ok(None),
        }
    }
}
