//! A device fetches models from a registry itself, whoever then listens, and goes on where it broke off.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use recurve_bundle::{Bundle, Descriptor};
use recurve_proto::reason;
use recurve_proto::v1::models_client::ModelsClient;
use recurve_proto::v1::{ActivateRequest, PullRequest};
use recurve_tests::bad_link::{Proxy, Rule};
use recurve_tests::client::{channel, connect, generate, greedy, soon, told};
use recurve_tests::daemon::{Daemon, Setup};
use recurve_tests::process::{Ended, agent_cli, run, until, wait};
use recurve_tests::registry::{self, Registry};
use recurve_tests::world::{self, path};
use rustix::process::Signal;
use tempfile::TempDir;
use tonic::Status;
use tonic::transport::Channel;

const REPOSITORY: &str = "models/tiny";

fn push(registry: &Registry, bundle: &Path) {
    run(&mut agent_cli(&["push", path(bundle), &format!("oci://{}/{REPOSITORY}:1", registry.address)])).success();
}

fn digest(bundle: &Path) -> String {
    Bundle::open(bundle).unwrap().digest().to_string()
}

fn request(address: &str, bundle: &Path) -> PullRequest {
    let (registry, repository) = (address.to_owned(), REPOSITORY.to_owned());
    PullRequest { registry, repository, bundle: digest(bundle), ..PullRequest::default() }
}

async fn client(daemon: &Daemon) -> ModelsClient<Channel> {
    ModelsClient::new(channel(daemon).await)
}

/// The last message of a pull.
async fn pull(daemon: &Daemon, request: PullRequest) -> Result<(u64, u64), Status> {
    let mut stream = soon(client(daemon).await.pull(request)).await?.into_inner();
    let mut last = (0, 0);
    while let Some(message) = soon(stream.message()).await? {
        assert!(message.received >= last.0, "progress goes on");
        last = (message.received, message.bytes);
    }
    Ok(last)
}

async fn activate(daemon: &Daemon, bundle: &Path) {
    let request = ActivateRequest { bundle: digest(bundle) };
    let mut stream = soon(client(daemon).await.activate(request)).await.unwrap().into_inner();
    while soon(stream.message()).await.unwrap().is_some() {}
    let served = generate(&connect(daemon).await, greedy(&[2, 9, 30], 3)).await.unwrap();
    assert_eq!(served.finish.bundle, digest(bundle));
}

fn ask(daemon: &Daemon, address: &str, more: &[&str]) -> Ended {
    let from = format!("oci://{address}/{REPOSITORY}:1");
    run(agent_cli(&["models", "pull", &from, "--on", &daemon.address, "--format", "json"]).args(more))
}

