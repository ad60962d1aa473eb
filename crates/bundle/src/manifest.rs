//! The JSON documents of the OCI image layout and of CNCF ModelPack, as far as bundles use them.
//!
//! They are written here and not taken from a crate because their bytes are hashed: fields have one order, and
//! annotations are sorted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// Media type of `index.json`.
pub const MEDIA_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of the manifest.
pub const MEDIA_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Artifact type of the manifest: a ModelPack model.
pub const ARTIFACT_TYPE: &str = "application/vnd.cncf.model.manifest.v1+json";
/// Media type of the configuration.
pub const MEDIA_CONFIG: &str = "application/vnd.cncf.model.config.v1+json";
/// Media type of a weight shard.
pub const MEDIA_WEIGHT: &str = "application/vnd.cncf.model.weight.v1.raw";
/// Media type of what is needed to use the weights: graph, tokenizer, defaults, golden test.
pub const MEDIA_WEIGHT_CONFIG: &str = "application/vnd.cncf.model.weight.config.v1.raw";
/// Media type of what people read: model card, quantization report.
pub const MEDIA_DOC: &str = "application/vnd.cncf.model.doc.v1.raw";

/// Artifact type of a referrer that carries signatures: TUF metadata, a file a layer.
pub const ARTIFACT_SIGNATURES: &str = "application/vnd.recurve.tuf.v1";
/// Media type of a file of TUF metadata.
pub const MEDIA_TUF: &str = "application/vnd.recurve.tuf.metadata.v1+json";
/// Media type of a configuration that says nothing (OCI image specification, "guidance for an empty descriptor").
pub const MEDIA_EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// A layer's file name in the unpacked model.
pub const ANNOTATION_FILEPATH: &str = "org.cncf.model.filepath";
/// A file's name in a referrer.
pub const ANNOTATION_TITLE: &str = "org.opencontainers.image.title";
/// A manifest's tag in `index.json`.
pub const ANNOTATION_REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The `imageLayoutVersion` of `oci-layout`.
pub const LAYOUT_VERSION: &str = "1.0.0";

/// The file `oci-layout`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LayoutMarker {
    /// [`LAYOUT_VERSION`].
    pub image_layout_version: String,
}

/// What one document says of another: type, digest, size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the bytes are.
    pub media_type: String,
    /// The bytes' digest, and the name of the blob's file.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// Only in `index.json`: the manifest's artifact type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Names and other remarks, sorted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// The layer's file name in the unpacked model.
    pub fn filepath(&self) -> Option<&str> {
        self.annotations.get(ANNOTATION_FILEPATH).map(String::as_str)
    }
}

/// The file `index.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// 2.
    pub schema_version: u32,
    /// [`MEDIA_INDEX`]; some tools leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// In a bundle: the model's, and those that refer to it.
    pub manifests: Vec<Descriptor>,
}

/// A manifest that says something of another one, such as its signatures (OCI image specification, `subject`).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Referrer {
    /// 2.
    pub schema_version: u32,
    /// [`MEDIA_MANIFEST`].
    pub media_type: String,
    /// What it says, such as [`ARTIFACT_SIGNATURES`].
    pub artifact_type: String,
    /// [`MEDIA_EMPTY`].
    pub config: Descriptor,
    /// Its files, named by [`ANNOTATION_TITLE`].
    pub layers: Vec<Descriptor>,
    /// The manifest that it says it of.
    pub subject: Descriptor,
    /// Remarks on the whole, sorted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// The manifest: what the model consists of. Its digest is the bundle's.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// 2.
    pub schema_version: u32,
    /// [`MEDIA_MANIFEST`].
    pub media_type: String,
    /// [`ARTIFACT_TYPE`].
    pub artifact_type: String,
    /// The [`ModelPack`] document.
    pub config: Descriptor,
    /// Every file of the model: weight shards in layer order, then the rest.
    pub layers: Vec<Descriptor>,
    /// Remarks on the whole, sorted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// Bytes of the configuration and all layers, a blob that two layers share counted twice.
    pub fn size(&self) -> u64 {
        self.layers.iter().fold(self.config.size, |sum, layer| sum.saturating_add(layer.size))
    }
}

/// The ModelPack configuration: what registries and other tools show of the model. Recurve itself reads `recurve.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ModelPack {
    /// What the model is called.
    pub descriptor: ModelDescriptor,
    /// What the model is technically.
    pub config: TechnicalConfig,
    /// The layers' digests.
    pub modelfs: ModelFs,
}

/// The part of a [`ModelPack`] that names the model.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ModelDescriptor {
    /// The model's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The model's family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
}

/// The part of a [`ModelPack`] that describes the model technically.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TechnicalConfig {
    /// For example `recurrent_gemma`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// `onnx`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// As of [`parameter_size`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub param_size: Option<String>,
    /// What products are computed in: `float32`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<String>,
    /// How weights are stored, when not in that precision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantization: Option<String>,
}

/// The part of a [`ModelPack`] that repeats the layers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelFs {
    /// `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The digest of every layer, uncompressed, in the manifest's order. A bundle's layers are not compressed, so these
    /// are the blobs' digests.
    pub diff_ids: Vec<Digest>,
}

/// A number of parameters as ModelPack writes it: at most one digit after the point, and K, M, B, T or Q.
pub fn parameter_size(parameters: u64) -> String {
    let units = [('K', 1_000_u128), ('M', 1_000_000), ('B', 1_000_000_000), ('T', 1_000_000_000_000)];
    let parameters = u128::from(parameters);
    let (letter, unit) =
        units.into_iter().find(|(_, unit)| tenths(parameters, *unit) < 10_000).unwrap_or(('Q', 1_000_000_000_000_000));
    let tenths = tenths(parameters, unit);
    match tenths % 10 {
        0 => format!("{}{letter}", tenths / 10),
        rest => format!("{}.{rest}{letter}", tenths / 10),
    }
}

/// How many tenths of `unit` are in `parameters`, rounded to the nearest.
fn tenths(parameters: u128, unit: u128) -> u128 {
    (parameters * 10 + unit / 2) / unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameter_sizes_have_one_digit_and_the_right_letter() {
        for (parameters, text) in [
            (0, "0K"),
            (444, "0.4K"),
            (999_900, "999.9K"),
            (999_960, "1M"),
            (2_682_862_080, "2.7B"),
            (9_000_000_000, "9B"),
            (u64::MAX, "18446.7Q"),
        ] {
            assert_eq!(parameter_size(parameters), text);
        }
    }
}
