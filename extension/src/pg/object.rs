//! Objects of the database as values name them: regclass and its kin hold an OID, which is another one on every node.
//!
//! An object's *identity* is what makes it the same object elsewhere: its class, schema and name, with the types of its arguments where
//! several may share a name. It is a sequence of bytes, not SQL: nothing depends on search_path or quoting, and it is hashed for keys.
//!
//! ```text
//! identity := class u8, then
//!     relation, collation (with its encoding), text search configuration, dictionary:  schema str, name str
//!     type:       0, schema str, name str | 1, identity of the type that it is an array of
//!     procedure:  schema str, name str, arguments varint × identity of a type
//!     operator:   schema str, name str, left and right, each 0 | 1, identity of a type
//!     schema, role:  name str
//! ```
//!
//! Nobody holds a lock on an object that a value names, so what the caches say of it may be old. [`Reading::Fresh`] reads the catalogs
//! again: what it gives is at least as new as a committed position that was read before.

use std::ffi::CString;

use gcs_writeset::key::bytes_hash;
use gcs_writeset::wire::{Put, Reader, WireError};
use pgrx::pg_sys;
use pgrx::pg_sys::SysCacheIdentifier as Cache;

use super::encoding;
use super::names::{Oid, name_of, quoted, valid};

const NAME_BYTES_MAX: usize = 256;

/// Of catalog/pg_ts_config.h and pg_ts_dict.h, which pgrx does not bind: the catalogs, and the columns of both that hold name and schema.
const SEARCH_CONFIGURATIONS: u32 = 3602;
const SEARCH_DICTIONARIES: u32 = 3600;
const SEARCH_NAME: i16 = 2;
const SEARCH_SCHEMA: i16 = 3;

/// A kind of object that values can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Class {
    Relation = 1,
    Type = 2,
    Procedure = 3,
    Operator = 4,
    Namespace = 5,
    Role = 6,
    Collation = 7,
    SearchConfiguration = 8,
    SearchDictionary = 9,
}

const CLASSES: [Class; 9] = [
    Class::Relation,
    Class::Type,
    Class::Procedure,
    Class::Operator,
    Class::Namespace,
    Class::Role,
    Class::Collation,
    Class::SearchConfiguration,
    Class::SearchDictionary,
];

impl Class {
    /// What values of this type name; none if they name nothing.
    pub fn named_by(typid: Oid) -> Option<Class> {
        Some(match typid {
            pg_sys::REGCLASSOID => Class::Relation,
            pg_sys::REGTYPEOID => Class::Type,
            pg_sys::REGPROCOID | pg_sys::REGPROCEDUREOID => Class::Procedure,
            pg_sys::REGOPEROID | pg_sys::REGOPERATOROID => Class::Operator,
            pg_sys::REGNAMESPACEOID => Class::Namespace,
            pg_sys::REGROLEOID => Class::Role,
            pg_sys::REGCOLLATIONOID => Class::Collation,
            pg_sys::REGCONFIGOID => Class::SearchConfiguration,
            pg_sys::REGDICTIONARYOID => Class::SearchDictionary,
            _ => return None,
        })
    }

    /// The catalog that holds such objects.
    pub fn catalog(self) -> Oid {
        match self {
            Class::Relation => pg_sys::RelationRelationId,
            Class::Type => pg_sys::TypeRelationId,
            Class::Procedure => pg_sys::ProcedureRelationId,
            Class::Operator => pg_sys::OperatorRelationId,
            Class::Namespace => pg_sys::NamespaceRelationId,
            Class::Role => pg_sys::AuthIdRelationId,
            Class::Collation => pg_sys::CollationRelationId,
            Class::SearchConfiguration => Oid::from(SEARCH_CONFIGURATIONS),
            Class::SearchDictionary => Oid::from(SEARCH_DICTIONARIES),
        }
    }

    pub fn of_catalog(catalog: Oid) -> Option<Class> {
        CLASSES.into_iter().find(|class| class.catalog() == catalog)
    }

