//! This node's server: the database that a copy goes into, and how it takes the other one's place.

use std::io::{self, Write};

use gcs_writeset::Position;
use gcs_writeset::link::ServerPlace;
use postgres::{Client, NoTls};
use thiserror::Error;

use super::source::{Description, OwnRows, describe};

#[derive(Debug, Error)]
pub enum TargetError {
    #[error("{}", describe(.0))]
    Postgres(#[from] postgres::Error),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("database \"{database}\" differs: {}", .differences.join(", "))]
    Differs { database: String, differences: Vec<String> },
    #[error("database \"{0}\" does not exist any more")]
    Gone(String),
    #[error("replication of database \"{0}\" has been stopped")]
    Stopped(String),
}

/// Behind the name of a database that takes another's place, and of the one whose place was taken.
const INCOMING: &str = "_incoming";
const BEFORE: &str = "_before";

/// Database names have 63 bytes at the most.
const NAME_BYTES_MAX: usize = 63;

pub struct Target {
    place: ServerPlace,
    group: String,
    database: String,
    incoming: String,
    /// Connected to a database that nobody copies.
    client: Client,
}

impl Target {
    /// Makes the roles that are missing, and an empty database.
    pub fn prepare(place: &ServerPlace, group: &str, database: &str, there: &Description) -> Result<Target, TargetError> {
        let mut client = connect(place, "postgres")?;
        // Statements with passwords are not for the log.
        client.batch_execute(
            "SET log_statement = 'none'; SET log_min_error_statement = 'panic'; SET synchronous_commit = 'on'",
        )?;
        let differences = differences_of(&mut client, database, there)?;
        if !differences.is_empty() {
            return Err(TargetError::Differs { database: database.to_owned(), differences });
        }
        make_roles(&mut client, there)?;
        let incoming = derived(database, INCOMING);
        client.batch_execute(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quoted(&incoming)))?;
        let icu = there.icu_locale.as_ref().map(|locale| format!(" LOCALE_PROVIDER icu ICU_LOCALE {}", literal(locale)));
        client.batch_execute(&format!(
            "CREATE DATABASE {} TEMPLATE template0 OWNER {} ENCODING {} LC_COLLATE {} LC_CTYPE {}{}",
            quoted(&incoming),
            quoted(&there.owner),
            literal(&there.encoding),
            literal(&there.collate),
            literal(&there.ctype),
            icu.unwrap_or_default(),
        ))?;
        for (role, setting) in &there.settings {
            let about = match role {
                Some(role) => format!("ALTER ROLE {} IN DATABASE {}", quoted(role), quoted(&incoming)),
                None => format!("ALTER DATABASE {}", quoted(&incoming)),
            };
            client.batch_execute(&format!("{about} {setting}"))?;
        }
        let (place, group, database) = (place.clone(), group.to_owned(), database.to_owned());
        Ok(Target { place, group, database, incoming, client })
    }

    pub fn incoming(&self) -> &str {
        &self.incoming
    }

    /// What pg_restore has not: rows of the extension's own tables, and the triggers that capture.
    pub fn fill_in(&mut self, own: &[OwnRows]) -> Result<(), TargetError> {
        let mut client = connect(&self.place, &self.incoming)?;
        let mut transaction = client.transaction()?;
        for OwnRows { table, rows } in own {
            let mut copy = transaction.copy_in(&format!("COPY postgres_r.{table} FROM STDIN"))?;
            copy.write_all(rows)?;
            copy.finish()?;
        }
        transaction.batch_execute("SELECT postgres_r.capture_tables()")?;
        transaction.commit()?;
        client.batch_execute("ANALYZE")?;
        Ok(client.close()?)
    }

