//! Statements about subscriptions: what each is about, and what is for other nodes of it (docs/adr/0069-subscriptions.md).
//!
//! A definition is everybody's, and one node subscribes. What asks the publisher for something (to make or drop a slot, for the tables of a publication) is done where
//! the statement is run; other nodes get a statement that asks nothing.

use std::ffi::CStr;

use pgrx::pg_sys;
use pgrx::pg_sys::AlterSubscriptionType as Kind;
use pgrx::pg_sys::NodeTag as Tag;

use super::names::{owned, quoted, quoted_text};
use super::{encoding, list};

/// What a statement about a subscription is about, where that is more than its definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    /// CREATE that connects to the publisher.
    Create {
        enables: bool,
    },
    /// ALTER ... ENABLE: from now on this node subscribes.
    Enable,
    /// ALTER ... DISABLE: nobody does.
    Disable,
    /// ALTER ... SET of what is not to be changed while somebody subscribes: slot_name, or this one.
    Options {
        refused: Option<&'static str>,
    },
    /// What asks the publisher which tables its publications have.
    Refresh,
    Drop,
    Rename {
        to: String,
    },
}

/// A statement about the subscription of this name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    pub name: String,
    pub about: About,
}

/// What a subscription with these options is called that cannot be enabled, with a hint: it may be defined, and enabled where the database is not replicated.
pub fn refused(two_phase: bool, disable_on_error: bool) -> Option<(&'static str, &'static str)> {
    match (two_phase, disable_on_error) {
        (true, _) => Some((TWO_PHASE, "Without it, what the publisher prepares comes when it is committed there.")),
        (false, true) => Some((DISABLE_ON_ERROR, "What the group decides against would disable it.")),
        (false, false) => None,
    }
}

const TWO_PHASE: &str = "a subscription with two_phase";
const DISABLE_ON_ERROR: &str = "a subscription with disable_on_error";

/// Why a CREATE SUBSCRIPTION that connects is not replicated, with a hint.
///
/// # Safety
/// `node` must be the parse tree of a utility statement.
pub(super) unsafe fn refusal(node: *mut pg_sys::Node) -> Option<(&'static str, &'static str)> {
    // SAFETY: the tag says what the node is.
    unsafe {
        if (*node).type_ != Tag::T_CreateSubscriptionStmt || statement(node).is_none() {
            return None;
        }
        let options = (*node.cast::<pg_sys::CreateSubscriptionStmt>()).options;
        let wants = |name| is_set(options, name).unwrap_or(false);
        refused(wants(c"two_phase"), wants(c"disable_on_error"))
    }
}

/// # Safety
/// `node` must be the parse tree of a utility statement.
pub(super) unsafe fn statement(node: *mut pg_sys::Node) -> Option<Statement> {
    let found = |name: *const std::ffi::c_char, about| {
        // SAFETY: by contract, names are C strings.
        Some(Statement { name: encoding::text(unsafe { CStr::from_ptr(name) }), about })
    };
    // SAFETY: each tag says what the node is.
    unsafe {
        match (*node).type_ {
            Tag::T_CreateSubscriptionStmt => {
                let statement = &*node.cast::<pg_sys::CreateSubscriptionStmt>();
                let enables = is_set(statement.options, c"enabled").unwrap_or(true);
                let connects = is_set(statement.options, c"connect").unwrap_or(true);
                connects.then(|| found(statement.subname, About::Create { enables })).flatten()
            }
            Tag::T_AlterSubscriptionStmt => {
                let statement = &*node.cast::<pg_sys::AlterSubscriptionStmt>();
                found(statement.subname, of_alter(statement)?)
            }
            Tag::T_DropSubscriptionStmt => found((*node.cast::<pg_sys::DropSubscriptionStmt>()).subname, About::Drop),
            Tag::T_RenameStmt => {
                let statement = &*node.cast::<pg_sys::RenameStmt>();
                if statement.renameType != pg_sys::ObjectType::OBJECT_SUBSCRIPTION {
                    return None;
                }
                let to = encoding::text(CStr::from_ptr(statement.newname));
                found(text_of(statement.object), About::Rename { to })
            }
            _ => None,
        }
    }
}

unsafe fn of_alter(statement: &pg_sys::AlterSubscriptionStmt) -> Option<About> {
    // SAFETY: a parse tree's.
    unsafe {
        match statement.kind {
            Kind::ALTER_SUBSCRIPTION_ENABLED if is_set(statement.options, c"enabled") == Some(true) => Some(About::Enable),
            Kind::ALTER_SUBSCRIPTION_ENABLED => Some(About::Disable),
            Kind::ALTER_SUBSCRIPTION_OPTIONS if is_set(statement.options, c"disable_on_error") == Some(true) => {
                Some(About::Options { refused: Some(DISABLE_ON_ERROR) })
            }
            Kind::ALTER_SUBSCRIPTION_OPTIONS if option(statement.options, c"slot_name").is_some() => {
                Some(About::Options { refused: None })
            }
            Kind::ALTER_SUBSCRIPTION_REFRESH => Some(About::Refresh),
            _ if changes_publications(statement) => {
                is_set(statement.options, c"refresh").unwrap_or(true).then_some(About::Refresh)
            }
            _ => None,
        }
    }
}

