//! Bundles travel through a real registry with their digest, only as far as it lacks them, and go on where they broke off.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use recurve_bundle::{
    ANNOTATION_TITLE, ARTIFACT_SIGNATURES, Bundle, Descriptor, Digest, Index, MEDIA_EMPTY, MEDIA_MANIFEST, MEDIA_TUF,
    Referrer,
};
use recurve_registry::{Access, Reference, Registry as Client, Retry};
use recurve_tests::authority::Authority;
use recurve_tests::bad_link::{Proxy, Rule};
use recurve_tests::process::{Ended, agent_cli, run, until, wait};
use recurve_tests::registry::{self, Registry};
use recurve_tests::world::{self, path};

fn reference(address: &str, tag: &str) -> String {
    format!("oci://{address}/models/tiny:{tag}")
}

fn push(bundle: &Path, to: &str) -> Ended {
    run(&mut agent_cli(&["push", path(bundle), to, "--format", "json"]))
}

fn pull(from: &str, out: &Path) -> Ended {
    run(&mut agent_cli(&["pull", from, "--out", path(out), "--format", "json"]))
}

fn begin(args: &[&str]) -> Child {
    agent_cli(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    assert!(!wait(&mut child).success());
}

/// Every file of a folder, by its path below it, with its bytes.
fn content(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let (at, name) = entry.map(|entry| (entry.path(), entry.file_name().into_string().unwrap())).unwrap();
        if at.is_dir() {
            found.extend(content(&at).into_iter().map(|(below, bytes)| (format!("{name}/{below}"), bytes)));
        } else {
            found.push((name, fs::read(at).unwrap()));
        }
    }
    found.sort();
    found
}

fn blobs(bundle: &Path) -> BTreeSet<Digest> {
    let bundle = Bundle::open(bundle).unwrap();
    std::iter::once(&bundle.manifest().config).chain(&bundle.manifest().layers).map(|blob| blob.digest).collect()
}

/// The blobs whose bytes went to the registry.
fn sent(proxy: &Proxy) -> BTreeSet<Digest> {
    let puts = proxy.take_requests().into_iter().filter(|request| request.method == "PUT");
    let digest = |path: String| format!("sha256:{}", path.split_once("digest=sha256%3A")?.1.get(..64)?).parse().ok();
    puts.filter_map(|request| digest(request.path)).collect()
}

/// The blobs that were asked for, and from which byte on.
fn fetched(proxy: &Proxy) -> Vec<(Digest, Option<u64>)> {
    let gets = proxy.take_requests().into_iter().filter(|request| request.method == "GET");
    gets.filter_map(|request| Some((request.path.split_once("/blobs/")?.1.parse().ok()?, request.from))).collect()
}

/// A shard in the middle.
fn shard(bundle: &Path) -> Descriptor {
    Bundle::open(bundle).unwrap().file("weights/layer-02.bin").unwrap().clone()
}

