//! `[tls]` in the configuration: where certificates and keys are.

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// The table as it stands in the file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    ca_file: PathBuf,
    certificate_file: PathBuf,
    key_file: PathBuf,
    ca_key_file: Option<PathBuf>,
    revoked_file: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The authorities whose certificates are believed.
    pub ca_file: PathBuf,
    /// This node's certificate, and those between it and an authority, if any.
    pub certificate_file: PathBuf,
    pub key_file: PathBuf,
    /// On the node that signs certificates: the key of an authority in `ca_file`.
    pub ca_key_file: Option<PathBuf>,
    /// Serial numbers of certificates that are not to be believed any more.
    pub revoked_file: Option<PathBuf>,
}

impl Table {
    pub(super) fn resolve(self, base: &Path) -> Tls {
        Tls {
            ca_file: base.join(self.ca_file),
            certificate_file: base.join(self.certificate_file),
            key_file: base.join(self.key_file),
            ca_key_file: self.ca_key_file.map(|path| base.join(path)),
            revoked_file: self.revoked_file.map(|path| base.join(path)),
        }
    }
}

/// Keys of the table, for the hint about an unknown one.
pub(super) const KEYS: [&str; 5] = ["ca_file", "certificate_file", "key_file", "ca_key_file", "revoked_file"];
