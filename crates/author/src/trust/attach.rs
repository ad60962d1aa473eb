//! Signatures inside a bundle: a manifest beside the model's that refers to it, with a layer for each metadata file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::Path;

use recurve_bundle::{
    ANNOTATION_TITLE, ARTIFACT_SIGNATURES, ARTIFACT_TYPE, Bundle, Descriptor, Digest, Index, MEDIA_EMPTY,
    MEDIA_MANIFEST, MEDIA_TUF, Referrer,
};
use serde::Serialize;
use tempfile::NamedTempFile;

use super::TrustError;
use super::metadata::{Files, parse};
use crate::pack::PackError;
use crate::place::sync_directory;

/// Puts signatures into a bundle, in the place of those that it had: first the blobs, then the index that names them, then
/// the old blobs go. Gives the digest of the manifest that carries them.
///
/// # Errors
/// The bundle is not one, or cannot be written.
pub fn attach(bundle: &Bundle, files: &Files) -> Result<Digest, TrustError> {
    let dir = bundle.dir();
    let old: Vec<Descriptor> = signatures(bundle).cloned().collect();
    let config = store(bundle, b"{}", MEDIA_EMPTY)?;
    let mut layers = Vec::new();
    for (name, bytes) in files {
        let annotations = BTreeMap::from([(ANNOTATION_TITLE.to_owned(), name.clone())]);
        layers.push(Descriptor { annotations, ..store(bundle, bytes, MEDIA_TUF)? });
    }
    let referrer = Referrer {
        schema_version: 2,
        media_type: MEDIA_MANIFEST.to_owned(),
        artifact_type: ARTIFACT_SIGNATURES.to_owned(),
        config,
        layers,
        subject: bundle.descriptor(),
        annotations: BTreeMap::new(),
    };
    let stored = store(bundle, &json(&referrer)?, MEDIA_MANIFEST)?;
    sync_directory(&dir.join("blobs/sha256"))?;
    let path = dir.join("index.json");
    let bytes = fs::read(&path).map_err(PackError::io("read", &path))?;
    let mut index: Index = parse(&bytes, &path)?;
    index.manifests.retain(|found| found.artifact_type.as_deref() != Some(ARTIFACT_SIGNATURES));
    for model in index.manifests.iter_mut().filter(|found| found.digest == *bundle.digest()) {
        // A manifest that no longer stands alone has to say what it is.
        model.artifact_type = Some(ARTIFACT_TYPE.to_owned());
    }
    index.manifests.push(Descriptor { artifact_type: Some(ARTIFACT_SIGNATURES.to_owned()), ..stored.clone() });
    place(&path, &json(&index)?)?;
    sync_directory(dir)?;
    remove(bundle, &old)?;
    Ok(stored.digest)
}

/// The signatures that a bundle carries; none where it has none.
///
/// # Errors
/// They are damaged.
pub fn attached(bundle: &Bundle) -> Result<Option<Files>, TrustError> {
    let Some(descriptor) = signatures(bundle).next() else { return Ok(None) };
    let referrer = bundle.referrer(descriptor)?;
    let file = |layer: &Descriptor| {
        let name = layer.annotations.get(ANNOTATION_TITLE).cloned().unwrap_or_default();
        Ok((name, bundle.referrer_file(layer)?))
    };
    referrer.layers.iter().map(file).collect::<Result<Files, TrustError>>().map(Some)
}

fn signatures(bundle: &Bundle) -> impl Iterator<Item = &Descriptor> {
    bundle.referrers().iter().filter(|found| found.artifact_type.as_deref() == Some(ARTIFACT_SIGNATURES))
}

/// Removes blobs of old signatures that nothing of the bundle names any more.
fn remove(bundle: &Bundle, old: &[Descriptor]) -> Result<(), TrustError> {
    let opened = Bundle::open(bundle.dir())?;
    let mut named: BTreeSet<Digest> = BTreeSet::from([*opened.digest(), opened.manifest().config.digest]);
    named.extend(opened.manifest().layers.iter().map(|layer| layer.digest));
    for descriptor in opened.referrers() {
        let referrer = opened.referrer(descriptor)?;
        named.extend([descriptor.digest, referrer.config.digest]);
        named.extend(referrer.layers.iter().map(|layer| layer.digest));
    }
    for descriptor in old {
        // What cannot be read is left: nothing is deleted on doubt.
        let layers = bundle.referrer(descriptor).map(|old| old.layers).unwrap_or_default();
        for digest in layers.iter().map(|layer| layer.digest).chain([descriptor.digest]) {
            if !named.contains(&digest) {
                let path = bundle.blob(&digest);
                fs::remove_file(&path).map_err(PackError::io("remove", &path))?;
            }
        }
    }
    Ok(())
}

fn store(bundle: &Bundle, bytes: &[u8], media_type: &str) -> Result<Descriptor, TrustError> {
    let digest = Digest::of(bytes);
    place(&bundle.blob(&digest), bytes)?;
    Ok(Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size: bytes.len() as u64,
        artifact_type: None,
        annotations: BTreeMap::new(),
    })
}

/// Writes a file beside its place, syncs it, and renames it there.
fn place(path: &Path, bytes: &[u8]) -> Result<(), TrustError> {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = path.parent().unwrap_or(Path::new("."));
    // For daemons that run as other users; the umask still applies.
    let permissions = fs::Permissions::from_mode(0o666);
    let mut file: NamedTempFile = tempfile::Builder::new()
        .prefix(".partial-")
        .permissions(permissions)
        .tempfile_in(folder)
        .map_err(PackError::io("write in", folder))?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(PackError::io("write", path))?;
    file.persist(path).map_err(|error| PackError::io("rename to", path)(error.error))?;
    Ok(())
}

fn json(document: &impl Serialize) -> Result<Vec<u8>, TrustError> {
    serde_json::to_vec(document).map_err(|error| TrustError::Sign(error.to_string()))
}
