//! A real registry: Debian's `docker-registry`, on a port of its own, with its blobs in a temporary folder.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::{JoinHandle, spawn};

use tempfile::TempDir;

use crate::process::LIMIT;

/// Who may use a registry that asks,
pub const USER: &str = "operator";
/// and with which password.
pub const PASSWORD: &str = "swordfish";
/// The same for `htpasswd`: the registry takes bcrypt only.
const HTPASSWD: &str = "operator:$2y$05$abcdefghijklmnopqrstuupWDwJQeCHYIBQy8WvkVB6ImhZ476YYy\n";

/// A running registry. Dropped, it ends.
#[derive(Debug)]
pub struct Registry {
    /// Where it listens.
    pub address: String,
    process: Child,
    reader: Option<JoinHandle<()>>,
    dir: TempDir,
}

/// Whether it is installed; says it where it is not.
pub fn installed() -> bool {
    let found = Command::new("docker-registry").arg("--version").output().is_ok();
    if !found {
        println!("skipped: docker-registry is not installed");
    }
    found
}

impl Registry {
    /// One that everybody may use.
    pub fn start() -> Self {
        Self::with(|_| String::new())
    }

    /// One that asks for [`USER`] and [`PASSWORD`].
    pub fn with_password() -> Self {
        Self::with(|dir| {
            let file = dir.join("htpasswd");
            std::fs::write(&file, HTPASSWD).expect("a file");
            format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", file.display())
        })
    }

    /// One that speaks TLS.
    pub fn with_tls(certificate: &Path, key: &Path) -> Self {
        Self::with(|_| format!("  tls:\n    certificate: {}\n    key: {}\n", certificate.display(), key.display()))
    }

    fn with(more: impl FnOnce(&Path) -> String) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let more = more(dir.path());
        let store = dir.path().join("store");
        let config = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:0\n{more}",
            store.display()
        );
        let file = dir.path().join("config.yml");
        std::fs::write(&file, config).expect("a file");
        let mut process = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry starts");
        let stderr = process.stderr.take().expect("its log");
        let (found, address) = mpsc::channel();
        let reader = spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some((_, rest)) = line.split_once("listening on ") {
                    let end = rest.find([',', '"']).unwrap_or(rest.len());
                    let _ = found.send(rest[..end].to_owned());
                }
            }
        });
        let address = address.recv_timeout(LIMIT).expect("docker-registry listens");
        Self { address, process, reader: Some(reader), dir }
    }

    /// Where a blob lies on its disk.
    pub fn blob(&self, hex: &str) -> PathBuf {
        let blobs = self.dir.path().join("store/docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(hex).join("data")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}
