-- Functions and views of postgres_r, run as part of CREATE EXTENSION in schema postgres_r.

CREATE FUNCTION start_replication(database name, group_name text, overwrite boolean DEFAULT false) RETURNS void
    LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
    AS 'SELECT postgres_r.start_replication_as_text(database::text, group_name, overwrite)';
COMMENT ON FUNCTION start_replication(name, text, boolean) IS
    'as ALTER DATABASE ... START REPLICATION IN GROUP ...; with overwrite => true as WITH (OVERWRITE)';

CREATE FUNCTION stop_replication(database name, force boolean DEFAULT false) RETURNS void
    LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
    AS 'SELECT postgres_r.stop_replication_as_text(database::text, force)';
COMMENT ON FUNCTION stop_replication(name, boolean) IS
    'as ALTER DATABASE ... STOP REPLICATION; with force => true as STOP REPLICATION FORCE';

-- Written where replication of this database is stopped, so that START can say what it finds.
CREATE TABLE past_groups (
    group_name text NOT NULL,
    position bigint NOT NULL,
    left_at timestamptz NOT NULL DEFAULT now(),
    was_told boolean NOT NULL
);
COMMENT ON TABLE past_groups IS
    'groups that this database has left on this node: up to which position it holds what the group did, and whether the group was told';

