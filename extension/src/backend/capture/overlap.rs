//! DDL of one node that overlaps in time with other DDL of that node.
//!
//! PostgreSQL lets two sessions define things at the same time, as far as locks let them, and neither sees the other's. On other nodes
//! one of them is applied first, so the later one's text is read when the earlier one is in the catalogs:
//!
//! ```text
//! s1: BEGIN; CREATE TABLE a.t (...)
//! s2: SET search_path = a, b; ALTER TABLE t ADD COLUMN n int     finds b.t
//! s1: COMMIT @5.  s2: COMMIT @6.                                 elsewhere a.t gets the column
//! ```
//!
//! DDL of different nodes excludes each other, whatever it says. DDL of one node is told apart by words
//! (`postgres_r_protocol::capture::words`): the later one loses only if its text mentions a word of a name that the earlier one made,
//! renamed or dropped, in a schema that it mentions, counting as mentioned its search path, its role and the names that it made up; or if no names tell what the one
//! changes or the other takes (`pg::bearing`). Privileges matter to who needs them: what was revoked, to a role that is no superuser;
//! what was granted, only where it lets a schema of the search path be seen. docs/certification.md argues the keys, ADR 30 the choice.

use std::collections::BTreeSet;

use gcs_writeset::bounds::GROUP_MEMBERS_MAX;
use gcs_writeset::{Key, Position};
use postgres_r_protocol::capture::buffer::{Guard, Strength};
use postgres_r_protocol::capture::words::{self, Schema, Words};

use super::transaction;
use crate::error;
use crate::pg::access::{Happened, Object};
use crate::pg::bearing::{self, Bearing, Changes, Name, Takes};
use crate::pg::constraint;
use crate::pg::relation::{self, Entry, Oid};
use crate::pg::role;
use crate::pg::statement::{Fills, Ordered};
use crate::pg::utility::Utility;
use crate::{relations, session};

/// What a statement that is being watched does.
#[derive(Default)]
pub struct Noted {
    created: Vec<(Oid, Oid)>,
    dropped: BTreeSet<Name>,
    /// Relations that were there before, with schema and name.
    found: Vec<(Oid, String, String)>,
    calls_functions_of_users: bool,
}

/// The statement has run, and its changes are visible: its keys against other DDL. One that only looks at the catalogs (TRUNCATE, REFRESH)
/// changes nothing that other DDL takes. What evaluates rows that travel as rows evaluates nothing elsewhere.
pub fn add_keys(utility: &Utility, noted: &Noted, base: Position, ordered: &Ordered) {
    // The names in a script are its author's.
    if !ordered.runs_script {
        refuse_chance_names(utility, noted);
    }
    let mut bearing = utility.bearing();
    if noted.calls_functions_of_users && ordered.fills == Fills::Nothing {
        bearing.takes = Takes::Anything;
    }
    // Nothing is to be found out about a password, be it by the hash of a word.
    let told = if ordered.has_password { None } else { Told::of(utility, noted, &bearing) };
    if !ordered.only_looks() {
        hold(&bearing, told.as_ref());
    }
    check(noted, &bearing, told.as_ref(), base);
}

/// The keys of a statement of which nothing is known but when it began: it excludes all DDL that overlaps.
pub fn add_keys_at_large(base: Position) {
    hold_ddl();
    transaction::add_key(relations::ddl_at_large_key(), Strength::Shared, Guard::Locked);
    transaction::add_key(relations::ddl_key(), Strength::Checked, Guard::Since(base));
}

/// What all DDL holds.
fn hold_ddl() {
    // At the submit all other DDL of this node is committed (`transaction::excludes_ddl`).
    transaction::add_key(relations::ddl_key(), Strength::Exclusive, Guard::Locked);
    let others = (0..GROUP_MEMBERS_MAX as u16).filter(|&ordinal| ordinal != session::ordinal());
    others.map(relations::ddl_elsewhere_key).for_each(|key| transaction::add_key(key, Strength::Shared, Guard::Locked));
}

