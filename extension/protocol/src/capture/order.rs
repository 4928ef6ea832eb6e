//! In which order items were made, when they reached us in another one.
//!
//! A *run* is items of one command that arrived one after another. Runs are noted as they begin; only if a command id ever went
//! down is anything sorted: by command id, and within it as they came (docs/adr/0005). A trigger that writes for each row makes
//! as many runs as there are rows, so they spill like the items do, and are sorted as such things are: in pieces that fit
//! memory, then merged.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::spill::{Disk, Spill};

/// A command id: statements of one transaction count up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Command(pub u32);

/// Runs sorted at a time.
const SORTED_RUNS_MAX: usize = 1 << 16;

/// Runs of each sorted piece that are in memory while pieces are merged.
const MERGED_RUNS_AT_HAND: usize = 1 << 8;

/// Runs as they were noted: where one starts (it ends where the next starts) and its command.
const NOTE_BYTES: usize = 12;

/// Runs as they are sorted: command, start, length.
const SORTED_BYTES: usize = 20;

/// A stretch of what was captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Piece {
    pub from: u64,
    pub length: u64,
}

pub struct Runs<D> {
    notes: Spill<D>,
    last: Option<Command>,
    disorder: bool,
}

impl<D: Disk> Runs<D> {
    pub fn new(memory_max: usize) -> Runs<D> {
        Runs { notes: Spill::new(memory_max), last: None, disorder: false }
    }

    /// How many there are, to come back to with [`Runs::truncate`].
    pub fn count(&self) -> u64 {
        self.notes.len() / NOTE_BYTES as u64
    }

    /// An item of `command` is about to be appended at `start`.
    pub fn note(&mut self, command: Command, start: u64) {
        if self.last == Some(command) {
            return;
        }
        let mut note = [0; NOTE_BYTES];
        note[..8].copy_from_slice(&start.to_le_bytes());
        note[8..].copy_from_slice(&command.0.to_le_bytes());
        self.notes.append(&note);
        self.disorder |= self.last.is_some_and(|last| command < last);
        self.last = Some(command);
    }

    pub fn truncate(&mut self, count: u64) {
        if count < self.count() {
            self.notes.truncate(count * NOTE_BYTES as u64);
            self.last = count.checked_sub(1).map(|last| self.read(last).1);
        }
    }

    pub fn clear(&mut self, kept: usize) {
        self.notes.clear(kept);
        self.last = None;
        self.disorder = false;
    }

    /// What was captured, `length` bytes, in the order in which it was made.
    pub fn pieces(&self, length: u64) -> Pieces<D> {
        if !self.disorder {
            return Pieces::Whole(Some(Piece { from: 0, length }).filter(|_| length > 0));
        }
        let mut merge =
            Merge { sorted: Spill::new(SORTED_RUNS_MAX * SORTED_BYTES), sources: Vec::new(), heads: BinaryHeap::new() };
        let count = self.count();
        let mut next = 0;
        while next < count {
            let mut runs = Vec::with_capacity(SORTED_RUNS_MAX.min((count - next) as usize));
            while next < count && runs.len() < SORTED_RUNS_MAX {
                let (from, command) = self.read(next);
                next += 1;
                let end = if next < count { self.read(next).0 } else { length };
                runs.push((command, Piece { from, length: end - from }));
            }
            runs.sort_unstable();
            merge.add(&runs);
        }
        merge.begin();
        Pieces::Merged(merge)
    }

    fn read(&self, index: u64) -> (u64, Command) {
        let mut note = [0; NOTE_BYTES];
        self.notes.read(index * NOTE_BYTES as u64, &mut note);
        let (start, command) = note.split_at(8);
        (u64::from_le_bytes(array(start)), Command(u32::from_le_bytes(array(command))))
    }
}

pub enum Pieces<D> {
    Whole(Option<Piece>),
    Merged(Merge<D>),
}

impl<D: Disk> Iterator for Pieces<D> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        match self {
            Pieces::Whole(piece) => piece.take(),
            Pieces::Merged(merge) => merge.next(),
        }
    }
}

pub struct Merge<D> {
    sorted: Spill<D>,
    sources: Vec<Sorted>,
    heads: BinaryHeap<Reverse<(Command, Piece, usize)>>,
}

