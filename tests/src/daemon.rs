//! Real `recurved` processes, and what they log.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{JoinHandle, spawn};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::manager::{Manager, Sockets};
use crate::netns::Namespace;
use crate::process::{self, LIMIT, binary, clean};

/// How a daemon is to be started.
#[derive(Debug)]
pub struct Setup {
    bundle: Option<PathBuf>,
    settings: Vec<(String, String)>,
    allowed: Vec<&'static str>,
    unix: bool,
    listen: Vec<String>,
    port: u16,
    within: Option<String>,
    config: PathBuf,
    sockets: Option<[OwnedFd; 2]>,
}

/// A running daemon. When it is dropped the process is ended, and its log is checked.
#[derive(Debug)]
pub struct Daemon {
    /// Where it listens, as `agent-cli --on` takes it.
    pub address: String,
    process: Child,
    log: Arc<Log>,
    reader: Option<JoinHandle<()>>,
    allowed: Vec<&'static str>,
    _socket: Option<TempDir>,
}

/// The lines of a log, as they come.
#[derive(Debug, Default)]
struct Log {
    lines: Mutex<(Vec<Value>, bool)>,
    news: Condvar,
}

impl Setup {
    /// Serve this bundle.
    pub fn new(bundle: &Path) -> Self {
        Self {
            bundle: Some(bundle.to_owned()),
            settings: Vec::new(),
            allowed: Vec::new(),
            unix: false,
            listen: Vec::new(),
            port: 0,
            within: None,
            config: PathBuf::from("/dev/null"),
            sockets: None,
        }
    }

    /// Serve the models that are deployed, kept in this folder, to whoever comes over a Unix socket.
    pub fn managed(state: &Path) -> Self {
        let managed = Self { bundle: None, unix: true, ..Self::new(Path::new("")) };
        managed.set("state_dir", state.display())
    }

    /// Sets a key of the configuration, such as `engine.slots`.
    pub fn set(mut self, key: &str, value: impl ToString) -> Self {
        self.settings.push((format!("RECURVE_{}", key.to_uppercase().replace('.', "__")), value.to_string()));
        self
    }

    /// Sets a variable of the environment that is no key of the configuration.
    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.settings.push((name.to_owned(), value.to_string()));
        self
    }

    /// Listen on a Unix socket instead of a port.
    pub fn unix(mut self) -> Self {
        self.unix = true;
        self
    }

    /// Listen on a port.
    pub fn tcp(mut self) -> Self {
        self.unix = false;
        self
    }

    /// Listen on these addresses instead.
    pub fn listen(mut self, addresses: &[&str]) -> Self {
        self.listen = addresses.iter().map(|address| (*address).to_owned()).collect();
        self
    }

    /// Listen on this port.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self.tcp()
    }

    /// Read this configuration file.
    pub fn config(mut self, file: &Path) -> Self {
        self.config = file.to_owned();
        self
    }

    /// Tell this one how the daemon is.
    pub fn tell(self, manager: &Manager) -> Self {
        self.env("NOTIFY_SOCKET", manager.path().display())
    }

    /// Serve these sockets instead of addresses of its own.
    pub fn sockets(mut self, sockets: &Sockets) -> Self {
        self.sockets = Some(sockets.handed_over());
        self
    }

    /// Run in this network namespace.
    pub fn within(mut self, namespace: &Namespace) -> Self {
        self.within = Some(namespace.name.clone());
        self.tcp()
    }

    /// Warnings and errors that contain this are expected.
    pub fn allow(mut self, part: &'static str) -> Self {
        self.allowed.push(part);
        self
    }

    /// Starts the process and waits until it serves.
    pub fn start(self) -> Daemon {
        let mut daemon = self.spawn();
        let ready = daemon.wait_for("ready");
        let listen = ready["listen"].as_str().expect("the addresses");
        daemon.address = listen.to_owned();
        daemon
    }

    /// Starts the process and waits until it serves; none where it ends before.
    pub fn attempt(self) -> Option<Daemon> {
        let mut daemon = self.spawn();
        let ready = daemon.look_for(|fields| fields["message"] == "ready")?;
        ready["listen"].as_str().expect("the addresses").clone_into(&mut daemon.address);
        Some(daemon)
    }

    /// Starts the process and waits only until it listens.
    pub fn start_loading(self) -> Daemon {
        let mut daemon = self.spawn();
        let loading = daemon.wait_for("loading");
        daemon.address = loading["listen"].as_str().expect("the addresses").to_owned();
        daemon
    }

    fn spawn(self) -> Daemon {
        let socket = self.unix.then(|| tempfile::tempdir().expect("a temporary folder"));
        let listen = socket.as_ref().map_or_else(
            || format!("127.0.0.1:{}", self.port),
            |dir| format!("unix:{}", dir.path().join("recurved.sock").display()),
        );
        let listen = match (&self.sockets, self.listen.is_empty()) {
            (Some(_), _) => Vec::new(),
            (None, true) => vec![listen],
            (None, false) => self.listen,
        };
        let mut program = match (&self.within, &self.sockets) {
            (None, None) => clean(binary("recurved")),
            (None, Some(_)) => {
                // As systemd does it: they are numbers 3 and 4, and the process is the same.
                let mut shell = clean(PathBuf::from("sh"));
                shell.args([
                    "-c",
                    "exec 3<&0 4<&1 </dev/null >&2; export LISTEN_PID=$$ LISTEN_FDS=2; exec \"$0\" \"$@\"",
                ]);
                shell.arg(binary("recurved"));
                shell
            }
            (Some(namespace), _) => {
                // It becomes the daemon: the process is the same.
                let mut ip = clean(PathBuf::from("ip"));
                ip.args(["netns", "exec", namespace]).arg(binary("recurved"));
                ip
            }
        };
        let [input, output] = match self.sockets {
            Some(sockets) => sockets.map(Stdio::from),
            None => [Stdio::null(), Stdio::inherit()],
        };
        let mut process = program
            // Not the settings of a daemon that is installed here.
            .arg("--config")
            .arg(&self.config)
            .args(listen.iter().flat_map(|address| ["--listen", address]))
            .args(self.bundle.iter().flat_map(|bundle| [OsStr::new("--bundle"), bundle.as_os_str()]))
            .env("RECURVE_LOG__FORMAT", "json")
            .envs(self.settings)
            .stdin(input)
            .stdout(output)
            .stderr(Stdio::piped())
            .spawn()
            .expect("recurved starts");
        let log = Arc::new(Log::default());
        let stderr = process.stderr.take().expect("its log");
        let reader = spawn({
            let log = Arc::clone(&log);
            move || log.follow(stderr)
        });
        Daemon { address: listen.join(","), process, log, reader: Some(reader), allowed: self.allowed, _socket: socket }
    }
}