/// PostgreSQL puts a number behind a name that it makes up for a relation when the first choice is taken, be it by a transaction that is rolled
/// back in the end. Elsewhere nobody takes the first choice then, and the relation would get another name. So whoever has a name with a number
/// loses, unless those before it are there.
fn refuse_chance_names(utility: &Utility, noted: &Noted) {
    let text = utility.text().unwrap_or_default();
    let made = noted.created.iter().filter(|&&(class, oid)| Object::Relation(oid).address() == (class, oid));
    for Entry { schema, name, .. } in made.filter_map(|&(_, oid)| relation::entry(oid)) {
        let Some(before) = words::made_up_before(&name).filter(|_| !text.contains(name.as_str())) else { continue };
        if relation::find(&schema, &before).is_none() && !constraint::is_named(&schema, &before) {
            error::name_taken_meanwhile(&name, &before).raise();
        }
    }
}

/// A statement that mentions more schemas is not told apart from others: it checks each of its words in each of them.
const SCHEMAS_MAX: usize = 8;

/// Words of a statement.
struct Told {
    /// Of the text, the search path and the role.
    mentioned: Words,
    surroundings: Words,
    /// The schemas that they may mean.
    schemas: BTreeSet<Schema>,
    changed: Placed,
    granted: Words,
    revoked: Words,
    made_up: Placed,
    /// Of names of relations that it touched, and so has locked.
    locked: Words,
}

impl Told {
    /// None if one of them can't be told.
    fn of(utility: &Utility, noted: &Noted, bearing: &Bearing) -> Option<Told> {
        let role::Identity { session, set, current, .. } = role::identity();
        let around = format!("{} {session} {set} {current}", bearing::search_path());
        let (surroundings, text) = (words::of(&around)?, utility.text()?);
        let schemas = &words::schemas(&around, bearing::is_schema) | &words::schemas(&text, bearing::is_schema);
        if schemas.len() > SCHEMAS_MAX {
            return None;
        }
        let found = noted.found.iter().map(|(_, _, name)| name);
        Some(Told {
            mentioned: &words::of(&text)? | &surroundings,
            surroundings,
            schemas,
            changed: noted.changed()?,
            granted: of_names(&bearing.granted)?,
            revoked: of_names(&bearing.revoked)?,
            made_up: noted.made_up()?,
            locked: found.filter_map(|name| words::of_name(name)).flatten().collect(),
        })
    }
}

fn of_names<'a>(names: impl IntoIterator<Item = &'a String>) -> Option<Words> {
    let mut words = Words::new();
    for name in names {
        words.extend(words::of_name(name)?);
    }
    Some(words)
}

/// Words of names that are of a schema each.
#[derive(Default)]
struct Placed {
    words: Words,
    /// By schema and word.
    places: Words,
}

impl Placed {
    /// None if the name has no words.
    fn add(&mut self, schema: Option<&str>, name: &str) -> Option<()> {
        // In pg_catalog names are looked for by everybody.
        let schema = schema.filter(|&schema| schema != "pg_catalog").and_then(Schema::of_name);
        let words = words::of_name(name)?;
        self.places.extend(words.iter().map(|&word| words::place(schema, word)));
        self.words.extend(words);
        Some(())
    }
}

/// What later DDL may have to mind.
fn hold(bearing: &Bearing, told: Option<&Told>) {
    hold_ddl();
    let shared = |key| transaction::add_key(key, Strength::Shared, Guard::Locked);
    let Some(told) = told.filter(|_| bearing.changes != Changes::Anything) else {
        return shared(relations::ddl_at_large_key());
    };
    if bearing.changes == Changes::Functions {
        shared(relations::functions_key());
    }
    if bearing.changes_defaults {
        shared(relations::default_privileges_key());
    }
    told.changed.places.iter().map(|&place| relations::changed_word_key(place)).for_each(shared);
    told.granted.iter().map(|&word| relations::granted_word_key(word)).for_each(shared);
    told.revoked.iter().map(|&word| relations::revoked_word_key(word)).for_each(shared);
    let own = &told.changed.words | &told.locked;
    told.mentioned.difference(&own).map(|&word| relations::mentioned_word_key(word)).for_each(shared);
}