    fn from_wire(byte: u8) -> Result<Class, WireError> {
        let known = CLASSES.into_iter().find(|class| *class as u8 == byte);
        known.ok_or(WireError::Unknown { what: "class of an object", value: u64::from(byte) })
    }

    fn cache(self) -> Cache::Type {
        match self {
            Class::Relation => Cache::RELOID,
            Class::Type => Cache::TYPEOID,
            Class::Procedure => Cache::PROCOID,
            Class::Operator => Cache::OPEROID,
            Class::Namespace => Cache::NAMESPACEOID,
            Class::Role => Cache::AUTHOID,
            Class::Collation => Cache::COLLOID,
            Class::SearchConfiguration => Cache::TSCONFIGOID,
            Class::SearchDictionary => Cache::TSDICTOID,
        }
    }
}

/// Where names are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// In the catalogs, as they are now.
    Fresh,
    /// In the caches: for objects that are locked, or for a guess.
    Cached,
}

/// Why an object has no identity that another node could know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoIdentity {
    /// There is no such object.
    Missing,
    Temporary,
    /// TOAST tables are named after OIDs.
    Toast,
}

/// What makes an object the same object on another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub bytes: Vec<u8>,
    /// Hashes of the identities that it is made of, its own included: a change of any of these names changes it.
    pub parts: Vec<u64>,
}

impl Identity {
    /// The hash of the object's own identity.
    pub fn hash(&self) -> u64 {
        bytes_hash(&self.bytes)
    }
}

/// The identity of an object.
pub fn identity(class: Class, oid: Oid, reading: Reading) -> Result<Identity, NoIdentity> {
    let mut writer = Writer { reading, parts: Vec::new() };
    let bytes = writer.object(class, oid)?;
    Ok(Identity { bytes, parts: writer.parts })
}

/// Whether there is an object with this OID.
pub fn exists(class: Class, oid: Oid) -> bool {
    with_tuple(class.cache(), oid, Reading::Fresh, |_| ()).is_some()
}

/// The object with this identity, whatever its class; none if there is none here.
pub fn find(identity: &[u8]) -> Result<Option<(Class, Oid)>, WireError> {
    let mut reader = Reader::new(identity);
    let class = class_of(identity)?;
    let found = find_object(&mut reader)?;
    reader.finish("an object's identity")?;
    Ok(found.map(|oid| (class, oid)))
}

pub fn class_of(identity: &[u8]) -> Result<Class, WireError> {
    Class::from_wire(Reader::new(identity).u8()?)
}

/// The identity as a person would write it; what cannot be read is left out.
pub fn text(identity: &[u8]) -> String {
    text_of(&mut Reader::new(identity)).unwrap_or_default()
}

/// Makes an identity, and notes what it is made of.
struct Writer {
    reading: Reading,
    parts: Vec<u64>,
}

impl Writer {
    fn object(&mut self, class: Class, oid: Oid) -> Result<Vec<u8>, NoIdentity> {
        let mut out = vec![class as u8];
        match class {
            Class::Type => self.type_(oid, &mut out)?,
            Class::Procedure => self.procedure(oid, &mut out)?,
            Class::Operator => self.operator(oid, &mut out)?,
            Class::Namespace => {
                // SAFETY: looks at the schema's name.
                if unsafe { pg_sys::isAnyTempNamespace(oid) } {
                    return Err(NoIdentity::Temporary);
                }
                let name = self.read(class, oid, |tuple| {
                    // SAFETY: a tuple of pg_namespace.
                    name_of(&unsafe { &*pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_namespace>(tuple) }.nspname)
                })?;
                out.put_str(&name);
            }
            Class::Role => {
                let name = self.read(class, oid, |tuple| {
                    // SAFETY: a tuple of pg_authid.
                    name_of(&unsafe { &*pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_authid>(tuple) }.rolname)
                })?;
                out.put_str(&name);
            }
            Class::Relation => {
                let (name, schema) = self.read(class, oid, |tuple| {
                    // SAFETY: a tuple of pg_class.
                    let form = unsafe { &*pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_class>(tuple) };
                    (name_of(&form.relname), form.relnamespace)
                })?;
                self.qualified(&name, schema, &mut out)?;
            }
            Class::Collation => {
                let (name, schema, encoding) = self.read(class, oid, |tuple| {
                    // SAFETY: a tuple of pg_collation.
                    let form = unsafe { &*pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_collation>(tuple) };
                    (name_of(&form.collname), form.collnamespace, form.collencoding)
                })?;
                self.qualified(&name, schema, &mut out)?;
                out.put_u32(encoding as u32);
            }
            Class::SearchConfiguration | Class::SearchDictionary => self.search_object(class, oid, &mut out)?,
        }
        self.parts.push(bytes_hash(&out));
        Ok(out)
    }

