//! Tells the local network where the daemon listens: DNS-SD over multicast DNS, `_recurve._tcp.local.`
//!
//! Nothing depends on it: what goes wrong is warned of once, and the daemon serves on.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mdns_sd::{DaemonEvent, Error, IfKind, IfPredicate, Receiver, ServiceDaemon, ServiceInfo};
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info, warn};

use crate::config::Address;
use crate::node::{Node, Phase};
use crate::telemetry::host::Machine;

/// What is announced.
const SERVICE: &str = "_recurve._tcp.local.";

/// A name that is free is announced within two seconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Time for the words that it is over to leave.
const GOODBYE: Duration = Duration::from_secs(1);

/// Longest part of a domain name, and room in it for a port.
const LABEL: usize = 63;
const LABEL_BEFORE_PORT: usize = LABEL - 6;

/// Longest value of ours; all of a property has 255 bytes.
const VALUE: usize = 200;

/// Takes the announcement back when it is dropped.
pub struct Announcement {
    mdns: ServiceDaemon,
    _task: AbortOnDropHandle<()>,
}

/// Announces every address that other machines can reach, until the node stops or this is dropped; none where there is no such
/// address.
pub fn start(node: &Arc<Node>, addresses: &[Address], encrypted: bool) -> Option<Announcement> {
    let ports = reachable(addresses);
    if ports.is_empty() {
        return None;
    }
    let begun = ServiceDaemon::new().and_then(|mdns| Ok((mdns.monitor()?, mdns)));
    let (events, mdns) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            warn_of(&error.to_string());
            return None;
        }
    };
    let announcer = Announcer { node: Arc::clone(node), mdns: mdns.clone(), host: host(), ports, encrypted };
    Some(Announcement { mdns, _task: AbortOnDropHandle::new(tokio::spawn(announcer.run(events))) })
}

impl Drop for Announcement {
    fn drop(&mut self) {
        // Fails where the node's stopping ended it already.
        if let Ok(ended) = self.mdns.shutdown() {
            let _ = ended.recv_timeout(GOODBYE);
        }
    }
}

struct Announcer {
    node: Arc<Node>,
    mdns: ServiceDaemon,
    host: String,
    ports: BTreeMap<u16, Vec<IpAddr>>,
    encrypted: bool,
}

impl Announcer {
    /// Announces, and again when the model changes.
    async fn run(self, events: Receiver<DaemonEvent>) {
        let mut phases = self.node.phases();
        let mut announced = model(&phases.borrow_and_update());
        let mut warned = self.announce(&announced).is_err_and(|error| warn_of(&error.to_string()));
        let (mut heard, patience) = (false, Instant::now() + PATIENCE);
        loop {
            tokio::select! {
                changed = phases.changed() => {
                    let phase = phases.borrow_and_update().clone();
                    if changed.is_err() || matches!(phase, Phase::Stopping) {
                        // Who looks for daemons from now on shall not find this one.
                        let _ = self.mdns.shutdown();
                        return;
                    }
                    let model = model(&phase);
                    // While one model takes another's place, the old word stays.
                    if model != announced && !matches!(phase, Phase::Switching) {
                        warned = warned || self.announce(&model).is_err_and(|error| warn_of(&error.to_string()));
                        announced = model;
                    }
                }
                event = events.recv_async() => match event {
                    Ok(DaemonEvent::Announce(name, on)) if !heard => {
                        heard = true;
                        info!(name, on, "announced on the local network");
                    }
                    Ok(DaemonEvent::NameChange(change)) => {
                        info!(wanted = change.original, name = change.new_name, "another machine has this name on the network");
                    }
                    Ok(DaemonEvent::Error(error)) => warned = warned || warn_of(&error.to_string()),
                    Ok(event) => debug!(?event, "announcing"),
                    Err(_) => return,
                },
                () = sleep_until(patience), if !heard && !warned => {
                    warned = warn_of("there is no network yet, or another program keeps UDP port 5353 for itself");
                }
            }
        }
    }

