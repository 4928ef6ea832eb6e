//! A step of what is done to an index CONCURRENTLY, as it stands in a body ([`crate::body`]; docs/adr/0058-concurrently.md).

use crate::bounds::NAME_BYTES_MAX;
use crate::id::NodeId;
use crate::wire::{Put, Reader, WireError};

const DEFINITION_BYTES_MAX: usize = 1 << 30;
const NODE_BYTES: usize = 8;

/// What becomes of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Valid: from here on it answers queries. Nodes that have not built it build it now.
    Valid,
    /// The same, and rows may be told apart by it from here on: no writer is under way.
    ValidIdentity,
    /// Not valid any more: no query that is planned from here on uses it.
    Invalid,
    /// Gone. Nodes that have waited for those who use it need no more than the lock that lets readers and writers in.
    Dropped,
}

/// An index, by its name, and its nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Indexed<'a> {
    pub step: Step,
    pub schema: &'a str,
    pub name: &'a str,
    /// The statement by which a node makes it that has not got it.
    pub definition: &'a str,
    nodes: &'a [u8],
}

impl Indexed<'_> {
    /// The nodes that are through with what they do by themselves before this step.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.nodes.as_chunks::<NODE_BYTES>().0.iter().map(|bytes| NodeId(u64::from_le_bytes(*bytes)))
    }
}

/// Appends what follows the kind of the item.
pub(crate) fn put(out: &mut Vec<u8>, step: Step, (schema, name): (&str, &str), definition: &str, nodes: &[NodeId]) {
    out.put_u8(match step {
        Step::Valid => 0,
        Step::ValidIdentity => 1,
        Step::Invalid => 2,
        Step::Dropped => 3,
    });
    out.put_str(schema);
    out.put_str(name);
    out.put_str(definition);
    out.put_varint(nodes.len() as u64);
    for node in nodes {
        out.put_u64(node.0);
    }
}

pub(crate) fn read<'a>(reader: &mut Reader<'a>) -> Result<Indexed<'a>, WireError> {
    let step = match reader.u8()? {
        0 => Step::Valid,
        1 => Step::ValidIdentity,
        2 => Step::Invalid,
        3 => Step::Dropped,
        value => return Err(WireError::Unknown { what: "step of an index", value: u64::from(value) }),
    };
    let (schema, name) = (reader.str("schema name", NAME_BYTES_MAX)?, reader.str("index name", NAME_BYTES_MAX)?);
    let definition = reader.str("definition of an index", DEFINITION_BYTES_MAX)?;
    let count = reader.varint()?;
    let too_many = WireError::OutOfRange { what: "number of nodes" };
    let length = usize::try_from(count).ok().and_then(|count| count.checked_mul(NODE_BYTES)).ok_or(too_many)?;
    Ok(Indexed { step, schema, name, definition, nodes: reader.take(length)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::{Item, Items, PutItem};

    #[test]
    fn a_step_of_an_index_comes_back_as_it_was_written() {
        let mut body = Vec::new();
        body.put_indexed(Step::Dropped, ("s", "i"), "", &[]);
        assert_eq!(body, b"\x0e\x03\x01s\x01i\x00\x00");
        body.clear();
        body.put_indexed(Step::Valid, ("s", "i"), "CREATE", &[NodeId(7), NodeId(u64::MAX)]);
        let Some(Ok(Item::Indexed(indexed))) = Items::new(&body).next() else { panic!("{body:?}") };
        assert_eq!((indexed.step, indexed.schema, indexed.name, indexed.definition), (Step::Valid, "s", "i", "CREATE"));
        assert_eq!(indexed.nodes().collect::<Vec<_>>(), [NodeId(7), NodeId(u64::MAX)]);
        for cut in 1..body.len() {
            assert!(Items::new(&body[..cut]).next().is_some_and(|item| item.is_err()));
        }
        body[1] = 4;
        assert!(Items::new(&body).next().is_some_and(|item| item.is_err()));
    }
}
