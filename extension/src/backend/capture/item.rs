//! A statement as an item of a body, and the refusal of one that can't become one.

use gcs_writeset::body::{Actor, PutItem, Setting};

use crate::error::Error;
use crate::pg::names::quoted;
use crate::pg::statement::Refusal;
use crate::pg::{bearing, role, setting};

/// A statement as it travels: with who runs it, and the settings that it runs under.
pub fn item_of(text: &str) -> Vec<u8> {
    item_in(None, text)
}

/// The same, run where new objects go into this schema.
pub fn item_in(schema: Option<&str>, text: &str) -> Vec<u8> {
    let role::Identity { session, set, current, context } = role::identity();
    let actor = Actor { session: &session, set: &set, role: &current, context };
    let mut settings = setting::of_session().unwrap_or_else(|setting::NotUtf8(name)| {
        let what = format!("a statement under a setting (\"{name}\") that is not UTF-8");
        refuse(&Refusal { what, hint: "RESET the setting, or give it another value." });
        Vec::new()
    });
    if let Some(schema) = schema {
        let path = [quoted(schema), bearing::search_path()].join(", ");
        settings.retain(|setting| setting.name != "search_path");
        settings.push(setting::Given {
            name: "search_path".to_owned(),
            value: path.trim_end_matches(", ").to_owned(),
            by_superuser: false,
        });
    }
    let settings =
        settings.iter().map(|given| Setting { name: &given.name, value: &given.value, by_superuser: given.by_superuser });
    let settings: Vec<Setting<'_>> = settings.collect();
    let mut item = Vec::with_capacity(text.len() + 2048);
    item.put_statement(actor, &settings, text);
    item
}

/// Raises.
pub fn refuse(refusal: &Refusal) {
    let message = format!("{} is not supported in a replicated database", refusal.what);
    Error::new(pgrx::PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, message).hint(refusal.hint).raise()
}
