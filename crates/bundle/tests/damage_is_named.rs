//! Whatever is wrong with a bundle is named with its file, and nothing panics.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test file: helpers fail as the tests do")]

mod fixture;

use std::fs::{self, OpenOptions};
use std::path::Path;

use proptest::prelude::*;
use recurve_bundle::{Bundle, BundleError};
use serde_json::json;

fn refusal(dir: &Path) -> BundleError {
    match Bundle::open(dir).and_then(|bundle| bundle.verify(&mut |_| {})) {
        Err(error) => error,
        Ok(_) => panic!("the bundle passed"),
    }
}

#[test]
fn a_valid_bundle_opens_reads_and_verifies() {
    let dir = tempfile::tempdir().unwrap();
    fixture::write(dir.path());
    let bundle = Bundle::open(dir.path()).unwrap();
    assert_eq!(bundle.name(), "tiny");
    assert_eq!(fs::read(bundle.graph_path()).unwrap(), b"graph");
    assert_eq!(bundle.read("README.md").unwrap().unwrap(), b"# tiny");
    assert_eq!(bundle.read("tokenizer.json").unwrap(), None);
    assert_eq!(bundle.generation().unwrap().temperature, Some(0.5));
    assert_eq!(bundle.golden().unwrap().tokens, [2, 3]);
    let mut hashed = 0;
    let verified = bundle.verify(&mut |bytes| hashed += bytes).unwrap();
    assert_eq!((verified.blobs, verified.bytes), (8, hashed));
}

type Damage = fn(&Path);

