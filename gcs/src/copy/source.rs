//! The database that is copied: a snapshot of it, the position that it shows, and what pg_dump does not carry.

use std::io::{self, Read};
use std::path::Path;

use gcs_writeset::Position;
use postgres::{Client, NoTls};
use thiserror::Error;

use crate::peers::Tunnel;

#[derive(Debug, Error)]
pub enum SourceError {
    #[error("{}", describe(.0))]
    Postgres(#[from] postgres::Error),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("database \"{0}\" does not exist")]
    NoDatabase(String),
    #[error("materialized view {0} was renamed or dropped meanwhile")]
    Renamed(String),
}

/// An error with what PostgreSQL said.
pub fn describe(error: &postgres::Error) -> String {
    error
        .as_db_error()
        .map_or_else(|| error.to_string(), |server| format!("{} ({})", server.message(), server.code().code()))
}

/// What must be the same here.
#[derive(Clone, Debug)]
pub struct Description {
    pub encoding: String,
    pub collate: String,
    pub ctype: String,
    pub provider: String,
    /// ICU's, or the built-in one's; columns of pg_database that not every version has.
    pub locale: Option<String>,
    pub icu_rules: Option<String>,
    pub collation_version: Option<String>,
    pub extension_version: String,
    pub major: i32,
    pub block_size: String,
    pub owner: String,
    /// Statements that make the roles, each with the name of the role.
    pub roles: Vec<(String, String)>,
    /// Statements that make one a member of another: both, and the statement.
    pub memberships: Vec<(String, String, String)>,
    /// The ends of ALTER DATABASE statements, and of ALTER ROLE ... IN DATABASE ones (with the role).
    pub settings: Vec<(Option<String>, String)>,
    /// Who may do what with it; none if nobody has ever said so.
    pub grants: Option<Vec<Grant>>,
    pub comment: Option<String>,
}

/// A right to a database.
#[derive(Clone, Debug)]
pub struct Grant {
    pub grantor: String,
    pub privilege: String,
    /// The end of a GRANT statement.
    pub to: String,
}

/// Rows of a table of the extension, as COPY gives them.
#[derive(Debug)]
pub struct OwnRows {
    pub table: String,
    pub rows: Vec<u8>,
}

/// Tables of the extension that are like users' own. pg_dump takes a table of an extension for part of the extension.
const OWN_TABLES: &str = "
    SELECT quote_ident(c.relname) FROM pg_class c JOIN pg_trigger t ON t.tgrelid = c.oid
    WHERE c.relnamespace = 'postgres_r'::regnamespace AND t.tgfoid = 'postgres_r.capture'::regproc ORDER BY 1";

/// Materialized views that can be read, by their names, quoted, as the snapshot shows them; and whether they still go by that name.
const VIEWS: &str = "
    SELECT format('%I.%I', n.nspname, c.relname), to_regclass(format('%I.%I', n.nspname, c.relname)) IS NOT DISTINCT FROM c.oid::regclass
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'm' AND c.relispopulated ORDER BY 1";

/// Tables whose rows are of each node alone, by their names, quoted.
const EXCLUDED: &str = "
    SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN postgres_r.excluded_tables e ON e.table_name = c.oid
    ORDER BY 1";

/// How values are written and read, whatever the database's own settings are.
pub const FORMS: &str =
    "SET search_path = ''; SET datestyle = 'ISO'; SET intervalstyle = 'postgres'; SET extra_float_digits = 3;
    SET bytea_output = 'hex'; SET xmloption = 'content'; SET row_security = off";

/// A copy takes as long as it takes, whatever the database or the role have been given. Not every version knows each.
pub const UNLIMITED: &str = "SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings
    WHERE name IN ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout')";

pub struct Source {
    /// Its open transaction keeps the snapshot.
    keeper: Client,
    /// Sees by the snapshot.
    reader: Client,
    pub snapshot: String,
    pub position: Position,
    pub bytes: u64,
    pub description: Description,
    /// Materialized views that have rows of their own; nobody changes them while this lives.
    pub views: Vec<String>,
    /// Tables of which each node has rows of its own.
    pub excluded: Vec<String>,
}

const DESCRIPTION: &str = "
    SELECT pg_encoding_to_char(d.encoding), d.datcollate, d.datctype, d.datlocprovider::text,
           coalesce(to_jsonb(d)->>'datlocale', to_jsonb(d)->>'daticulocale'),
           pg_database_collation_actual_version(d.oid), e.extversion, current_setting('server_version_num')::int / 10000,
           pg_get_userbyid(d.datdba)::text, pg_database_size(d.oid), current_setting('block_size'),
           d.datacl IS NOT NULL, shobj_description(d.oid, 'pg_database'), to_jsonb(d)->>'daticurules'
    FROM pg_database d LEFT JOIN pg_extension e ON e.extname = 'postgres_r'
    WHERE d.datname = current_database()";

/// Passwords travel as their verifiers.
const ROLES: &str = "
    SELECT rolname::text,
           format('CREATE ROLE %I %s %s %s %s %s %s %s CONNECTION LIMIT %s', rolname,
                  CASE WHEN rolsuper THEN 'SUPERUSER' ELSE 'NOSUPERUSER' END,
                  CASE WHEN rolinherit THEN 'INHERIT' ELSE 'NOINHERIT' END,
                  CASE WHEN rolcreaterole THEN 'CREATEROLE' ELSE 'NOCREATEROLE' END,
                  CASE WHEN rolcreatedb THEN 'CREATEDB' ELSE 'NOCREATEDB' END,
                  CASE WHEN rolcanlogin THEN 'LOGIN' ELSE 'NOLOGIN' END,
                  CASE WHEN rolreplication THEN 'REPLICATION' ELSE 'NOREPLICATION' END,
                  CASE WHEN rolbypassrls THEN 'BYPASSRLS' ELSE 'NOBYPASSRLS' END, rolconnlimit)
           || coalesce(' PASSWORD ' || quote_literal(rolpassword), '') || coalesce(' VALID UNTIL ' || quote_literal(rolvaliduntil), '')
    FROM pg_authid WHERE rolname !~ '^pg_' AND oid <> 10 ORDER BY 1";

const MEMBERSHIPS: &str = "
    SELECT r.rolname::text, m.rolname::text,
           format('GRANT %I TO %I%s', r.rolname, m.rolname,
                  CASE WHEN to_jsonb(a) ? 'set_option'
                       THEN format(' WITH ADMIN %s, INHERIT %s, SET %s', a.admin_option, to_jsonb(a)->>'inherit_option', to_jsonb(a)->>'set_option')
                       WHEN a.admin_option THEN ' WITH ADMIN OPTION' ELSE '' END)
    FROM pg_auth_members a JOIN pg_roles r ON r.oid = a.roleid JOIN pg_roles m ON m.oid = a.member ORDER BY 1, 2";

/// Of this database, and of roles in it. A list that PostgreSQL keeps quoted is quoted already.
const SETTINGS: &str = "
    SELECT r.rolname::text,
           format('SET %I = %s', split_part(setting, '=', 1),
                  CASE WHEN lower(split_part(setting, '=', 1)) IN ('local_preload_libraries', 'search_path', 'session_preload_libraries',
                                                                   'temp_tablespaces')
                       THEN substr(setting, strpos(setting, '=') + 1)
                       ELSE quote_literal(substr(setting, strpos(setting, '=') + 1)) END)
    FROM pg_db_role_setting s CROSS JOIN unnest(s.setconfig) AS setting LEFT JOIN pg_roles r ON r.oid = s.setrole
    WHERE s.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY 1, 2";

/// In the order in which they were granted: who grants on has it from somebody before.
const GRANTS: &str = "
    SELECT pg_get_userbyid(grantor)::text, privilege,
           CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END
           || CASE WHEN grantable THEN ' WITH GRANT OPTION' ELSE '' END
    FROM pg_database CROSS JOIN aclexplode(datacl) WITH ORDINALITY AS acl (grantor, grantee, privilege, grantable, number)
    WHERE datname = current_database() ORDER BY number";

impl Source {
    /// `host` is the directory of a socket.
    pub fn open(host: &Path, user: &str, database: &str) -> Result<Source, SourceError> {
        let connect = || connect(host, user, database);
        let mut keeper = connect()?;
        // A statement of its own, for READ COMMITTED whatever the default is: the transaction's first snapshot would be too old.
        keeper.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY")?;
        let row = keeper.query_one("SELECT snapshot, at_position FROM postgres_r.export_snapshot()", &[])?;
        let (snapshot, position): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
        let mut reader = connect()?;
        reader.batch_execute(&format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
             SET TRANSACTION SNAPSHOT '{snapshot}'"
        ))?;
        let (description, bytes) = describe_database(&mut reader, database)?;
        let views = lock_views(&mut reader)?;
        let excluded = reader.query(EXCLUDED, &[])?.iter().map(|row| row.get(0)).collect();
        Ok(Source { keeper, reader, snapshot, position: Position(position as u64), bytes, description, views, excluded })
    }

