//! Runs one ordered statement of a writeset: with the session user, the role, the security context and the settings that it ran with on its
//! origin, as PostgreSQL's parallel workers take them over; without what the origin has decided of it.

use gcs_writeset::body::{self, Actor, Remade, Setting, Settings};
use gcs_writeset::wire::WireError;

use super::divergence::Divergence;
use crate::pg::alter::Given;
use crate::pg::role::{self, Acting};
use crate::pg::setting::Scope;
use crate::pg::{encoding, relation, rewrite, utility};

/// What came out on the origin.
#[derive(Default)]
pub struct Decided {
    /// Tables whose rows follow the statement.
    tables: Vec<Table>,
    pub given: Given,
}

struct Table {
    schema: String,
    name: String,
    anew: bool,
    afterwards: bool,
}

impl Decided {
    pub fn read(decided: body::Decided<'_>) -> Decided {
        let owned = |Remade { schema, name, anew, afterwards }: Remade<'_>| Table {
            schema: schema.to_owned(),
            name: name.to_owned(),
            anew,
            afterwards,
        };
        let value = |(name, value): (&str, Option<&str>)| (name.to_owned(), value.map(str::to_owned));
        Decided {
            tables: decided.tables().map(owned).collect(),
            given: Given {
                columns: decided.columns().map(value).collect(),
                bound: decided.bound.map(str::to_owned),
                verifier: None,
            },
        }
    }

    /// Of a statement with a password.
    pub fn with_verifier(verifier: &str) -> Decided {
        Decided { given: Given { verifier: Some(verifier.to_owned()), ..Given::default() }, ..Decided::default() }
    }

    /// Before the statement runs those that it finds, afterwards those that it makes or fills.
    fn empty_tables(&self, afterwards: bool) -> Result<(), Divergence> {
        for Table { schema, name, .. } in self.tables.iter().filter(|table| table.afterwards == afterwards) {
            let is_empty = relation::find(schema, name).is_some_and(rewrite::empty);
            if !is_empty {
                return Err(Divergence::NoRelation { schema: schema.clone(), name: name.clone() });
            }
        }
        Ok(())
    }

    /// What the origin has written anew has no rows that are older than a column, and the catalog says so. Here the statement had nothing to write,
    /// or nothing to write it for.
    fn forget_missing_values(&self) {
        let anew = self.tables.iter().filter(|table| table.anew);
        anew.filter_map(|table| relation::find(&table.schema, &table.name)).for_each(rewrite::forget_missing_values);
    }
}

pub fn execute(actor: Actor<'_>, settings: Settings<'_>, text: &str, decided: Option<Decided>) -> Result<(), Divergence> {
    let find = |name: &str| role::find(name).ok_or_else(|| Divergence::NoRole(name.to_owned()));
    let current = find(actor.role)?;
    find(actor.session)?;
    if !actor.set.is_empty() {
        find(actor.set)?;
    }
    let text = encoding::c_string(text).ok_or(WireError::OutOfRange { what: "zero byte in a statement" })?;
    // In this order, so that they end in the other one.
    let mut scope = Scope::at_defaults();
    scope.become_session(actor.session, actor.set);
    let _role = Acting::within(current, actor.context);
    for Setting { name, value, by_superuser } in settings.iter() {
        if !scope.set_for(name, value, by_superuser) {
            return Err(Divergence::Setting { name: name.to_owned(), value: value.to_owned() });
        }
    }
    scope.set_for("check_function_bodies", "off", true);
    if let Some(decided) = &decided {
        decided.empty_tables(false)?;
    }
    let given = decided.as_ref().map(|decided| decided.given.clone());
    utility::run_text(&text, given);
    if let Some(decided) = &decided {
        decided.empty_tables(true)?;
        decided.forget_missing_values();
    }
    Ok(())
}
