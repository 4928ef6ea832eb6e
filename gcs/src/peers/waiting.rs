//! Connections whose caller has not yet said who it is, bounded in all and for each address.
//!
//! The ports of the peers and of HTTP (`crate::observe`) have one each.
//!
//! At a bound the *oldest* goes and not the newest: a daemon that wants to talk has shaken hands within a few round trips, while whoever
//! only holds connections open has the old ones. If the newest were turned away, 64 silent connections could keep all
//! members out.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;

use tokio::task::AbortHandle;

#[derive(Debug)]
pub struct Waiting {
    /// How many may wait, in all and of one address.
    most: usize,
    most_of_address: usize,
    last: Cell<u64>,
    /// In the order in which they came.
    callers: RefCell<BTreeMap<u64, Caller>>,
}

#[derive(Debug)]
struct Caller {
    address: IpAddr,
    task: AbortHandle,
}

/// A caller's place among those that wait, until it is dropped.
#[derive(Debug)]
pub struct Place {
    waiting: Rc<Waiting>,
    number: u64,
}

impl Waiting {
    pub fn new(most: usize, most_of_address: usize) -> Waiting {
        Waiting { most, most_of_address, last: Cell::new(0), callers: RefCell::default() }
    }

    pub fn count(&self) -> usize {
        self.callers.borrow().len()
    }

    /// Starts the handshake of a caller; the address of another that had to go for it, if one had.
    pub fn admit(self: &Rc<Waiting>, address: IpAddr, start: impl FnOnce(Place) -> AbortHandle) -> Option<IpAddr> {
        let number = self.last.get() + 1;
        self.last.set(number);
        let turned_away = self.make_room(address);
        let task = start(Place { waiting: self.clone(), number });
        self.callers.borrow_mut().insert(number, Caller { address, task });
        turned_away
    }

    fn make_room(&self, address: IpAddr) -> Option<IpAddr> {
        let mut callers = self.callers.borrow_mut();
        let mut of_address = callers.iter().filter(|(_, caller)| caller.address == address).map(|(number, _)| *number);
        let oldest_of_address = of_address.next();
        let oldest = if of_address.count() + 1 >= self.most_of_address {
            oldest_of_address
        } else if callers.len() >= self.most {
            callers.keys().next().copied()
        } else {
            None
        };
        let caller = callers.remove(&oldest?)?;
        caller.task.abort();
        Some(caller.address)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.waiting.callers.borrow_mut().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bounds::{HANDSHAKES_MAX, HANDSHAKES_OF_ADDRESS_MAX};
    use tokio::task::LocalSet;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    /// Admits a caller that never says anything.
    fn silent(waiting: &Rc<Waiting>, address: IpAddr) -> Option<IpAddr> {
        waiting.admit(address, |place| {
            let task = tokio::task::spawn_local(async move {
                let _place = place;
                std::future::pending::<()>().await;
            });
            task.abort_handle()
        })
    }

    fn in_tasks(test: impl FnOnce(Rc<Waiting>)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        LocalSet::new().block_on(&runtime, async { test(Rc::new(Waiting::new(HANDSHAKES_MAX, HANDSHAKES_OF_ADDRESS_MAX))) });
    }

    #[test]
    fn at_the_bound_of_an_address_its_own_oldest_goes() {
        in_tasks(|waiting| {
            assert_eq!(silent(&waiting, address(1)), None);
            for _ in 0..HANDSHAKES_OF_ADDRESS_MAX {
                assert_eq!(silent(&waiting, address(2)), None);
            }
            assert_eq!(silent(&waiting, address(2)), Some(address(2)));
            assert_eq!(waiting.callers.borrow().len(), HANDSHAKES_OF_ADDRESS_MAX + 1);
            assert!(waiting.callers.borrow().contains_key(&1), "the caller of another address stays");
        });
    }

    #[test]
    fn at_the_bound_of_all_the_oldest_goes() {
        in_tasks(|waiting| {
            for caller in 0..HANDSHAKES_MAX {
                assert_eq!(silent(&waiting, address((caller / 32) as u8)), None);
            }
            assert_eq!(silent(&waiting, address(200)), Some(address(0)));
            assert_eq!(waiting.callers.borrow().len(), HANDSHAKES_MAX);
        });
    }

    #[test]
    fn a_caller_that_is_through_leaves_its_place() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let waiting = Rc::new(Waiting::new(HANDSHAKES_MAX, HANDSHAKES_OF_ADDRESS_MAX));
            let mut through = None;
            waiting.admit(address(1), |place| {
                let task = tokio::task::spawn_local(async move { drop(place) });
                let handle = task.abort_handle();
                through = Some(task);
                handle
            });
            through.unwrap().await.unwrap();
            assert!(waiting.callers.borrow().is_empty());
        });
    }
}
