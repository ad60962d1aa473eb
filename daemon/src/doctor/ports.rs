//! Whether the addresses can be listened on, and who has them where they cannot.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::Path;

use recurve_bundle::shell;

use super::{Finding, Patient, Verdict};
use crate::config::{Address, Held};

const CHECK: &str = "ports";
const SOCKET_UNIT: &str = "recurved.socket";

pub(super) fn check(patient: &Patient<'_>) -> Vec<Finding> {
    let one = |address: &Address| match (held(patient, address), address) {
        _ if served(patient, address) => Finding::ok(CHECK, format!("{address} is served")),
        (Some(held), _) => of_systemd(patient.root, held),
        (None, Address::Tcp(address)) => tcp(patient.root, *address),
        (None, Address::Unix(path)) => unix(path),
    };
    let mut findings: Vec<Finding> = patient.settings.listen.iter().map(one).collect();
    if let Some(address) = patient.settings.telemetry.prometheus.filter(|_| patient.serving.is_none()) {
        findings.push(tcp(patient.root, address));
    }
    findings
}

/// Whether the daemon that asks itself listens there.
pub(super) fn served(patient: &Patient<'_>, address: &Address) -> bool {
    patient.serving.is_some_and(|serving| serving.listen.contains(&address.to_string()))
}

/// The socket of this address that systemd has for the daemon.
pub(super) fn held<'a>(patient: &Patient<'a>, address: &Address) -> Option<&'a Held> {
    patient.held.iter().find(|held| held.address == *address)
}

/// Whether something listens where the daemon is to. Systemd's sockets are not tried: whoever connects starts the service.
pub(super) fn listened(patient: &Patient<'_>) -> bool {
    patient.settings.listen.iter().any(|address| match address {
        _ if held(patient, address).is_some() => true,
        Address::Tcp(address) => listening(patient.root, |local| meet(local, *address)).is_some(),
        Address::Unix(path) => UnixStream::connect(path).is_ok(),
    })
}

/// One that systemd listens on, or will: what another process has, it cannot have.
fn of_systemd(root: &Path, held: &Held) -> Finding {
    let Address::Tcp(address) = held.address else {
        return Finding::ok(CHECK, format!("{} is systemd's, by {SOCKET_UNIT}", held.address));
    };
    let apart = |local: SocketAddr| held.only_v6 && local.ip().to_canonical().is_ipv4();
    match listening(root, |local| meet(local, address) && !apart(local)) {
        Some(inode) => taken(address, &owner(root, inode), SOCKET_UNIT),
        None => Finding::ok(CHECK, format!("{address} is free, for {SOCKET_UNIT}")),
    }
}

fn tcp(root: &Path, address: SocketAddr) -> Finding {
    if address.port() == 0 {
        return Finding::ok(CHECK, format!("{address}: the system chooses a port"));
    }
    match TcpListener::bind(address) {
        Ok(_) => Finding::ok(CHECK, format!("{address} is free")),
        Err(error) => {
            // Ports below 1024 are refused to most users whether they are taken or not.
            if matches!(error.kind(), ErrorKind::AddrInUse | ErrorKind::PermissionDenied)
                && let Some(inode) = listening(root, |local| meet(local, address))
            {
                return taken(address, &owner(root, inode), "listen");
            }
            let advice = match error.kind() {
                ErrorKind::AddrNotAvailable => {
                    "this machine has no such address: set listen to one of `ip -brief address`, or 0.0.0.0"
                }
                ErrorKind::PermissionDenied => {
                    "ports below 1024 are root's: take a higher one in listen, or let systemd hold it"
                }
                ErrorKind::AddrInUse => {
                    "another process has it: `sudo ss -ltnp` shows which; end it, or set listen to another port"
                }
                _ => "set listen to another address",
            };
            Finding::new(CHECK, Verdict::Problem, format!("{address} cannot be listened on: {error}"), advice)
        }
    }
}

