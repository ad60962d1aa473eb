//! What `agent-cli trust` signs is served where a root of trust is installed, and nothing else; what serves goes on.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use recurve_bundle::{Bundle, Digest};
use recurve_proto::reason;
use recurve_proto::v1::ActivateRequest;
use recurve_proto::v1::models_client::ModelsClient;
use recurve_tests::authority::Authority;
use recurve_tests::client::{channel, connect, generate, greedy, soon, told};
use recurve_tests::daemon::{Daemon, Setup};
use recurve_tests::process::{Ended, agent_cli, binary, clean, run};
use recurve_tests::world::{self, path};
use serde_json::Value;
use tempfile::TempDir;
use tonic::Status;

/// Folders of one fleet: its signatures, copies of bundles, and the state of a device.
struct Fleet {
    dir: TempDir,
    trust: PathBuf,
    state: PathBuf,
}

impl Fleet {
    fn new(init: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fleet = Self { trust: dir.path().join("trust"), state: dir.path().join("state"), dir };
        fleet.trust(&[&["init"], init].concat()).success();
        fleet
    }

    /// `agent-cli trust …` on this machine.
    fn trust(&self, args: &[&str]) -> Ended {
        run(agent_cli(&["trust", args[0], "--dir", path(&self.trust)]).args(&args[1..]))
    }

    /// A copy of a bundle, so that each test signs its own.
    fn bundle(&self, weights: &str) -> PathBuf {
        let (from, to) = (world::tiny(weights), self.dir.path().join(weights));
        fs::create_dir_all(to.join("blobs/sha256")).unwrap();
        for name in ["oci-layout", "index.json"] {
            fs::copy(from.join(name), to.join(name)).unwrap();
        }
        for blob in fs::read_dir(from.join("blobs/sha256")).unwrap() {
            let blob = blob.unwrap();
            fs::copy(blob.path(), to.join("blobs/sha256").join(blob.file_name())).unwrap();
        }
        to
    }

    fn signed(&self, weights: &str) -> PathBuf {
        let bundle = self.bundle(weights);
        self.trust(&["sign", path(&bundle)]).success();
        bundle
    }

    fn daemon(&self) -> Daemon {
        Setup::managed(&self.state).allow("the model was not changed").start()
    }

    /// A device that believes this fleet's signatures.
    fn trusting(&self) -> Daemon {
        let daemon = self.daemon();
        ask(&daemon, &["trust", "install", path(&self.trust)]).success();
        daemon
    }

    /// Changes what the device believes, as nothing but a damaged clock or the time that passes would.
    fn edit(&self, change: impl FnOnce(&mut Value)) {
        let file = self.state.join("trust/trusted");
        let text = fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let mut stored: Value = serde_json::from_str(lines[1]).unwrap();
        change(&mut stored);
        let json = stored.to_string();
        let digest = Digest::of(json.as_bytes());
        fs::write(&file, format!("{}\n{json}\n{digest}\n", lines[0])).unwrap();
    }
}

fn ask(daemon: &Daemon, args: &[&str]) -> Ended {
    run(agent_cli(args).args(["--on", &daemon.address]))
}

fn deploy(daemon: &Daemon, bundle: &Path) -> Ended {
    ask(daemon, &["deploy", path(bundle)])
}

fn refused(ended: &Ended, part: &str) {
    assert!(ended.code == Some(1) && ended.stderr.contains(part), "{part}: {ended:?}");
}

fn digest(bundle: &Path) -> String {
    Bundle::open(bundle).unwrap().digest().to_string()
}

async fn served(daemon: &Daemon) -> String {
    generate(&connect(daemon).await, greedy(&[2, 9, 30], 3)).await.unwrap().finish.bundle
}

/// Asks the device itself, past what `agent-cli` knows beforehand.
async fn activate(daemon: &Daemon, bundle: &Path) -> Result<(), Status> {
    let mut client = ModelsClient::new(channel(daemon).await);
    let mut events = soon(client.activate(ActivateRequest { bundle: digest(bundle) })).await?.into_inner();
    while soon(events.message()).await?.is_some() {}
    Ok(())
}

async fn refused_with(daemon: &Daemon, bundle: &Path, reason: &str) {
    let status = activate(daemon, bundle).await.unwrap_err();
    assert_eq!(told(&status).1, reason, "{}", status.message());
}

fn get(daemon: &Daemon) -> Value {
    ask(daemon, &["trust", "get", "--format", "json"]).json()
}

