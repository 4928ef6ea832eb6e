//! Definitions that evaluate something over rows: defaults of a rewrite, USING, checks, generated columns.

use super::names::Draw;

/// A table with rows, then this change of it; `{}` stands for the table.
fn on_rows(draw: &mut Draw, columns: &str, values: &str, changes: &[&str]) -> Vec<String> {
    let name = format!("public.{}", draw.fresh("rewritten"));
    let change = draw.pick(changes).replace("{}", &name);
    vec![
        format!("CREATE TABLE {name} (id int PRIMARY KEY, v {columns})"),
        format!("INSERT INTO {name} SELECT n, {values} FROM generate_series(1, 3) n"),
        change,
        format!("UPDATE {name} SET id = id + 10 WHERE id = 1"),
    ]
}

pub fn constant(draw: &mut Draw) -> Vec<String> {
    on_rows(
        draw,
        "int",
        "n",
        &[
            "ALTER TABLE {} ADD COLUMN b int DEFAULT 5",
            "ALTER TABLE {} ALTER COLUMN v TYPE bigint",
            "ALTER TABLE {} ALTER COLUMN v TYPE text USING v::text || '!'",
            "ALTER TABLE {} ADD CHECK (v > 0)",
            "ALTER TABLE {} ADD COLUMN b mood DEFAULT 'sad'",
        ],
    )
}

/// What the session has set decides.
pub fn by_setting(draw: &mut Draw) -> Vec<String> {
    let (columns, values, change) = *draw.rng.pick(&[
        ("int", "n", "ALTER TABLE {} ADD COLUMN tenant int DEFAULT current_setting('app.tenant')::int"),
        ("bytea", "'\\x00ff41'::bytea", "ALTER TABLE {} ALTER COLUMN v TYPE text USING v::text"),
        ("float8", "0.1 + n / 3.0", "ALTER TABLE {} ALTER COLUMN v TYPE text"),
        ("timestamptz", "'2020-01-01 00:00:00+00'::timestamptz", "ALTER TABLE {} ALTER COLUMN v TYPE text"),
        ("date", "'2020-03-04'::date", "ALTER TABLE {} ALTER COLUMN v TYPE text USING v::text"),
    ]);
    let mut statements = vec![format!("SET app.tenant = '{}'", draw.number())];
    statements.extend(on_rows(draw, columns, values, &[change]));
    statements
}

/// Other on every node, though stable.
pub fn stable_defaults(draw: &mut Draw) -> Vec<String> {
    on_rows(
        draw,
        "int",
        "n",
        &[
            "ALTER TABLE {} ADD COLUMN b int DEFAULT pg_backend_pid()",
            "BEGIN; ALTER TABLE {} ADD COLUMN b timestamptz DEFAULT statement_timestamp(); COMMIT",
            "ALTER TABLE {} ADD COLUMN b text DEFAULT inet_client_port()::text",
        ],
    )
}

pub fn volatile_defaults(draw: &mut Draw) -> Vec<String> {
    on_rows(
        draw,
        "int",
        "n",
        &[
            "ALTER TABLE {} ADD COLUMN b float8 DEFAULT random()",
            "ALTER TABLE {} ADD COLUMN b bigserial",
            "ALTER TABLE {} ADD COLUMN b int GENERATED ALWAYS AS IDENTITY",
            "ALTER TABLE {} ADD COLUMN b uuid DEFAULT gen_random_uuid()",
        ],
    )
}

/// An expression that does not look volatile.
pub fn volatile_using(draw: &mut Draw) -> Vec<String> {
    let (columns, values, change) = *draw.rng.pick(&[
        ("int", "n", "ALTER TABLE {} ALTER COLUMN v TYPE int USING (v #+ 1)"),
        ("pair", "row(n)::pair", "ALTER TABLE {} ALTER COLUMN v TYPE int"),
        ("int", "n", "ALTER TABLE {} ALTER COLUMN v TYPE float8 USING stable_random()"),
    ]);
    on_rows(draw, columns, values, &[change])
}

/// What is refused as volatile, and is not.
pub fn generated(draw: &mut Draw) -> Vec<String> {
    on_rows(
        draw,
        "text",
        "'word ' || n",
        &[
            "ALTER TABLE {} ADD COLUMN b tsvector GENERATED ALWAYS AS (to_tsvector('english', v)) STORED",
            "ALTER TABLE {} ADD COLUMN b positive DEFAULT 3",
            "ALTER TABLE {} ADD COLUMN b int, ALTER COLUMN id TYPE bigint",
        ],
    )
}

/// A function of the session's own.
pub fn temporary_functions(draw: &mut Draw) -> Vec<String> {
    let function = draw.fresh("to_number");
    let mut statements = vec![format!(
        "CREATE FUNCTION pg_temp.{function}(t text) RETURNS numeric LANGUAGE sql IMMUTABLE AS \
         $$SELECT CASE WHEN t ~ '^[0-9.]+$' THEN t::numeric END$$"
    )];
    let change = format!("ALTER TABLE {{}} ALTER COLUMN v TYPE numeric USING pg_temp.{function}(v)");
    statements.extend(on_rows(draw, "text", "CASE n WHEN 2 THEN 'x' ELSE '3.5' END", &[&change]));
    statements
}

/// A check that writes.
pub fn writing_checks(draw: &mut Draw) -> Vec<String> {
    on_rows(draw, "int", "n", &["ALTER TABLE {} ADD CHECK (noted(v))", "CREATE INDEX ON {} (noted_as_immutable(v))"])
}