-- Written where replication of this database is started WITH (OVERWRITE): it outlives a restart of the server in the middle of the copy.
CREATE TABLE overwriting (
    group_name text NOT NULL,
    asked_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE overwriting IS
    'the group whose contents take, or have taken, the place of this database, which is kept under another name';

-- Transactions that are prepared and not decided on (docs/adr/0061-prepared-transactions.md). Written where ordered work is applied, and nowhere else.
CREATE TABLE prepared (
    gid text COLLATE "C" PRIMARY KEY,
    owner text NOT NULL,
    prepared timestamptz NOT NULL,
    position bigint NOT NULL,
    body bytea NOT NULL
);
COMMENT ON TABLE prepared IS 'prepared transactions of the group, with what they have changed';
-- Whoever could change it could have transactions committed that nobody has made; what it holds are rows of any table.
REVOKE ALL ON prepared FROM PUBLIC;

CREATE VIEW prepared_transactions AS
    SELECT gid, prepared, owner, current_database() AS database, position, octet_length(body) AS bytes FROM prepared;
COMMENT ON VIEW prepared_transactions IS
    'transactions of the current database that are prepared in the group, on whichever node: COMMIT PREPARED or ROLLBACK PREPARED decides on them';
GRANT SELECT ON prepared_transactions TO PUBLIC;

-- Databases that CREATE and DROP DATABASE have made and dropped on all nodes (docs/adr/0068-databases.md): what is to be, in the group's first database.
CREATE TABLE databases (
    name text COLLATE "C" PRIMARY KEY,
    id uuid NOT NULL,
    state text NOT NULL CHECK (state IN ('making', 'ready', 'dropped')),
    node text NOT NULL,
    provisional text,
    definition text,
    is_plain boolean NOT NULL DEFAULT false,
    reason text
);
COMMENT ON TABLE databases IS 'databases that the group has made or dropped by CREATE and DROP DATABASE, and how they are made';

-- Which of that this node has done; written by each node for itself.
CREATE TABLE databases_done (
    id uuid PRIMARY KEY
);
COMMENT ON TABLE databases_done IS 'what this node has done of postgres_r.databases';
-- Whoever could change them could have databases dropped.
REVOKE ALL ON databases, databases_done FROM PUBLIC;

CREATE VIEW members AS SELECT * FROM member_list();
COMMENT ON VIEW members IS 'the group''s members as seen from this node, for the current database';

CREATE VIEW large_transactions AS
    SELECT pid, node, phase, position, bytes_done, bytes_total, rows,
           TIMESTAMPTZ '2000-01-01 00:00:00+00' + started_at * INTERVAL '1 microsecond' AS started_at
    FROM large_transaction_list();
COMMENT ON VIEW large_transactions IS
    'transactions of the current database that are too large for memory, here where they come from and where they are applied';

COMMENT ON FUNCTION set_commit_token(uuid) IS
    'names the current transaction, so that commit_status() can tell its outcome; gives the position after which it is used';
COMMENT ON FUNCTION session_token() IS
    'what this session has seen so far, its own commits included: to be set as postgres_r.read_after on another node';
COMMENT ON FUNCTION commit_status(uuid, bigint) IS
    'what became of the transaction with this token; with a position after which it was used, the answer is final';

CREATE VIEW conflicts AS SELECT current_database() AS database, * FROM conflict_list();
COMMENT ON VIEW conflicts IS
    'the last conflicts that transactions of the current database lost on this node: one''s own, and all for pg_read_all_stats';

CREATE VIEW conflict_counts AS SELECT * FROM conflict_count_list();
COMMENT ON VIEW conflict_counts IS
    'how often transactions of the current database lost on this node, by table and key; all others in the row without names';

CREATE VIEW failures AS SELECT * FROM failure_list();
COMMENT ON VIEW failures IS
    'what databases of this server could not apply and try again: they are out of service here; asked from another database';

CREATE FUNCTION verify(timeout interval DEFAULT '10 minutes', "table" regclass DEFAULT NULL)
    RETURNS TABLE (table_name text, node text, verdict text, rows bigint, key_range text, detail text, "position" bigint)
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
    AS 'SELECT * FROM postgres_r.verify_within((extract(epoch FROM timeout) * 1000)::bigint, "table"::oid)';
COMMENT ON FUNCTION verify(interval, regclass) IS
    'compares what the nodes hold at one position: all tables and the catalogs, or one table';

CREATE FUNCTION repair(node text, "table" regclass, force boolean DEFAULT false, timeout interval DEFAULT '10 minutes')
    RETURNS TABLE (table_name text, node text, verdict text, rows bigint, key_range text, detail text, "position" bigint)
    LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
    AS 'SELECT * FROM postgres_r.repair_within($1, "table"::oid, force, (extract(epoch FROM timeout) * 1000)::bigint)';
COMMENT ON FUNCTION repair(text, regclass, boolean, interval) IS
    'gives a node the rows of a table that it holds otherwise than this one; by force also where nothing differs';

CREATE VIEW verification_progress AS SELECT * FROM verification_progress_list();
COMMENT ON VIEW verification_progress IS 'what this node is looking at for a verification that is under way';

-- A verification reads all tables, and shows keys to who may read them; a repair writes.
REVOKE ALL ON FUNCTION verify(interval, regclass), verify_within(bigint, oid), repair(text, regclass, boolean, interval),
    repair_within(text, oid, boolean, bigint), put_repair(text, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION verify(interval, regclass), verify_within(bigint, oid) TO pg_monitor;

-- Not in pg_catalog: what is there is PostgreSQL's own, and is listed as such.
CREATE VIEW pg_stat_postgres_r AS
    SELECT
        pg_catalog.max(value) FILTER (WHERE name = 'commits') AS commits,
        pg_catalog.max(value) FILTER (WHERE name = 'aborts_conflict') AS aborts_conflict,
        pg_catalog.max(value) FILTER (WHERE name = 'aborts_horizon') AS aborts_horizon,
        pg_catalog.max(value) FILTER (WHERE name = 'aborts_malformed') AS aborts_malformed,
        pg_catalog.max(value) FILTER (WHERE name = 'aborts_locks_lost') AS aborts_locks_lost,
        pg_catalog.max(value) FILTER (WHERE name = 'refused_token') AS refused_token,
        pg_catalog.max(value) FILTER (WHERE name = 'aborts_victim') AS aborts_victim,
        pg_catalog.max(value) FILTER (WHERE name = 'refused_quorum') AS refused_quorum,
        pg_catalog.max(value) FILTER (WHERE name = 'refused_overload') AS refused_overload,
        pg_catalog.max(value) FILTER (WHERE name = 'outcomes_unknown') AS outcomes_unknown,
        pg_catalog.max(value) FILTER (WHERE name = 'handed_over') AS handed_over,
        pg_catalog.max(value) FILTER (WHERE name = 'yielded') AS yielded,
        pg_catalog.max(value) FILTER (WHERE name = 'applied') AS applied,
        pg_catalog.max(value) FILTER (WHERE name = 'apply_retries') AS apply_retries,
        pg_catalog.max(value) FILTER (WHERE name = 'apply_gave_way') AS apply_gave_way,
        pg_catalog.max(value) FILTER (WHERE name = 'apply_runs') AS apply_runs,
        pg_catalog.max(value) FILTER (WHERE name = 'apply_runs_broken') AS apply_runs_broken,
        pg_catalog.max(value) FILTER (WHERE name = 'notifications_lost') AS notifications_lost,
        pg_catalog.max(value) FILTER (WHERE name = 'applied_ahead') AS applied_ahead,
        pg_catalog.max(value) FILTER (WHERE name = 'ahead_lost') AS ahead_lost,
        pg_catalog.max(value) FILTER (WHERE name = 'sessions_ended') AS sessions_ended,
        pg_catalog.max(value) FILTER (WHERE name = 'retries') AS retries,
        pg_catalog.max(value) FILTER (WHERE name = 'rehearsals') AS rehearsals,
        pg_catalog.max(value) FILTER (WHERE name = 'rehearsals_failed') AS rehearsals_failed,
        pg_catalog.max(value) FILTER (WHERE name = 'rehearsals_partly') AS rehearsals_partly,
        pg_catalog.max(value) FILTER (WHERE name = 'rehearsal_us') / 1000.0 AS rehearsal_ms,
        pg_catalog.max(value) FILTER (WHERE name = 'verdict_wait_us') / 1000.0 AS verdict_wait_ms,
        pg_catalog.max(value) FILTER (WHERE name = 'gate_waits') AS gate_waits,
        pg_catalog.max(value) FILTER (WHERE name = 'gate_wait_us') / 1000.0 AS gate_wait_ms,
        pg_catalog.max(value) FILTER (WHERE name = 'lag_waits') AS lag_waits,
        pg_catalog.max(value) FILTER (WHERE name = 'lag_wait_us') / 1000.0 AS lag_wait_ms,
        pg_catalog.max(value) FILTER (WHERE name = 'throttle_waits') AS throttle_waits,
        pg_catalog.max(value) FILTER (WHERE name = 'throttle_wait_us') / 1000.0 AS throttle_wait_ms,
        pg_catalog.max(value) FILTER (WHERE name = 'read_waits') AS read_waits,
        pg_catalog.max(value) FILTER (WHERE name = 'read_wait_us') / 1000.0 AS read_wait_ms,
        pg_catalog.max(value) FILTER (WHERE name = 'lock_requests') AS lock_requests,
        pg_catalog.max(value) FILTER (WHERE name = 'lock_wait_us') / 1000.0 AS lock_wait_ms,
        pg_catalog.max(value) FILTER (WHERE name = 'tables_cleared') AS tables_cleared,
        pg_catalog.max(value) FILTER (WHERE name = 'tables_not_cleared') AS tables_not_cleared,
        pg_catalog.max(value) FILTER (WHERE name = 'after_waits') AS after_waits,
        pg_catalog.max(value) FILTER (WHERE name = 'after_missed') AS after_missed,
        pg_catalog.max(value) FILTER (WHERE name = 'after_wait_us') / 1000.0 AS after_wait_ms,
        pg_catalog.max(value) FILTER (WHERE name = 'bytes_sent') AS bytes_sent,
        pg_catalog.max(value) FILTER (WHERE name = 'bytes_received') AS bytes_received,
        pg_catalog.max(value) FILTER (WHERE name = 'resubmissions') AS resubmissions,
        pg_catalog.max(value) FILTER (WHERE name = 'attaches') AS attaches,
        pg_catalog.max(value) FILTER (WHERE name = 'spooled') AS spooled
    FROM postgres_r.counter_list();
COMMENT ON VIEW pg_stat_postgres_r IS 'what replication of the current database did on this node since the server started';

GRANT USAGE ON SCHEMA postgres_r TO PUBLIC;
GRANT SELECT ON members, large_transactions, verification_progress, conflicts, conflict_counts, failures, pg_stat_postgres_r TO PUBLIC;
