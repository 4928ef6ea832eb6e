//! The atomics that shared memory is made of: the standard library's, or those of [`tried`] when tests/loom tries all interleavings.

#[cfg(not(feature = "loom"))]
pub use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

#[cfg(feature = "loom")]
pub use tried::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Atomics of loom, with two additions.
///
/// *`SeqCst` is meant as it is said.* Loom lets a `SeqCst` load see an old value where the newer one was not written by a `SeqCst` store too, or
/// where two such stores have no order, and so finds a lost wake-up in every protocol of the form "I say what I did, then look at what you
/// did". Here the first value counts as stored, and a store is a swap, which has a place in the order; so a `SeqCst` load sees the
/// latest value, whoever wrote it. `Relaxed` stays relaxed: who reads such a field without the lock that it was written under may get an
/// old value.
///
/// *A process can end anywhere.* [`before_each`] sets what is called before every `SeqCst` operation, that is between any two steps that another
/// process could see; a test ends a process there.
#[cfg(feature = "loom")]
pub mod tried {
    use std::cell::Cell;

    use loom::sync::atomic;
    pub use loom::sync::atomic::Ordering;

    thread_local! {
        static BEFORE_EACH: Cell<fn()> = const { Cell::new(nothing) };
    }

    fn nothing() {}

    /// Of the present test: loom runs all of its threads on one thread of the system.
    pub fn before_each(step: fn()) {
        BEFORE_EACH.set(step);
    }

    /// A step of a process that others can see.
    pub fn step() {
        BEFORE_EACH.get()();
    }

    macro_rules! atomic {
        ($name:ident, $value:ty) => {
            pub struct $name(atomic::$name);

            impl Default for $name {
                fn default() -> Self {
                    $name::new(<$value>::default())
                }
            }

            impl $name {
                pub fn new(value: $value) -> Self {
                    let new = atomic::$name::new(value);
                    new.swap(value, Ordering::SeqCst);
                    $name(new)
                }

                pub fn load(&self, ordering: Ordering) -> $value {
                    if ordering == Ordering::SeqCst {
                        step();
                    }
                    self.0.load(ordering)
                }

                pub fn store(&self, value: $value, ordering: Ordering) {
                    if ordering != Ordering::SeqCst {
                        return self.0.store(value, ordering);
                    }
                    self.swap(value, ordering);
                }

                pub fn swap(&self, value: $value, ordering: Ordering) -> $value {
                    if ordering == Ordering::SeqCst {
                        step();
                    }
                    self.0.swap(value, ordering)
                }

                pub fn compare_exchange(
                    &self,
                    from: $value,
                    to: $value,
                    _: Ordering,
                    _: Ordering,
                ) -> Result<$value, $value> {
                    step();
                    self.0.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst)
                }
            }
        };
    }

    macro_rules! counts {
        ($name:ident, $value:ty) => {
            atomic!($name, $value);

            impl $name {
                pub fn fetch_add(&self, value: $value, _: Ordering) -> $value {
                    step();
                    self.0.fetch_add(value, Ordering::SeqCst)
                }

                pub fn fetch_sub(&self, value: $value, _: Ordering) -> $value {
                    step();
                    self.0.fetch_sub(value, Ordering::SeqCst)
                }

                pub fn fetch_max(&self, value: $value, _: Ordering) -> $value {
                    step();
                    self.0.fetch_max(value, Ordering::SeqCst)
                }

                pub fn fetch_min(&self, value: $value, _: Ordering) -> $value {
                    step();
                    self.0.fetch_min(value, Ordering::SeqCst)
                }

                pub fn fetch_update(
                    &self,
                    _: Ordering,
                    _: Ordering,
                    mut to: impl FnMut($value) -> Option<$value>,
                ) -> Result<$value, $value> {
                    let mut from = self.load(Ordering::SeqCst);
                    while let Some(next) = to(from) {
                        match self.compare_exchange(from, next, Ordering::SeqCst, Ordering::SeqCst) {
                            Ok(before) => return Ok(before),
                            Err(now) => from = now,
                        }
                    }
                    Err(from)
                }
            }
        };
    }

    atomic!(AtomicBool, bool);
    counts!(AtomicU32, u32);
    counts!(AtomicU64, u64);
}
