//! What one ordered statement touches, as PostgreSQL reports it while the statement runs: the relations whose keys the writeset
//! needs, and the tables that need a capture trigger afterwards.

use std::collections::HashSet;

use gcs_writeset::key::name_hash;

use super::columns::Columns;
use super::renamed::{Identities, Renamed};
use crate::pg::access::{self, Happened, Object};
use crate::pg::dependency::{self, Lifetime};
use crate::pg::relation::{self, Entry, Extent, Oid, Persistence, RelationKind};
use crate::pg::sequence;
use crate::sequences;

/// What a table held before.
struct Held {
    table: Oid,
    file: Oid,
    has_rows: bool,
}

#[derive(Default)]
pub struct Touched {
    relations: Vec<Oid>,
    /// Those of them that the statement has made.
    made: Vec<Oid>,
    /// Tables whose rows a script of an extension has changed.
    filled: Vec<Oid>,
    /// Triggers made or altered; their tables are found at the end.
    triggers: Vec<Oid>,
    /// Defaults made; found at the end.
    defaults: Vec<Object>,
    /// Everything made or altered, by its catalog; and the same, once it is complete.
    objects: HashSet<(u32, u32)>,
    altered: Vec<(u32, u32)>,
    pub truncated: Vec<Oid>,
    /// Hashes of the names, old and new, of relations that rows or other statements may use.
    pub names: Vec<u64>,
    pub is_temporary: bool,
    pub is_permanent: bool,
    /// It made something that other nodes cannot have: it is made from something temporary.
    pub on_loan: bool,
    pub lends_more_than_functions: bool,
    pub columns: Columns,
    renamed: Renamed,
    pub identities: Identities,
    /// Tables as first seen.
    files: Vec<Held>,
    /// Functions that it called.
    functions: HashSet<u32>,
    /// Tables to be truncated, as last seen.
    extents: Vec<(Oid, Extent)>,
}

impl Touched {
    pub fn object(&mut self, happened: Happened, object: Object) {
        self.remember(happened, object);
        match (happened, object) {
            (Happened::Truncated, Object::Relation(oid)) => {
                if !self.truncated.contains(&oid) {
                    self.truncated.push(oid);
                    self.extents.extend(relation::extent(oid).map(|extent| (oid, extent)));
                }
                self.relation(oid);
            }
            (_, Object::Relation(oid)) => {
                if happened == Happened::Created {
                    self.made.push(oid);
                }
                self.relation(oid);
            }
            (Happened::Dropped, Object::Trigger(oid)) => {
                if let Some(table) = access::table_of_trigger(oid) {
                    self.relation(table);
                }
            }
            (_, Object::Trigger(oid)) => self.triggers.push(oid),
            (_, Object::Default { relation, .. }) => self.relation(relation),
            (_, Object::Type(_) | Object::Other { .. }) => {}
        }
    }

    fn remember(&mut self, happened: Happened, object: Object) {
        if matches!(object, Object::Default { .. }) {
            return self.defaults.push(object);
        }
        let (class, oid) = object.address();
        self.renamed.see(class, oid);
        match happened {
            Happened::Created | Happened::Altered => {
                self.objects.insert((class.to_u32(), oid.to_u32()));
            }
            // It is gone when the statement has ended.
            Happened::Dropped => {
                self.objects.remove(&(class.to_u32(), oid.to_u32()));
                // A trigger is what its table is, and may have nothing left that says which that was.
                if !matches!(object, Object::Trigger(_)) {
                    self.judge(class, oid);
                }
            }
            Happened::Truncated => {}
        }
    }

    pub fn function(&mut self, function: Oid) {
        self.functions.insert(function.to_u32());
    }

    /// What the statement is about, where PostgreSQL has reported nothing.
    pub fn target(&mut self, (class, oid): (Oid, Oid)) {
        self.objects.insert((class.to_u32(), oid.to_u32()));
    }

