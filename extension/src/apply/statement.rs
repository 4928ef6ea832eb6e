//! Runs one ordered statement of a writeset: with the session user, the role, the security context and the settings that it ran with on its
//! origin, as PostgreSQL's parallel workers take them over; without what the origin has decided of it.

use std::ffi::CString;

use gcs_writeset::body::{self, Actor, Setting, Settings};
use gcs_writeset::wire::WireError;

use super::divergence::Divergence;
use crate::pg::alter::Given;
use crate::pg::role::{self, Acting};
use crate::pg::setting::Scope;
use crate::pg::{relation, rewrite, utility};

/// What came out on the origin.
#[derive(Default)]
pub struct Decided {
    /// Schema and name of tables whose rows follow the statement.
    pub tables: Vec<(String, String)>,
    pub given: Given,
}

impl Decided {
    pub fn read(decided: body::Decided<'_>) -> Decided {
        let owned = |(schema, name): (&str, &str)| (schema.to_owned(), name.to_owned());
        let value = |(name, value): (&str, Option<&str>)| (name.to_owned(), value.map(str::to_owned));
        Decided {
            tables: decided.tables().map(owned).collect(),
            given: Given { columns: decided.columns().map(value).collect(), bound: decided.bound.map(str::to_owned) },
        }
    }

    fn empty_tables(&self) -> Result<(), Divergence> {
        for (schema, name) in &self.tables {
            let is_empty = relation::find(schema, name).is_some_and(rewrite::empty);
            if !is_empty {
                return Err(Divergence::NoRelation { schema: schema.clone(), name: name.clone() });
            }
        }
        Ok(())
    }
}

pub fn execute(actor: Actor<'_>, settings: Settings<'_>, text: &str, decided: Option<Decided>) -> Result<(), Divergence> {
    let find = |name: &str| role::find(name).ok_or_else(|| Divergence::NoRole(name.to_owned()));
    let current = find(actor.role)?;
    find(actor.session)?;
    if !actor.set.is_empty() {
        find(actor.set)?;
    }
    let text = CString::new(text).map_err(|_| WireError::OutOfRange { what: "zero byte in a statement" })?;
    // In this order, so that they end in the other one.
    let mut scope = Scope::at_defaults();
    scope.become_session(actor.session, actor.set);
    let _role = Acting::within(current, actor.context);
    for Setting { name, value, by_superuser } in settings.iter() {
        if !scope.set_for(name, value, by_superuser) {
            return Err(Divergence::Setting { name: name.to_owned(), value: value.to_owned() });
        }
    }
    if let Some(decided) = &decided {
        decided.empty_tables()?;
    }
    utility::run_text(&text, decided.map(|decided| decided.given));
    Ok(())
}
