//! Whether the daemon may write what it keeps.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{Access, access};

use super::{Finding, Patient, Verdict, existing};
use crate::config::Address;

const CHECK: &str = "permissions";
const SUPERUSER: &str = "0";

pub(super) fn check(patient: &Patient<'_>) -> Vec<Finding> {
    let settings = patient.settings;
    let mut folders: Vec<(&'static str, &Path)> = Vec::new();
    if settings.bundle.is_none() {
        folders.push(("state_dir", &settings.state_dir));
    }
    if let Some(dir) = &settings.telemetry.dir {
        folders.push(("telemetry.dir", dir));
    }
    // Where systemd holds the sockets they are made by it.
    let held: &[String] = patient.serving.map_or(&[], |serving| &serving.listen);
    for address in settings.listen.iter().filter(|address| !held.contains(&address.to_string())) {
        if let Address::Unix(path) = address
            && let Some(folder) = path.parent()
        {
            folders.push(("listen", folder));
        }
    }
    // The superuser may write everywhere, and the service is another user.
    if user() == SUPERUSER
        && patient.serving.is_none()
        && let Some(finding) = foreign(patient, &settings.state_dir)
    {
        return vec![finding];
    }
    let refused: Vec<Finding> = folders.iter().filter_map(|(key, folder)| refused(key, folder)).collect();
    match refused.is_empty() {
        true if folders.is_empty() => vec![Finding::ok(CHECK, "nothing has to be written")],
        true => {
            let names: Vec<String> = folders.iter().map(|(_, folder)| folder.display().to_string()).collect();
            vec![Finding::ok(CHECK, format!("this user may write {}", names.join(", ")))]
        }
        false => refused,
    }
}

/// A state directory that does not belong to the service's user, where there is one.
fn foreign(patient: &Patient<'_>, dir: &Path) -> Option<Finding> {
    let users = patient.text("etc/passwd")?;
    let service: u32 = users.lines().find_map(|line| line.strip_prefix("recurve:")?.split(':').nth(1)?.parse().ok())?;
    let owner = dir.metadata().ok()?.uid();
    (owner != service).then(|| {
        Finding::new(
            CHECK,
            Verdict::Warning,
            format!(
                "state_dir: {} belongs to user {owner}, and the service runs as recurve, user {service}",
                dir.display()
            ),
            format!("if the service is to use it: `sudo chown -R recurve:recurve {}`", dir.display()),
        )
    })
}

/// Who this process is.
fn user() -> String {
    Path::new("/proc/self").metadata().map_or_else(|_| "of this process".to_owned(), |meta| meta.uid().to_string())
}

/// Why something cannot be written there, or made where it is missing.
fn refused(key: &str, folder: &Path) -> Option<Finding> {
    let nearest = existing(folder);
    let error = access(&nearest, Access::WRITE_OK | Access::EXEC_OK).err()?;
    let owner = nearest.metadata().map(|meta| format!(", of user {} and group {}", meta.uid(), meta.gid()));
    let found =
        format!("{key}: user {} may not write {}{}: {error}", user(), nearest.display(), owner.unwrap_or_default());
    let advice = format!(
        "run this as the user of the service (`sudo -u recurve recurved doctor`), or have that user own it: \
         `sudo install -d -o recurve -g recurve {}`",
        folder.display()
    );
    Some(Finding::new(CHECK, Verdict::Problem, found, advice))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_cannot_be_written_is_named_with_its_key() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(refused("state_dir", dir.path()), None);
        assert_eq!(refused("state_dir", &dir.path().join("made/later")), None);
        // Nobody may make something there, root included; some systems tell it only when it is tried.
        if let Some(finding) = refused("state_dir", Path::new("/proc/self")) {
            assert_eq!(finding.verdict, Verdict::Problem);
            assert!(finding.found.starts_with("state_dir: user "), "{}", finding.found);
        }
    }
}
