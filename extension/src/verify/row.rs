//! The fingerprint of one row: of its values in the form in which they travel, which means the same on every node (docs/adr/0003, 0027).
//!
//! That form keeps apart what PostgreSQL calls equal but shows differently: 1.0 and 1.00, 0 and -0. Dropped columns are not in it, nor where
//! and how a value is stored. Memory is that of the largest value.

use std::rc::Rc;

use gcs_writeset::wire::Put;
use postgres_r_protocol::verification::sums::Hasher;

use crate::pg::row::Row;
use crate::relations::{Identity, Known};

/// Memory kept from one value to the next.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// Of an identity, for a person.
const TEXT_BYTES_MAX: usize = 200;

/// Hashes rows of one table.
pub struct Fingerprint {
    known: Rc<Known>,
    value: Vec<u8>,
}

impl Fingerprint {
    /// [`crate::pg::datum::TransmissionModes`] must be in force if the table depends on settings.
    pub fn new(known: Rc<Known>) -> Fingerprint {
        Fingerprint { known, value: Vec::new() }
    }

    /// Of all values.
    pub fn row(&mut self, row: Row<'_>) -> u128 {
        self.hash(row, |_| true)
    }

    /// Of the values by which the row is told from others.
    pub fn identity(&mut self, row: Row<'_>) -> u128 {
        let known = Rc::clone(&self.known);
        self.hash(row, |column| known.identity.has_column(column))
    }

    fn hash(&mut self, row: Row<'_>, is_wanted: impl Fn(usize) -> bool) -> u128 {
        let table = &self.known.table;
        let mut hasher = Hasher::default();
        for column in (0..table.columns.len()).filter(|&column| is_wanted(column)) {
            self.value.clear();
            // So that a column more or less, or another one, is a difference even where all values are null.
            self.value.put_str(&table.columns[column].name);
            table.put_value(row, column, &mut self.value);
            hasher.write(&self.value);
            self.value.shrink_to(KEPT_BYTES_MAX);
        }
        hasher.finish()
    }
}

/// The identity for a person: `(id)=(7)`. Long ones are cut.
pub fn text(known: &Known, row: Row<'_>) -> String {
    let columns = known.table.columns.iter().enumerate().filter(|(nth, _)| known.identity.has_column(*nth));
    let (mut names, mut values) = (Vec::new(), Vec::new());
    for (nth, column) in columns {
        let mut text = known.table.text(row, nth).unwrap_or_else(|| "null".to_owned());
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        names.push(column.name.as_str());
        values.push(text);
    }
    let mut text = match known.identity {
        Identity::Index { .. } => format!("({})=({})", names.join(", "), values.join(", ")),
        Identity::WholeRow => format!("row ({})", values.join(", ")),
    };
    text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    text
}
