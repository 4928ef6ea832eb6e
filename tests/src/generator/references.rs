//! Values that name objects: regclass and its kin, and rows of a table's type.

use super::names::Draw;

pub fn rename(draw: &mut Draw) -> Vec<String> {
    let table = draw.table();
    vec![
        format!("INSERT INTO named (about) SELECT '{table}'::regclass"),
        format!("UPDATE named SET line = 'seen' WHERE about::text LIKE '%t{}'", draw.rng.below(6)),
        format!("BEGIN; INSERT INTO named (about) SELECT '{}'::regclass; SELECT pg_sleep(0.05); COMMIT", draw.table()),
        format!("ALTER TABLE {} RENAME TO t{}", draw.table(), draw.rng.below(6)),
    ]
}

/// Lines about what is gone.
pub fn dropped(draw: &mut Draw) -> Vec<String> {
    let name = draw.fresh("job");
    let mut statements = vec![
        format!("CREATE TABLE public.{name} (id int PRIMARY KEY)"),
        format!("INSERT INTO mentions (about, line) VALUES ('public.{name}', '{name}')"),
        format!("DROP TABLE public.{name}"),
    ];
    statements.push(match draw.rng.below(3) {
        0 => format!("DELETE FROM mentions WHERE line = '{name}'"),
        1 => format!("UPDATE mentions SET line = 'gone' WHERE line = '{name}'"),
        _ => "INSERT INTO mentions (about) VALUES (987654)".to_owned(),
    });
    statements
}

/// A primary key that is a number of its own on each node.
pub fn keys(draw: &mut Draw) -> Vec<String> {
    let table = format!("public.t{}", draw.rng.below(6));
    vec![
        format!("INSERT INTO registry VALUES ('{table}')"),
        format!("DELETE FROM registry WHERE what = '{table}'::regclass"),
        format!("INSERT INTO registry VALUES ('{table}')"),
    ]
}

/// Rows of a table's type, while that table changes.
pub fn row_types(draw: &mut Draw) -> Vec<String> {
    let column = format!("x{}", draw.rng.below(3));
    vec![match draw.rng.below(5) {
        0 => format!("ALTER TABLE person ADD COLUMN {column} text"),
        1 => format!("ALTER TABLE person DROP COLUMN {column}"),
        2 => format!("INSERT INTO history (note, was.name) VALUES ('n', '{column}')"),
        3 => format!("BEGIN; UPDATE history SET note = '{column}'; SELECT pg_sleep(0.05); COMMIT"),
        _ => "DELETE FROM history WHERE id % 3 = 1".to_owned(),
    }]
}
