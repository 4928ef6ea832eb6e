//! Whether a database holds nothing but what every database holds that PostgreSQL makes from template0.
//!
//! Looked at before the extension is made: whatever was made since initdb counts, and so do privileges of PostgreSQL's own objects that were changed. In
//! doubt the answer is no: then the database is copied to the other nodes, which is right whatever it holds. Comments on PostgreSQL's own
//! objects, and changes of their definitions, are not seen.

use crate::pg::query;

/// Catalogs of one database whose rows have a number of their own.
const CATALOGS: [&str; 32] = [
    "pg_am",
    "pg_cast",
    "pg_class",
    "pg_collation",
    "pg_constraint",
    "pg_conversion",
    "pg_default_acl",
    "pg_event_trigger",
    "pg_extension",
    "pg_foreign_data_wrapper",
    "pg_foreign_server",
    "pg_language",
    "pg_largeobject_metadata",
    "pg_namespace",
    "pg_opclass",
    "pg_operator",
    "pg_opfamily",
    "pg_policy",
    "pg_proc",
    "pg_publication",
    "pg_rewrite",
    "pg_statistic_ext",
    "pg_transform",
    "pg_trigger",
    "pg_ts_config",
    "pg_ts_dict",
    "pg_ts_parser",
    "pg_ts_template",
    "pg_type",
    "pg_user_mapping",
    "pg_amop",
    "pg_amproc",
];

/// Those of PostgreSQL's own objects whose first privileges initdb has noted: the catalog, the column, and which of them. (It makes information_schema
/// later, and grants on that are not seen.)
const PRIVILEGES: [(&str, &str, &str); 5] = [
    ("pg_class", "relacl", "o.relnamespace = 11"),
    ("pg_language", "lanacl", "true"),
    ("pg_namespace", "nspacl", "o.nspname IN ('pg_catalog', 'public')"),
    ("pg_proc", "proacl", "true"),
    ("pg_type", "typacl", "true"),
];

/// Inside a transaction, in the database.
pub fn is_plain() -> bool {
    let made = CATALOGS.map(|catalog| format!("SELECT FROM pg_catalog.{catalog} WHERE oid >= 16384"));
    let changed = PRIVILEGES.map(|(catalog, column, which)| {
        format!(
            "SELECT FROM pg_catalog.{catalog} o LEFT JOIN pg_catalog.pg_init_privs i
                 ON i.objoid = o.oid AND i.classoid = 'pg_catalog.{catalog}'::regclass AND i.objsubid = 0
             WHERE o.{column} IS DISTINCT FROM i.initprivs AND {which}"
        )
    });
    // What may have been dropped.
    let gone = [
        "SELECT WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'plpgsql')".to_owned(),
        "SELECT WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'public' AND nspowner = 6171)"
            .to_owned(),
    ];
    let all = [&made[..], &changed, &gone].concat().join(" UNION ALL ");
    query::text(&format!("SELECT NOT EXISTS ({all})")).as_deref() == Some("t")
}
