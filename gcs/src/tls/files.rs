//! Certificates and keys on disk, and who may read them.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;

use super::certificate::{CertificateProblem, normal_serial};
use super::moment::Moment;
use super::name::NodeName;

/// Why credentials cannot be used. Files are named by their keys in the configuration.
#[derive(Debug, Error)]
pub enum TlsError {
    #[error("could not read {what} \"{}\": {source}", path.display())]
    Read { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{what} \"{}\" can be read by others (mode {mode:04o}), run chmod 600 on it", path.display())]
    Readable { what: &'static str, path: PathBuf, mode: u32 },
    #[error("{what} \"{}\" has nothing in it that can be read as {wanted} in PEM", path.display())]
    Pem { what: &'static str, path: PathBuf, wanted: &'static str },
    #[error("{what} \"{}\" {problem}", path.display())]
    Certificate { what: &'static str, path: PathBuf, problem: CertificateProblem },
    #[error("certificate_file \"{}\" is of {found}, but this node is {expected}", path.display())]
    OtherName { path: PathBuf, found: String, expected: NodeName },
    #[error("key_file \"{}\" does not belong to the certificate in \"{}\"", key.display(), certificate.display())]
    OtherKey { key: PathBuf, certificate: PathBuf },
    #[error("certificate_file \"{}\" {message}", path.display())]
    Untrusted { path: PathBuf, message: String },
    #[error("certificate_file \"{}\" expired on {at}", path.display())]
    Expired { path: PathBuf, at: Moment },
    #[error("revoked_file \"{}\", line {line}: not the serial number of a certificate in hexadecimal digits", path.display())]
    Serial { path: PathBuf, line: usize },
    #[error("could not set up TLS: {0}")]
    Setup(rustls::Error),
}

/// All certificates in a file, at least one.
pub fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(what, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(TlsError::Pem { what, path: path.to_owned(), wanted: "a certificate" }),
    }
}

/// The private key in a file that nobody else can read.
pub fn key(what: &'static str, path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = secret(what, path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| TlsError::Pem { what, path: path.to_owned(), wanted: "a private key" })
}

/// The content of a file that nobody else can read. A group may be let in to read (root's keys are often lent that way), not to write.
pub fn secret(what: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    const FOR_OTHERS: u32 = 0o037;
    let mode = std::fs::metadata(path).map_err(failed(what, path))?.permissions().mode() & 0o7777;
    if mode & FOR_OTHERS != 0 {
        return Err(TlsError::Readable { what, path: path.to_owned(), mode });
    }
    read(what, path)
}

/// Serial numbers, one a line; what follows a `#` is a remark.
pub fn serials(path: &Path) -> Result<Vec<String>, TlsError> {
    let text = read("revoked_file", path)?;
    let text = String::from_utf8_lossy(&text);
    let mut serials = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let entry = line.split('#').next().unwrap_or_default().trim();
        if entry.is_empty() {
            continue;
        }
        if !entry.chars().all(|c| c.is_ascii_hexdigit() || c == ':') || !entry.contains(|c: char| c.is_ascii_hexdigit()) {
            return Err(TlsError::Serial { path: path.to_owned(), line: number + 1 });
        }
        serials.push(normal_serial(entry));
    }
    Ok(serials)
}

/// Larger files than any of these can be are not read to their end.
const FILE_BYTES_MAX: u64 = 1 << 20;

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    use std::io::Read;
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(failed(what, path))?;
    file.take(FILE_BYTES_MAX).read_to_end(&mut text).map_err(failed(what, path))?;
    Ok(text)
}

fn failed<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> TlsError + 'a {
    move |source| TlsError::Read { what, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revoked_serials_are_read_and_anything_else_is_named_by_its_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("revoked");
        std::fs::write(&path, "# lost with the laptop\n0A:1b # node3\n\n ff\n").unwrap();
        assert_eq!(serials(&path).unwrap(), ["a1b", "ff"]);
        for bad in ["ff\nnode3\n", "ff\n:\n", "ff\n0x1\n"] {
            std::fs::write(&path, bad).unwrap();
            assert!(matches!(serials(&path), Err(TlsError::Serial { line: 2, .. })), "{bad}");
        }
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node.key");
        std::fs::write(&path, "x").unwrap();
        for mode in [0o644, 0o604, 0o620, 0o666, 0o601] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let error = key("key_file", &path).unwrap_err().to_string();
            assert!(error.contains("node.key") && error.contains("can be read by others"), "{error}");
        }
        for mode in [0o600, 0o400, 0o640] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(key("key_file", &path), Err(TlsError::Pem { .. })));
        }
    }
}
