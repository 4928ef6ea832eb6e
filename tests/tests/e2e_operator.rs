//! A group is set up on machines as docs/operations.md says, by the commands that stand there, with encrypted connections between them.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::time::Duration;

use gcs::playground::group::describe;
use postgres_r_tests::harness::machines::Machines;
use postgres_r_tests::harness::wait;

const PATIENCE: Duration = Duration::from_secs(120);

const CONTENTS: &str = "
    CREATE TABLE item (id serial PRIMARY KEY, body text);
    INSERT INTO item (body) SELECT md5(n::text) FROM generate_series(1, 5000) n";

fn members(machines: &Machines, number: usize) -> serde_json::Value {
    serde_json::from_str(&machines.done(number, &["members", "--json"])).unwrap()
}

fn await_voters(machines: &Machines, number: usize, wanted: &[&str]) {
    wait::until(&format!("the voters are {wanted:?}"), PATIENCE, || {
        let members = members(machines, number);
        let is_there = |member: &&serde_json::Value| member["role"] == "voter" && member["state"] == "online";
        let voters = members.as_array().unwrap().iter().filter(is_there).map(|member| member["name"].as_str().unwrap());
        if voters.eq(wanted.iter().copied()) { Ok(()) } else { Err(members.to_string()) }
    });
}

fn value(machines: &Machines, number: usize, query: &str) -> Result<i64, String> {
    let mut client = machines.try_connect(number, "shop").map_err(|error| describe(&error))?;
    client.query_one(query, &[]).map(|row| row.get(0)).map_err(|error| describe(&error))
}

fn await_items(machines: &Machines, number: usize, wanted: i64) {
    wait::until("the rows are there", PATIENCE, || {
        let found = value(machines, number, "SELECT count(*) FROM item")?;
        if found == wanted { Ok(()) } else { Err(format!("{found} of {wanted}")) }
    });
}

#[test]
fn machines_with_nothing_on_them_join_by_a_token_get_a_copy_of_the_server_and_vote() {
    let machines = Machines::new(3);
    machines.found();
    machines.execute(1, "postgres", "CREATE ROLE clerk LOGIN");
    machines.execute(1, "postgres", "ALTER DATABASE shop OWNER TO clerk");
    machines.execute(1, "shop", CONTENTS);
    machines.replicate(1);
    for number in [2, 3] {
        let joined = machines.join(number);
        assert!(joined.status.success(), "{}", String::from_utf8_lossy(&joined.stderr));
        let said = String::from_utf8_lossy(&joined.stdout).into_owned();
        assert!(said.contains("it copies another member's server into"), "{said}");
        machines.start_daemon(number);
        machines.execute(1, "shop", "INSERT INTO item (body) VALUES ('meanwhile')");
    }
    await_voters(&machines, 1, &["node1", "node2", "node3"]);
    for number in [1, 2, 3] {
        await_items(&machines, number, 5002);
    }
    for number in [1, 2, 3] {
        machines.execute(number, "shop", "INSERT INTO item (body) VALUES ('everywhere')");
    }
    await_items(&machines, 3, 5005);
    assert_eq!(value(&machines, 3, "SELECT count(*) FROM pg_roles WHERE rolname = 'clerk'"), Ok(1));
    let log = machines.log(2);
    assert!(log.contains("the copied server has been started"), "{log}");

    machines.done(2, &["lead", "node3"]);
    machines.done(2, &["leave"]);
    await_voters(&machines, 1, &["node1", "node3"]);
    machines.stop_daemon(2);
    machines.execute(3, "shop", "INSERT INTO item (body) VALUES ('two')");
    await_items(&machines, 1, 5006);
    // A directory with a server in it is nobody's to overwrite.
    machines.cluster(2).stop().unwrap();
    std::fs::remove_dir_all(machines.home(2).join("lib")).unwrap();
    std::fs::remove_file(machines.config(2)).unwrap();
    let refused = machines.join(2);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && text.contains("is not empty"), "{text}");
    std::fs::remove_dir_all(machines.home(2).join("data")).unwrap();
    assert!(machines.join(2).status.success());
    machines.start_daemon(2);
    await_voters(&machines, 1, &["node1", "node2", "node3"]);
    await_items(&machines, 2, 5006);
}
