//! Networks of a test's own: network namespaces that are joined by a cable.

use std::process::Command;

/// A namespace with one network interface, `cable0`. Dropped, it is removed.
#[derive(Debug)]
pub struct Namespace {
    /// What `ip netns exec` takes.
    pub name: String,
}

impl Namespace {
    /// A new one; none, with a line that says why, where that needs more rights or tools than there are.
    pub fn new(name: &str) -> Option<Self> {
        let name = format!("recurve-{name}-{}", std::process::id());
        match Command::new("ip").args(["netns", "add", &name]).output() {
            Ok(made) if made.status.success() => Some(Self { name }),
            Ok(refused) => {
                let words = String::from_utf8_lossy(&refused.stderr);
                println!("skipped: network namespaces cannot be made here (they need root): {}", words.trim());
                None
            }
            Err(error) => {
                println!("skipped: iproute2 is not installed ({error})");
                None
            }
        }
    }

    /// Joins both by a cable. Each has the address that is given for it, such as `192.0.2.1/24`.
    pub fn join(&self, address: &str, other: &Self, others: &str) {
        ip(&[
            "link",
            "add",
            "cable0",
            "netns",
            &self.name,
            "type",
            "veth",
            "peer",
            "name",
            "cable0",
            "netns",
            &other.name,
        ]);
        for (side, address) in [(self, address), (other, others)] {
            ip(&["-n", &side.name, "address", "add", address, "dev", "cable0"]);
            ip(&["-n", &side.name, "link", "set", "lo", "up"]);
            ip(&["-n", &side.name, "link", "set", "cable0", "up"]);
        }
    }

    /// The program and its arguments, to be run there.
    pub fn run(&self, command: &Command) -> Command {
        let mut within = Command::new("ip");
        within.args(["netns", "exec", &self.name]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => within.env(name, value),
                None => within.env_remove(name),
            };
        }
        within
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).output();
    }
}

fn ip(args: &[&str]) {
    let done = Command::new("ip").args(args).output().expect("iproute2 was there a moment ago");
    assert!(done.status.success(), "ip {}: {}", args.join(" "), String::from_utf8_lossy(&done.stderr));
}
