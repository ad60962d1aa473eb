//! Makes TUF metadata as the specification says, or as an attacker would: every value may be changed before it is signed,
//! and every byte after. Shares no code with what signs and what verifies.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use chrono::{SecondsFormat, TimeDelta, Utc};
use recurve_bundle::{Bundle, Digest};
use recurve_proto::v1::trust_client::TrustClient;
use recurve_proto::v1::{InstallTrustRequest, MetadataFile, TrustState, UpdateTrustRequest};
use serde::Serialize as _;
use serde_json::{Value, json};
use tonic::Status;

use crate::client::{channel, soon};
use crate::daemon::Daemon;

/// The roles, from the root down.
pub const ROLES: [&str; 4] = ["root", "targets", "snapshot", "timestamp"];

/// A key pair.
#[derive(Debug, Clone)]
pub struct Key(Arc<Ed25519KeyPair>);

/// One metadata file, before it is signed.
#[derive(Debug, Clone)]
pub struct Document {
    /// Its version.
    pub version: u64,
    /// Seconds from now.
    pub expires: i64,
    /// Who signs it.
    pub keys: Vec<Key>,
    /// Changes what is signed.
    pub change: fn(&mut Value),
}

/// A root, before it is signed.
#[derive(Debug, Clone)]
pub struct RootDocument {
    /// The file.
    pub document: Document,
    /// Keys and threshold of each role.
    pub roles: BTreeMap<&'static str, (Vec<Key>, u64)>,
}

/// The metadata of one state.
#[derive(Debug, Clone)]
pub struct Forge {
    /// Every root, from the first.
    pub roots: Vec<RootDocument>,
    /// The targets.
    pub targets: Document,
    /// The snapshot.
    pub snapshot: Document,
    /// The timestamp.
    pub timestamp: Document,
    /// The models that are signed: digest and size of the manifest.
    pub bundles: Vec<(Digest, u64)>,
}

/// Files by name.
pub type Files = Vec<(String, Vec<u8>)>;

impl Key {
    /// A new one.
    pub fn new() -> Self {
        Self(Arc::new(Ed25519KeyPair::generate().expect("a key")))
    }

    fn public(&self) -> Value {
        let public = hex(self.0.public_key().as_ref());
        json!({"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": public}})
    }

    /// Its id.
    pub fn id(&self) -> String {
        Digest::of(&canonical(&self.public())).hex()
    }

    fn sign(&self, signed: &Value) -> Value {
        json!({"keyid": self.id(), "sig": hex(self.0.sign(&canonical(signed)).as_ref())})
    }
}

impl Default for Key {
    fn default() -> Self {
        Self::new()
    }
}

impl Document {
    fn new(version: u64, keys: &[Key]) -> Self {
        Self { version, expires: 3600, keys: keys.to_vec(), change: |_| {} }
    }

    /// The file, with these fields in it.
    fn write(&self, kind: &str, fields: Value) -> Vec<u8> {
        let expires = Utc::now() + TimeDelta::seconds(self.expires);
        let mut signed = json!({
            "_type": kind,
            "spec_version": "1.0.0",
            "version": self.version,
            "expires": expires.to_rfc3339_opts(SecondsFormat::Secs, true),
        });
        signed.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
        (self.change)(&mut signed);
        let signatures: Vec<Value> = self.keys.iter().map(|key| key.sign(&signed)).collect();
        serde_json::to_vec(&json!({"signed": signed, "signatures": signatures})).expect("JSON")
    }
}

impl RootDocument {
    fn write(&self) -> Vec<u8> {
        let keys = self.roles.values().flat_map(|(keys, _)| keys);
        let keys: serde_json::Map<String, Value> = keys.map(|key| (key.id(), key.public())).collect();
        let role = |(role, (keys, threshold)): (&&str, &(Vec<Key>, u64))| {
            let ids: Vec<String> = keys.iter().map(Key::id).collect();
            ((*role).to_owned(), json!({"keyids": ids, "threshold": threshold}))
        };
        let roles: serde_json::Map<String, Value> = self.roles.iter().map(role).collect();
        self.document.write("root", json!({"consistent_snapshot": true, "keys": keys, "roles": roles}))
    }
}