/// `place`: where another one can be set.
fn taken(address: SocketAddr, owner: &Owner, place: &str) -> Finding {
    match owner {
        Owner::Process(pid, name) if name == "recurved" => {
            Finding::ok(CHECK, format!("{address} is served by recurved, process {pid}"))
        }
        Owner::Process(1, _) => Finding::ok(CHECK, format!("{address} is held by systemd")),
        Owner::Process(pid, name) => Finding::new(
            CHECK,
            Verdict::Problem,
            format!("{address} is taken by {name}, process {pid}"),
            format!(
                "end that process, or set another port in {place}, such as {}",
                SocketAddr::new(address.ip(), next(address.port()))
            ),
        ),
        Owner::Hidden => Finding::new(
            CHECK,
            Verdict::Note,
            format!("{address} is taken by a process of another user"),
            "it may be the daemon itself, or systemd for it: `sudo recurved doctor` and `sudo ss -ltnp` show which",
        ),
    }
}

fn next(port: u16) -> u16 {
    port.checked_add(1).unwrap_or(port - 1)
}

/// Who has a socket.
#[derive(Debug, PartialEq, Eq)]
enum Owner {
    Process(u32, String),
    /// Of a process that cannot be looked into.
    Hidden,
}

/// The inode of what listens on such an address.
fn listening(root: &Path, such: impl Fn(SocketAddr) -> bool) -> Option<u64> {
    const LISTEN: &str = "0A";
    let tables = ["proc/net/tcp", "proc/net/tcp6"].map(|name| fs::read_to_string(root.join(name)).unwrap_or_default());
    tables.iter().flat_map(|table| table.lines().skip(1)).find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let local = local(words.next()?)?;
        let state = words.nth(1)?;
        let inode = words.nth(5)?.parse().ok()?;
        (state == LISTEN && such(local)).then_some(inode)
    })
}

/// An address of the kernel's tables: words of 32 bits in the order of this machine, and the port.
fn local(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.rsplit_once(':')?;
    let word = |from: usize| Some(u32::from_str_radix(ip.get(from..from + 8)?, 16).ok()?.to_ne_bytes());
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?].concat();
            IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(words).ok()?))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

/// Whether two sockets cannot listen on these at the same time.
fn meet(one: SocketAddr, other: SocketAddr) -> bool {
    let covers =
        |one: IpAddr, other: IpAddr| one == other || one.is_unspecified() && (one.is_ipv6() || other.is_ipv4());
    let (first, second) = (one.ip().to_canonical(), other.ip().to_canonical());
    one.port() == other.port() && (covers(first, second) || covers(second, first))
}

fn owner(root: &Path, inode: u64) -> Owner {
    let wanted = format!("socket:[{inode}]");
    let processes = fs::read_dir(root.join("proc")).into_iter().flatten().flatten();
    for process in processes {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let files = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        if files
            .map(|file| file.path())
            .any(|file| fs::read_link(file).is_ok_and(|link| link.as_os_str() == wanted.as_str()))
        {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Owner::Process(pid, name.trim().to_owned());
        }
    }
    Owner::Hidden
}

fn unix(path: &Path) -> Finding {
    let shown = path.display();
    let folder = path.parent().unwrap_or(Path::new("/"));
    if !folder.is_dir() {
        return Finding::new(
            CHECK,
            Verdict::Problem,
            format!("unix:{shown}: the folder {} does not exist", folder.display()),
            format!(
                "make it: `sudo install -d -o recurve -g recurve {}`; the service's unit does that for /run/recurve",
                shell::quote(folder)
            ),
        );
    }
    match UnixStream::connect(path) {
        Ok(_) => Finding::ok(CHECK, format!("unix:{shown} is served")),
        Err(error) if error.kind() == ErrorKind::NotFound => Finding::ok(CHECK, format!("unix:{shown} is free")),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            Finding::ok(CHECK, format!("unix:{shown} was left by a daemon that is gone, and is replaced at the start"))
        }
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Finding::new(
            CHECK,
            Verdict::Warning,
            format!("unix:{shown}: this user may not connect"),
            "members of the group recurve may: `sudo usermod -aG recurve $USER`, then log in again",
        ),
        Err(error) => Finding::new(
            CHECK,
            Verdict::Problem,
            format!("unix:{shown}: {error}"),
            "remove what is there, or set listen to another path",
        ),
    }
}

