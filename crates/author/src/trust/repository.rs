//! A repository of TUF metadata in a folder: `metadata/` is replaced as a whole with every change, so that there is always
//! one whole state; private keys lie in `keys/`, or elsewhere.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp as Time;
use recurve_bundle::{Bundle, Digest};
use serde_json::Value;
use tough::TargetName;
use tough::schema::key::Key;
use tough::schema::{RoleKeys, Root, Snapshot, Target, Targets, Timestamp};

use super::expiry::{above, expiry, is_soon, refuse_expired};
use super::folder;
use super::keys::{self, Keys, SigningKey};
use super::metadata::{self, Files, SPEC_VERSION, TIMESTAMP, Written, digest, next, role_keys};
use super::{Role, TrustError};
use crate::pack::PackError;
use crate::place::{Output, sync_directory};

const KEYS: &str = "keys";
/// The custom field of a target that has the model's name.
const NAME: &str = "name";

/// How a repository begins.
#[derive(Debug, Clone, Default)]
pub struct Init {
    /// Signatures that a role needs, where it is not 1. As many keys are made.
    pub thresholds: BTreeMap<Role, u64>,
    /// How long metadata are valid, where it is not [`Role::validity`].
    pub validity: BTreeMap<Role, Duration>,
}

/// A repository whose metadata were read and verified. Nobody else changes it as long as this lives.
#[derive(Debug)]
pub struct Repository {
    dir: PathBuf,
    keys: Keys,
    validity: BTreeMap<Role, Duration>,
    roots: BTreeMap<u64, Vec<u8>>,
    root: Root,
    targets: Written<Targets>,
    snapshot: Written<Snapshot>,
    timestamp: Written<Timestamp>,
    _lock: File,
}

/// What a change did.
#[derive(Debug, Clone, Default)]
pub struct Changed {
    /// Files of new private keys.
    pub keys: Vec<PathBuf>,
    /// Ids of keys that are believed no longer.
    pub retired: Vec<String>,
}

/// What is known of a role.
#[derive(Debug, Clone)]
pub struct RoleState {
    /// Which.
    pub role: Role,
    /// Of its metadata.
    pub version: u64,
    /// When they expire, as RFC 3339.
    pub expires: String,
    /// Whether they have.
    pub expired: bool,
    /// Whether they will soon: within 30 days, or a third of the time that they are valid.
    pub soon: bool,
    /// Signatures that it needs.
    pub threshold: u64,
    /// Its keys.
    pub keys: Vec<KeyState>,
}

/// What is known of a key.
#[derive(Debug, Clone)]
pub struct KeyState {
    /// The beginning of its id.
    pub id: String,
    /// Whether its private part is in one of the folders.
    pub here: bool,
}

impl Repository {
    /// Makes a repository with new keys. `keys`: where these are put, and looked for; none for `DIR/keys`.
    ///
    /// # Errors
    /// There is one already, or a file cannot be written.
    pub fn init(dir: &Path, folders: Vec<PathBuf>, how: &Init) -> Result<(Self, Changed), TrustError> {
        fs::create_dir_all(dir).map_err(PackError::io("make", dir))?;
        let lock = folder::lock(dir)?;
        if dir.join(folder::METADATA).exists() {
            return Err(TrustError::Exists { dir: dir.to_owned() });
        }
        let validity: BTreeMap<Role, Duration> = Role::ALL
            .into_iter()
            .map(|role| (role, how.validity.get(&role).copied().unwrap_or_else(|| role.validity())))
            .collect();
        let keys = keys_of(dir, folders);
        let mut changed = Changed::default();
        let mut root = Root {
            spec_version: SPEC_VERSION.to_owned(),
            consistent_snapshot: true,
            version: NonZeroU64::MIN,
            expires: expiry(Role::Root, &validity)?,
            keys: HashMap::new(),
            roles: HashMap::new(),
            _extra: HashMap::new(),
        };
        for role in Role::ALL {
            let threshold = how.thresholds.get(&role).copied().unwrap_or(1);
            let refused = TrustError::Threshold { role, threshold, keys: 1 };
            let threshold = NonZeroU64::new(threshold).ok_or(refused)?;
            root.roles.insert(role.kind(), RoleKeys { keyids: Vec::new(), threshold, _extra: HashMap::new() });
            for _ in 0..threshold.get() {
                let (key, path) = keys.generate(role)?;
                insert_key(&mut root, role, key, &path)?;
                changed.keys.push(path);
            }
        }
        folder::write_settings(dir, &validity)?;
        let private = keys.private()?;
        let sign_root = metadata::sign(root.clone(), Role::Root, &[&root], &private, keys.folders())?;
        let targets = Targets {
            delegations: None,
            ..Targets::new(SPEC_VERSION.to_owned(), NonZeroU64::MIN, expiry(Role::Targets, &validity)?)
        };
        let snapshot = Snapshot::new(SPEC_VERSION.to_owned(), NonZeroU64::MIN, expiry(Role::Snapshot, &validity)?);
        let timestamp = Timestamp::new(SPEC_VERSION.to_owned(), NonZeroU64::MIN, expiry(Role::Timestamp, &validity)?);
        let mut repository = Self {
            dir: dir.to_owned(),
            keys,
            validity,
            roots: BTreeMap::from([(1, sign_root.bytes)]),
            root,
            targets: Written { role: targets, bytes: Vec::new() },
            snapshot: Written { role: snapshot, bytes: Vec::new() },
            timestamp: Written { role: timestamp, bytes: Vec::new() },
            _lock: lock,
        };
        repository.sign_below(Role::Targets, &private, false)?;
        repository.save(false)?;
        Ok((repository, changed))
    }

