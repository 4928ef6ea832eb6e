//! This node's server: the database that a copy goes into, and how it takes the other one's place.

use std::io::{self, Read, Write};

use gcs_writeset::Position;
use gcs_writeset::link::ServerPlace;
use postgres::{Client, NoTls};
use thiserror::Error;

use super::displaced::{Displaced, Worth, incoming_mark};
use super::source::{Description, FORMS, Grant, OwnRows, UNLIMITED, describe};

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
    #[error("{NAMES_MAX} databases have names of the kind that \"{0}\" has: drop, or rename, some of them")]
    NoName(String),
}

/// Behind the name of a database that takes another's place, and of the one whose place was taken.
const INCOMING: &str = "_incoming";
const BEFORE: &str = "_before";

/// How many databases may have such a name: behind the first one's stands a number.
const NAMES_MAX: usize = 100;

/// Database names have 63 bytes at the most.
const NAME_BYTES_MAX: usize = 63;

pub struct Target {
    place: ServerPlace,
    group: String,
    database: String,
    incoming: String,
    comment: Option<String>,
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
        let mark = incoming_mark(database);
        drop_marked(&mut client, database, INCOMING, &mark)?;
        let incoming = free_name(&mut client, database, INCOMING)?;
        let provider = locale_provider(there);
        client.batch_execute(&format!(
            "CREATE DATABASE {} TEMPLATE template0 OWNER {} ENCODING {} LC_COLLATE {} LC_CTYPE {} LOCALE_PROVIDER {provider}",
            quoted(&incoming),
            quoted(&there.owner),
            literal(&there.encoding),
            literal(&there.collate),
            literal(&there.ctype),
        ))?;
        say_of(&mut client, &incoming, &mark)?;
        for (role, setting) in &there.settings {
            let about = match role {
                Some(role) => format!("ALTER ROLE {} IN DATABASE {}", quoted(role), quoted(&incoming)),
                None => format!("ALTER DATABASE {}", quoted(&incoming)),
            };
            client.batch_execute(&format!("{about} {setting}"))?;
        }
        if let Some(grants) = &there.grants {
            grant(&mut client, &incoming, &there.owner, grants)?;
        }
        let (place, group, database) = (place.clone(), group.to_owned(), database.to_owned());
        Ok(Target { place, group, database, incoming, comment: there.comment.clone(), client })
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

    /// Gives a materialized view the rows that it has there. Nothing of a user runs but functions in its indexes, as its owner.
    pub fn fill_view(&mut self, view: &str, rows: &mut impl Read) -> Result<(), TargetError> {
        let mut client = connect(&self.place, &self.incoming)?;
        client.batch_execute(&format!("SET session_replication_role = replica; {FORMS}"))?;
        let mut transaction = client.transaction()?;
        transaction.batch_execute(&format!(
            "CREATE TABLE postgres_r.rows_of_view (LIKE {view} INCLUDING STORAGE INCLUDING COMPRESSION)"
        ))?;
        let mut copy = transaction.copy_in("COPY postgres_r.rows_of_view FROM STDIN")?;
        io::copy(rows, &mut copy)?;
        copy.finish()?;
        transaction.batch_execute(&format!(
            "SELECT postgres_r.fill_materialized_view({}::regclass, 'postgres_r.rows_of_view'::regclass)",
            literal(view)
        ))?;
        transaction.commit()?;
        Ok(client.close()?)
    }