    /// Whether it is temporary, or made from what is.
    fn judge(&mut self, class: Oid, oid: Oid) {
        match dependency::lifetime(class, oid) {
            Lifetime::Permanent => self.is_permanent = true,
            Lifetime::Temporary => self.is_temporary = true,
            Lifetime::OnLoan => {
                self.on_loan = true;
                self.lends_more_than_functions |= !dependency::is_function(class);
            }
        }
    }

    pub fn relation(&mut self, oid: Oid) {
        if !self.relations.contains(&oid) {
            self.relations.push(oid);
            self.columns.see(oid);
            if let Some(entry) = relation::entry(oid) {
                note_sequence(oid, &entry);
                self.note(oid, &entry);
                self.remember_file(oid, &entry);
            }
        }
    }

    /// Everything again as it is now: new relations are visible, renamed ones have their new names.
    pub fn resolve(&mut self) {
        dependency::see_own_changes();
        let defaults = std::mem::take(&mut self.defaults).into_iter().map(Object::address);
        self.objects.extend(defaults.map(|(class, oid)| (class.to_u32(), oid.to_u32())));
        self.altered = std::mem::take(&mut self.objects).into_iter().collect();
        for (class, oid) in self.altered.clone() {
            self.judge(Oid::from(class), Oid::from(oid));
        }
        self.identities = std::mem::take(&mut self.renamed).finish();
        for trigger in std::mem::take(&mut self.triggers) {
            if let Some(table) = access::table_of_trigger(trigger) {
                self.relation(table);
            }
        }
        self.columns.note_objects();
        for oid in self.relations.clone() {
            if let Some(entry) = relation::entry(oid) {
                note_sequence(oid, &entry);
                self.note(oid, &entry);
            }
        }
    }

    fn note(&mut self, oid: Oid, entry: &Entry) {
        if entry.is_internal || entry.kind == RelationKind::Other {
            return;
        }
        if entry.kind == RelationKind::Index {
            if let Some((table, entry)) =
                relation::table_of_index(oid).and_then(|table| Some((table, relation::entry(table)?)))
            {
                self.note(table, &entry);
            }
            return;
        }
        match entry.persistence {
            Persistence::Temporary => self.is_temporary = true,
            Persistence::Permanent | Persistence::Unlogged | Persistence::Excluded => self.is_permanent = true,
        }
        self.name(entry);
        if matches!(entry.kind, RelationKind::Table | RelationKind::PartitionedTable) {
            // Writers name the table that holds the row; what binds it may have been said of one above it.
            relation::with_children(oid).into_iter().filter_map(relation::entry).for_each(|entry| self.name(&entry));
        }
    }

    fn name(&mut self, entry: &Entry) {
        let name = name_hash(&[&entry.schema, &entry.name]);
        if !self.names.contains(&name) {
            self.names.push(name);
        }
    }

    fn remember_file(&mut self, oid: Oid, entry: &Entry) {
        let is_ours = entry.kind == RelationKind::Table && entry.persistence == Persistence::Permanent;
        if is_ours {
            let has_rows = relation::extent(oid).is_some_and(|extent| extent.blocks > 0);
            self.files.push(Held { table: oid, file: entry.file, has_rows });
        }
    }

