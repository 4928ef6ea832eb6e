//! What the catalogs say of the database's objects, in words that mean the same on every node: names instead of OIDs, definitions as
//! PostgreSQL prints them.
//!
//! Large objects are in the catalogs too, with all that is in them.
//!
//! Left out: what is each server's own (roles, tablespaces, statistics, settings of databases and roles, publications and subscriptions), temporary
//! objects, indexes that are not valid (copies of a database have none; one that is valid elsewhere is missing then), what belongs to extensions but for their versions, what VACUUM FULL or CLUSTER leave behind, and options by which a server numbers
//! versions of its own (`pg_...`).

use crate::pg::query;

/// An object and its definition.
pub struct Object {
    pub name: String,
    pub definition: String,
}

/// All of them, by the active snapshot. Definitions are printed as of now: where a statement has been committed since, they are worth nothing.
pub fn objects() -> Vec<Object> {
    let parts = [
        RELATIONS,
        INDEXES,
        CONSTRAINTS,
        TRIGGERS,
        RULES,
        POLICIES,
        FUNCTIONS,
        TYPES,
        SCHEMAS,
        SEQUENCES,
        OTHERS,
        COMMENTS,
        NAMES,
        LARGE_OBJECTS,
    ];
    let text = |column: &Option<String>| column.clone().unwrap_or_default();
    let object = |row: query::Row| {
        let (name, definition) = (row.first().map(text)?, row.get(1).map(text)?);
        Some(Object { name, definition })
    };
    let queries = parts.into_iter().map(|part| part.replace("OF_A_SESSION", OF_A_SESSION));
    queries.flat_map(|part| query::rows_by_snapshot(&part)).filter_map(object).collect()
}

/// Functions that take or give temporary types: they go with the session that has made those.
const OF_A_SESSION: &str = "(
    SELECT t.objid FROM pg_depend t
        LEFT JOIN pg_type y ON t.refclassid = 'pg_type'::regclass AND y.oid = t.refobjid
        LEFT JOIN pg_class r ON t.refclassid = 'pg_class'::regclass AND r.oid = t.refobjid
        JOIN pg_namespace s ON s.oid IN (y.typnamespace, r.relnamespace)
    WHERE t.classid = 'pg_proc'::regclass AND s.nspname ~ '^pg_temp')";

const RELATIONS: &str = "
    SELECT format('%s %I.%I', CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'c' THEN 'type'
                  WHEN 'f' THEN 'foreign table' WHEN 'S' THEN 'sequence' ELSE 'table' END, n.nspname, c.relname),
           concat_ws(' | ', c.relkind, c.relpersistence, c.relreplident, c.relrowsecurity, c.relforcerowsecurity, c.relispopulated,
               c.relispartition, pg_get_userbyid(c.relowner), c.reloptions::text,
               (SELECT string_agg(acl::text, ',' ORDER BY acl::text) FROM unnest(c.relacl) acl),
               (SELECT string_agg(i.inhparent::regclass::text, ',' ORDER BY i.inhseqno) FROM pg_inherits i WHERE i.inhrelid = c.oid),
               pg_get_expr(c.relpartbound, c.oid), CASE c.relkind WHEN 'p' THEN pg_get_partkeydef(c.oid) END,
               CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END,
               (SELECT string_agg(concat_ws(' ', quote_ident(a.attname), format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
                           a.attgenerated, a.attislocal, a.attinhcount, a.attstorage, a.attcompression, (SELECT string_agg(o, ',' ORDER BY o) FROM unnest(a.attoptions) o WHERE o !~ '^pg_'),
                           NULLIF(a.attstattarget, -1), (SELECT string_agg(acl::text, ',' ORDER BY acl::text) FROM unnest(a.attacl) acl),
                           quote_ident(o.collname), pg_get_expr(d.adbin, d.adrelid)), '; ' ORDER BY a.attnum)
                FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
                LEFT JOIN pg_collation o ON o.oid = a.attcollation
                WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped))
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c', 'S')
      AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'postgres_r')
      AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e')";

