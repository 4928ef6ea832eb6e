//! The body of a writeset: row images and ordered statements, in the order in which the transaction made them.
//!
//! ```text
//! item := 0 relation   schema str, name str, columns varint      defines the next relation index, from 0
//!       | 1 insert     relation varint, image
//!       | 2 update     relation varint, identity image, new image
//!       | 3 delete     relation varint, identity image
//!       | 4 statement  actor, settings varint × (name str, value str, by_superuser u8), text str
//!       | 5 decided    of the statement that follows: tables varint × (schema str, name str, written anew u8), whose rows come behind it,
//!                      new columns varint × (name str, value u8 ? str), with the value of the rows that are there, bound u8 ? str, of a partition
//!       | 6 relation   as 0, then indexes varint × (name str, has_predicate u8, expressions varint)
//!       | 7 repair     relation varint, node u64, all u8, rows varint × (identity 16 bytes): on that node the rows with these identities go, or all; the inserts up to item 8 are for it alone
//!       | 8 repaired
//!       | 9 notify     channel str, payload str: a NOTIFY, sent when the transaction commits; behind all other items
//!       | 10 fill      relation varint: the inserts that follow are all the rows of this materialized view, which is populated from here on
//!       | 11 verifier  str: of the password of the role statement that follows, in whose text the password is not
//!       | 12 a change of a large object ([`crate::large_object`])
//!       | 14 a step of an index that is made or dropped CONCURRENTLY ([`crate::indexed`])
//!       | 16, 17 a transaction joins the list of those that are prepared, and leaves it ([`crate::two_phase`])
//! actor := session str, set str (empty: none), role str, context u8
//! image := one datum for each live column, in attribute order; for each of those indexes: whether the row is in it, if it has a predicate, and one datum for each expression (absent in an identity)
//! datum := header varint = length << 3 | kind, then `length` bytes
//! kind  := 0 null | 1 physical (PostgreSQL's in-memory form, little-endian, flat) | 2 text (the type's output function) | 3 unchanged (a value the update kept) | 4 absent (not part of the identity) | 5 nested (an array or a row of other values)
//! ```
//!
//! Items are self-contained but for relation indexes, so the front of a long body can travel in chunks. Writers append to a
//! plain byte vector; a rolled-back savepoint truncates it. Reading never panics and allocates nothing.

use crate::bounds::NAME_BYTES_MAX;
use crate::decided::{DATUM_BYTES_MAX, read_column, read_optional, read_remade};
pub use crate::decided::{Decided, Remade};
use crate::id::NodeId;
use crate::indexed;
pub use crate::indexed::{Indexed, Step};
use crate::large_object::LargeObject;
use crate::two_phase::{self, FINISHED, PREPARED, Prepared};
use crate::wire::{Put, Reader, WireError};

const STATEMENT_BYTES_MAX: usize = 1 << 30;
/// PostgreSQL takes less than 8,000 bytes of the database's encoding; a character of one byte there has three at most here.
const PAYLOAD_BYTES_MAX: usize = 3 * 8000;
/// PostgreSQL's own are some 130 bytes long.
const VERIFIER_BYTES_MAX: usize = 1 << 20;

const RELATION: u8 = 0;
const INSERT: u8 = 1;
const UPDATE: u8 = 2;
const DELETE: u8 = 3;
const STATEMENT: u8 = 4;
const DECIDED: u8 = 5;
const RELATION_WITH_INDEXES: u8 = 6;
const REPAIR: u8 = 7;
const REPAIRED: u8 = 8;
const NOTIFY: u8 = 9;
const FILL: u8 = 10;
const VERIFIER: u8 = 11;
const LARGE_OBJECT: u8 = 12;
const INDEXED: u8 = 14;
const IDENTITY_BYTES: usize = 16;

