//! What a node is for, as the configuration says it: `role`, or `witness = true` for short.

use gcs_writeset::NodeKind;
use serde::Deserialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    Full,
    QueryOnly,
    Witness,
}

impl Role {
    fn kind(self) -> NodeKind {
        match self {
            Role::Full => NodeKind::Full,
            Role::QueryOnly => NodeKind::QueryOnly,
            Role::Witness => NodeKind::Witness,
        }
    }
}

/// By the two keys; `None` where neither is there. Both may be, if they say the same.
pub fn kind(of: &str, role: Option<Role>, witness: Option<bool>) -> Result<Option<NodeKind>, String> {
    match (role.map(Role::kind), witness) {
        (Some(kind), Some(is_witness)) if is_witness != (kind == NodeKind::Witness) => {
            Err(format!("{of} has role = \"{}\" and witness = {is_witness}, which disagree", kind.name()))
        }
        (Some(kind), _) => Ok(Some(kind)),
        (None, Some(true)) => Ok(Some(NodeKind::Witness)),
        (None, Some(false) | None) => Ok(None),
    }
}

/// Of this node, which may say it for itself, and in its own entry among the peers.
pub fn own(own: Option<NodeKind>, listed: Option<NodeKind>) -> Result<NodeKind, String> {
    match (own, listed) {
        (Some(own), Some(listed)) if own != listed => {
            Err(format!("this node is {} by itself, but {} in its entry under [[peers]]", own.name(), listed.name()))
        }
        (own, listed) => Ok(own.or(listed).unwrap_or_default()),
    }
}
