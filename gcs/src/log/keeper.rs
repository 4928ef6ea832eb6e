//! The keeper: a thread that does what the commit path must not wait for. It fills the next segment with zeros, makes
//! checkpoints durable, and deletes or recycles segments.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, unbounded};
use gcs_core::Checkpoint;
use parking_lot::Mutex;

use super::reader::Shared;
use super::record::Base;
use super::segment::Segment;
use super::{LogError, checkpoint};

enum Task {
    PrepareSpare,
    /// The outcomes that lead up to the checkpoint are in `segment` or before: they are flushed first, since nothing
    /// makes them again afterwards.
    Save {
        checkpoint: Checkpoint,
        segment: Arc<Segment>,
    },
    Delete(Arc<Segment>),
}

#[derive(Debug, Default)]
struct Board {
    spare_ready: AtomicBool,
    failure: Mutex<Option<LogError>>,
}

/// The store's end. Dropping it lets the thread finish what was asked for and waits for it.
#[derive(Debug)]
pub struct Keeper {
    // Unbounded, but asked at most once a segment or checkpoint.
    tasks: Option<Sender<Task>>,
    board: Arc<Board>,
    thread: Option<JoinHandle<()>>,
    spare: PathBuf,
}

impl Keeper {
    pub fn start(log_directory: &Path, shared: Arc<Shared>) -> Result<Keeper, LogError> {
        let spare = log_directory.join("spare");
        let board = Arc::new(Board::default());
        let (tasks, inbox) = unbounded();
        let work = Work { spare: spare.clone(), board: board.clone(), shared };
        let thread = std::thread::Builder::new()
            .name("keeper".to_owned())
            .spawn(move || work.run(&inbox))
            .map_err(LogError::io("start the keeper thread for", log_directory))?;
        let keeper = Keeper { tasks: Some(tasks), board, thread: Some(thread), spare };
        keeper.ask(Task::PrepareSpare);
        Ok(keeper)
    }

    fn ask(&self, task: Task) {
        if let Some(tasks) = &self.tasks {
            // The thread only goes away when this end does.
            let _ = tasks.send(task);
        }
    }

    /// The path of a file filled with zeros, if one is ready, and asks for the next.
    pub fn take_spare(&self) -> Option<&Path> {
        self.board.spare_ready.swap(false, Ordering::Acquire).then_some(&*self.spare)
    }

    pub fn prepare_spare(&self) {
        self.ask(Task::PrepareSpare);
    }

    pub fn save(&self, checkpoint: Checkpoint, segment: Arc<Segment>) {
        self.ask(Task::Save { checkpoint, segment });
    }

    pub fn delete(&self, segment: Arc<Segment>) {
        self.ask(Task::Delete(segment));
    }

    /// What went wrong in the background; a storage error ends the process.
    pub fn check(&self) -> Result<(), LogError> {
        match self.board.failure.lock().take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.tasks = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Work {
    spare: PathBuf,
    board: Arc<Board>,
    shared: Arc<Shared>,
}

impl Work {
    fn run(&self, inbox: &Receiver<Task>) {
        for task in inbox {
            if let Err(error) = self.carry_out(task) {
                *self.board.failure.lock() = Some(error);
                return;
            }
        }
    }

    fn carry_out(&self, task: Task) -> Result<(), LogError> {
        match task {
            Task::PrepareSpare if self.board.spare_ready.load(Ordering::Acquire) => Ok(()),
            Task::PrepareSpare => self.prepare_spare(),
            Task::Save { checkpoint, segment } => {
                segment.flush()?;
                checkpoint::save(&self.shared.checkpoints, &checkpoint)?;
                let base = Base { index: checkpoint.index.0, term: checkpoint.term };
                if self.shared.publish_checkpoint(base) {
                    checkpoint::delete_others(&self.shared.checkpoints, Some(base))?;
                }
                Ok(())
            }
            Task::Delete(segment) => std::fs::remove_file(&segment.path).map_err(LogError::io("delete", &segment.path)),
        }
    }

    fn prepare_spare(&self) -> Result<(), LogError> {
        Segment::spare(&self.spare)?.fill()?;
        self.board.spare_ready.store(true, Ordering::Release);
        Ok(())
    }
}
