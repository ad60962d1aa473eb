//! Daemons that other machines can reach are found on the local network, and go into the inventory; others are not found.

use std::path::Path;
use std::time::Duration;

use recurve_tests::authority::Authority;
use recurve_tests::daemon::Setup;
use recurve_tests::netns::Namespace;
use recurve_tests::process::{Ended, agent_cli, run, until};
use recurve_tests::world::path;
use serde_json::Value;

const ANNOUNCED: &str = "announced on the local network";
const NOT_ANNOUNCED: &str = "cannot be announced";

/// One that everybody may use.
fn open(state: &Path, namespace: &Namespace, listen: &str) -> Setup {
    Setup::managed(state).within(namespace).listen(&[listen]).set("insecure", true).allow("INSECURE")
}

fn discover(namespace: &Namespace, fleet: &Path, args: &[&str]) -> Ended {
    let mut command = agent_cli(&["devices", "discover", "--fleet", path(fleet)]);
    run(&mut namespace.run(command.args(args)))
}

/// What is found, by port.
fn found(namespace: &Namespace, fleet: &Path, args: &[&str]) -> Vec<Value> {
    let listed = discover(namespace, fleet, &[args, &["--format", "json"]].concat()).json();
    let mut found = listed.as_array().unwrap().clone();
    found.sort_by_key(|daemon| daemon["port"].as_u64());
    found
}

fn ports(found: &[Value]) -> Vec<u64> {
    found.iter().map(|daemon| daemon["port"].as_u64().unwrap()).collect()
}

/// Looks until these ports are found: for a second after a daemon announced itself it need not answer.
fn find(namespace: &Namespace, fleet: &Path, expected: &[u64]) -> Vec<Value> {
    for _ in 0..10 {
        let seen = found(namespace, fleet, &[]);
        if ports(&seen) == expected {
            return seen;
        }
    }
    panic!("{expected:?} are not found: {:#?}", found(namespace, fleet, &[]))
}

#[test]
fn daemons_of_a_network_are_found_and_added() {
    let dir = tempfile::tempdir().unwrap();
    let (Some(devices), Some(desk)) = (Namespace::new("devices"), Namespace::new("desk")) else { return };
    devices.join("192.0.2.1/24", &desk, "192.0.2.2/24");
    let fleet = dir.path().join("fleet.toml");

    let first = open(&dir.path().join("first"), &devices, "[::]:50051").start();
    first.wait_for(ANNOUNCED);
    // On the same host, so with the same name.
    let authority = Authority::new(dir.path(), "fleet");
    let own = authority.identity("gateway", "192.0.2.1");
    let second = Setup::managed(&dir.path().join("second"))
        .within(&devices)
        .listen(&["192.0.2.1:50052", "127.0.0.1:50053"])
        .set("tls.certificate", path(&own.certificate))
        .set("tls.key", path(&own.key))
        .set("tls.clients", path(&authority.certificate))
        .start();
    second.wait_for(ANNOUNCED);
    let silent = open(&dir.path().join("silent"), &devices, "0.0.0.0:50054").set("discovery.announce", false).start();
    let local = Setup::managed(&dir.path().join("local")).within(&devices).listen(&["127.0.0.1:50055"]).start();

    let seen = find(&desk, &fleet, &[50051, 50052]);
    assert_ne!(seen[0]["name"], seen[1]["name"]);
    for (daemon, port, tls) in [(&seen[0], 50051, false), (&seen[1], 50052, true)] {
        assert_eq!(daemon["address"], format!("192.0.2.1:{port}"));
        assert_eq!(daemon["tls"], tls);
        assert_eq!(daemon["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!((&daemon["model"], &daemon["device"]), (&Value::from(""), &Value::Null));
        assert_eq!(daemon["id"].as_str().unwrap().len(), 36);
    }
    assert!(!fleet.exists(), "looking changes nothing");
    let text = discover(&desk, &fleet, &[]);
    assert!(text.stdout.contains("192.0.2.1:50051") && text.stderr.contains("--add"), "{text:?}");

    let added = found(&desk, &fleet, &["--add"]);
    assert!(added.iter().all(|daemon| daemon["added"] == true), "{added:#?}");
    assert!(added[1]["note"].as_str().unwrap().contains("certificates"), "{added:#?}");
    let written = std::fs::read_to_string(&fleet).unwrap();
    for daemon in &added {
        let device = daemon["device"].as_str().unwrap();
        assert!(written.contains(&format!("name = \"{device}\"\naddress = {}", daemon["address"])), "{written}");
    }
    // What is called by its new name is the daemon that was found.
    let operator = authority.identity("operator", "operator");
    let mut models = agent_cli(&["models", "--on", added[1]["device"].as_str().unwrap(), "--fleet", path(&fleet)]);
    models.args(["--format", "json", "--ca", path(&authority.certificate)]);
    models.args(["--certificate", path(&operator.certificate), "--key", path(&operator.key)]);
    assert_eq!(run(&mut desk.run(&models)).json(), Value::Array(Vec::new()));
    let name = added[0]["device"].as_str().unwrap();

    let again = found(&desk, &fleet, &["--add"]);
    assert!(again.iter().all(|daemon| daemon["added"] == false && daemon["device"].is_string()), "{again:#?}");
    assert_eq!(std::fs::read_to_string(&fleet).unwrap(), written);

    // One that has that name elsewhere is left alone.
    let other = dir.path().join("other.toml");
    std::fs::write(&other, format!("[[device]]\nname = \"{name}\"\naddress = \"192.0.2.77:50051\"\n")).unwrap();
    let left = found(&desk, &other, &["--add"]);
    assert_eq!((&left[0]["device"], &left[1]["added"]), (&Value::Null, &Value::Bool(true)), "{left:#?}");
    assert!(left[0]["note"].as_str().unwrap().contains("192.0.2.77:50051"), "{left:#?}");
    assert!(std::fs::read_to_string(&other).unwrap().contains("192.0.2.77:50051"));

    // Who listens for long hears that one is gone; the other one is still there.
    let long = agent_cli(&["devices", "discover", "--fleet", path(&fleet), "--wait", "8s", "--format", "json"]);
    let mut long = desk.run(&long);
    let listening = std::thread::spawn(move || run(&mut long).json());
    std::thread::sleep(Duration::from_secs(3));
    assert!(first.stop().success());
    assert_eq!(ports(listening.join().unwrap().as_array().unwrap()), [50052]);

    for daemon in [second, silent, local] {
        assert!(daemon.stop().success());
    }
    assert_eq!(found(&desk, &fleet, &["--wait", "1s"]), [] as [Value; 0]);
    let nobody = discover(&desk, &fleet, &["--wait", "500ms"]).success();
    for reason in ["subnet", "firewall", "discovery.announce = false", "loopback"] {
        assert!(nobody.contains(reason), "{nobody}");
    }
}

#[test]
fn a_daemon_without_a_network_serves_and_says_so_once() {
    let dir = tempfile::tempdir().unwrap();
    let Some(alone) = Namespace::new("alone") else { return };
    let daemon = open(&dir.path().join("state"), &alone, "0.0.0.0:50051").allow(NOT_ANNOUNCED).start();
    until(|| daemon.has_logged(NOT_ANNOUNCED));
    assert!(daemon.lines(ANNOUNCED).is_empty());
    assert!(daemon.stop().success());
}
