//! A real Prometheus with the settings of `deploy/observability/`, and what it reads and is asked.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::spawn;

use serde_json::Value;
use tempfile::TempDir;

use crate::client::soon;
use crate::collector::free_port;
use crate::process::LIMIT;
use crate::reference::repository;

/// A running Prometheus. Dropped, it ends.
#[derive(Debug)]
pub struct Prometheus {
    address: String,
    client: reqwest::Client,
    process: Child,
    _dir: TempDir,
}

/// Whether it and its tool are installed; says it where they are not.
pub fn installed() -> bool {
    let missing =
        ["prometheus", "promtool"].into_iter().find(|name| Command::new(name).arg("--version").output().is_err());
    if let Some(name) = missing {
        println!("skipped: {name} is not installed");
    }
    missing.is_none()
}

/// A file of `deploy/observability/`.
pub fn file(name: &str) -> PathBuf {
    repository().join("deploy/observability").join(name)
}

impl Prometheus {
    /// Reads these devices, by name and address, every second, and evaluates the alerts as often.
    pub async fn start(devices: &[(&str, String)]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let config = read(&file("prometheus.yml")).replace("_interval: 15s", "_interval: 1s");
        assert_eq!(config.matches("_interval: 1s").count(), 2, "the intervals were found");
        let mut list = String::new();
        for (device, address) in devices {
            writeln!(list, "- targets: ['{address}']\n  labels: {{device: '{device}', site: here}}").expect("text");
        }
        for (name, text) in
            [("prometheus.yml", config), ("gateways.yml", list), ("alerts.yml", read(&file("alerts.yml")))]
        {
            std::fs::write(dir.path().join(name), text).expect("a file");
        }
        let address = format!("127.0.0.1:{}", free_port());
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", dir.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus starts");
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let prometheus = Self { address, client, process, _dir: dir };
        let begun = std::time::Instant::now();
        while !prometheus.is_ready().await {
            assert!(begun.elapsed() < LIMIT, "Prometheus does not become ready");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        prometheus
    }

    async fn is_ready(&self) -> bool {
        let asked = self.client.get(format!("http://{}/-/ready", self.address)).send().await;
        asked.is_ok_and(|answer| answer.status().is_success())
    }

    /// The series that an expression gives now.
    pub async fn query(&self, expression: &str) -> Vec<Value> {
        let answer = self.get("query", &[("query", expression)]).await;
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        answer["data"]["result"].as_array().unwrap_or_else(|| panic!("{expression}: {answer}")).clone()
    }

    /// The alerts, by name, with their expressions.
    pub async fn alerts(&self) -> Vec<(String, String)> {
        let answer = self.get("rules", &[]).await;
        let groups = answer["data"]["groups"].as_array().expect("groups of rules");
        let rules = groups.iter().flat_map(|group| group["rules"].as_array().expect("rules"));
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        rules.map(|rule| (text(&rule["name"]), text(&rule["query"]))).collect()
    }

    async fn get(&self, what: &str, parameters: &[(&str, &str)]) -> Value {
        let request = self.client.get(format!("http://{}/api/v1/{what}", self.address)).query(parameters);
        let body = soon(async { request.send().await.expect("an answer").text().await.expect("text") }).await;
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"))
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Shows a file as `/metrics` at a port of its own, which it gives, until the test's process ends.
pub fn shown(file: &Path) -> u16 {
    let text = read(file);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    spawn(move || {
        for stream in listener.incoming().flatten() {
            // Whoever goes away has no answer.
            let _ = answer(stream, &text);
        }
    });
    port
}

fn answer(mut stream: TcpStream, text: &str) -> std::io::Result<()> {
    let (mut request, mut bytes) = (Vec::new(), [0; 1024]);
    while !request.windows(4).any(|four| four == b"\r\n\r\n") {
        match stream.read(&mut bytes)? {
            0 => return Ok(()),
            count => request.extend_from_slice(&bytes[..count]),
        }
    }
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\nconnection: close";
    write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{text}", text.len())
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}
