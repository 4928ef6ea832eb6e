//! Files for writesets that don't fit the apply queue: in memory, and lost with the server.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use gcs_writeset::Position;
use postgres_r_protocol::assembly::{Spool, SpoolFile};

#[derive(Clone, Debug, Default)]
pub struct SimSpool(Rc<RefCell<BTreeMap<Position, Vec<u8>>>>);

pub struct SimFile {
    spool: SimSpool,
    position: Position,
}

impl SimSpool {
    pub fn read(&self, position: Position) -> Option<Vec<u8>> {
        self.0.borrow().get(&position).cloned()
    }

    pub fn remove(&self, position: Position) {
        self.0.borrow_mut().remove(&position);
    }
}

impl Spool for SimSpool {
    type File = SimFile;

    fn create(&self, position: Position) -> io::Result<SimFile> {
        self.0.borrow_mut().insert(position, Vec::new());
        Ok(SimFile { spool: self.clone(), position })
    }
}

impl SpoolFile for SimFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.spool.0.borrow_mut().entry(self.position).or_default().extend_from_slice(bytes);
        Ok(())
    }

    fn length(&self) -> u64 {
        self.spool.0.borrow().get(&self.position).map_or(0, |file| file.len() as u64)
    }

    fn discard(self) {
        self.spool.remove(self.position);
    }
}
