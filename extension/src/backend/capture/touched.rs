//! What one ordered statement touches, as PostgreSQL reports it while the statement runs: the relations whose keys the writeset
//! needs, and the tables that need a capture trigger afterwards.

use std::cell::RefCell;
use std::collections::HashSet;

use gcs_writeset::key::name_hash;

use super::columns::Columns;
use super::renamed::{Identities, Renamed};
use crate::pg::access::{self, Happened, Object};
use crate::pg::dependency::{self, Lifetime};
use crate::pg::relation::{self, Entry, Lock, Oid, Open, Persistence, RelationKind};
use crate::sequences;

thread_local! {
    static CURRENT: RefCell<Option<Touched>> = const { RefCell::new(None) };
}

#[derive(Default)]
pub struct Touched {
    level: i32,
    relations: Vec<Oid>,
    /// Triggers made or altered; their tables are found at the end.
    triggers: Vec<Oid>,
    /// Everything made or altered, by its catalog.
    objects: HashSet<(u32, u32)>,
    pub truncated: Vec<Oid>,
    /// Hashes of the names, old and new, of relations that rows or other statements may use.
    pub names: Vec<u64>,
    pub is_temporary: bool,
    pub is_permanent: bool,
    /// A relation whose rows can't be captured, made by this statement.
    pub uncapturable: Option<Entry>,
    /// It made something that other nodes cannot have: it is made from something temporary.
    pub on_loan: bool,
    pub columns: Columns,
    renamed: Renamed,
    pub identities: Identities,
    /// Tables that held rows, and their files, as first seen.
    files: Vec<(Oid, Oid)>,
    /// Functions that it called.
    functions: HashSet<u32>,
}

/// Starts to collect what is touched, for the statement that starts now at this subtransaction level. False while another is being
/// watched: then this one is part of it.
pub fn start(level: i32) -> bool {
    CURRENT.with_borrow_mut(|current| {
        let is_free = current.is_none();
        if is_free {
            *current = Some(Touched { level, ..Touched::default() });
        }
        is_free
    })
}

/// Whether a statement is being watched.
pub fn is_watching() -> bool {
    CURRENT.with_borrow(Option::is_some)
}

/// The statement succeeded.
pub fn finish() -> Touched {
    let mut touched = CURRENT.take().unwrap_or_default();
    touched.resolve();
    touched
}

/// Forgets a statement that was started but is not watched after all, or that failed.
pub fn forget() {
    CURRENT.set(None);
}

/// The subtransaction at `level` was rolled back, and with it a statement started in it.
pub fn subtransaction_aborted(level: i32) {
    CURRENT.with_borrow_mut(|current| {
        if current.as_ref().is_some_and(|touched| touched.level >= level) {
            *current = None;
        }
    });
}

/// From the object access hook.
pub fn on_object(happened: Happened, object: Object) {
    let Some(mut touched) = CURRENT.take() else { return };
    touched.object(happened, object);
    CURRENT.set(Some(touched));
}

/// A function is about to be called, by the statement or by what it calls.
pub fn on_function(function: Oid) {
    CURRENT.with(|current| {
        if let Ok(mut current) = current.try_borrow_mut()
            && let Some(touched) = &mut *current
        {
            touched.functions.insert(function.to_u32());
        }
    });
}

/// Adds relations that the statement names.
pub fn add(relations: &[Oid]) {
    let Some(mut touched) = CURRENT.take() else { return };
    for &relation in relations {
        touched.relation(relation);
    }
    CURRENT.set(Some(touched));
}

impl Touched {
    fn object(&mut self, happened: Happened, object: Object) {
        self.remember(happened, object);
        match (happened, object) {
            (Happened::Truncated, Object::Relation(oid)) => {
                self.truncated.push(oid);
                self.relation(oid);
            }
            (_, Object::Relation(oid)) => self.relation(oid),
            (Happened::Dropped, Object::Trigger(oid)) => {
                if let Some(table) = access::table_of_trigger(oid) {
                    self.relation(table);
                }
            }
            (_, Object::Trigger(oid)) => self.triggers.push(oid),
            (_, Object::Type(_) | Object::Other { .. }) => {}
        }
    }

    fn remember(&mut self, happened: Happened, object: Object) {
        let (class, oid) = object.address();
        self.renamed.see(class, oid);
        match happened {
            Happened::Created | Happened::Altered => {
                self.objects.insert((class.to_u32(), oid.to_u32()));
            }
            // It is gone when the statement has ended.
            Happened::Dropped => self.is_temporary |= dependency::lifetime(class, oid) == Lifetime::Temporary,
            Happened::Truncated => {}
        }
    }

    /// Whether what was made is temporary, or made from what is.
    fn judge(&mut self) {
        for (class, oid) in std::mem::take(&mut self.objects) {
            match dependency::lifetime(Oid::from(class), Oid::from(oid)) {
                Lifetime::Permanent => {}
                Lifetime::Temporary => self.is_temporary = true,
                Lifetime::OnLoan => self.on_loan = true,
            }
        }
    }

    fn relation(&mut self, oid: Oid) {
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
    fn resolve(&mut self) {
        dependency::see_own_changes();
        self.judge();
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
                let is_capturable = !matches!(entry.kind, RelationKind::ForeignTable | RelationKind::MaterializedView)
                    && entry.persistence != Persistence::Unlogged;
                if !is_capturable && !entry.is_internal {
                    self.uncapturable.get_or_insert(entry);
                }
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
            Persistence::Permanent | Persistence::Unlogged => self.is_permanent = true,
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
        if entry.kind == RelationKind::Table && entry.persistence == Persistence::Permanent {
            let holds_rows = Open::by_oid(oid, Lock::AccessShare).is_some_and(|table| !table.is_empty());
            if holds_rows {
                self.files.push((oid, entry.file));
            }
        }
    }

    /// Tables that held rows when the statement came to them, and hold them still.
    pub fn with_rows(&self) -> impl Iterator<Item = Oid> + '_ {
        self.files.iter().map(|&(oid, _)| oid).filter(|&oid| relation::entry(oid).is_some())
    }

    /// Those of them that were written anew.
    pub fn rewritten(&self) -> Vec<Oid> {
        let is_new = |&&(oid, file): &&(Oid, Oid)| relation::entry(oid).is_some_and(|entry| entry.file != file);
        self.files.iter().filter(is_new).map(|&(oid, _)| oid).collect()
    }

    /// Functions that ran.
    pub fn functions(&self) -> impl Iterator<Item = Oid> + '_ {
        self.functions.iter().map(|&function| Oid::from(function))
    }

    /// The tables that must have a capture trigger now.
    pub fn tables(&self) -> impl Iterator<Item = Oid> + '_ {
        self.relations.iter().copied().filter(|&oid| {
            relation::entry(oid).is_some_and(|entry| {
                entry.kind == RelationKind::Table && entry.persistence == Persistence::Permanent && !entry.is_internal
            })
        })
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

/// By the name that it has now, or had before the statement.
fn note_sequence(oid: Oid, entry: &Entry) {
    if entry.kind == RelationKind::Sequence && entry.persistence == Persistence::Permanent {
        sequences::note(oid, &entry.schema, &entry.name);
    }
}
