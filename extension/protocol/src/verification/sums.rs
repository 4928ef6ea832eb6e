//! Fingerprints: a hash of 128 bits for each row, added up, so that the order in which rows are read does not matter.
//!
//! It finds damage, not malice: whoever can choose rows freely can find others of the same sum.

use std::fmt;
use std::str::FromStr;

use gcs_writeset::key::mix;

/// Digits of an identity's hash, four bits each.
const DIGITS: u32 = 32;

/// Hashes bytes as they come; where they are cut into pieces does not matter.
#[derive(Clone, Debug)]
pub struct Hasher {
    lanes: [u64; 2],
    /// Bytes that do not make a word yet.
    rest: u64,
    length: u64,
}

impl Default for Hasher {
    fn default() -> Hasher {
        Hasher { lanes: [0x5057_5f52, 0x7665_7269_6679], rest: 0, length: 0 }
    }
}

impl Hasher {
    pub fn write(&mut self, mut bytes: &[u8]) {
        while !self.length.is_multiple_of(8)
            && let Some((&byte, rest)) = bytes.split_first()
        {
            self.byte(byte);
            bytes = rest;
        }
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.length += 8;
            self.word(u64::from_le_bytes(*word));
        }
        rest.iter().for_each(|&byte| self.byte(byte));
    }

    fn byte(&mut self, byte: u8) {
        self.rest |= u64::from(byte) << (self.length % 8 * 8);
        self.length += 1;
        if self.length.is_multiple_of(8) {
            let word = std::mem::take(&mut self.rest);
            self.word(word);
        }
    }

    /// Two lanes that see each word differently.
    fn word(&mut self, word: u64) {
        self.lanes[0] = mix(self.lanes[0] ^ word);
        self.lanes[1] = mix(self.lanes[1].rotate_left(23) ^ word.wrapping_mul(0x9fb2_1c65_1e98_df25));
    }

    pub fn finish(&self) -> u128 {
        let mut last = self.clone();
        last.word(self.rest);
        last.word(self.length);
        let [a, b] = last.lanes;
        u128::from(mix(a ^ b.rotate_left(32))) << 64 | u128::from(mix(b.wrapping_add(a)))
    }
}

pub fn hash(bytes: &[u8]) -> u128 {
    let mut hasher = Hasher::default();
    hasher.write(bytes);
    hasher.finish()
}

/// The fingerprint of a set of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub rows: u64,
    pub sum: u128,
}

impl Sums {
    pub fn add(&mut self, row: u128) {
        self.rows += 1;
        self.sum = self.sum.wrapping_add(row);
    }

    #[must_use]
    pub fn plus(self, other: Sums) -> Sums {
        Sums { rows: self.rows + other.rows, sum: self.sum.wrapping_add(other.sum) }
    }
}

/// Rows whose identities' hashes begin with these digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket {
    pub digits: u32,
    prefix: u128,
}

impl Bucket {
    /// The one of so many digits that an identity falls into.
    pub fn of(identity: u128, digits: u32) -> Bucket {
        let digits = digits.min(DIGITS);
        Bucket { digits, prefix: if digits == 0 { 0 } else { identity >> (4 * (DIGITS - digits)) } }
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.digits == 0 { Ok(()) } else { write!(f, "{:0width$x}", self.prefix, width = self.digits as usize) }
    }
}

/// Text that no bucket has.
#[derive(Debug, PartialEq, Eq)]
pub struct NoBucket;

impl FromStr for Bucket {
    type Err = NoBucket;

    fn from_str(text: &str) -> Result<Bucket, NoBucket> {
        let digits = u32::try_from(text.len()).ok().filter(|&digits| digits <= DIGITS).ok_or(NoBucket)?;
        let prefix = if digits == 0 { 0 } else { u128::from_str_radix(text, 16).map_err(|_| NoBucket)? };
        Ok(Bucket { digits, prefix })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_bytes_are_cut_does_not_matter_and_what_they_are_does() {
        let bytes: Vec<u8> = (0..100).collect();
        for cut in 0..bytes.len() {
            let mut hasher = Hasher::default();
            hasher.write(&bytes[..cut]);
            hasher.write(&bytes[cut..]);
            assert_eq!(hasher.finish(), hash(&bytes));
            assert_ne!(hash(&bytes[..cut]), hash(&bytes));
        }
        for bit in 0..bytes.len() * 8 {
            let mut other = bytes.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            let (a, b) = (hash(&other), hash(&bytes));
            assert!(a as u64 != b as u64 && a >> 64 != b >> 64);
        }
        assert_ne!(hash(&[0; 8]), hash(&[0; 16]));
        assert_ne!(hash(&[]), hash(&[0]));
    }

    #[test]
    fn sums_do_not_depend_on_the_order_but_on_how_often() {
        let rows = [hash(b"a"), hash(b"b"), hash(b"b")];
        let sums = |order: &[usize]| {
            let mut sums = Sums::default();
            order.iter().for_each(|&row| sums.add(rows[row]));
            sums
        };
        assert_eq!(sums(&[0, 1, 2]), sums(&[2, 0, 1]));
        assert_ne!(sums(&[0, 1]), sums(&[0, 1, 2]));
        assert_ne!(sums(&[0, 0, 1]), sums(&[0, 1, 1]));
        assert_eq!(sums(&[0]).plus(sums(&[1, 2])), sums(&[0, 1, 2]));
    }

    #[test]
    fn buckets_are_read_as_they_are_written() {
        for digits in 0..=32 {
            let bucket = Bucket::of(hash(b"x") >> 5, digits);
            let text = bucket.to_string();
            assert_eq!(text.len(), digits as usize);
            assert_eq!(text.parse(), Ok(bucket));
        }
        assert_eq!("g0".parse::<Bucket>(), Err(NoBucket));
        assert_eq!("0".repeat(33).parse::<Bucket>(), Err(NoBucket));
    }
}