/// Each kind of damage with a part of its message.
const DAMAGE: &[(&str, Damage)] = &[
    ("a bundle is a directory", |dir| fs::remove_dir_all(dir).unwrap()),
    ("this directory is not a bundle", |dir| fs::remove_file(dir.join("oci-layout")).unwrap()),
    ("`imageLayoutVersion`: `2.0.0` is not allowed; allowed: 1.0.0", |dir| {
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
    }),
    ("index.json: not found: the copy of the bundle is incomplete", |dir| {
        fs::remove_file(dir.join("index.json")).unwrap();
    }),
    ("index.json: expected ident at line 1 column 2: it is damaged", |dir| {
        fs::write(dir.join("index.json"), "not JSON").unwrap()
    }),
    ("trailing characters", |dir| {
        let path = dir.join("index.json");
        fs::write(&path, [fs::read(&path).unwrap(), b"{}".to_vec()].concat()).unwrap();
    }),
    ("manifest: field `x`: EOF while parsing a list", |dir| {
        fixture::set_manifest(dir, format!("{{\"x\":{}", "[".repeat(100_000)).as_bytes());
    }),
    ("at most 1048576 are allowed", |dir| {
        OpenOptions::new().write(true).open(dir.join("index.json")).unwrap().set_len(1 << 40).unwrap();
    }),
    ("index.json: is a symbolic link", |dir| {
        fs::rename(dir.join("index.json"), dir.join("other")).unwrap();
        std::os::unix::fs::symlink("other", dir.join("index.json")).unwrap();
    }),
    ("`manifests`: `2 manifests` is not allowed; allowed: exactly one", |dir| {
        fixture::change_index(dir, |index| {
            let again = index["manifests"][0].clone();
            index["manifests"].as_array_mut().unwrap().push(again);
        });
    }),
    ("`0 manifests`", |dir| fixture::change_index(dir, |index| index["manifests"] = json!([]))),
    ("`manifests[0].mediaType`: `application/vnd.oci.image.index.v1+json` is not allowed", |dir| {
        fixture::change_index(dir, |index| {
            index["manifests"][0]["mediaType"] = json!("application/vnd.oci.image.index.v1+json");
        });
    }),
    ("`manifests[0].digest`: `sha256:../../etc/passwd` is not a digest", |dir| {
        fixture::change_index(dir, |index| index["manifests"][0]["digest"] = json!("sha256:../../etc/passwd"));
    }),
    ("manifest: has 18446744073709551615 bytes; at most 4194304", |dir| {
        fixture::change_index(dir, |index| index["manifests"][0]["size"] = json!(u64::MAX));
    }),
    ("`manifests[0].size`", |dir| fixture::change_index(dir, |index| index["manifests"][0]["size"] = json!(-1))),
    ("holds other bytes", |dir| {
        let mut bytes = fixture::manifest(dir);
        let index: serde_json::Value = serde_json::from_slice(&fs::read(dir.join("index.json")).unwrap()).unwrap();
        let digest = index["manifests"][0]["digest"].as_str().unwrap().parse().unwrap();
        *bytes.last_mut().unwrap() = b' ';
        fs::write(fixture::blob(dir, &digest), bytes).unwrap();
    }),
    ("manifest: field `artifactType`: `x` is not allowed", |dir| {
        fixture::change_manifest(dir, |manifest| manifest["artifactType"] = json!("x"));
    }),
    ("manifest: field `layers`: invalid type: integer `3`", |dir| {
        fixture::change_manifest(dir, |manifest| manifest["layers"] = json!(3));
    }),
    ("`layers[0].mediaType`: `application/vnd.oci.image.layer.v1.tar` is not allowed", |dir| {
        fixture::change_manifest(dir, |manifest| {
            manifest["layers"][0]["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar");
        });
    }),
    ("`../../bin/sh` is not allowed; allowed: a relative path", |dir| set_filepath(dir, "../../bin/sh")),
    ("`/bin/sh` is not allowed", |dir| set_filepath(dir, "/bin/sh")),
    ("`graph.onnx` is not allowed; allowed: each filepath once", |dir| set_filepath(dir, "graph.onnx")),
    ("`layers[0].annotations.org.cncf.model.filepath`: `` is not allowed", |dir| {
        fixture::change_manifest(dir, |manifest| manifest["layers"][0]["annotations"] = json!({}));
    }),
    ("config: field `modelfs.diffIds`", |dir| {
        fixture::change_manifest(dir, |manifest| {
            manifest["layers"].as_array_mut().unwrap().pop();
        });
    }),
    ("README.md: blob", |dir| fs::remove_file(fixture::layer_blob(dir, "README.md")).unwrap()),
    ("is missing: the copy is incomplete", |dir| {
        fs::remove_file(fixture::layer_blob(dir, "weights/embed.bin")).unwrap();
    }),
    ("has 2999 bytes instead of 3000", |dir| {
        let blob = fixture::layer_blob(dir, "weights/embed.bin");
        OpenOptions::new().write(true).open(blob).unwrap().set_len(2999).unwrap();
    }),
    ("instead of 18446744073709551615", |dir| {
        fixture::change_manifest(dir, |manifest| manifest["layers"][0]["size"] = json!(u64::MAX));
    }),
    ("weights/embed.bin: blob", |dir| {
        let blob = fixture::layer_blob(dir, "weights/embed.bin");
        let mut bytes = fs::read(&blob).unwrap();
        bytes[1234] ^= 1;
        fs::write(blob, bytes).unwrap();
    }),
    ("is a symbolic link", |dir| {
        let blob = fixture::layer_blob(dir, "weights/embed.bin");
        fs::rename(&blob, dir.join("moved")).unwrap();
        std::os::unix::fs::symlink(dir.join("moved"), blob).unwrap();
    }),
    ("is a directory", |dir| {
        let blob = fixture::layer_blob(dir, "weights/embed.bin");
        fs::remove_file(&blob).unwrap();
        fs::create_dir(blob).unwrap();
    }),
    ("no layer has the filepath `recurve.json`", |dir| rename_layer(dir, 5)),
    ("no layer has the filepath `golden.safetensors`", |dir| rename_layer(dir, 3)),
    ("no layer has the filepath `graph.onnx`", |dir| rename_layer(dir, 1)),
    ("recurve.json: format 2, but this version reads format 1: update Recurve", |dir| {
        let mut info = fixture::info();
        info["format"] = json!(2);
        fixture::set_layer(dir, "recurve.json", info.to_string().as_bytes());
    }),
    ("recurve.json: field `states[0].kind`: unknown variant `cache`, expected one of", |dir| {
        let mut info = fixture::info();
        info["states"][0]["kind"] = json!("cache");
        fixture::set_layer(dir, "recurve.json", info.to_string().as_bytes());
    }),
    ("golden.safetensors: it has logits of 5 tokens, but the model has 6", |dir| {
        let mut info = fixture::info();
        info["vocab_size"] = json!(6);
        fixture::set_layer(dir, "recurve.json", info.to_string().as_bytes());
    }),
    ("golden.safetensors: not a safetensors file", |dir| fixture::set_layer(dir, "golden.safetensors", b"logits")),
    ("generation.json: field `temperature`: `-1` is not allowed; allowed: 0 to 100", |dir| {
        fixture::set_layer(dir, "generation.json", br#"{"format":1,"temperature":-1}"#);
    }),
];

fn set_filepath(dir: &Path, filepath: &str) {
    fixture::change_manifest(dir, |manifest| {
        manifest["layers"][0]["annotations"]["org.cncf.model.filepath"] = json!(filepath);
    });
}

fn rename_layer(dir: &Path, at: usize) {
    fixture::change_manifest(dir, |manifest| {
        manifest["layers"][at]["annotations"]["org.cncf.model.filepath"] = json!("other");
    });
}

#[test]
fn each_kind_of_damage_has_its_own_message() {
    let mut wrong = Vec::new();
    for (expected, damage) in DAMAGE {
        let dir = tempfile::tempdir().unwrap();
        let bundle = dir.path().join("bundle");
        fixture::write(&bundle);
        damage(&bundle);
        let message = refusal(&bundle).to_string();
        if !message.contains(expected) {
            wrong.push(format!("expected {expected:?} in: {message}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_layer_beyond_the_limit_is_not_read_into_memory() {
    let dir = tempfile::tempdir().unwrap();
    fixture::write(dir.path());
    let size = (16_u64 << 20) + 1;
    fixture::change_manifest(dir.path(), |manifest| manifest["layers"][4]["size"] = json!(size));
    let card = fixture::layer_blob(dir.path(), "README.md");
    OpenOptions::new().write(true).open(card).unwrap().set_len(size).unwrap();
    let error = Bundle::open(dir.path()).unwrap().read("README.md").unwrap_err();
    assert!(matches!(error, BundleError::TooLarge { .. }), "{error}");
}

proptest! {
    /// Any byte of any small document may be wrong, even when all digests above it are right.
    #[test]
    fn damaged_documents_never_panic(document in 0..4_usize, at: prop::sample::Index, byte: u8, cut: bool) {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        fixture::write(dir);
        let damage = |mut bytes: Vec<u8>| {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if cut {
                bytes.truncate(at);
            }
            bytes
        };
        match document {
            0 => fs::write(dir.join("index.json"), damage(fs::read(dir.join("index.json")).unwrap())).unwrap(),
            1 => fixture::set_manifest(dir, &damage(fixture::manifest(dir))),
            2 => fixture::set_layer(dir, "recurve.json", &damage(fixture::info().to_string().into_bytes())),
            _ => {
                let path = fixture::layer_blob(dir, "golden.safetensors");
                fixture::set_layer(dir, "golden.safetensors", &damage(fs::read(path).unwrap()));
            }
        }
        let _ = Bundle::open(dir).and_then(|bundle| bundle.verify(&mut |_| {}));
    }
}
