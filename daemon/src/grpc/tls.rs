//! Mutual TLS: who connects over TCP shows a certificate of the configured authority, or is not heard.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use recurve_proto::pem::{self, Wanted};
use tokio::net::TcpStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{FallibleAccept, TlsAcceptor};

use super::concern::{Concern, concerns_at};
use crate::config::TlsSettings;

/// Certificate, key and authority, ready for connections. Clones share them.
#[derive(Clone)]
pub struct Tls(Arc<RwLock<Read>>);

/// What was read last.
struct Read {
    files: TlsSettings,
    acceptor: TlsAcceptor,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

/// Why a file cannot be used for TLS.
#[derive(Debug, thiserror::Error)]
#[error("{key} = {path:?}: {reason}")]
pub struct TlsError {
    key: &'static str,
    path: std::path::PathBuf,
    reason: String,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// One cannot be read, is not PEM, or does not go with the others.
    pub fn load(settings: &TlsSettings) -> Result<Self, TlsError> {
        Ok(Self(Arc::new(RwLock::new(Read::from(settings)?))))
    }

    /// Reads the files again, for the connections that come. Those that are open stay as they are.
    ///
    /// # Errors
    /// As [`load`](Self::load); what was read before stays.
    pub fn read_again(&self, settings: &TlsSettings) -> Result<(), TlsError> {
        let read = Read::from(settings)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = read;
        Ok(())
    }

    /// The files that were read last.
    pub fn files(&self) -> TlsSettings {
        self.0.read().unwrap_or_else(PoisonError::into_inner).files.clone()
    }

    /// What clients will not accept of the certificate.
    pub fn concerns(&self) -> Vec<Concern> {
        concerns_at(&self.files(), SystemTime::now())
    }

    /// The handshake.
    pub(super) fn accept(&self, stream: TcpStream) -> FallibleAccept<TcpStream> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).acceptor.accept(stream).into_fallible()
    }
}

impl Read {
    fn from(files: &TlsSettings) -> Result<Self, TlsError> {
        Ok(Self { files: files.clone(), acceptor: acceptor(files)? })
    }
}

fn acceptor(settings: &TlsSettings) -> Result<TlsAcceptor, TlsError> {
    let failed = |key, path: &Path| {
        let path = path.to_owned();
        move |reason: String| TlsError { key, path: path.clone(), reason }
    };
    let certificates = certificates(&settings.certificate).map_err(failed("tls.certificate", &settings.certificate))?;
    let key = key(&settings.key).map_err(failed("tls.key", &settings.key))?;
    let mut authority = RootCertStore::empty();
    let refused = failed("tls.clients", &settings.clients);
    for certificate in self::certificates(&settings.clients).map_err(&refused)? {
        authority.add(certificate).map_err(|error| refused(error.to_string()))?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authority), Arc::clone(&provider))
        .build()
        .map_err(|error| failed("tls.clients", &settings.clients)(error.to_string()))?;
    let together = |error: tokio_rustls::rustls::Error| {
        let reason = match error {
            tokio_rustls::rustls::Error::InconsistentKeys(_) => {
                format!("tls.key = {:?} is the key of another certificate", settings.key)
            }
            error => error.to_string(),
        };
        failed("tls.certificate", &settings.certificate)(format!("it cannot be used with its key: {reason}"))
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(together)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates, key)
        .map_err(together)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// A connection after its handshake.
pub(super) type Encrypted = TlsStream<TcpStream>;

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = read(path, Wanted::Certificate)?;
    let read = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
    read.map_err(|error| format!("it is no certificate in PEM: {error}"))
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let bytes = read(path, Wanted::PrivateKey)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| format!("it is no private key in PEM: {error}"))
}

fn read(path: &Path, wanted: Wanted) -> Result<Vec<u8>, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("it cannot be read: {error}"))?;
    pem::check(&bytes, wanted)?;
    Ok(bytes)
}
