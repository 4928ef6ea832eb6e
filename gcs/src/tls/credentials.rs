//! Everything that a handshake needs, loaded and checked as a whole: what does not fit together is never in force.
//!
//! What is checked when they are loaded: that the certificate is of this very node, that the key is the certificate's, that the certificate
//! was signed by an authority in `ca_file`. What is not valid *now* is told apart ([`Credentials::unusable`]): a node whose certificate
//! ran out while it was down must start, say so, and go on by itself when it gets a new one.

use std::collections::BTreeSet;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::version::TLS13;
use rustls::{ClientConfig, Error, RootCertStore, ServerConfig};
use thiserror::Error;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::certificate::{CertificateProblem, Facts};
use super::files::{self, TlsError};
use super::moment::Moment;
use super::name::NodeName;
use super::reason::reason;
use super::verifier::Verifier;
use crate::config::Tls;

#[derive(Debug)]
pub struct Credentials {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    answerers: Arc<Verifier>,
    callers: Arc<dyn ClientCertVerifier>,
    revoked: BTreeSet<String>,
    /// This node's certificate.
    pub own: Facts,
    pub authorities: Vec<Facts>,
    /// Why nobody will accept this node's certificate today.
    pub unusable: Option<String>,
}

/// Why a certificate that rustls accepted is not a node's that may take part.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PeerProblem {
    #[error("no certificate was shown")]
    Missing,
    #[error("the certificate {0}")]
    Certificate(#[from] CertificateProblem),
    #[error("the certificate of {subject} names no node (gcs://GROUP/NODE)")]
    NoName { subject: String },
    #[error("the certificate of {name} with serial number {serial} is revoked")]
    Revoked { name: NodeName, serial: String },
    #[error("{0}")]
    Untrusted(String),
}

/// On which side of a connection the one is whose certificate is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Caller,
    Answerer,
}

