//! A body read as it is applied: what is in memory is a window of it, or the item at hand if that is longer.

use std::io::{self, Read};

use gcs_writeset::body::{Item, Items};
use gcs_writeset::wire::WireError;

/// What one read asks for.
const WINDOW_BYTES: usize = 256 << 10;

/// Memory kept after an item that was longer than the window.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// Why a body can't be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error("cannot read its file: {0}")]
    File(#[from] io::Error),
    #[error("it is damaged: {0}")]
    Damaged(#[from] WireError),
}

/// As [`for_each`], for a body that is in memory as a whole: nothing is copied.
pub fn for_each_in<E: From<StreamError>>(
    body: &[u8],
    mut visit: impl FnMut(Item<'_>, u64) -> Result<(), E>,
) -> Result<(), E> {
    let mut items = Items::new(body);
    while let Some(item) = items.next() {
        let read = (body.len() - items.remaining()) as u64;
        visit(item.map_err(StreamError::Damaged)?, read)?;
    }
    Ok(())
}

/// Calls `visit` with each item and the number of bytes up to its end, until one fails.
pub fn for_each<E: From<StreamError>>(
    mut input: impl Read,
    mut visit: impl FnMut(Item<'_>, u64) -> Result<(), E>,
) -> Result<(), E> {
    let mut window = Vec::new();
    let mut read = 0u64;
    let mut items = Items::new(&[]);
    let mut wanted = 0;
    loop {
        let at_end = fill(&mut input, &mut window, wanted).map_err(StreamError::File)? == 0;
        let mut front = items.resume_at(&window);
        let mut left = window.len();
        wanted = 0;
        while let Some(next) = front.next() {
            match next {
                Ok(item) => {
                    read += (left - front.remaining()) as u64;
                    left = front.remaining();
                    visit(item, read)?;
                }
                Err(WireError::Truncated { missing }) if !at_end => {
                    wanted = missing;
                    break;
                }
                Err(error) => return Err(StreamError::Damaged(error).into()),
            }
        }
        items = front.resume_at(&[]);
        let used = window.len() - left;
        window.drain(..used);
        if at_end {
            return Ok(());
        }
        if window.len() + wanted <= KEPT_BYTES_MAX {
            window.shrink_to(KEPT_BYTES_MAX);
        }
    }
}

/// Reads what is wanted and as much as makes a window; 0 at the end.
fn fill(input: &mut impl Read, window: &mut Vec<u8>, wanted: usize) -> io::Result<usize> {
    let bytes = wanted.max(WINDOW_BYTES.saturating_sub(window.len())).max(1);
    window.reserve_exact(bytes);
    input.take(bytes as u64).read_to_end(window)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gcs_writeset::body::{Datum, PutItem};

    fn body(values: &[usize]) -> Vec<u8> {
        let mut body = Vec::new();
        body.put_relation("public", "t", 1);
        for &length in values {
            body.put_insert(0);
            body.put_datum(Datum::Physical(&vec![7; length]));
        }
        body
    }

    fn lengths(body: &[u8]) -> Result<Vec<usize>, StreamError> {
        let mut found = Vec::new();
        let mut end = 0;
        for_each(body, |item, read| {
            if let Item::Insert { new, .. } = item {
                let Some(Datum::Physical(bytes)) = new.datums().next() else { panic!("{new:?}") };
                found.push(bytes.len());
            }
            end = read;
            Ok::<(), StreamError>(())
        })?;
        assert_eq!(end, body.len() as u64);
        Ok(found)
    }

    #[test]
    fn items_are_found_whatever_their_length() {
        let values = [0, 1, WINDOW_BYTES - 20, WINDOW_BYTES, 3 * WINDOW_BYTES + 5, 17, 2 << 20, 1];
        assert_eq!(lengths(&body(&values)).unwrap(), values);
        let many = vec![1000; 2000];
        assert_eq!(lengths(&body(&many)).unwrap(), many);
        assert!(lengths(&[]).unwrap().is_empty());
    }

    #[test]
    fn a_body_in_memory_is_read_as_it_stands() {
        let body = body(&[0, 17, WINDOW_BYTES + 1]);
        let (mut streamed, mut read) = (Vec::new(), Vec::new());
        for_each(&body[..], |item, end| {
            streamed.push((format!("{item:?}"), end));
            Ok::<(), StreamError>(())
        })
        .unwrap();
        for_each_in(&body, |item, end| {
            read.push((format!("{item:?}"), end));
            Ok::<(), StreamError>(())
        })
        .unwrap();
        assert_eq!(streamed, read);
        let early = for_each_in(&body[..body.len() - 1], |_, _| Ok::<(), StreamError>(()));
        assert!(matches!(early, Err(StreamError::Damaged(_))));
    }

    #[test]
    fn a_body_that_ends_early_is_damaged() {
        let whole = body(&[100, WINDOW_BYTES * 2]);
        for cut in [1, 50, WINDOW_BYTES, WINDOW_BYTES * 2] {
            assert!(matches!(lengths(&whole[..whole.len() - cut]), Err(StreamError::Damaged(_))));
        }
    }
}
