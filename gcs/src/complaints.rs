//! What is said in the log about strangers: once a cause and a caller, not once an attempt. Whoever scans ports, or dials in a
//! loop with the wrong certificate, must not fill the disk.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Instant;

use crate::bounds::{COMPLAIN_AGAIN, COMPLAINTS_MAX};

#[derive(Debug, Default)]
pub struct Complaints {
    /// By cause and caller.
    said: RefCell<BTreeMap<(&'static str, String), Said>>,
}

#[derive(Debug)]
struct Said {
    at: Instant,
    /// Times that it was kept back since.
    kept_back: u64,
}

impl Complaints {
    /// `None` if the same was said a short while ago; otherwise how often it was kept back since it was last said.
    pub fn due(&self, cause: &'static str, caller: &str) -> Option<u64> {
        self.due_at(cause, caller, Instant::now())
    }

    fn due_at(&self, cause: &'static str, caller: &str, now: Instant) -> Option<u64> {
        let mut said = self.said.borrow_mut();
        let key = (cause, caller.to_owned());
        if let Some(known) = said.get_mut(&key) {
            if now.duration_since(known.at) < COMPLAIN_AGAIN {
                known.kept_back += 1;
                return None;
            }
            let kept_back = known.kept_back;
            *known = Said { at: now, kept_back: 0 };
            return Some(kept_back);
        }
        if said.len() >= COMPLAINTS_MAX {
            let oldest = said.iter().min_by_key(|(_, said)| said.at).map(|(key, _)| key.clone());
            said.remove(&oldest.unwrap_or_default());
        }
        said.insert(key, Said { at: now, kept_back: 0 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_complaint_is_made_once_and_later_with_the_number_of_those_kept_back() {
        let (complaints, start) = (Complaints::default(), Instant::now());
        assert_eq!(complaints.due_at("garbage", "10.0.0.9", start), Some(0));
        for _ in 0..3 {
            assert_eq!(complaints.due_at("garbage", "10.0.0.9", start), None);
        }
        assert_eq!(complaints.due_at("garbage", "10.0.0.8", start), Some(0));
        assert_eq!(complaints.due_at("no certificate", "10.0.0.9", start), Some(0));
        assert_eq!(complaints.due_at("garbage", "10.0.0.9", start + COMPLAIN_AGAIN), Some(3));
        assert_eq!(complaints.due_at("garbage", "10.0.0.9", start + COMPLAIN_AGAIN), None);
    }

    #[test]
    fn complaints_take_no_more_memory_than_their_bound() {
        let complaints = Complaints::default();
        for caller in 0..2 * COMPLAINTS_MAX {
            complaints.due("garbage", &caller.to_string());
        }
        assert_eq!(complaints.said.borrow().len(), COMPLAINTS_MAX);
    }
}
