//! Enumerations that are stored as numbers: in fields of shared memory, which only hold atomics.

use std::marker::PhantomData;

use crate::sync::{AtomicU32, Ordering};

/// An enumeration whose values have numbers of their own.
pub trait Numbered: Copy {
    fn number(self) -> u32;
    /// What has this number; the value named `else` for a number that none has.
    fn of(number: u32) -> Self;
}

/// Defines an enumeration and its numbers. What stands behind `else` is what an unknown number reads as.
#[macro_export]
macro_rules! numbered {
    (
        $(#[$meta:meta])*
        $visibility:vis enum $name:ident else $other:ident {
            $($(#[$value_meta:meta])* $value:ident = $number:literal),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        $visibility enum $name {
            $($(#[$value_meta])* $value = $number,)*
        }

        impl $crate::numbered::Numbered for $name {
            fn number(self) -> u32 {
                self as u32
            }

            fn of(number: u32) -> $name {
                match number {
                    $($number => $name::$value,)*
                    _ => $name::$other,
                }
            }
        }
    };
}

/// A field of shared memory that holds such a value.
pub struct Atomic<E>(AtomicU32, PhantomData<E>);

impl<E: Numbered + Default> Default for Atomic<E> {
    fn default() -> Self {
        Atomic::new(E::default())
    }
}

impl<E: Numbered> Atomic<E> {
    pub fn new(value: E) -> Self {
        Atomic(AtomicU32::new(value.number()), PhantomData)
    }

    pub fn load(&self) -> E {
        E::of(self.0.load(Ordering::SeqCst))
    }

    pub fn store(&self, value: E) {
        self.0.store(value.number(), Ordering::SeqCst);
    }

    /// Changes `from` to `to`; false if it was something else.
    pub fn swap(&self, from: E, to: E) -> bool {
        self.0.compare_exchange(from.number(), to.number(), Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}
