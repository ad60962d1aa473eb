//! Mutual TLS: over TCP, who has a certificate of the authority is heard, nobody else is.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Instant;

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, PKCS_ECDSA_P256_SHA256, date_time_ymd,
};
use recurve_bundle::Bundle;
use recurve_tests::authority::{Authority, Identity};
use recurve_tests::daemon::{Daemon, Setup};
use recurve_tests::process::{Ended, agent_cli, binary, clean, run, until};
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
    assert!(plain.stderr.contains("it speaks TLS, and no certificates were given"), "{}", plain.stderr);
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

/// What `agent-cli` and the daemon say of a connection that cannot be made, each once.
fn told(daemon: &Daemon, ended: &Ended, client: &str, log: Option<&str>) {
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    assert!(ended.stderr.contains(client), "{client}: {}", ended.stderr);
    if let Some(log) = log {
        until(|| daemon.has_logged(log));
    }
}

#[test]
fn a_caller_that_does_not_fit_is_told_why_at_both_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (fleet, others) = (Authority::new(dir.path(), "fleet"), Authority::new(dir.path(), "others"));
    let (own, operator) = (fleet.identity("gateway", "127.0.0.1"), fleet.identity("operator", "operator"));
    let daemon = encrypted(&dir.path().join("state"), &fleet, &own);
    let of = |name: &str, change: &dyn Fn(&mut CertificateParams)| {
        fleet.changed(name, &["operator"], &PKCS_ECDSA_P256_SHA256, |params| change(params))
    };
    let old = of("old", &|params| {
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1))
    });
    let server = of("server", &|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    let stranger = others.identity("stranger", "operator");

    let plain = run(&mut agent_cli(&["models", "--on", &daemon.address]));
    told(&daemon, &plain, "it speaks TLS, and no certificates were given", Some("the client does not speak TLS"));
    let models = |authority: &Authority, own: Option<&Identity>| ask(&daemon, &["models"], authority, own);
    for (ended, client, log) in [
        (models(&fleet, None), "it requires a certificate of the caller", "the client showed no certificate"),
        (
            models(&fleet, Some(&stranger)),
            "it does not know the authority that signed your certificate",
            "the client's certificate is not signed by an authority in tls.clients",
        ),
        (
            models(&fleet, Some(&old)),
            "by its clock your certificate has expired",
            "the client's certificate has expired",
        ),
        (
            models(&fleet, Some(&server)),
            "your certificate is not one for clients: its extendedKeyUsage must have clientAuth",
            "has to hold clientAuth",
        ),
        (
            models(&others, Some(&operator)),
            "its certificate is not signed by the authority in --ca",
            "the client does not know the authority that signed tls.certificate",
        ),
    ] {
        told(&daemon, &ended, client, Some(log));
    }
    let named = daemon.address.replace("127.0.0.1", "localhost");
    let mut by_name = agent_cli(&["models", "--on", &named, "--ca", path(&fleet.certificate)]);
    let by_name = run(by_name.args(["--certificate", path(&operator.certificate), "--key", path(&operator.key)]));
    told(&daemon, &by_name, "its certificate is for IpAddress(127.0.0.1), not for the host of localhost", None);

    // What is wrong with files is found before anything is sent.
    for (ca, certificate, key, words) in [
        (&fleet.certificate, &operator.certificate, &own.key, "--key is not the key of --certificate"),
        (&fleet.certificate, &operator.key, &operator.certificate, "it holds no certificate in PEM, but PRIVATE KEY"),
        (&operator.key, &operator.certificate, &operator.key, "it holds no certificate in PEM, but PRIVATE KEY"),
        (
            &fleet.certificate,
            &operator.certificate,
            &operator.certificate,
            "it holds no private key in PEM, but CERTIFICATE",
        ),
    ] {
        let mut command = agent_cli(&["models", "--on", &daemon.address, "--ca", path(ca)]);
        let ended = run(command.args(["--certificate", path(certificate), "--key", path(key)]));
        assert!(ended.code == Some(2) && ended.stderr.contains(words), "{words}: {ended:?}");
    }
    assert!(daemon.stop().success());
}

