//! The group `deploy`: what a daemon is sent and how fast, beside copying, hashing and syncing the same bytes.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use recurve_bundle::{Bundle, Hasher, file};
use recurve_tests::altered;
use recurve_tests::authority::{Authority, Identity};
use recurve_tests::daemon::{Daemon, Setup};
use recurve_tests::process::agent_cli;
use recurve_tests::world::path;
use serde_json::Value;
use tempfile::TempDir;

use crate::machine::{memory, peak};
use crate::report::{Line, Table, Unit};
use crate::samples::Samples;
use crate::subject::Subject;
use crate::{Bench, Failure, progress};

/// Bytes that the copy reads at once.
const PIECE: usize = 1 << 20;
/// Between two looks at processes that are watched.
const PAUSE: Duration = Duration::from_millis(1);

/// What one deployment took.
struct Deployed {
    /// From the start of the command until the device has all blobs, in seconds.
    upload: f64,
    /// Until it serves the model, in seconds.
    whole: f64,
    /// What the command printed.
    told: Value,
    /// Greatest resident memory of the command, in bytes.
    command: f64,
    /// Anonymous memory of the daemon while blobs came, beyond that before, in bytes.
    daemon: f64,
}

/// How `agent-cli` reaches the daemon.
#[derive(Clone, Copy)]
enum Link {
    Unix,
    /// Loopback, with certificates at both ends.
    Tls,
}

/// What deployments over one link took.
#[derive(Default)]
struct Taken {
    copy: Samples,
    upload: Samples,
    whole: Samples,
    command: Samples,
    daemon: Samples,
}

/// A certificate authority, and who is known to it.
struct Known {
    authority: Authority,
    gateway: Identity,
    operator: Identity,
}

const LINKS: [Link; 2] = [Link::Unix, Link::Tls];

/// The group `deploy`.
///
/// # Errors
/// A deployment failed, or the disk did.
pub(crate) fn measure(bench: &mut Bench, subject: &Subject) -> Result<Vec<Table>, Failure> {
    progress(&format!("{}: deploy", subject.name()));
    // On the bundle's own disk: what is compared reads and writes the same one.
    let beside = subject.bundle.dir().canonicalize()?;
    let beside = beside.parent().ok_or("the bundle is the root of the file system")?;
    let dir = tempfile::tempdir_in(beside)?;
    let authority = Authority::new(dir.path(), "fleet");
    let (gateway, operator) = (authority.identity("gateway", "127.0.0.1"), authority.identity("operator", "operator"));
    let known = Known { authority, gateway, operator };
    let mut taken = LINKS.map(|link| (link, Taken::default()));
    for round in 0..bench.effort.deploys {
        for (link, taken) in &mut taken {
            let state = tempfile::tempdir_in(&dir)?;
            let copied = || copied(&subject.bundle, dir.path());
            // Whoever goes first changes from round to round.
            let first = round.is_multiple_of(2).then(copied).transpose()?;
            let device = link.device(state.path(), bench.threads, &known);
            rustix::fs::sync();
            let deployed = deploy(&device, subject.bundle.dir(), &known)?;
            drop((device, state));
            taken.copy.push(first.map_or_else(copied, Ok)?);
            taken.upload.push(deployed.upload);
            taken.whole.push(deployed.whole);
            taken.command.push(deployed.command);
            taken.daemon.push(deployed.daemon);
        }
    }
    let gigabytes = subject.bundle.bytes() as f64 / 1e9;
    let mut table = Table::new(format!("deployment to an empty daemon, {:.1} MB", gigabytes * 1e3)).note(
        "Copy: every blob is read, hashed, written and synced. Upload: from the start of `agent-cli deploy` until the daemon has \
         every blob. Memory: the whole of the command, and what the daemon has beyond its idle state while blobs come.",
    );
    for (link, Taken { copy, upload, whole, command, daemon }) in taken {
        table.push(
            Line::new()
                .of("over", link.name())
                .figure("copy", Unit::GigabytesPerSecond, &copy.map(|seconds| gigabytes / seconds))
                .figure("upload", Unit::GigabytesPerSecond, &upload.map(|seconds| gigabytes / seconds))
                .figure("upload, of the copy", Unit::Percent, &upload.pair(&copy, |upload, copy| 100.0 * copy / upload))
                .figure("until it serves", Unit::Milliseconds, &whole.map(|seconds| seconds * 1e3))
                .figure("command", Unit::Megabytes, &command.map(|bytes| bytes / 1e6))
                .figure("daemon", Unit::Megabytes, &daemon.map(|bytes| bytes / 1e6)),
        );
    }
    Ok(vec![table, one_layer(bench, subject, &dir, &known)?])
}

impl Link {
    fn name(self) -> &'static str {
        match self {
            Link::Unix => "Unix socket",
            Link::Tls => "loopback, mutual TLS",
        }
    }

    /// A daemon that keeps its models in this folder.
    fn device(self, state: &Path, threads: usize, known: &Known) -> Daemon {
        let device = Setup::managed(state).set("engine.threads", threads);
        match self {
            Link::Unix => device,
            Link::Tls => device
                .tcp()
                .set("tls.certificate", path(&known.gateway.certificate))
                .set("tls.key", path(&known.gateway.key))
                .set("tls.clients", path(&known.authority.certificate)),
        }
        .start()
    }
}

