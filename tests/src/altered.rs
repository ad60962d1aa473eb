//! Bundles with another graph than their export made: whole and signed by nobody, but wrong in a way that shows late.

use std::fs;
use std::path::{Path, PathBuf};

use prost::Message as _;
use recurve_bundle::{Bundle, Digest, file};
use recurve_onnx::{
    AttributeProto, DataType, GraphProto, ModelProto, NodeProto, TensorProto, TensorTypeProto, TypeProto,
    ValueInfoProto, attribute_type,
};
use serde_json::Value;

/// `TensorProto.DataType.BOOL`.
const BOOL: i32 = 9;
const LOGITS: &str = "logits";
const RAW: &str = "logits.raw";
const POSITION: &str = "altered.position";

/// A model that passes its golden test, and fails every step at a later position.
pub fn fails_later(bundle: &Path, out: &Path) -> PathBuf {
    let count = golden_tokens(bundle);
    altered(bundle, out, |graph| {
        // Reading beyond the end of a tensor is an error when it happens.
        graph.initializer.push(tensor("altered.zeros", &[count], DataType::Float, vec![0; count as usize * 4]));
        graph.node.push(node("Gather", &["altered.zeros", POSITION], &["altered.zero"], Vec::new()));
    })
}

/// A model that passes its golden test, and at a later position computes for longer than anybody lives.
pub fn hangs_later(bundle: &Path, out: &Path) -> PathBuf {
    let count = golden_tokens(bundle);
    altered(bundle, out, |graph| {
        let scalar = |name, value: i64| tensor(name, &[], DataType::Int64, value.to_le_bytes().to_vec());
        graph.initializer.push(scalar("altered.count", count));
        graph.initializer.push(scalar("altered.never", 1 << 60));
        graph.initializer.push(scalar("altered.none", 0));
        graph.initializer.push(tensor("altered.start", &[], DataType::Float, vec![0; 4]));
        let body = GraphProto {
            node: vec![
                node("Identity", &["again.in"], &["again.out"], Vec::new()),
                node("Identity", &["value.in"], &["value.out"], Vec::new()),
            ],
            name: "body".to_owned(),
            initializer: Vec::new(),
            input: vec![
                value("turn", DataType::Int64 as i32),
                value("again.in", BOOL),
                value("value.in", DataType::Float as i32),
            ],
            output: vec![value("again.out", BOOL), value("value.out", DataType::Float as i32)],
        };
        let body = AttributeProto {
            name: "body".to_owned(),
            g: Some(body),
            r#type: attribute_type::GRAPH,
            ..AttributeProto::default()
        };
        graph.node.extend([
            node("GreaterOrEqual", &[POSITION, "altered.count"], &["altered.late"], Vec::new()),
            node("Where", &["altered.late", "altered.never", "altered.none"], &["altered.turns"], Vec::new()),
            node("Loop", &["altered.turns", "", "altered.start"], &["altered.zero"], vec![body]),
        ]);
    })
}

/// A model that passes its golden test, and at a later position takes this from every logit.
pub fn shifts_later(bundle: &Path, out: &Path, by: f32) -> PathBuf {
    let count = golden_tokens(bundle);
    altered(bundle, out, |graph| {
        let float = |name, value: f32| tensor(name, &[], DataType::Float, value.to_le_bytes().to_vec());
        graph.initializer.push(tensor("altered.count", &[], DataType::Int64, count.to_le_bytes().to_vec()));
        graph.initializer.push(float("altered.by", by));
        graph.initializer.push(float("altered.none", 0.0));
        graph.node.extend([
            node("GreaterOrEqual", &[POSITION, "altered.count"], &["altered.late"], Vec::new()),
            node("Where", &["altered.late", "altered.by", "altered.none"], &["altered.zero"], Vec::new()),
        ]);
    })
}

/// A model whose golden test fails: its logits are others.
pub fn answers_otherwise(bundle: &Path, out: &Path) -> PathBuf {
    altered(bundle, out, |graph| {
        graph.initializer.push(tensor("altered.zero", &[], DataType::Float, 9.0_f32.to_le_bytes().to_vec()));
    })
}

fn golden_tokens(bundle: &Path) -> i64 {
    Bundle::open(bundle).expect("a bundle").golden().expect("its golden test").tokens.len() as i64
}