    /// The copy, which is as of `position`, is the database from here on. The one that was is dropped if it held nothing, else it is kept under
    /// a name that no other database has.
    pub fn take_place(&mut self, position: Position, worth: &Worth) -> Result<(), TargetError> {
        self.check_wanted()?;
        for marked in worth.get().outlives().iter().filter_map(|kept| kept.mark(&self.database)) {
            drop_marked(&mut self.client, &self.database, BEFORE, &marked)?;
        }
        let before = free_name(&mut self.client, &self.database, BEFORE)?;
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
             COMMENT ON DATABASE {} IS {};
             SELECT pg_replication_origin_drop({});
             SELECT pg_replication_origin_create({});
             SELECT pg_replication_origin_advance({}, '{lsn}');
             COMMIT",
            quoted(&self.database),
            quoted(&before),
            quoted(&self.incoming),
            quoted(&self.database),
            quoted(&self.database),
            self.comment.as_deref().map_or_else(|| "NULL".to_owned(), literal),
            origin(old),
            origin(new),
            origin(new),
        ))?;
        self.see_to(&before, worth.get());
        Ok(())
    }

    /// Of the database whose place was taken. Whatever fails here, the copy is in its place.
    fn see_to(&mut self, before: &str, displaced: Displaced) {
        let seen_to = match displaced {
            Displaced::Empty => drop_database(&mut self.client, before),
            kept => {
                tracing::info!(database = self.database, kept_as = before, "the database as it was is kept");
                kept.mark(&self.database).map_or(Ok(()), |mark| say_of(&mut self.client, before, &mark))
            }
        };
        let Err(error) = seen_to else { return };
        let error = describe(&error);
        if displaced == Displaced::Empty {
            tracing::warn!(database = before, error, "could not drop an empty database that is not needed any more");
            // The next copy drops it.
            let _ = displaced.mark(&self.database).map(|mark| say_of(&mut self.client, before, &mark));
        } else {
            tracing::warn!(database = before, error, "could not note down that a database need not be kept for ever");
        }
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
        Ok(drop_database(&mut self.client, &self.incoming)?)
    }

    fn oid_of(&mut self, database: &str) -> Result<u32, TargetError> {
        let row = self.client.query_opt("SELECT oid FROM pg_database WHERE datname = $1", &[&database])?;
        Ok(row.ok_or_else(|| TargetError::Gone(database.to_owned()))?.try_get(0)?)
    }
}

fn connect(place: &ServerPlace, database: &str) -> Result<Client, postgres::Error> {
    let mut config = postgres::Config::new();
    config.host_path(&place.socket_directory).port(place.port).user(&place.user).dbname(database);
    // What it makes and drops is this node's alone.
    config.options("-c postgres_r.replicate_databases=off");
    let mut client = config.application_name("gcs copy").notice_callback(|_| {}).connect(NoTls)?;
    client.batch_execute(UNLIMITED)?;
    Ok(client)
}

/// By what a database here would hold something else than the one that is described, each in a few words.
pub fn differences(place: &ServerPlace, database: &str, there: &Description) -> Result<Vec<String>, TargetError> {
    differences_of(&mut connect(place, "postgres")?, database, there)
}

fn differences_of(client: &mut Client, database: &str, there: &Description) -> Result<Vec<String>, TargetError> {
    let query = "SELECT pg_encoding_to_char(encoding), datcollate, datctype, datlocprovider::text,
                        coalesce(to_jsonb(d)->>'datlocale', to_jsonb(d)->>'daticulocale', ''),
                        coalesce(pg_database_collation_actual_version(oid), ''), current_setting('server_version_num')::int / 10000,
                        current_setting('block_size'), coalesce(to_jsonb(d)->>'daticurules', '')
                 FROM pg_database d WHERE datname = $1";
    let row = client.query_opt(query, &[&database])?.ok_or_else(|| TargetError::Gone(database.to_owned()))?;
    let version = client.query_opt("SELECT default_version FROM pg_available_extensions WHERE name = 'postgres_r'", &[])?;
    let major: i32 = row.try_get(6)?;
    let own = [0, 1, 2, 3, 4, 5, 7, 8].map(|column| row.try_get::<_, String>(column));
    let [encoding, collate, ctype, provider, locale, collation_version, block_size, icu_rules] = own;
    let extension_version = version.map(|row| row.try_get(0)).transpose()?.unwrap_or_default();
    let of = |text: &Option<String>| text.clone().unwrap_or_default();
    let compared = [
        ("encoding", encoding?, there.encoding.clone()),
        ("LC_COLLATE", collate?, there.collate.clone()),
        ("LC_CTYPE", ctype?, there.ctype.clone()),
        ("locale provider", provider?, there.provider.clone()),
        ("locale of its provider", locale?, of(&there.locale)),
        ("ICU rules", icu_rules?, of(&there.icu_rules)),
        ("collation version", collation_version?, of(&there.collation_version)),
        ("version of extension postgres_r", extension_version, there.extension_version.clone()),
        ("block size", block_size?, there.block_size.clone()),
    ];
    let differing = compared.into_iter().filter(|(_, here, there)| here != there);
    let mut found: Vec<_> =
        differing.map(|(what, here, there)| format!("its {what} is \"{here}\" here and \"{there}\" there")).collect();
    // A newer one reads what an older one has written: that is how a group is upgraded, node by node.
    if major < there.major {
        found.push(format!("PostgreSQL here is {major}, older than {} there", there.major));
    }
    Ok(found)
}

