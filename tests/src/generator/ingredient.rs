//! What statements are drawn from, by name and weight; and what is left out, with the reason.

use super::names::Draw;
use super::{code, references, rows, session, tables, values};

pub struct Ingredient {
    pub name: &'static str,
    /// How often, compared with the others.
    pub weight: u64,
    pub make: fn(&mut Draw) -> Vec<String>,
}

const fn of(name: &'static str, weight: u64, make: fn(&mut Draw) -> Vec<String>) -> Ingredient {
    Ingredient { name, weight, make }
}

pub const ALL: &[Ingredient] = &[
    of("tables", 14, tables::create),
    of("tables_otherwise", 6, tables::create_otherwise),
    of("alter", 14, tables::alter),
    of("rename", 3, tables::rename),
    of("drop", 3, tables::drop),
    of("indexes", 6, tables::index),
    of("sequences", 4, tables::sequence),
    of("sequence_bounds", 2, tables::sequence_bounds),
    of("types", 4, tables::types),
    of("schemas", 1, tables::schema),
    of("comments", 3, tables::comment),
    of("grants", 4, tables::grant),
    of("local_roles", 1, tables::local_role),
    of("refused", 2, tables::refused),
    of("rows", 30, rows::change),
    of("partitions", 3, rows::partitions),
    of("truncate", 3, rows::truncate),
    of("blocks_of_code", 4, rows::in_a_block),
    of("functions", 5, code::functions),
    of("views", 3, code::views),
    of("triggers", 3, code::triggers),
    of("definitions_by_trigger", 1, code::definitions_by_trigger),
    of("truncate_triggers", 2, code::truncate_triggers),
    of("bare_calls", 2, code::bare_calls),
    of("event_triggers", 4, code::event_triggers),
    of("settings", 6, session::settings),
    of("roles", 2, session::roles),
    of("temporary", 2, session::temporary),
    of("temporary_comments", 2, session::temporary_comments),
    of("renamed_references", 2, references::rename),
    of("dropped_references", 2, references::dropped),
    of("reference_keys", 2, references::keys),
    of("row_types", 4, references::row_types),
    of("constant_values", 2, values::constant),
    of("values_by_setting", 2, values::by_setting),
    of("stable_defaults", 2, values::stable_defaults),
    of("volatile_defaults", 1, values::volatile_defaults),
    of("volatile_using", 2, values::volatile_using),
    of("generated_columns", 1, values::generated),
    of("temporary_functions", 2, values::temporary_functions),
    of("writing_checks", 2, values::writing_checks),
];

/// Left out unless `GENERATOR_WITH` names them: what they find is known, and not mended yet. To be emptied.
pub const LEFT_OUT: &[(&str, &str)] = &[];

/// What a run draws from: all but what is left out, what `GENERATOR_WITHOUT` names and, with `GENERATOR_ONLY`, whatever that does not.
pub fn chosen() -> Vec<&'static Ingredient> {
    let names = |variable: &str| -> Vec<String> {
        let value = std::env::var(variable).unwrap_or_default();
        let names: Vec<String> =
            value.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
        for name in &names {
            assert!(ALL.iter().any(|ingredient| ingredient.name == name), "{variable}: there is no ingredient {name}");
        }
        names
    };
    let (with, without, only) = (names("GENERATOR_WITH"), names("GENERATOR_WITHOUT"), names("GENERATOR_ONLY"));
    let has = |names: &[String], ingredient: &Ingredient| names.iter().any(|name| name == ingredient.name);
    let is_chosen = |ingredient: &&Ingredient| {
        let is_left_out = LEFT_OUT.iter().any(|(name, _)| *name == ingredient.name);
        if !only.is_empty() {
            return has(&only, ingredient);
        }
        (!is_left_out || has(&with, ingredient)) && !has(&without, ingredient)
    };
    ALL.iter().filter(is_chosen).collect()
}

/// The next statements of a session: an ingredient, or a block of some.
pub fn draw(draw: &mut Draw, chosen: &[&Ingredient]) -> Vec<(&'static str, String)> {
    if draw.rng.percent(12) {
        let statements = session::block(draw, |draw| one(draw, chosen).1);
        return statements.into_iter().map(|statement| ("block", statement)).collect();
    }
    let (name, statements) = one(draw, chosen);
    statements.into_iter().map(|statement| (name, statement)).collect()
}

fn one(draw: &mut Draw, chosen: &[&Ingredient]) -> (&'static str, Vec<String>) {
    let total = chosen.iter().map(|ingredient| ingredient.weight).sum();
    let mut at = draw.rng.below(total);
    let found = chosen.iter().find(|ingredient| {
        let is_it = at < ingredient.weight;
        at = at.saturating_sub(ingredient.weight);
        is_it
    });
    found.map_or(("", Vec::new()), |ingredient| (ingredient.name, (ingredient.make)(draw)))
}
