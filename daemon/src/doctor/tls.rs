//! Whether the files of TLS can be used, and for how long.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::{Finding, Patient, Verdict};
use crate::config::TlsSettings;
use crate::grpc::Tls;

const CHECK: &str = "tls";

/// Warned of so long before.
const SOON: Duration = Duration::from_secs(30 * 24 * 3600);

pub(super) fn check(patient: &Patient<'_>) -> Vec<Finding> {
    let Some(files) = &patient.settings.tls else {
        return vec![Finding::ok(CHECK, "not configured: connections are not encrypted")];
    };
    files_of(files, patient.now)
}

fn files_of(files: &TlsSettings, now: SystemTime) -> Vec<Finding> {
    if let Err(error) = Tls::load(files) {
        return vec![Finding::new(
            CHECK,
            Verdict::Problem,
            error.to_string(),
            "the user of the service must be able to read all three files; for a key of root's take LoadCredential= \
             (/usr/share/recurve/systemd/tls.conf); `openssl x509 -in FILE -noout -text` and `openssl pkey -in FILE -check` show \
             what is in them",
        )];
    }
    let mut findings: Vec<Finding> = [("tls.certificate", &files.certificate), ("tls.clients", &files.clients)]
        .into_iter()
        .filter_map(|(key, path)| valid(key, path, now))
        .collect();
    findings.extend(open(&files.key));
    if findings.is_empty() {
        let until =
            expiry(&files.certificate).map(|(_, end)| format!(", valid until {}", day(end))).unwrap_or_default();
        findings.push(Finding::ok(CHECK, format!("certificate, key and authority go together{until}")));
    }
    findings
}

/// The times between which the first certificate of a file is valid.
fn expiry(path: &Path) -> Option<(SystemTime, SystemTime)> {
    let der = CertificateDer::from_pem_file(path).ok()?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    let validity = certificate.validity();
    let time = |seconds: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    Some((time(validity.not_before.timestamp()), time(validity.not_after.timestamp())))
}

fn day(time: SystemTime) -> String {
    chrono::DateTime::<chrono::Utc>::from(time).format("%Y-%m-%d").to_string()
}

/// What is wrong with a certificate's time.
fn valid(key: &str, path: &Path, now: SystemTime) -> Option<Finding> {
    let (start, end) = expiry(path)?;
    let shown = path.display();
    if now < start {
        let found = format!("{key} = {shown} is valid from {} on, by this machine's clock not yet", day(start));
        return Some(Finding::new(CHECK, Verdict::Problem, found, "set the clock right: `timedatectl` shows it"));
    }
    if now >= end {
        let found = format!("{key} = {shown} expired on {}", day(end));
        let advice =
            "clients refuse the connection: renew it, put it in its place, and `sudo systemctl reload recurved`";
        return Some(Finding::new(CHECK, Verdict::Problem, found, advice));
    }
    let soon = end.duration_since(now).is_ok_and(|left| left < SOON);
    soon.then(|| {
        let found = format!("{key} = {shown} expires on {}", day(end));
        let advice = "renew it, put it in its place, and `sudo systemctl reload recurved`";
        Finding::new(CHECK, Verdict::Warning, found, advice)
    })
}

/// A private key that everyone can read.
fn open(key: &Path) -> Option<Finding> {
    let mode = key.metadata().ok()?.permissions().mode();
    (mode & 0o004 != 0).then(|| {
        Finding::new(
            CHECK,
            Verdict::Warning,
            format!("tls.key = {} can be read by every user of this machine (mode {:o})", key.display(), mode & 0o777),
            format!("`sudo chmod o-rwx {}`", key.display()),
        )
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    #[test]
    fn files_are_read_and_their_time_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["gw-1".to_owned()]).unwrap().self_signed(&key).unwrap();
        let files = TlsSettings {
            certificate: dir.path().join("c.pem"),
            key: dir.path().join("k.pem"),
            clients: dir.path().join("c.pem"),
        };
        let found = |now| files_of(&files, now);
        let now = SystemTime::now();
        assert_eq!(found(now)[0].verdict, Verdict::Problem);
        fs::write(&files.certificate, certificate.pem()).unwrap();
        fs::write(&files.key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
        fs::set_permissions(&files.key, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(found(now)[0].found.contains("cannot be used with its key"), "{:?}", found(now));
        fs::write(&files.key, key.serialize_pem()).unwrap();
        assert_eq!(found(now)[0].verdict, Verdict::Ok, "{:?}", found(now));
        let (_, end) = expiry(&files.certificate).unwrap();
        assert_eq!(found(end - Duration::from_secs(60))[0].verdict, Verdict::Warning);
        assert!(found(end)[0].found.contains(" expired on "), "{:?}", found(end));
        assert!(found(UNIX_EPOCH)[0].found.contains("not yet"), "{:?}", found(UNIX_EPOCH));
        fs::set_permissions(&files.key, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(found(now)[0].found.contains("mode 644"), "{:?}", found(now));
    }
}