/// The end of a CREATE DATABASE for a database like that one.
fn locale_provider(there: &Description) -> String {
    let locale = there.locale.as_deref().map(literal).unwrap_or_default();
    let rules = there.icu_rules.as_deref().map(|rules| format!(" ICU_RULES {}", literal(rules)));
    match there.provider.as_str() {
        "i" => format!("icu ICU_LOCALE {locale}{}", rules.unwrap_or_default()),
        "b" => format!("builtin BUILTIN_LOCALE {locale}"),
        _ => "libc".to_owned(),
    }
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

/// Rights are as they are there, those that PostgreSQL gives to everybody by itself among them.
fn grant(client: &mut Client, database: &str, owner: &str, grants: &[Grant]) -> Result<(), postgres::Error> {
    let database = quoted(database);
    let mut transaction = client.transaction()?;
    transaction.batch_execute(&format!("REVOKE ALL ON DATABASE {database} FROM PUBLIC, {}", quoted(owner)))?;
    for Grant { grantor, privilege, to } in grants {
        let statement = format!("GRANT {privilege} ON DATABASE {database} TO {to}");
        // A superuser grants as the owner.
        let by = if grantor == owner { "NONE".to_owned() } else { quoted(grantor) };
        transaction.batch_execute(&format!("SET LOCAL ROLE {by}; {statement}"))?;
    }
    transaction.commit()
}

fn drop_database(client: &mut Client, database: &str) -> Result<(), postgres::Error> {
    client.batch_execute(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quoted(database)))
}

fn say_of(client: &mut Client, database: &str, mark: &str) -> Result<(), postgres::Error> {
    client.batch_execute(&format!("COMMENT ON DATABASE {} IS {}", quoted(database), literal(mark)))
}

/// Drops what gcs has left behind under names of this kind. Whatever does not say so of itself, somebody else has made, or wants to keep.
fn drop_marked(client: &mut Client, database: &str, ending: &str, mark: &str) -> Result<(), postgres::Error> {
    let query = "SELECT datname::text FROM pg_database
                 WHERE datname::text = ANY ($1) AND shobj_description(oid, 'pg_database') = $2";
    for row in client.query(query, &[&names(database, ending), &mark])? {
        drop_database(client, &row.try_get::<_, String>(0)?)?;
    }
    Ok(())
}

/// The first name of this kind that no database has.
fn free_name(client: &mut Client, database: &str, ending: &str) -> Result<String, TargetError> {
    let mut names = names(database, ending);
    let rows = client.query("SELECT datname::text FROM pg_database WHERE datname::text = ANY ($1)", &[&names])?;
    let taken = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, _>>()?;
    let first = names[0].clone();
    names.retain(|name| !taken.contains(name));
    names.into_iter().next().ok_or(TargetError::NoName(first))
}

/// Names made of another: as much of it as there is room for, the ending, and from the second on a number.
fn names(database: &str, ending: &str) -> Vec<String> {
    let name = |number: usize| {
        let ending = if number == 1 { ending.to_owned() } else { format!("{ending}_{number}") };
        let room = NAME_BYTES_MAX - ending.len();
        format!("{}{ending}", &database[..database.floor_char_boundary(room)])
    };
    (1..=NAMES_MAX).map(name).collect()
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if text.contains('\\') { format!(" E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_kind_differ_and_are_no_longer_than_a_name_may_be() {
        assert_eq!(names("shop", BEFORE)[..3], ["shop_before", "shop_before_2", "shop_before_3"]);
        let long = names(&"é".repeat(31), BEFORE);
        assert!(long.iter().all(|name| name.len() <= NAME_BYTES_MAX && name.starts_with('é')), "{long:?}");
        let mut distinct = long.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), NAMES_MAX);
    }
}
