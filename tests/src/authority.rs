//! A certificate authority for one test, and certificates of it.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};

/// The authority, and the folder that its files lie in.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    dir: PathBuf,
    /// Its own certificate.
    pub certificate: PathBuf,
}

/// Files of one who is known to the authority.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate, in PEM.
    pub certificate: PathBuf,
    /// The private key, in PEM.
    pub key: PathBuf,
}

impl Authority {
    /// A new authority, with its files in this folder.
    pub fn new(dir: &Path, name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let own = params.self_signed(&key).expect("a certificate");
        let certificate = dir.join(format!("{name}.pem"));
        std::fs::write(&certificate, own.pem()).expect("a file");
        Self { issuer: Issuer::new(params, key), dir: dir.to_owned(), certificate }
    }

    /// A certificate for this name or address.
    pub fn identity(&self, file: &str, name: &str) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, file);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let identity = Identity {
            certificate: self.dir.join(format!("{file}.pem")),
            key: self.dir.join(format!("{file}-key.pem")),
        };
        std::fs::write(&identity.certificate, certificate.pem()).expect("a file");
        std::fs::write(&identity.key, key.serialize_pem()).expect("a file");
        identity
    }
}
