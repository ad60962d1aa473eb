//! Keys in files: Ed25519, private ones as PKCS#8 in PEM (RFC 8410), which OpenSSL reads and writes as well.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use pem::Pem;
use tough::schema::key::{Ed25519Key, Ed25519Scheme, Key};

use super::{Role, TrustError};
use crate::pack::PackError;
use crate::place::sync_directory;

const PRIVATE: &str = "PRIVATE KEY";
const PUBLIC: &str = "PUBLIC KEY";
/// What stands before the 32 bytes of an Ed25519 key in a `SubjectPublicKeyInfo` (RFC 8410).
const PUBLIC_HEADER: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// Most bytes of a key's file.
const MOST: u64 = 64 << 10;
/// What is allowed in one.
const ALLOWED: &str = "allowed is an Ed25519 key in PEM, PRIVATE KEY (PKCS#8, not encrypted) or PUBLIC KEY";

/// Folders that keys lie in, as files `*.pem`.
#[derive(Debug, Clone)]
pub struct Keys {
    folders: Vec<PathBuf>,
}

/// A key that signs.
#[derive(Debug)]
pub(super) struct SigningKey {
    pub(super) id: Vec<u8>,
    pair: Ed25519KeyPair,
}

impl SigningKey {
    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }
}

impl Keys {
    /// New keys are written to the first folder.
    pub fn new(folders: Vec<PathBuf>) -> Self {
        Self { folders }
    }

    pub(super) fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// Every private key of the folders. A folder that is not there has none.
    pub(super) fn private(&self) -> Result<Vec<SigningKey>, TrustError> {
        let mut found: Vec<SigningKey> = Vec::new();
        for folder in &self.folders {
            let entries = match fs::read_dir(folder) {
                Ok(entries) => entries,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(PackError::io("read", folder)(error).into()),
            };
            for entry in entries {
                let path = entry.map_err(PackError::io("read", folder))?.path();
                if path.extension().is_some_and(|extension| extension == "pem")
                    && let Parsed::Private(pair) = read(&path)?
                {
                    let id = id(&public_key(pair.public_key().as_ref()), &path)?;
                    if found.iter().all(|other| other.id != id) {
                        found.push(SigningKey { id, pair });
                    }
                }
            }
        }
        Ok(found)
    }

    /// Makes a key for a role, in a file that only its owner may read.
    pub(super) fn generate(&self, role: Role) -> Result<(Key, PathBuf), TrustError> {
        let failed = |_| TrustError::Sign("the system gives no random numbers".to_owned());
        let document = Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new()).map_err(failed)?;
        let pair = Ed25519KeyPair::from_pkcs8(document.as_ref())
            .map_err(|error| TrustError::Sign(format!("a new key is refused: {error}")))?;
        let key = public_key(pair.public_key().as_ref());
        let folder = self.folders.first().map_or(Path::new("."), PathBuf::as_path);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(PackError::io("make", folder))?;
        let id = id(&key, folder)?;
        let path = folder.join(format!("{role}-{}.pem", short(&id)));
        let text = pem::encode_config(
            &Pem::new(PRIVATE, document.as_ref()),
            pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF),
        );
        let write = |mut file: File| file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(write)
            .map_err(PackError::io("write", &path))?;
        sync_directory(folder)?;
        Ok((key, path))
    }
}

/// The public part of the key in a file, whichever part that holds.
pub(super) fn read_public(path: &Path) -> Result<Key, TrustError> {
    Ok(match read(path)? {
        Parsed::Private(pair) => public_key(pair.public_key().as_ref()),
        Parsed::Public(bytes) => public_key(&bytes),
    })
}

/// The beginning of a key's id, enough to tell it from the others.
pub(super) fn short(id: &[u8]) -> String {
    id.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// A key's id: the SHA-256 of its canonical JSON (specification, 4.2).
pub(super) fn id(key: &Key, path: &Path) -> Result<Vec<u8>, TrustError> {
    let problem = |error: tough::schema::Error| TrustError::Key { path: path.to_owned(), problem: error.to_string() };
    Ok(key.key_id().map_err(problem)?.into_vec())
}

enum Parsed {
    Private(Ed25519KeyPair),
    Public(Vec<u8>),
}

fn read(path: &Path) -> Result<Parsed, TrustError> {
    let refuse = |problem: String| TrustError::Key { path: path.to_owned(), problem: format!("{problem}; {ALLOWED}") };
    let metadata = fs::metadata(path).map_err(PackError::io("look at", path))?;
    if metadata.len() > MOST {
        return Err(refuse(format!("it has {} bytes", metadata.len())));
    }
    let bytes = fs::read(path).map_err(PackError::io("read", path))?;
    let parsed = pem::parse(&bytes).map_err(|error| refuse(format!("it is no PEM: {error}")))?;
    let public = || parsed.contents().strip_prefix(&PUBLIC_HEADER).filter(|key| key.len() == 32);
    match parsed.tag() {
        PRIVATE => Ed25519KeyPair::from_pkcs8(parsed.contents())
            .map(Parsed::Private)
            .map_err(|error| refuse(format!("the private key is refused: {error}"))),
        PUBLIC => public()
            .map(|key| Parsed::Public(key.to_vec()))
            .ok_or_else(|| refuse("the public key is not an Ed25519 one".to_owned())),
        other => Err(refuse(format!("it holds a {other:?}"))),
    }
}

fn public_key(bytes: &[u8]) -> Key {
    Key::Ed25519 {
        keyval: Ed25519Key { public: bytes.to_vec().into(), _extra: Default::default() },
        scheme: Ed25519Scheme::Ed25519,
        _extra: Default::default(),
    }
}
