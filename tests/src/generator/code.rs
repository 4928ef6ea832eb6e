//! Functions, views, triggers, rules: what runs when something else does.

use super::names::Draw;

pub fn functions(draw: &mut Draw) -> Vec<String> {
    let (table, number) = (draw.table(), draw.number());
    let name = format!("f{}", draw.rng.below(3));
    vec![match draw.rng.below(6) {
        0 => format!(
            "CREATE OR REPLACE FUNCTION {name}(n bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT n + {number}'"
        ),
        1 => format!(
            "CREATE OR REPLACE FUNCTION {name}() RETURNS bigint LANGUAGE plpgsql AS \
             'BEGIN INSERT INTO {table} (id) VALUES ({number}); RETURN (SELECT count(*) FROM {table}); END'"
        ),
        2 => format!("SELECT {name}()"),
        3 => format!("DROP FUNCTION IF EXISTS {name}(bigint)"),
        4 => format!(
            "CREATE OR REPLACE PROCEDURE p{name}() LANGUAGE plpgsql AS 'BEGIN CREATE TABLE IF NOT EXISTS by_{name} (id int PRIMARY KEY); INSERT INTO by_{name} SELECT coalesce(max(id), 0) + 1 FROM by_{name}; END'"
        ),
        _ => format!("CALL p{name}()"),
    }]
}

pub fn views(draw: &mut Draw) -> Vec<String> {
    let (table, name) = (draw.table(), format!("v{}", draw.rng.below(3)));
    vec![match draw.rng.below(4) {
        0 => format!("CREATE OR REPLACE VIEW {name} AS SELECT id FROM {table}"),
        1 => format!("INSERT INTO {name} (id) VALUES ({})", draw.number()),
        2 => format!("CREATE RULE quiet AS ON DELETE TO {name} DO INSTEAD NOTHING"),
        _ => format!("DELETE FROM {name} WHERE id = {}", draw.number()),
    }]
}

/// Row and statement triggers that write elsewhere.
pub fn triggers(draw: &mut Draw) -> Vec<String> {
    let (table, name) = (draw.table(), format!("r{}", draw.rng.below(3)));
    vec![match draw.rng.below(4) {
        0 => format!("CREATE TRIGGER {name} AFTER INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION note_row()"),
        1 => format!("CREATE TRIGGER {name} AFTER DELETE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION note_statement()"),
        2 => format!("DROP TRIGGER IF EXISTS {name} ON {table}"),
        _ => format!("ALTER TABLE {table} DISABLE TRIGGER USER"),
    }]
}

/// A function runs DDL from a trigger.
pub fn definitions_by_trigger(draw: &mut Draw) -> Vec<String> {
    vec![format!("INSERT INTO orders_to_define (name) VALUES ('{}')", draw.fresh("wanted"))]
}

/// TRUNCATE sets off triggers that write: into another table, and into the table itself.
pub fn truncate_triggers(draw: &mut Draw) -> Vec<String> {
    let name = format!("public.{}", draw.fresh("cut"));
    let function = draw.pick(&["empty_first()", "empty_first()", "note_statement()"]);
    vec![
        format!("CREATE TABLE {name} (id int PRIMARY KEY)"),
        format!("CREATE TRIGGER cut BEFORE TRUNCATE ON {name} FOR EACH STATEMENT EXECUTE FUNCTION {function}"),
        format!("CREATE TRIGGER noted AFTER DELETE ON {name} FOR EACH ROW EXECUTE FUNCTION note_row()"),
        format!("INSERT INTO {name} SELECT n FROM generate_series(1, 5) n"),
        format!("TRUNCATE {name}"),
    ]
}

/// An index's function that calls another one by its bare name.
pub fn bare_calls(draw: &mut Draw) -> Vec<String> {
    let name = draw.fresh("called");
    vec![
        format!("CREATE TABLE public.{name} (id int PRIMARY KEY, t text)"),
        format!("CREATE INDEX ON public.{name} (outer_call(t))"),
        format!("INSERT INTO public.{name} VALUES ({}, 'x')", draw.number()),
        format!("UPDATE public.{name} SET t = t || 'y'"),
    ]
}

/// Event triggers, which every session's definitions set off from then on: they note, they define, they forbid.
pub fn event_triggers(draw: &mut Draw) -> Vec<String> {
    let name = format!("e{}", draw.rng.below(4));
    vec![match draw.rng.below(12) {
        0 | 1 => format!("CREATE EVENT TRIGGER {name} ON ddl_command_end EXECUTE FUNCTION note_definitions()"),
        2 => format!(
            "CREATE EVENT TRIGGER {name} ON ddl_command_start WHEN TAG IN ('CREATE INDEX', 'COMMENT', 'ALTER TABLE') EXECUTE FUNCTION note_tag()"
        ),
        3 => format!("CREATE EVENT TRIGGER {name} ON sql_drop EXECUTE FUNCTION note_drops()"),
        4 => format!("CREATE EVENT TRIGGER {name} ON table_rewrite EXECUTE FUNCTION note_rewrite()"),
        5 => format!("CREATE EVENT TRIGGER {name} ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION dress()"),
        6 => format!("CREATE EVENT TRIGGER {name} ON ddl_command_end EXECUTE FUNCTION forbid_names()"),
        7 => {
            let mode = draw.pick(&["DISABLE", "DISABLE", "ENABLE", "ENABLE ALWAYS"]);
            format!("ALTER EVENT TRIGGER {name} {mode}")
        }
        8 => format!("ALTER EVENT TRIGGER {name} RENAME TO e{}", draw.rng.below(4)),
        _ => format!("DROP EVENT TRIGGER IF EXISTS {name}"),
    }]
}
