//! Bytes appended one after another: the end in memory, the front on disk once there is too much of it.
//!
//! Offsets count from the first byte ever appended, wherever it is now. Memory is bounded by `memory_max`: what does not fit goes to
//! disk as one long write, and a piece longer than that goes there directly. A truncation (a rolled-back savepoint) may reach
//! back into what is on disk.
//!
//! The disk is somebody else's (`pg::tempfile` in a server, a vector in tests). It may raise; then nothing has changed.

/// A temporary file, gone with its value. An ERROR may come out of each of these.
pub trait Disk {
    fn create() -> Self;
    fn write(&mut self, offset: u64, bytes: &[u8]);
    /// Fills all of `bytes`.
    fn read(&self, offset: u64, bytes: &mut [u8]);
    fn truncate(&mut self, length: u64);
}

pub struct Spill<D> {
    disk: Option<D>,
    on_disk: u64,
    memory: Vec<u8>,
    memory_max: usize,
}

impl<D: Disk> Spill<D> {
    pub fn new(memory_max: usize) -> Spill<D> {
        Spill { disk: None, on_disk: 0, memory: Vec::new(), memory_max }
    }

    pub fn len(&self) -> u64 {
        self.on_disk + self.memory.len() as u64
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn on_disk(&self) -> u64 {
        self.on_disk
    }

    pub fn append(&mut self, bytes: &[u8]) {
        if self.memory.len() + bytes.len() > self.memory_max {
            self.flush();
            if bytes.len() > self.memory_max {
                self.disk.get_or_insert_with(D::create).write(self.on_disk, bytes);
                self.on_disk += bytes.len() as u64;
                return;
            }
        }
        self.memory.extend_from_slice(bytes);
    }

    fn flush(&mut self) {
        if !self.memory.is_empty() {
            self.disk.get_or_insert_with(D::create).write(self.on_disk, &self.memory);
            self.on_disk += self.memory.len() as u64;
            self.memory.clear();
        }
    }

    /// Forgets everything behind `length`.
    pub fn truncate(&mut self, length: u64) {
        match length.checked_sub(self.on_disk) {
            Some(kept) => self.memory.truncate(usize::try_from(kept).unwrap_or(usize::MAX)),
            None => {
                self.memory.clear();
                self.on_disk = length;
                if let Some(disk) = &mut self.disk {
                    disk.truncate(length);
                }
            }
        }
    }

    /// Fills `bytes` with what stands from `offset` on; all of it must be there.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) {
        assert!(offset + bytes.len() as u64 <= self.len(), "read behind the end of what was appended");
        let from_disk = self.on_disk.saturating_sub(offset).min(bytes.len() as u64) as usize;
        let (front, back) = bytes.split_at_mut(from_disk);
        if let Some(disk) = self.disk.as_ref().filter(|_| !front.is_empty()) {
            disk.read(offset, front);
        }
        if !back.is_empty() {
            let start = (offset + from_disk as u64 - self.on_disk) as usize;
            back.copy_from_slice(&self.memory[start..start + back.len()]);
        }
    }

    /// What stands from `offset` on, if all of it is in memory.
    pub fn in_memory(&self, offset: u64, length: usize) -> Option<&[u8]> {
        let start = usize::try_from(offset.checked_sub(self.on_disk)?).ok()?;
        self.memory.get(start..start.checked_add(length)?)
    }

    /// Empty again; up to `kept` bytes of memory stay for next time.
    pub fn clear(&mut self, kept: usize) {
        self.disk = None;
        self.on_disk = 0;
        if self.memory.capacity() <= kept {
            self.memory.clear();
        } else {
            self.memory = Vec::new();
        }
    }

    /// All of it, leaving this empty.
    pub fn take(&mut self) -> Spill<D> {
        std::mem::replace(self, Spill::new(self.memory_max))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Knows how long it is, and that nothing is read that was not written.
    #[derive(Default)]
    pub struct Memory(Vec<u8>);

    impl Disk for Memory {
        fn create() -> Memory {
            Memory::default()
        }
        fn write(&mut self, offset: u64, bytes: &[u8]) {
            assert!(offset as usize <= self.0.len(), "a hole");
            self.0.truncate(offset as usize);
            self.0.extend_from_slice(bytes);
        }
        fn read(&self, offset: u64, bytes: &mut [u8]) {
            bytes.copy_from_slice(&self.0[offset as usize..offset as usize + bytes.len()]);
        }
        fn truncate(&mut self, length: u64) {
            self.0.truncate(length as usize);
        }
    }

    fn all(spill: &Spill<Memory>) -> Vec<u8> {
        let mut bytes = vec![0; spill.len() as usize];
        spill.read(0, &mut bytes);
        bytes
    }

    #[test]
    fn what_is_appended_is_read_back_from_wherever_it_is() {
        for memory_max in [0, 1, 3, 7, 100] {
            let mut spill = Spill::<Memory>::new(memory_max);
            let mut model = Vec::new();
            for n in 0..40u8 {
                let piece = vec![n; n as usize % 11];
                spill.append(&piece);
                model.extend_from_slice(&piece);
                assert!(spill.memory.len() <= memory_max);
            }
            for offset in 0..model.len() {
                let mut bytes = vec![0; 5.min(model.len() - offset)];
                spill.read(offset as u64, &mut bytes);
                assert_eq!(bytes, &model[offset..offset + bytes.len()]);
            }
        }
    }

    #[test]
    fn a_truncation_reaches_back_into_what_is_on_disk() {
        let mut spill = Spill::<Memory>::new(4);
        spill.append(b"abcdef");
        spill.append(b"gh");
        spill.truncate(7);
        assert_eq!(all(&spill), b"abcdefg");
        spill.truncate(2);
        spill.append(b"xyz");
        spill.append(b"123");
        assert_eq!(all(&spill), b"abxyz123");
    }
}
