//! Which daemon is meant: the meaning of `--on`.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use recurve_proto::pem::{self, Wanted};

use crate::exit::Failure;

/// The socket of the daemon on this machine, as its systemd unit opens it.
pub(crate) const LOCAL_SOCKET: &str = "/run/recurve/recurved.sock";
/// Where a daemon on this machine listens by default.
const LOCAL_ADDRESS: (&str, u16) = ("127.0.0.1", 50051);
/// What `--on` takes, for messages.
const ALLOWED: &str =
    "a name of the inventory, host:port (gateway-7:50051, 192.0.2.7:50051, [2001:db8::7]:50051) or unix:/path";

/// The address of one daemon.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    /// `host` is a name, an IPv4 address, or an IPv6 address in brackets.
    Tcp { host: String, port: u16 },
    /// Path of a Unix socket.
    Unix(PathBuf),
}

/// Where a daemon is, and what it takes to be heard there.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    /// Where.
    pub(crate) target: Target,
    /// For TLS; none where there is none.
    pub(crate) certificates: Option<Certificates>,
}

impl Address {
    /// Who is called there.
    pub(crate) fn peer(&self) -> Peer {
        let shown = match (&self.target, &self.certificates) {
            (Target::Unix(_), _) => Shown::Enough,
            (Target::Tcp { .. }, None) => Shown::Nothing,
            (Target::Tcp { .. }, Some(Certificates { own: None, .. })) => Shown::Authority,
            (Target::Tcp { .. }, Some(Certificates { own: Some(_), .. })) => Shown::Own,
        };
        Peer { target: self.target.clone(), shown, heard: Heard::default() }
    }
}

/// Who is called, for words about calls that fail.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// Where.
    pub(crate) target: Target,
    /// Whether certificates may be why nothing is heard.
    pub(crate) shown: Shown,
    /// What its end of the newest connection has said.
    pub(crate) heard: Heard,
}

/// The protocol that the other end of a connection speaks, as far as is known. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard(Arc<Mutex<Spoken>>);

/// A protocol, by its first bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Spoken {
    /// No byte has come.
    #[default]
    Nothing,
    Tls,
    /// HTTP/2 without TLS.
    Http2,
    /// HTTP/1 without TLS.
    Http1,
    Other,
}

impl Heard {
    pub(crate) fn note(&self, spoken: Spoken) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = spoken;
    }

    pub(crate) fn spoken(&self) -> Spoken {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The certificates that a connection is made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// None: there is no TLS.
    Nothing,
    /// That of the authority that knows the daemon.
    Authority,
    /// Our own, too.
    Own,
    /// It answered over this connection, or is called over a socket: they are not the reason.
    Enough,
}

/// What TLS needs, in PEM.
#[derive(Clone)]
pub(crate) struct Certificates {
    /// Of the authority that knows the daemon.
    pub(crate) ca: Vec<u8>,
    /// Our own certificate and its key.
    pub(crate) own: Option<(Vec<u8>, Vec<u8>)>,
}

impl fmt::Debug for Certificates {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("own", &self.own.is_some()).finish_non_exhaustive()
    }
}

/// The files of [`Certificates`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CertificateFiles {
    /// Of the authority that knows the daemon.
    pub(crate) ca: PathBuf,
    /// Our own certificate and its key.
    pub(crate) own: Option<(PathBuf, PathBuf)>,
}

impl CertificateFiles {
    /// Reads them.
    pub(crate) fn read(&self) -> Result<Certificates, Failure> {
        let read = |field: &str, path: &PathBuf, wanted| -> Result<Vec<u8>, Failure> {
            let wrong = |words: String| Failure::Usage(format!("{field} = {}: {words}", path.display()));
            let bytes = std::fs::read(path).map_err(|error| wrong(format!("cannot read it: {error}")))?;
            pem::check(&bytes, wanted).map_err(wrong)?;
            Ok(bytes)
        };
        let own = match &self.own {
            Some((certificate, key)) => {
                Some((read("certificate", certificate, Wanted::Certificate)?, read("key", key, Wanted::PrivateKey)?))
            }
            None => None,
        };
        Ok(Certificates { ca: read("ca", &self.ca, Wanted::Certificate)?, own })
    }
}

