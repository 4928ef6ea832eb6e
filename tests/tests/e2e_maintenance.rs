//! VACUUM and ANALYZE, which are this node's own affair: they have to work whenever they are typed.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use postgres::Client;
use postgres_r_tests::harness::{self, node};

const PAGE: i64 = 8192;
/// What the first record of a page has before it.
const PAGE_HEADER: i64 = 24;
/// What a message takes in WAL beside its text: the record's header, that of a long content, the message's own, the end of an empty prefix.
const MESSAGE_HEADERS: i64 = 24 + 5 + 24 + 1;
/// Whatever the server writes by itself meanwhile moves the place.
const TRIES: usize = 50;

fn offset_in_page(client: &mut Client) -> i64 {
    let row = client.query_one("SELECT ((pg_current_wal_insert_lsn() - '0/0') % 8192)::int8", &[]).unwrap();
    row.get(0)
}

/// Writes records until the last one ends with a page, so that the next one will begin behind the header of another. It is said whether nothing came in between.
fn fill_page(client: &mut Client) -> bool {
    let mut room = PAGE - offset_in_page(client);
    if room < 1024 {
        client.execute("SELECT pg_logical_emit_message(false, '', repeat('x', 2048))", &[]).unwrap();
        room = PAGE - offset_in_page(client);
    }
    let length = i32::try_from(room - MESSAGE_HEADERS).unwrap();
    client.execute("SELECT pg_logical_emit_message(false, '', repeat('x', $1))", &[&length]).unwrap();
    offset_in_page(client) == PAGE_HEADER
}

#[test]
fn vacuum_works_where_a_page_of_wal_has_just_been_filled() {
    let group = harness::shared();
    let mut client = group.connect(node(1));
    client.batch_execute("CREATE TABLE parts (id int PRIMARY KEY, name text)").unwrap();
    group.settle();

    let seen = (0..TRIES).any(|_| {
        let is_filled = fill_page(&mut client);
        client.batch_execute("VACUUM (ANALYZE) parts").unwrap();
        is_filled
    });

    assert!(seen, "no page was filled to its end");
}