impl Forge {
    /// A first state, version 1 throughout, in which every role has two keys and needs both.
    pub fn new(bundles: &[&Bundle]) -> Self {
        let roles: BTreeMap<&str, (Vec<Key>, u64)> =
            ROLES.iter().map(|role| (*role, (vec![Key::new(), Key::new()], 2))).collect();
        let keys = |role: &str| roles[role].0.clone();
        Self {
            targets: Document::new(1, &keys("targets")),
            snapshot: Document::new(1, &keys("snapshot")),
            timestamp: Document::new(1, &keys("timestamp")),
            bundles: bundles.iter().map(|bundle| (*bundle.digest(), bundle.descriptor().size)).collect(),
            roots: vec![RootDocument { document: Document::new(1, &keys("root")), roles }],
        }
    }

    /// The next state: every version below the root is one higher.
    pub fn next(&self) -> Self {
        let mut next = self.clone();
        for role in ["targets", "snapshot", "timestamp"] {
            next.document(role).version += 1;
        }
        next
    }

    /// The file of a role; of the root the latest.
    pub fn document(&mut self, role: &str) -> &mut Document {
        match role {
            "targets" => &mut self.targets,
            "snapshot" => &mut self.snapshot,
            "timestamp" => &mut self.timestamp,
            _ => &mut self.roots.last_mut().expect("a root").document,
        }
    }

    /// Adds a root that is signed by the keys of the one before.
    pub fn new_root(&mut self) -> &mut RootDocument {
        let mut root = self.roots.last().expect("a root").clone();
        root.document.version += 1;
        self.roots.push(root);
        self.roots.last_mut().expect("a root")
    }

    /// Gives a role new keys, by a new root, and signs with them from then on.
    pub fn rotate(&mut self, role: &'static str) {
        let new = vec![Key::new(), Key::new()];
        let root = self.new_root();
        root.roles.insert(role, (new.clone(), 2));
        if role == "root" {
            root.document.keys.extend(new);
        } else {
            self.document(role).keys = new;
        }
    }

    /// The latest root alone.
    pub fn root(&self) -> Vec<u8> {
        self.roots.last().expect("a root").write()
    }

    /// All files.
    pub fn files(&self) -> Files {
        let target = |(digest, size): &(Digest, u64)| {
            (digest.hex(), json!({"length": size, "hashes": {"sha256": digest.hex()}}))
        };
        let targets: serde_json::Map<String, Value> = self.bundles.iter().map(target).collect();
        let targets = self.targets.write("targets", json!({"targets": targets}));
        let snapshot = self.snapshot.write("snapshot", described("targets.json", &targets, self.targets.version));
        let timestamp = self.timestamp.write("timestamp", described("snapshot.json", &snapshot, self.snapshot.version));
        let roots = self.roots.iter().map(|root| (format!("{}.root.json", root.document.version), root.write()));
        roots
            .chain([
                ("timestamp.json".to_owned(), timestamp),
                (format!("{}.snapshot.json", self.snapshot.version), snapshot),
                (format!("{}.targets.json", self.targets.version), targets),
            ])
            .collect()
    }
}

/// The file of a role among others; of the root the one that comes last.
pub fn file<'a>(files: &'a mut Files, role: &str) -> &'a mut (String, Vec<u8>) {
    let of = |name: &str| name.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.') == format!("{role}.json");
    files.iter_mut().rfind(|(name, _)| of(name)).expect("a file of the role")
}

/// Gives a daemon its root.
pub async fn install(daemon: &Daemon, root: Vec<u8>) -> Result<TrustState, Status> {
    let mut client = TrustClient::new(channel(daemon).await);
    soon(client.install(InstallTrustRequest { root: root.into() })).await.map(tonic::Response::into_inner)
}

/// Gives a daemon newer metadata.
pub async fn update(daemon: &Daemon, files: Files) -> Result<TrustState, Status> {
    let files = files.into_iter().map(|(name, content)| MetadataFile { name, content: content.into() }).collect();
    let mut client = TrustClient::new(channel(daemon).await);
    soon(client.update(UpdateTrustRequest { files })).await.map(tonic::Response::into_inner)
}

fn described(name: &str, bytes: &[u8], version: u64) -> Value {
    let entry = json!({"version": version, "length": bytes.len(), "hashes": {"sha256": Digest::of(bytes).hex()}});
    json!({"meta": {name: entry}})
}

fn canonical(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    let formatter = olpc_cjson::CanonicalFormatter::new();
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, formatter)).expect("JSON");
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