    /// Opens a repository and verifies that its latest root believes everything below it. `folders`: where keys are; none
    /// for `DIR/keys`. `validity`: for this change, where it is not the repository's own.
    ///
    /// # Errors
    /// There is none, it is damaged, or somebody else changes it.
    pub fn open(dir: &Path, folders: Vec<PathBuf>, validity: &BTreeMap<Role, Duration>) -> Result<Self, TrustError> {
        if !dir.join(folder::METADATA).is_dir() {
            return Err(TrustError::Missing { dir: dir.to_owned() });
        }
        let lock = folder::lock(dir)?;
        let mut kept = folder::read_settings(dir)?;
        kept.extend(validity);
        let folder = dir.join(folder::METADATA);
        let read = |name: &str| {
            let path = folder.join(name);
            let bytes = fs::read(&path).map_err(PackError::io("read", &path))?;
            Ok::<_, TrustError>((bytes, path))
        };
        let roots = folder::read_roots(&folder)?;
        let root = folder::verify_roots(&roots, &folder)?;
        let (bytes, path) = read(TIMESTAMP)?;
        let timestamp = Written::<Timestamp>::read(bytes, &path, &root)?;
        let version = folder::version_of(timestamp.role.meta.get("snapshot.json"), &path)?;
        let (bytes, path) = read(&format!("{version}.snapshot.json"))?;
        let snapshot = Written::<Snapshot>::read(bytes, &path, &root)?;
        let version = folder::version_of(snapshot.role.meta.get("targets.json"), &path)?;
        let (bytes, path) = read(&format!("{version}.targets.json"))?;
        let targets = Written::<Targets>::read(bytes, &path, &root)?;
        let keys = keys_of(dir, folders);
        let dir = dir.to_owned();
        Ok(Self { dir, keys, validity: kept, roots, root, targets, snapshot, timestamp, _lock: lock })
    }

    /// The metadata as they are now, to be sent.
    pub fn files(&self) -> Files {
        let roots = self.roots.iter().map(|(version, bytes)| (format!("{version}.root.json"), bytes.clone()));
        roots
            .chain([
                (format!("{}.snapshot.json", self.snapshot.role.version), self.snapshot.bytes.clone()),
                (format!("{}.targets.json", self.targets.role.version), self.targets.bytes.clone()),
                (TIMESTAMP.to_owned(), self.timestamp.bytes.clone()),
            ])
            .collect()
    }

    /// Signs a bundle: from now on it is one that devices may serve.
    ///
    /// # Errors
    /// The root has expired, a key is not there, or a file cannot be read or written.
    pub fn sign(&mut self, bundle: &Bundle) -> Result<(), TrustError> {
        self.unexpired(&above(&[Role::Targets]))?;
        let manifest = bundle.manifest_bytes()?;
        let target = Target {
            length: manifest.len() as u64,
            hashes: metadata::sha256(&manifest),
            custom: HashMap::from([(NAME.to_owned(), Value::String(bundle.name().to_owned()))]),
            _extra: HashMap::new(),
        };
        self.targets.role.add_target(target_name(bundle.digest())?, target);
        self.again(Role::Targets)
    }

    /// Takes a bundle back: devices that hear of it serve it no longer when it is deployed to them.
    ///
    /// # Errors
    /// It is not signed, the root has expired, a key is not there, or a file cannot be written.
    pub fn revoke(&mut self, bundle: &Digest) -> Result<(), TrustError> {
        self.unexpired(&above(&[Role::Targets]))?;
        let removed = self.targets.role.remove_target(&target_name(bundle)?);
        removed.ok_or(TrustError::NotSigned { digest: *bundle })?;
        self.again(Role::Targets)
    }

