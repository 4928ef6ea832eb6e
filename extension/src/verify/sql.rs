//! The tables that verifications are made of.

use pgrx::prelude::*;

extension_sql!(
    r#"
CREATE TABLE verification_marks (
    id bigint PRIMARY KEY,
    kind smallint NOT NULL,
    run bigint NOT NULL,
    node text COLLATE "C" NOT NULL,
    deadline timestamptz NOT NULL,
    is_first boolean UNIQUE
);
COMMENT ON TABLE verification_marks IS
    'positions at which the nodes look at what they hold: kind 0 begins a verification, kind 1 is a look; there is one of kind 0 at most';

CREATE TABLE verification_scope (
    mark bigint,
    object text COLLATE "C",
    buckets text NOT NULL,
    depth smallint NOT NULL,
    PRIMARY KEY (mark, object)
);
COMMENT ON TABLE verification_scope IS
    'what is looked at: with depth 0 as a whole, 1 in parts, 2 row by row; only in the parts named, if any; everything if there is no row';

CREATE TABLE verification_answers (
    mark bigint,
    node text COLLATE "C",
    nth integer,
    object text COLLATE "C" NOT NULL,
    kind smallint NOT NULL,
    rows bigint,
    fingerprint text,
    part text,
    PRIMARY KEY (mark, node, nth)
);
COMMENT ON TABLE verification_answers IS 'what the nodes say at the marks of the verification that is under way';

CREATE TABLE verification_results (
    run bigint,
    nth integer,
    object text COLLATE "C" NOT NULL,
    node text COLLATE "C" NOT NULL,
    verdict text NOT NULL,
    rows bigint,
    key_range text,
    detail text,
    position bigint,
    verified_at timestamptz NOT NULL,
    PRIMARY KEY (run, nth)
);
COMMENT ON TABLE verification_results IS 'what verifications of the last hour have found';

-- Keys of rows are in them, and whoever could write them could say anything.
REVOKE ALL ON verification_marks, verification_scope, verification_answers, verification_results FROM PUBLIC;
"#,
    name = "verification"
);
