//! What the daemon reads in a certificate: whose it is, its number, and from when to when it counts.
//!
//! Whether it is genuine is not asked here: rustls checks signatures and chains before anybody looks at these facts.

use thiserror::Error;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::moment::Moment;
use super::name::NodeName;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// A leaf's: the node that it is of. An authority's: the node on which it was made, if `gcs init` made it.
    pub name: Option<NodeName>,
    /// Hexadecimal digits, without leading zeros.
    pub serial: String,
    pub not_before: Moment,
    pub not_after: Moment,
    /// The subject, for people.
    pub subject: String,
}

#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum CertificateProblem {
    #[error("is not a certificate that can be read")]
    Unreadable,
    #[error("has more than one name of the form gcs://GROUP/NODE")]
    SeveralNames,
}

impl Facts {
    pub fn of(der: &[u8]) -> Result<Facts, CertificateProblem> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| CertificateProblem::Unreadable)?;
        let alternatives = certificate.subject_alternative_name().map_err(|_| CertificateProblem::Unreadable)?;
        let mut names =
            alternatives.iter().flat_map(|alternatives| &alternatives.value.general_names).filter_map(|name| match name {
                GeneralName::URI(uri) => NodeName::parse(uri),
                _ => None,
            });
        let name = names.next();
        if names.next().is_some() {
            return Err(CertificateProblem::SeveralNames);
        }
        let validity = certificate.validity();
        Ok(Facts {
            name,
            serial: serial(certificate.raw_serial()),
            not_before: Moment::new(validity.not_before.timestamp()),
            not_after: Moment::new(validity.not_after.timestamp()),
            subject: certificate.subject().to_string(),
        })
    }
}

/// As [`Facts::serial`] has it.
fn serial(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    normal_serial(&digits)
}

/// One form of a serial number, however it was written: `0A:1b`, `0a1B` and `a1b` are the same.
pub fn normal_serial(text: &str) -> String {
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let digits = digits.trim_start_matches('0').to_ascii_lowercase();
    if digits.is_empty() { "0".to_owned() } else { digits }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_serial_number_has_one_form() {
        for text in ["0A:1b", "0a1B", "a1b", "00:0A:1B"] {
            assert_eq!(normal_serial(text), "a1b");
        }
        assert_eq!(serial(&[0, 0x0a, 0x1b]), "a1b");
        assert_eq!(serial(&[0]), "0");
    }

    proptest! {
        #[test]
        fn garbage_is_no_certificate_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            prop_assert_eq!(Facts::of(&bytes), Err(CertificateProblem::Unreadable));
        }
    }
}