/// Whether an address reaches beyond this machine.
pub(super) fn reachable(address: &Address) -> bool {
    !address.is_local()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_of_a_port_is_named() {
        let root = tempfile::tempdir().unwrap();
        let net = root.path().join("proc/net");
        fs::create_dir_all(&net).unwrap();
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                     0: 0100007F:C383 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0 100 0 0 10 0\n   \
                     1: 0100007F:1F90 0100007F:C383 01 00000000:00000000 00:00000000 00000000  1000        0 4712 1 0 100 0 0 10 0\n";
        fs::write(net.join("tcp"), table).unwrap();
        for (address, inode) in [
            ("127.0.0.1:50051", Some(4711)),
            ("0.0.0.0:50051", Some(4711)),
            ("[::]:50051", Some(4711)),
            ("127.0.0.2:50051", None),
            ("[::1]:50051", None),
            ("127.0.0.1:8080", None),
        ] {
            let wanted = address.parse().unwrap();
            assert_eq!(listening(root.path(), |local| meet(local, wanted)), inode, "{address}");
        }
        assert_eq!(owner(root.path(), 4711), Owner::Hidden);
        let process = root.path().join("proc/77");
        fs::create_dir_all(process.join("fd")).unwrap();
        fs::write(process.join("comm"), "nginx\n").unwrap();
        std::os::unix::fs::symlink("socket:[4711]", process.join("fd/3")).unwrap();
        let address = "127.0.0.1:50051".parse().unwrap();
        let finding = taken(address, &owner(root.path(), 4711), "listen");
        assert_eq!(finding.found, "127.0.0.1:50051 is taken by nginx, process 77");
        assert!(finding.advice.contains("127.0.0.1:50052"), "{}", finding.advice);
        for (owner, verdict) in [
            (Owner::Process(1, "systemd".to_owned()), Verdict::Ok),
            (Owner::Process(9, "recurved".to_owned()), Verdict::Ok),
            (Owner::Hidden, Verdict::Note),
        ] {
            assert_eq!(taken(address, &owner, "listen").verdict, verdict);
        }
        // Systemd's, of which others may have a part.
        let of = |address: &str, only_v6| of_systemd(root.path(), &Held::new(address.parse().unwrap(), only_v6));
        assert!(of("[::]:50051", false).found.contains("is taken by nginx"), "{:?}", of("[::]:50051", false));
        assert!(of("[::]:50051", false).advice.contains("recurved.socket, such as [::]:50052"));
        assert!(of("[::]:50051", true).found.starts_with("[::]:50051 is free"), "{:?}", of("[::]:50051", true));
        assert!(of("192.0.2.1:443", false).found.starts_with("192.0.2.1:443 is free"));
    }

    #[test]
    fn an_address_beside_one_that_is_taken_is_free() {
        let taken = TcpListener::bind("127.0.0.2:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let here = |ip: &str| tcp(Path::new("/"), format!("{ip}:{port}").parse().unwrap());
        assert!(here("127.0.0.1").found.ends_with(" is free"), "{:?}", here("127.0.0.1"));
        assert!(here("127.0.0.2").found.contains(" is taken by "), "{:?}", here("127.0.0.2"));
        let six = "00000000000000000000000001000000:C383";
        assert_eq!(local(six), Some("[::1]:50051".parse().unwrap()));
    }

    #[test]
    fn a_unix_socket_is_free_served_left_behind_or_without_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("recurved.sock");
        assert!(unix(&path).found.ends_with("is free"));
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(unix(&path).found.ends_with("is served"));
        drop(listener);
        assert!(unix(&path).found.contains("left by a daemon that is gone"));
        let missing = unix(&dir.path().join("no folder/recurved.sock"));
        assert_eq!(missing.verdict, Verdict::Problem);
        let quoted = format!("-g recurve '{}/no folder'`", dir.path().display());
        assert!(missing.advice.contains(&quoted), "{}", missing.advice);
    }
}