impl Credentials {
    /// What is in these files, for the node of this name.
    pub fn load(tls: &Tls, expected: &NodeName) -> Result<Credentials, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let authorities = files::certificates("ca_file", &tls.ca_file)?;
        let unreadable =
            |what, path: &std::path::Path, problem| TlsError::Certificate { what, path: path.to_owned(), problem };
        let mut roots = RootCertStore::empty();
        let mut authority_facts = Vec::new();
        for authority in &authorities {
            let facts = Facts::of(authority).map_err(|problem| unreadable("ca_file", &tls.ca_file, problem))?;
            authority_facts.push(facts);
            let added = roots.add(authority.clone());
            added.map_err(|_| unreadable("ca_file", &tls.ca_file, CertificateProblem::Unreadable))?;
        }
        let roots = Arc::new(roots);
        let chain = files::certificates("certificate_file", &tls.certificate_file)?;
        let own = Facts::of(&chain[0]).map_err(|problem| unreadable("certificate_file", &tls.certificate_file, problem))?;
        if own.name.as_ref() != Some(expected) {
            let found =
                own.name.as_ref().map_or_else(|| format!("{}, which names no node", own.subject), NodeName::to_string);
            return Err(TlsError::OtherName { path: tls.certificate_file.clone(), found, expected: expected.clone() });
        }
        let answerers = Arc::new(Verifier::new(roots.clone(), provider.clone()));
        let unusable = check_own(tls, &answerers, &chain, &own)?;
        let callers = WebPkiClientVerifier::builder_with_provider(roots, provider.clone()).allow_unauthenticated().build();
        let callers = callers.map_err(|error| TlsError::Setup(Error::General(error.to_string())))?;
        let revoked = tls.revoked_file.as_deref().map(files::serials).transpose()?.unwrap_or_default().into_iter().collect();
        let chain = with_authority(chain, &authorities);
        let server = server_config(tls, provider.clone(), callers.clone(), chain.clone())?;
        let client = client_config(tls, provider, answerers.clone(), chain)?;
        Ok(Credentials { server, client, answerers, callers, revoked, own, authorities: authority_facts, unusable })
    }

    pub fn server(&self) -> Arc<ServerConfig> {
        self.server.clone()
    }

    pub fn client(&self) -> Arc<ClientConfig> {
        self.client.clone()
    }

    /// Which node the other side is, by a chain that the handshake has found good.
    pub fn peer(&self, chain: Option<&[CertificateDer<'_>]>) -> Result<NodeName, PeerProblem> {
        let leaf = chain.and_then(|chain| chain.first()).ok_or(PeerProblem::Missing)?;
        let Facts { name, serial, subject, .. } = Facts::of(leaf)?;
        let name = name.ok_or(PeerProblem::NoName { subject })?;
        if self.revoked.contains(&serial) {
            return Err(PeerProblem::Revoked { name, serial });
        }
        Ok(name)
    }

    /// Whether a chain that other credentials had found good is so by these.
    pub fn check_again(&self, side: Side, chain: Option<&[CertificateDer<'_>]>) -> Result<NodeName, PeerProblem> {
        let (leaf, others) = chain.and_then(|chain| chain.split_first()).ok_or(PeerProblem::Missing)?;
        let now = UnixTime::now();
        let checked = match side {
            Side::Answerer => self.answerers.check_chain(leaf, others, now),
            Side::Caller => self.callers.verify_client_cert(leaf, others, now).map(|_| ()),
        };
        checked.map_err(|error| PeerProblem::Untrusted(reason(&error)))?;
        self.peer(chain)
    }
}

/// What keeps the others from accepting the certificate today; an error if no day will do.
fn check_own(tls: &Tls, verifier: &Verifier, chain: &[CertificateDer<'_>], own: &Facts) -> Result<Option<String>, TlsError> {
    let at = |moment: Moment| UnixTime::since_unix_epoch(std::time::Duration::from_secs(moment.unix_seconds.max(0) as u64));
    let now = Moment::now();
    let day = now.clamp(own.not_before, own.not_after.max(own.not_before));
    let (leaf, others) = chain.split_at(1);
    if let Err(error) = verifier.check_chain(&leaf[0], others, at(day)) {
        return Err(TlsError::Untrusted {
            path: tls.certificate_file.clone(),
            message: format!("cannot be used: {}", reason(&error)),
        });
    }
    Ok(if now > own.not_after {
        Some(format!("certificate_file \"{}\" expired on {}", tls.certificate_file.display(), own.not_after))
    } else if now < own.not_before {
        Some(format!(
            "certificate_file \"{}\" is not valid before {}, and the clock here says {now}",
            tls.certificate_file.display(),
            own.not_before
        ))
    } else {
        None
    })
}

/// The chain up to the authority itself: who joins knows the authority by its fingerprint only, and needs to see it.
fn with_authority(
    mut chain: Vec<CertificateDer<'static>>,
    authorities: &[CertificateDer<'static>],
) -> Vec<CertificateDer<'static>> {
    let signer = chain.last().and_then(|last| {
        let (_, last) = X509Certificate::from_der(last).ok()?;
        authorities.iter().find(|authority| {
            let parsed = X509Certificate::from_der(authority).ok();
            parsed.is_some_and(|(_, authority)| {
                authority.subject() == last.issuer() && last.verify_signature(Some(authority.public_key())).is_ok()
            })
        })
    });
    if let Some(signer) = signer.filter(|signer| !chain.contains(signer)).cloned() {
        chain.push(signer);
    }
    chain
}

fn server_config(
    tls: &Tls,
    provider: Arc<CryptoProvider>,
    callers: Arc<dyn ClientCertVerifier>,
    chain: Vec<CertificateDer<'static>>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let key = files::key("key_file", &tls.key_file)?;
    let builder =
        ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]).map_err(TlsError::Setup)?;
    let config = builder.with_client_cert_verifier(callers).with_single_cert(chain, key);
    let mut config = config.map_err(|error| setup(tls, error))?;
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn client_config(
    tls: &Tls,
    provider: Arc<CryptoProvider>,
    answerers: Arc<Verifier>,
    chain: Vec<CertificateDer<'static>>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let key = files::key("key_file", &tls.key_file)?;
    let builder =
        ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]).map_err(TlsError::Setup)?;
    let config = builder.dangerous().with_custom_certificate_verifier(answerers).with_client_auth_cert(chain, key);
    let mut config = config.map_err(|error| setup(tls, error))?;
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(Arc::new(config))
}

fn setup(tls: &Tls, error: Error) -> TlsError {
    match error {
        Error::InconsistentKeys(_) => {
            TlsError::OtherKey { key: tls.key_file.clone(), certificate: tls.certificate_file.clone() }
        }
        error => TlsError::Setup(error),
    }
}
