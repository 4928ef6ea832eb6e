//! Why a handshake failed, in words that say what to do about it.

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

use super::moment::Moment;

pub fn reason(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(problem) => certificate(problem),
        Error::AlertReceived(alert) => refused(*alert),
        Error::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion)
        | Error::InvalidMessage(InvalidMessage::MessageTooLarge | InvalidMessage::InvalidEmptyPayload) => {
            "the other side does not speak TLS: it runs without [tls], or is no gcs".to_owned()
        }
        Error::PeerIncompatible(_) => "the other side does not speak TLS 1.3".to_owned(),
        Error::General(text) => text.clone(),
        Error::NoCertificatesPresented => "the other side shows no certificate".to_owned(),
        error => format!("TLS failed: {error}"),
    }
}

fn certificate(problem: &CertificateError) -> String {
    let moment = |time: &rustls::pki_types::UnixTime| Moment::new(i64::try_from(time.as_secs()).unwrap_or(i64::MAX));
    match problem {
        CertificateError::ExpiredContext { time, not_after } => {
            format!("its certificate expired on {}; the clock here says {}", moment(not_after), moment(time))
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            format!(
                "its certificate is not valid before {}, and the clock here says {}: set the clocks",
                moment(not_before),
                moment(time)
            )
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate was not issued by an authority in ca_file".to_owned()
        }
        CertificateError::Revoked => "its certificate is revoked".to_owned(),
        problem => format!("its certificate cannot be accepted: {problem}"),
    }
}

fn refused(alert: AlertDescription) -> String {
    let why = match alert {
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            "it was not issued by an authority that is trusted there"
        }
        AlertDescription::CertificateExpired => "it has expired, or the clocks differ",
        AlertDescription::CertificateRevoked => "it is revoked",
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown => "it is not one that a node can show",
        AlertDescription::CertificateRequired => "there is none",
        AlertDescription::ProtocolVersion => return "the other side does not speak TLS 1.3".to_owned(),
        alert => return format!("the other side ended TLS: {alert:?}"),
    };
    format!("the other side does not accept this node's certificate: {why}")
}
