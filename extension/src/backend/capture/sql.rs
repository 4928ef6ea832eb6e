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