/// One column of a row image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datum<'a> {
    Null,
    Physical(&'a [u8]),
    Text(&'a [u8]),
    Unchanged,
    Absent,
    Nested(&'a [u8]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    Relation {
        schema: &'a str,
        name: &'a str,
        columns: u32,
        indexes: Indexes<'a>,
    },
    Insert {
        relation: u32,
        new: Image<'a>,
    },
    Update {
        relation: u32,
        identity: Image<'a>,
        new: Image<'a>,
    },
    Delete {
        relation: u32,
        identity: Image<'a>,
    },
    Statement {
        actor: Actor<'a>,
        settings: Settings<'a>,
        text: &'a str,
    },
    Decided(Decided<'a>),
    /// What the role of the statement that follows has in the place of its password.
    Verifier(&'a str),
    Repair(Repair<'a>),
    /// The end of what began with the last repair.
    Repaired,
    /// What whoever listens is told when the transaction commits.
    Notify {
        channel: &'a str,
        payload: &'a str,
    },
    /// The rows that follow are all that this materialized view has; it is populated from here on.
    Fill {
        relation: u32,
    },
    LargeObject(LargeObject<'a>),
    /// What becomes of an index that is made or dropped CONCURRENTLY.
    Indexed(Indexed<'a>),
    Prepared(Prepared<'a>),
    /// A prepared transaction that has been decided on.
    Finished {
        identifier: &'a str,
    },
}

/// What one node has other than the group, and is to have again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repair<'a> {
    pub relation: u32,
    pub node: NodeId,
    /// Every row goes, whatever the list says.
    pub all: bool,
    identities: &'a [u8],
}

impl<'a> Repair<'a> {
    /// Hashes of the identities of the rows that go.
    pub fn identities(self) -> impl Iterator<Item = u128> {
        self.identities.as_chunks::<IDENTITY_BYTES>().0.iter().map(|bytes| u128::from_le_bytes(*bytes))
    }
}

/// A row image, checked to hold exactly its relation's number of datums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image<'a> {
    bytes: &'a [u8],
}

impl<'a> Image<'a> {
    /// As it stands in the body.
    pub fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    pub fn datums(self) -> impl Iterator<Item = Datum<'a>> {
        let mut reader = Reader::new(self.bytes);
        std::iter::from_fn(move || if reader.is_empty() { None } else { read_datum(&mut reader).ok() })
    }
}

/// Who runs a statement, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Actor<'a> {
    /// `session_user`.
    pub session: &'a str,
    /// What SET ROLE has set; empty if nothing.
    pub set: &'a str,
    /// `current_user`: one of those, or the owner of the function that the statement runs in.
    pub role: &'a str,
    /// PostgreSQL's security context, a set of flags.
    pub context: u8,
}

/// A setting that a statement runs under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting<'a> {
    pub name: &'a str,
    pub value: &'a str,
    /// Whether a superuser, or the configuration, has given the value; so that nobody sets elsewhere what only a superuser may set.
    pub by_superuser: bool,
}

/// The settings a statement runs under, checked when it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings<'a> {
    bytes: &'a [u8],
}

impl<'a> Settings<'a> {
    pub fn iter(self) -> impl Iterator<Item = Setting<'a>> {
        let mut reader = Reader::new(self.bytes);
        std::iter::from_fn(move || if reader.is_empty() { None } else { read_setting(&mut reader).ok() })
    }
}

/// An index for which rows carry what its expressions and its predicate gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Index<'a> {
    pub name: &'a str,
    pub has_predicate: bool,
    pub expressions: u32,
}

impl Index<'_> {
    /// How many datums of an image are this index's.
    pub fn datums(&self) -> u32 {
        self.expressions.saturating_add(u32::from(self.has_predicate))
    }
}

/// The indexes that a relation was defined with, checked when it was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Indexes<'a> {
    bytes: &'a [u8],
}

impl<'a> Indexes<'a> {
    pub fn iter(self) -> impl Iterator<Item = Index<'a>> {
        let mut reader = Reader::new(self.bytes);
        std::iter::from_fn(move || if reader.is_empty() { None } else { read_index(&mut reader).ok() })
    }
}

