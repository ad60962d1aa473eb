//! Mutual TLS: over TCP, who has a certificate of the authority is heard, nobody else is.

use std::path::Path;

use recurve_bundle::Bundle;
use recurve_tests::authority::{Authority, Identity};
use recurve_tests::daemon::{Daemon, Setup};
use recurve_tests::process::{Ended, agent_cli, binary, clean, run};
use recurve_tests::world::{self, path};

fn encrypted(state: &Path, authority: &Authority, own: &Identity) -> Daemon {
    Setup::managed(state)
        .tcp()
        .set("tls.certificate", path(&own.certificate))
        .set("tls.key", path(&own.key))
        .set("tls.clients", path(&authority.certificate))
        .start()
}

fn ask(daemon: &Daemon, args: &[&str], authority: &Authority, own: Option<&Identity>) -> Ended {
    let mut command = agent_cli(args);
    command.args(["--on", &daemon.address, "--ca", path(&authority.certificate)]);
    if let Some(own) = own {
        command.args(["--certificate", path(&own.certificate), "--key", path(&own.key)]);
    }
    run(&mut command)
}

#[test]
fn a_model_is_deployed_and_used_by_who_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = Authority::new(dir.path(), "fleet");
    let (own, operator) = (fleet.identity("gateway", "127.0.0.1"), fleet.identity("operator", "operator"));
    let daemon = encrypted(&dir.path().join("state"), &fleet, &own);
    let bundle = world::tiny("int4");
    let done = ask(&daemon, &["deploy", path(&bundle), "--format", "json"], &fleet, Some(&operator)).json();
    assert_eq!(done["bundle"], Bundle::open(&bundle).unwrap().digest().to_string());
    let audit = std::fs::read_to_string(dir.path().join("state/audit.jsonl")).unwrap();
    assert!(audit.lines().all(|line| line.contains("\"who\":\"operator at 127.0.0.1\"")), "{audit}");
    let text = ask(&daemon, &["generate", "--tokens", "2,9", "--max-tokens", "3"], &fleet, Some(&operator));
    assert_eq!(text.code, Some(0), "{}", text.stderr);

    // Nobody, somebody whom another authority knows, and no TLS at all.
    let others = Authority::new(dir.path(), "others");
    let stranger = others.identity("stranger", "operator");
    for own in [None, Some(&stranger)] {
        let refused = ask(&daemon, &["models"], &fleet, own);
        assert_eq!(refused.code, Some(3), "{}", refused.stderr);
    }
    let plain = run(&mut agent_cli(&["models", "--on", &daemon.address]));
    assert_eq!(plain.code, Some(3), "{}", plain.stderr);
    // A daemon that another authority knows is not believed.
    let foreign = ask(&daemon, &["models"], &others, Some(&operator));
    assert_eq!(foreign.code, Some(3), "{}", foreign.stderr);
    assert!(foreign.stderr.contains("certificate"), "{}", foreign.stderr);
    assert!(daemon.stop().success());
}

#[test]
fn strangers_take_no_place_from_who_may_open_the_socket() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = Authority::new(dir.path(), "fleet");
    let own = fleet.identity("gateway", "127.0.0.1");
    let socket = format!("unix:{}", dir.path().join("socket").display());
    let daemon = Setup::managed(&dir.path().join("state"))
        .listen(&["127.0.0.1:0", &socket])
        .set("limits.connections", 2)
        .set("tls.certificate", path(&own.certificate))
        .set("tls.key", path(&own.key))
        .set("tls.clients", path(&fleet.certificate))
        .allow("connections are closed at once")
        .start();
    let tcp = daemon.address.split(',').next().unwrap().to_owned();
    let _silent: Vec<_> = (0..4).map(|_| std::net::TcpStream::connect(&tcp).unwrap()).collect();
    daemon.wait_for("connections are closed at once: limits.connections are open");
    run(&mut agent_cli(&["models", "--on", &socket])).success();
    assert!(daemon.stop().success());
}

fn recurved(args: &[&str]) -> Ended {
    let mut command = clean(binary("recurved"));
    run(command.args(["--config", "/dev/null", "--bundle", path(&world::tiny("int4"))]).args(args))
}

#[test]
fn other_machines_are_not_listened_to_without_certificates() {
    let open = recurved(&["--listen", "0.0.0.0:0"]);
    assert_eq!(open.code, Some(78), "{}", open.stderr);
    for part in ["0.0.0.0:0", "tls.certificate", "tls.key", "tls.clients", "insecure"] {
        assert!(open.stderr.contains(part), "{part}: {}", open.stderr);
    }
    let dir = tempfile::tempdir().unwrap();
    let fleet = Authority::new(dir.path(), "fleet");
    let own = fleet.identity("gateway", "127.0.0.1");
    let half = |variables: &[(&str, &Path)]| {
        let mut command = clean(binary("recurved"));
        command.args(["--config", "/dev/null", "--listen", "127.0.0.1:0", "--bundle", path(&world::tiny("int4"))]);
        run(command.envs(variables.iter().copied()))
    };
    let lacking = half(&[("RECURVE_TLS__CERTIFICATE", &own.certificate)]);
    assert!(lacking.code == Some(78) && lacking.stderr.contains("tls.key"), "{}", lacking.stderr);
    let swapped = half(&[
        ("RECURVE_TLS__CERTIFICATE", &own.key),
        ("RECURVE_TLS__KEY", &own.certificate),
        ("RECURVE_TLS__CLIENTS", &fleet.certificate),
    ]);
    assert_eq!(swapped.code, Some(78), "{}", swapped.stderr);
    assert!(swapped.stderr.contains("it holds no certificate in PEM"), "{}", swapped.stderr);
}
