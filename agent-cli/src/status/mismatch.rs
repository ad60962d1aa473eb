//! Two ends that do not fit together: one speaks TLS and the other does not, or one does not accept the other's certificate.

use std::error::Error;
use std::io;

use chrono::{DateTime, Utc};
use tokio_rustls::rustls::pki_types::UnixTime;
use tokio_rustls::rustls::{CertificateError, Error as TlsError};

use super::{chain, root};
use crate::target::{Peer, Shown, Spoken};

/// How an alert of the other end begins in rustls' words.
const ALERT: &str = "received fatal alert: ";

/// Why a connection failed before anything was answered on it, where that is known for sure. `made`: the failure came after
/// the connection was made.
pub(super) fn known(peer: &Peer, error: &(dyn Error + 'static), made: bool) -> Option<String> {
    match (peer.shown, peer.heard.spoken()) {
        (Shown::Enough, _) => None,
        (Shown::Nothing, Spoken::Tls) => Some(
            "it speaks TLS, and no certificates were given: name them with --ca, --certificate and --key, or in [tls] of the \
             inventory"
                .to_owned(),
        ),
        (Shown::Nothing, Spoken::Http1) => Some(another_server("")),
        (Shown::Nothing, _) => None,
        (Shown::Authority | Shown::Own, Spoken::Http2) => Some(format!("it does not use TLS{WITHOUT}")),
        (Shown::Authority | Shown::Own, Spoken::Http1) => Some(another_server(" without TLS")),
        (Shown::Authority | Shown::Own, Spoken::Nothing) if !made && is_closed(error) => Some(format!(
            "it closed the connection when TLS began: most likely it does not use TLS, or limits.connections are open{WITHOUT}"
        )),
        (Shown::Authority | Shown::Own, _) => certificate(peer, error).or_else(|| alert(peer, &root(error))),
    }
}

const WITHOUT: &str = "; to call it without TLS, leave out --ca, --certificate and --key, RECURVE_CA and the like, and [tls] of \
                       the inventory";

fn another_server(how: &str) -> String {
    format!("an HTTP/1 server answers there{how}, not recurved: is this the gRPC port of recurved?")
}

fn is_closed(error: &(dyn Error + 'static)) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let kinds = chain(error).filter_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    kinds.into_iter().any(|kind| matches!(kind, BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof))
}

/// Why this side does not accept the daemon's certificate.
fn certificate(peer: &Peer, error: &(dyn Error + 'static)) -> Option<String> {
    let found = chain(error).find_map(|cause| {
        cause.downcast_ref::<TlsError>().or_else(|| cause.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref())
    });
    let Some(TlsError::InvalidCertificate(wrong)) = found else { return None };
    let target = &peer.target;
    Some(match wrong {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate is not signed by the authority in --ca: name the authority that signed it".to_owned()
        }
        CertificateError::ExpiredContext { time, not_after } => format!(
            "its certificate expired on {}, and it is {} by this machine's clock: renew tls.certificate on the device",
            day(*not_after),
            day(*time)
        ),
        CertificateError::NotValidYetContext { time, not_before } => format!(
            "its certificate is valid from {} on, and it is {} by this machine's clock: set the clock that is wrong",
            day(*not_before),
            day(*time)
        ),
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => format!(
            "its certificate names no address (subjectAltName): make one that names the host of {target}"
        ),
        CertificateError::NotValidForNameContext { presented, .. } => format!(
            "its certificate is for {}, not for the host of {target}: call it by a name of the certificate, or make a certificate \
             that names this one too (subjectAltName)",
            presented.join(", ")
        ),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "its certificate is not for servers: its extendedKeyUsage has to hold serverAuth".to_owned()
        }
        other if other.to_string().contains("CaUsedAsEndEntity") => {
            "it shows the certificate of an authority as its own: sign a certificate for the device (basicConstraints CA:FALSE)"
                .to_owned()
        }
        other => format!("its certificate is not accepted: {other}"),
    })
}

/// What the daemon says of our certificate, in one word of TLS.
fn alert(peer: &Peer, words: &str) -> Option<String> {
    let alert = words.split_once(ALERT)?.1;
    let own = matches!(peer.shown, Shown::Own);
    Some(match alert {
        "CertificateRequired" => {
            "it requires a certificate of the caller: name yours with --certificate and --key, or in [tls] of the inventory"
                .to_owned()
        }
        // The latter where it knows an authority of the same name with another key.
        "UnknownCA" | "DecryptError" if own => "it does not know the authority that signed your certificate: name another with \
                                                --certificate and --key, or add the authority to tls.clients on the device"
            .to_owned(),
        "CertificateExpired" if own => {
            "by its clock your certificate has expired, or is not valid yet: renew the one in --certificate, or set the device's \
             clock"
                .to_owned()
        }
        "UnsupportedCertificate" if own => "your certificate is not one for clients: its extendedKeyUsage must have clientAuth; name \
                                            another with --certificate and --key"
            .to_owned(),
        "HandshakeFailure" | "ProtocolVersion" | "InsufficientSecurity" => {
            format!("both sides have no algorithm of TLS in common ({alert}): is its certificate ECDSA P-256?")
        }
        alert if own => format!("it does not accept your certificate ({alert}): name another with --certificate and --key"),
        _ => return None,
    })
}

fn day(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    DateTime::<Utc>::from_timestamp(seconds, 0)
        .map_or_else(|| format!("{} s after 1970", time.as_secs()), |time| time.format("%Y-%m-%d").to_string())
}
