//! Daemons that announce themselves on the local network, `_recurve._tcp.local.`, and what they would be in the inventory.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use mdns_sd::{ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent};

use super::inventory::{Inventory, LONGEST, check_name};
use crate::exit::Failure;
use crate::target::Target;

/// What daemons announce.
const SERVICE: &str = "_recurve._tcp.local.";

/// How long a name may take to become an address; without multicast DNS in the system's resolver it never does.
const RESOLVING: Duration = Duration::from_secs(1);

/// A daemon that was heard. Everything but the addresses is what it says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// What it calls itself: the host's name, made unique on the network.
    pub(crate) instance: String,
    /// The host, such as `gw-1.local`.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Those of IPv4 first, then those of IPv6 that are more than a link's.
    pub(crate) addresses: Vec<IpAddr>,
    /// Whether it speaks TLS; none where it does not say.
    pub(crate) tls: Option<bool>,
    pub(crate) version: String,
    /// Empty where it serves none.
    pub(crate) model: String,
    /// Another one with each start.
    pub(crate) id: String,
}

/// What becomes of a daemon that was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// The inventory has it, under this name.
    Known(String),
    /// It could be added with this name and address.
    New { name: String, address: Target },
    /// It cannot be added; why.
    Left(String),
}

/// Listens for so long; in the order of names.
pub(crate) fn listen(wait: Duration) -> Result<Vec<Found>, Failure> {
    let failed =
        |error: mdns_sd::Error| Failure::Failed(format!("cannot ask the local network by multicast DNS: {error}"));
    let mdns = ServiceDaemon::new().map_err(failed)?;
    let events = mdns.browse(SERVICE).map_err(failed)?;
    let end = Instant::now() + wait;
    let mut found = BTreeMap::new();
    while let Ok(event) = events.recv_timeout(end.saturating_duration_since(Instant::now())) {
        match event {
            ServiceEvent::ServiceResolved(service) => drop(found.insert(service.fullname.clone(), Found::of(&service))),
            ServiceEvent::ServiceRemoved(_, name) => drop(found.remove(&name)),
            _ => {}
        }
    }
    let _ = mdns.shutdown();
    let mut found: Vec<Found> = found.into_values().collect();
    found.sort_by(|a, b| a.instance.cmp(&b.instance));
    Ok(found)
}

impl Found {
    fn of(service: &ResolvedService) -> Self {
        let said = |key: &str| service.get_property_val_str(key).unwrap_or_default().to_owned();
        let instance = service.fullname.strip_suffix(SERVICE).unwrap_or(&service.fullname).trim_end_matches('.');
        let tls = match said("tls").as_str() {
            "yes" => Some(true),
            "no" => Some(false),
            _ => None,
        };
        Self {
            instance: instance.replace("\\.", "."),
            host: service.host.trim_end_matches('.').to_owned(),
            port: service.port,
            addresses: addresses(service.addresses.iter().map(ScopedIp::to_ip_addr)),
            tls,
            version: said("version"),
            model: said("model"),
            id: said("id"),
        }
    }

    /// Where it can be called: by its host's name if that leads to one of its addresses here, else by an address.
    pub(crate) fn address(&self, resolves: bool) -> Option<Target> {
        let host = match self.addresses.first() {
            Some(_) if resolves => self.host.clone(),
            Some(IpAddr::V4(ip)) => ip.to_string(),
            Some(IpAddr::V6(ip)) => format!("[{ip}]"),
            None => return None,
        };
        Some(Target::Tcp { host, port: self.port })
    }

    /// Whether the inventory's address is this daemon's.
    fn is_at(&self, target: &Target) -> bool {
        let Target::Tcp { host, port } = target else { return false };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let same_host = host.trim_end_matches('.').eq_ignore_ascii_case(&self.host);
        let same_ip = bare.parse().is_ok_and(|ip: IpAddr| self.addresses.contains(&ip));
        *port == self.port && (same_host || same_ip)
    }
}

/// Without those of one link only: no address in the inventory can say which link.
fn addresses(all: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let usable = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => !ip.is_loopback(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
    };
    let mut found: Vec<IpAddr> = all.filter(usable).collect();
    found.sort();
    found.dedup();
    found
}

/// Which of them this machine's resolver finds by the host's name, at one of their addresses.
pub(crate) fn resolving(found: &[Found]) -> Vec<bool> {
    let (answers, answered) = mpsc::channel();
    for (number, daemon) in found.iter().cloned().enumerate() {
        let answers = answers.clone();
        // Not waited for: a resolver that asks servers may take many seconds.
        std::thread::spawn(move || {
            let resolved = (daemon.host.as_str(), daemon.port).to_socket_addrs();
            let right = resolved.is_ok_and(|mut all| all.any(|address| daemon.addresses.contains(&address.ip())));
            let _ = answers.send((number, right));
        });
    }
    drop(answers);
    let end = Instant::now() + RESOLVING;
    let mut resolves = vec![false; found.len()];
    while let Ok((number, right)) = answered.recv_timeout(end.saturating_duration_since(Instant::now())) {
        resolves[number] = right;
    }
    resolves
}