/// Writes items onto the end of a byte vector.
pub trait PutItem {
    fn put_relation(&mut self, schema: &str, name: &str, columns: u32) {
        self.put_relation_with(schema, name, columns, &[]);
    }
    /// A relation whose images hold datums of these indexes, too.
    fn put_relation_with(&mut self, schema: &str, name: &str, columns: u32, indexes: &[Index<'_>]);
    /// Opens an insert; the new image's datums follow.
    fn put_insert(&mut self, relation: u32);
    /// Opens an update; the identity's datums follow, then the new image's.
    fn put_update(&mut self, relation: u32);
    /// Opens a delete; the identity's datums follow.
    fn put_delete(&mut self, relation: u32);
    fn put_statement(&mut self, actor: Actor<'_>, settings: &[Setting<'_>], text: &str);
    /// What the next statement would evaluate; that statement's item follows.
    fn put_decided(&mut self, tables: &[Remade<'_>], columns: &[(String, Option<String>)], bound: Option<&str>);
    /// The verifier of a password; the statement's item follows.
    fn put_verifier(&mut self, verifier: &str);
    /// Opens a repair; inserts follow, then `put_repaired`. Without identities, every row goes.
    fn put_repair(&mut self, relation: u32, node: NodeId, identities: Option<&[u128]>);
    fn put_repaired(&mut self);
    fn put_notify(&mut self, channel: &str, payload: &str);
    /// All rows of a materialized view follow, as inserts.
    fn put_fill(&mut self, relation: u32);
    fn put_large_object(&mut self, change: LargeObject<'_>);
    /// A step of an index, by its schema and its name; `nodes` are through with what goes before it.
    fn put_indexed(&mut self, step: Step, name: (&str, &str), definition: &str, nodes: &[NodeId]);
    fn put_optional(&mut self, text: Option<&str>);
    fn put_datum(&mut self, datum: Datum<'_>);
    /// Opens a physical datum of that length; its bytes follow.
    fn put_physical_header(&mut self, length: usize);
}

impl PutItem for Vec<u8> {
    fn put_relation_with(&mut self, schema: &str, name: &str, columns: u32, indexes: &[Index<'_>]) {
        self.put_u8(if indexes.is_empty() { RELATION } else { RELATION_WITH_INDEXES });
        self.put_str(schema);
        self.put_str(name);
        self.put_varint(u64::from(columns));
        if !indexes.is_empty() {
            self.put_varint(indexes.len() as u64);
        }
        for index in indexes {
            self.put_str(index.name);
            self.put_u8(u8::from(index.has_predicate));
            self.put_varint(u64::from(index.expressions));
        }
    }
    fn put_insert(&mut self, relation: u32) {
        self.put_u8(INSERT);
        self.put_varint(u64::from(relation));
    }
    fn put_update(&mut self, relation: u32) {
        self.put_u8(UPDATE);
        self.put_varint(u64::from(relation));
    }
    fn put_delete(&mut self, relation: u32) {
        self.put_u8(DELETE);
        self.put_varint(u64::from(relation));
    }
    fn put_statement(&mut self, actor: Actor<'_>, settings: &[Setting<'_>], text: &str) {
        self.put_u8(STATEMENT);
        self.put_str(actor.session);
        self.put_str(actor.set);
        self.put_str(actor.role);
        self.put_u8(actor.context);
        self.put_varint(settings.len() as u64);
        for setting in settings {
            self.put_str(setting.name);
            self.put_str(setting.value);
            self.put_u8(u8::from(setting.by_superuser));
        }
        self.put_str(text);
    }
    fn put_decided(&mut self, tables: &[Remade<'_>], columns: &[(String, Option<String>)], bound: Option<&str>) {
        self.put_u8(DECIDED);
        self.put_varint(tables.len() as u64);
        for table in tables {
            self.put_str(table.schema);
            self.put_str(table.name);
            self.put_u8(u8::from(table.anew) | u8::from(table.afterwards) << 1);
        }
        self.put_varint(columns.len() as u64);
        for (name, value) in columns {
            self.put_str(name);
            self.put_optional(value.as_deref());
        }
        self.put_optional(bound);
    }
    fn put_verifier(&mut self, verifier: &str) {
        self.put_u8(VERIFIER);
        self.put_str(verifier);
    }
    fn put_repair(&mut self, relation: u32, node: NodeId, identities: Option<&[u128]>) {
        self.put_u8(REPAIR);
        self.put_varint(u64::from(relation));
        self.put_u64(node.0);
        self.put_u8(u8::from(identities.is_none()));
        let identities = identities.unwrap_or_default();
        self.put_varint(identities.len() as u64);
        for identity in identities {
            self.extend_from_slice(&identity.to_le_bytes());
        }
    }
    fn put_repaired(&mut self) {
        self.put_u8(REPAIRED);
    }
    fn put_notify(&mut self, channel: &str, payload: &str) {
        self.put_u8(NOTIFY);
        self.put_str(channel);
        self.put_str(payload);
    }
    fn put_fill(&mut self, relation: u32) {
        self.put_u8(FILL);
        self.put_varint(u64::from(relation));
    }
    fn put_large_object(&mut self, change: LargeObject<'_>) {
        self.put_u8(LARGE_OBJECT);
        change.put(self);
    }
    fn put_indexed(&mut self, step: Step, name: (&str, &str), definition: &str, nodes: &[NodeId]) {
        self.put_u8(INDEXED);
        indexed::put(self, step, name, definition, nodes);
    }
    fn put_optional(&mut self, text: Option<&str>) {
        self.put_u8(u8::from(text.is_some()));
        if let Some(text) = text {
            self.put_str(text);
        }
    }
    fn put_datum(&mut self, datum: Datum<'_>) {
        let (kind, bytes): (u64, &[u8]) = match datum {
            Datum::Null => (0, &[]),
            Datum::Physical(bytes) => (1, bytes),
            Datum::Text(bytes) => (2, bytes),
            Datum::Unchanged => (3, &[]),
            Datum::Absent => (4, &[]),
            Datum::Nested(bytes) => (5, bytes),
        };
        self.put_varint((bytes.len() as u64) << 3 | kind);
        self.extend_from_slice(bytes);
    }
    fn put_physical_header(&mut self, length: usize) {
        self.put_varint((length as u64) << 3 | 1);
    }
}

/// Reads a whole body, item by item.
#[derive(Clone, Debug)]
pub struct Items<'a> {
    reader: Reader<'a>,
    /// Datums of an image by relation index.
    columns: Vec<u32>,
}

impl<'a> Items<'a> {
    pub fn new(body: &'a [u8]) -> Items<'a> {
        Items { reader: Reader::new(body), columns: Vec::new() }
    }

    /// Goes on with other bytes, keeping the relations defined so far.
    pub fn resume_at<'b>(self, body: &'b [u8]) -> Items<'b> {
        Items { reader: Reader::new(body), columns: self.columns }
    }

    /// Bytes behind the last item.
    pub fn remaining(&self) -> usize {
        self.reader.remaining()
    }

    fn read(&mut self) -> Result<Item<'a>, WireError> {
        match self.reader.u8()? {
            RELATION => self.definition(false),
            RELATION_WITH_INDEXES => self.definition(true),
            INSERT => {
                let relation = self.relation()?;
                Ok(Item::Insert { relation, new: self.image(relation)? })
            }
            UPDATE => {
                let relation = self.relation()?;
                Ok(Item::Update { relation, identity: self.image(relation)?, new: self.image(relation)? })
            }
            DELETE => {
                let relation = self.relation()?;
                Ok(Item::Delete { relation, identity: self.image(relation)? })
            }
            STATEMENT => {
                let actor = Actor {
                    session: self.reader.str("role name", NAME_BYTES_MAX)?,
                    set: self.reader.str("role name", NAME_BYTES_MAX)?,
                    role: self.reader.str("role name", NAME_BYTES_MAX)?,
                    context: self.reader.u8()?,
                };
                let settings = self.settings()?;
                let text = self.reader.str("statement", STATEMENT_BYTES_MAX)?;
                Ok(Item::Statement { actor, settings, text })
            }
            DECIDED => {
                let tables = self.list(|reader| read_remade(reader).map(|_| ()))?;
                let columns = self.list(|reader| read_column(reader).map(|_| ()))?;
                let bound = read_optional(&mut self.reader, "bound of a partition")?;
                Ok(Item::Decided(Decided { tables, columns, bound }))
            }
            REPAIR => {
                let relation = self.relation()?;
                let node = NodeId(self.reader.u64()?);
                let all = read_flag(&mut self.reader, "whether all rows go")?;
                let identities = self.list(|reader| reader.take(IDENTITY_BYTES).map(|_| ()))?;
                Ok(Item::Repair(Repair { relation, node, all, identities }))
            }
            REPAIRED => Ok(Item::Repaired),
            NOTIFY => {
                let channel = self.reader.str("channel name", NAME_BYTES_MAX)?;
                Ok(Item::Notify { channel, payload: self.reader.str("payload", PAYLOAD_BYTES_MAX)? })
            }
            FILL => Ok(Item::Fill { relation: self.relation()? }),
            LARGE_OBJECT => Ok(Item::LargeObject(LargeObject::read(&mut self.reader)?)),
            INDEXED => Ok(Item::Indexed(indexed::read(&mut self.reader)?)),
            VERIFIER => Ok(Item::Verifier(self.reader.str("verifier", VERIFIER_BYTES_MAX)?)),
            PREPARED => Ok(Item::Prepared(two_phase::read_prepared(&mut self.reader)?)),
            FINISHED => Ok(Item::Finished { identifier: two_phase::read_identifier(&mut self.reader)? }),
            kind => Err(WireError::Unknown { what: "item kind", value: u64::from(kind) }),
        }
    }

    fn definition(&mut self, with_indexes: bool) -> Result<Item<'a>, WireError> {
        let schema = self.reader.str("schema name", NAME_BYTES_MAX)?;
        let name = self.reader.str("relation name", NAME_BYTES_MAX)?;
        let columns = read_count(&mut self.reader, "number of columns")?;
        let mut datums = columns;
        let mut indexes = Indexes::default();
        if with_indexes {
            let count = self.reader.varint()?;
            let before = self.reader.rest();
            for _ in 0..count {
                let of_index = read_index(&mut self.reader)?.datums();
                datums = datums.checked_add(of_index).ok_or(WireError::OutOfRange { what: "number of datums" })?;
            }
            indexes = Indexes { bytes: &before[..before.len() - self.reader.remaining()] };
        }
        self.columns.push(datums);
        Ok(Item::Relation { schema, name, columns, indexes })
    }

    fn relation(&mut self) -> Result<u32, WireError> {
        let index = self.reader.varint()?;
        if index >= self.columns.len() as u64 {
            return Err(WireError::OutOfRange { what: "relation index" });
        }
        Ok(index as u32)
    }

    fn image(&mut self, relation: u32) -> Result<Image<'a>, WireError> {
        let before = self.reader.rest();
        for _ in 0..self.columns[relation as usize] {
            read_datum(&mut self.reader)?;
        }
        Ok(Image { bytes: &before[..before.len() - self.reader.remaining()] })
    }

    fn settings(&mut self) -> Result<Settings<'a>, WireError> {
        Ok(Settings { bytes: self.list(|reader| read_setting(reader).map(|_| ()))? })
    }

