//! The programs under test, run to their end.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

/// Only ends a test that hangs; nothing is expected to take this long.
pub const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(5);

/// What a program that ended has said.
#[derive(Debug)]
pub struct Ended {
    /// The exit code; none where a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ended {
    /// Standard output of a program that succeeded.
    pub fn success(self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self.stdout
    }

    /// As `success`, parsed.
    pub fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.success()).expect("JSON on standard output")
    }
}

/// A binary of this workspace: in `RECURVE_BIN_DIR`, or of the same build as the test.
pub fn binary(name: &str) -> PathBuf {
    let dir = std::env::var_os("RECURVE_BIN_DIR").map_or_else(build_dir, PathBuf::from);
    let path = dir.join(name);
    assert!(path.is_file(), "{} is not there: build it first, with the profile of the tests", path.display());
    path
}

/// The folder of this build, `target/release` or `target/debug`.
pub fn build_dir() -> PathBuf {
    let own = std::env::current_exe().expect("the program's own path");
    let folder = own.parent().expect("a program lies in a folder");
    // Tests lie in deps, below the binaries.
    let tests = folder.file_name().is_some_and(|name| name == "deps").then(|| folder.parent()).flatten();
    tests.unwrap_or(folder).to_owned()
}

/// `agent-cli` with no settings from outside.
pub fn agent_cli(args: &[&str]) -> Command {
    let mut command = clean(binary("agent-cli"));
    command.args(args);
    command
}

/// A program without the settings of whoever runs the tests.
pub fn clean(program: PathBuf) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("RECURVE_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a program to its end.
pub fn run(command: &mut Command) -> Ended {
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let read = |mut stream: Box<dyn Read + Send>| {
        spawn(move || {
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).expect("readable output");
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let stdout = read(Box::new(child.stdout.take().expect("standard output")));
    let stderr = read(Box::new(child.stderr.take().expect("standard error")));
    let status = wait(&mut child);
    Ended {
        code: status.code(),
        stdout: stdout.join().expect("standard output"),
        stderr: stderr.join().expect("standard error"),
    }
}

/// Waits until something is so.
pub fn until(is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < LIMIT, "it does not become so");
        sleep(PAUSE);
    }
}

/// Waits until a process ends.
pub fn wait(child: &mut Child) -> ExitStatus {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a child of ours") {
            return status;
        }
        if begun.elapsed() > LIMIT {
            let _ = child.kill();
            panic!("process {} does not end", child.id());
        }
        sleep(PAUSE);
    }
}