fn version(state: &Value, role: &str) -> u64 {
    let roles = state["roles"].as_array().unwrap();
    roles.iter().find(|state| state["role"] == role).unwrap()["version"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_root_installed_signed_models_are_served_and_others_are_not() {
    let fleet = Fleet::new(&[]);
    let (int4, int8, f32) = (fleet.signed("int4"), fleet.bundle("int8"), fleet.bundle("f32"));
    // Signatures change nothing of the model.
    assert_eq!(digest(&int4), digest(&world::tiny("int4")));
    run(&mut agent_cli(&["bundle", "verify", path(&int4)])).success();
    let daemon = fleet.daemon();
    assert_eq!((get(&daemon)["mode"].as_str(), get(&daemon)["roles"].as_array().unwrap().len()), (Some("off"), 0));
    // Without a root, on this machine alone, everything is served.
    deploy(&daemon, &f32).success();
    ask(&daemon, &["trust", "install", path(&fleet.trust)]).success();
    assert_eq!(get(&daemon)["mode"], "enforce");
    refused(&ask(&daemon, &["trust", "install", path(&fleet.trust)]), "has a root of trust already");
    assert_eq!(served(&daemon).await, digest(&f32), "what serves goes on");

    refused(&deploy(&daemon, &int8), "is signed for it");
    let sent = deploy(&daemon, &int4).success();
    assert!(sent.contains("is served"), "{sent}");
    assert_eq!(get(&daemon)["bundles"], serde_json::json!([digest(&int4)]));
    // The device decides, whatever the command line would have said: by name, and on the way back.
    refused_with(&daemon, &f32, reason::NOT_SIGNED).await;
    refused(&ask(&daemon, &["rollback"]), "is signed for this node");
    assert_eq!(served(&daemon).await, digest(&int4));
    let audit = fs::read_to_string(fleet.state.join("audit.jsonl")).unwrap();
    for what in ["install root", "update trust", "\"trust\""] {
        assert!(audit.contains(what), "{what}: {audit}");
    }
    assert!(daemon.stop().success());
    let daemon = fleet.daemon();
    assert_eq!(served(&daemon).await, digest(&int4));
    // A model that is taken back serves on, and is not deployed again.
    fleet.trust(&["sign", path(&int8)]).success();
    deploy(&daemon, &int8).success();
    fleet.trust(&["revoke", &digest(&int4)[..19]]).success();
    ask(&daemon, &["trust", "update", path(&fleet.trust)]).success();
    refused_with(&daemon, &int4, reason::NOT_SIGNED).await;
    // The bundle carries older signatures than the device has: the device goes by its own.
    refused(&deploy(&daemon, &int4), "is signed for it");
    assert_eq!(served(&daemon).await, digest(&int8));
    assert!(daemon.stop().success());
}

/// Sets the expiry of a role's metadata, as they are kept.
fn expire(stored: &mut Value, role: &str) {
    let place = if role == "root" { &mut stored["root"] } else { &mut stored["below"][role] };
    let mut file: Value = serde_json::from_str(place.as_str().unwrap()).unwrap();
    file["signed"]["expires"] = "2020-02-02T20:20:20Z".into();
    *place = file.to_string().into();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_expired_is_not_deployed_and_what_serves_goes_on() {
    let fleet = Fleet::new(&[]);
    let (int4, int8) = (fleet.signed("int4"), fleet.signed("int8"));
    let daemon = fleet.trusting();
    deploy(&daemon, &int4).success();
    deploy(&daemon, &int8).success();
    assert!(daemon.stop().success());
    let file = fleet.state.join("trust/trusted");
    let good = fs::read(&file).unwrap();
    for role in ["timestamp", "snapshot", "targets", "root"] {
        fleet.edit(|stored| expire(stored, role));
        let daemon = fleet.daemon();
        assert_eq!(served(&daemon).await, digest(&int8), "{role}: a start never asks for the time");
        refused_with(&daemon, &int4, reason::TRUST_EXPIRED).await;
        let again = deploy(&daemon, &int4);
        refused(&again, &format!("the {role} metadata expired on 2020-02-02T20:20:20Z"));
        // The way back does not close with time.
        for model in [&int4, &int8] {
            ask(&daemon, &["rollback"]).success();
            assert_eq!(served(&daemon).await, digest(model));
        }
        assert!(daemon.stop().success());
        fs::write(&file, &good).unwrap();
    }
    // Fresh signatures open the way again; those that expired on their way here do not come in.
    let daemon = fleet.daemon();
    fleet.trust(&["refresh", "--expires", "timestamp=1s", path(&int4)]).success();
    while !fleet.trust(&["show"]).success().contains("(expired)") {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    refused(&deploy(&daemon, &int4), "the timestamp metadata have expired");
    fleet.trust(&["refresh"]).success();
    ask(&daemon, &["deploy", path(&int4), "--trust", path(&fleet.trust)]).success();
    assert_eq!(served(&daemon).await, digest(&int4));
    assert!(daemon.stop().success());
}

#[test]
fn a_wrong_path_is_named_with_what_is_meant() {
    let fleet = Fleet::new(&[]);
    let (metadata, file) = (fleet.trust.join("metadata"), fleet.dir.path().join("file"));
    fs::write(&file, "").unwrap();
    let show = |dir: &Path| run(&mut agent_cli(&["trust", "show", "--dir", path(dir)]));
    refused(&show(&metadata), &format!("it is the metadata folder of {}", fleet.trust.display()));
    refused(&show(&file), "it is a file");
    refused(&show(&fleet.dir.path().join("none")), "agent-cli trust init");
    let safe = fleet.dir.path().join("safe");
    let int4 = fleet.bundle("int4");
    let elsewhere = fleet.trust(&["sign", path(&int4), "--keys", path(&safe)]);
    refused(&elsewhere, &format!("{} (which is no folder)", safe.display()));
    // A private key stays here: no daemon is asked.
    let key = fs::read_dir(fleet.trust.join("keys")).unwrap().next().unwrap().unwrap().path();
    let install = run(&mut agent_cli(&["trust", "install", path(&key), "--on", "unix:/none"]));
    assert!(install.code == Some(2) && install.stderr.contains("is no root metadata file"), "{install:?}");
    let update = run(&mut agent_cli(&["trust", "update", path(&file), "--on", "unix:/none"]));
    refused(&update, "it is a file");
}

#[test]
fn under_an_expired_root_nothing_is_signed_and_what_expires_soon_is_said() {
    let fleet = Fleet::new(&["--expires", "root=1s"]);
    let int4 = fleet.bundle("int4");
    while !fleet.trust(&["show"]).success().contains("(expired)") {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let again = format!("agent-cli trust refresh --dir {} --role root", fleet.trust.display());
    for args in [&["sign", path(&int4)][..], &["refresh", path(&int4)]] {
        let ended = fleet.trust(args);
        refused(&ended, "the root metadata expired on");
        refused(&ended, &again);
    }
    assert!(Bundle::open(&int4).unwrap().referrers().is_empty(), "the bundle is as it was");
    let shown = fleet.trust(&["show"]);
    assert!(shown.stderr.contains("warning: the root metadata expired on"), "{}", shown.stderr);
    fleet.trust(&["refresh", "--role", "root", "--expires", "root=40d"]).success();
    let signed = fleet.trust(&["sign", path(&int4)]);
    assert!(!signed.stderr.contains("warning"), "{}", signed.stderr);
    signed.success();
    // A root that is valid for 40 days expires soon when less than a third of them is left.
    fleet.trust(&["refresh", "--role", "root", "--expires", "root=10d"]).success();
    let soon = fleet.trust(&["sign", path(&int4), "--expires", "root=40d"]);
    assert!(soon.stderr.contains("warning: the root metadata expire on"), "{}", soon.stderr);
    soon.success();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_behind_is_told_of_and_what_serves_goes_on() {
    let fleet = Fleet::new(&[]);
    let (int4, int8) = (fleet.signed("int4"), fleet.signed("int8"));
    let daemon = fleet.trusting();
    deploy(&daemon, &int4).success();
    deploy(&daemon, &int8).success();
    assert_eq!(get(&daemon)["clock_behind"], false);
    assert!(daemon.stop().success());
    fleet.edit(|stored| stored["known_time"] = "2999-01-01T00:00:00Z".into());
    let start = || {
        Setup::managed(&fleet.state)
            .allow("the clock is behind")
            .allow("the model was not changed")
            .allow("the latest known time was reset")
            .start()
    };
    let daemon = start();
    assert_eq!(
        daemon.lines("the clock is behind: updates of trust and deployments are refused until it is set").len(),
        1
    );
    assert_eq!(served(&daemon).await, digest(&int8));
    let state = get(&daemon);
    assert_eq!(
        (state["clock_behind"].as_bool(), state["known_time"].as_str()),
        (Some(true), Some("2999-01-01T00:00:00Z"))
    );
    refused_with(&daemon, &int4, reason::CLOCK_BEHIND).await;
    let told = ask(&daemon, &["trust", "update", path(&fleet.trust)]);
    refused(&told, "2999-01-01T00:00:00Z was reached before: set the clock");
    assert!(daemon.stop().success());
    // An operator of the machine says that the clock is right, and was ahead before.
    let daemon = start();
    let told = ask(&daemon, &["trust", "reset-clock"]).success();
    assert!(told.contains("for the latest time, instead of 2999-01-01T00:00:00Z"), "{told}");
    activate(&daemon, &int4).await.unwrap();
    let told = ask(&daemon, &["trust", "reset-clock"]).success();
    assert!(told.contains("nothing to reset"), "{told}");
    assert!(daemon.stop().success());
    // The clock is set.
    fleet.edit(|stored| stored["known_time"] = "2020-01-01T00:00:00Z".into());
    let daemon = fleet.daemon();
    activate(&daemon, &int4).await.unwrap();
    assert_ne!(get(&daemon)["known_time"], "2020-01-01T00:00:00Z", "the time that was reached is kept");
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn new_keys_are_followed_however_many_there_were_meanwhile() {
    let fleet = Fleet::new(&[]);
    let int4 = fleet.signed("int4");
    let daemon = fleet.trusting();
    deploy(&daemon, &int4).success();
    for args in [
        &["rotate", "--role", "root"][..],
        &["rotate", "--role", "timestamp"],
        &["rotate", "--role", "targets"],
        &["rotate", "--role", "root"],
        &["add-key", "--role", "targets", "--threshold", "2"],
        &["add-key", "--role", "root", "--threshold", "2"],
        &["rotate", "--role", "snapshot"],
        &["refresh"],
    ] {
        fleet.trust(args).success();
    }
    let int8 = fleet.signed("int8");
    deploy(&daemon, &int8).success();
    let state = get(&daemon);
    assert_eq!((version(&state, "root"), served(&daemon).await), (8, digest(&int8)));
    // The bundle carries the signatures of then: the device has newer ones, and int4 is among those as well.
    deploy(&daemon, &int4).success();
    assert_eq!(get(&daemon)["roles"], state["roles"]);
    // A device that never heard of all that starts from its first root.
    let other =
        Fleet { state: fleet.dir.path().join("other"), trust: fleet.trust.clone(), dir: tempfile::tempdir().unwrap() };
    let second = other.daemon();
    ask(&second, &["trust", "install", path(&fleet.trust.join("metadata/1.root.json"))]).success();
    deploy(&second, &int8).success();
    assert_eq!(version(&get(&second), "root"), 8);
    for daemon in [daemon, second] {
        assert!(daemon.stop().success());
    }
}

#[test]
fn keys_are_secret_and_may_be_elsewhere() {
    let fleet = Fleet::new(&["--threshold", "targets=2"]);
    let keys = fleet.trust.join("keys");
    let files: Vec<PathBuf> = fs::read_dir(&keys).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 5);
    for file in &files {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
    }
    // The root's key goes into the safe.
    let safe = fleet.dir.path().join("safe");
    fs::create_dir(&safe).unwrap();
    let named = |part: &str| files.iter().find(|file| path(file).contains(part)).unwrap();
    fs::rename(named("/root-"), safe.join("root.pem")).unwrap();
    fleet.signed("int4");
    assert!(fleet.trust(&["show"]).success().contains("(elsewhere)"));
    let before = fs::read_dir(fleet.trust.join("metadata")).unwrap().count();
    let lacking = fleet.trust(&["rotate", "--role", "timestamp"]);
    for part in ["the role root needs signatures of 1 of its keys", "--keys DIR"] {
        refused(&lacking, part);
    }
    assert_eq!(fs::read_dir(fleet.trust.join("metadata")).unwrap().count(), before);
    fleet.trust(&["rotate", "--role", "timestamp", "--keys", path(&keys), "--keys", path(&safe)]).success();
    // One of two keys is not enough.
    fs::rename(named("/targets-"), safe.join("targets.pem")).unwrap();
    refused(&fleet.trust(&["sign", path(&fleet.bundle("int8"))]), "the role targets needs signatures of 2 of its keys");
    let which = fleet.trust(&["rotate", "--role", "targets", "--keys", path(&keys), "--keys", path(&safe)]);
    assert!(which.code == Some(2) && which.stderr.contains("--replace ID"), "{which:?}");
    let again = fleet.trust(&["init"]);
    refused(&again, "holds signatures already");
}

#[test]
fn what_is_not_signed_by_the_folders_own_keys_is_not_signed_again() {
    let fleet = Fleet::new(&[]);
    fleet.signed("int4");
    let folder = fleet.trust.join("metadata");
    for name in ["2.targets.json", "2.snapshot.json", "timestamp.json", "1.root.json"] {
        let file = folder.join(name);
        let good = fs::read_to_string(&file).unwrap();
        fs::write(&file, good.replacen("\"version\": ", "\"version\": 1", 1)).unwrap();
        let damaged = fleet.trust(&["refresh"]);
        assert!(damaged.code == Some(7) && damaged.stderr.contains(name), "{name}: {damaged:?}");
        fs::write(&file, good).unwrap();
    }
    fleet.trust(&["refresh"]).success();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mode_says_what_happens() {
    let fleet = Fleet::new(&[]);
    let (int4, int8) = (fleet.bundle("int4"), fleet.bundle("int8"));
    let setup = |mode: &str| Setup::managed(&fleet.state).set("trust.mode", mode);
    let daemon = setup("warn").allow("a model is served that is not trusted").start();
    deploy(&daemon, &int4).success();
    ask(&daemon, &["trust", "install", path(&fleet.trust)]).success();
    deploy(&daemon, &int8).success();
    let warned = daemon.lines("a model is served that is not trusted, since trust.mode is warn");
    assert_eq!(warned.len(), 2, "{warned:?}");
    assert!(
        warned[0].to_string().contains("no root of trust") && warned[1].to_string().contains("is signed"),
        "{warned:?}"
    );
    assert!(fs::read_to_string(fleet.state.join("audit.jsonl")).unwrap().contains("only warned"));
    assert!(daemon.stop().success());
    let daemon = setup("off").start();
    deploy(&daemon, &int4).success();
    assert!(daemon.stop().success());
    let daemon = setup("enforce").allow("the model was not changed").start();
    refused_with(&daemon, &int8, reason::NOT_SIGNED).await;
    assert_eq!(served(&daemon).await, digest(&int4));
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_other_machines_reach_the_daemon_only_signed_models_are_served() {
    let fleet = Fleet::new(&[]);
    let authority = Authority::new(fleet.dir.path(), "authority");
    let own = authority.identity("gateway", "127.0.0.1");
    let socket = format!("unix:{}", fleet.dir.path().join("socket").display());
    let open = |setup: Setup| {
        setup
            .set("tls.certificate", path(&own.certificate))
            .set("tls.key", path(&own.key))
            .set("tls.clients", path(&authority.certificate))
            .listen(&["0.0.0.0:0", &socket])
            .set("discovery.announce", false)
    };
    let int4 = fleet.bundle("int4");
    let mut daemon = open(Setup::managed(&fleet.state)).allow("the model was not changed").start();
    daemon.address = socket.clone();
    assert_eq!(get(&daemon)["mode"], "enforce");
    refused(&deploy(&daemon, &int4), "has no root of trust");
    assert!(daemon.stop().success());
    // The configuration brings the root.
    let root = fleet.trust.join("metadata/1.root.json");
    fleet.trust(&["sign", path(&int4)]).success();
    let mut daemon = open(Setup::managed(&fleet.state)).set("trust.root", path(&root)).start();
    daemon.address = socket.clone();
    deploy(&daemon, &int4).success();
    assert_eq!(served(&daemon).await, digest(&int4));
    assert!(daemon.stop().success());
    // A weaker mode there has to be asked for twice.
    let recurved = |mode: &str, insecure: &str| {
        let mut command = clean(binary("recurved"));
        command.args(["check-config", "--config", "/dev/null", "--listen", "0.0.0.0:0"]);
        run(command.env("RECURVE_TRUST__MODE", mode).env("RECURVE_INSECURE", insecure))
    };
    for mode in ["warn", "off"] {
        let weak = recurved(mode, "false");
        assert!(weak.code == Some(78) && format!("{weak:?}").contains("trust.mode"), "{weak:?}");
        recurved(mode, "true").success();
    }
}

#[test]
fn a_root_of_the_configuration_has_to_be_one() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root.json");
    fs::write(&root, "{}").unwrap();
    let mut command = clean(binary("recurved"));
    command.args(["--config", "/dev/null", "--listen", "127.0.0.1:0", "--state-dir", path(&dir.path().join("state"))]);
    let ended = run(command.env("RECURVE_TRUST__ROOT", &root));
    assert!(ended.code == Some(78) && ended.stderr.contains("the root is none"), "{ended:?}");
    let mut command = clean(binary("recurved"));
    command.args(["--config", "/dev/null", "--listen", "127.0.0.1:0", "--state-dir", path(&dir.path().join("state"))]);
    let ended = run(command.env("RECURVE_TRUST__ROOT", dir.path().join("nothing")));
    assert!(ended.code.is_some_and(|code| code != 0) && ended.stderr.contains("nothing"), "{ended:?}");
}