    fn procedure(&mut self, oid: Oid, out: &mut Vec<u8>) -> Result<(), NoIdentity> {
        let (name, schema, arguments) = self.read(Class::Procedure, oid, |tuple| {
            // SAFETY: a tuple of pg_proc; the vector holds `pronargs` OIDs.
            unsafe {
                let form = &*pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_proc>(tuple);
                let count = usize::try_from(form.pronargs).unwrap_or(0);
                (name_of(&form.proname), form.pronamespace, form.proargtypes.values.as_slice(count).to_vec())
            }
        })?;
        self.qualified(&name, schema, out)?;
        out.put_varint(arguments.len() as u64);
        for argument in arguments {
            out.extend(self.object(Class::Type, argument)?);
        }
        Ok(())
    }

    fn operator(&mut self, oid: Oid, out: &mut Vec<u8>) -> Result<(), NoIdentity> {
        let (name, schema, operands) = self.read(Class::Operator, oid, |tuple| {
            // SAFETY: a tuple of pg_operator.
            let form = unsafe { &*pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_operator>(tuple) };
            (name_of(&form.oprname), form.oprnamespace, [form.oprleft, form.oprright])
        })?;
        self.qualified(&name, schema, out)?;
        for operand in operands {
            out.put_u8(u8::from(valid(operand).is_some()));
            if let Some(operand) = valid(operand) {
                out.extend(self.object(Class::Type, operand)?);
            }
        }
        Ok(())
    }

    fn search_object(&mut self, class: Class, oid: Oid, out: &mut Vec<u8>) -> Result<(), NoIdentity> {
        let (name, schema) = self.read(class, oid, |tuple| {
            // SAFETY: both catalogs have a name and an OID in these columns, which are never null.
            unsafe {
                let mut is_null = false;
                let name = pg_sys::SysCacheGetAttr(class.cache() as i32, tuple, SEARCH_NAME, &mut is_null);
                let schema = pg_sys::SysCacheGetAttr(class.cache() as i32, tuple, SEARCH_SCHEMA, &mut is_null);
                (name_of(&*name.cast_mut_ptr::<pg_sys::NameData>()), Oid::from(schema.value() as u32))
            }
        })?;
        self.qualified(&name, schema, out)
    }

    fn type_(&mut self, oid: Oid, out: &mut Vec<u8>) -> Result<(), NoIdentity> {
        let (name, schema) = self.read(Class::Type, oid, |tuple| {
            // SAFETY: a tuple of pg_type.
            let form = unsafe { &*pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_type>(tuple) };
            (name_of(&form.typname), form.typnamespace)
        })?;
        // The name of an array type is made up, with as many underscores as it takes.
        // SAFETY: syscache look-ups; they say nothing that ever changes of a type.
        let element = unsafe { valid(pg_sys::get_element_type(oid)).filter(|&of| pg_sys::get_array_type(of) == oid) };
        out.put_u8(u8::from(element.is_some()));
        match element {
            Some(element) => out.extend(self.object(Class::Type, element)?),
            None => self.qualified(&name, schema, out)?,
        }
        Ok(())
    }