/// What becomes of each, in their order: a name or an address that the inventory has is left alone.
pub(crate) fn places(found: &[Found], resolves: &[bool], inventory: &Inventory) -> Vec<Place> {
    let mut taken: BTreeSet<String> = BTreeSet::new();
    let place = |(daemon, resolves): (&Found, &bool)| {
        if let Some(device) = inventory.devices.iter().find(|device| daemon.is_at(&device.target)) {
            return Place::Known(device.name.clone());
        }
        let name = device_name(&daemon.instance);
        if let Err(words) = check_name(&name) {
            return Place::Left(format!("its name {words}: add it by hand"));
        }
        if let Some(device) = inventory.devices.iter().find(|device| device.name == name) {
            return Place::Left(format!(
                "the inventory has another device called {name}, at {}: it is left alone",
                device.target
            ));
        }
        let Some(address) = daemon.address(*resolves) else {
            return Place::Left("it has no address that can be called from another network link".to_owned());
        };
        if !taken.insert(name.clone()) {
            return Place::Left(format!("another daemon that was found is called {name}, too: add it by hand"));
        }
        Place::New { name, address }
    };
    found.iter().zip(resolves).map(place).collect()
}

/// The instance's name with what a device's name may hold: `gw 1 (2)` becomes `gw-1-2`.
fn device_name(instance: &str) -> String {
    let parts = instance.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')));
    let name = parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-");
    name.trim_start_matches(['-', '_', '.']).chars().take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn found(instance: &str, addresses: &[&str]) -> Found {
        Found {
            instance: instance.to_owned(),
            host: format!("{instance}.local"),
            port: 50051,
            addresses: super::addresses(addresses.iter().map(|ip| ip.parse().unwrap())),
            tls: Some(false),
            version: "1".to_owned(),
            model: String::new(),
            id: "x".to_owned(),
        }
    }

    #[test]
    fn names_become_names_of_devices() {
        for (instance, name) in
            [("gw-1", "gw-1"), ("gw 1 (2)", "gw-1-2"), ("grün", "gr-n"), ("--x", "x"), ("ü", ""), ("a.b", "a.b")]
        {
            assert_eq!(device_name(instance), name, "{instance}");
        }
        assert_eq!(device_name(&"x".repeat(99)).len(), LONGEST);
    }

    #[test]
    fn addresses_are_those_that_can_be_called() {
        let told =
            |addresses: &[&str], resolves| found("gw", addresses).address(resolves).map(|target| target.to_string());
        let all = ["fe80::1", "2001:db8::1", "192.0.2.7", "127.0.0.1"];
        assert_eq!(told(&all, false).as_deref(), Some("192.0.2.7:50051"));
        assert_eq!(told(&all, true).as_deref(), Some("gw.local:50051"));
        assert_eq!(told(&all[..2], false).as_deref(), Some("[2001:db8::1]:50051"));
        assert_eq!(told(&all[..1], true), None);
    }

    #[test]
    fn what_the_inventory_has_is_left_alone() {
        let file = r#"
            device = [
                {name = "press", address = "192.0.2.1:50051"},
                {name = "by-name", address = "GW-2.local:50051"},
                {name = "six", address = "[2001:db8::6]:50051"},
                {name = "gw-3", address = "192.0.2.99:50051"},
                {name = "other-port", address = "192.0.2.5:1"},
            ]"#;
        let inventory = Inventory::parse(Path::new("fleet.toml"), file).unwrap();
        let found = [
            found("gw-1", &["192.0.2.1"]),
            found("gw-2", &["192.0.2.2"]),
            found("gw-6", &["2001:db8::6"]),
            found("gw-3", &["192.0.2.3"]),
            found("gw-4 (2)", &["192.0.2.4"]),
            found("gw-4-2", &["192.0.2.40"]),
            found("gw-5", &["192.0.2.5"]),
            found("all", &["192.0.2.8"]),
            found("far", &["fe80::1"]),
        ];
        let places = places(&found, &[false; 9], &inventory);
        let known = |name: &str| Place::Known(name.to_owned());
        assert_eq!(places[..3], [known("press"), known("by-name"), known("six")]);
        let new = |place: &Place, called: &str, at: &str| {
            assert!(
                matches!(place, Place::New { name, address } if name == called && address.to_string() == at),
                "{place:?}"
            );
        };
        new(&places[4], "gw-4-2", "192.0.2.4:50051");
        new(&places[6], "gw-5", "192.0.2.5:50051");
        for (number, why) in
            [(3, "192.0.2.99:50051"), (5, "called gw-4-2, too"), (7, "means something"), (8, "no address")]
        {
            assert!(matches!(&places[number], Place::Left(words) if words.contains(why)), "{:?}", places[number]);
        }
    }
}