    /// How far the group was with each sequence, among others.
    pub fn own_rows(&mut self) -> Result<Vec<OwnRows>, SourceError> {
        let mut found = Vec::new();
        for table in self.reader.query(OWN_TABLES, &[])? {
            let (table, mut rows): (String, _) = (table.try_get(0)?, Vec::new());
            self.reader.copy_out(&format!("COPY postgres_r.{table} TO STDOUT"))?.read_to_end(&mut rows)?;
            found.push(OwnRows { table, rows });
        }
        Ok(found)
    }

    /// What a materialized view holds, as COPY gives it: its query may give something else today, and elsewhere.
    pub fn rows_of(&mut self, view: &str) -> Result<impl Read + '_, SourceError> {
        Ok(self.reader.copy_out(&format!("COPY (SELECT * FROM {view}) TO STDOUT"))?)
    }

    pub fn close(self) {
        // The connections' end is the transactions' end, whatever becomes of the message.
        let _ = self.reader.close();
        let _ = self.keeper.close();
    }
}

/// pg_dump locks tables only. Whoever has one of these names after it is locked is the one that the snapshot shows, or the copy is begun anew.
fn lock_views(reader: &mut Client) -> Result<Vec<String>, SourceError> {
    reader.batch_execute(FORMS)?;
    let mut views = Vec::new();
    for row in reader.query(VIEWS, &[])? {
        let view: String = row.try_get(0)?;
        reader.batch_execute(&format!("SELECT FROM {view} LIMIT 0"))?;
        views.push(view);
    }
    match reader.query(VIEWS, &[])?.iter().find(|row| !row.get::<_, bool>(1)) {
        Some(row) => Err(SourceError::Renamed(row.try_get(0)?)),
        None => Ok(views),
    }
}

