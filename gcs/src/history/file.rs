//! The files of the history, in the data directory: `events.jsonl`, and `events.old.jsonl`, which it becomes when it is as long as it may be.
//!
//! Lines are appended and not flushed: it is the system that has them once they are written, so that they outlive the daemon, and not a crash of the machine.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::event::{Event, parse_lines};
use crate::bounds::EVENTS_FILE_BYTES_MAX;

const CURRENT: &str = "events.jsonl";
const OLD: &str = "events.old.jsonl";

pub struct Writer {
    path: PathBuf,
    old: PathBuf,
    file: File,
    length: u64,
}

impl Writer {
    /// # Errors
    /// Where the file cannot be made or read.
    pub fn open(data_directory: &Path) -> io::Result<Writer> {
        let (path, old) = (data_directory.join(CURRENT), data_directory.join(OLD));
        let mut file = File::options().read(true).append(true).create(true).open(&path)?;
        let mut length = file.metadata()?.len();
        if length > 0 {
            // A crash may have cut the last line off.
            let mut last = [0];
            file.seek(SeekFrom::Start(length - 1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
                length += 1;
            }
        }
        Ok(Writer { path, old, file, length })
    }

    /// # Errors
    /// Where it cannot be written.
    pub fn write(&mut self, event: &Event) -> io::Result<()> {
        let line = event.to_json() + "\n";
        if self.length + line.len() as u64 > EVENTS_FILE_BYTES_MAX && self.length > 0 {
            std::fs::rename(&self.path, &self.old)?;
            self.file = File::options().append(true).create(true).open(&self.path)?;
            self.length = 0;
        }
        self.file.write_all(line.as_bytes())?;
        self.length += line.len() as u64;
        Ok(())
    }
}

/// Both files, the older one first, as they are. What is not there is empty.
pub fn text(data_directory: &Path) -> Vec<u8> {
    let mut text = std::fs::read(data_directory.join(OLD)).unwrap_or_default();
    text.extend(std::fs::read(data_directory.join(CURRENT)).unwrap_or_default());
    text
}

/// The oldest first.
pub fn read(data_directory: &Path) -> Vec<Event> {
    parse_lines(&text(data_directory)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::event::Happening;

    fn event(number: u64) -> Event {
        Event::new(number, "g", "n1", Happening::new("test", "x".repeat(900)))
    }

    #[test]
    fn two_files_take_turns_and_nothing_between_their_ends_is_missing() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(directory.path()).unwrap();
        for number in 1..=3_000 {
            writer.write(&event(number)).unwrap();
        }
        let numbers: Vec<u64> = read(directory.path()).iter().map(|event| event.number).collect();
        assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "a gap");
        assert!(numbers[0] > 1 && numbers.last() == Some(&3_000));
        assert!(text(directory.path()).len() as u64 <= 2 * EVENTS_FILE_BYTES_MAX);
    }

    #[test]
    fn a_line_that_a_crash_cut_off_is_lost_and_the_next_is_not() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(CURRENT), event(1).to_json() + "\n{\"number\":2,\"te").unwrap();
        Writer::open(directory.path()).unwrap().write(&event(2)).unwrap();
        let texts: Vec<u64> = read(directory.path()).iter().map(|event| event.number).collect();
        assert_eq!(texts, [1, 2]);
    }
}
