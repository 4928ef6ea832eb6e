//! Runs one ordered statement of a writeset, as the role and under the settings it ran with on its origin.

use std::ffi::CString;

use gcs_writeset::body::{Setting, Settings};
use gcs_writeset::wire::WireError;

use super::divergence::Divergence;
use crate::pg::role::{self, Acting};
use crate::pg::setting::Scope;
use crate::pg::utility;

pub fn execute(role: &str, settings: Settings<'_>, text: &str) -> Result<(), Divergence> {
    let role = role::find(role).ok_or_else(|| Divergence::NoRole(role.to_owned()))?;
    let text = CString::new(text).map_err(|_| WireError::OutOfRange { what: "zero byte in a statement" })?;
    let _role = Acting::fully(role);
    let mut scope = Scope::at_defaults();
    for Setting { name, value, by_superuser } in settings.iter() {
        if !scope.set_for(name, value, by_superuser) {
            return Err(Divergence::Setting { name: name.to_owned(), value: value.to_owned() });
        }
    }
    utility::run_text(&text);
    Ok(())
}
