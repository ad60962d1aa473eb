//! Weaknesses of the daemon's TLS files: a certificate that rustls takes and clients will not, and a key that everyone can read.

use std::fmt;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Utc};
use recurve_bundle::shell;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use crate::config::TlsSettings;

/// A weakness of files that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Concern {
    /// What was found, and whom it concerns.
    pub found: String,
    /// What to do.
    pub advice: String,
}

impl fmt::Display for Concern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.found, self.advice)
    }
}

/// The weaknesses of the daemon's certificate and key; none of a file that cannot be read.
pub fn concerns(files: &TlsSettings) -> Vec<Concern> {
    let mut concerns = of_file(&files.certificate, |certificate| {
        vec![key(certificate), authority(certificate), names(certificate), usage(certificate)]
    });
    concerns.extend(open_key(&files.key));
    concerns
}

/// A private key that every user of the machine may read.
fn open_key(path: &Path) -> Option<Concern> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode();
    (mode & 0o004 != 0).then(|| Concern {
        found: format!(
            "tls.key = {} can be read by every user of this machine (mode {:o})",
            path.display(),
            mode & 0o777
        ),
        advice: format!("`sudo chmod o-rwx {}`", shell::quote(path)),
    })
}

/// The same, and whether it is valid at this time.
pub fn concerns_at(files: &TlsSettings, now: SystemTime) -> Vec<Concern> {
    let mut concerns = concerns(files);
    concerns.extend(of_file(&files.certificate, |certificate| vec![validity(certificate, now)]));
    concerns
}

/// What follows the name of a certificate's file, and what to do.
type Words = (String, &'static str);

fn of_file(path: &Path, examine: impl FnOnce(&X509Certificate<'_>) -> Vec<Option<Words>>) -> Vec<Concern> {
    let Ok(der) = CertificateDer::from_pem_file(path) else { return Vec::new() };
    let Ok((_, certificate)) = X509Certificate::from_der(&der) else { return Vec::new() };
    let shown = |(words, advice)| Concern {
        found: format!("tls.certificate = {} {words}", path.display()),
        advice: str::to_owned(advice),
    };
    examine(&certificate).into_iter().flatten().map(shown).collect()
}

fn validity(certificate: &X509Certificate<'_>, now: SystemTime) -> Option<Words> {
    let now = i64::try_from(now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()).unwrap_or(i64::MAX);
    let validity = certificate.validity();
    let day = |seconds| DateTime::<Utc>::from_timestamp(seconds, 0).unwrap_or_default().format("%Y-%m-%d");
    let (start, end) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    if now < start {
        let words = format!("is valid from {} on, by this machine's clock not yet", day(start));
        return Some((words, "set the clock right: `timedatectl` shows it"));
    }
    (now >= end).then(|| (format!("expired on {}, so that clients do not accept it", day(end)), "renew it"))
}

/// BoringSSL, which is in gRPC's C core, offers these kinds of keys only.
fn key(certificate: &X509Certificate<'_>) -> Option<Words> {
    let algorithm = &certificate.public_key().algorithm;
    let curve = algorithm.parameters.as_ref().and_then(|curve| Some(curve.as_oid().ok()?.to_id_string()));
    let kind = match (algorithm.algorithm.to_id_string().as_str(), curve.as_deref()) {
        // RSA, P-256 and P-384.
        ("1.2.840.113549.1.1.1", _) | ("1.2.840.10045.2.1", Some("1.2.840.10045.3.1.7" | "1.3.132.0.34")) => {
            return None;
        }
        ("1.2.840.10045.2.1", _) => "a key on a curve that is neither P-256 nor P-384".to_owned(),
        ("1.3.101.112", _) => "an Ed25519 key".to_owned(),
        (other, _) => format!("a key of the algorithm {other}"),
    };
    let words = format!("has {kind}, with which gRPC clients in Python, C++, Ruby and PHP cannot connect");
    Some((
        words,
        "make another with `openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256`, as docs/deploy.md shows",
    ))
}

fn authority(certificate: &X509Certificate<'_>) -> Option<Words> {
    let words = "is the certificate of an authority (basicConstraints CA:TRUE), which clients in Rust do not accept, agent-cli \
                 among them";
    certificate
        .is_ca()
        .then(|| (words.to_owned(), "sign a certificate for the daemon with it, as docs/deploy.md shows"))
}

fn names(certificate: &X509Certificate<'_>) -> Option<Words> {
    let names = certificate.subject_alternative_name().ok().flatten().map(|names| &names.value.general_names);
    let usable = |name: &GeneralName<'_>| matches!(name, GeneralName::DNSName(_) | GeneralName::IPAddress(_));
    let advice = "name each address by which it is called: `-addext subjectAltName=DNS:gateway-7,IP:192.0.2.7`";
    let named = names.is_some_and(|names| names.iter().any(usable));
    (!named).then(|| ("names no address (subjectAltName), so that clients do not accept it".to_owned(), advice))
}

fn usage(certificate: &X509Certificate<'_>) -> Option<Words> {
    let usage = certificate.extended_key_usage().ok().flatten()?.value;
    let advice = "make one with `-addext extendedKeyUsage=serverAuth`";
    (!usage.server_auth && !usage.any)
        .then(|| ("is not for servers, so that clients do not accept it".to_owned(), advice))
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256,
        PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SignatureAlgorithm,
    };

    use super::*;

    fn found(
        algorithm: &'static SignatureAlgorithm,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.pem");
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut params = CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap();
        change(&mut params);
        std::fs::write(&path, params.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let found = concerns(&TlsSettings { certificate: path.clone(), key: path.clone(), clients: path });
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_clients_refuse_is_named() {
        let plain = |_: &mut CertificateParams| {};
        assert!(found(&PKCS_ECDSA_P256_SHA256, &["127.0.0.1"], plain).is_empty());
        assert!(found(&PKCS_ECDSA_P384_SHA384, &["gw-1"], plain).is_empty());
        let only = |found: Vec<String>, part: &str| {
            assert!(found.len() == 1 && found[0].contains(part), "{part}: {found:?}");
        };
        let ed25519 = found(&PKCS_ED25519, &["gw-1"], plain);
        assert!(ed25519[0].contains("Ed25519") && ed25519[0].contains("ec_paramgen_curve:P-256"), "{ed25519:?}");
        only(ed25519, "Python");
        only(found(&PKCS_ECDSA_P256_SHA256, &[], plain), "subjectAltName=DNS:");
        only(
            found(&PKCS_ECDSA_P256_SHA256, &["gw-1"], |params| {
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            }),
            "CA:TRUE",
        );
        only(
            found(&PKCS_ECDSA_P256_SHA256, &["gw-1"], |params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            }),
            "serverAuth",
        );
    }

    #[test]
    fn a_certificate_is_judged_by_the_clock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.pem");
        let mut params = CertificateParams::new(vec!["gw-1".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        std::fs::write(&path, params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let files = TlsSettings { certificate: path.clone(), key: path.clone(), clients: path };
        let at =
            |time: std::time::SystemTime| concerns_at(&files, time).iter().map(ToString::to_string).collect::<String>();
        assert!(at(UNIX_EPOCH).contains("is valid from 2020-01-01 on"), "{}", at(UNIX_EPOCH));
        assert_eq!(at(params.not_before.into()), "");
        assert!(at(params.not_after.into()).contains("expired on 2021-01-01"), "{}", at(params.not_after.into()));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_not_judged() {
        let path = Path::new("/nowhere/c.pem").to_owned();
        assert!(concerns(&TlsSettings { certificate: path.clone(), key: path.clone(), clients: path }).is_empty());
    }
}
