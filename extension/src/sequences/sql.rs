//! The SQL side of sequences.

use pgrx::prelude::*;

extension_sql!(
    r#"
CREATE TABLE sequences (
    schema text COLLATE "C",
    name text COLLATE "C",
    last_value bigint NOT NULL,
    is_called boolean NOT NULL,
    PRIMARY KEY (schema, name)
);
COMMENT ON TABLE sequences IS 'how far the group is with each sequence: up to here values have been given to nodes';
-- Whoever could change it could have nodes give values twice.
REVOKE ALL ON sequences FROM PUBLIC;

CREATE FUNCTION next_identity(regclass) RETURNS bigint STRICT VOLATILE PARALLEL UNSAFE
    LANGUAGE c AS 'MODULE_PATHNAME', 'postgres_r_next_identity';
COMMENT ON FUNCTION next_identity(regclass) IS 'the next value of an identity column; queries are made to call it';

CREATE FUNCTION last_value(regclass, bigint, boolean) RETURNS bigint STRICT VOLATILE PARALLEL UNSAFE
    LANGUAGE c AS 'MODULE_PATHNAME', 'postgres_r_last_value';
CREATE FUNCTION is_called(regclass, bigint, boolean) RETURNS boolean STRICT VOLATILE PARALLEL UNSAFE
    LANGUAGE c AS 'MODULE_PATHNAME', 'postgres_r_is_called';
COMMENT ON FUNCTION last_value(regclass, bigint, boolean) IS 'last_value of a sequence in the group, given its row on this node';
COMMENT ON FUNCTION is_called(regclass, bigint, boolean) IS 'is_called of a sequence in the group, given its row on this node';
"#,
    name = "sequences"
);
