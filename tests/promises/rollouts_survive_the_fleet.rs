//! Devices that are down, freeze, are full, slow, or serve something else: a rollout names each with its reason, comes to an
//! end, and every device that lives serves a model.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use recurve_bundle::Bundle;
use recurve_tests::fleet::{Fleet, Rollout, name};
use recurve_tests::proxy::{Link, Proxy};
use recurve_tests::world::{self, path};
use rustix::process::Signal;
use serde_json::Value;

fn digest(bundle: &Path) -> String {
    Bundle::open(bundle).unwrap().digest().to_string()
}

/// A disk that is small: its device has room for one model and not for two.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None where this user may not mount one.
    fn new(dir: &Path, bytes: u64) -> Option<Self> {
        std::fs::create_dir_all(dir).unwrap();
        let size = format!("size={bytes}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(dir).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self(dir.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// What the daemon leaves free of a disk.
const RESERVE: u64 = 64 << 20;

/// What ails which device.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ailing {
    /// Down from the beginning.
    down: Vec<usize>,
    /// Frozen from the beginning.
    frozen: Vec<usize>,
    /// Frozen while it is sent to.
    freezes: Vec<usize>,
    /// Killed while it is watched.
    dies: Vec<usize>,
    /// Given another model while it is watched.
    changed: Vec<usize>,
    /// Behind a slow link.
    slow: Vec<usize>,
    /// Without room.
    full: Vec<usize>,
}

impl Ailing {
    /// Cause of each device that does not end well.
    fn expected(&self, full: bool) -> Vec<(usize, &'static str, &'static str)> {
        let each =
            |numbers: &[usize], state, cause| numbers.iter().map(|number| (*number, state, cause)).collect::<Vec<_>>();
        let full = if full { each(&self.full, "skipped", "no_room") } else { Vec::new() };
        [
            each(&self.down, "skipped", "unreachable"),
            each(&self.frozen, "skipped", "unreachable"),
            each(&self.freezes, "skipped", "unreachable"),
            each(&self.dies, "failed", "lost"),
            each(&self.changed, "failed", "serves_another"),
            full,
        ]
        .concat()
    }
}

/// Reads events and does what is to happen to devices when their time comes.
fn afflict(fleet: &mut Fleet, rollout: &mut Rollout, ailing: &Ailing, other: &Path) {
    let mut to_come = ailing.freezes.len() + ailing.dies.len() + ailing.changed.len();
    let number = |event: &Value| {
        let device = event["device"].as_str().unwrap_or_default();
        device.rsplit('-').next().and_then(|number| number.parse::<usize>().ok()).unwrap_or_default()
    };
    while to_come > 0 {
        let event = rollout.until("devices that are afflicted", |event| {
            let (number, state) = (number(event), event["state"].as_str().unwrap_or_default());
            (state == "sending" && ailing.freezes.contains(&number))
                || (state == "watched" && (ailing.dies.contains(&number) || ailing.changed.contains(&number)))
        });
        let number = number(&event);
        if ailing.freezes.contains(&number) {
            fleet.daemon(number).signal(Signal::STOP);
        } else if ailing.dies.contains(&number) {
            fleet.kill(number);
        } else {
            fleet.ask(&["deploy", path(other), "--on", &name(number)]).success();
        }
        to_come -= 1;
    }
}

/// Rolls a model out to a fleet with ailing devices; gives the largest memory of the command line in bytes.
fn survives(count: usize, ailing: &Ailing, args: &[&str]) -> u64 {
    let (old, new, other) = (world::tiny("int4"), world::tiny("int8"), world::tiny("f32"));
    let disks = tempfile::tempdir().unwrap();
    let room = RESERVE + Bundle::open(&old).unwrap().bytes() + 200_000;
    let disk = |number: usize| SmallDisk::new(&disks.path().join(name(number)), room);
    let disks: Vec<(usize, SmallDisk)> =
        ailing.full.iter().filter_map(|number| Some((*number, disk(*number)?))).collect();
    let full = disks.len() == ailing.full.len();
    if !full {
        eprintln!("this user may not mount a small disk: no device is full");
    }
    let place = |number| disks.iter().find(|(other, _)| *other == number).map(|(_, disk)| disk.0.clone());
    let mut fleet = Fleet::with_states(count, place);
    fleet.give(&old);

    let mut ports = fleet.ports().to_vec();
    for number in ailing.slow.iter().chain(&ailing.freezes) {
        let link = Link { pause: Duration::from_millis(10), breaks_after: None };
        ports[number - 1] = Proxy::new(ports[number - 1], link).port;
    }
    fleet.write_inventory(&ports);
    ailing.down.iter().for_each(|number| fleet.kill(*number));
    ailing.frozen.iter().for_each(|number| fleet.daemon(*number).signal(Signal::STOP));
    let mut rollout = fleet.begin(&new, args);
    let peak = peak_memory(rollout.pid());
    afflict(&mut fleet, &mut rollout, ailing, &other);
    assert_eq!(rollout.ended(), Some(8), "{}", rollout.text());
    let peak = peak.join().unwrap();

    let expected = ailing.expected(full);
    for number in 1..=count {
        let reported = rollout.reported(number);
        let ill = expected.iter().find(|(other, ..)| *other == number);
        let found = (reported["state"].as_str().unwrap(), reported["reason"]["cause"].as_str());
        assert_eq!(found, ill.map_or(("proved", None), |(_, state, cause)| (*state, Some(*cause))), "{reported}");
        assert!(ill.is_none() || !reported["reason"]["words"].as_str().unwrap().is_empty(), "{reported}");
    }

    for number in ailing.frozen.iter().chain(&ailing.freezes) {
        fleet.daemon(*number).signal(Signal::CONT);
    }
    for number in ailing.down.iter().chain(&ailing.dies) {
        fleet.start(*number);
    }
    let some = [digest(&old), digest(&new), digest(&other)];
    let serves = fleet.serves("all");
    assert_eq!(serves.len(), count);
    for (device, bundle) in &serves {
        assert!(bundle.as_ref().is_some_and(|bundle| some.contains(bundle)), "{device} serves {bundle:?}");
    }
    // Once more, and all that can is done; what was done gets nothing.
    let mut again =
        fleet.begin(&new, &["--to", "all", "--waves", "100%", "--soak", "0s", "--resume", "--patience", "20s"]);
    assert_eq!(again.ended(), Some(if full && !ailing.full.is_empty() { 8 } else { 0 }), "{}", again.text());
    for number in (1..=count).filter(|number| !expected.iter().any(|(ill, ..)| ill == number)) {
        assert_eq!(again.reported(number)["sent"], 0, "{}", again.text());
    }
    let done = fleet.serves("all").iter().filter(|(_, bundle)| *bundle == Some(digest(&new))).count();
    assert_eq!(done, if full { count - ailing.full.len() } else { count });
    peak
}

/// Watches a process until it ends; gives the most memory that it had, in bytes.
fn peak_memory(pid: u32) -> JoinHandle<u64> {
    let read = move || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
    };
    spawn(move || {
        let mut peak = 0;
        // One that has ended has no such line, whether it was waited for or not.
        while let Some(now) = read() {
            peak = now;
            sleep(Duration::from_millis(20));
        }
        peak
    })
}

