//! Who is at the other end of a connection.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use http::Extensions;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use crate::config::Address;
use crate::engine::job::ClientId;

/// Most characters of a name that are kept.
const LONGEST_NAME: usize = 64;

/// The other end of a connection; every request on it carries this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Peer {
    /// A machine.
    Tcp(IpAddr),
    /// Somebody who showed a certificate of the configured authority.
    Certified {
        /// From where.
        ip: IpAddr,
        /// The certificate's common name, or its serial number.
        name: Arc<str>,
    },
    /// A process on this machine, and its user where the system tells.
    Unix(Option<u32>),
}

impl Peer {
    /// Somebody at this address, after a handshake in which this certificate was verified.
    pub(super) fn certified(ip: IpAddr, certificate: &[u8]) -> Self {
        let parsed = X509Certificate::from_der(certificate).ok().map(|(_, parsed)| parsed);
        let name = parsed.as_ref().and_then(|parsed| parsed.subject().iter_common_name().next()?.as_str().ok());
        let name: String = name.unwrap_or_default().chars().filter(|c| !c.is_control()).take(LONGEST_NAME).collect();
        let name = match (name.is_empty(), parsed) {
            (false, _) => name,
            (true, Some(parsed)) => format!("serial {}", parsed.raw_serial_as_string()),
            (true, None) => "unnamed".to_owned(),
        };
        Self::Certified { ip, name: name.into() }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(ip) => write!(f, "{}", ip.to_canonical()),
            Self::Certified { ip, name } => write!(f, "{name} at {}", ip.to_canonical()),
            Self::Unix(Some(user)) => write!(f, "user {user}"),
            Self::Unix(None) => f.write_str("unix"),
        }
    }
}

/// Where a connection came to: this node, as the conventions name it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Here {
    /// The machine's name, or the path of the socket.
    pub(super) host: Arc<str>,
    /// None of a socket.
    pub(super) port: Option<u16>,
}

impl Here {
    /// At this address.
    pub(super) fn at(address: &Address) -> Self {
        match address {
            Address::Tcp(address) => {
                let host = rustix::system::uname().nodename().to_string_lossy().into();
                Self { host, port: Some(address.port()) }
            }
            Address::Unix(path) => Self { host: path.to_string_lossy().into(), port: None },
        }
    }
}

/// Whose request this is. The queue is fair between these, and the log and the audit name them.
pub(super) fn client(extensions: &Extensions) -> ClientId {
    ClientId(extensions.get::<Peer>().map_or_else(|| "unknown".into(), |peer| peer.to_string().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_showed_a_certificate_has_its_name() {
        let ip = IpAddr::from([127, 0, 0, 1]);
        let named = |name: &str| {
            let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
            Peer::certified(ip, certificate.der()).to_string()
        };
        assert_eq!(named("operator"), "operator at 127.0.0.1");
        assert_eq!(named("a\nb"), "ab at 127.0.0.1");
        assert_eq!(named(&"x".repeat(99)), format!("{} at 127.0.0.1", "x".repeat(64)));
        assert!(named("").starts_with("serial "), "{}", named(""));
        assert_eq!(Peer::certified(ip, b"none").to_string(), "unnamed at 127.0.0.1");
    }
}