    /// Tables that held rows when the statement came to them, and hold them still.
    pub fn with_rows(&self) -> impl Iterator<Item = Oid> + '_ {
        let tables = self.files.iter().filter(|held| held.has_rows).map(|held| held.table);
        tables.filter(|&table| relation::entry(table).is_some())
    }

    /// Tables that were there when the statement came, with rows or without, and were written anew.
    pub fn rewritten(&self) -> Vec<Oid> {
        let is_new = |held: &&Held| relation::entry(held.table).is_some_and(|entry| entry.file != held.file);
        self.files.iter().filter(is_new).map(|held| held.table).collect()
    }

    /// Functions that ran.
    pub fn functions(&self) -> impl Iterator<Item = Oid> + '_ {
        self.functions.iter().map(|&function| Oid::from(function))
    }

    /// Whether, since this was asked last, a table to be truncated was.
    pub fn have_tables_lost_rows(&mut self) -> bool {
        let mut have_lost = false;
        for (oid, seen) in &mut self.extents {
            if let Some(extent) = relation::extent(*oid) {
                have_lost |= extent.file != seen.file || extent.blocks < seen.blocks;
                *seen = extent;
            }
        }
        have_lost
    }

    pub fn has(&self, relation: Oid) -> bool {
        self.relations.contains(&relation)
    }

    /// The tables that must have a capture trigger now.
    pub fn tables(&self) -> impl Iterator<Item = Oid> + '_ {
        self.relations.iter().copied().filter(|&oid| {
            relation::entry(oid).is_some_and(|entry| {
                entry.kind == RelationKind::Table && entry.persistence == Persistence::Permanent && !entry.is_internal
            })
        })
    }

    /// Tables whose rows stay on their node, as they are now; and whether the statement has made them.
    pub fn staying(&self) -> impl Iterator<Item = (Oid, Entry, bool)> + '_ {
        let entries = self.relations.iter().filter_map(|&oid| Some((oid, relation::entry(oid)?)));
        let tables = entries.filter(|(_, entry)| {
            matches!(entry.kind, RelationKind::Table | RelationKind::PartitionedTable) && entry.persistence.is_of_node()
        });
        tables.map(|(oid, entry)| (oid, entry, self.made.contains(&oid)))
    }

    /// Unlogged sequences that it has made by themselves: not those of a table.
    pub fn unlogged_sequences(&self) -> impl Iterator<Item = (Oid, Entry)> + '_ {
        let with_tables: Vec<Oid> = self.staying().flat_map(|(table, ..)| sequence::owned_by(table)).collect();
        let made = self.made.iter().copied().filter(move |oid| !with_tables.contains(oid));
        made.filter_map(|oid| Some((oid, relation::entry(oid)?)))
            .filter(|(_, entry)| entry.kind == RelationKind::Sequence && entry.persistence == Persistence::Unlogged)
    }

    /// Objects of a catalog that were made or altered, as found at the end.
    pub fn altered_in(&self, catalog: Oid) -> impl Iterator<Item = Oid> + '_ {
        self.altered.iter().filter(move |&&(class, _)| class == catalog.to_u32()).map(|&(_, oid)| Oid::from(oid))
    }

    /// A script of an extension changes rows of this relation.
    pub fn fill(&mut self, oid: Oid) {
        self.filled.push(oid);
        self.relation(oid);
    }

    /// Tables that the statement has made, emptied, or filled by a script.
    pub fn made_or_filled(&self) -> Vec<Oid> {
        let is_meant = |oid: &Oid| [&self.made, &self.filled, &self.truncated].into_iter().any(|oids| oids.contains(oid));
        self.tables().filter(is_meant).collect()
    }

    /// The table that CREATE TABLE AS has made, whoever keeps its rows.
    pub fn filled_by_query(&self) -> impl Iterator<Item = Oid> + '_ {
        self.made.iter().copied().filter(|&oid| {
            relation::entry(oid).is_some_and(|entry| {
                entry.kind == RelationKind::Table && entry.persistence != Persistence::Temporary && !entry.is_internal
            })
        })
    }

    /// The materialized views that are there.
    pub fn views(&self) -> impl Iterator<Item = Oid> + '_ {
        self.relations.iter().copied().filter(|&oid| {
            relation::entry(oid).is_some_and(|entry| entry.kind == RelationKind::MaterializedView && !entry.is_internal)
        })
    }

    /// Whether it touched no relation.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Whether it touched nothing at all.
    pub fn is_nothing(&self) -> bool {
        !self.is_temporary && !self.is_permanent && !self.on_loan
    }
}

/// By the name that it has now, or had before the statement.
fn note_sequence(oid: Oid, entry: &Entry) {
    if entry.kind == RelationKind::Sequence && entry.persistence == Persistence::Permanent {
        sequences::note(oid, &entry.schema, &entry.name);
    }
}