#[test]
fn twelve_devices_some_of_them_ailing() {
    let ailing = Ailing {
        down: vec![3],
        frozen: vec![5],
        freezes: vec![7],
        dies: vec![6],
        changed: vec![10],
        slow: vec![8],
        full: vec![9],
    };
    let args = [
        "--to",
        "all",
        "--waves",
        "1,100%",
        "--soak",
        "8s",
        "--max-failures",
        "20%",
        "--patience",
        "3s",
        "--retries",
        "1",
        "--parallel",
        "4",
    ];
    survives(12, &ailing, &args);
}

/// The same with a hundred: `cargo test --release --test promises -- --ignored a_hundred`. Prints the memory that it took.
#[test]
#[ignore = "a hundred daemons need 10 GB of memory and minutes"]
fn a_hundred_devices_some_of_them_ailing() {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64 | 1;
    println!("seed {seed}");
    let mut random = seed;
    let mut order = |_: &usize| {
        // xorshift (Marsaglia, 2003).
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    // The first one is the canary: if that is lost, the gate stays closed, as another test shows.
    let mut numbers: Vec<usize> = (2..=100).collect();
    numbers.sort_by_cached_key(&mut order);
    let mut numbers = numbers.into_iter();
    let mut some = |count: usize| numbers.by_ref().take(count).collect::<Vec<_>>();
    let ailing = Ailing {
        down: some(2),
        frozen: some(2),
        freezes: some(1),
        dies: some(2),
        changed: some(2),
        slow: some(2),
        full: some(1),
    };
    println!("{ailing:?}");
    let args = [
        "--to",
        "all",
        "--waves",
        "1,10%,100%",
        "--soak",
        "20s",
        "--max-failures",
        "10%",
        "--patience",
        "10s",
        "--retries",
        "1",
        "--parallel",
        "16",
    ];
    let peak = survives(100, &ailing, &args);
    println!("agent-cli: {:.1} MB at most", peak as f64 / 1e6);
    assert!(peak > 0 && peak < 200_000_000, "{peak}");
}
