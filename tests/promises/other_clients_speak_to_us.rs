//! gRPC's own clients for other languages, made from the contract, make every kind of call over TCP, the Unix socket and TLS.

use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use recurve_proto::v1::inference_client::InferenceClient;
use recurve_tests::authority::{Authority, Identity};
use recurve_tests::client::{generate, greedy};
use recurve_tests::daemon::{Daemon, Setup};
use recurve_tests::process::{Ended, agent_cli, binary, clean, run};
use recurve_tests::reference::repository;
use recurve_tests::world::{self, path};
use tempfile::TempDir;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

/// Python with gRPC, and the client that `docs/python.md` makes; none where it is not installed.
struct Python {
    program: PathBuf,
    client: TempDir,
}

impl Python {
    fn find() -> Option<&'static Self> {
        static FOUND: OnceLock<Option<Python>> = OnceLock::new();
        let found = FOUND.get_or_init(|| {
            let program = PathBuf::from(std::env::var_os("RECURVE_PYTHON")?);
            let client = tempfile::tempdir().unwrap();
            let out = |option: &str| format!("--{option}={}", client.path().display());
            let mut protoc = Command::new(&program);
            protoc.current_dir(repository()).args(["-m", "grpc_tools.protoc", "-I", "proto"]);
            run(protoc.args([&out("python_out"), &out("grpc_python_out"), "recurve/v1/inference.proto"])).success();
            Some(Python { program, client })
        });
        if found.is_none() {
            println!("skipped: RECURVE_PYTHON names no Python with the packages of tests/client/requirements.txt");
        }
        found.as_ref()
    }

    /// Runs a script of the repository.
    fn run(&self, script: &str, args: &[&str]) -> Ended {
        let mut command = Command::new(&self.program);
        command.current_dir(repository()).env("PYTHONPATH", self.client.path()).arg(script);
        run(command.args(args))
    }
}

/// Runs the client for Node; none where it is not installed.
fn node(args: &[&str]) -> Option<Ended> {
    let Some(packages) = std::env::var_os("RECURVE_NODE_MODULES") else {
        println!("skipped: RECURVE_NODE_MODULES names no folder with the packages of tests/client/package-lock.json");
        return None;
    };
    let mut command = Command::new("node");
    command.current_dir(repository()).env("NODE_PATH", packages).args(["tests/client/client.cjs", "proto"]);
    Some(run(command.args(args)))
}

/// A daemon on a port and on a socket, and both addresses.
fn open(dir: &Path) -> (Daemon, [String; 2]) {
    let socket = format!("unix:{}", dir.join("recurved.sock").display());
    let daemon = Setup::new(&world::slow()).listen(&["127.0.0.1:0", &socket]).set("engine.slots", 1).start();
    let tcp = daemon.address.split(',').next().unwrap().to_owned();
    (daemon, [tcp, socket])
}

/// A daemon that wants certificates.
fn encrypted(authority: &Authority, own: &Identity) -> Setup {
    Setup::new(&world::slow())
        .set("engine.slots", 1)
        .set("tls.certificate", path(&own.certificate))
        .set("tls.key", path(&own.key))
        .set("tls.clients", path(&authority.certificate))
}

/// What a client of the folder `tests/client` takes for TLS.
fn files<'a>(authority: &'a Authority, own: &'a Identity) -> [&'a str; 3] {
    [path(&authority.certificate), path(&own.certificate), path(&own.key)]
}

/// Every call behaved, and the daemon saw the deadline and the cancel.
fn all_behave(ended: Ended, daemon: &Daemon) {
    assert!(ended.code == Some(0) && ended.stdout.contains("all calls behave"), "{}{}", ended.stdout, ended.stderr);
    daemon.wait_for_outcome("cancelled");
}