    fn qualified(&mut self, name: &str, schema: Oid, out: &mut Vec<u8>) -> Result<(), NoIdentity> {
        let identity = self.object(Class::Namespace, schema)?;
        // SAFETY: looks at the OID only.
        if unsafe { pg_sys::IsToastNamespace(schema) } {
            return Err(NoIdentity::Toast);
        }
        out.extend_from_slice(&identity[1..]);
        out.put_str(name);
        Ok(())
    }

    fn read<R>(&self, class: Class, oid: Oid, read: impl FnOnce(pg_sys::HeapTuple) -> R) -> Result<R, NoIdentity> {
        with_tuple(class.cache(), oid, self.reading, read).ok_or(NoIdentity::Missing)
    }
}

fn with_tuple<R>(cache: Cache::Type, oid: Oid, reading: Reading, read: impl FnOnce(pg_sys::HeapTuple) -> R) -> Option<R> {
    look_up(cache, &[pg_sys::Datum::from(oid)], reading, read)
}

/// Reads one entry of a syscache by its keys.
fn look_up<R>(
    cache: Cache::Type,
    keys: &[pg_sys::Datum],
    reading: Reading,
    read: impl FnOnce(pg_sys::HeapTuple) -> R,
) -> Option<R> {
    let cache = cache as i32;
    let key = |at: usize| keys.get(at).copied().unwrap_or(pg_sys::Datum::null());
    // SAFETY: the cache takes keys of these types; what another process has changed may be thrown out of it at any time, and is read again
    // with a new snapshot of the catalogs. The tuple is released after it was read.
    unsafe {
        if reading == Reading::Fresh {
            let hash = pg_sys::GetSysCacheHashValue(cache, key(0), key(1), key(2), key(3));
            pg_sys::InvalidateCatalogSnapshot();
            pg_sys::SysCacheInvalidate(cache, hash);
        }
        let tuple = match keys.len() {
            1 => pg_sys::SearchSysCache1(cache, key(0)),
            2 => pg_sys::SearchSysCache2(cache, key(0), key(1)),
            3 => pg_sys::SearchSysCache3(cache, key(0), key(1), key(2)),
            _ => pg_sys::SearchSysCache4(cache, key(0), key(1), key(2), key(3)),
        };
        if tuple.is_null() {
            return None;
        }
        let result = read(tuple);
        pg_sys::ReleaseSysCache(tuple);
        Some(result)
    }
}

/// Reads an identity, and finds its object. Reads all of it also where a part of it is not there.
fn find_object(reader: &mut Reader<'_>) -> Result<Option<Oid>, WireError> {
    let class = Class::from_wire(reader.u8()?)?;
    Ok(match class {
        Class::Namespace => oid_of(Cache::NAMESPACENAME, &[name(reader)?.as_key()]),
        Class::Role => oid_of(Cache::AUTHNAME, &[name(reader)?.as_key()]),
        Class::Relation => by_schema(reader, |schema, name| oid_of(Cache::RELNAMENSP, &[name, schema]))?,
        Class::SearchConfiguration => by_schema(reader, |schema, name| oid_of(Cache::TSCONFIGNAMENSP, &[name, schema]))?,
        Class::SearchDictionary => by_schema(reader, |schema, name| oid_of(Cache::TSDICTNAMENSP, &[name, schema]))?,
        Class::Type if reader.u8()? == 0 => by_schema(reader, |schema, name| oid_of(Cache::TYPENAMENSP, &[name, schema]))?,
        Class::Type => {
            let element = find_object(reader)?;
            // SAFETY: a syscache look-up; a type's array type never changes.
            element.and_then(|element| valid(unsafe { pg_sys::get_array_type(element) }))
        }
        Class::Collation => {
            let (schema, name) = (name(reader)?, name(reader)?);
            let encoding = pg_sys::Datum::from(reader.u32()? as i32);
            schema.namespace().and_then(|schema| oid_of(Cache::COLLNAMEENCNSP, &[name.as_key(), encoding, schema]))
        }
        Class::Procedure => find_procedure(reader)?,
        Class::Operator => {
            let (schema, name) = (name(reader)?, name(reader)?);
            let mut operands = [Some(pg_sys::InvalidOid); 2];
            for operand in &mut operands {
                if reader.u8()? != 0 {
                    *operand = find_object(reader)?;
                }
            }
            match (schema.namespace(), operands) {
                (Some(schema), [Some(left), Some(right)]) => {
                    let keys = [name.as_key(), pg_sys::Datum::from(left), pg_sys::Datum::from(right), schema];
                    oid_of(Cache::OPERNAMENSP, &keys)
                }
                _ => None,
            }
        }
    })
}

