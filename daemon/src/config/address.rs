//! Where the daemon listens.

use std::ffi::OsStr;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::str::FromStr;

/// Longest path of a Unix socket, in bytes: the kernel's 108 less the closing zero.
const UNIX_PATH_MAX: usize = 107;

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// `IP:PORT`; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// `unix:/PATH`.
    Unix(PathBuf),
}

impl Address {
    /// The addresses that an entry of `listen` means: `localhost:PORT` is that port of each loopback address of this machine.
    ///
    /// # Errors
    /// What is wrong with the entry.
    pub(super) fn listed(text: impl AsRef<OsStr>) -> Result<Vec<Self>, String> {
        let text = text.as_ref();
        match text.to_str().and_then(|text| text.strip_prefix("localhost:")).map(str::parse) {
            Some(Ok(port)) => Ok(loopback(port, has_ipv6())),
            _ => Ok(vec![Self::of(text)?]),
        }
    }

    /// Whether only this machine can reach it.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => match address.ip() {
                IpAddr::V4(ip) => ip.is_loopback(),
                IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
                    Some(mapped) => mapped.is_loopback(),
                    None => ip.is_loopback(),
                },
            },
            Self::Unix(_) => true,
        }
    }

    /// Whether a socket on this address gets what comes to the other one, too.
    pub(super) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(one), Self::Tcp(other)) if one.port() == other.port() && one.port() != 0 => {
                let any = one.ip().is_unspecified() && (one.is_ipv6() || other.is_ipv4());
                one.ip() == other.ip() || any
            }
            _ => self == other,
        }
    }

    /// Whether it is every address of version 4, and the other one has its port.
    pub(super) fn is_other_half_of(&self, other: &Self) -> bool {
        let (Self::Tcp(one), Self::Tcp(other)) = (self, other) else { return false };
        one.is_ipv4() && one.ip().is_unspecified() && one.port() == other.port()
    }
}

/// Both loopback addresses, or the one of version 4.
fn loopback(port: u16, ipv6: bool) -> Vec<Address> {
    let mut addresses = vec![Address::Tcp((Ipv4Addr::LOCALHOST, port).into())];
    addresses.extend(ipv6.then(|| Address::Tcp((Ipv6Addr::LOCALHOST, port).into())));
    addresses
}

/// Whether this machine has the loopback address of version 6: without it, listening there fails.
fn has_ipv6() -> bool {
    UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

/// An address on which systemd listens for the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Where.
    pub address: Address,
    /// Whether it is one of version 6 that gets nothing of what comes by version 4 (`IPV6_V6ONLY`, ipv6(7)).
    pub only_v6: bool,
}

impl Held {
    /// `only_v6`: what is set for the socket, of whichever kind it is.
    pub fn new(address: Address, only_v6: bool) -> Self {
        let six = matches!(address, Address::Tcp(address) if address.is_ipv6());
        Self { address, only_v6: only_v6 && six }
    }

    /// Whether this socket gets what comes to the other address, too.
    pub(super) fn covers(&self, other: &Address) -> bool {
        let by_v4 = matches!(other, Address::Tcp(other) if other.ip().to_canonical().is_ipv4());
        self.address.covers(other) && !(self.only_v6 && by_v4)
    }

    /// Whether this address is that of the socket, and would get what comes by version 4 if the daemon listened on it itself.
    pub(super) fn is_half_of(&self, other: &Address) -> bool {
        let any = matches!(other, Address::Tcp(other) if other.ip().is_unspecified());
        self.only_v6 && any && self.address == *other
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix(path.as_bytes());
        }
        text.parse().map(Self::Tcp).map_err(|_| {
            "not an address: write IP:PORT (127.0.0.1:50051, [::1]:50051), localhost:PORT or unix:/PATH".into()
        })
    }
}

impl Address {
    /// An address that may be a path which is not UTF-8.
    ///
    /// # Errors
    /// It is no address.
    pub(super) fn of(text: &OsStr) -> Result<Self, String> {
        match text.as_bytes().strip_prefix(b"unix:") {
            Some(path) => unix(path),
            None => text.to_string_lossy().parse(),
        }
    }
}

