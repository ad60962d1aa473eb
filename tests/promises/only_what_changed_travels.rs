//! `agent-cli bundle diff`: a layer whose weights changed costs its own shard and the small files that tell of it.

use std::fs;
use std::path::Path;

use recurve_tests::process::{agent_cli, run};
use recurve_tests::reference::repository;
use recurve_tests::world::{self, path};
use safetensors::SafeTensors;
use serde_json::Value;

/// A copy of a checkpoint with one tensor set to zero.
fn with_zeros(checkpoint: &Path, tensor: &str, copy: &Path) {
    fs::create_dir_all(copy).unwrap();
    for file in fs::read_dir(checkpoint).unwrap() {
        let file = file.unwrap();
        if file.file_type().unwrap().is_file() {
            fs::copy(file.path(), copy.join(file.file_name())).unwrap();
        }
    }
    let weights = copy.join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let (header, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let (from, to) = metadata.info(tensor).unwrap().data_offsets;
    bytes[8 + header + from..8 + header + to].fill(0);
    fs::write(weights, bytes).unwrap();
}

fn export(checkpoint: &Path, out: &Path) {
    run(&mut agent_cli(&["export", path(checkpoint), "--weights", "int8", "--out", path(out)])).success();
}

fn diff(before: &Path, after: &Path, more: &[&str]) -> Value {
    let arguments = [&["bundle", "diff", path(before), path(after), "--format", "json"], more].concat();
    run(&mut agent_cli(&arguments)).json()
}

fn paths(diff: &Value, change: &str) -> Vec<String> {
    let files = diff["files"].as_array().unwrap().iter().filter(|file| file["change"] == change);
    files.map(|file| file["file"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn one_changed_layer_costs_its_shard() {
    let dir = tempfile::tempdir().unwrap();
    let demo = repository().join("deploy/demo-model");
    let (checkpoint, before, after) = (dir.path().join("changed"), dir.path().join("before"), dir.path().join("after"));
    with_zeros(&demo, "model.layers.3.mlp_block.down_proj.weight", &checkpoint);
    export(&demo, &before);
    export(&checkpoint, &after);
    let diff = diff(&before, &after, &["--all"]);
    let (changed, same) = (paths(&diff, "changed"), paths(&diff, "same"));
    let weights = |files: &[String]| files.iter().filter(|file| file.starts_with("weights/")).count();
    assert_eq!(weights(&changed), 1, "{changed:?}");
    assert!(changed.contains(&"weights/layer-03.bin".to_owned()), "{changed:?}");
    assert_eq!(weights(&same), 7, "the embedding, the last norm and the five other layers: {same:?}");
    for file in ["tokenizer.json", "chat_template.jinja"] {
        assert!(same.contains(&file.to_owned()), "{file}: {same:?}");
    }
    assert_eq!((paths(&diff, "added"), paths(&diff, "removed")), (vec![], vec![]));

    // What travels is what the folders of blobs do not share.
    let blobs = |bundle: &Path| -> Vec<_> {
        fs::read_dir(bundle.join("blobs/sha256")).unwrap().map(|blob| blob.unwrap()).collect()
    };
    let there: Vec<_> = blobs(&before).iter().map(fs::DirEntry::file_name).collect();
    let lacking = |blob: &&fs::DirEntry| !there.contains(&blob.file_name());
    let bytes: u64 = blobs(&after).iter().filter(lacking).map(|blob| blob.metadata().unwrap().len()).sum();
    assert_eq!(diff["travels"].as_u64(), Some(bytes));
    let text = run(&mut agent_cli(&["bundle", "diff", path(&before), path(&after)])).success();
    assert!(text.contains("weights/layer-03.bin") && !text.contains("weights/layer-02.bin"), "{text}");
    assert!(text.contains("travel ("), "{text}");
}

#[test]
fn a_bundle_does_not_differ_from_itself_and_others_differ_in_all() {
    let (int4, int8) = (world::tiny("int4"), world::tiny("int8"));
    let same = diff(&int4, &int4, &[]);
    assert_eq!((same["travels"].as_u64(), same["files"].as_array().map(Vec::len)), (Some(0), Some(0)));
    let text = run(&mut agent_cli(&["bundle", "diff", path(&int4), path(&int4)])).success();
    assert!(text.contains("nothing travels"), "{text}");
    let other = diff(&int4, &int8, &["--all"]);
    let layers = |change| paths(&other, change).iter().filter(|file| file.starts_with("weights/layer")).count();
    assert_eq!((layers("same"), layers("changed")), (0, 5), "{other}");
    let missing = run(&mut agent_cli(&["bundle", "diff", path(&int4), "nowhere"]));
    assert_eq!(missing.code, Some(1));
    assert!(missing.stderr.contains("nowhere: not found"), "{}", missing.stderr);
}