impl Log {
    fn follow(&self, stderr: ChildStderr) {
        for line in BufReader::new(stderr).lines() {
            let line = line.unwrap_or_else(|error| format!("not text: {error}"));
            let entry = serde_json::from_str(&line).unwrap_or(Value::String(line));
            self.lines.lock().expect("the log").0.push(entry);
            self.news.notify_all();
        }
        self.lines.lock().expect("the log").1 = true;
        self.news.notify_all();
    }
}

/// The fields of a line, whichever depth the format gives them.
fn fields(entry: &Value) -> &Value {
    entry.get("fields").unwrap_or(entry)
}

impl Daemon {
    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The bare port.
    pub fn port(&self) -> u16 {
        self.address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a TCP address")
    }

    /// Waits for a line with this message and gives its fields.
    pub fn wait_for(&self, message: &str) -> Value {
        self.wait_until(message, |fields| fields["message"] == message)
    }

    /// Waits for the line that tells of a finished request with this outcome.
    pub fn wait_for_outcome(&self, outcome: &str) -> Value {
        self.wait_until(outcome, |fields| fields["message"] == "request" && fields["outcome"] == outcome)
    }

    /// The lines of all requests that have ended.
    pub fn requests(&self) -> Vec<Value> {
        self.lines("request")
    }

    /// The lines of all operations of this method.
    pub fn operations(&self, method: &str) -> Vec<Value> {
        self.lines("operation").into_iter().filter(|fields| fields["method"] == method).collect()
    }

    /// Every line so far with this message.
    pub fn lines(&self, message: &str) -> Vec<Value> {
        let lines = self.log.lines.lock().expect("the log");
        lines.0.iter().map(fields).filter(|fields| fields["message"] == message).cloned().collect()
    }

    /// Whether any line so far holds this.
    pub fn has_logged(&self, part: &str) -> bool {
        self.log.lines.lock().expect("the log").0.iter().any(|entry| entry.to_string().contains(part))
    }

    fn wait_until(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        self.look_for(is).unwrap_or_else(|| {
            let lines = self.log.lines.lock().expect("the log").0.clone();
            panic!(
                "no line of `{what}` in the log:\n{}",
                lines.iter().map(Value::to_string).collect::<Vec<_>>().join("\n")
            )
        })
    }

    /// Waits for such a line; none where the process ends before, or does not write one.
    fn look_for(&self, is: impl Fn(&Value) -> bool) -> Option<Value> {
        let lines = self.log.lines.lock().expect("the log");
        let wanted = |lines: &(Vec<Value>, bool)| lines.0.iter().map(fields).any(&is) || lines.1;
        let (lines, _) = self.log.news.wait_timeout_while(lines, LIMIT, |lines| !wanted(lines)).expect("the log");
        lines.0.iter().map(fields).find(|fields| is(fields)).cloned()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).expect("a living process");
    }

    /// Asks it to stop.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Waits until it has ended by itself; its log is checked.
    pub fn ended(mut self) -> ExitStatus {
        process::wait(&mut self.process)
    }

    /// Asks it to stop and waits until it did; its log is checked.
    pub fn stop(self) -> ExitStatus {
        self.terminate();
        self.ended()
    }

    fn check_log(&self) {
        let lines = self.log.lines.lock().expect("the log");
        let unexpected: Vec<String> =
            lines.0.iter().filter(|entry| !self.expected(entry)).map(Value::to_string).collect();
        assert!(unexpected.is_empty(), "the daemon logged:\n{}", unexpected.join("\n"));
    }

    /// A line that is not of our log, such as a panic's, has no level and is never expected.
    fn expected(&self, entry: &Value) -> bool {
        let quiet = entry["level"].as_str().is_some_and(|level| ["INFO", "DEBUG", "TRACE"].contains(&level));
        let text = entry.to_string();
        !text.contains("panicked") && (quiet || self.allowed.iter().any(|part| text.contains(part)))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        if !std::thread::panicking() {
            self.check_log();
        }
    }
}