/// The socket at a path, with or without the `//` of a URL before it.
fn unix(path: &[u8]) -> Result<Address, String> {
    let path = path.strip_prefix(b"//").unwrap_or(path);
    if !path.starts_with(b"/") {
        return Err("a Unix socket needs an absolute path, as in unix:/run/recurve/recurved.sock".into());
    }
    if path.len() > UNIX_PATH_MAX || path.contains(&0) {
        return Err(format!("the path of a Unix socket has at most {UNIX_PATH_MAX} bytes and no zero byte"));
    }
    Ok(Address::Unix(PathBuf::from(OsStr::from_bytes(path))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_and_prints_each_spelling() {
        for (text, printed) in [
            ("127.0.0.1:50051", "127.0.0.1:50051"),
            ("[::1]:7", "[::1]:7"),
            ("unix:/run/a.sock", "unix:/run/a.sock"),
            ("unix:///run/a.sock", "unix:/run/a.sock"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), printed);
        }
    }

    #[test]
    fn localhost_is_every_loopback_address() {
        let printed = |addresses: Vec<Address>| addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(printed(loopback(7, true)), ["127.0.0.1:7", "[::1]:7"]);
        assert_eq!(printed(loopback(7, false)), ["127.0.0.1:7"]);
        assert_eq!(Address::listed("localhost:7").unwrap(), loopback(7, has_ipv6()));
        assert_eq!(printed(Address::listed("[::1]:7").unwrap()), ["[::1]:7"]);
        for text in ["localhost:x", "localhost:65536", "localhost"] {
            assert!(Address::listed(text).unwrap_err().contains("localhost:PORT"), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_address() {
        let long = format!("unix:/{}", "x".repeat(107));
        for text in ["", "50051", "gateway:50051", "unix:a.sock", "127.0.0.1:65536", "127.0.0.1", "localhost:x", &long]
        {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_socket_on_all_addresses_covers_each_of_its_port() {
        for (one, other, covers) in [
            ("127.0.0.1:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "127.0.0.1:2", false),
            ("0.0.0.0:1", "10.0.0.1:1", true),
            ("0.0.0.0:1", "[::1]:1", false),
            ("[::]:1", "10.0.0.1:1", true),
            ("[::]:1", "0.0.0.0:1", true),
            ("10.0.0.1:1", "0.0.0.0:1", false),
            ("127.0.0.1:0", "127.0.0.1:0", true),
            ("unix:/a", "unix:/a", true),
            ("unix:/a", "unix:/b", false),
        ] {
            let (one, other) = (one.parse::<Address>().unwrap(), other.parse::<Address>().unwrap());
            assert_eq!(one.covers(&other), covers, "{one} {other}");
        }
    }

    #[test]
    fn a_socket_for_version_6_alone_covers_nothing_of_version_4() {
        for (held, only_v6, other, covers) in [
            ("[::]:1", false, "0.0.0.0:1", true),
            ("[::]:1", true, "0.0.0.0:1", false),
            ("[::]:1", true, "10.0.0.1:1", false),
            ("[::]:1", true, "[::ffff:10.0.0.1]:1", false),
            ("[::]:1", true, "[::1]:1", true),
            ("[::]:1", true, "[::]:1", true),
            ("0.0.0.0:1", true, "10.0.0.1:1", true),
            ("unix:/a", true, "unix:/a", true),
        ] {
            let held = Held::new(held.parse().unwrap(), only_v6);
            assert_eq!(held.covers(&other.parse().unwrap()), covers, "{held:?} {other}");
        }
    }

    #[test]
    fn tells_local_from_reachable() {
        for (text, local) in [
            ("127.0.0.1:1", true),
            ("127.9.9.9:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("unix:/a", true),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
            ("192.168.1.4:1", false),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().is_local(), local, "{text}");
        }
    }
}
