//! Keys, certificates and signatures: all of it ECDSA on P-256, which every TLS library speaks.
//!
//! Certificates begin a day before they are made, for nodes whose clocks are behind.

use std::path::Path;
use std::time::Duration;

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::pki_types::CertificateDer;
use thiserror::Error;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::tls::certificate::Facts;
use crate::tls::{Moment, NodeName, TlsError, files};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const AUTHORITY_LIFE: Duration = Duration::from_secs(3650 * 24 * 60 * 60);
const NODE_LIFE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

#[derive(Debug, Error)]
pub enum AuthorityError {
    #[error("{0}")]
    File(#[from] TlsError),
    #[error("the key in ca_key_file \"{0}\" is none that can sign certificates")]
    Key(String),
    #[error("the key in ca_key_file \"{key}\" belongs to no certificate in ca_file \"{certificates}\"")]
    OtherKey { key: String, certificates: String },
    #[error("could not make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    #[error("the system has no random numbers")]
    NoRandomness,
}

/// A certificate with the key that belongs to it, in PEM.
#[derive(Clone)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

/// A key of a node that asks for a certificate, and the request for it (DER).
pub struct Request {
    pub key: String,
    pub request: Vec<u8>,
}

/// The key of an authority, with its certificate.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub certificate: CertificateDer<'static>,
    /// Until when it may sign.
    not_after: Moment,
}

/// A new authority for the group, made on this node.
pub fn make_authority(name: &NodeName) -> Result<Pair, AuthorityError> {
    let key = KeyPair::generate()?;
    let mut params = params(name, &format!("authority of group {}", name.group), AUTHORITY_LIFE)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key)?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
}

pub fn make_request(name: &NodeName) -> Result<Request, AuthorityError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(name, &name.node);
    let request = params.serialize_request(&key)?;
    Ok(Request { key: key.serialize_pem(), request: request.der().to_vec() })
}

impl Authority {
    /// The one whose key is in one file; its certificate is among those in the other.
    pub fn load(key_file: &Path, certificates_file: &Path) -> Result<Authority, AuthorityError> {
        let key = files::secret("ca_key_file", key_file)?;
        let unusable = || AuthorityError::Key(key_file.display().to_string());
        let key = String::from_utf8(key).map_err(|_| unusable())?;
        let key = KeyPair::from_pem(&key).map_err(|_| unusable())?;
        for certificate in files::certificates("ca_file", certificates_file)? {
            let is_its = X509Certificate::from_der(&certificate)
                .is_ok_and(|(_, parsed)| parsed.public_key().subject_public_key.data == key.public_key_raw());
            if is_its {
                let not_after = Facts::of(&certificate).map(|facts| facts.not_after).map_err(|_| unusable())?;
                return Ok(Authority { issuer: Issuer::from_ca_cert_der(&certificate, key)?, certificate, not_after });
            }
        }
        let (key, certificates) = (key_file.display().to_string(), certificates_file.display().to_string());
        Err(AuthorityError::OtherKey { key, certificates })
    }

    /// A certificate that gives this name to the key in a request. What else the request wishes for counts nothing.
    pub fn sign(&self, name: &NodeName, request: &[u8]) -> Result<CertificateDer<'static>, AuthorityError> {
        let request = CertificateSigningRequestParams::from_der(&request.into())?;
        let mut params = params(name, &name.node, NODE_LIFE)?;
        params.not_after = params.not_after.min(at(self.not_after));
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        Ok(params.signed_by(&request.public_key, &self.issuer)?.der().clone())
    }
}

fn params(name: &NodeName, common_name: &str, life: Duration) -> Result<CertificateParams, AuthorityError> {
    let now = Moment::now();
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(name, common_name);
    params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(name.to_string())?)];
    params.serial_number = Some(serial()?);
    params.not_before = at(now.before(DAY));
    params.not_after = at(now.after(life));
    Ok(params)
}

fn subject(name: &NodeName, common_name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, name.group.clone());
    subject.push(DnType::CommonName, common_name);
    subject
}

/// Random, positive, and of the same length always.
fn serial() -> Result<SerialNumber, AuthorityError> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| AuthorityError::NoRandomness)?;
    bytes[0] = bytes[0] & 0x3f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn at(moment: Moment) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(moment.unix_seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// Certificates (DER) as they stand in a file.
pub fn to_pem<'a>(certificates: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut text = String::new();
    for certificate in certificates {
        let encoded = data_encoding::BASE64.encode(certificate);
        text += "-----BEGIN CERTIFICATE-----\n";
        for line in encoded.as_bytes().chunks(64) {
            text += &String::from_utf8_lossy(line);
            text.push('\n');
        }
        text += "-----END CERTIFICATE-----\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::OpenOptionsExt;

    fn authority() -> Authority {
        let directory = tempfile::tempdir().unwrap();
        let pair = make_authority(&NodeName::new("g", "n1")).unwrap();
        let (key, certificate) = (directory.path().join("ca.key"), directory.path().join("ca.pem"));
        let mut file = std::fs::File::options().create_new(true).write(true).mode(0o600).open(&key).unwrap();
        std::io::Write::write_all(&mut file, pair.key.as_bytes()).unwrap();
        std::fs::write(&certificate, &pair.certificate).unwrap();
        Authority::load(&key, &certificate).unwrap()
    }

    #[test]
    fn a_request_gets_the_name_that_it_is_given_and_not_the_one_it_wishes_for() {
        let request = make_request(&NodeName::new("other", "ca")).unwrap();
        let certificate = authority().sign(&NodeName::new("g", "n2"), &request.request).unwrap();
        let facts = Facts::of(&certificate).unwrap();
        assert_eq!(facts.name, Some(NodeName::new("g", "n2")));
        let now = Moment::now();
        assert!(facts.not_before < now && facts.not_after.days_since(now) >= 364);
        let pem = to_pem([&certificate[..]]);
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("c"), pem).unwrap();
        assert_eq!(files::certificates("c", &directory.path().join("c")).unwrap(), [certificate]);
    }

    #[test]
    fn a_request_that_was_changed_is_refused() {
        let request = make_request(&NodeName::new("g", "n2")).unwrap().request;
        let authority = authority();
        for at in [10, request.len() / 2, request.len() - 5] {
            let mut changed = request.clone();
            changed[at] ^= 1;
            assert!(authority.sign(&NodeName::new("g", "n2"), &changed).is_err(), "{at}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn garbage_is_no_request_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(authority().sign(&NodeName::new("g", "n2"), &bytes).is_err());
        }
    }
}
