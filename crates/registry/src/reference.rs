//! `oci://HOST[:PORT]/REPOSITORY[:TAG|@DIGEST]`, read once.

use std::fmt;
use std::str::FromStr;

use recurve_bundle::Digest;

const SCHEME: &str = "oci://";
const DEFAULT_TAG: &str = "latest";
const LONGEST_REPOSITORY: usize = 255;
const LONGEST_TAG: usize = 128;

/// A repository of a registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Repository {
    registry: String,
    name: String,
}

/// One of the manifests of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Version {
    /// The one that has this tag at the moment.
    Tag(String),
    /// The one with this digest.
    Digest(Digest),
}

/// A bundle in a registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Where.
    pub repository: Repository,
    /// Which.
    pub version: Version,
}

/// A text that names no bundle in a registry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{value}` names no bundle in a registry: {problem}; write oci://HOST[:PORT]/REPOSITORY[:TAG|@sha256:…]")]
pub struct ReferenceError {
    value: String,
    problem: &'static str,
}

impl Repository {
    /// A repository of the registry at `HOST[:PORT]`.
    ///
    /// # Errors
    /// One of the two is not written as the specification wants it.
    pub fn new(registry: &str, name: &str) -> Result<Self, ReferenceError> {
        let refuse = |problem| {
            let value = format!("{registry}/{name}").chars().take(96).collect();
            ReferenceError { value, problem }
        };
        check_registry(registry).map_err(refuse)?;
        check_name(name).map_err(refuse)?;
        Ok(Self { registry: registry.to_ascii_lowercase(), name: name.to_owned() })
    }

    /// Host and perhaps port.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository's name there.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.name)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if matches!(self.version, Version::Tag(_)) { ':' } else { '@' };
        write!(f, "{SCHEME}{}{separator}{}", self.repository, self.version)
    }
}

impl Reference {
    /// Whether a text is meant as one, and not as a path.
    pub fn is_meant(text: &str) -> bool {
        text.starts_with(SCHEME)
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let refuse = |problem| ReferenceError { value: text.chars().take(96).collect(), problem };
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| refuse("it does not begin with oci://"))?;
        let (registry, rest) = rest.split_once('/').ok_or_else(|| refuse("it has no repository"))?;
        let (name, version) = if let Some((name, digest)) = rest.split_once('@') {
            let digest = digest.parse().map_err(|_| refuse("a digest is sha256: and 64 lower-case hex digits"))?;
            // A tag beside a digest says nothing more.
            (name.split_once(':').map_or(name, |(name, _)| name), Version::Digest(digest))
        } else {
            let (name, tag) = rest.split_once(':').unwrap_or((rest, DEFAULT_TAG));
            check_tag(tag).map_err(refuse)?;
            (name, Version::Tag(tag.to_owned()))
        };
        let repository = Repository::new(registry, name).map_err(|error| refuse(error.problem))?;
        Ok(Self { repository, version })
    }
}

fn check_registry(text: &str) -> Result<(), &'static str> {
    const ALLOWED: &str = "a registry is a host name or address, and perhaps a port";
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or(ALLOWED)?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| ALLOWED)?;
            ("ipv6", if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or(ALLOWED)?) })
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    let good = !host.is_empty() && host.len() <= 253 && host.chars().all(plain) && !host.starts_with(['-', '.']);
    let digits = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let good = good && port.is_none_or(|port| digits(port) && port.parse::<u16>().is_ok_and(|port| port > 0));
    if good { Ok(()) } else { Err(ALLOWED) }
}

/// The specification's `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, parts separated by `/`.
fn check_name(name: &str) -> Result<(), &'static str> {
    const ALLOWED: &str = "a repository is lower-case letters and digits, with `.`, `_`, `__` or `-` between them, and `/` between its parts";
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let part = |part: &str| {
        let bytes = part.as_bytes();
        let ends = bytes.first().is_some_and(|&b| alphanumeric(b)) && bytes.last().is_some_and(|&b| alphanumeric(b));
        let mut between = part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        ends && between
            .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-'))
    };
    if name.len() <= LONGEST_REPOSITORY && name.split('/').all(part) { Ok(()) } else { Err(ALLOWED) }
}

fn check_tag(tag: &str) -> Result<(), &'static str> {
    const ALLOWED: &str = "a tag is 1 to 128 letters, digits, `.`, `_` and `-`, and begins with neither `.` nor `-`";
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let good = (1..=LONGEST_TAG).contains(&tag.len()) && tag.chars().all(plain) && !tag.starts_with(['.', '-']);
    if good { Ok(()) } else { Err(ALLOWED) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_read_back_as_they_are_written() {
        let digest = Digest::of(b"");
        for text in [
            "oci://registry.local:5000/models/2b-it:1.0",
            "oci://127.0.0.1:5000/a:latest",
            "oci://[::1]:5000/a/b__c/d--e:x_y",
            &format!("oci://registry.local/a@{digest}"),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), text);
        }
        assert_eq!("oci://h/a".parse::<Reference>().unwrap().version, Version::Tag("latest".to_owned()));
        let both = format!("oci://h/a:1@{digest}").parse::<Reference>().unwrap();
        assert_eq!(both.version, Version::Digest(digest));
    }

    #[test]
    fn what_names_no_bundle_is_refused_with_the_reason() {
        for (text, said) in [
            ("registry/a:1", "does not begin with oci://"),
            ("oci://registry", "has no repository"),
            ("oci:///a", "a registry is"),
            ("oci://user@host/a", "a registry is"),
            ("oci://host:99999/a", "a registry is"),
            ("oci://host:+5/a", "a registry is"),
            ("oci://[::g]/a", "a registry is"),
            ("oci://host/A", "a repository is"),
            ("oci://host/a/../b", "a repository is"),
            ("oci://host/a//b", "a repository is"),
            ("oci://host/a_._b", "a repository is"),
            ("oci://host/a?x", "a repository is"),
            ("oci://host/a:", "a tag is"),
            ("oci://host/a:.x", "a tag is"),
            ("oci://host/a@sha256:12", "a digest is"),
        ] {
            let error = text.parse::<Reference>().unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
