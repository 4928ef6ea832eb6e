//! The body of a writeset, read once from front to end: definitions of relations, then the items in the order of execution.
//!
//! The items stay where capture left them, in memory or on disk. Those in memory are copied as they stand. On disk they are read in one go in
//! the ordinary case; in disorder piece by piece, through a window, since pieces that follow one another lie near each other.

use super::order::{Piece, Pieces, Runs};
use super::spill::{Disk, Spill};

/// How far a body in disorder is read ahead.
const WINDOW_BYTES: usize = 256 << 10;

pub struct Body<D> {
    definitions: Vec<u8>,
    items: Spill<D>,
    pieces: Pieces<D>,
    /// What is left of the piece being read.
    piece: Piece,
    /// Bytes that have been read.
    read: u64,
    /// What was read ahead, and how much of it has been given out since.
    front: Vec<u8>,
    given: usize,
    window: Vec<u8>,
    /// Where the window's bytes stand among the items.
    window_from: u64,
}

impl<D: Disk> Body<D> {
    pub fn new(definitions: Vec<u8>, items: Spill<D>, runs: &Runs<D>) -> Body<D> {
        let pieces = runs.pieces(items.len());
        let piece = Piece { from: 0, length: 0 };
        Body { definitions, items, pieces, piece, read: 0, front: Vec::new(), given: 0, window: Vec::new(), window_from: 0 }
    }

    pub fn length(&self) -> u64 {
        self.definitions.len() as u64 + self.items.len()
    }

    /// Bytes that have not been read.
    pub fn left(&self) -> u64 {
        self.length() - self.read + (self.front.len() - self.given) as u64
    }

    pub fn definitions(&self) -> &[u8] {
        &self.definitions
    }

    /// The front of a body of which nothing has been read, at most so many bytes. It is read again afterwards.
    pub fn peek(&mut self, bytes_max: usize) -> &[u8] {
        if self.read == 0 {
            let mut front = Vec::new();
            self.read_on(&mut front, bytes_max);
            self.front = front;
        }
        &self.front[..self.front.len().min(bytes_max)]
    }

    /// Appends the next `bytes`, or what is left.
    pub fn read(&mut self, out: &mut Vec<u8>, bytes: usize) {
        let ahead = &self.front[self.given..];
        let ahead = &ahead[..ahead.len().min(bytes)];
        out.extend_from_slice(ahead);
        self.given += ahead.len();
        let left = bytes - ahead.len();
        if self.given == self.front.len() {
            (self.front, self.given) = (Vec::new(), 0);
        }
        self.read_on(out, left);
    }

    fn read_on(&mut self, out: &mut Vec<u8>, bytes: usize) {
        let bytes = (self.length() - self.read).min(bytes as u64) as usize;
        let goal = out.len() + bytes;
        out.reserve_exact(bytes);
        let unread = self.definitions.len().saturating_sub(usize::try_from(self.read).unwrap_or(usize::MAX));
        if unread > 0 {
            let from = self.definitions.len() - unread;
            out.extend_from_slice(&self.definitions[from..from + unread.min(bytes)]);
        }
        while out.len() < goal {
            if self.piece.length == 0 {
                let Some(piece) = self.pieces.next() else { break };
                self.piece = piece;
            }
            let part = self.piece.length.min((goal - out.len()) as u64) as usize;
            self.copy(part, out);
            self.piece.from += part as u64;
            self.piece.length -= part as u64;
        }
        self.read += bytes as u64;
        debug_assert_eq!(out.len(), goal, "pieces make up all items");
    }

    /// Copies the front of the current piece.
    fn copy(&mut self, part: usize, out: &mut Vec<u8>) {
        if let Some(bytes) = self.items.in_memory(self.piece.from, part) {
            return out.extend_from_slice(bytes);
        }
        if part >= WINDOW_BYTES {
            let start = out.len();
            out.resize(start + part, 0);
            return self.items.read(self.piece.from, &mut out[start..]);
        }
        let window_end = self.window_from + self.window.len() as u64;
        if self.piece.from < self.window_from || self.piece.from + part as u64 > window_end {
            let length = (self.items.len() - self.piece.from).min(WINDOW_BYTES as u64) as usize;
            self.window.resize(length, 0);
            self.items.read(self.piece.from, &mut self.window);
            self.window_from = self.piece.from;
        }
        let at = (self.piece.from - self.window_from) as usize;
        out.extend_from_slice(&self.window[at..at + part]);
    }

    /// The bytes from where an item starts, at most so many.
    pub fn item(&self, start: u64, bytes_max: usize) -> Vec<u8> {
        let length = self.items.len().saturating_sub(start).min(bytes_max as u64) as usize;
        let mut bytes = vec![0; length];
        if length > 0 {
            self.items.read(start, &mut bytes);
        }
        bytes
    }
}