/// What earlier DDL must not have done since this statement began.
fn check(noted: &Noted, bearing: &Bearing, told: Option<&Told>, base: Position) {
    let since = Guard::Since(base);
    let checked = |key: Key| transaction::add_key(key, Strength::Checked, since);
    let Some(told) = told.filter(|_| bearing.takes != Takes::Anything) else {
        return checked(relations::ddl_key());
    };
    checked(relations::ddl_elsewhere_key(session::ordinal()));
    checked(relations::ddl_at_large_key());
    if bearing.takes == Takes::Values {
        checked(relations::functions_key());
    }
    if noted.created.iter().any(|&(class, _)| bearing::gets_default_privileges(class)) {
        checked(relations::default_privileges_key());
    }
    let mentioned = &told.mentioned | &told.made_up.words;
    // In whatever schema the text may mean; and what PostgreSQL made up, in the schema for which it did.
    let anywhere = told.mentioned.iter().map(|&word| words::place(None, word));
    let schemas =
        told.schemas.iter().flat_map(|&schema| told.mentioned.iter().map(move |&word| words::place(Some(schema), word)));
    let places: Words = anywhere.chain(schemas).chain(told.made_up.places.iter().copied()).collect();
    places.into_iter().map(relations::changed_word_key).for_each(checked);
    if !role::is_superuser() {
        mentioned.iter().map(|&word| relations::revoked_word_key(word)).for_each(checked);
        told.surroundings.iter().map(|&word| relations::granted_word_key(word)).for_each(checked);
    }
    if bearing.looks_for_users {
        (&told.changed.words | &told.locked).into_iter().map(relations::mentioned_word_key).for_each(checked);
    }
}

impl Noted {
    /// From the object access hook.
    pub fn object(&mut self, happened: Happened, object: Object) {
        let (class, oid) = object.address();
        match happened {
            Happened::Created => self.created.push((class, oid)),
            Happened::Dropped => self.dropped.extend(bearing::name_of(class, oid)),
            Happened::Altered | Happened::Truncated => {
                if let Object::Relation(relation) = object {
                    self.find(relation);
                }
            }
        }
    }

    /// What was made, of one catalog, in order.
    pub fn created_in(&self, catalog: Oid) -> impl Iterator<Item = Oid> + '_ {
        self.created.iter().filter(move |&&(class, _)| class == catalog).map(|&(_, oid)| oid)
    }

    /// A function is about to run.
    pub fn function(&mut self, function: Oid) {
        self.calls_functions_of_users |= bearing::is_of_users(function);
    }

    /// The statement names this relation.
    pub fn find(&mut self, relation: Oid) {
        if self.found.iter().all(|(known, ..)| *known != relation)
            && let Some(entry) = relation::entry(relation)
        {
            self.found.push((relation, entry.schema, entry.name));
        }
    }

    fn created(&self) -> impl Iterator<Item = Name> + '_ {
        let names = self.created.iter().filter_map(|&(class, oid)| bearing::name_of(class, oid));
        // TOAST tables and their indexes: by themselves nobody mentions them.
        names.filter(|name| !name.name.starts_with("pg_toast_"))
    }

    /// Words of names that stand for something else than before. None if that can't be told.
    fn changed(&self) -> Option<Placed> {
        let mut placed = Placed::default();
        for Name { schema, name } in self.dropped.iter().cloned().chain(self.created()) {
            placed.add(schema.as_deref(), &name)?;
        }
        for (oid, schema, name) in &self.found {
            let now = relation::entry(*oid);
            if now.as_ref().is_none_or(|now| now.schema != *schema || now.name != *name) {
                placed.add(Some(schema), name)?;
                now.map_or(Some(()), |now| placed.add(Some(&now.schema), &now.name))?;
            }
        }
        Some(placed)
    }

    /// Words of names that PostgreSQL may have made up for what was created. None if that can't be told.
    fn made_up(&self) -> Option<Placed> {
        let mut placed = Placed::default();
        for Name { schema, name } in self.created() {
            placed.add(schema.as_deref(), &name)?;
            placed.add(schema.as_deref(), words::first_choice(&name)?)?;
        }
        Some(placed)
    }
}