/// A copy in which `altered.zero`, which `change` makes, is taken from every logit.
fn altered(bundle: &Path, out: &Path, change: impl FnOnce(&mut GraphProto)) -> PathBuf {
    copy(bundle, out);
    let opened = Bundle::open(bundle).expect("a bundle");
    let mut model = ModelProto::decode(&*fs::read(opened.graph_path()).expect("a graph")).expect("a graph");
    let graph = model.graph.as_mut().expect("a graph");
    for output in graph.node.iter_mut().flat_map(|node| &mut node.output).filter(|output| *output == LOGITS) {
        RAW.clone_into(output);
    }
    let keep = AttributeProto {
        name: "keepdims".to_owned(),
        i: Some(0),
        r#type: attribute_type::INT,
        ..AttributeProto::default()
    };
    graph.node.push(node("ReduceMax", &["start"], &[POSITION], vec![keep]));
    change(graph);
    graph.node.push(node("Sub", &[RAW, "altered.zero"], &[LOGITS], Vec::new()));
    replace(out, file::GRAPH, &model.encode_to_vec());
    out.to_owned()
}

/// Puts other bytes in the place of a file, and makes the bundle name them.
pub fn replace(bundle: &Path, filepath: &str, bytes: &[u8]) {
    let blobs = bundle.join("blobs/sha256");
    let read = |digest: &Value| -> Value {
        let name = digest.as_str().and_then(|digest| digest.strip_prefix("sha256:")).expect("a digest");
        serde_json::from_slice(&fs::read(blobs.join(name)).expect("a blob")).expect("JSON")
    };
    let put = |bytes: &[u8], descriptor: &mut Value| {
        let digest = Digest::of(bytes);
        fs::write(blobs.join(digest.hex()), bytes).expect("a blob");
        descriptor["digest"] = digest.to_string().into();
        descriptor["size"] = bytes.len().into();
    };
    let path = bundle.join("index.json");
    let mut index: Value = serde_json::from_slice(&fs::read(&path).expect("an index")).expect("JSON");
    let mut manifest = read(&index["manifests"][0]["digest"]);
    let mut config = read(&manifest["config"]["digest"]);
    let layers = manifest["layers"].as_array_mut().expect("layers");
    let at = layers
        .iter()
        .position(|layer| layer["annotations"]["org.cncf.model.filepath"] == filepath)
        .expect("a file of the bundle");
    put(bytes, &mut layers[at]);
    config["modelfs"]["diffIds"][at] = layers[at]["digest"].clone();
    put(&serde_json::to_vec(&config).expect("JSON"), &mut manifest["config"]);
    put(&serde_json::to_vec(&manifest).expect("JSON"), &mut index["manifests"][0]);
    fs::write(path, serde_json::to_vec(&index).expect("JSON")).expect("an index");
}

/// Copies a bundle's folder.
pub fn copy(bundle: &Path, out: &Path) -> PathBuf {
    let blobs = out.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("a folder");
    for name in ["oci-layout", "index.json"] {
        fs::copy(bundle.join(name), out.join(name)).expect("a file");
    }
    for blob in fs::read_dir(bundle.join("blobs/sha256")).expect("blobs") {
        let blob = blob.expect("a blob");
        fs::copy(blob.path(), blobs.join(blob.file_name())).expect("a blob");
    }
    out.to_owned()
}

fn node(op_type: &str, input: &[&str], output: &[&str], attribute: Vec<AttributeProto>) -> NodeProto {
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    NodeProto {
        input: names(input),
        output: names(output),
        name: String::new(),
        op_type: op_type.to_owned(),
        attribute,
        domain: String::new(),
    }
}

fn tensor(name: &str, dims: &[i64], data_type: DataType, raw_data: Vec<u8>) -> TensorProto {
    TensorProto {
        dims: dims.to_vec(),
        data_type: data_type as i32,
        name: name.to_owned(),
        raw_data: Some(raw_data),
        ..TensorProto::default()
    }
}

fn value(name: &str, elem_type: i32) -> ValueInfoProto {
    let tensor_type =
        Some(TensorTypeProto { elem_type, shape: Some(recurve_onnx::TensorShapeProto { dim: Vec::new() }) });
    ValueInfoProto { name: name.to_owned(), r#type: Some(TypeProto { tensor_type }) }
}