const INDEXES: &str = "
    SELECT format('index %I.%I', n.nspname, c.relname),
           concat_ws(' | ', pg_get_indexdef(c.oid), i.indisvalid, i.indisreplident, i.indimmediate, c.reloptions::text)
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid >= 16384 AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'postgres_r') AND (i.indisvalid OR c.relkind = 'I')
      AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_class'::regclass AND e.objid = i.indrelid AND e.deptype = 'e')";

const CONSTRAINTS: &str = "
    SELECT format('constraint %I on %s', k.conname, coalesce(NULLIF(k.conrelid, 0)::regclass::text, k.contypid::regtype::text)),
           concat_ws(' | ', pg_get_constraintdef(k.oid), k.convalidated, k.condeferrable, k.condeferred, k.conislocal, k.coninhcount)
    FROM pg_constraint k JOIN pg_namespace n ON n.oid = k.connamespace
    WHERE k.oid >= 16384 AND k.contype <> 't' AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'postgres_r')";

const TRIGGERS: &str = "
    SELECT format('trigger %I on %s', t.tgname, t.tgrelid::regclass), concat_ws(' | ', pg_get_triggerdef(t.oid), t.tgenabled)
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE NOT t.tgisinternal AND n.nspname !~ '^pg_' AND n.nspname <> 'postgres_r'
    UNION ALL
    SELECT format('event trigger %I', e.evtname),
           concat_ws(' | ', e.evtevent, e.evtenabled, e.evttags::text, e.evtfoid::regprocedure, pg_get_userbyid(e.evtowner))
    FROM pg_event_trigger e";

const RULES: &str = "
    SELECT format('rule %I on %s', r.rulename, r.ev_class::regclass), concat_ws(' | ', pg_get_ruledef(r.oid), r.ev_enabled)
    FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE r.oid >= 16384 AND r.rulename <> '_RETURN' AND n.nspname !~ '^pg_' AND n.nspname <> 'postgres_r'";

const POLICIES: &str = "
    SELECT format('policy %I on %s', p.polname, p.polrelid::regclass),
           concat_ws(' | ', p.polcmd, p.polpermissive, pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid),
               (SELECT string_agg(CASE role WHEN 0 THEN 'public' ELSE pg_get_userbyid(role) END, ',' ORDER BY 1) FROM unnest(p.polroles) role))
    FROM pg_policy p";

const FUNCTIONS: &str = "
    SELECT format('%s %s', CASE p.prokind WHEN 'a' THEN 'aggregate' WHEN 'p' THEN 'procedure' ELSE 'function' END, p.oid::regprocedure),
           concat_ws(' | ', CASE WHEN p.prokind <> 'a' THEN pg_get_functiondef(p.oid)
               ELSE (SELECT concat_ws(' ', a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.agginitval, a.aggtranstype::regtype, a.aggkind)
                     FROM pg_aggregate a WHERE a.aggfnoid = p.oid) END,
               pg_get_userbyid(p.proowner), (SELECT string_agg(acl::text, ',' ORDER BY acl::text) FROM unnest(p.proacl) acl))
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE p.oid >= 16384 AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'postgres_r')
      AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_proc'::regclass AND e.objid = p.oid AND e.deptype = 'e')
      AND p.oid NOT IN OF_A_SESSION";

const TYPES: &str = "
    SELECT format('type %s', t.oid::regtype),
           concat_ws(' | ', t.typtype, pg_get_userbyid(t.typowner), t.typnotnull, t.typdefault,
               CASE t.typtype WHEN 'd' THEN format_type(t.typbasetype, t.typtypmod) END,
               (SELECT string_agg(acl::text, ',' ORDER BY acl::text) FROM unnest(t.typacl) acl),
               (SELECT string_agg(quote_literal(e.enumlabel), ',' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid),
               (SELECT concat_ws(' ', r.rngsubtype::regtype, r.rngsubdiff, r.rngcanonical) FROM pg_range r WHERE r.rngtypid = t.oid))
    FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
    WHERE t.oid >= 16384 AND t.typtype IN ('d', 'e', 'r', 'b') AND t.typelem = 0
      AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'postgres_r')
      AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_type'::regclass AND e.objid = t.oid AND e.deptype = 'e')";

