-- postgres_r.assess(): what will be refused, or be different, once this database is replicated. Run as part of CREATE EXTENSION in schema postgres_r.
--
-- Each finding is of one kind of thing, as the catalogs show it; docs/compatibility.md says what is behind each. Objects of extensions are left
-- out where the extension is the finding. Nothing is locked, nothing is changed, and it may be asked at any time, replicated or not.

CREATE FUNCTION assess(database name DEFAULT current_database())
    RETURNS TABLE (severity text, topic text, object text, finding text, advice text)
    LANGUAGE plpgsql STABLE STRICT PARALLEL RESTRICTED
    SET search_path = pg_catalog, pg_temp
AS $assess$
BEGIN
    IF database <> current_database() THEN
        RAISE EXCEPTION 'database "%" cannot be assessed from database "%"', database, current_database()
            USING ERRCODE = 'feature_not_supported', HINT = format('Connect to database "%s", and run SELECT * FROM postgres_r.assess().', database);
    END IF;
    RETURN QUERY
    WITH
    own_schema AS (
        SELECT oid, nspname FROM pg_namespace
        WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'postgres_r')
    ),
    extended AS (
        SELECT classid, objid FROM pg_depend WHERE deptype = 'e'
    ),
    relation AS (
        SELECT c.oid, c.relkind, c.relpersistence, c.reltablespace, c.relam, c.relispartition, format('%I.%I', n.nspname, c.relname) AS name
        FROM pg_class c JOIN own_schema n ON n.oid = c.relnamespace
    ),
    written AS (
        SELECT * FROM relation WHERE relkind = 'r' AND relpersistence = 'p'
    ),
    function AS (
        SELECT p.oid, l.lanname, coalesce(pg_get_function_sqlbody(p.oid), p.prosrc) AS source, format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)) AS name
        FROM pg_proc p JOIN own_schema n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
        WHERE NOT EXISTS (SELECT FROM extended e WHERE e.classid = 'pg_proc'::regclass AND e.objid = p.oid)
    ),
    written_text (name, source) AS (
        SELECT name, source FROM function
        UNION ALL
        SELECT name, pg_get_viewdef(oid) FROM relation WHERE relkind IN ('v', 'm')
        UNION ALL
        SELECT format('default of %s.%I', r.name, a.attname), pg_get_expr(d.adbin, d.adrelid)
        FROM pg_attrdef d JOIN relation r ON r.oid = d.adrelid JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
        UNION ALL
        SELECT format('policy %I on %s', p.polname, r.name), concat_ws(' ', pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
        FROM pg_policy p JOIN relation r ON r.oid = p.polrelid
    ),
    finding (severity, topic, object, finding, advice) AS (
        SELECT 'blocks', 'prepared transaction', format('%L', gid), 'START REPLICATION waits for it in vain', 'Run COMMIT PREPARED or ROLLBACK PREPARED.'
        FROM pg_prepared_xacts x WHERE x.database = current_database()
        UNION ALL
        SELECT 'differs', 'event trigger', format('%I', evtname), 'it fires where a statement is run, and not where one of another node is applied', 'Nothing is to be done if what it does is for all nodes.'
        FROM pg_event_trigger WHERE evtenabled IN ('A', 'R')
        UNION ALL
        SELECT 'differs', 'trigger', format('%s on %s', quote_ident(t.tgname), r.name), 'it fires where a row is written, and not where one of another node is applied', 'Nothing is to be done if what it does is for all nodes.'
        FROM pg_trigger t JOIN relation r ON r.oid = t.tgrelid WHERE t.tgenabled IN ('A', 'R') AND NOT t.tgisinternal
        UNION ALL
        SELECT CASE WHEN subtwophasestate <> 'd' OR subdisableonerr THEN 'refused' ELSE 'differs' END, 'subscription', format('%I', subname),
            CASE WHEN subtwophasestate <> 'd' THEN 'it has two_phase' WHEN subdisableonerr THEN 'it has disable_on_error' ELSE 'one node subscribes, and another one takes over if that is away' END,
            CASE WHEN subtwophasestate <> 'd' THEN 'Make it anew without.' WHEN subdisableonerr THEN 'Run ALTER SUBSCRIPTION ... SET (disable_on_error = false).' ELSE 'Have every node reach the publisher.' END
        FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
        UNION ALL
        SELECT 'refused', 'table access method', name, format('rows are replicated of tables with access method heap only, this one has %s', (SELECT quote_ident(amname) FROM pg_am WHERE oid = relam)), 'Run ALTER TABLE ... SET ACCESS METHOD heap.'
        FROM written WHERE relam <> (SELECT oid FROM pg_am WHERE amname = 'heap')
        UNION ALL
        SELECT 'refused', 'partition key', r.name, 'values hash or sort differently on every node', 'Partition by another column, or BY LIST.'
        FROM relation r JOIN pg_partitioned_table p ON p.partrelid = r.oid JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum = ANY (p.partattrs)
            JOIN pg_type t ON t.oid = a.atttypid
        WHERE (p.partstrat = 'h' AND (t.typtype IN ('e', 'c') OR t.typname ~ '^reg')) OR (p.partstrat = 'r' AND t.typname ~ '^reg')
        UNION ALL
        SELECT 'differs', 'two-phase commit', 'max_prepared_transactions', format('others do not wait for a prepared transaction, they get 40001; the server allows %s', current_setting('max_prepared_transactions')), 'Allow it on every node from which transactions are prepared; repeat transactions that get 40001.'
        WHERE current_setting('max_prepared_transactions')::int > 0
        UNION ALL
        SELECT 'differs', 'collation version', datname::text, format('the database was made with version %s of its collation, this server has %s', datcollversion, pg_database_collation_actual_version(oid)), 'Rebuild what depends on it, then run ALTER DATABASE ... REFRESH COLLATION VERSION; all nodes should have the same version.'
        FROM pg_database WHERE datname = current_database() AND datcollversion <> pg_database_collation_actual_version(oid)
        UNION ALL
        SELECT 'differs', 'exclusion constraint', format('%s on %s', quote_ident(c.conname), r.name), 'of two rows that are changed on two nodes at the same time, one transaction gets 40001, even if the rows do not conflict', 'Repeat transactions that get 40001.'
        FROM pg_constraint c JOIN relation r ON r.oid = c.conrelid WHERE c.contype = 'x'
        UNION ALL
        SELECT 'differs', 'numbers of a node', format('%s.%I', r.name, a.attname), format('values of type %s mean something on one node only, and travel as they stand', format_type(a.atttypid, a.atttypmod)), 'Use regclass and its kin for objects, a sequence or a UUID for rows. Numbers of large objects are the same on every node.'
        FROM written r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped JOIN pg_type t ON t.oid = a.atttypid
        WHERE coalesce(nullif(t.typbasetype, 0), nullif(t.typelem, 0), t.oid) IN ('oid'::regtype, 'xid'::regtype, 'xid8'::regtype, 'cid'::regtype, 'tid'::regtype, 'oidvector'::regtype, 'pg_snapshot'::regtype)
        UNION ALL
        SELECT 'differs', 'numbers of a node', name, 'its text mentions xmin, ctid, tableoid or a transaction''s number, which are others on every node', 'Do not keep such numbers, nor compare them across nodes.'
        FROM written_text WHERE source ~* '\m(xmin|xmax|ctid|tableoid|txid_current|pg_current_xact_id)\M'
        UNION ALL
        SELECT 'differs', 'advisory locks', name, 'advisory locks hold in the whole group, and cost a round trip', 'SET postgres_r.advisory_locks = ''local'' where one node is meant.'
        FROM written_text WHERE source ~* '\mpg_(try_)?advisory_'
        UNION ALL
        SELECT 'differs', 'unlogged table', name, 'each node has rows of its own', 'Run ALTER TABLE ... SET LOGGED if the group is to have them.'
        FROM relation WHERE relkind = 'r' AND relpersistence = 'u'
        UNION ALL
        SELECT 'differs', 'foreign table', name, 'the foreign server takes part in no decision of the group: what is written there stays when the transaction then gets 40001', 'Read from it, or write to it in transactions of their own.'
        FROM relation WHERE relkind = 'f'
        UNION ALL
        SELECT 'differs', 'isolation', 'default_transaction_isolation', 'SERIALIZABLE transactions get 40001 for reads that one server would let pass', 'Repeat transactions that get 40001.'
        WHERE current_setting('default_transaction_isolation') = 'serializable'
        UNION ALL
        SELECT 'slow', 'table without a key', name, 'each row that is changed is found on the other nodes by reading the table', 'Add a primary key.'
        FROM written r
        WHERE NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = r.oid AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
            AND NOT EXISTS (SELECT FROM unnest(i.indkey[0:i.indnkeyatts - 1]) k JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum = k WHERE NOT a.attnotnull))
        UNION ALL
        SELECT 'needs', 'extension', format('%I %s', extname, extversion), 'its files must be on every node, in this version', 'Install them before START REPLICATION on the other nodes.'
        FROM pg_extension WHERE extname NOT IN ('plpgsql', 'postgres_r')
        UNION ALL
        SELECT 'needs', 'function in C', name, format('library %s must be on every node', quote_literal((SELECT probin FROM pg_proc p WHERE p.oid = function.oid))), 'Install it there.'
        FROM function WHERE lanname = 'c'
        UNION ALL
        SELECT 'needs', 'tablespace', format('%I', t.spcname), format('%s relations are in it, %s among them', count(*), min(r.name)), 'Create it on every node, or move them to pg_default.'
        FROM relation r JOIN pg_tablespace t ON t.oid = r.reltablespace WHERE t.spcname <> 'pg_global' GROUP BY t.spcname
        UNION ALL
        SELECT 'needs', 'role', format('%I', rolname), 'it owns something here, or was granted something', 'A node that gets a copy gets it too; where there is a role of this name already, look whether it is the same.'
        FROM pg_roles a WHERE a.oid <> 10 AND EXISTS (SELECT FROM pg_shdepend d WHERE d.refclassid = 'pg_authid'::regclass AND d.refobjid = a.oid AND d.deptype IN ('o', 'a')
            AND d.dbid = (SELECT oid FROM pg_database WHERE datname = current_database()))
    )
    SELECT f.severity, f.topic, f.object, f.finding, f.advice FROM finding f
    ORDER BY array_position(ARRAY['blocks', 'refused', 'differs', 'slow', 'needs'], f.severity), f.topic, f.object;
END
$assess$;
COMMENT ON FUNCTION assess(name) IS
    'what of this database keeps START REPLICATION from it (blocks), will be refused, differs from one server, is slow, or needs something on every node; and what to do';
