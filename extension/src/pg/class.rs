//! What becomes of a utility statement: of this node alone, ordered in the group, or refused.

use super::alter::Evaluated;
use super::global;
use super::names::Oid;
use super::two_phase;

pub enum Class {
    /// Changes nothing that other nodes must know of.
    Local,
    Ordered(Ordered),
    Refused(Refusal),
    /// COPY into this relation; its rows are captured.
    CopyIn(Oid),
    /// Runs here, and reads this table.
    CopyOut(Oid),
    /// LOCK TABLE in a mode that keeps writers out.
    Lock(Vec<Oid>, TableLock),
    ImportSnapshot,
    /// NOTIFY.
    Notify,
    /// PREPARE TRANSACTION, COMMIT PREPARED, ROLLBACK PREPARED.
    TwoPhase(two_phase::Statement),
}

/// A statement that travels as its text.
#[derive(Default)]
pub struct Ordered {
    /// Relations that the statement names and that exist before it.
    pub targets: Vec<Oid>,
    /// Changes how values of a type read or are stored.
    pub changes_types: bool,
    /// The tables that hold such values, where they can be told: noted before it runs.
    pub tables_of_types: Option<Vec<Oid>>,
    pub is_truncate: bool,
    pub restarts_identity: bool,
    /// Does nothing if it touches no relation (DROP ... IF EXISTS).
    pub needs_relation: bool,
    /// Does nothing if it touches nothing at all.
    pub needs_object: bool,
    /// Is about whatever some roles own: DROP OWNED, REASSIGN OWNED.
    pub of_owners: bool,
    /// What an ALTER TABLE may evaluate.
    pub evaluated: Evaluated,
    pub fills: Fills,
    /// Runs the script of an extension (CREATE or ALTER EXTENSION): travels as what came out.
    pub runs_script: bool,
    /// It is about what all databases of the server share.
    pub global: Option<global::Global>,
    /// It has a password, with which its text is not to go anywhere.
    pub has_password: bool,
    /// It takes several transactions, which PostgreSQL begins and ends itself.
    pub concurrently: bool,
    /// What is for other nodes of it, where that is another statement.
    pub travels_as: Option<String>,
    /// PostgreSQL's lock lets others change rows of its tables meanwhile, and nothing of what it does has to do with what they change.
    pub lets_writers_go_on: bool,
    /// Whatever it touches, it touches because of permanent objects.
    pub names_permanent: bool,
}

impl Ordered {
    /// It changes nothing in the catalogs that other DDL takes from there.
    pub fn only_looks(&self) -> bool {
        self.is_truncate || self.fills == Fills::View
    }
}

/// What PostgreSQL puts the rows of a statement's own query into. The query is evaluated on the origin only: its rows travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fills {
    #[default]
    Nothing,
    /// CREATE TABLE AS: the definition of the table travels in the statement's place.
    Table,
    /// CREATE MATERIALIZED VIEW: the statement travels, and makes the view without rows.
    NewView,
    /// REFRESH: the statement travels, and takes the rows out.
    View,
}

pub struct Refusal {
    pub what: String,
    pub hint: &'static str,
}

/// What LOCK TABLE keeps other transactions from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableLock {
    /// No more than what a transaction that reads or changes rows keeps them from: up to ROW EXCLUSIVE.
    AsARow,
    /// That, and taking the same lock: SHARE UPDATE EXCLUSIVE.
    AgainstItself,
    /// Changing rows: SHARE and above.
    AgainstWriters,
}

pub(super) const SHARED_OBJECT: &str = "It changes an object that all databases of the server share. Run it on every node, from a database \
                             that is not replicated.";
pub(super) const NOT_YET: &str = "docs/compatibility.md lists what is replicated.";

pub(super) fn refused(what: &str, hint: &'static str) -> Class {
    Class::Refused(Refusal { what: what.to_owned(), hint })
}