fn changes_publications(statement: &pg_sys::AlterSubscriptionStmt) -> bool {
    matches!(
        statement.kind,
        Kind::ALTER_SUBSCRIPTION_SET_PUBLICATION
            | Kind::ALTER_SUBSCRIPTION_ADD_PUBLICATION
            | Kind::ALTER_SUBSCRIPTION_DROP_PUBLICATION
    )
}

/// What other nodes run of a statement that asks the publisher; none if they run it as it stands.
///
/// # Safety
/// `node` must be the parse tree of a utility statement.
pub(super) unsafe fn elsewhere(node: *mut pg_sys::Node) -> Option<String> {
    // SAFETY: by contract; each tag says what the node is.
    unsafe {
        let Statement { name, about } = statement(node)?;
        let name = quoted(&name);
        match about {
            About::Create { .. } => {
                let statement = &*node.cast::<pg_sys::CreateSubscriptionStmt>();
                let connection = quoted_text(&encoding::text(CStr::from_ptr(statement.conninfo)));
                let (publications, options) = (names(statement.publication), kept_options(statement.options));
                Some(format!(
                    "CREATE SUBSCRIPTION {name} CONNECTION {connection} PUBLICATION {publications} WITH ({options})"
                ))
            }
            About::Refresh => {
                let statement = &*node.cast::<pg_sys::AlterSubscriptionStmt>();
                let verb = match statement.kind {
                    Kind::ALTER_SUBSCRIPTION_SET_PUBLICATION => "SET",
                    Kind::ALTER_SUBSCRIPTION_ADD_PUBLICATION => "ADD",
                    Kind::ALTER_SUBSCRIPTION_DROP_PUBLICATION => "DROP",
                    // Which tables there are, the rows say that travel along.
                    _ => return Some("SELECT".to_owned()),
                };
                let publications = names(statement.publication);
                Some(format!("ALTER SUBSCRIPTION {name} {verb} PUBLICATION {publications} WITH (refresh = false)"))
            }
            About::Drop => Some(format!(
                "ALTER SUBSCRIPTION {name} DISABLE; ALTER SUBSCRIPTION {name} SET (slot_name = NONE); DROP SUBSCRIPTION {name}"
            )),
            _ => None,
        }
    }
}

/// The options of a CREATE SUBSCRIPTION that does not connect.
unsafe fn kept_options(options: *mut pg_sys::List) -> String {
    const OF_CONNECTING: [&CStr; 4] = [c"connect", c"enabled", c"create_slot", c"copy_data"];
    let mut kept = vec!["connect = false".to_owned()];
    // SAFETY: a parse tree's list of DefElem, each with a name; the value is a palloc'd C string.
    unsafe {
        for option in list::pointers::<pg_sys::DefElem>(options) {
            let name = CStr::from_ptr((*option).defname);
            if OF_CONNECTING.contains(&name) {
                continue;
            }
            let name = quoted(&encoding::text(name));
            kept.push(match (*option).arg.is_null() {
                true => name,
                false => {
                    let value = owned(pg_sys::pstrdup(pg_sys::defGetString(option))).unwrap_or_default();
                    format!("{name} = {}", quoted_text(&value))
                }
            });
        }
    }
    kept.join(", ")
}

/// Names as a list in SQL.
unsafe fn names(publications: *mut pg_sys::List) -> String {
    // SAFETY: a parse tree's list of strings.
    unsafe {
        let names = list::pointers::<pg_sys::Node>(publications).into_iter();
        names.map(|name| quoted(&encoding::text(CStr::from_ptr(text_of(name))))).collect::<Vec<_>>().join(", ")
    }
}

/// The text of a parse tree's string.
unsafe fn text_of(node: *mut pg_sys::Node) -> *const std::ffi::c_char {
    // SAFETY: a parse tree's string.
    unsafe { (*node.cast::<pg_sys::String>()).sval }
}

/// An option of this name, the last one if it is given twice.
unsafe fn option(options: *mut pg_sys::List, name: &CStr) -> Option<*mut pg_sys::DefElem> {
    // SAFETY: a parse tree's list of DefElem, each with a name.
    unsafe {
        list::pointers::<pg_sys::DefElem>(options)
            .into_iter()
            .filter(|&option| CStr::from_ptr((*option).defname) == name)
            .last()
    }
}

/// The value of a boolean option.
unsafe fn is_set(options: *mut pg_sys::List, name: &CStr) -> Option<bool> {
    // SAFETY: as above. A value that is no boolean is PostgreSQL's own error, now or later.
    unsafe { option(options, name).map(|option| pg_sys::defGetBoolean(option)) }
}

/// Makes ALTER SUBSCRIPTION ... DISABLE of ALTER SUBSCRIPTION ... ENABLE.
///
/// # Safety
/// `node` must be a copy of the parse tree of such a statement.
pub(super) unsafe fn disable(node: *mut pg_sys::Node) {
    // SAFETY: by contract; a boolean in a parse tree is changed in place.
    unsafe {
        let statement = &*node.cast::<pg_sys::AlterSubscriptionStmt>();
        if let Some(option) = option(statement.options, c"enabled") {
            (*option).arg = pg_sys::makeBoolean(false).cast();
        }
    }
}
