//! Who may call what: the one place that decides it.

use super::peer::Peer;
use super::status::CallError;

/// What a call needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    /// To change what the node does.
    Operate,
}

/// Whether whoever is at the other end may make a call that needs this right. Who may open the Unix socket is an operator, and
/// so is, as long as certificates name no roles, whoever shows one; whoever comes over plain TCP has not said who they are,
/// and may only use the model.
///
/// # Errors
/// They may not.
pub(super) fn check(peer: Option<&Peer>, right: Right) -> Result<(), CallError> {
    match (peer, right) {
        (Some(Peer::Unix | Peer::Certified(_)), Right::Operate) => Ok(()),
        (Some(Peer::Tcp(_)) | None, Right::Operate) => Err(CallError::NotAllowed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_come_over_the_unix_socket_or_with_a_certificate() {
        let ip = std::net::IpAddr::from(std::net::Ipv4Addr::LOCALHOST);
        assert!(check(Some(&Peer::Unix), Right::Operate).is_ok());
        assert!(check(Some(&Peer::Certified(ip)), Right::Operate).is_ok());
        let loopback = Peer::Tcp(ip);
        assert!(matches!(check(Some(&loopback), Right::Operate), Err(CallError::NotAllowed)));
        assert!(matches!(check(None, Right::Operate), Err(CallError::NotAllowed)));
    }
}