#[test]
fn certificates_for_a_daemon_without_tls_are_not_blamed() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = Authority::new(dir.path(), "fleet");
    let operator = fleet.identity("operator", "operator");
    let daemon = Setup::managed(&dir.path().join("state")).tcp().start();
    for own in [None, Some(&operator)] {
        let ended = ask(&daemon, &["models"], &fleet, own);
        told(
            &daemon,
            &ended,
            "it does not use TLS; to call it without TLS, leave out --ca",
            Some("the client speaks TLS"),
        );
    }
    // Without them the daemon answers.
    let plain = run(&mut agent_cli(&["models", "--on", &daemon.address]));
    assert!(plain.stderr.contains("only operators may do this"), "{}", plain.stderr);
    assert!(daemon.stop().success());
}

#[test]
fn many_clients_that_speak_tls_where_it_is_not_used_fill_no_log() {
    // The beginning of a TLS record, as long as what the daemon reads first.
    let mut hello = [0_u8; 24];
    hello[..3].copy_from_slice(&[0x16, 0x03, 0x01]);
    let dir = tempfile::tempdir().unwrap();
    let daemon = Setup::managed(&dir.path().join("state")).tcp().start();
    let begun = Instant::now();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(&daemon.address).unwrap();
        stream.write_all(&hello).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert!(!answer.is_empty(), "each client is told");
    }
    let most = 1 + begun.elapsed().as_secs() / 10;
    daemon.terminate();
    daemon.wait_for("stopped");
    let lines = daemon.lines(
        "connection closed: the client speaks TLS, and this address does not use it (tls.certificate, tls.key and tls.clients \
         switch it on for TCP)",
    );
    assert!((1..=most).contains(&(lines.len() as u64)), "{} lines, at most {most} expected", lines.len());
    assert!(daemon.ended().success());
}

#[test]
fn a_certificate_of_the_daemon_that_clients_refuse_is_named_at_both_ends() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = Authority::new(dir.path(), "fleet");
    let operator = fleet.identity("operator", "operator");
    let here = &["127.0.0.1"][..];
    let old = |params: &mut CertificateParams| {
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    };
    let for_clients = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    };
    let authority = |params: &mut CertificateParams| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    type Change<'a> = &'a dyn Fn(&mut CertificateParams);
    let cases: [(&str, &[&str], Change<'_>, &'static str, &str); 5] = [
        ("old", here, &old, "expired on 2021-01-01", "its certificate expired on 2021-01-01"),
        (
            "elsewhere",
            &["gateway-7"],
            &|_| {},
            "",
            "its certificate is for DnsName(\"gateway-7\"), not for the host of 127.0.0.1",
        ),
        ("nowhere", &[], &|_| {}, "names no address (subjectAltName)", "its certificate names no address"),
        ("client", here, &for_clients, "is not for servers", "its certificate is not for servers"),
        (
            "authority",
            here,
            &authority,
            "basicConstraints CA:TRUE",
            "it shows the certificate of an authority as its own",
        ),
    ];
    for (name, names, change, warning, words) in cases {
        let own = fleet.changed(name, names, &PKCS_ECDSA_P256_SHA256, change);
        let setup = Setup::managed(&dir.path().join(name))
            .tcp()
            .set("tls.certificate", path(&own.certificate))
            .set("tls.key", path(&own.key))
            .set("tls.clients", path(&fleet.certificate));
        let daemon = if warning.is_empty() { setup } else { setup.allow(warning) }.start();
        assert!(warning.is_empty() || daemon.has_logged(warning), "{name}");
        told(&daemon, &ask(&daemon, &["models"], &fleet, Some(&operator)), words, None);
        assert!(daemon.stop().success());
    }
}
