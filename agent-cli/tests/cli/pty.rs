//! A terminal for the program: what it writes there, what is typed, and in which modes it leaves it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, Winsize, tcgetattr, tcsetwinsize};

const PATIENCE: Duration = Duration::from_secs(60);

/// A terminal, and the program at it.
pub(crate) struct Pty {
    master: File,
    slave: OwnedFd,
    written: Arc<Mutex<Vec<u8>>>,
    before: String,
    pub(crate) child: Child,
}

/// All that the modes of a terminal are.
fn modes(termios: &Termios) -> String {
    format!("{termios:?}")
}

impl Pty {
    /// Starts the program at a new terminal of this kind, which is its controlling terminal.
    pub(crate) fn start(args: &[&str], term: &str) -> Self {
        Self::start_with(args, |command| {
            command.env("TERM", term);
        })
    }

    pub(crate) fn start_with(args: &[&str], change: impl FnOnce(&mut Command)) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let open = || File::options().read(true).write(true).open(&name).unwrap();
        let slave = OwnedFd::from(open());
        tcsetwinsize(&slave, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let before = modes(&tcgetattr(&slave).unwrap());
        // In a session of its own, so that keys such as Ctrl-Z concern it alone.
        let mut command = Command::new("setsid");
        command.args(["--ctty", env!("CARGO_BIN_EXE_agent-cli")]).args(args);
        command.env_remove("RECURVE_ON").env_remove("NO_COLOR").current_dir(std::env::temp_dir());
        command.stdin(open()).stdout(open()).stderr(open());
        change(&mut command);
        let child = command.spawn().unwrap();
        let written = Arc::new(Mutex::new(Vec::new()));
        let mut reader = File::from(master.try_clone().unwrap());
        std::thread::spawn({
            let written = Arc::clone(&written);
            move || {
                let mut bytes = [0; 4096];
                while let Ok(length @ 1..) = reader.read(&mut bytes) {
                    written.lock().unwrap().extend_from_slice(&bytes[..length]);
                }
            }
        });
        Self { master: File::from(master), slave, written, before, child }
    }

    /// What was written so far.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.written.lock().unwrap()).into_owned()
    }

    /// Waits until something holds.
    pub(crate) fn wait_for(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !holds(self) {
            assert!(begun.elapsed() < PATIENCE, "waited for {what}: {:?}", self.text());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until this was written so many times.
    pub(crate) fn wait_for_text(&mut self, text: &str, times: usize) {
        self.wait_for(text, |pty| pty.text().matches(text).count() >= times);
    }

    /// Types.
    pub(crate) fn type_in(&mut self, bytes: &[u8]) {
        self.master.write_all(bytes).unwrap();
    }

    pub(crate) fn send(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Whether keys reach the program one by one.
    pub(crate) fn is_raw(&self) -> bool {
        !tcgetattr(&self.slave).unwrap().local_modes.contains(LocalModes::ICANON)
    }

    /// Whether the terminal is in the modes that it had before the program began.
    pub(crate) fn is_as_before(&self) -> bool {
        modes(&tcgetattr(&self.slave).unwrap()) == self.before
    }

    /// Whether the program stands still until it is continued.
    pub(crate) fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        stat.rsplit(") ").next().unwrap().starts_with('T')
    }

    /// Waits until the program ended.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "it does not end: {:?}", self.text());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