    /// One service for each port. A name that is taken gets a number.
    fn announce(&self, model: &str) -> Result<(), Error> {
        let instance = self.node.instance().to_string();
        let encrypted = if self.encrypted { "yes" } else { "no" };
        let properties = [
            ("version", env!("CARGO_PKG_VERSION")),
            ("tls", encrypted),
            ("model", cut(model, VALUE)),
            ("id", &instance),
        ];
        for (number, (port, addresses)) in self.ports.iter().enumerate() {
            let name =
                if number == 0 { self.host.clone() } else { format!("{}-{port}", cut(&self.host, LABEL_BEFORE_PORT)) };
            let host = format!("{}.local.", self.host);
            let mut service = ServiceInfo::new(SERVICE, &name, &host, "", *port, &properties[..])?.enable_addr_auto();
            let addresses = addresses.clone();
            let reached = IfPredicate::new(move |interface| listens(&addresses, interface.ip()));
            service.set_interfaces(vec![IfKind::Predicate(reached)]);
            self.mdns.register(service)?;
        }
        Ok(())
    }
}

/// Says once that nothing can be found; always true, for who remembers it.
fn warn_of(reason: &str) -> bool {
    warn!(
        reason,
        "the daemon cannot be announced on the local network: `agent-cli devices discover` does not find it; set \
         discovery.announce = false if it need not"
    );
    true
}

/// The ports that other machines can reach, each with where it is listened on.
fn reachable(addresses: &[Address]) -> BTreeMap<u16, Vec<IpAddr>> {
    let mut ports: BTreeMap<u16, Vec<IpAddr>> = BTreeMap::new();
    for address in addresses.iter().filter(|address| !address.is_local()) {
        if let Address::Tcp(address) = address {
            ports.entry(address.port()).or_default().push(plain(*address));
        }
    }
    ports
}

/// An IPv4 address that is written as one of IPv6 is one of IPv4.
fn plain(address: SocketAddr) -> IpAddr {
    address.ip().to_canonical()
}

/// Whether who listens on these addresses is reached by this one of the machine.
fn listens(addresses: &[IpAddr], own: IpAddr) -> bool {
    !own.is_loopback()
        && addresses.iter().any(|address| match address {
            IpAddr::V4(address) if address.is_unspecified() => own.is_ipv4(),
            // Linux takes IPv4 there, too.
            IpAddr::V6(address) if address.is_unspecified() => true,
            address => *address == own,
        })
}

/// The host's name, without its domain.
fn host() -> String {
    let name = Machine::read(Path::new("/")).hostname;
    let first = name.split('.').next().unwrap_or_default();
    if first.is_empty() { "recurved".to_owned() } else { cut(first, LABEL).to_owned() }
}

/// The text's beginning, with at most so many bytes.
fn cut(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or_default()]
}

/// Name of the model that is served; empty where none is.
fn model(phase: &Phase) -> String {
    match phase {
        Phase::Serving(serving) => serving.model.name.clone(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(addresses: &[&str]) -> Vec<(u16, usize)> {
        let addresses: Vec<Address> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        reachable(&addresses).into_iter().map(|(port, addresses)| (port, addresses.len())).collect()
    }

    #[test]
    fn only_what_others_can_reach_is_announced() {
        assert_eq!(ports(&["127.0.0.1:1", "[::1]:2", "unix:/run/x"]), []);
        assert_eq!(ports(&["0.0.0.0:1", "[::]:1", "192.0.2.1:2", "127.0.0.1:3"]), [(1, 2), (2, 1)]);
    }

    #[test]
    fn addresses_are_those_that_are_listened_on() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for (address, own, is) in [
            ("0.0.0.0", "192.0.2.1", true),
            ("0.0.0.0", "2001:db8::1", false),
            ("0.0.0.0", "127.0.0.1", false),
            ("::", "192.0.2.1", true),
            ("::", "fe80::1", true),
            ("::", "::1", false),
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
        ] {
            assert_eq!(listens(&[ip(address)], ip(own)), is, "{address} {own}");
        }
    }

    #[test]
    fn long_words_are_cut_between_characters() {
        assert_eq!(cut("grün", 3), "gr");
        assert_eq!(cut("grün", 4), "grü");
        assert_eq!(cut("a", 63), "a");
    }
}
