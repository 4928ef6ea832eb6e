//! Acting as another role for a while.

use pgrx::pg_sys;

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

/// The current role's name.
pub fn current_name() -> Option<String> {
    // SAFETY: a catalog look-up giving a palloc'd string.
    unsafe { owned(pg_sys::GetUserNameFromId(pg_sys::GetUserId(), true)) }
}

/// Whether no privilege is asked for.
pub fn is_superuser() -> bool {
    // SAFETY: a catalog look-up of the current role.
    unsafe { pg_sys::superuser() }
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
    let name = std::ffi::CString::new(name).ok()?;
    // SAFETY: a catalog look-up with a C string that outlives it.
    valid(unsafe { pg_sys::get_role_oid(name.as_ptr(), true) })
}