#[test]
fn grpcio_over_tcp_and_the_unix_socket() {
    let Some(python) = Python::find() else { return };
    for way in 0..2 {
        let dir = tempfile::tempdir().unwrap();
        let (daemon, addresses) = open(dir.path());
        all_behave(python.run("tests/client/client.py", &[&addresses[way]]), &daemon);
        assert!(daemon.stop().success());
    }
}

#[test]
fn grpc_js_over_tcp_and_the_unix_socket() {
    for way in 0..2 {
        let dir = tempfile::tempdir().unwrap();
        let (daemon, addresses) = open(dir.path());
        let Some(ended) = node(&[&addresses[way]]) else { return };
        all_behave(ended, &daemon);
        assert!(daemon.stop().success());
    }
}

#[test]
fn python_and_node_over_mutual_tls() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = Authority::new(dir.path(), "fleet");
    let (own, operator) = (fleet.identity("gateway", "127.0.0.1"), fleet.identity("operator", "operator"));
    let files = files(&fleet, &operator);
    if let Some(python) = Python::find() {
        let daemon = encrypted(&fleet, &own).start();
        all_behave(python.run("tests/client/client.py", &[&[daemon.address.as_str()], &files[..]].concat()), &daemon);
        assert!(daemon.stop().success());
    }
    let daemon = encrypted(&fleet, &own).start();
    if let Some(ended) = node(&[&[daemon.address.as_str()], &files[..]].concat()) {
        all_behave(ended, &daemon);
    }
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn tonic_over_mutual_tls() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = Authority::new(dir.path(), "fleet");
    let (own, operator) = (fleet.identity("gateway", "127.0.0.1"), fleet.identity("operator", "operator"));
    let daemon = encrypted(&fleet, &own).start();
    let read = |file: &Path| std::fs::read(file).unwrap();
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(read(&fleet.certificate)))
        .identity(tonic::transport::Identity::from_pem(read(&operator.certificate), read(&operator.key)));
    let endpoint = Endpoint::from_shared(format!("https://{}", daemon.address)).unwrap().tls_config(tls).unwrap();
    let channel: Channel = endpoint.connect().await.unwrap();
    let answer = generate(&InferenceClient::new(channel), greedy(&[2, 9], 8)).await.unwrap();
    assert_eq!(answer.tokens.len(), 8);
    assert!(daemon.stop().success());
}

#[test]
fn a_path_as_authority_is_explained_in_the_log() {
    const ADVICE: &str = "grpc.default_authority";
    let Some(python) = Python::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    let socket = format!("unix:{}", dir.path().join("recurved.sock").display());
    let daemon = Setup::new(&world::slow()).listen(&[&socket]).allow(ADVICE).start();
    let refused = python.run("tests/client/client.py", &["--plain", &socket]);
    assert!(refused.code == Some(1) && refused.stderr.contains("RST_STREAM with error code 1"), "{}", refused.stderr);
    let told = || daemon.has_logged(ADVICE);
    recurve_tests::process::until(told);
    // What is refused after a good call is another matter, and a client that sets the authority is not warned of.
    all_behave(python.run("tests/client/client.py", &[&socket]), &daemon);
    assert!(daemon.stop().success());
}

#[test]
fn a_certificate_that_grpcio_refuses_is_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = Authority::new(dir.path(), "fleet");
    let operator = fleet.identity("operator", "operator");
    let own = fleet.identity_with("gateway", "127.0.0.1", &rcgen::PKCS_ED25519);
    let daemon = encrypted(&fleet, &own).allow("has an Ed25519 key").start();
    for part in ["Python, C++, Ruby and PHP cannot connect", "ec_paramgen_curve:P-256"] {
        assert!(daemon.has_logged(part), "{part}");
    }
    let mut check = clean(binary("recurved"));
    check.args(["check-config", "--config", "/dev/null", "--listen", "127.0.0.1:0", "--bundle", "x"]);
    let checked = run(check.envs([
        ("RECURVE_TLS__CERTIFICATE", &own.certificate),
        ("RECURVE_TLS__KEY", &own.key),
        ("RECURVE_TLS__CLIENTS", &fleet.certificate),
    ]));
    let checked = checked.success();
    assert!(checked.contains("has an Ed25519 key") && checked.contains("ec_paramgen_curve:P-256"), "{checked}");
    let files = files(&fleet, &operator);
    let mut rust = agent_cli(&["generate", "--tokens", "2,9", "--max-tokens", "3", "--on", &daemon.address]);
    run(rust.args(["--ca", files[0], "--certificate", files[1], "--key", files[2]])).success();
    if let Some(python) = Python::find() {
        let refused = python.run("tests/client/client.py", &[&[daemon.address.as_str()], &files[..]].concat());
        assert_eq!(refused.code, Some(1), "{}", refused.stdout);
        assert!(daemon.has_logged("make one with ECDSA P-256"));
    }
    assert!(daemon.stop().success());
}