/// How large another node's server is, without its WAL, and of which major version.
pub fn server(host: &Path, user: &str) -> Result<(u64, i32), SourceError> {
    let row = connect(host, user, "template1")?.query_one(
        "SELECT coalesce(sum(pg_tablespace_size(oid)), 0)::bigint, current_setting('server_version_num')::int / 10000
         FROM pg_tablespace",
        &[],
    )?;
    Ok((row.try_get::<_, i64>(0)? as u64, row.try_get(1)?))
}

/// What a database of another node is like.
pub fn description(host: &Path, user: &str, database: &str) -> Result<Description, SourceError> {
    Ok(describe_database(&mut connect(host, user, database)?, database)?.0)
}

fn connect(host: &Path, user: &str, database: &str) -> Result<Client, postgres::Error> {
    let mut config = postgres::Config::new();
    config.host_path(host).port(Tunnel::PORT).user(user).dbname(database).application_name("gcs copy");
    let mut client = config.connect(NoTls)?;
    client.batch_execute(UNLIMITED)?;
    Ok(client)
}

fn describe_database(reader: &mut Client, database: &str) -> Result<(Description, u64), SourceError> {
    let row = reader.query_opt(DESCRIPTION, &[])?.ok_or_else(|| SourceError::NoDatabase(database.to_owned()))?;
    let bytes: i64 = row.try_get(9)?;
    let roles = reader.query(ROLES, &[])?;
    let memberships = reader.query(MEMBERSHIPS, &[])?;
    let settings = reader.query(SETTINGS, &[])?;
    let grants = if row.try_get(11)? { Some(reader.query(GRANTS, &[])?) } else { None };
    let description = Description {
        encoding: row.try_get(0)?,
        collate: row.try_get(1)?,
        ctype: row.try_get(2)?,
        provider: row.try_get(3)?,
        locale: row.try_get(4)?,
        icu_rules: row.try_get(13)?,
        collation_version: row.try_get(5)?,
        extension_version: row.try_get::<_, Option<String>>(6)?.unwrap_or_default(),
        major: row.try_get(7)?,
        owner: row.try_get(8)?,
        block_size: row.try_get(10)?,
        roles: roles.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_, postgres::Error>>()?,
        memberships: memberships
            .iter()
            .map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?)))
            .collect::<Result<_, postgres::Error>>()?,
        settings: settings
            .iter()
            .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
            .collect::<Result<_, postgres::Error>>()?,
        grants: grants.map(|rows| rows.iter().map(grant).collect::<Result<_, _>>()).transpose()?,
        comment: row.try_get(12)?,
    };
    Ok((description, bytes as u64))
}

fn grant(row: &postgres::Row) -> Result<Grant, postgres::Error> {
    Ok(Grant { grantor: row.try_get(0)?, privilege: row.try_get(1)?, to: row.try_get(2)? })
}