impl Target {
    /// The address in the spelling that the gRPC transport takes. For a Unix socket it has only the name that is sent to the
    /// daemon: a path may hold what no URI holds.
    pub(crate) fn uri(&self, encrypted: bool) -> String {
        match self {
            Self::Tcp { host, port } if encrypted => format!("https://{host}:{port}"),
            Self::Tcp { host, port } => format!("http://{host}:{port}"),
            Self::Unix(_) => "http://localhost".to_owned(),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Whether `on` can only be a name of the inventory: it is one word, and no address is.
pub(crate) fn is_name(on: &str) -> bool {
    !on.is_empty() && !on.contains([':', '/'])
}

/// The daemon at the address `on`; without it the one on this machine: by its socket where `socket` exists, else by TCP.
pub(crate) fn resolve(on: Option<&OsStr>, socket: &Path) -> Result<Target, Failure> {
    match on {
        Some(text) => parse_os(text)
            .map_err(|problem| Failure::Usage(format!("--on {text:?} (or RECURVE_ON) {problem}; allowed: {ALLOWED}"))),
        None if socket.exists() => Ok(Target::Unix(socket.to_owned())),
        None => Ok(Target::Tcp { host: LOCAL_ADDRESS.0.to_owned(), port: LOCAL_ADDRESS.1 }),
    }
}

/// An address, which may be a path that is not UTF-8, or what is wrong with it.
fn parse_os(text: &OsStr) -> Result<Target, String> {
    match (text.to_str(), text.as_bytes().strip_prefix(b"unix:")) {
        (_, Some(path)) => unix(path),
        (Some(text), None) => parse(text),
        (None, None) => Err("is not UTF-8 text".to_owned()),
    }
}

/// An address as text, or what is wrong with it.
pub(crate) fn parse(text: &str) -> Result<Target, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix(path.as_bytes());
    }
    if text.is_empty() {
        return Err("is empty".to_owned());
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        let rest = rest.trim_end_matches('/');
        return Err(format!("is a URL: leave out `{scheme}://` and write {rest:?}"));
    }
    if text.starts_with(['/', '.']) {
        return Err(format!("is a path, and addresses that are paths begin with `unix:`: write `unix:{text}`"));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(format!("has no port: write `{text}:{}`", LOCAL_ADDRESS.1));
    };
    let port = match port.parse::<u16>() {
        Ok(0) | Err(_) => return Err(format!("has the port {port:?}, which is not 1 to 65535")),
        Ok(port) => port,
    };
    check_host(host)?;
    Ok(Target::Tcp { host: host.to_owned(), port })
}

/// The socket at a path, with or without the `//` of a URL before it.
fn unix(path: &[u8]) -> Result<Target, String> {
    let path = path.strip_prefix(b"//").unwrap_or(path);
    if !path.starts_with(b"/") {
        return Err("names a socket by a path that does not begin with /".to_owned());
    }
    if path.contains(&0) {
        return Err("names a socket by a path with a zero byte".to_owned());
    }
    Ok(Target::Unix(OsStr::from_bytes(path).into()))
}

fn check_host(host: &str) -> Result<(), String> {
    if host.is_empty() {
        return Err("has no host".to_owned());
    }
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return match address.parse::<std::net::Ipv6Addr>() {
            Ok(_) => Ok(()),
            Err(_) => Err(format!("has {address:?} in brackets, which is not an IPv6 address")),
        };
    }
    if host.contains(':') {
        return Err(format!("looks like IPv6: write the host in brackets, `[{host}]:PORT`"));
    }
    match host.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))) {
        Some(wrong) => Err(format!("has {wrong:?} in the host")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Target {
        Target::Tcp { host: host.to_owned(), port }
    }

    #[test]
    fn addresses_are_understood() {
        for (text, expected) in [
            ("localhost:50051", tcp("localhost", 50051)),
            ("gw_7.lan:1", tcp("gw_7.lan", 1)),
            ("10.0.0.7:65535", tcp("10.0.0.7", 65535)),
            ("[::1]:50051", tcp("[::1]", 50051)),
            ("unix:/run/x.sock", Target::Unix("/run/x.sock".into())),
            ("unix:///run/x.sock", Target::Unix("/run/x.sock".into())),
        ] {
            assert_eq!(parse(text), Ok(expected.clone()), "{text}");
            assert_eq!(parse(&expected.to_string()), Ok(expected), "{text}, printed");
        }
    }

    #[test]
    fn wrong_addresses_say_what_is_wrong_and_what_is_allowed() {
        for (text, problem) in [
            ("", "is empty"),
            ("gateway", "write `gateway:50051`"),
            ("http://gateway:50051/", "leave out `http://` and write \"gateway:50051\""),
            ("gateway:", "port \"\""),
            ("gateway:0", "not 1 to 65535"),
            ("gateway:70000", "not 1 to 65535"),
            (":50051", "no host"),
            ("::1:50051", "brackets, `[::1]:PORT`"),
            ("[::1:50051", "brackets"),
            ("[gateway]:50051", "not an IPv6 address"),
            ("user@gateway:50051", "'@' in the host"),
            ("gate way:50051", "' ' in the host"),
            ("unix:run/x.sock", "begin with /"),
            ("unix:", "begin with /"),
        ] {
            let Err(Failure::Usage(message)) = resolve(Some(OsStr::new(text)), Path::new("/none")) else {
                panic!("{text:?} was taken");
            };
            assert!(message.contains(problem), "{text:?}: {message}");
            assert!(message.contains(ALLOWED), "{text:?}: {message}");
            assert!(!message.contains('\n'), "{text:?}: {message}");
        }
    }

    #[test]
    fn the_path_of_a_socket_may_be_no_text() {
        let socket = |path: &[u8]| Ok(Target::Unix(OsStr::from_bytes(path).into()));
        for (text, expected) in [
            (&b"unix:/run/\xff.sock"[..], socket(b"/run/\xff.sock")),
            (b"unix:///run/a b%20c.sock", socket(b"/run/a b%20c.sock")),
        ] {
            assert_eq!(resolve(Some(OsStr::from_bytes(text)), Path::new("/none")), expected);
        }
        let Err(Failure::Usage(message)) = resolve(Some(OsStr::from_bytes(b"gw\xff:1")), Path::new("/none")) else {
            panic!("it was taken");
        };
        assert!(message.starts_with(r#"--on "gw\xFF:1" (or RECURVE_ON) is not UTF-8 text; allowed: "#), "{message}");
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_taken_is_printed_so_that_it_is_taken_again(text in "(unix:)?[a-z0-9:/.\\[\\]@ -]{0,24}") {
            if let Ok(target) = parse(&text) {
                proptest::prop_assert_eq!(parse(&target.to_string()), Ok(target));
            }
        }
    }

    #[test]
    fn without_a_name_the_local_socket_comes_before_the_local_port() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("recurved.sock");
        assert_eq!(resolve(None, &socket), Ok(tcp("127.0.0.1", 50051)));
        std::fs::write(&socket, "").unwrap();
        let expected = Target::Unix(socket.clone());
        assert_eq!(resolve(None, &socket), Ok(expected));
    }
}
