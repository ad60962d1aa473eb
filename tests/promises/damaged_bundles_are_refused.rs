//! `recurved` refuses a damaged bundle, and a missing or unsuitable ONNX Runtime, with one clear line and an exit code.

use std::fs;
use std::path::{Path, PathBuf};

use recurve_bundle::Bundle;
use recurve_tests::process::{Ended, binary, clean, run};
use recurve_tests::world::{self, path};
use tempfile::TempDir;

/// The bundle is damaged.
const DATA: i32 = 65;
/// There is no bundle.
const NO_INPUT: i32 = 66;
/// ONNX Runtime is missing or unsuitable.
const UNAVAILABLE: i32 = 69;

/// A copy of the tiny bundle, of which each case breaks something.
fn copy() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (world::tiny("int8"), dir.path().join("bundle"));
    fs::create_dir_all(to.join("blobs/sha256")).unwrap();
    for name in ["oci-layout", "index.json"] {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
    for blob in fs::read_dir(from.join("blobs/sha256")).unwrap() {
        let blob = blob.unwrap();
        fs::copy(blob.path(), to.join("blobs/sha256").join(blob.file_name())).unwrap();
    }
    (dir, to)
}

fn blob(bundle: &Path, filepath: &str) -> PathBuf {
    let opened = Bundle::open(bundle).unwrap();
    bundle.join("blobs/sha256").join(opened.file(filepath).unwrap().digest.hex())
}

fn serve(bundle: &Path, variables: &[(&str, &str)]) -> Ended {
    let mut command = clean(binary("recurved"));
    command.args(["--listen", "127.0.0.1:0", "--bundle", path(bundle)]).envs(variables.iter().copied());
    run(&mut command)
}

fn check(case: &str, ended: &Ended, code: i32, parts: &[&str]) {
    assert_eq!(ended.code, Some(code), "{case}: {}", ended.stderr);
    let errors: Vec<_> = ended.stderr.lines().filter(|line| line.contains("ERROR")).collect();
    assert_eq!(errors.len(), 1, "{case}: {}", ended.stderr);
    for part in parts {
        assert!(errors[0].contains(part), "{case}: {part:?} in {}", errors[0]);
    }
    assert!(!ended.stderr.contains("panicked") && !ended.stderr.contains(" ready"), "{case}: {}", ended.stderr);
}

type Damage = fn(&Path);

#[test]
fn damaged_bundles() {
    let cases: &[(&str, i32, &[&str], Damage)] = &[
        ("no folder", NO_INPUT, &["not found"], |b| fs::remove_dir_all(b).unwrap()),
        ("no marker", NO_INPUT, &["oci-layout", "not found"], |b| fs::remove_file(b.join("oci-layout")).unwrap()),
        ("no index", NO_INPUT, &["index.json", "not found"], |b| fs::remove_file(b.join("index.json")).unwrap()),
        ("an index that is not JSON", DATA, &["index.json"], |b| fs::write(b.join("index.json"), "{").unwrap()),
        ("an empty index", DATA, &["index.json"], |b| fs::write(b.join("index.json"), "{}").unwrap()),
        ("no graph", DATA, &["graph.onnx", "missing"], |b| fs::remove_file(blob(b, "graph.onnx")).unwrap()),
        ("half a shard", DATA, &["weights/embed.bin", "bytes instead of"], |b| {
            fs::OpenOptions::new().write(true).open(blob(b, "weights/embed.bin")).unwrap().set_len(100).unwrap();
        }),
        ("a changed description", DATA, &["recurve.json", "other bytes"], |b| {
            let blob = blob(b, "recurve.json");
            let text = fs::read_to_string(&blob).unwrap().replacen("96", "97", 1);
            fs::write(blob, text).unwrap();
        }),
        ("a link for a blob", DATA, &["symbolic link"], |b| {
            let blob = blob(b, "graph.onnx");
            fs::rename(&blob, b.join("moved")).unwrap();
            std::os::unix::fs::symlink(b.join("moved"), blob).unwrap();
        }),
        ("a graph of noise", UNAVAILABLE, &[], |b| {
            let blob = blob(b, "graph.onnx");
            let size = fs::metadata(&blob).unwrap().len() as usize;
            fs::write(blob, vec![0xFF; size]).unwrap();
        }),
    ];
    for (case, code, parts, damage) in cases {
        let (_dir, bundle) = copy();
        damage(&bundle);
        check(case, &serve(&bundle, &[]), *code, parts);
    }
}

#[test]
fn a_library_that_is_not_there_or_none() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = world::tiny("int8");
    let fake = dir.path().join("libonnxruntime.so");
    for variable in ["RECURVE_ENGINE__LIBRARY", "ORT_DYLIB_PATH"] {
        let ended = serve(&bundle, &[(variable, path(&fake))]);
        check("missing", &ended, UNAVAILABLE, &[path(&fake), "no such file"]);
    }
    fs::write(&fake, "not a library").unwrap();
    let ended = serve(&bundle, &[("RECURVE_ENGINE__LIBRARY", path(&fake))]);
    check("no library", &ended, UNAVAILABLE, &[path(&fake), "1.25 or later"]);
    // A library of something else.
    let other = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib/aarch64-linux-gnu/libc.so.6", "/lib64/libc.so.6"];
    if let Some(other) = other.iter().find(|other| Path::new(other).is_file()) {
        let ended = serve(&bundle, &[("RECURVE_ENGINE__LIBRARY", other)]);
        check("another library", &ended, UNAVAILABLE, &[other, "1.25 or later"]);
    }
}
