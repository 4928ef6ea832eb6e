//! What a session is: settings, role, temporary objects, blocks and savepoints.

use super::names::Draw;

/// Back to what a new session is; each round ends with it.
pub const CLEAN: [&str; 4] = ["ROLLBACK", "RESET SESSION AUTHORIZATION", "RESET ROLE", "DISCARD ALL"];

pub fn settings(draw: &mut Draw) -> Vec<String> {
    let number = draw.number();
    vec![match draw.rng.below(11) {
        0 => "SET search_path = s1, public".to_owned(),
        1 => "SET search_path = public, s2".to_owned(),
        2 => "RESET search_path".to_owned(),
        3 => format!("SET TimeZone = '{}'", draw.pick(&["UTC", "Asia/Tokyo", "America/New_York"])),
        4 => format!("SET DateStyle = '{}'", draw.pick(&["ISO", "German", "SQL, MDY"])),
        5 => format!("SET bytea_output = '{}'", draw.pick(&["hex", "escape"])),
        6 => format!("SET extra_float_digits = {}", draw.pick(&["0", "1", "-5"])),
        7 => format!("SET app.tenant = '{number}'"),
        8 => format!("SELECT set_config('app.tenant', '{number}', true)"),
        9 => format!("SET session_replication_role = {}", draw.pick(&["origin", "replica"])),
        _ => format!("SET xmlbinary = '{}'", draw.pick(&["hex", "base64"])),
    }]
}

pub fn roles(draw: &mut Draw) -> Vec<String> {
    let role = draw.role();
    let first = match draw.rng.below(3) {
        0 => format!("SET ROLE {role}"),
        1 => format!("SET SESSION AUTHORIZATION {role}"),
        _ => format!("BEGIN; SET LOCAL ROLE {role}; CREATE TABLE {} (id serial PRIMARY KEY); COMMIT", draw.fresh("own")),
    };
    let mut statements = vec![first];
    statements.extend(super::tables::create(draw));
    statements.extend(super::rows::change(draw));
    statements.push("RESET ROLE".to_owned());
    statements.push("RESET SESSION AUTHORIZATION".to_owned());
    statements
}

/// A block of other ingredients, with savepoints, and an end.
pub fn block(draw: &mut Draw, mut inner: impl FnMut(&mut Draw) -> Vec<String>) -> Vec<String> {
    let begin =
        draw.pick(&["BEGIN", "BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ", "BEGIN ISOLATION LEVEL SERIALIZABLE"]);
    let mut statements = vec![begin.to_owned()];
    for _ in 0..draw.rng.between(1, 3) {
        if draw.rng.percent(50) {
            statements.push("SAVEPOINT s".to_owned());
            statements.extend(inner(draw));
            statements.push(draw.pick(&["ROLLBACK TO s", "RELEASE s", "ROLLBACK TO s"]).to_owned());
        } else {
            statements.extend(inner(draw));
        }
    }
    statements.push(draw.pick(&["COMMIT", "COMMIT", "COMMIT", "ROLLBACK"]).to_owned());
    statements
}

/// Temporary tables, by themselves and in front of permanent ones of the same name.
pub fn temporary(draw: &mut Draw) -> Vec<String> {
    let name = format!("t{}", draw.rng.below(super::names::TABLES));
    vec![
        format!("CREATE TEMP TABLE {name} (id int PRIMARY KEY, c0 text) {}", draw.pick(&["", "ON COMMIT DELETE ROWS"])),
        format!("INSERT INTO {name} (id) VALUES ({})", draw.number()),
        format!("ALTER TABLE {name} ADD COLUMN c1 int"),
        format!("CREATE INDEX ON {name} (c1)"),
        format!("TRUNCATE {name}"),
        format!("DROP TABLE pg_temp.{name}"),
    ]
}

/// COMMENT and GRANT on temporary objects: no hook tells what they touch.
pub fn temporary_comments(draw: &mut Draw) -> Vec<String> {
    let name = draw.fresh("basket");
    vec![
        format!("CREATE TEMP TABLE {name} (sku text, pieces int)"),
        match draw.rng.below(4) {
            0 => format!("COMMENT ON COLUMN {name}.pieces IS 'how many'"),
            1 => format!("COMMENT ON TABLE {name} IS 'a basket'"),
            2 => format!("GRANT SELECT ON {name} TO reader"),
            _ => format!("CREATE STATISTICS ON sku, pieces FROM {name}"),
        },
        format!("DROP TABLE {name}"),
    ]
}
