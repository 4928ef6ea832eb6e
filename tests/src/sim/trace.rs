//! What a run did, line by line, where somebody wants to read it. The lines outlive the run, so that one that panics can be read as well.

use std::cell::RefCell;
use std::fmt::Arguments;
use std::rc::Rc;

use super::time::Time;

#[derive(Clone, Debug, Default)]
pub struct Trace {
    lines: Option<Rc<RefCell<Vec<String>>>>,
}

impl Trace {
    pub fn kept() -> Trace {
        Trace { lines: Some(Rc::default()) }
    }

    pub fn line(&self, now: Time, what: Arguments<'_>) {
        if let Some(lines) = &self.lines {
            lines.borrow_mut().push(format!("{now} {what}"));
        }
    }

    pub fn into_lines(self) -> Vec<String> {
        self.lines.map(|lines| lines.take()).unwrap_or_default()
    }
}
