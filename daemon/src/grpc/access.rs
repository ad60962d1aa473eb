//! Who may call what: the one place that decides it.

use super::peer::Peer;
use super::status::CallError;

/// What a call needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    /// To change what the node does.
    Operate,
}

/// Whether whoever is at the other end may make a call that needs this right. Who may open the Unix socket is an operator;
/// whoever comes over TCP has not said who they are, and may only use the model.
///
/// # Errors
/// They may not.
pub(super) fn check(peer: Option<&Peer>, right: Right) -> Result<(), CallError> {
    match (peer, right) {
        (Some(Peer::Unix), Right::Operate) => Ok(()),
        (Some(Peer::Tcp(_)) | None, Right::Operate) => Err(CallError::NotAllowed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_unix_socket_is_for_operators() {
        assert!(check(Some(&Peer::Unix), Right::Operate).is_ok());
        let loopback = Peer::Tcp(std::net::Ipv4Addr::LOCALHOST.into());
        assert!(matches!(check(Some(&loopback), Right::Operate), Err(CallError::NotAllowed)));
        assert!(matches!(check(None, Right::Operate), Err(CallError::NotAllowed)));
    }
}
