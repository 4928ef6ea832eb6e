//! Acting as another role for a while.

use pgrx::pg_sys;

use super::encoding;
use super::names::{Oid, owned, valid};

/// The role and security context that were in force before; put back when dropped. After an ERROR the transaction's end does that.
pub struct Acting {
    user: pg_sys::Oid,
    context: std::ffi::c_int,
}

impl Acting {
    /// Acts as `role`, unable to leave anything behind in the session.
    pub fn restricted(role: Oid) -> Acting {
        Acting::with(role, pg_sys::SECURITY_RESTRICTED_OPERATION as std::ffi::c_int)
    }

    /// Acts as `role` would in a session of its own.
    pub fn fully(role: Oid) -> Acting {
        Acting::with(role, 0)
    }

    /// Acts as `role` in a security context of PostgreSQL's: inside a SECURITY DEFINER function, say.
    pub fn within(role: Oid, context: u8) -> Acting {
        Acting::with(role, std::ffi::c_int::from(context))
    }

    /// Acts as the superuser that PostgreSQL is made with.
    pub fn superuser() -> Acting {
        Acting::restricted(Oid::from(pg_sys::BOOTSTRAP_SUPERUSERID))
    }

    fn with(role: Oid, flags: std::ffi::c_int) -> Acting {
        let mut before = Acting { user: pg_sys::InvalidOid, context: 0 };
        // SAFETY: reads and assigns this process's role.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&mut before.user, &mut before.context);
            pg_sys::SetUserIdAndSecContext(role, before.context | flags);
        }
        before
    }
}

impl Drop for Acting {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: the values that were in force before.
            unsafe { pg_sys::SetUserIdAndSecContext(self.user, self.context) }
        }
    }
}

/// Who a session is, now.
pub struct Identity {
    pub session: String,
    /// What SET ROLE has set; empty if nothing.
    pub set: String,
    pub current: String,
    pub context: u8,
}

pub fn identity() -> Identity {
    let (mut user, mut context) = (pg_sys::InvalidOid, 0);
    // SAFETY: reads variables of this process. PostgreSQL has three flags.
    let (session, set) = unsafe {
        pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
        (pg_sys::GetSessionUserId(), pg_sys::GetCurrentRoleId())
    };
    let name = |role| valid(role).and_then(name_of).unwrap_or_default();
    Identity { session: name(session), set: name(set), current: name(user), context: context as u8 }
}

/// The role that a background worker is connected as.
pub fn of_worker() -> Option<String> {
    name_of(pg_sys::Oid::from(pg_sys::BOOTSTRAP_SUPERUSERID))
}

/// Whether no privilege is asked for.
pub fn is_superuser() -> bool {
    // SAFETY: a catalog look-up of the current role.
    unsafe { pg_sys::superuser() }
}

/// The current role: whoever makes something now owns it.
pub fn current() -> Oid {
    // SAFETY: reads a variable of this process.
    unsafe { pg_sys::GetUserId() }
}

/// The session's current role, also inside functions that run as their owner.
pub fn outer() -> Oid {
    // SAFETY: reads a variable of this process.
    unsafe { pg_sys::GetOuterUserId() }
}

/// A role's name; none if it is gone.
pub fn name_of(role: Oid) -> Option<String> {
    // SAFETY: a catalog look-up giving a palloc'd string or null.
    unsafe { owned(pg_sys::GetUserNameFromId(role, true)) }
}

pub fn find(name: &str) -> Option<Oid> {
    let name = encoding::c_string(name)?;
    // SAFETY: a catalog look-up with a C string that outlives it.
    valid(unsafe { pg_sys::get_role_oid(name.as_ptr(), true) })
}