fn find_procedure(reader: &mut Reader<'_>) -> Result<Option<Oid>, WireError> {
    let (schema, name) = (name(reader)?, name(reader)?);
    let count = reader.varint()?;
    let mut arguments = Vec::new();
    for _ in 0..count {
        arguments.push(find_object(reader)?);
    }
    let arguments: Option<Vec<Oid>> = arguments.into_iter().collect();
    Ok(schema.namespace().zip(arguments).and_then(|(schema, arguments)| {
        // SAFETY: makes a palloc'd copy of the OIDs.
        let vector = unsafe { pg_sys::buildoidvector(arguments.as_ptr(), arguments.len() as i32) };
        oid_of(Cache::PROCNAMEARGSNSP, &[name.as_key(), pg_sys::Datum::from(vector), schema])
    }))
}

/// A name as read, as the key of a look-up.
struct Name(CString);

impl Name {
    fn as_key(&self) -> pg_sys::Datum {
        pg_sys::Datum::from(self.0.as_ptr())
    }

    /// The schema of this name.
    fn namespace(&self) -> Option<pg_sys::Datum> {
        oid_of(Cache::NAMESPACENAME, &[self.as_key()]).map(pg_sys::Datum::from)
    }
}

fn name(reader: &mut Reader<'_>) -> Result<Name, WireError> {
    let name = reader.str("name of an object", NAME_BYTES_MAX)?;
    encoding::c_string(name).map(Name).ok_or(WireError::OutOfRange { what: "zero byte in a name" })
}

fn by_schema(
    reader: &mut Reader<'_>,
    find: impl FnOnce(pg_sys::Datum, pg_sys::Datum) -> Option<Oid>,
) -> Result<Option<Oid>, WireError> {
    let (schema, name) = (name(reader)?, name(reader)?);
    Ok(schema.namespace().and_then(|schema| find(schema, name.as_key())))
}

/// The OID of the entry with these keys: the first column of each of these catalogs.
fn oid_of(cache: Cache::Type, keys: &[pg_sys::Datum]) -> Option<Oid> {
    look_up(cache, keys, Reading::Fresh, |tuple| {
        let mut is_null = false;
        // SAFETY: an OID, never null.
        let oid = unsafe { pg_sys::SysCacheGetAttr(cache as i32, tuple, 1, &mut is_null) };
        Oid::from(oid.value() as u32)
    })
}

fn text_of(reader: &mut Reader<'_>) -> Result<String, WireError> {
    let class = Class::from_wire(reader.u8()?)?;
    if class == Class::Type && reader.u8()? != 0 {
        return Ok(format!("{}[]", text_of(reader)?));
    }
    let first = quoted(reader.str("name of an object", NAME_BYTES_MAX)?);
    if matches!(class, Class::Namespace | Class::Role) {
        return Ok(first);
    }
    let second = reader.str("name of an object", NAME_BYTES_MAX)?;
    let second = if class == Class::Operator { second.to_owned() } else { quoted(second) };
    let mut arguments = Vec::new();
    match class {
        Class::Procedure => {
            for _ in 0..reader.varint()? {
                arguments.push(text_of(reader)?);
            }
        }
        Class::Operator => {
            for _ in 0..2 {
                arguments.push(if reader.u8()? == 0 { "NONE".to_owned() } else { text_of(reader)? });
            }
        }
        _ => return Ok(format!("{first}.{second}")),
    }
    Ok(format!("{first}.{second}({})", arguments.join(",")))
}