/// Seconds that it takes to copy, hash and sync every blob.
fn copied(bundle: &Bundle, dir: &Path) -> Result<f64, Failure> {
    let copy = tempfile::tempdir_in(dir)?;
    let mut piece = vec![0; PIECE];
    rustix::fs::sync();
    let begun = Instant::now();
    for blob in fs::read_dir(bundle.dir().join("blobs/sha256"))? {
        let blob = blob?;
        let (mut from, mut to) = (File::open(blob.path())?, File::create(copy.path().join(blob.file_name()))?);
        let mut hasher = Hasher::default();
        loop {
            let read = from.read(&mut piece)?;
            if read == 0 {
                break;
            }
            hasher.update(&piece[..read]);
            to.write_all(&piece[..read])?;
        }
        to.sync_all()?;
        if hasher.finish().hex() != blob.file_name().to_string_lossy() {
            return Err(format!("{} is damaged", blob.path().display()).into());
        }
    }
    Ok(begun.elapsed().as_secs_f64())
}

/// Deploys a bundle by `agent-cli`, and watches both sides.
fn deploy(device: &Daemon, bundle: &Path, known: &Known) -> Result<Deployed, Failure> {
    let idle = memory(device.pid())?.anonymous;
    let before = device.operations("Activate").len();
    let begun = Instant::now();
    let mut cli = agent_cli(&["deploy", path(bundle), "--on", &device.address, "--format", "json"])
        .args(["--ca", path(&known.authority.certificate)])
        .args(["--certificate", path(&known.operator.certificate), "--key", path(&known.operator.key)])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let (mut command, mut most) = (0.0_f64, idle);
    while device.operations("Activate").len() == before && cli.try_wait()?.is_none() {
        command = peak(cli.id()).unwrap_or(command);
        most = most.max(memory(device.pid())?.anonymous);
        sleep(PAUSE);
    }
    let upload = begun.elapsed().as_secs_f64();
    let told = printed(cli)?;
    Ok(Deployed { upload, whole: begun.elapsed().as_secs_f64(), told, command, daemon: most - idle })
}

/// What a command printed that succeeded.
fn printed(cli: Child) -> Result<Value, Failure> {
    let ended = cli.wait_with_output()?;
    if !ended.status.success() {
        return Err(format!("agent-cli deploy failed: {}", ended.status).into());
    }
    Ok(serde_json::from_slice(&ended.stdout)?)
}

/// Deploys the bundle again after the weights of one layer changed: what travels, and how long it takes.
fn one_layer(bench: &Bench, subject: &Subject, dir: &TempDir, known: &Known) -> Result<Table, Failure> {
    let state = tempfile::tempdir_in(dir)?;
    let device = Link::Tls.device(state.path(), bench.threads, known);
    deploy(&device, subject.bundle.dir(), known)?;
    let changed = altered::copy(subject.bundle.dir(), &dir.path().join("changed"));
    let change = |filepath: &str, change: fn(&mut Vec<u8>)| -> Result<(), Failure> {
        if let Some(descriptor) = subject.bundle.file(filepath) {
            let mut bytes = fs::read(subject.bundle.blob(&descriptor.digest))?;
            change(&mut bytes);
            altered::replace(&changed, filepath, &bytes);
        }
        Ok(())
    };
    // The lowest bit of the first value, and of the last logit.
    change(largest_layer(&subject.bundle)?, |bytes| bytes.iter_mut().take(1).for_each(|byte| *byte ^= 1))?;
    change(file::GOLDEN, |bytes| bytes.iter_mut().rev().skip(3).take(1).for_each(|byte| *byte ^= 1))?;
    for text in [file::QUANTIZATION, file::CARD] {
        change(text, |bytes| bytes.push(b'\n'))?;
    }
    let deployed = deploy(&device, &changed, known)?;
    let number = |key: &str| deployed.told[key].as_f64().ok_or_else(|| format!("agent-cli deploy printed no {key}"));
    let mut table = Table::new("the same again, after the weights of one layer changed").note(format!(
        "Of {} layers the largest, with the golden test, the report of the quantization and the card, which tell of it.",
        subject.bundle.info().layers
    ));
    table.push(
        Line::new()
            .single("whole", Unit::Megabytes, number("bytes")? / 1e6)
            .single("sent", Unit::Megabytes, number("sent")? / 1e6)
            .single("of the whole", Unit::Percent, 100.0 * number("sent")? / number("bytes")?)
            .single("until it serves", Unit::Milliseconds, deployed.whole * 1e3),
    );
    Ok(table)
}

/// The path of the largest shard of a layer.
fn largest_layer(bundle: &Bundle) -> Result<&str, Failure> {
    let layers = bundle.manifest().layers.iter().filter_map(|layer| Some((layer.filepath()?, layer.size)));
    let shards = layers.filter(|(filepath, _)| filepath.starts_with("weights/layer-"));
    let largest = shards.max_by_key(|(_, size)| *size).map(|(filepath, _)| filepath);
    largest.ok_or_else(|| "the bundle has no shard of a layer".into())
}
