//! Short texts in shared memory. Nothing is decided by what they say, so loom is spared their bytes: the atomics are always the
//! standard library's.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

/// A text of up to `N` bytes. Whoever writes holds the lock that guards the value that the text is part of; a reader without that lock may
/// see a mixture of two texts, never memory that is not text.
pub struct Text<const N: usize> {
    len: AtomicU32,
    bytes: [AtomicU8; N],
}

impl<const N: usize> Default for Text<N> {
    fn default() -> Self {
        Text { len: AtomicU32::new(0), bytes: [const { AtomicU8::new(0) }; N] }
    }
}

impl<const N: usize> Text<N> {
    /// Keeps as much of `text` as fits.
    pub fn set(&self, text: &str) {
        let mut len = text.len().min(N);
        while !text.is_char_boundary(len) {
            len -= 1;
        }
        for (to, from) in self.bytes.iter().zip(&text.as_bytes()[..len]) {
            to.store(*from, Ordering::Relaxed);
        }
        self.len.store(len as u32, Ordering::Release);
    }

    pub fn get(&self) -> String {
        let len = (self.len.load(Ordering::Acquire) as usize).min(N);
        let bytes: Vec<u8> = self.bytes[..len].iter().map(|byte| byte.load(Ordering::Relaxed)).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Whether it is this text; without allocating.
    pub fn is(&self, text: &str) -> bool {
        let len = self.len.load(Ordering::Acquire) as usize;
        len == text.len()
            && self.bytes[..len.min(N)].iter().zip(text.as_bytes()).all(|(a, b)| a.load(Ordering::Relaxed) == *b)
    }
}