fn begin(daemon: &Daemon, address: &str) -> Child {
    let from = format!("oci://{address}/{REPOSITORY}:1");
    let mut command = agent_cli(&["models", "pull", &from, "--on", &daemon.address]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn shard(bundle: &Path) -> Descriptor {
    Bundle::open(bundle).unwrap().file("weights/layer-02.bin").unwrap().clone()
}

fn fetched(proxy: &Proxy) -> Vec<(String, Option<u64>)> {
    let gets = proxy.take_requests().into_iter().filter(|request| request.method == "GET");
    gets.filter_map(|request| Some((request.path.split_once("/blobs/sha256:")?.1.to_owned(), request.from))).collect()
}

/// A device, and a registry that stands still in the middle of one blob of a model.
struct Scene {
    _registry: Registry,
    proxy: Proxy,
    state: TempDir,
    bundle: PathBuf,
    /// That blob: 20,000 bytes of it come.
    cut: String,
    daemon: Daemon,
}

impl Scene {
    fn new() -> Option<Self> {
        if !registry::installed() {
            return None;
        }
        let (registry, state) = (Registry::start(), tempfile::tempdir().unwrap());
        let proxy = Proxy::start(&registry.address);
        let bundle = world::tiny("f32");
        push(&registry, &bundle);
        let cut = shard(&bundle).digest.hex();
        let daemon = Setup::managed(state.path()).start();
        proxy.set(Rule::Hold { what: cut.clone(), after: 20_000 });
        Some(Self { _registry: registry, proxy, state, bundle, cut, daemon })
    }
}

fn wait_until_written(state: &TempDir, cut: &str) {
    let partial = state.path().join("incoming").join(cut);
    until(|| fs::metadata(&partial).is_ok_and(|found| found.len() == 20_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_pulled_and_served_and_the_next_one_shares_its_blobs() {
    if !registry::installed() {
        return;
    }
    let (registry, state) = (Registry::start(), tempfile::tempdir().unwrap());
    let proxy = Proxy::start(&registry.address);
    let (int4, int8) = (world::tiny("int4"), world::tiny("int8"));
    let daemon = Setup::managed(state.path()).start();
    push(&registry, &int4);
    let bytes = Bundle::open(&int4).unwrap().bytes();
    assert_eq!(pull(&daemon, request(&proxy.address, &int4)).await.unwrap(), (bytes, bytes));
    activate(&daemon, &int4).await;
    proxy.take_requests();
    push(&registry, &int8);
    assert_eq!(ask(&daemon, &proxy.address, &[]).json()["bytes"].as_u64(), Some(Bundle::open(&int8).unwrap().bytes()));
    let blobs = |bundle: &Path| -> BTreeSet<String> {
        Bundle::open(bundle).unwrap().manifest().layers.iter().map(|layer| layer.digest.hex()).collect()
    };
    let asked: BTreeSet<String> = fetched(&proxy).into_iter().map(|(digest, _)| digest).collect();
    assert!(asked.is_disjoint(&blobs(&int4)) && !asked.is_empty(), "{asked:?}");
    activate(&daemon, &int8).await;
    let audit = fs::read_to_string(state.path().join("audit.jsonl")).unwrap();
    assert_eq!(audit.matches("\"what\":\"pull\"").count(), 2, "{audit}");
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_was_killed_goes_on_at_the_byte_where_it_was() {
    let Some(Scene { _registry, proxy, state, bundle, cut, daemon }) = Scene::new() else { return };
    let mut asking = begin(&daemon, &proxy.address);
    proxy.wait_until_held();
    wait_until_written(&state, &cut);
    daemon.signal(Signal::KILL);
    assert!(!daemon.ended().success());
    assert!(!wait(&mut asking).success());
    proxy.set(Rule::Pass);
    let whole: BTreeSet<String> = fetched(&proxy).into_iter().map(|(digest, _)| digest).collect();

    let daemon = Setup::managed(state.path()).start();
    pull(&daemon, request(&proxy.address, &bundle)).await.unwrap();
    let asked = fetched(&proxy);
    assert!(asked.contains(&(cut.clone(), Some(20_000))), "{asked:?}");
    assert!(asked.iter().all(|(digest, _)| *digest == cut || !whole.contains(digest)), "{asked:?}");
    activate(&daemon, &bundle).await;
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_outlives_who_asked_for_it_and_lost_links_and_is_joined_by_others() {
    let Some(Scene { _registry, proxy, state: _state, bundle, cut, daemon }) = Scene::new() else { return };
    let mut first = begin(&daemon, &proxy.address);
    proxy.wait_until_held();
    first.kill().unwrap();
    wait(&mut first);
    let mut second = soon(client(&daemon).await.pull(request("registry.invalid", &bundle))).await.unwrap().into_inner();
    let joined = soon(second.message()).await.unwrap().unwrap();
    assert!(joined.bytes > joined.received && joined.received > 0);
    proxy.set(Rule::Cut { what: cut.clone(), after: 30_000, times: 1 });
    while soon(second.message()).await.unwrap().is_some() {}
    daemon.wait_for("model pulled");
    let offsets: Vec<_> =
        fetched(&proxy).into_iter().filter(|(digest, _)| *digest == cut).map(|(_, from)| from).collect();
    // Each answer counts its own bytes.
    assert_eq!(offsets, [None, Some(20_000), Some(50_000)]);
    activate(&daemon, &bundle).await;
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_stops_in_order_in_the_middle_of_a_pull() {
    let Some(Scene { _registry, proxy, state, bundle, cut, daemon }) = Scene::new() else { return };
    let mut stream = soon(client(&daemon).await.pull(request(&proxy.address, &bundle))).await.unwrap().into_inner();
    proxy.wait_until_held();
    wait_until_written(&state, &cut);
    daemon.terminate();
    let ended = loop {
        match soon(stream.message()).await {
            Ok(message) => assert!(message.is_some(), "the stream does not end as if the model were there"),
            Err(status) => break status,
        }
    };
    assert_eq!(told(&ended).1, reason::SHUTTING_DOWN);
    assert!(daemon.ended().success());
    proxy.set(Rule::Pass);
    proxy.take_requests();
    let daemon = Setup::managed(state.path()).start();
    pull(&daemon, request(&proxy.address, &bundle)).await.unwrap();
    assert!(fetched(&proxy).contains(&(cut, Some(20_000))));
    activate(&daemon, &bundle).await;
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_registry_does_wrong_is_told_by_its_reason_and_not_kept() {
    if !registry::installed() {
        return;
    }
    let (registry, state) = (Registry::start(), tempfile::tempdir().unwrap());
    let proxy = Proxy::start(&registry.address);
    let (int4, int8) = (world::tiny("int4"), world::tiny("int8"));
    push(&registry, &int4);
    let daemon = Setup::managed(state.path()).allow("the model was not pulled").start();
    let why = async |request| told(&pull(&daemon, request).await.unwrap_err()).1;
    assert_eq!(why(request(&proxy.address, &int8)).await, reason::REGISTRY_NOT_FOUND);
    let broken = shard(&int4).digest.hex();
    proxy.set(Rule::Alter { what: broken.clone() });
    assert_eq!(why(request(&proxy.address, &int4)).await, reason::REGISTRY_WRONG_BYTES);
    for folder in ["blobs/sha256", "incoming"] {
        assert!(!state.path().join(folder).join(&broken).exists());
    }
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    assert_eq!(why(request(&gone, &int4)).await, reason::REGISTRY_UNREACHABLE);
    assert_eq!(why(PullRequest { bundle: "x".to_owned(), ..request(&gone, &int4) }).await, reason::INVALID_REQUEST);
    assert_eq!(why(request("no registry", &int4)).await, reason::INVALID_REQUEST);
    proxy.set(Rule::Pass);
    pull(&daemon, request(&proxy.address, &int4)).await.unwrap();
    activate(&daemon, &int4).await;
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_the_devices_own_or_lent_and_never_logged() {
    use base64::Engine as _;
    if !registry::installed() {
        return;
    }
    let (registry, dir) = (Registry::with_password(), tempfile::tempdir().unwrap());
    let bundle = world::tiny("int4");
    let file = dir.path().join("auth.json");
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{}:{}", registry::USER, registry::PASSWORD));
    fs::write(&file, format!(r#"{{"auths": {{"{}": {{"auth": "{pair}"}}}}}}"#, registry.address)).unwrap();
    let to = format!("oci://{}/{REPOSITORY}:1", registry.address);
    run(&mut agent_cli(&["push", path(&bundle), &to, "--auth-file", path(&file)])).success();

    let states = [dir.path().join("one"), dir.path().join("two")];
    let daemon = Setup::managed(&states[0]).set("log.level", "trace").allow("the model was not pulled").start();
    let refused = pull(&daemon, request(&registry.address, &bundle)).await.unwrap_err();
    assert_eq!(told(&refused).1, reason::REGISTRY_REFUSED);
    let wrong = PullRequest {
        username: registry::USER.to_owned(),
        password: "not-this-one".to_owned(),
        ..request(&registry.address, &bundle)
    };
    let refused = pull(&daemon, wrong).await.unwrap_err();
    assert!(told(&refused).1 == reason::REGISTRY_REFUSED && refused.message().contains("`operator`"), "{refused}");
    ask(&daemon, &registry.address, &["--auth-file", path(&file), "--lend-credentials"]).success();
    activate(&daemon, &bundle).await;
    for secret in ["not-this-one", registry::PASSWORD, &pair] {
        assert!(!daemon.has_logged(secret), "the log holds a secret");
    }
    assert!(daemon.has_logged("operation") && daemon.stop().success());

    let daemon = Setup::managed(&states[1]).set("registry.auth_file", file.display()).start();
    pull(&daemon, request(&registry.address, &bundle)).await.unwrap();
    assert!(daemon.stop().success());
}
