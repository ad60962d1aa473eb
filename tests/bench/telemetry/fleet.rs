//! A fleet of real daemons with an hour of history each: gathering all of it, and watching it live.

use std::fs::read_to_string;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use recurve_tests::fleet::Fleet;
use recurve_tests::process::binary;
use recurve_tests::world::path;
use rustix::process::{Pid, Signal, kill_process};

use super::minutes::Minutes;
use crate::machine::peak;
use crate::report::{Line, Table, Unit};
use crate::subject::Subject;
use crate::{Bench, Failure};

const HOUR: u64 = 60;
/// Between two looks at a process.
const PAUSE: Duration = Duration::from_millis(2);
/// Ticks of a second, in which the system counts processor time.
const TICKS: f64 = 100.0;

/// Gathers and watches.
pub(super) fn measure(bench: &Bench, _: &Subject) -> Result<Table, Failure> {
    let devices = bench.effort.devices;
    let dir = tempfile::tempdir()?;
    let mut minutes = Minutes::new()?;
    let now = SystemTime::now();
    for device in 1..=devices {
        minutes.history(&dir.path().join(format!("gw-{device}/telemetry")), HOUR, now)?.close()?;
    }
    let fleet = Fleet::with_states(devices, |device| Some(dir.path().join(format!("gw-{device}"))));
    let store = dir.path().join("gathered.db");
    let mut gather =
        fleet.command(&["telemetry", "--to", "all", "--since", "2h", "--store", path(&store), "--format", "json"]);
    let begun = Instant::now();
    let mut gathering = gather.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    let mut memory: f64 = 0.0;
    let ended = loop {
        memory = memory.max(peak(gathering.id()).unwrap_or_default());
        match gathering.try_wait()? {
            Some(ended) => break ended,
            None => std::thread::sleep(PAUSE),
        }
    };
    let seconds = begun.elapsed().as_secs_f64();
    if !ended.success() {
        return Err("gathering failed".into());
    }
    let share = watch(&fleet, bench.effort.watch)?;
    let mut table = Table::new(format!("{devices} daemons on loopback, over mutual TLS, with an hour of history each"))
        .note("`agent-cli telemetry` reads all of it into its store and prints it as JSON; `agent-cli top` draws once a second.");
    table.push(
        Line::new()
            .single("gathering", Unit::Milliseconds, seconds * 1e3)
            .single("its memory", Unit::Megabytes, memory / 1e6)
            .single("top, of a core", Unit::Percent, 100.0 * share),
    );
    Ok(table)
}

/// The share of a core that `agent-cli top` takes in a terminal of 200 columns.
fn watch(fleet: &Fleet, time: Duration) -> Result<f64, Failure> {
    let command = format!(
        "stty cols 200 rows 60; exec {} top --to all --fleet {}",
        path(&binary("agent-cli")),
        path(&fleet.inventory())
    );
    let mut terminal = Command::new("script")
        .args(["-qefc", &command, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    // It connects to everything first.
    std::thread::sleep(Duration::from_secs(3));
    let children = read_to_string(format!("/proc/{0}/task/{0}/children", terminal.id()))?;
    let top: i32 = children.split_whitespace().next().ok_or("the terminal runs nothing")?.parse()?;
    let before = processor(top)?;
    std::thread::sleep(time);
    let took = processor(top)? - before;
    if let Some(pid) = Pid::from_raw(top) {
        kill_process(pid, Signal::TERM)?;
    }
    terminal.wait()?;
    Ok(took / time.as_secs_f64())
}

/// Seconds of processor that a process has taken.
fn processor(pid: i32) -> Result<f64, Failure> {
    let stat = read_to_string(format!("/proc/{pid}/stat"))?;
    // Behind the name, which may hold spaces: user and system time are the 12th and 13th.
    let rest = stat.rsplit_once(')').ok_or("no such process")?.1;
    let field =
        |at: usize| rest.split_whitespace().nth(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or_default();
    Ok((field(11) + field(12)) / TICKS)
}
