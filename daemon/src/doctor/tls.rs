//! Whether the files of TLS can be used, and for how long.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::{Finding, Patient, Verdict};
use crate::config::TlsSettings;
use crate::grpc::{Tls, concerns};

const CHECK: &str = "tls";

/// Warned of so long before.
const SOON: Duration = Duration::from_secs(30 * 24 * 3600);
/// Where systemd shows a service its credentials, in a folder that is there while the service runs.
const CREDENTIALS: &str = "/run/credentials";

pub(super) fn check(patient: &Patient<'_>) -> Vec<Finding> {
    let Some(files) = &patient.settings.tls else {
        return vec![Finding::ok(CHECK, "not configured: connections are not encrypted")];
    };
    match unseen(files, patient) {
        Some(finding) => vec![finding],
        None => files_of(files, patient.now),
    }
}

/// A file that says nothing here, since only others see it.
fn unseen(files: &TlsSettings, patient: &Patient<'_>) -> Option<Finding> {
    if patient.serving.is_some() {
        return None;
    }
    let named = [("tls.certificate", &files.certificate), ("tls.key", &files.key), ("tls.clients", &files.clients)];
    named.into_iter().find_map(|(key, path)| {
        let shown = format!("{key} = {}", path.display());
        match File::open(path).err()?.kind() {
            ErrorKind::NotFound if path.starts_with(CREDENTIALS) && !path.parent().is_some_and(Path::exists) => {
                Some(Finding::skipped(CHECK, format!("{shown}: systemd shows it to the running service only")))
            }
            ErrorKind::PermissionDenied if patient.stranger => Some(Finding::hidden(CHECK, &shown)),
            _ => None,
        }
    })
}

/// How a certificate is renewed.
fn renewal(path: &Path) -> &'static str {
    if path.starts_with(CREDENTIALS) {
        "put the new one in its place and `sudo systemctl restart recurved`: systemd copies these files at each start"
    } else {
        "renew it, put it in its place, and `sudo systemctl reload recurved`"
    }
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
    findings.extend(
        concerns(files).into_iter().map(|concern| Finding::new(CHECK, Verdict::Warning, concern.found, concern.advice)),
    );
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
        let advice = format!("clients refuse the connection: {}", renewal(path));
        return Some(Finding::new(CHECK, Verdict::Problem, found, advice));
    }
    let soon = end.duration_since(now).is_ok_and(|left| left < SOON);
    soon.then(|| {
        let found = format!("{key} = {shown} expires on {}", day(end));
        Finding::new(CHECK, Verdict::Warning, found, renewal(path))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use rcgen::{CertificateParams, KeyPair};

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_credential_is_seen_by_the_running_service_only() {
        let (settings, dir) = (crate::config::defaults(), tempfile::tempdir().unwrap());
        let mut patient = Patient {
            root: dir.path(),
            settings: &settings,
            model: Ok(None),
            serving: None,
            held: &[],
            stranger: false,
            available: None,
            now: UNIX_EPOCH,
        };
        let missing = |folder: &str| {
            let path = PathBuf::from(folder).join("key.pem");
            TlsSettings { certificate: path.clone(), key: path.clone(), clients: path }
        };
        let credentials = missing("/run/credentials/nothing-such.service");
        let finding = unseen(&credentials, &patient).unwrap();
        assert!(finding.verdict == Verdict::Skipped && finding.found.contains("running service only"), "{finding:?}");
        assert_eq!(unseen(&missing("/nowhere"), &patient), None);
        let serving = super::super::Serving::default();
        patient.serving = Some(&serving);
        assert_eq!(unseen(&credentials, &patient), None);
        assert!(renewal(&credentials.key).contains("restart recurved`: systemd copies"));
        assert!(renewal(Path::new("/etc/recurve/tls/key.pem")).contains("reload recurved"));
    }

    #[test]
    fn files_are_read_and_their_time_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["gw-1".to_owned()]).unwrap().self_signed(&key).unwrap();
        let files = TlsSettings {
            certificate: dir.path().join("c.pem"),
            key: dir.path().join("my key.pem"),
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
        assert_eq!(found(now)[0].advice, format!("`sudo chmod o-rwx '{}'`", files.key.display()));
    }
}