    /// The bytes of a counted list, behind its count.
    fn list(&mut self, read: impl Fn(&mut Reader<'a>) -> Result<(), WireError>) -> Result<&'a [u8], WireError> {
        let count = self.reader.varint()?;
        let before = self.reader.rest();
        for _ in 0..count {
            read(&mut self.reader)?;
        }
        Ok(&before[..before.len() - self.reader.remaining()])
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<Item<'a>, WireError>;

    /// After an error there is nothing more.
    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() {
            return None;
        }
        let item = self.read();
        if item.is_err() {
            self.reader = Reader::new(&[]);
        }
        Some(item)
    }
}

/// Reads one datum from the front.
pub fn read_datum<'a>(reader: &mut Reader<'a>) -> Result<Datum<'a>, WireError> {
    let header = reader.varint()?;
    let (len, kind) = (header >> 3, header & 7);
    if len > DATUM_BYTES_MAX as u64 {
        return Err(WireError::TooLarge { what: "datum", value: len, limit: DATUM_BYTES_MAX as u64 });
    }
    let bytes = reader.take(len as usize)?;
    match kind {
        1 => Ok(Datum::Physical(bytes)),
        2 => Ok(Datum::Text(bytes)),
        0 | 3 | 4 if len != 0 => Err(WireError::OutOfRange { what: "length of a datum without a value" }),
        0 => Ok(Datum::Null),
        3 => Ok(Datum::Unchanged),
        4 => Ok(Datum::Absent),
        5 => Ok(Datum::Nested(bytes)),
        _ => Err(WireError::Unknown { what: "datum kind", value: kind }),
    }
}

