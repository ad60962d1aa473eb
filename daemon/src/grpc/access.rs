//! Who may call what: the one place that decides it.

use super::peer::Peer;
use super::status::CallError;

/// What a call needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    /// To have the model answer.
    Use,
    /// To change what the node does, and to look into it.
    Operate,
    /// The same, from this machine: for what could be done at its console as well.
    OperateHere,
}

/// Whether whoever is at the other end may make a call that needs this right. Who may open the Unix socket is an operator, and
/// so is, as long as certificates name no roles, whoever shows one; whoever comes over plain TCP has not said who they are,
/// and may only use the model. Health and reflection are for everybody, and do not ask.
///
/// # Errors
/// They may not.
pub(super) fn check(peer: Option<&Peer>, right: Right) -> Result<(), CallError> {
    match (peer, right) {
        (Some(Peer::Unix(_)), _)
        | (Some(Peer::Certified { .. }), Right::Use | Right::Operate)
        | (Some(Peer::Tcp(_)), Right::Use) => Ok(()),
        (Some(Peer::Certified { .. } | Peer::Tcp(_)), Right::OperateHere) => Err(CallError::NotHere),
        (Some(Peer::Tcp(_)), Right::Operate) | (None, _) => Err(CallError::NotAllowed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_come_over_the_unix_socket_or_with_a_certificate() {
        let ip = std::net::IpAddr::from(std::net::Ipv4Addr::LOCALHOST);
        for operator in [Peer::Unix(Some(0)), Peer::Certified { ip, name: "x".into() }] {
            assert!([Right::Use, Right::Operate].iter().all(|right| check(Some(&operator), *right).is_ok()));
        }
        assert!(check(Some(&Peer::Unix(None)), Right::OperateHere).is_ok());
        for elsewhere in [Peer::Certified { ip, name: "x".into() }, Peer::Tcp(ip)] {
            assert!(matches!(check(Some(&elsewhere), Right::OperateHere), Err(CallError::NotHere)));
        }
        let loopback = Peer::Tcp(ip);
        assert!(check(Some(&loopback), Right::Use).is_ok());
        assert!(matches!(check(Some(&loopback), Right::Operate), Err(CallError::NotAllowed)));
        assert!(matches!(check(None, Right::Use), Err(CallError::NotAllowed)));
    }
}