const SCHEMAS: &str = "
    SELECT format('schema %I', n.nspname),
           concat_ws(' | ', pg_get_userbyid(n.nspowner), (SELECT string_agg(acl::text, ',' ORDER BY acl::text) FROM unnest(n.nspacl) acl))
    FROM pg_namespace n WHERE n.nspname !~ '^pg_(temp|toast)' AND n.nspname <> 'postgres_r'";

const SEQUENCES: &str = "
    SELECT format('parameters of sequence %s', s.seqrelid::regclass),
           concat_ws(' ', s.seqtypid::regtype, s.seqstart, s.seqincrement, s.seqmax, s.seqmin, s.seqcache, s.seqcycle)
    FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname !~ '^pg_'";

const OTHERS: &str = "
    SELECT format('extension %I', x.extname), concat_ws(' ', x.extversion, x.extnamespace::regnamespace) FROM pg_extension x
    UNION ALL
    SELECT format('statistics %s.%I', s.stxnamespace::regnamespace, s.stxname), pg_get_statisticsobjdef(s.oid) FROM pg_statistic_ext s
    UNION ALL
    SELECT format('default privileges of %I on %s in %s', pg_get_userbyid(d.defaclrole), d.defaclobjtype, d.defaclnamespace::regnamespace),
           (SELECT string_agg(acl::text, ',' ORDER BY acl::text) FROM unnest(d.defaclacl) acl) FROM pg_default_acl d";

const COMMENTS: &str = "
    SELECT format('comment on %s %s', i.type, i.identity), d.description
    FROM pg_description d, pg_identify_object(d.classoid, d.objoid, d.objsubid) i
    WHERE (d.objoid >= 16384 OR d.classoid = 'pg_namespace'::regclass) AND i.schema IS DISTINCT FROM 'postgres_r'
      AND i.schema IS DISTINCT FROM 'pg_toast' AND coalesce(i.schema, '') !~ '^pg_temp'
      AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = d.classoid AND e.objid = d.objoid AND e.deptype = 'e')
      AND d.classoid <> 'pg_extension'::regclass AND NOT (d.classoid = 'pg_proc'::regclass AND d.objoid IN OF_A_SESSION)";

const NAMES: &str = "
    SELECT format('%s %s', i.type, i.identity), ''
    FROM (SELECT 'pg_operator'::regclass AS class, oid FROM pg_operator UNION ALL SELECT 'pg_opclass'::regclass, oid FROM pg_opclass
          UNION ALL SELECT 'pg_opfamily'::regclass, oid FROM pg_opfamily UNION ALL SELECT 'pg_cast'::regclass, oid FROM pg_cast
          UNION ALL SELECT 'pg_collation'::regclass, oid FROM pg_collation
          UNION ALL SELECT 'pg_ts_config'::regclass, oid FROM pg_ts_config UNION ALL SELECT 'pg_ts_dict'::regclass, oid FROM pg_ts_dict
          UNION ALL SELECT 'pg_foreign_server'::regclass, oid FROM pg_foreign_server) o,
         pg_identify_object(o.class, o.oid, 0) i
    WHERE o.oid >= 16384
      AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = o.class AND e.objid = o.oid AND e.deptype = 'e')";

/// What can be read in them, however it is stored: a page of zeros is as good as none.
const LARGE_OBJECTS: &str = "
    SELECT format('large object %s', m.oid),
           concat_ws(' | ', pg_get_userbyid(m.lomowner), (SELECT string_agg(acl::text, ',' ORDER BY acl::text) FROM unnest(m.lomacl) acl),
               coalesce(p.length, 0), p.first, p.second)
    FROM pg_largeobject_metadata m LEFT JOIN (
        SELECT loid, max(pageno::int8 * (current_setting('block_size')::int8 / 4) + octet_length(data)) AS length,
               sum(('x' || left(md5(int4send(pageno) || bytes), 16))::bit(64)::int8) FILTER (WHERE bytes <> '') AS first,
               sum(('x' || right(md5(int4send(pageno) || bytes), 16))::bit(64)::int8) FILTER (WHERE bytes <> '') AS second
        FROM pg_largeobject CROSS JOIN rtrim(data, decode('00', 'hex')) bytes GROUP BY loid) p ON p.loid = m.oid";
