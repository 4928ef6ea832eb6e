//! Values that name objects: regclass and its kin, and rows of a table's type.

use super::names::Draw;

/// A name that is written down while it changes.
pub fn rename(draw: &mut Draw) -> Vec<String> {
    let whichever = "SELECT oid FROM pg_class WHERE relname IN ('stage0', 'stage1')";
    vec![match draw.rng.below(4) {
        0..=1 => format!("BEGIN; INSERT INTO named (about) {whichever}; SELECT pg_sleep(0.1); COMMIT"),
        2 => "DO 'BEGIN IF to_regclass(''public.stage0'') IS NULL THEN ALTER TABLE public.stage1 RENAME TO stage0; \
              ELSE ALTER TABLE public.stage0 RENAME TO stage1; END IF; END'"
            .to_owned(),
        _ => "UPDATE named SET line = 'seen' WHERE about::text LIKE '%stage%'".to_owned(),
    }]
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
    let table = draw.pick(&["public.person", "public.history"]);
    vec![
        format!("INSERT INTO registry VALUES ('{table}')"),
        format!("DELETE FROM registry WHERE what = '{table}'::regclass"),
        format!("INSERT INTO registry VALUES ('{table}')"),
        format!("DELETE FROM registry WHERE what = '{table}'::regclass"),
    ]
}

/// Rows of a table's type, while that table changes.
pub fn row_types(draw: &mut Draw) -> Vec<String> {
    let column = draw.fresh("x");
    vec![match draw.rng.below(6) {
        0..=1 => format!("ALTER TABLE person ADD COLUMN {column} text"),
        2 => format!("INSERT INTO history (note, was.name) VALUES ('n', '{column}')"),
        3..=4 => format!("BEGIN; UPDATE history SET note = '{column}' WHERE id % 3 = 1; SELECT pg_sleep(0.1); COMMIT"),
        _ => "DELETE FROM history WHERE id % 3 = 1 AND note <> 'first'".to_owned(),
    }]
}