/// A sorted part of `Merge::sorted`.
struct Sorted {
    next: u64,
    end: u64,
    /// The next ones, last first.
    at_hand: Vec<(Command, Piece)>,
}

impl<D: Disk> Merge<D> {
    fn add(&mut self, runs: &[(Command, Piece)]) {
        let next = self.sorted.len();
        for (command, piece) in runs {
            let mut record = [0; SORTED_BYTES];
            record[..4].copy_from_slice(&command.0.to_le_bytes());
            record[4..12].copy_from_slice(&piece.from.to_le_bytes());
            record[12..].copy_from_slice(&piece.length.to_le_bytes());
            self.sorted.append(&record);
        }
        self.sources.push(Sorted { next, end: self.sorted.len(), at_hand: Vec::new() });
    }

    fn begin(&mut self) {
        for source in 0..self.sources.len() {
            self.pull(source);
        }
    }

    /// The next run of this source joins those that are compared.
    fn pull(&mut self, index: usize) {
        let source = &mut self.sources[index];
        if source.at_hand.is_empty() && source.next < source.end {
            let bytes = (source.end - source.next).min((MERGED_RUNS_AT_HAND * SORTED_BYTES) as u64) as usize;
            let mut records = vec![0; bytes];
            self.sorted.read(source.next, &mut records);
            source.next += bytes as u64;
            source.at_hand.extend(records.chunks_exact(SORTED_BYTES).rev().map(|record| {
                let piece = Piece {
                    from: u64::from_le_bytes(array(&record[4..12])),
                    length: u64::from_le_bytes(array(&record[12..])),
                };
                (Command(u32::from_le_bytes(array(&record[..4]))), piece)
            }));
        }
        if let Some((command, piece)) = source.at_hand.pop() {
            self.heads.push(Reverse((command, piece, index)));
        }
    }

    fn next(&mut self) -> Option<Piece> {
        let Reverse((_, mut piece, source)) = self.heads.pop()?;
        self.pull(source);
        // What also arrived together is read together.
        while let Some(Reverse((_, next, source))) = self.heads.peek().copied()
            && next.from == piece.from + piece.length
        {
            self.heads.pop();
            self.pull(source);
            piece.length += next.length;
        }
        Some(piece)
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(bytes);
    array
}

#[cfg(test)]
mod tests {
    use super::super::spill::tests::Memory;
    use super::*;

    fn runs(commands: &[u32]) -> Runs<Memory> {
        let mut runs = Runs::new(100);
        for (start, command) in commands.iter().enumerate() {
            runs.note(Command(*command), start as u64);
        }
        runs
    }

    fn sorted(commands: &[u32]) -> Vec<u64> {
        let pieces = runs(commands).pieces(commands.len() as u64);
        pieces.flat_map(|piece| piece.from..piece.from + piece.length).collect()
    }

    #[test]
    fn runs_are_sorted_by_command_and_within_it_as_they_came() {
        assert!(sorted(&[]).is_empty());
        assert_eq!(sorted(&[1, 1, 2, 7]), [0, 1, 2, 3]);
        assert_eq!(sorted(&[1, 2, 1, 3, 1, 4]), [0, 2, 4, 1, 3, 5]);
    }

    #[test]
    fn more_runs_than_fit_are_merged() {
        let count = 2 * SORTED_RUNS_MAX as u32 + 1000;
        // As a trigger makes them that writes for each row of one statement.
        let commands: Vec<u32> = (0..count).map(|n| if n % 2 == 0 { 0 } else { n }).collect();
        let mut expected: Vec<u64> = (0..u64::from(count)).collect();
        expected.sort_by_key(|&at| commands[at as usize]);
        assert_eq!(sorted(&commands), expected);
    }

    #[test]
    fn a_truncation_goes_on_with_the_run_before() {
        let mut runs = runs(&[1, 2, 3]);
        runs.truncate(2);
        runs.note(Command(2), 2);
        assert_eq!(runs.count(), 2);
        runs.truncate(0);
        runs.note(Command(2), 0);
        assert_eq!(runs.count(), 1);
        assert_eq!(runs.pieces(5).collect::<Vec<_>>(), [Piece { from: 0, length: 5 }]);
    }
}