    /// Signs metadata again, with a new time of expiry, and those that depend on them.
    ///
    /// # Errors
    /// Metadata above them have expired and would stay so, a key is not there, or a file cannot be written.
    pub fn refresh(&mut self, roles: &[Role]) -> Result<(), TrustError> {
        self.unexpired(&above(roles))?;
        if roles.contains(&Role::Root) {
            let root = self.root.clone();
            self.sign_root(root)?;
        }
        let lowest = roles.iter().copied().filter(|&role| role != Role::Root).min();
        if let Some(lowest) = lowest {
            let private = self.keys.private()?;
            self.sign_below(lowest, &private, true)?;
        }
        self.save(true)
    }

    /// Replaces a key of a role with a new one. `replace`: the beginning of the old one's id, where there are several.
    ///
    /// # Errors
    /// It is not clear which key, a key is not there, or a file cannot be written.
    pub fn rotate(&mut self, role: Role, replace: Option<&str>) -> Result<Changed, TrustError> {
        let mut root = self.root.clone();
        let ids: Vec<String> = role_keys(&root, role)?.keyids.iter().map(|id| hex(id)).collect();
        let meant: Vec<&String> = ids.iter().filter(|id| replace.is_none_or(|given| id.starts_with(given))).collect();
        let [old] = meant.as_slice() else {
            return Err(TrustError::WhichKey {
                role,
                keys: ids.iter().map(|id| id.chars().take(16).collect()).collect(),
            });
        };
        let old = (*old).clone();
        let (key, path) = self.keys.generate(role)?;
        if let Some(keys) = root.roles.get_mut(&role.kind()) {
            keys.keyids.retain(|id| hex(id) != old);
        }
        insert_key(&mut root, role, key, &path)?;
        forget_unused(&mut root);
        self.change_keys(role, root)?;
        Ok(Changed { keys: vec![path], retired: vec![old.chars().take(16).collect()] })
    }

    /// Gives a role one more key: the one in a file, or a new one. `threshold`: signatures that it needs from now on.
    ///
    /// # Errors
    /// The role has that key, it cannot have that threshold, a key is not there, or a file cannot be written.
    pub fn add_key(&mut self, role: Role, file: Option<&Path>, threshold: Option<u64>) -> Result<Changed, TrustError> {
        let mut root = self.root.clone();
        let count = role_keys(&root, role)?.keyids.len() as u64 + 1;
        let threshold = threshold.map(|wanted| {
            let fits = NonZeroU64::new(wanted).filter(|wanted| wanted.get() <= count);
            fits.ok_or(TrustError::Threshold { role, threshold: wanted, keys: count })
        });
        let threshold = threshold.transpose()?;
        let mut changed = Changed::default();
        let (key, path) = match file {
            Some(path) => (keys::read_public(path)?, path.to_owned()),
            None => {
                let (key, path) = self.keys.generate(role)?;
                changed.keys.push(path.clone());
                (key, path)
            }
        };
        insert_key(&mut root, role, key, &path)?;
        if let (Some(threshold), Some(keys)) = (threshold, root.roles.get_mut(&role.kind())) {
            keys.threshold = threshold;
        }
        self.change_keys(role, root)?;
        Ok(changed)
    }

    /// Every role, from the root down.
    ///
    /// # Errors
    /// A key's file cannot be read.
    pub fn roles(&self) -> Result<Vec<RoleState>, TrustError> {
        let private = self.keys.private()?;
        let now = Time::now();
        let versions = [
            (Role::Root, self.root.version),
            (Role::Targets, self.targets.role.version),
            (Role::Snapshot, self.snapshot.role.version),
            (Role::Timestamp, self.timestamp.role.version),
        ];
        let state = |(role, version): (Role, NonZeroU64)| {
            let expires = self.expires(role);
            let keys = role_keys(&self.root, role)?;
            let known = |id: &[u8]| private.iter().any(|key| key.id == id);
            Ok(RoleState {
                role,
                version: version.get(),
                expires: expires.to_string(),
                expired: expires <= now,
                soon: is_soon(role, expires, &self.validity),
                threshold: keys.threshold.get(),
                keys: keys.keyids.iter().map(|id| KeyState { id: keys::short(id), here: known(id) }).collect(),
            })
        };
        versions.into_iter().map(state).collect()
    }

    /// Refuses a change that leaves the metadata of one of these roles expired.
    fn unexpired(&self, kept: &[Role]) -> Result<(), TrustError> {
        let kept: Vec<_> = kept.iter().map(|role| (*role, self.expires(*role))).collect();
        refuse_expired(&kept, &self.dir)
    }

