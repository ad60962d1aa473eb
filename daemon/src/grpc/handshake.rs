//! Why a connection did not become an encrypted one, in words for the log.

use std::io;

use tokio_rustls::rustls::{AlertDescription, CertificateError, Error as TlsError, InvalidMessage, PeerIncompatible};

/// How a record of TLS begins with which a client opens a connection: a handshake, of version 3.x.
const HELLO: [u8; 2] = [0x16, 0x03];
/// What a client that speaks TLS hears where there is none: the first two frames of an HTTP/2 server, SETTINGS and GOAWAY for a
/// violation of the protocol (RFC 9113, section 3.4). Clients then name the mistake instead of a connection that broke.
pub(super) const PLAIN: [u8; 26] = [0, 0, 0, 0x4, 0, 0, 0, 0, 0, 0, 0, 8, 0x7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// Whether these first bytes of a connection are TLS'.
pub(super) fn is_tls(first: &[u8]) -> bool {
    first.starts_with(&HELLO)
}

/// What went wrong in a handshake, and what to do.
pub(super) fn explain(error: &io::Error) -> String {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()) else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
                "the client closed the connection before the end of the handshake".to_owned()
            }
            _ => error.to_string(),
        };
    };
    let words = match tls {
        TlsError::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "the client does not speak TLS: on this address it has to (`agent-cli --ca --certificate --key`, or [tls] of its \
             inventory)"
        }
        TlsError::NoCertificatesPresented => {
            "the client showed no certificate: it needs one of an authority in tls.clients (`agent-cli --certificate --key`)"
        }
        TlsError::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "the client's certificate is not signed by an authority in tls.clients"
        }
        TlsError::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "the client's certificate has expired, by this machine's clock"
        }
        TlsError::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            "the client's certificate is not valid yet, by this machine's clock"
        }
        TlsError::InvalidCertificate(
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. },
        ) => "the client's certificate is not for clients: its extendedKeyUsage has to hold clientAuth",
        TlsError::PeerIncompatible(PeerIncompatible::NoSignatureSchemesInCommon) => {
            "the client accepts no certificate with a key like that of tls.certificate: make one with ECDSA P-256"
        }
        // The latter where the client knows an authority of the same name with another key.
        TlsError::AlertReceived(AlertDescription::UnknownCA | AlertDescription::DecryptError) => {
            "the client does not know the authority that signed tls.certificate"
        }
        TlsError::AlertReceived(AlertDescription::CertificateExpired) => {
            "by the client's clock tls.certificate has expired, or is not valid yet"
        }
        TlsError::AlertReceived(
            AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnsupportedCertificate,
        ) => "the client does not accept tls.certificate: is it for the name by which the client calls?",
        _ => return tls.to_string(),
    };
    format!("{words} ({tls})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_hello_is_told_from_other_beginnings() {
        assert!(is_tls(&[0x16, 0x03, 0x01, 0x02, 0x00]));
        for other in [&b"PRI * HTTP/2.0"[..], b"GET / HTTP/1.1", b"\x16", b""] {
            assert!(!is_tls(other), "{other:?}");
        }
    }

    #[test]
    fn the_cause_stays_beside_the_words() {
        let failed = |error: TlsError| explain(&io::Error::new(io::ErrorKind::InvalidData, error));
        let plain = failed(TlsError::InvalidMessage(InvalidMessage::InvalidContentType));
        assert!(plain.contains("does not speak TLS") && plain.contains("InvalidContentType"), "{plain}");
        let ed25519 = failed(TlsError::PeerIncompatible(PeerIncompatible::NoSignatureSchemesInCommon));
        assert!(ed25519.contains("ECDSA P-256"), "{ed25519}");
        assert_eq!(failed(TlsError::HandshakeNotComplete), TlsError::HandshakeNotComplete.to_string());
        assert!(explain(&io::ErrorKind::UnexpectedEof.into()).contains("closed the connection"));
    }
}