    /// The copy, which is as of `position`, is the database from here on. The one that was is dropped if it held nothing, else it is kept.
    pub fn take_place(&mut self, position: Position, is_new: bool) -> Result<(), TargetError> {
        self.check_wanted()?;
        let before = derived(&self.database, BEFORE);
        self.client.batch_execute(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quoted(&before)))?;
        let (old, new) = (self.oid_of(&self.database.clone())?, self.oid_of(&self.incoming.clone())?);
        let origin = |oid: u32| literal(&format!("postgres_r/{}/{oid}", self.group));
        let lsn = format!("{:X}/{:X}", position.0 >> 32, position.0 & 0xffff_ffff);
        // Sessions are ended first, and once more inside: a rename waits for nobody for long.
        let end = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname IN ({}, {}) AND backend_type = 'client backend'",
            literal(&self.database),
            literal(&self.incoming)
        );
        self.client.batch_execute(&end)?;
        self.client.batch_execute(&format!(
            "SET postgres_r.replace_database = on; BEGIN;
             ALTER DATABASE {} RENAME TO {};
             ALTER DATABASE {} RENAME TO {};
             SELECT pg_replication_origin_drop({});
             SELECT pg_replication_origin_create({});
             SELECT pg_replication_origin_advance({}, '{lsn}');
             COMMIT",
            quoted(&self.database),
            quoted(&before),
            quoted(&self.incoming),
            quoted(&self.database),
            origin(old),
            origin(new),
            origin(new),
        ))?;
        if !is_new {
            tracing::info!(database = self.database, kept_as = before, "the database as it was is kept");
        } else if let Err(error) = self.client.batch_execute(&format!("DROP DATABASE {} WITH (FORCE)", quoted(&before))) {
            // The next copy drops it.
            tracing::warn!(
                database = before,
                error = describe(&error),
                "could not drop an empty database that is not needed any more"
            );
        }
        Ok(())
    }

    /// Whoever has stopped replication meanwhile wants the database as it is.
    pub fn check_wanted(&mut self) -> Result<(), TargetError> {
        let query =
            "SELECT FROM pg_database d JOIN pg_replication_origin o ON o.roname = 'postgres_r/' || $2 || '/' || d.oid
                     WHERE d.datname = $1";
        let found = self.client.query_opt(query, &[&self.database, &self.group])?;
        found.map(drop).ok_or_else(|| TargetError::Stopped(self.database.clone()))
    }

    /// Nobody wants the copy.
    pub fn discard(mut self) -> Result<(), TargetError> {
        Ok(self.client.batch_execute(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quoted(&self.incoming)))?)
    }

    fn oid_of(&mut self, database: &str) -> Result<u32, TargetError> {
        let row = self.client.query_opt("SELECT oid FROM pg_database WHERE datname = $1", &[&database])?;
        Ok(row.ok_or_else(|| TargetError::Gone(database.to_owned()))?.try_get(0)?)
    }
}

fn connect(place: &ServerPlace, database: &str) -> Result<Client, postgres::Error> {
    let mut config = postgres::Config::new();
    config.host_path(&place.socket_directory).port(place.port).user(&place.user).dbname(database);
    config.application_name("gcs copy").notice_callback(|_| {}).connect(NoTls)
}

/// By what a database here would hold something else than the one that is described, each in a few words.
pub fn differences(place: &ServerPlace, database: &str, there: &Description) -> Result<Vec<String>, TargetError> {
    differences_of(&mut connect(place, "postgres")?, database, there)
}

fn differences_of(client: &mut Client, database: &str, there: &Description) -> Result<Vec<String>, TargetError> {
    let query = "SELECT pg_encoding_to_char(encoding), datcollate, datctype, datlocprovider::text, coalesce(daticulocale, ''),
                        coalesce(pg_database_collation_actual_version(oid), ''), current_setting('server_version_num')::int / 10000,
                        current_setting('block_size')
                 FROM pg_database WHERE datname = $1";
    let row = client.query_opt(query, &[&database])?.ok_or_else(|| TargetError::Gone(database.to_owned()))?;
    let version = client.query_opt("SELECT default_version FROM pg_available_extensions WHERE name = 'postgres_r'", &[])?;
    let major: i32 = row.try_get(6)?;
    let own = [0, 1, 2, 3, 4, 5, 7].map(|column| row.try_get::<_, String>(column));
    let [encoding, collate, ctype, provider, icu_locale, collation_version, block_size] = own;
    let extension_version = version.map(|row| row.try_get(0)).transpose()?.unwrap_or_default();
    let of = |text: &Option<String>| text.clone().unwrap_or_default();
    let compared = [
        ("encoding", encoding?, there.encoding.clone()),
        ("LC_COLLATE", collate?, there.collate.clone()),
        ("LC_CTYPE", ctype?, there.ctype.clone()),
        ("locale provider", provider?, there.provider.clone()),
        ("ICU locale", icu_locale?, of(&there.icu_locale)),
        ("collation version", collation_version?, of(&there.collation_version)),
        ("version of extension postgres_r", extension_version, there.extension_version.clone()),
        ("major version of PostgreSQL", major.to_string(), there.major.to_string()),
        ("block size", block_size?, there.block_size.clone()),
    ];
    let differing = compared.into_iter().filter(|(_, here, there)| here != there);
    Ok(differing.map(|(what, here, there)| format!("its {what} is \"{here}\" here and \"{there}\" there")).collect())
}

/// Roles that are here already stay as they are.
fn make_roles(client: &mut Client, there: &Description) -> Result<(), postgres::Error> {
    let rows = client.query("SELECT rolname::text FROM pg_roles", &[])?;
    let known = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, _>>()?;
    let is_made = |role: &String| !known.contains(role);
    let mut transaction = client.transaction()?;
    for (_, statement) in there.roles.iter().filter(|(role, _)| is_made(role)) {
        transaction.batch_execute(statement)?;
    }
    for (_, _, statement) in there.memberships.iter().filter(|(role, member, _)| is_made(role) || is_made(member)) {
        transaction.batch_execute(statement)?;
    }
    transaction.commit()
}

/// A name made of another: as much of it as there is room for.
fn derived(database: &str, ending: &str) -> String {
    let room = NAME_BYTES_MAX - ending.len();
    format!("{}{ending}", &database[..database.floor_char_boundary(room)])
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if text.contains('\\') { format!(" E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}
