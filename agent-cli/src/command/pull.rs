//! `agent-cli pull`: a bundle comes from an OCI registry.

use std::collections::BTreeSet;
use std::path::PathBuf;

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use recurve_author::{IncomingBlob, LayoutWriter, PackError};
use recurve_bundle::{Bundle, Descriptor, Digest, MEDIA_MANIFEST, Manifest};
use recurve_registry::{Reference, Registry};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::args::RegistryArgs;
use crate::exit::Failure;
use crate::output::{self, Format};

/// Pieces that came and are not written.
const UNWRITTEN: usize = 16;

/// Arguments of `agent-cli pull`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Every blob is hashed as it comes. A pull that broke off goes on where it was, from `.NAME.pulling` beside the
output; the bundle is in its place when all of it is there, its signatures with it.

Examples:
  agent-cli pull oci://registry.local:5000/models/2b-it:1.0
  agent-cli pull oci://registry.local:5000/models/2b-it@sha256:… --out bundles/2b-it"
)]
pub(crate) struct Args {
    #[command(flatten)]
    registry: RegistryArgs,
    /// The bundle's directory to make; the directory around it must exist. Default: the last part of the repository's name
    #[arg(long, value_name = "BUNDLE_DIR")]
    out: Option<PathBuf>,
    /// Replace the bundle at --out, once the new one is complete
    #[arg(long)]
    overwrite: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Where from: oci://HOST[:PORT]/REPOSITORY[:TAG|@DIGEST]
    #[arg(value_name = "REFERENCE")]
    from: Reference,
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let repository = &args.from.repository;
    let name = repository.name().rsplit('/').next().unwrap_or_default();
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from(name));
    let registry = Registry::new(repository.clone(), args.registry.access(repository)?)?;
    let layout = LayoutWriter::resume(&out, args.overwrite)?;
    let (digest, bytes) = registry.manifest(&args.from.version).await?;
    let manifest = Manifest::parse(&bytes).map_err(|error| Failure::Damaged(format!("{}: {error}", args.from)))?;
    let received = blobs(&registry, &layout, &manifest).await?;
    let model = Descriptor {
        media_type: MEDIA_MANIFEST.to_owned(),
        digest,
        size: bytes.len() as u64,
        artifact_type: None,
        annotations: Default::default(),
    };
    layout.add(&model, &bytes)?;
    let (signatures, beside) = signatures(&registry, &layout, &digest).await?;
    let count = signatures.len();
    let bundle: Bundle = layout.finish::<Failure>(&model, signatures, &beside)?;
    match args.format {
        Format::Json => output::json(&Report {
            model: bundle.name(),
            digest: digest.to_string(),
            path: &out,
            bytes: bundle.bytes(),
            received,
            signatures: count,
        }),
        Format::Text => output::line(&format!(
            "{} is at {} ({digest}); {} of {} travelled{}",
            bundle.name(),
            out.display(),
            HumanBytes(received),
            HumanBytes(bundle.bytes()),
            if count > 0 { "; its signatures are with it" } else { "; it has no signatures" },
        )),
    }
}

/// Fetches the blobs that are not there; gives the bytes that came.
async fn blobs(registry: &Registry, layout: &LayoutWriter, manifest: &Manifest) -> Result<u64, Failure> {
    let mut seen = BTreeSet::new();
    let all = std::iter::once(&manifest.config).chain(&manifest.layers);
    let missing: Vec<&Descriptor> = all.filter(|blob| seen.insert(blob.digest) && !layout.has(blob)).collect();
    let left = |blob: &&Descriptor| blob.size.saturating_sub(layout.received(blob));
    let bytes = missing.iter().map(left).fold(0_u64, u64::saturating_add);
    layout.reserve(bytes)?;
    let bar = ProgressBar::new(bytes);
    if let Ok(style) = ProgressStyle::with_template("pulling {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}") {
        bar.set_style(style);
    }
    for blob in missing {
        fetch(registry, layout.blob(blob)?, blob, &bar).await?;
    }
    bar.finish_and_clear();
    Ok(bytes)
}

/// Fetches a blob: the network fills a short queue, the disk empties it.
async fn fetch(
    registry: &Registry,
    mut incoming: IncomingBlob,
    blob: &Descriptor,
    bar: &ProgressBar,
) -> Result<(), Failure> {
    let offset = incoming.received();
    let (bytes, mut unwritten) = mpsc::channel::<bytes::Bytes>(UNWRITTEN);
    let writing = spawn_blocking({
        let bar = bar.clone();
        move || -> Result<(), PackError> {
            while let Some(bytes) = unwritten.blocking_recv() {
                incoming.write(&bytes)?;
                bar.inc(bytes.len() as u64);
            }
            incoming.finish()
        }
    });
    let fetched = registry.download(blob, offset, &bytes).await;
    drop(bytes);
    let written = writing.await.unwrap_or_else(|_| {
        let source = std::io::Error::other("the writer panicked");
        Err(PackError::Io { action: "write", path: blob.digest.to_string().into(), source })
    });
    fetched?;
    written.map_err(|error| match error {
        PackError::WrongBytes { .. } => Failure::Damaged(format!("{}: {error}", registry.repository())),
        error => error.into(),
    })
}

/// Fetches the manifests that carry signatures, and their files.
async fn signatures(
    registry: &Registry,
    layout: &LayoutWriter,
    subject: &Digest,
) -> Result<(Vec<Descriptor>, Vec<Digest>), Failure> {
    let found = registry.signatures(subject).await?;
    let mut beside = Vec::new();
    for descriptor in &found {
        let (referrer, bytes) = registry.referrer(subject, descriptor).await?;
        layout.add(descriptor, &bytes)?;
        for file in std::iter::once(&referrer.config).chain(&referrer.layers) {
            layout.add(file, &registry.referrer_file(file).await?)?;
            beside.push(file.digest);
        }
    }
    Ok((found, beside))
}

/// The JSON output.
#[derive(Debug, Serialize)]
struct Report<'a> {
    model: &'a str,
    digest: String,
    /// The bundle's directory.
    path: &'a std::path::Path,
    /// Of all blobs.
    bytes: u64,
    /// Of those that came now.
    received: u64,
    signatures: usize,
}
