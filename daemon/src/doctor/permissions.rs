//! Whether the daemon may write what it keeps.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use recurve_bundle::shell;
use rustix::fs::{Access, access};
use rustix::io::Errno;

use super::{Finding, Patient, Verdict, existing, ports, read};
use crate::config::Address;

const CHECK: &str = "permissions";
const SUPERUSER: u32 = 0;

/// A folder that the daemon writes to.
struct Folder<'a> {
    /// The setting that names it.
    key: &'static str,
    path: &'a Path,
    /// Whether the daemon does not start where it cannot be written: the history is kept in memory there.
    needed: bool,
}

pub(super) fn check(patient: &Patient<'_>) -> Vec<Finding> {
    let settings = patient.settings;
    let mut folders: Vec<Folder<'_>> = Vec::new();
    if settings.bundle.is_none() {
        folders.push(Folder { key: "state_dir", path: &settings.state_dir, needed: true });
    }
    if let Some(path) = &settings.telemetry.dir {
        folders.push(Folder { key: "telemetry.dir", path, needed: false });
    }
    // Those that systemd holds are made by it.
    let made = |address: &&Address| ports::served(patient, address) || ports::held(patient, address).is_some();
    for address in settings.listen.iter().filter(|address| !made(address)) {
        if let Address::Unix(path) = address
            && let Some(path) = path.parent()
        {
            folders.push(Folder { key: "listen", path, needed: true });
        }
    }
    // The superuser may write everywhere, and the service is another user.
    if user() == Some(SUPERUSER)
        && patient.serving.is_none()
        && let Some(finding) = foreign(patient.root, &settings.state_dir)
    {
        return vec![finding];
    }
    let refused: Vec<Finding> = folders.iter().filter_map(|folder| refused(folder, patient.stranger)).collect();
    match refused.is_empty() {
        true if folders.is_empty() => vec![Finding::ok(CHECK, "nothing has to be written")],
        true => {
            let names: Vec<String> = folders.iter().map(|folder| folder.path.display().to_string()).collect();
            vec![Finding::ok(CHECK, format!("this user may write {}", names.join(", ")))]
        }
        false => refused,
    }
}

/// A state directory that does not belong to the service's user, where there is one.
fn foreign(root: &Path, dir: &Path) -> Option<Finding> {
    let service = service(root)?;
    let owner = dir.metadata().ok()?.uid();
    (owner != service).then(|| {
        Finding::new(
            CHECK,
            Verdict::Warning,
            format!(
                "state_dir: {} belongs to user {owner}, and the service runs as recurve, user {service}",
                dir.display()
            ),
            format!("if the service is to use it: `sudo chown -R recurve:recurve {}`", shell::quote(dir)),
        )
    })
}

/// The user of the service, where there is one.
fn service(root: &Path) -> Option<u32> {
    let users = read(root, "etc/passwd")?;
    users.lines().find_map(|line| line.strip_prefix("recurve:")?.split(':').nth(1)?.parse().ok())
}

/// Who this process is.
fn user() -> Option<u32> {
    Path::new("/proc/self").metadata().ok().map(|meta| meta.uid())
}

/// Whether this process is neither root nor the owner of the state directory; where there is none yet, nor the service's user.
pub(super) fn stranger(root: &Path, state_dir: &Path) -> bool {
    let owner = match state_dir.metadata() {
        Ok(meta) => Some(meta.uid()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Some(SUPERUSER),
        Err(_) => service(root),
    };
    user().is_some_and(|user| differs(user, owner))
}

fn differs(user: u32, owner: Option<u32>) -> bool {
    user != SUPERUSER && owner.is_some_and(|owner| owner != user)
}

/// Why something cannot be written there, or made where it is missing.
fn refused(folder: &Folder<'_>, stranger: bool) -> Option<Finding> {
    let Folder { key, path: folder, needed } = *folder;
    let nearest = existing(folder);
    let error = access(&nearest, Access::WRITE_OK | Access::EXEC_OK).err()?;
    if stranger && error == Errno::ACCESS {
        return Some(Finding::hidden(CHECK, &format!("{key}: {}", folder.display())));
    }
    let owner = nearest.metadata().map(|meta| format!(", of user {} and group {}", meta.uid(), meta.gid()));
    let user = user().map_or_else(|| "of this process".to_owned(), |user| user.to_string());
    let found = format!("{key}: user {user} may not write {}{}: {error}", nearest.display(), owner.unwrap_or_default());
    let advice = format!(
        "run this as the user of the service (`sudo -u recurve recurved doctor`), or have that user own it: \
         `sudo install -d -o recurve -g recurve {}`",
        shell::quote(folder)
    );
    if !needed {
        let found = format!("{found}; the history is kept in memory, and ends with the daemon");
        return Some(Finding::new(CHECK, Verdict::Warning, found, advice));
    }
    Some(Finding::new(CHECK, Verdict::Problem, found, advice))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_cannot_be_written_is_named_with_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let of = |path: &Path, needed| refused(&Folder { key: "state_dir", path, needed }, false);
        assert_eq!(of(dir.path(), true), None);
        assert_eq!(of(&dir.path().join("made/later"), true), None);
        // Nobody may make something there, root included; some systems tell it only when it is tried.
        for (needed, verdict) in [(true, Verdict::Problem), (false, Verdict::Warning)] {
            if let Some(finding) = of(Path::new("/proc/self"), needed) {
                assert_eq!(finding.verdict, verdict);
                assert!(finding.found.starts_with("state_dir: user "), "{}", finding.found);
            }
        }
    }

    #[test]
    fn folders_in_commands_are_quoted() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("my models");
        std::fs::create_dir_all(root.path().join("etc")).unwrap();
        std::fs::create_dir(&dir).unwrap();
        let other = dir.metadata().unwrap().uid() + 1;
        std::fs::write(root.path().join("etc/passwd"), format!("recurve:x:{other}:{other}::/:/bin/false\n")).unwrap();
        let finding = foreign(root.path(), &dir).unwrap();
        let quoted = format!("`sudo chown -R recurve:recurve '{}'`", dir.display());
        assert!(finding.advice.ends_with(&quoted), "{}", finding.advice);
        if let Some(finding) =
            refused(&Folder { key: "state_dir", path: Path::new("/proc/self/my models"), needed: true }, false)
        {
            assert!(finding.advice.ends_with("-g recurve '/proc/self/my models'`"), "{}", finding.advice);
        }
    }

    #[test]
    fn a_stranger_is_neither_root_nor_the_owner() {
        assert!(differs(1000, Some(990)));
        for (user, owner) in [(0, Some(990)), (990, Some(990)), (1000, None)] {
            assert!(!differs(user, owner), "{user} {owner:?}");
        }
        let root = tempfile::tempdir().unwrap();
        assert_eq!(service(root.path()), None);
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/passwd"), "root:x:0:0::/:/bin/sh\nrecurve:x:990:990::/:/bin/false\n")
            .unwrap();
        assert_eq!(service(root.path()), Some(990));
    }
}