#[test]
fn the_examples_do_what_the_python_page_shows() {
    let page = std::fs::read_to_string(repository().join("docs/python.md")).unwrap();
    let example = |name: &str| std::fs::read_to_string(repository().join("docs/examples").join(name)).unwrap();
    let shown: Vec<&str> = page.split("```python\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(shown.len(), 4, "{shown:?}");
    for (block, name) in shown.iter().zip(["generate.py", "secure.py", "secure.py", "secure.py"]) {
        assert!(example(name).contains(block), "docs/examples/{name} has no\n{block}");
    }
    let Some(python) = Python::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    let fleet = Authority::new(dir.path(), "fleet");
    let (own, operator) = (fleet.identity("gateway", "127.0.0.1"), fleet.identity("operator", "operator"));
    let socket = format!("unix:{}", dir.path().join("recurved.sock").display());
    let daemon = Setup::new(&world::demo())
        .listen(&["127.0.0.1:0", &socket])
        .set("limits.max_prompt_tokens", 64)
        .set("tls.certificate", path(&own.certificate))
        .set("tls.key", path(&own.key))
        .set("tls.clients", path(&fleet.certificate))
        .start();
    let tcp = daemon.address.split(',').next().unwrap();
    let question = "Please set the bedroom fan to 40";
    let answered = |said: &str| said.contains("fan") && said.contains("40");
    let said = python.run("docs/examples/generate.py", &[&socket, question]).success();
    assert!(answered(&said) && said.contains("[FINISH_REASON_END_OF_TEXT"), "{said}");
    let secure = |question: &str| {
        python.run("docs/examples/secure.py", &[&[tcp], &files(&fleet, &operator)[..], &[question]].concat())
    };
    let said = secure(question).success();
    assert!(answered(&said), "{said}");
    let refused = secure(&"the fan ".repeat(100));
    assert_eq!(refused.code, Some(1), "{}", refused.stdout);
    assert!(refused.stderr.starts_with("INVALID_ARGUMENT: "), "{}", refused.stderr);
    assert!(refused.stdout.contains("reason: INVALID_REQUEST\nfield: chat"), "{}", refused.stdout);
    assert!(daemon.stop().success());
}

#[test]
fn localhost_is_every_loopback_address_for_both_programs() {
    let daemon = Setup::new(&world::tiny("int4")).listen(&["localhost:0"]).start();
    let addresses: Vec<String> = daemon.address.split(',').map(str::to_owned).collect();
    let ipv6 = UdpSocket::bind("[::1]:0").is_ok();
    assert!(addresses[0].starts_with("127.0.0.1:"), "{addresses:?}");
    assert_eq!(addresses.get(1).is_some_and(|second| second.starts_with("[::1]:")), ipv6, "{addresses:?}");
    for address in &addresses {
        // Each port is open in one family only: the name finds it.
        let (_, port) = address.rsplit_once(':').unwrap();
        for on in [address.clone(), format!("localhost:{port}")] {
            run(&mut agent_cli(&["generate", "--tokens", "2,9", "--max-tokens", "3", "--on", &on])).success();
        }
    }
    assert!(daemon.stop().success());
}
