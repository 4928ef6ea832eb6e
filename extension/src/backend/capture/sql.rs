//! The SQL side of capture.

use pgrx::prelude::*;

extension_sql!(
    r#"
CREATE FUNCTION capture() RETURNS trigger LANGUAGE c AS 'MODULE_PATHNAME', 'postgres_r_capture';
COMMENT ON FUNCTION capture() IS 'Captures the row changes of a table; postgres_r gives it to every table by itself.';
-- A second trigger with it would capture rows twice.
REVOKE ALL ON FUNCTION capture() FROM PUBLIC;
"#,
    name = "capture"
);

/// Gives every permanent table its capture trigger; for tables older than START REPLICATION.
#[pg_extern]
fn capture_tables() {
    super::statement::capture_tables();
}

extension_sql!(
    "REVOKE ALL ON FUNCTION capture_tables() FROM PUBLIC;",
    name = "capture_tables_rights",
    requires = [capture_tables]
);

// Of this node only: no trigger captures it (`pg::number`).
extension_sql!(
    r#"
CREATE TABLE named_objects (class oid NOT NULL, object oid NOT NULL, hash bigint, identity bytea);
CREATE INDEX named_objects_by_object ON named_objects (class, object);
CREATE INDEX named_objects_by_hash ON named_objects (hash);
COMMENT ON TABLE named_objects IS 'Which objects rows name by regclass and its kin on this node, and what became of those that were dropped.';
"#,
    name = "named_objects"
);
