//! What devices measured is gathered, each record once, whatever breaks off: `agent-cli telemetry` and `recurved`, as they are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use recurve_tests::client::{connect, generate, greedy};
use recurve_tests::daemon::{Daemon, Setup};
use recurve_tests::managed::deploy;
use recurve_tests::process::{Ended, agent_cli, run, until};
use recurve_tests::world::{self, path};
use serde_json::Value;
use tempfile::TempDir;

/// Tokens that a daemon makes by itself, to try a model that was deployed to it.
const OWN: u64 = 4;

/// Two devices with an inventory, and where their history is gathered.
struct Site {
    folder: TempDir,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let device = |name: &str| {
            let socket = folder.path().join(name).with_extension("sock");
            format!("[[device]]\nname = \"{name}\"\naddress = \"unix:{}\"\n", path(&socket))
        };
        fs::write(folder.path().join("fleet.toml"), device("gw-1") + &device("gw-2")).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts a device with what it kept.
    fn start(&self, name: &str) -> Daemon {
        let listen = format!("unix:{}", path(&self.path(name).with_extension("sock")));
        Setup::managed(&self.path(name))
            .listen(&[&listen])
            .set("telemetry.interval", 1)
            .set("probation.seconds", 0)
            .set("engine.kernels", "recurve")
            .set("engine.threads", 1)
            .start()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = agent_cli(&["telemetry"]);
        command
            .args(["--fleet", path(&self.path("fleet.toml")), "--store", path(&self.path("telemetry.db"))])
            .args(args);
        command
    }

    fn ask(&self, args: &[&str]) -> Ended {
        run(&mut self.command(args))
    }

    /// What is told of each device, and of all.
    fn told(&self, args: &[&str]) -> Vec<Value> {
        lines(&self.ask(&[&["--format", "json"], args].concat()).stdout)
    }

    /// The tokens that were made there, as far as it was gathered.
    fn tokens(&self, name: &str) -> u64 {
        self.told(&["--on", name])[0]["tokens_out"].as_f64().unwrap() as u64
    }
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Requests, and the tokens that they made.
async fn asked(daemon: &Daemon, times: u32) -> u64 {
    let client = connect(daemon).await;
    let mut made = 0;
    for time in 0..times {
        let answer = generate(&client, greedy(&[2, 9, 30 + time], 7)).await.unwrap();
        made += answer.finish.usage.unwrap().completion_tokens;
    }
    made
}

#[tokio::test(flavor = "multi_thread")]
async fn each_record_is_gathered_once_whatever_breaks_off() {
    let site = Site::new();
    let (first, second) = (site.start("gw-1"), site.start("gw-2"));
    deploy(&first, &world::tiny("int8"));
    deploy(&second, &world::tiny("int4"));
    let mut made = [OWN + asked(&first, 5).await, OWN + asked(&second, 3).await];

    // Killed at any moment, again and again, with others at the same time.
    for pause in 0..12 {
        let begin = || {
            let mut command = site.command(&["--to", "all"]);
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        };
        let (mut one, mut other) = (begin(), begin());
        sleep(Duration::from_millis(pause * 7));
        one.kill().unwrap();
        one.wait().unwrap();
        assert!(other.wait().unwrap().success());
    }
    until(|| site.tokens("gw-1") >= made[0] && site.tokens("gw-2") >= made[1]);
    assert_eq!([site.tokens("gw-1"), site.tokens("gw-2")], made);

    // One is away: the other is gathered, and the reason is told.
    drop(second);
    made[0] += asked(&first, 2).await;
    until(|| site.tokens("gw-1") >= made[0]);
    let partly = site.ask(&["--to", "all", "--format", "json"]);
    assert_eq!(partly.code, Some(8), "{}", partly.stderr);
    let told = lines(&partly.stdout);
    assert_eq!((told[1]["device"].as_str(), told[1]["reachable"].as_bool()), (Some("gw-2"), Some(false)));
    let why = told[1]["error"].as_str().unwrap();
    assert!(why.contains("nothing listens there") || why.contains("no such socket"), "{why}");
    assert_eq!(told[1]["tokens_out"], made[1] as f64, "what was gathered of it is still told");
    let alone = site.ask(&["--on", "gw-2"]);
    assert!(alone.code == Some(3) && alone.stdout.contains("gw-2"), "{} {}", alone.stdout, alone.stderr);

    // It comes back with what it kept.
    let second = site.start("gw-2");
    made[1] += asked(&second, 4).await;
    until(|| site.tokens("gw-2") >= made[1]);
    let told = site.told(&["--to", "all"]);
    let of = |place: usize, what: &str| told[place][what].as_f64().unwrap();
    assert_eq!([of(0, "tokens_out"), of(1, "tokens_out")], made.map(|tokens| tokens as f64));
    assert_eq!((of(0, "requests"), of(1, "requests"), of(2, "requests"), of(2, "fleet")), (7.0, 7.0, 14.0, 2.0));
    assert_eq!(told[2]["tokens_out"], (made[0] + made[1]) as f64);
    // Its bucket lies between those of the devices.
    let middle = |place: usize| told[place]["time_to_first_token_seconds"]["p50"]["from"].as_f64().unwrap();
    let between = middle(0).min(middle(1))..=middle(0).max(middle(1));
    assert!(between.contains(&middle(2)), "{between:?} {}", middle(2));

    // What is here needs no device.
    drop((first, second));
    shown_offline(&site, made);
}

/// The same in every form, with nobody to ask.
fn shown_offline(site: &Site, made: [u64; 2]) {
    let page = site.path("report.html");
    let text = site.ask(&["--offline", "--html", path(&page)]).success();
    assert!(text.contains("gw-1") && text.contains("gw-2") && text.contains("all 2"), "{text}");
    let page = fs::read_to_string(&page).unwrap();
    assert!(page.contains("<svg") && page.contains("model.activated") && !page.contains("<script"));
    let csv = site.ask(&["--offline", "--to", "gw-2", "--format", "csv"]).success();
    let tokens = csv.lines().filter(|line| line.contains("recurve.tokens") && line.contains("output"));
    // The seventh column from the right, whatever the attributes are.
    let value = |line: &str| line.rsplit(',').nth(6).unwrap().parse::<f64>().unwrap();
    assert_eq!(tokens.map(value).sum::<f64>(), made[1] as f64, "{csv}");
}

#[test]
fn a_device_that_was_never_heard_of_is_told_with_its_reason() {
    let site = Site::new();
    let never = site.ask(&["--on", "gw-1"]);
    assert!(never.code == Some(3) && never.stderr.contains("there is no such socket"), "{}", never.stderr);
    let store = site.path("none.db");
    let nothing = run(agent_cli(&["telemetry", "--offline"]).args(["--store", path(Path::new(&store))]));
    assert!(nothing.code == Some(2) && nothing.stderr.contains("nothing was gathered yet"), "{}", nothing.stderr);
    assert!(!store.exists());
}
