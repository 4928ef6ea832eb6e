//! Authorities and certificates for tests, and callers that show them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gcs::config::Tls;
use gcs::enrolment::authority::{self, Authority};
use gcs::tls::stream::server_name;
use gcs::tls::{Credentials, Moment, NodeName};
use gcs_proto::message::PROTOCOL;
use gcs_proto::{Decoder, FRAME_BYTES_MAX, Frame, Hello};
use gcs_writeset::NodeId;
use rcgen::string::Ia5String;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use time::OffsetDateTime;

use super::PATIENCE;

const DAY: Duration = Duration::from_secs(86_400);

/// An authority with its files in a directory.
pub struct Pki {
    pub directory: PathBuf,
    group: String,
}

impl Pki {
    /// A new authority in a directory of its own.
    pub fn make(directory: &Path, group: &str) -> Pki {
        std::fs::create_dir_all(directory).unwrap();
        let pki = Pki { directory: directory.to_owned(), group: group.to_owned() };
        let pair = authority::make_authority(&NodeName::new(group, "n1")).unwrap();
        std::fs::write(pki.ca_file(), pair.certificate).unwrap();
        write_key(&pki.ca_key_file(), &pair.key);
        pki
    }

    /// The one whose files were made there.
    pub fn at(directory: &Path, group: &str) -> Pki {
        Pki { directory: directory.to_owned(), group: group.to_owned() }
    }

    pub fn ca_file(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    pub fn ca_key_file(&self) -> PathBuf {
        self.directory.join("ca.key")
    }

    /// A certificate for the node, as `gcs join` gets it.
    pub fn issue(&self, node: &str) -> Tls {
        let name = NodeName::new(&self.group, node);
        let request = authority::make_request(&name).unwrap();
        let authority = Authority::load(&self.ca_key_file(), &self.ca_file()).unwrap();
        let certificate = authority.sign(&name, &request.request).unwrap();
        self.put(node, &request.key, &certificate)
    }

    /// The same in the place of the one that is there, so that a daemon finds it.
    pub fn issue_for_days(&self, node: &str, from: i64, to: i64) -> Tls {
        let uris = [format!("gcs://{}/{node}", self.group)];
        self.issue_odd(node, &uris, from, to)
    }

    /// With these URIs for names, counting from and to so many days from now.
    pub fn issue_odd(&self, file: &str, uris: &[String], from: i64, to: i64) -> Tls {
        let at = |days: i64| {
            OffsetDateTime::from_unix_timestamp(Moment::now().unix_seconds + days * DAY.as_secs() as i64).unwrap()
        };
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI(Ia5String::try_from(uri.as_str()).unwrap())).collect();
        params.not_before = at(from);
        params.not_after = at(to);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let ca_key = KeyPair::from_pem(&std::fs::read_to_string(self.ca_key_file()).unwrap()).unwrap();
        let issuer = Issuer::from_ca_cert_pem(&std::fs::read_to_string(self.ca_file()).unwrap(), ca_key).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        self.put(file, &key.serialize_pem(), certificate.der())
    }

    /// Both files change at once for whoever looks by name.
    fn put(&self, file: &str, key: &str, certificate: &[u8]) -> Tls {
        let tls = self.files(file);
        write_key(&tls.key_file.with_extension("new"), key);
        std::fs::rename(tls.key_file.with_extension("new"), &tls.key_file).unwrap();
        std::fs::write(&tls.certificate_file, authority::to_pem([certificate])).unwrap();
        tls
    }

    pub fn files(&self, file: &str) -> Tls {
        Tls {
            ca_file: self.ca_file(),
            certificate_file: self.directory.join(format!("{file}.pem")),
            key_file: self.directory.join(format!("{file}.key")),
            ca_key_file: None,
            revoked_file: None,
        }
    }

    /// How a caller that shows this node's certificate sets up TLS.
    pub fn caller(&self, node: &str) -> Arc<ClientConfig> {
        let tls = self.issue(node);
        Credentials::load(&tls, &NodeName::new(&self.group, node)).unwrap().client()
    }
}

fn write_key(path: &Path, key: &str) {
    let mut file = std::fs::File::options().create(true).truncate(true).write(true).mode(0o600).open(path).unwrap();
    file.write_all(key.as_bytes()).unwrap();
}

/// As it stands in the configuration.
pub fn table(tls: &Tls) -> String {
    format!(
        "[tls]\nca_file = \"{}\"\ncertificate_file = \"{}\"\nkey_file = \"{}\"\n",
        tls.ca_file.display(),
        tls.certificate_file.display(),
        tls.key_file.display()
    )
}

/// A caller that shows no certificate and believes whoever has this authority.
pub fn nobody(ca_file: &Path) -> Arc<ClientConfig> {
    let authority = gcs::tls::files::certificates("ca_file", ca_file).unwrap().remove(0);
    gcs::enrolment::question::by_fingerprint(gcs::enrolment::token::fingerprint(&authority)).unwrap()
}

/// One connection to the peer port of a daemon, under TLS.
pub struct Caller {
    stream: StreamOwned<ClientConnection, TcpStream>,
    decoder: Decoder,
}

impl Caller {
    pub fn connect(address: &str, config: Arc<ClientConfig>) -> Caller {
        let tcp = TcpStream::connect(address).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        let session = ClientConnection::new(config, server_name()).unwrap();
        Caller { stream: StreamOwned::new(session, tcp), decoder: Decoder::new(FRAME_BYTES_MAX) }
    }

    /// `None` if the connection has ended.
    pub fn send(&mut self, frame: &Frame) -> Option<()> {
        let mut out = Vec::new();
        gcs_proto::encode(frame, &mut out).unwrap();
        self.send_raw(&out)
    }

    pub fn send_raw(&mut self, bytes: &[u8]) -> Option<()> {
        self.stream.write_all(bytes).and_then(|()| self.stream.flush()).ok()
    }

    /// The next frame; `None` at the end of the connection.
    pub fn receive(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                return Some(frame);
            }
            let mut piece = [0; 4096];
            match self.stream.read(&mut piece) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => return None,
                Ok(count) => self.decoder.buffer.extend_from_slice(&piece[..count]),
            }
        }
    }

    pub fn ask(&mut self, frame: &Frame) -> Option<Frame> {
        self.send(frame)?;
        self.receive()
    }
}

pub fn hello(group: &str, name: &str) -> Hello {
    Hello {
        protocol: PROTOCOL,
        group: group.to_owned(),
        name: name.to_owned(),
        node: NodeId::of_name(name).0,
        reads: gcs_core::Format::NEWEST.0.into(),
        ..Hello::default()
    }
}
