//! User names and passwords, and the `auth.json` of docker, podman and skopeo that holds them.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::error::RegistryError;
use crate::reference::Repository;

/// Most bytes of an `auth.json`.
const LARGEST: u64 = 1 << 20;

/// Who one is to a registry. The password is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user's name.
    pub username: String,
    /// The user's password, or a token that stands for it.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Credentials by registry, or by a part of it.
#[derive(Debug, Clone, Default)]
pub struct AuthFile {
    entries: BTreeMap<String, Credentials>,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
}

impl AuthFile {
    /// Reads a file. Entries that keep their secret elsewhere (`credHelpers`, `credsStore`) count as none.
    ///
    /// # Errors
    /// It cannot be read, or is no such file.
    pub fn read(path: &Path) -> Result<Self, RegistryError> {
        let refuse = |problem: String| RegistryError::AuthFile { path: path.to_owned(), problem };
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes))
            .map_err(|error| refuse(format!("cannot be read: {error}")))?;
        if bytes.len() as u64 > LARGEST {
            return Err(refuse(format!("has more than {LARGEST} bytes")));
        }
        Self::parse(&bytes).map_err(refuse)
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        // The parser's own words may quote a secret.
        let document: Document = serde_json::from_slice(bytes)
            .map_err(|error| format!("is not JSON with `auths` (line {}, column {})", error.line(), error.column()))?;
        let mut entries = BTreeMap::new();
        for (key, entry) in document.auths {
            if let Some(credentials) = entry.credentials().ok_or_else(|| {
                format!("`auths`: the entry of {key:?} has an `auth` that is not USER:PASSWORD in base64")
            })? {
                entries.insert(normal(&key).to_owned(), credentials);
            }
        }
        Ok(Self { entries })
    }

    /// The credentials for a repository: those of its longest beginning that has some, down to the registry's own.
    pub fn find(&self, repository: &Repository) -> Option<&Credentials> {
        let whole = repository.to_string();
        let mut key = whole.as_str();
        loop {
            if let Some(found) = self.entries.get(key) {
                return Some(found);
            }
            key = key.rsplit_once('/')?.0;
        }
    }
}

impl Entry {
    /// None where there are none; no value at all where they cannot be read.
    fn credentials(self) -> Option<Option<Credentials>> {
        match (self.auth.filter(|auth| !auth.is_empty()), self.username, self.password) {
            (Some(auth), ..) => {
                let text = String::from_utf8(STANDARD.decode(auth.trim()).ok()?).ok()?;
                let (username, password) = text.split_once(':')?;
                Some(Some(Credentials { username: username.to_owned(), password: password.to_owned() }))
            }
            (None, Some(username), Some(password)) => Some(Some(Credentials { username, password })),
            _ => Some(None),
        }
    }
}

/// Older docker wrote URLs.
fn normal(key: &str) -> &str {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let key = key.strip_suffix('/').unwrap_or(key);
    key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(file: &AuthFile, registry: &str, name: &str) -> Option<String> {
        file.find(&Repository::new(registry, name).unwrap()).map(|found| found.username.clone())
    }

    #[test]
    fn the_most_specific_entry_wins() {
        let entry = |user: &str| format!(r#"{{"auth": "{}"}}"#, STANDARD.encode(format!("{user}:a:b")));
        let text = format!(
            r#"{{"auths": {{"r:5000": {}, "r:5000/models": {}, "r:5000/models/a": {}, "https://old/v1/": {}, "helped": {{}}}}}}"#,
            entry("host"),
            entry("part"),
            entry("whole"),
            entry("url")
        );
        let file = AuthFile::parse(text.as_bytes()).unwrap();
        for (registry, name, expected) in [
            ("r:5000", "models/a", Some("whole")),
            ("r:5000", "models/b/c", Some("part")),
            ("r:5000", "modelsb", Some("host")),
            ("old", "x", Some("url")),
            ("helped", "x", None),
            ("r", "x", None),
        ] {
            assert_eq!(user(&file, registry, name).as_deref(), expected, "{registry}/{name}");
        }
        assert_eq!(file.find(&Repository::new("r:5000", "x").unwrap()).unwrap().password, "a:b");
    }

    #[test]
    fn what_cannot_be_read_is_told_without_a_secret() {
        for text in ["{", r#"{"auths": {"r": {"auth": "c2VjcmV0"}}}"#, r#"{"auths": {"r": {"auth": 7}}}"#, "7"] {
            let error = AuthFile::parse(text.as_bytes()).unwrap_err();
            assert!(!error.contains("c2VjcmV0"), "{error}");
        }
        let shown = format!("{:?}", Credentials { username: "u".to_owned(), password: "secret".to_owned() });
        assert!(!shown.contains("secret"), "{shown}");
    }
}