    fn expires(&self, role: Role) -> Time {
        match role {
            Role::Root => self.root.expires,
            Role::Targets => self.targets.role.expires,
            Role::Snapshot => self.snapshot.role.expires,
            Role::Timestamp => self.timestamp.role.expires,
        }
    }

    /// The bundles that are signed, with their models' names.
    pub fn bundles(&self) -> Vec<(Digest, String)> {
        let targets = self.targets.role.targets.values();
        let name = |target: &Target| target.custom.get(NAME).and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut bundles: Vec<_> = targets.filter_map(|target| Some((digest(&target.hashes)?, name(target)))).collect();
        bundles.sort();
        bundles
    }

    fn again(&mut self, lowest: Role) -> Result<(), TrustError> {
        let private = self.keys.private()?;
        self.sign_below(lowest, &private, true)?;
        self.save(true)
    }

    /// A root in which one role's keys changed; what that role signed is signed anew.
    fn change_keys(&mut self, role: Role, root: Root) -> Result<(), TrustError> {
        self.sign_root(root)?;
        if role != Role::Root {
            let private = self.keys.private()?;
            self.sign_below(role, &private, true)?;
        }
        self.save(true)
    }

    /// Makes this the next root: signed by the keys of the present one and by its own.
    fn sign_root(&mut self, mut root: Root) -> Result<(), TrustError> {
        root.version = next(self.root.version)?;
        root.expires = expiry(Role::Root, &self.validity)?;
        let private = self.keys.private()?;
        let roots = [&self.root, &root];
        let signed = metadata::sign(root.clone(), Role::Root, &roots, &private, self.keys.folders())?;
        self.roots.insert(root.version.get(), signed.bytes);
        self.root = root;
        Ok(())
    }

    /// Signs a role below the root and those that depend on it: targets, snapshot, timestamp. `count`: as new versions.
    fn sign_below(&mut self, lowest: Role, private: &[SigningKey], count: bool) -> Result<(), TrustError> {
        let (root, folders) = (&self.root, self.keys.folders());
        let version = |version| if count { next(version) } else { Ok(version) };
        if lowest == Role::Targets {
            let mut role = self.targets.role.clone();
            (role.version, role.expires) = (version(role.version)?, expiry(Role::Targets, &self.validity)?);
            self.targets = metadata::sign(role, Role::Targets, &[root], private, folders)?;
        }
        if lowest <= Role::Snapshot {
            let mut role = self.snapshot.role.clone();
            (role.version, role.expires) = (version(role.version)?, expiry(Role::Snapshot, &self.validity)?);
            role.meta = HashMap::from([("targets.json".to_owned(), self.targets.described())]);
            self.snapshot = metadata::sign(role, Role::Snapshot, &[root], private, folders)?;
        }
        let mut role = self.timestamp.role.clone();
        (role.version, role.expires) = (version(role.version)?, expiry(Role::Timestamp, &self.validity)?);
        role.meta = HashMap::from([("snapshot.json".to_owned(), self.snapshot.described())]);
        self.timestamp = metadata::sign(role, Role::Timestamp, &[root], private, folders)?;
        Ok(())
    }

    /// Puts the metadata in their place, all at once: whoever looks, a crash included, finds the old or the new state.
    fn save(&self, replace: bool) -> Result<(), TrustError> {
        let output = Output::prepare_marked(&self.dir.join(folder::METADATA), replace, TIMESTAMP)?;
        for (name, bytes) in self.files() {
            folder::write(&output.staging().join(name), &bytes)?;
        }
        sync_directory(output.staging())?;
        Ok(output.commit()?)
    }
}

fn keys_of(dir: &Path, folders: Vec<PathBuf>) -> Keys {
    Keys::new(if folders.is_empty() { vec![dir.join(KEYS)] } else { folders })
}

fn insert_key(root: &mut Root, role: Role, key: Key, path: &Path) -> Result<(), TrustError> {
    let id = keys::id(&key, path)?;
    if let Some(keys) = root.roles.get_mut(&role.kind()) {
        if keys.keyids.iter().any(|known| **known == *id) {
            return Err(TrustError::HasKey { role, key: keys::short(&id) });
        }
        keys.keyids.push(id.clone().into());
    }
    root.keys.insert(id.into(), key);
    Ok(())
}

/// Drops keys that no role has.
fn forget_unused(root: &mut Root) {
    let roles = &root.roles;
    root.keys.retain(|id, _| roles.values().any(|keys| keys.keyids.contains(id)));
}

fn target_name(bundle: &Digest) -> Result<TargetName, TrustError> {
    TargetName::new(bundle.hex()).map_err(|error| TrustError::Sign(error.to_string()))
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}
