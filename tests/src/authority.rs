//! A certificate authority for one test, and certificates of it.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256,
    SignatureAlgorithm,
};

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

    /// A certificate for this name or address, with a key on the curve P-256.
    pub fn identity(&self, file: &str, name: &str) -> Identity {
        self.identity_with(file, name, &PKCS_ECDSA_P256_SHA256)
    }

    /// The same with a key of another kind.
    pub fn identity_with(&self, file: &str, name: &str, algorithm: &'static SignatureAlgorithm) -> Identity {
        self.changed(file, &[name], algorithm, |_| {})
    }

    /// A certificate for these names or addresses, of which something is changed before it is signed.
    pub fn changed(
        &self,
        file: &str,
        names: &[&str],
        algorithm: &'static SignatureAlgorithm,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Identity {
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let names = names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, file);
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let identity = Identity {
            certificate: self.dir.join(format!("{file}.pem")),
            key: self.dir.join(format!("{file}-key.pem")),
        };
        std::fs::write(&identity.certificate, certificate.pem()).expect("a file");
        std::fs::write(&identity.key, key.serialize_pem()).expect("a file");
        std::fs::set_permissions(&identity.key, Permissions::from_mode(0o600)).expect("our own file");
        identity
    }
}
