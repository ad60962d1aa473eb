//! What it takes to talk to a registry.

use std::net::{IpAddr, Ipv6Addr};

use crate::credentials::Credentials;
use crate::retry::Retry;

/// How a registry is reached, and as whom.
#[derive(Debug, Clone)]
pub struct Access {
    /// Who one is there; none to ask without a name.
    pub credentials: Option<Credentials>,
    /// Speak plain HTTP. A registry on loopback is asked with TLS first, and without where it has none.
    pub plain_http: bool,
    /// Certificates in PEM of authorities that are trusted beside the system's.
    pub authority: Option<Vec<u8>>,
    /// How long a link that is lost in the middle of a blob is tried again.
    pub retry: Retry,
}

/// Whether a registry, `HOST[:PORT]`, is on this machine.
pub fn is_loopback(registry: &str) -> bool {
    if let Some(rest) = registry.strip_prefix('[') {
        let host = rest.split(']').next().unwrap_or_default();
        return host.parse::<Ipv6Addr>().is_ok_and(|ip| ip.is_loopback());
    }
    let host = registry.split(':').next().unwrap_or_default();
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_known_by_address_or_name() {
        for (registry, expected) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("127.9.9.9", true),
            ("[::1]:5000", true),
            ("registry.local:5000", false),
            ("10.0.0.1", false),
            ("localhost.example", false),
            ("127.0.0.1.example:5000", false),
            ("[::2]", false),
        ] {
            assert_eq!(is_loopback(registry), expected, "{registry}");
        }
    }
}
