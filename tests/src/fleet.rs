//! A fleet of real daemons behind mutual TLS, its inventory, and rollouts to it that are watched as they go.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::spawn;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::authority::{Authority, Identity};
use crate::daemon::{Daemon, Setup};
use crate::process::{Ended, LIMIT, agent_cli, run, wait};
use crate::world::path;

/// Daemons, by number from 1 on.
pub struct Fleet {
    dir: TempDir,
    authority: Authority,
    own: Identity,
    /// None while one is down.
    pub daemons: Vec<Option<Daemon>>,
    ports: Vec<u16>,
    states: Vec<PathBuf>,
}

/// The name of a device.
pub fn name(number: usize) -> String {
    format!("gw-{number:02}")
}

impl Fleet {
    /// So many daemons without a model, in the inventory under their names.
    pub fn new(count: usize) -> Self {
        Self::with_states(count, |_| None)
    }

    /// As `new`; some keep their models elsewhere.
    pub fn with_states(count: usize, elsewhere: impl Fn(usize) -> Option<PathBuf>) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let authority = Authority::new(dir.path(), "fleet");
        let own = authority.identity("gateway", "127.0.0.1");
        authority.identity("operator", "operator");
        let state = |number| elsewhere(number).unwrap_or_else(|| dir.path().join(name(number)));
        let states = (1..=count).map(state).collect();
        let (daemons, ports) = (Vec::new(), vec![0; count]);
        let mut fleet = Self { dir, authority, own, daemons, ports, states };
        fleet.daemons.resize_with(count, || None);
        for number in 1..=count {
            fleet.start(number);
        }
        let ports = fleet.ports.clone();
        fleet.write_inventory(&ports);
        fleet
    }

    /// Starts the daemon with this number, on its own port and with what it kept.
    pub fn start(&mut self, number: usize) {
        let daemon = Setup::managed(&self.states[number - 1])
            .port(self.ports[number - 1])
            .set("tls.certificate", path(&self.own.certificate))
            .set("tls.key", path(&self.own.key))
            .set("tls.clients", path(&self.authority.certificate))
            .set("engine.threads", 1)
            .set("engine.slots", 1)
            .set("engine.kernels", "recurve")
            .set("probation.starts", 100)
            .allow("the model was not changed")
            .start();
        self.ports[number - 1] = daemon.port();
        self.daemons[number - 1] = Some(daemon);
    }

    /// Kills the daemon with this number.
    pub fn kill(&mut self, number: usize) {
        let daemon = self.daemons[number - 1].take().expect("a running daemon");
        daemon.signal(Signal::KILL);
        assert!(!daemon.ended().success());
    }

    /// The daemon with this number.
    pub fn daemon(&self, number: usize) -> &Daemon {
        self.daemons[number - 1].as_ref().expect("a running daemon")
    }

    /// Where a device keeps its models.
    pub fn state(&self, number: usize) -> &Path {
        &self.states[number - 1]
    }

    /// The port of each daemon.
    pub fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// Writes the inventory with these ports; the label `odd` tells odd numbers from even ones.
    pub fn write_inventory(&self, ports: &[u16]) {
        let mut text =
            "[tls]\nca = \"fleet.pem\"\ncertificate = \"operator.pem\"\nkey = \"operator-key.pem\"\n".to_owned();
        for (number, port) in (1..).zip(ports) {
            let odd = if number % 2 == 1 { "yes" } else { "no" };
            text.push_str(&format!(
                "\n[[device]]\nname = \"{}\"\naddress = \"127.0.0.1:{port}\"\nlabels = {{odd = \"{odd}\"}}\n",
                name(number)
            ));
        }
        std::fs::write(self.inventory(), text).expect("a file");
    }

    /// The inventory's file.
    pub fn inventory(&self) -> PathBuf {
        self.dir.path().join("fleet.toml")
    }

    /// `agent-cli` with the inventory.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = agent_cli(args);
        command.args(["--fleet", path(&self.inventory())]);
        command
    }

    /// Runs it to its end.
    pub fn ask(&self, args: &[&str]) -> Ended {
        run(&mut self.command(args))
    }

    /// Every device gets this bundle at once, without being watched.
    pub fn give(&self, bundle: &Path) {
        let given = self.ask(&["deploy", path(bundle), "--to", "all", "--waves", "100%", "--soak", "0s"]);
        given.success();
    }

    /// Begins a rollout whose events can be read as they come.
    pub fn begin(&self, bundle: &Path, args: &[&str]) -> Rollout {
        let mut command = self.command(&["deploy", path(bundle), "--format", "json"]);
        Rollout::begin(command.args(args))
    }

    /// What each device serves, by name: the digest, or nothing.
    pub fn serves(&self, selector: &str) -> Vec<(String, Option<String>)> {
        let told = self.ask(&["status", "--to", selector, "--format", "json", "--patience", "20s"]);
        let rows = told.stdout.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let text = |value: &Value| value.as_str().map(str::to_owned);
        rows.map(|row| (text(&row["device"]).expect("a name"), text(&row["bundle"]))).collect()
    }
}

/// A rollout that goes on.
pub struct Rollout {
    child: Child,
    events: Receiver<Value>,
    /// Every event so far.
    pub seen: Vec<Value>,
}

impl Rollout {
    fn begin(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("agent-cli starts");
        let (tell, events) = channel();
        let out = child.stdout.take().expect("standard output");
        spawn(move || {
            for line in BufReader::new(out).lines() {
                let line = line.expect("text");
                let event = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
                let _ = tell.send(event);
            }
        });
        Self { child, events, seen: Vec::new() }
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for an event.
    pub fn until(&mut self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        loop {
            match self.events.recv_timeout(LIMIT) {
                Ok(event) => {
                    self.seen.push(event.clone());
                    if is(&event) {
                        return event;
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("no {what} in:\n{}", self.text());
                }
            }
        }
    }

    /// Waits until a device is in a state, or has been.
    pub fn until_state(&mut self, number: usize, state: &str) {
        let device = name(number);
        let is =
            |event: &Value| event["event"] == "device_state" && event["device"] == *device && event["state"] == state;
        if !self.seen.iter().any(is) {
            self.until(&format!("{device} {state}"), is);
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).expect("a living process");
    }

    /// Waits for its end; gives the exit code, none where a signal ended it.
    pub fn ended(&mut self) -> Option<i32> {
        // Its output first: a rollout may go on for longer than a process may take to end.
        while let Ok(event) = self.events.recv_timeout(LIMIT) {
            self.seen.push(event);
        }
        wait(&mut self.child).code()
    }

    /// The events of a kind.
    pub fn events(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.seen.iter().filter(move |event| event["event"] == kind)
    }

    /// What the report says of a device.
    pub fn reported(&self, number: usize) -> Value {
        let report = self.events("report").next().unwrap_or_else(|| panic!("no report in:\n{}", self.text()));
        of_device(&report["devices"], number)
    }

    /// What the plan says of a device.
    pub fn planned(&self, number: usize) -> Value {
        of_device(&self.events("plan").next().expect("a plan")["devices"], number)
    }

    /// All events, as lines.
    pub fn text(&self) -> String {
        self.seen.iter().map(Value::to_string).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Rollout {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn of_device(devices: &Value, number: usize) -> Value {
    let device = name(number);
    let found = devices.as_array().expect("devices").iter().find(|entry| entry["device"] == *device);
    found.unwrap_or_else(|| panic!("no {device} in {devices}")).clone()
}
