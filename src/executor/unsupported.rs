//! What this server does not do, by the name of the statement.

use pg_query::NodeEnum;
use pg_query::protobuf::{DefineStmt, ObjectType};

/// The command of a statement that nothing here runs.
#[expect(clippy::wildcard_enum_match_arm, reason = "what has no name of its own is \"this statement\"")]
pub(super) fn command(node: &NodeEnum) -> &'static str {
    match node {
        NodeEnum::ListenStmt(_) => "LISTEN",
        NodeEnum::NotifyStmt(_) => "NOTIFY",
        NodeEnum::UnlistenStmt(_) => "UNLISTEN",
        NodeEnum::LoadStmt(_) => "LOAD",
        NodeEnum::RuleStmt(_) => "CREATE RULE",
        NodeEnum::CreateEventTrigStmt(_) => "CREATE EVENT TRIGGER",
        NodeEnum::AlterEventTrigStmt(_) => "ALTER EVENT TRIGGER",
        NodeEnum::CompositeTypeStmt(_) | NodeEnum::CreateEnumStmt(_) | NodeEnum::CreateRangeStmt(_) => "CREATE TYPE",
        NodeEnum::AlterEnumStmt(_) | NodeEnum::AlterTypeStmt(_) => "ALTER TYPE",
        NodeEnum::CreateDomainStmt(_) => "CREATE DOMAIN",
        NodeEnum::AlterDomainStmt(_) => "ALTER DOMAIN",
        NodeEnum::CreateExtensionStmt(_) => "CREATE EXTENSION",
        NodeEnum::AlterExtensionStmt(_) | NodeEnum::AlterExtensionContentsStmt(_) => "ALTER EXTENSION",
        NodeEnum::CreateStatsStmt(_) => "CREATE STATISTICS",
        NodeEnum::AlterStatsStmt(_) => "ALTER STATISTICS",
        NodeEnum::CreatePublicationStmt(_) => "CREATE PUBLICATION",
        NodeEnum::AlterPublicationStmt(_) => "ALTER PUBLICATION",
        NodeEnum::CreateSubscriptionStmt(_) => "CREATE SUBSCRIPTION",
        NodeEnum::AlterSubscriptionStmt(_) => "ALTER SUBSCRIPTION",
        NodeEnum::DropSubscriptionStmt(_) => "DROP SUBSCRIPTION",
        NodeEnum::CreatePolicyStmt(_) => "CREATE POLICY",
        NodeEnum::AlterPolicyStmt(_) => "ALTER POLICY",
        NodeEnum::CreateFdwStmt(_) => "CREATE FOREIGN DATA WRAPPER",
        NodeEnum::CreateForeignServerStmt(_) => "CREATE SERVER",
        NodeEnum::CreateForeignTableStmt(_) => "CREATE FOREIGN TABLE",
        NodeEnum::CreateUserMappingStmt(_) => "CREATE USER MAPPING",
        NodeEnum::ImportForeignSchemaStmt(_) => "IMPORT FOREIGN SCHEMA",
        NodeEnum::CreateCastStmt(_) => "CREATE CAST",
        NodeEnum::CreateConversionStmt(_) => "CREATE CONVERSION",
        NodeEnum::CreateOpClassStmt(_) => "CREATE OPERATOR CLASS",
        NodeEnum::CreateOpFamilyStmt(_) => "CREATE OPERATOR FAMILY",
        NodeEnum::AlterOpFamilyStmt(_) => "ALTER OPERATOR FAMILY",
        NodeEnum::AlterOperatorStmt(_) => "ALTER OPERATOR",
        NodeEnum::CreateTransformStmt(_) => "CREATE TRANSFORM",
        NodeEnum::CreatePlangStmt(_) => "CREATE LANGUAGE",
        NodeEnum::CreateAmStmt(_) => "CREATE ACCESS METHOD",
        NodeEnum::SecLabelStmt(_) => "SECURITY LABEL",
        NodeEnum::AlterDefaultPrivilegesStmt(_) => "ALTER DEFAULT PRIVILEGES",
        NodeEnum::DropOwnedStmt(_) => "DROP OWNED",
        NodeEnum::ReassignOwnedStmt(_) => "REASSIGN OWNED",
        NodeEnum::AlterTableMoveAllStmt(_) => "ALTER TABLE ALL IN TABLESPACE",
        NodeEnum::AlterTableSpaceOptionsStmt(_) => "ALTER TABLESPACE",
        NodeEnum::AlterCollationStmt(_) => "ALTER COLLATION",
        NodeEnum::AlterTsdictionaryStmt(_) => "ALTER TEXT SEARCH DICTIONARY",
        NodeEnum::AlterTsconfigurationStmt(_) => "ALTER TEXT SEARCH CONFIGURATION",
        NodeEnum::DefineStmt(s) => definition(s),
        _ => "this statement",
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the grammar has no other definitions than of text search")]
fn definition(s: &DefineStmt) -> &'static str {
    match s.kind() {
        ObjectType::ObjectAggregate => "CREATE AGGREGATE",
        ObjectType::ObjectOperator => "CREATE OPERATOR",
        ObjectType::ObjectType => "CREATE TYPE",
        ObjectType::ObjectCollation => "CREATE COLLATION",
        _ => "CREATE TEXT SEARCH",
    }
}

#[cfg(test)]
mod tests {
    use super::command;

    #[test]
    fn what_is_not_there_says_its_name() {
        for (text, name) in [
            ("create type mood as enum ('sad')", "CREATE TYPE"),
            ("create type pair as (a int)", "CREATE TYPE"),
            ("create domain d as int", "CREATE DOMAIN"),
            ("create extension hstore", "CREATE EXTENSION"),
            ("create aggregate a (int) (sfunc = int4pl, stype = int)", "CREATE AGGREGATE"),
            ("create text search configuration c (copy = english)", "CREATE TEXT SEARCH"),
            ("create foreign table f (a int) server s", "CREATE FOREIGN TABLE"),
            ("listen rows", "LISTEN"),
            ("drop owned by postgres", "DROP OWNED"),
        ] {
            let parsed = pg_query::parse(text).unwrap();
            let node = parsed.protobuf.stmts[0].stmt.as_ref().and_then(|s| s.node.as_ref()).unwrap();
            assert_eq!(command(node), name, "{text}");
        }
    }
}