fn read_count(reader: &mut Reader<'_>, what: &'static str) -> Result<u32, WireError> {
    let value = reader.varint()?;
    u32::try_from(value).map_err(|_| WireError::TooLarge { what, value, limit: u64::from(u32::MAX) })
}

fn read_flag(reader: &mut Reader<'_>, what: &'static str) -> Result<bool, WireError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(WireError::OutOfRange { what }),
    }
}

fn read_index<'a>(reader: &mut Reader<'a>) -> Result<Index<'a>, WireError> {
    let name = reader.str("index name", NAME_BYTES_MAX)?;
    let has_predicate = read_flag(reader, "whether an index has a predicate")?;
    Ok(Index { name, has_predicate, expressions: read_count(reader, "number of expressions")? })
}

fn read_setting<'a>(reader: &mut Reader<'a>) -> Result<Setting<'a>, WireError> {
    let name = reader.str("setting name", STATEMENT_BYTES_MAX)?;
    let value = reader.str("setting value", STATEMENT_BYTES_MAX)?;
    let by_superuser = read_flag(reader, "who has set a setting")?;
    Ok(Setting { name, value, by_superuser })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SETTINGS: [Setting<'static>; 2] = [
        Setting { name: "search_path", value: "public", by_superuser: false },
        Setting { name: "app.tenant", value: "", by_superuser: true },
    ];

    #[test]
    fn items_come_back_in_the_order_they_were_written() {
        let mut body = Vec::new();
        body.put_relation("public", "pessoas", 2);
        body.put_insert(0);
        body.put_datum(Datum::Physical(&7i32.to_le_bytes()));
        body.put_datum(Datum::Text(b"Ana"));
        body.put_update(0);
        for datum in [Datum::Physical(&7i32.to_le_bytes()), Datum::Absent, Datum::Unchanged, Datum::Null] {
            body.put_datum(datum);
        }
        let actor = Actor { session: "eva", set: "", role: "ana", context: 3 };
        body.put_statement(actor, &SETTINGS, "CREATE TABLE t ()");
        let name = |name: &str| name.to_owned();
        let remade = Remade { schema: "public", name: "t", anew: true, afterwards: true };
        body.put_decided(&[remade], &[(name("a"), Some(name(""))), (name("b"), None)], Some("DEFAULT"));
        let indexes = [
            Index { name: "t_f", has_predicate: true, expressions: 1 },
            Index { name: "t_g", has_predicate: false, expressions: 2 },
        ];
        body.put_relation_with("public", "t", 1, &indexes);
        body.put_delete(1);
        (0..5).for_each(|_| body.put_datum(Datum::Absent));

        let items: Vec<_> = Items::new(&body).collect::<Result<_, _>>().unwrap();
        assert_eq!(items[0], Item::Relation { schema: "public", name: "pessoas", columns: 2, indexes: Indexes::default() });
        let Item::Insert { relation: 0, new } = items[1] else { panic!("{:?}", items[1]) };
        assert_eq!(new.datums().collect::<Vec<_>>(), [Datum::Physical(&[7, 0, 0, 0]), Datum::Text(b"Ana")]);
        let Item::Update { relation: 0, identity, new } = items[2] else { panic!("{:?}", items[2]) };
        assert_eq!(identity.datums().collect::<Vec<_>>(), [Datum::Physical(&[7, 0, 0, 0]), Datum::Absent]);
        assert_eq!(new.datums().collect::<Vec<_>>(), [Datum::Unchanged, Datum::Null]);
        let Item::Statement { actor: found, settings, text: "CREATE TABLE t ()" } = items[3] else {
            panic!("{:?}", items[3])
        };
        assert_eq!(found, actor);
        assert_eq!(settings.iter().collect::<Vec<_>>(), SETTINGS);
        let Item::Decided(decided) = items[4] else { panic!("{:?}", items[4]) };
        assert_eq!(decided.tables().collect::<Vec<_>>(), [remade]);
        assert_eq!(decided.columns().collect::<Vec<_>>(), [("a", Some("")), ("b", None)]);
        assert_eq!(decided.bound, Some("DEFAULT"));
        let Item::Relation { columns: 1, indexes: read, .. } = items[5] else { panic!("{:?}", items[5]) };
        assert_eq!(read.iter().collect::<Vec<_>>(), indexes);
        let Item::Delete { relation: 1, identity } = items[6] else { panic!("{:?}", items[6]) };
        assert_eq!(identity.datums().count(), 5);
    }

    #[test]
    fn a_repair_comes_back_as_it_was_written() {
        let mut body = Vec::new();
        body.put_relation("public", "t", 1);
        body.put_repair(0, NodeId(7), Some(&[1, u128::MAX]));
        body.put_insert(0);
        body.put_datum(Datum::Null);
        body.put_repaired();
        body.put_repair(0, NodeId(8), None);
        body.put_repaired();
        let items: Vec<_> = Items::new(&body).collect::<Result<_, _>>().unwrap();
        let Item::Repair(repair) = items[1] else { panic!("{:?}", items[1]) };
        assert_eq!((repair.relation, repair.node, repair.all), (0, NodeId(7), false));
        assert_eq!(repair.identities().collect::<Vec<_>>(), [1, u128::MAX]);
        assert!(matches!(items[2], Item::Insert { relation: 0, .. }));
        assert_eq!(items[3], Item::Repaired);
        let Item::Repair(repair) = items[4] else { panic!("{:?}", items[4]) };
        assert!(repair.all && repair.identities().next().is_none());
        for cut in 1..body.len() {
            assert!(Items::new(&body[..cut]).count() <= items.len());
        }
        let mut unknown = Vec::new();
        unknown.put_repair(0, NodeId(7), None);
        assert_eq!(Items::new(&unknown).next(), Some(Err(WireError::OutOfRange { what: "relation index" })));
    }

    #[test]
    fn a_notification_comes_back_as_it_was_written() {
        let mut body = Vec::new();
        body.put_notify("jobs", "7 \u{e9}");
        body.put_notify("jobs", "");
        assert_eq!(body, b"\x09\x04jobs\x047 \xc3\xa9\x09\x04jobs\x00");
        let items: Vec<_> = Items::new(&body).collect::<Result<_, _>>().unwrap();
        assert_eq!(items[0], Item::Notify { channel: "jobs", payload: "7 \u{e9}" });
        assert_eq!(items[1], Item::Notify { channel: "jobs", payload: "" });
        let long = |channel: usize, payload: usize| {
            let mut body = Vec::new();
            body.put_notify(&"c".repeat(channel), &"p".repeat(payload));
            Items::new(&body).next().is_some_and(|item| item.is_ok())
        };
        assert!(long(NAME_BYTES_MAX, PAYLOAD_BYTES_MAX));
        assert!(!long(NAME_BYTES_MAX + 1, 1) && !long(1, PAYLOAD_BYTES_MAX + 1));
    }

    #[test]
    fn a_materialized_view_comes_back_with_the_rows_that_fill_it() {
        let mut body = Vec::new();
        body.put_relation("public", "m", 1);
        body.put_fill(0);
        assert_eq!(body[body.len() - 2..], [FILL, 0]);
        body.put_insert(0);
        body.put_datum(Datum::Null);
        let items: Vec<_> = Items::new(&body).collect::<Result<_, _>>().unwrap();
        assert_eq!(items[1], Item::Fill { relation: 0 });
        assert!(matches!(items[2], Item::Insert { relation: 0, .. }));
        let mut unknown = Vec::new();
        unknown.put_fill(0);
        assert_eq!(Items::new(&unknown).next(), Some(Err(WireError::OutOfRange { what: "relation index" })));
    }

    #[test]
    fn a_verifier_comes_back_as_it_was_written() {
        let mut body = Vec::new();
        body.put_verifier("md5 \u{e9}");
        assert_eq!(body, b"\x0b\x06md5 \xc3\xa9");
        assert_eq!(Items::new(&body).next(), Some(Ok(Item::Verifier("md5 \u{e9}"))));
        body.clear();
        body.put_verifier(&"v".repeat(VERIFIER_BYTES_MAX + 1));
        assert!(Items::new(&body).next().is_some_and(|item| item.is_err()));
    }

    #[test]
    fn a_row_of_an_undefined_relation_is_refused() {
        let mut body = Vec::new();
        body.put_insert(0);
        assert_eq!(Items::new(&body).next(), Some(Err(WireError::OutOfRange { what: "relation index" })));
    }

    proptest! {
        #[test]
        fn garbage_never_panics_and_always_ends(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let items = Items::new(&bytes).count();
            prop_assert!(items <= bytes.len());
        }
    }
}
