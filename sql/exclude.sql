-- Tables that stay local on purpose. The mark is an ordinary trigger that does nothing, so that it goes with the table: by ALTER, by DROP, in a dump, in a copy.
CREATE FUNCTION postgres_r.excluded() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
COMMENT ON FUNCTION postgres_r.excluded() IS 'marks a table whose rows stay on the node where they are written';

CREATE VIEW postgres_r.excluded_tables AS
    SELECT tgrelid::regclass AS table_name FROM pg_catalog.pg_trigger WHERE tgfoid = 'postgres_r.excluded'::pg_catalog.regproc AND NOT tgisinternal;
COMMENT ON VIEW postgres_r.excluded_tables IS 'tables of which each node has rows of its own';
GRANT SELECT ON postgres_r.excluded_tables TO PUBLIC;

-- As whoever calls it, who must own the table.
CREATE FUNCTION postgres_r.exclude(table_name regclass) RETURNS void
    LANGUAGE plpgsql STRICT SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_class WHERE oid = table_name AND relkind = 'r' AND relpersistence = 'p') THEN
        RAISE EXCEPTION USING ERRCODE = 'wrong_object_type', MESSAGE = format('cannot exclude %s from replication', table_name),
            DETAIL = 'It is not an ordinary, permanent table.';
    END IF;
    IF EXISTS (SELECT FROM postgres_r.excluded_tables e WHERE e.table_name = exclude.table_name) THEN
        RAISE EXCEPTION USING ERRCODE = 'duplicate_object', MESSAGE = format('table %s is excluded from replication already', table_name);
    END IF;
    EXECUTE format('CREATE TRIGGER postgres_r_excluded BEFORE TRUNCATE ON %s EXECUTE FUNCTION postgres_r.excluded()', table_name);
END $$;
COMMENT ON FUNCTION postgres_r.exclude(regclass) IS 'from now on rows of this table stay on the node where they are written';

CREATE FUNCTION postgres_r.include(table_name regclass) RETURNS void
    LANGUAGE plpgsql STRICT SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    mark name;
BEGIN
    SELECT tgname INTO mark FROM pg_trigger WHERE tgrelid = table_name AND tgfoid = 'postgres_r.excluded'::regproc AND NOT tgisinternal ORDER BY tgname LIMIT 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_object', MESSAGE = format('table %s is not excluded from replication', table_name);
    END IF;
    EXECUTE format('DROP TRIGGER %I ON %s', mark, table_name);
END $$;
COMMENT ON FUNCTION postgres_r.include(regclass) IS 'the rows that this node has of the table become those of all nodes, and are replicated from now on';
