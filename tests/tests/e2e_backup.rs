//! Backups of a node, as docs/backup.md says: a dump that is as of a position, and a moment in the past from a base backup with archived WAL.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::fs;
use std::process::{Command, Output};
use std::time::Duration;

use gcs::playground::Part;
use gcs::playground::cluster::{Cluster, SUPERUSER};
use postgres::{Client, NoTls};
use postgres_r_tests::harness::{self, Group, node, ports, wait};

const PATIENCE: Duration = Duration::from_secs(60);

fn succeeded(output: &Output, what: &str) {
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
}

fn connect(cluster: &Cluster, database: &str) -> Result<Client, postgres::Error> {
    postgres::Config::new().host("127.0.0.1").port(cluster.port).user(SUPERUSER).dbname(database).connect(NoTls)
}

#[test]
fn a_dump_is_as_of_its_position_and_can_be_restored_elsewhere() {
    let group = harness::shared();
    group.execute(node(1), "CREATE TABLE paid (n int PRIMARY KEY); INSERT INTO paid SELECT generate_series(1, 100)");
    group.settle();
    let cluster = group.playground.cluster(node(2));
    let mut keeper = group.connect(node(2));
    keeper.batch_execute("BEGIN").unwrap();
    let row = keeper.query_one("SELECT snapshot, at_position FROM postgres_r.export_snapshot()", &[]).unwrap();
    let (snapshot, position): (String, i64) = (row.get(0), row.get(1));
    group.execute(node(1), "INSERT INTO paid VALUES (101)");
    group.settle();
    let file = group.dir().join("shop.dump");
    let mut dump = Command::new(cluster.bin.join("pg_dump"));
    dump.arg(format!("--snapshot={snapshot}")).args(["-Fc", "-f"]).arg(&file).arg(cluster.uri(group.database()));
    succeeded(&dump.output().unwrap(), "pg_dump");
    keeper.batch_execute("COMMIT").unwrap();
    let later: i64 = group.value(node(2), "postgres_r.committed_position()").parse().unwrap();
    assert!(position < later, "{position} is before what came behind it, {later}");

    connect(&cluster, "postgres").unwrap().batch_execute("CREATE DATABASE restored").unwrap();
    let mut restore = Command::new(cluster.bin.join("pg_restore"));
    succeeded(&restore.arg("-d").arg(cluster.uri("restored")).arg(&file).output().unwrap(), "pg_restore");
    let counted = connect(&cluster, "restored").unwrap().query_one("SELECT count(*), max(n) FROM paid", &[]).unwrap();
    assert_eq!((counted.get::<_, i64>(0), counted.get::<_, i32>(1)), (100, 100));
    connect(&cluster, "postgres").unwrap().batch_execute("DROP DATABASE restored").unwrap();
}

/// Until all that the server has written is in its archive.
fn archive_all(server: &mut Client) {
    let segment: String = server.query_one("SELECT pg_walfile_name(pg_switch_wal())", &[]).unwrap().get(0);
    wait::until("the log is archived", PATIENCE, || {
        let row = server.query_one("SELECT coalesce(last_archived_wal, '') FROM pg_stat_archiver", &[]);
        let archived: String = row.map_err(|error| error.to_string())?.get(0);
        if archived >= segment { Ok(()) } else { Err(format!("{archived} of {segment}")) }
    });
}

/// By a group of its own: one of its servers archives.
#[test]
fn the_moment_before_a_table_was_dropped_comes_back_from_one_node_s_archive() {
    let group = Group::start();
    let cluster = group.playground.cluster(node(2));
    let archive = group.dir().join("archive");
    fs::create_dir(&archive).unwrap();
    cluster.account.give(&archive).unwrap();
    let mut server = connect(&cluster, "postgres").unwrap();
    server.batch_execute("ALTER SYSTEM SET archive_mode = on").unwrap();
    server.batch_execute(&format!("ALTER SYSTEM SET archive_command = 'cp %p {}/%f'", archive.display())).unwrap();
    drop(server);
    group.kill(node(2), Part::Postgres);
    group.start_node(node(2));
    group.execute(node(1), "CREATE TABLE paid (n int PRIMARY KEY); INSERT INTO paid SELECT generate_series(1, 100)");
    group.settle();

    let home = group.dir().join("restored");
    fs::create_dir(&home).unwrap();
    cluster.account.give(&home).unwrap();
    let restored = Cluster { home, port: ports::free_one(), ..cluster.clone() };
    let mut backup = cluster.account.command(&cluster.bin.join("pg_basebackup"), &restored.home);
    backup.args(["-h", "127.0.0.1", "-U", SUPERUSER, "-c", "fast", "-X", "stream", "-p", &cluster.port.to_string(), "-D"]);
    succeeded(&backup.arg(restored.data()).output().unwrap(), "pg_basebackup");

    group.execute(node(1), "INSERT INTO paid VALUES (101)");
    group.settle();
    let mut server = connect(&cluster, "postgres").unwrap();
    server.batch_execute("SELECT pg_create_restore_point('before')").unwrap();
    group.execute(node(3), "DROP TABLE paid");
    group.settle();
    archive_all(&mut server);

    let settings = format!(
        "postgres_r.gcs_socket = '/nowhere'\nport = {}\nunix_socket_directories = '{}'\narchive_mode = off\n\
         restore_command = 'cp {}/%f %p'\nrecovery_target_name = 'before'\nrecovery_target_action = 'promote'\n",
        restored.port,
        restored.home.display(),
        archive.display()
    );
    let file = restored.data().join("postgresql.auto.conf");
    let before = fs::read_to_string(&file).unwrap();
    fs::write(&file, before + &settings).unwrap();
    fs::write(restored.data().join("recovery.signal"), "").unwrap();
    restored.start().unwrap();
    let mut client = wait::until("it is promoted", PATIENCE, || {
        let mut client = connect(&restored, "postgres").map_err(|error| error.to_string())?;
        let recovers: bool = client.query_one("SELECT pg_is_in_recovery()", &[]).map_err(|error| error.to_string())?.get(0);
        if recovers { Err("it recovers".to_owned()) } else { Ok(client) }
    })
    .0;
    let refused = connect(&restored, group.database()).map(drop).unwrap_err();
    assert_eq!(refused.code().map(postgres::error::SqlState::code), Some("57P03"), "it may have shown more: {refused}");
    client.batch_execute(&format!("ALTER DATABASE {} STOP REPLICATION FORCE", group.database())).unwrap();
    let counted = connect(&restored, group.database()).unwrap().query_one("SELECT count(*), max(n) FROM paid", &[]).unwrap();
    assert_eq!((counted.get::<_, i64>(0), counted.get::<_, i32>(1)), (101, 101));

    // The table goes back into the group.
    let mut dump = Command::new(cluster.bin.join("pg_dump"));
    let dumped = dump.args(["-t", "paid"]).arg(restored.uri(group.database())).output().unwrap();
    succeeded(&dumped, "pg_dump");
    let script = group.dir().join("paid.sql");
    fs::write(&script, &dumped.stdout).unwrap();
    let mut psql = Command::new(cluster.bin.join("psql"));
    let arguments = ["-q", "-v", "ON_ERROR_STOP=1", "-f"];
    succeeded(&psql.args(arguments).arg(&script).arg(group.playground.uri(node(1))).output().unwrap(), "psql");
    group.settle();
    assert_eq!(group.value(node(3), "SELECT count(*) FROM paid"), "101");
    harness::assert_equal(&group);
    restored.stop().unwrap();
}
