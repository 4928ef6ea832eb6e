//! Rows: inserts, updates, deletes, TRUNCATE, in every way that an application has.

use super::names::Draw;

pub fn change(draw: &mut Draw) -> Vec<String> {
    let (table, column, id) = (draw.table(), draw.column(), draw.number());
    vec![match draw.rng.below(12) {
        0..=2 => format!("INSERT INTO {table} DEFAULT VALUES"),
        3..=4 => format!("INSERT INTO {table} (id, {column}) VALUES ({id}, NULL) ON CONFLICT DO NOTHING"),
        5 => format!("INSERT INTO {table} (id) SELECT n FROM generate_series({id}, {}) n", id + 5),
        6..=7 => format!("UPDATE {table} SET id = id + 100 WHERE id % 7 = {}", id % 7),
        8 => format!("UPDATE {table} SET {column} = DEFAULT WHERE id = {id}"),
        9 => format!("DELETE FROM {table} WHERE id % 5 = {}", id % 5),
        10 => format!(
            "WITH gone AS (DELETE FROM {table} WHERE id = {id} RETURNING id) INSERT INTO {} (id) SELECT id FROM gone",
            draw.table()
        ),
        _ => format!(
            "MERGE INTO {table} t USING (VALUES ({id})) v (id) ON t.id = v.id WHEN NOT MATCHED THEN INSERT (id) VALUES (v.id) WHEN MATCHED THEN UPDATE SET {column} = NULL"
        ),
    }]
}

pub fn partitions(draw: &mut Draw) -> Vec<String> {
    let id = draw.number();
    vec![match draw.rng.below(4) {
        0..=1 => format!("INSERT INTO parts (id, c0) VALUES ({id}, 'p') ON CONFLICT DO NOTHING"),
        2 => format!("UPDATE parts SET id = {} WHERE id = {id}", draw.number()),
        _ => format!("DELETE FROM parts WHERE id = {id}"),
    }]
}

pub fn truncate(draw: &mut Draw) -> Vec<String> {
    let table = draw.table();
    let how = draw.pick(&["", " CASCADE", " RESTART IDENTITY CASCADE"]);
    vec![format!("TRUNCATE {table}{how}")]
}

pub fn in_a_block(draw: &mut Draw) -> Vec<String> {
    let (table, other, id) = (draw.table(), draw.table(), draw.number());
    vec![match draw.rng.below(4) {
        0 => format!("DO 'BEGIN INSERT INTO {table} (id) VALUES ({id}); DELETE FROM {other} WHERE id = {id}; END'"),
        1 => format!(
            "DO 'BEGIN BEGIN INSERT INTO {table} (id) VALUES ({id}); ALTER TABLE {other} ADD COLUMN c3 int; \
             EXCEPTION WHEN OTHERS THEN UPDATE {table} SET id = id + 1 WHERE id = {id}; END; END'"
        ),
        2 => format!("DO 'BEGIN FOR n IN 1..3 LOOP INSERT INTO {table} (id) VALUES (1000 * {id} + n); END LOOP; END'"),
        _ => format!("DO 'BEGIN CREATE TABLE {} (id int PRIMARY KEY); TRUNCATE {other}; END'", draw.fresh("done")),
    }]
}