#[test]
fn a_bundle_comes_back_byte_for_byte() {
    if !registry::installed() {
        return;
    }
    let (registry, dir) = (Registry::start(), tempfile::tempdir().unwrap());
    let (bundle, to) = (world::tiny("int4"), reference(&registry.address, "1"));
    let digest = Bundle::open(&bundle).unwrap().digest().to_string();
    let pushed = push(&bundle, &to).json();
    assert_eq!((pushed["digest"].as_str(), pushed["sent"].as_u64()), (Some(digest.as_str()), pushed["bytes"].as_u64()));
    let out = dir.path().join("out");
    let pulled = pull(&to, &out).json();
    assert_eq!(pulled["digest"], digest.as_str());
    assert_eq!(content(&out), content(&bundle));
    // The same by digest, over what is there; nothing else is left.
    let by_digest = format!("oci://{}/models/tiny@{digest}", registry.address);
    let there = pull(&by_digest, &out);
    assert!(there.code == Some(2) && there.stderr.contains("exists already"), "{}", there.stderr);
    run(&mut agent_cli(&["pull", &by_digest, "--out", path(&out), "--overwrite"])).success();
    assert_eq!(content(&out), content(&bundle));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn only_blobs_that_a_registry_lacks_are_sent() {
    if !registry::installed() {
        return;
    }
    let registry = Registry::start();
    let proxy = Proxy::start(&registry.address);
    let (int4, int8) = (world::tiny("int4"), world::tiny("int8"));
    push(&int4, &reference(&proxy.address, "int4")).success();
    assert_eq!(sent(&proxy), blobs(&int4));
    let again = push(&int4, &reference(&proxy.address, "again")).json();
    assert_eq!((again["sent"].as_u64(), sent(&proxy)), (Some(0), BTreeSet::new()));
    let changed: BTreeSet<_> = blobs(&int8).difference(&blobs(&int4)).copied().collect();
    push(&int8, &reference(&proxy.address, "int8")).success();
    assert!(!changed.is_empty() && changed.len() < blobs(&int8).len());
    assert_eq!(sent(&proxy), changed);
}

#[test]
fn a_push_that_is_killed_goes_on_with_the_blob_that_is_missing() {
    if !registry::installed() {
        return;
    }
    let (registry, dir) = (Registry::start(), tempfile::tempdir().unwrap());
    let proxy = Proxy::start(&registry.address);
    let (bundle, to) = (world::tiny("int8"), reference(&proxy.address, "1"));
    let cut = shard(&bundle).digest;
    proxy.set(Rule::Hold { what: cut.hex(), after: 20_000 });
    let pushing = begin(&["push", path(&bundle), &to]);
    proxy.wait_until_held();
    kill(pushing);
    proxy.set(Rule::Pass);
    let mut whole = sent(&proxy);
    assert!(whole.remove(&cut) && !whole.is_empty());
    let nothing = pull(&to, &dir.path().join("out"));
    assert!(nothing.code == Some(1) && nothing.stderr.contains("no such thing"), "{}", nothing.stderr);
    proxy.take_requests();
    push(&bundle, &to).success();
    let rest: BTreeSet<_> = blobs(&bundle).difference(&whole).copied().collect();
    assert_eq!(sent(&proxy), rest);
    pull(&to, &dir.path().join("out")).success();
    assert_eq!(content(&dir.path().join("out")), content(&bundle));
}

#[test]
fn a_pull_goes_on_at_the_byte_where_the_link_was_lost() {
    if !registry::installed() {
        return;
    }
    let (registry, dir) = (Registry::start(), tempfile::tempdir().unwrap());
    let proxy = Proxy::start(&registry.address);
    let (bundle, from) = (world::tiny("f32"), reference(&proxy.address, "1"));
    push(&bundle, &reference(&registry.address, "1")).success();
    let cut = shard(&bundle);
    assert!(cut.size > 30_000);

    // In one pull.
    proxy.set(Rule::Cut { what: cut.digest.hex(), after: 20_000, times: 1 });
    pull(&from, &dir.path().join("one")).success();
    let asked: Vec<_> = fetched(&proxy).into_iter().filter(|(digest, _)| *digest == cut.digest).collect();
    assert_eq!(asked, [(cut.digest, None), (cut.digest, Some(20_000))]);
    assert_eq!(content(&dir.path().join("one")), content(&bundle));

    // In a second one, after the first was killed.
    proxy.set(Rule::Hold { what: cut.digest.hex(), after: 20_000 });
    let two = dir.path().join("two");
    let pulling = begin(&["pull", &from, "--out", path(&two)]);
    proxy.wait_until_held();
    let partial = dir.path().join(format!(".two.pulling/blobs/sha256/{}.partial", cut.digest.hex()));
    until(|| fs::metadata(&partial).is_ok_and(|found| found.len() == 20_000));
    kill(pulling);
    proxy.set(Rule::Pass);
    let whole: BTreeSet<_> = fetched(&proxy).into_iter().map(|(digest, _)| digest).collect();
    assert!(!two.exists() && whole.len() > 2);
    pull(&from, &two).success();
    let asked = fetched(&proxy);
    assert!(asked.contains(&(cut.digest, Some(20_000))), "{asked:?}");
    assert!(asked.iter().all(|(digest, _)| *digest == cut.digest || !whole.contains(digest)), "{asked:?}");
    assert_eq!(content(&two), content(&bundle));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn what_an_earlier_pull_left_is_hashed_and_nothing_is_left_of_one_that_got_nothing() {
    if !registry::installed() {
        return;
    }
    let (registry, dir) = (Registry::start(), tempfile::tempdir().unwrap());
    let proxy = Proxy::start(&registry.address);
    let (bundle, from) = (world::tiny("int4"), reference(&proxy.address, "1"));
    let out = dir.path().join("out");
    assert_eq!(pull(&from, &out).code, Some(1));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "no folder is left");
    push(&bundle, &reference(&registry.address, "1")).success();
    let (first, last) = (shard(&bundle), Bundle::open(&bundle).unwrap().file("weights/layer-03.bin").unwrap().digest);
    proxy.set(Rule::Hold { what: last.hex(), after: 100 });
    let pulling = begin(&["pull", &from, "--out", path(&out)]);
    proxy.wait_until_held();
    kill(pulling);
    proxy.set(Rule::Pass);
    let kept = dir.path().join(format!(".out.pulling/blobs/sha256/{}", first.digest.hex()));
    let mut bytes = fs::read(&kept).unwrap();
    bytes[1000] ^= 1;
    fs::write(&kept, bytes).unwrap();
    proxy.take_requests();
    pull(&from, &out).success();
    assert!(fetched(&proxy).contains(&(first.digest, None)));
    assert_eq!(content(&out), content(&bundle));
}

/// A copy of a bundle with a referrer that carries these files.
fn signed(bundle: &Path, copy: &Path, files: &[(&str, &str)]) -> Descriptor {
    if !copy.exists() {
        fs::create_dir_all(copy.join("blobs/sha256")).unwrap();
        for (name, bytes) in content(bundle) {
            fs::write(copy.join(name), bytes).unwrap();
        }
    }
    let blob = |media_type: &str, bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs::write(copy.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        let (media_type, size) = (media_type.to_owned(), bytes.len() as u64);
        Descriptor { media_type, digest, size, artifact_type: None, annotations: Default::default() }
    };
    let file = |(name, text): &(&str, &str)| {
        let mut file = blob(MEDIA_TUF, text.as_bytes());
        file.annotations.insert(ANNOTATION_TITLE.to_owned(), (*name).to_owned());
        file
    };
    let referrer = Referrer {
        schema_version: 2,
        media_type: MEDIA_MANIFEST.to_owned(),
        artifact_type: ARTIFACT_SIGNATURES.to_owned(),
        config: blob(MEDIA_EMPTY, b"{}"),
        layers: files.iter().map(file).collect(),
        subject: Bundle::open(bundle).unwrap().descriptor(),
        annotations: Default::default(),
    };
    let mut found = blob(MEDIA_MANIFEST, &serde_json::to_vec(&referrer).unwrap());
    found.artifact_type = Some(ARTIFACT_SIGNATURES.to_owned());
    let at = copy.join("index.json");
    let mut index: Index = serde_json::from_slice(&fs::read(&at).unwrap()).unwrap();
    index.manifests.push(found.clone());
    fs::write(at, serde_json::to_vec(&index).unwrap()).unwrap();
    found
}

/// A copy of a bundle with a file of three megabytes beside it, and that file's blob.
fn heavy(dir: &Path) -> (PathBuf, Digest) {
    let copy = dir.join("heavy");
    let mut noise = 1_u64;
    let words = (0..3 << 17).map(|_| {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        format!("{:08x}", noise >> 32)
    });
    let text: String = words.collect();
    signed(&world::tiny("int4"), &copy, &[("root.json", &text)]);
    (copy, Digest::of(text.as_bytes()))
}

#[test]
fn a_push_arrives_over_a_link_that_breaks_again_and_again() {
    if !registry::installed() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (bundle, _) = heavy(dir.path());
    let count = push(&bundle, &reference(&Registry::start().address, "1")).json()["blobs"].as_u64().unwrap();
    for (name, rule) in [("short", Rule::Short { after: 1 << 20 }), ("breaks", Rule::Breaks { every: 1 << 20 })] {
        let registry = Registry::start();
        let proxy = Proxy::start(&registry.address);
        proxy.set(rule);
        push(&bundle, &reference(&proxy.address, "1")).success();
        let seen = proxy.take_requests();
        let uploads = |method: &str| seen.iter().filter(|request| request.method == method).count() as u64;
        assert!(uploads("PATCH") > 3, "{name}: {seen:?}");
        if name == "breaks" {
            // No upload was begun twice: each went on where the registry had it.
            assert_eq!(uploads("POST"), count, "{seen:?}");
        }
        let out = dir.path().join(name);
        pull(&reference(&registry.address, "1"), &out).success();
        assert_eq!(content(&out), content(&bundle), "{name}");
    }
}

#[test]
fn blobs_that_a_registry_has_damaged_are_sent_again_or_named() {
    if !registry::installed() {
        return;
    }
    let (registry, dir) = (Registry::start(), tempfile::tempdir().unwrap());
    let proxy = Proxy::start(&registry.address);
    let (bundle, to) = (world::tiny("int4"), reference(&proxy.address, "1"));
    let all = push(&bundle, &to).json();
    let opened = Bundle::open(&bundle).unwrap();
    let blob = |name: &str| opened.file(name).unwrap().digest;
    let (other, short) = (blob("weights/layer-02.bin"), blob("weights/layer-03.bin"));
    let damage = || {
        let at = registry.blob(&other.hex());
        let mut bytes = fs::read(&at).unwrap();
        bytes[1000] ^= 1;
        fs::write(&at, bytes).unwrap();
        let at = registry.blob(&short.hex());
        fs::OpenOptions::new().write(true).open(at).unwrap().set_len(1000).unwrap();
    };

    // This registry keeps what it has: it is said, and the tag is not put on what is not whole.
    damage();
    let next = reference(&proxy.address, "2");
    let kept = push(&bundle, &next);
    assert_eq!(kept.code, Some(7), "{}", kept.stderr);
    for named in [other, short] {
        assert!(kept.stderr.contains(&named.to_string()), "{}", kept.stderr);
    }
    assert!(kept.stderr.contains("remove them from its storage"), "{}", kept.stderr);
    assert!(pull(&next, &dir.path().join("none")).stderr.contains("no such thing"));
    // Without reading back, sizes are compared.
    let trusted = run(&mut agent_cli(&["push", path(&bundle), &next, "--read-back", "none"]));
    assert_eq!(trusted.code, Some(7));
    let says = |digest: Digest| trusted.stderr.contains(&digest.to_string());
    assert!(says(short) && !says(other), "{}", trusted.stderr);

    // One that takes good bytes in their place: the damaged ones are removed while the good ones are on their way.
    proxy.set(Rule::Hold { what: other.hex(), after: 100 });
    let pushing = std::thread::spawn({
        let (bundle, next) = (bundle.clone(), next.clone());
        move || push(&bundle, &next).json()
    });
    proxy.wait_until_held();
    for digest in [other, short] {
        fs::remove_file(registry.blob(&digest.hex())).unwrap();
    }
    proxy.set(Rule::Pass);
    let pushed = pushing.join().unwrap();
    assert_eq!((pushed["replaced"].as_u64(), pushed["sent_blobs"].as_u64()), (Some(2), Some(2)));
    let out = dir.path().join("out");
    pull(&next, &out).success();
    assert_eq!(content(&out), content(&bundle));

    // All that is there is read back; with `all`, also what was sent.
    let again = push(&bundle, &to).json();
    assert_eq!((again["checked"].as_u64(), again["sent"].as_u64()), (all["bytes"].as_u64(), Some(0)));
    assert_eq!(all["checked"], 0);
    let elsewhere = format!("oci://{}/models/elsewhere:1", proxy.address);
    let both =
        run(&mut agent_cli(&["push", path(&bundle), &elsewhere, "--read-back", "all", "--format", "json"])).json();
    assert_eq!((both["checked"].as_u64(), both["sent"].as_u64()), (all["bytes"].as_u64(), all["bytes"].as_u64()));
}

#[test]
fn a_manifest_that_a_registry_has_damaged_is_named() {
    if !registry::installed() {
        return;
    }
    let registry = Registry::start();
    let (bundle, to) = (world::tiny("int4"), reference(&registry.address, "1"));
    push(&bundle, &to).success();
    let digest = *Bundle::open(&bundle).unwrap().digest();
    let good = fs::read(registry.blob(&digest.hex())).unwrap();
    let text = String::from_utf8(good.clone()).unwrap();
    for damaged in
        [text.replacen("layer-02", "layer-20", 1).into_bytes(), good[..good.len() - 9].to_vec(), vec![0; 100]]
    {
        fs::write(registry.blob(&digest.hex()), damaged).unwrap();
        let kept = push(&bundle, &to);
        // Some damage this registry finds itself: it then answers with status 500.
        assert!(matches!(kept.code, Some(1 | 7)) && kept.stderr.contains(&digest.to_string()), "{kept:?}");
    }
    fs::write(registry.blob(&digest.hex()), good).unwrap();
    push(&bundle, &to).success();
}

#[test]
fn a_bundle_that_is_damaged_here_is_named_as_such() {
    if !registry::installed() {
        return;
    }
    let (registry, dir) = (Registry::start(), tempfile::tempdir().unwrap());
    let copy = dir.path().join("copy");
    signed(&world::tiny("int4"), &copy, &[("root.json", "1")]);
    let file = Bundle::open(&copy).unwrap().blob(&shard(&copy).digest);
    let mut bytes = fs::read(&file).unwrap();
    bytes[1000] ^= 1;
    fs::write(&file, bytes).unwrap();
    let refused = push(&copy, &reference(&registry.address, "1"));
    assert!(refused.code == Some(7) && refused.stderr.contains(path(&file)), "{refused:?}");
}

#[tokio::test]
async fn signatures_travel_under_the_tag_for_referrers() {
    if !registry::installed() {
        return;
    }
    let (registry, dir) = (Registry::start(), tempfile::tempdir().unwrap());
    let (bundle, to) = (world::tiny("int4"), reference(&registry.address, "1"));
    let Reference { repository, version } = to.parse().unwrap();
    let access = Access { credentials: None, plain_http: true, authority: None, retry: Retry::BRIEF };
    let client = Client::new(repository, access).unwrap();

    push(&bundle, &to).success();
    assert_eq!(client.describe(&version).await.unwrap().signatures, None);
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    let first = signed(&bundle, &one, &[("root.json", "1"), ("timestamp.json", "2")]);
    let pushed = push(&one, &to).json();
    assert_eq!((pushed["signatures"].as_u64(), pushed["sent_blobs"].as_u64()), (Some(1), Some(3)));
    let out = dir.path().join("out");
    assert_eq!(pull(&to, &out).json()["signatures"], 1);
    assert_eq!(content(&out), content(&one));
    let described = client.describe(&version).await.unwrap();
    let original = Bundle::open(&bundle).unwrap();
    assert_eq!((described.digest, described.manifest), (*original.digest(), original.manifest_bytes().unwrap()));
    assert_eq!(Some(described.info), original.read("recurve.json").unwrap());
    let files = [("root.json", "1"), ("timestamp.json", "2")].map(|(name, text)| (name.to_owned(), text.into()));
    assert_eq!(described.signatures.unwrap(), files);

    // Others stay, and the newest counts. Pushed again, nothing changes.
    let second = signed(&bundle, &two, &[("timestamp.json", "3")]);
    for _ in 0..2 {
        push(&two, &to).success();
        let listed = client.signatures(original.digest()).await.unwrap();
        assert_eq!(listed, [first.clone(), second.clone()]);
    }
    let newest = client.describe(&version).await.unwrap().signatures.unwrap();
    assert_eq!(newest, [("timestamp.json".to_owned(), b"3".to_vec())]);
    let both = dir.path().join("both");
    pull(&to, &both).success();
    let both = Bundle::open(&both).unwrap();
    assert_eq!(both.referrers(), [first, second]);
    for found in both.referrers() {
        for layer in both.referrer(found).unwrap().layers {
            both.referrer_file(&layer).unwrap();
        }
    }
}

#[test]
fn skopeo_copies_between_layout_and_registry() {
    let skopeo = Command::new("skopeo").arg("--version").output().is_ok();
    if !registry::installed() || !skopeo {
        println!("skipped: docker-registry or skopeo is not installed");
        return;
    }
    let (registry, dir) = (Registry::start(), tempfile::tempdir().unwrap());
    let bundle = world::tiny("int8");
    let copy = |from: &str, to: &str| {
        let options = ["--insecure-policy", "copy", "--src-tls-verify=false", "--dest-tls-verify=false"];
        run(Command::new("skopeo").args(options).args([from, to])).success();
    };
    let there = |tag: &str| format!("docker://{}/models/tiny:{tag}", registry.address);
    copy(&format!("oci:{}", bundle.display()), &there("theirs"));
    let ours = dir.path().join("ours");
    pull(&reference(&registry.address, "theirs"), &ours).success();
    assert_eq!(content(&ours), content(&bundle));

    push(&bundle, &reference(&registry.address, "ours")).success();
    let theirs = dir.path().join("theirs");
    copy(&there("ours"), &format!("oci:{}:latest", theirs.display()));
    let blobs = |at: &Path| content(&at.join("blobs"));
    assert_eq!(blobs(&theirs), blobs(&bundle));
    run(&mut agent_cli(&["bundle", "verify", path(&theirs)])).success();
}

#[test]
fn wrong_bytes_are_refused_and_nothing_of_them_is_kept() {
    if !registry::installed() {
        return;
    }
    let (registry, dir) = (Registry::start(), tempfile::tempdir().unwrap());
    let proxy = Proxy::start(&registry.address);
    let (bundle, from) = (world::tiny("int4"), reference(&proxy.address, "1"));
    push(&bundle, &reference(&registry.address, "1")).success();
    let digest = *Bundle::open(&bundle).unwrap().digest();
    let out = dir.path().join("out");
    let broken = shard(&bundle).digest;
    for (what, named) in [(broken.hex(), broken), ("manifests/1".to_owned(), digest)] {
        proxy.set(Rule::Alter { what });
        let refused = pull(&from, &out);
        assert_eq!(refused.code, Some(7), "{}", refused.stderr);
        assert!(
            refused.stderr.contains(&named.to_string()) && refused.stderr.contains("models/tiny"),
            "{}",
            refused.stderr
        );
        assert!(!out.exists());
        for (name, bytes) in content(dir.path()) {
            let name = name.rsplit('/').next().unwrap();
            assert_eq!(Digest::of(&bytes).hex(), name, "what is kept is whole");
            assert_ne!(name, broken.hex());
        }
    }
    proxy.set(Rule::Pass);
    pull(&from, &out).success();
    assert_eq!(content(&out), content(&bundle));
}

#[test]
fn credentials_come_from_the_usual_file_and_are_named_when_they_are_wrong() {
    use base64::Engine as _;
    if !registry::installed() {
        return;
    }
    let (registry, dir) = (Registry::with_password(), tempfile::tempdir().unwrap());
    let (bundle, to) = (world::tiny("int4"), reference(&registry.address, "1"));
    let file = dir.path().join("auth.json");
    let write = |password: &str| {
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("{}:{password}", registry::USER));
        fs::write(&file, format!(r#"{{"auths": {{"{}": {{"auth": "{pair}"}}}}}}"#, registry.address)).unwrap();
    };
    let push = |named: bool| {
        let mut command = agent_cli(&["push", path(&bundle), &to, "--format", "json"]);
        command.env_remove("REGISTRY_AUTH_FILE").env_remove("XDG_CONFIG_HOME").env_remove("DOCKER_CONFIG");
        command.env("HOME", dir.path()).env("XDG_RUNTIME_DIR", dir.path().join("run"));
        if named { run(command.env("REGISTRY_AUTH_FILE", &file)) } else { run(&mut command) }
    };
    let nobody = push(false);
    assert!(nobody.code == Some(1) && nobody.stderr.contains("skopeo login"), "{}", nobody.stderr);
    write("something else");
    let wrong = push(true);
    assert!(wrong.code == Some(1) && wrong.stderr.contains("refuses user `operator`"), "{}", wrong.stderr);
    assert!(!wrong.stderr.contains("something else"), "{}", wrong.stderr);
    write(registry::PASSWORD);
    push(true).success();
    // Where docker keeps it, and where podman does.
    for place in [".docker/config.json", "run/containers/auth.json"] {
        let place = dir.path().join(place);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::copy(&file, &place).unwrap();
        assert_eq!(push(false).json()["sent"], 0);
        fs::remove_file(&place).unwrap();
    }
}

#[test]
fn registries_with_tls_are_believed_by_their_authority() {
    if !registry::installed() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path(), "ca");
    let own = authority.identity("registry", "127.0.0.1");
    let registry = Registry::with_tls(&own.certificate, &own.key);
    let (bundle, to) = (world::tiny("int4"), reference(&registry.address, "1"));
    let unknown = push(&bundle, &to);
    assert!(unknown.code == Some(1) && unknown.stderr.contains("--registry-ca"), "{}", unknown.stderr);
    let ca = path(&authority.certificate);
    run(&mut agent_cli(&["push", path(&bundle), &to, "--registry-ca", ca])).success();
    let other = Authority::new(dir.path(), "other");
    let wrong = run(&mut agent_cli(&["push", path(&bundle), &to, "--registry-ca", path(&other.certificate)]));
    assert!(wrong.code == Some(1) && wrong.stderr.contains("certificate"), "{}", wrong.stderr);
}

#[test]
fn what_is_wrong_is_told_with_registry_and_remedy() {
    if !registry::installed() {
        return;
    }
    let (registry, dir) = (Registry::start(), tempfile::tempdir().unwrap());
    let (bundle, out) = (world::tiny("int4"), dir.path().join("out"));
    let address = &registry.address;
    // A port on which nothing listens any more.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (ended, code, said) in [
        (pull(&format!("oci://{address}/models/none:1"), &out), 1, format!("{address}/models/none")),
        (pull(&format!("oci://{gone}/models/tiny:1"), &out), 3, format!("cannot reach the registry {gone}")),
        (push(&bundle, &format!("oci://{address}/Models:1")), 2, "a repository is".to_owned()),
        (push(&bundle, &format!("oci://{address}/a@{}", Digest::of(b""))), 2, "a push needs a tag".to_owned()),
        (push(dir.path(), &format!("oci://{address}/a:1")), 1, "not a bundle".to_owned()),
    ] {
        assert!(ended.code == Some(code) && ended.stderr.contains(&said), "{:?}: {}", ended.code, ended.stderr);
    }
}
