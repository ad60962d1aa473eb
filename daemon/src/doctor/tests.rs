use std::time::UNIX_EPOCH;

use super::*;
use crate::config;

fn at<'a>(tree: &'a Path, settings: &'a Settings) -> Patient<'a> {
    let available = Some(4_000_000_000);
    Patient {
        root: tree,
        settings,
        model: Ok(None),
        serving: None,
        held: &[],
        stranger: false,
        available,
        now: UNIX_EPOCH,
    }
}

fn tree(board: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/telemetry/host/trees").join(board)
}

#[test]
fn a_board_with_a_weak_power_supply_is_told_to_get_a_better_one() {
    let settings = config::defaults();
    let root = tree("raspberry-pi-4");
    let findings = thermal::check(&at(&root, &settings));
    let voltage = findings.iter().find(|finding| finding.found.starts_with("under-voltage")).unwrap();
    assert!(voltage.advice.contains("5 V, 3 A"), "{findings:?}");
    assert!(findings.iter().any(|finding| finding.verdict >= Verdict::Warning), "{findings:?}");
    let root = tree("raspberry-pi-5");
    let findings = thermal::check(&at(&root, &settings));
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(findings[0].verdict == Verdict::Ok && findings[0].found.ends_with("no alarms"), "{findings:?}");
}

#[test]
fn what_a_machine_does_not_show_is_skipped() {
    let (settings, root) = (config::defaults(), tempfile::tempdir().unwrap());
    let patient = at(root.path(), &settings);
    assert_eq!(thermal::check(&patient)[0].verdict, Verdict::Skipped);
    assert_eq!(systemd::check(&patient)[0].verdict, Verdict::Skipped);
    assert_eq!(memory::check(&Patient { available: None, ..at(root.path(), &settings) })[0].verdict, Verdict::Skipped);
    assert_eq!(clock::check(&patient)[0].verdict, Verdict::Problem);
}

fn file(root: &Path, below: &str, text: &str) {
    let path = root.join(below);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

#[test]
fn cores_that_are_held_back_and_swap_on_flash_are_told() {
    let (settings, root) = (config::defaults(), tempfile::tempdir().unwrap());
    let governor = "sys/devices/system/cpu/cpufreq/policy0/scaling_governor";
    file(root.path(), governor, "powersave\n");
    file(root.path(), "proc/swaps", "Filename Type Size Used Priority\n/dev/mmcblk0p3 partition 100 0 -2\n");
    let patient = at(root.path(), &settings);
    let found = |findings: Vec<Finding>, words: &str| findings.iter().any(|finding| finding.found.contains(words));
    assert!(found(processor::check(&patient), "policy0 is powersave"));
    assert!(found(memory::check(&patient), "swap on /dev/mmcblk0p3"));
    file(root.path(), governor, "schedutil\n");
    file(root.path(), "proc/swaps", "Filename Type Size Used Priority\n/dev/zram0 partition 100 0 100\n");
    assert!(!found(processor::check(&patient), "powersave") && !found(memory::check(&patient), "swap"));
    // Their own driver is fast under this name.
    file(root.path(), governor, "powersave\n");
    file(root.path(), "sys/devices/system/cpu/cpufreq/policy0/scaling_driver", "intel_pstate\n");
    assert!(!found(processor::check(&patient), "powersave"));
}

#[test]
fn a_record_that_cannot_be_used_gets_the_advice_for_its_cause() {
    let root = tempfile::tempdir().unwrap();
    let state = root.path().join("my state");
    let settings = Settings { bundle: None, state_dir: state.clone(), ..config::defaults() };
    let check = || {
        let found = stored::check(&at(root.path(), &settings)).remove(0);
        // Only what is hidden from a stranger is left to the other checks.
        let stranger = Patient { stranger: true, ..at(root.path(), &settings) };
        assert_eq!(stored::check(&stranger).remove(0), found);
        found
    };
    assert_eq!(check().verdict, Verdict::Ok);
    file(&state, "models.json", "{");
    let damaged = check();
    assert!(damaged.found.contains("models.json: is damaged"), "{damaged:?}");
    assert!(damaged.advice.starts_with("restart the daemon: it keeps a damaged record"), "{damaged:?}");
    file(&state, "models.json", r#"{"format": 999}"#);
    let newer = check();
    assert!(newer.verdict == Verdict::Problem && newer.found.contains("has format 999"), "{newer:?}");
    assert!(newer.advice.contains("install the newer version again, or set state_dir"), "{newer:?}");
    assert!(newer.advice.contains("exit code 65") && !newer.advice.contains("restart"), "{newer:?}");
    fs::remove_file(state.join("models.json")).unwrap();
    fs::create_dir(state.join("models.json")).unwrap();
    let refused = check();
    assert!(refused.verdict == Verdict::Problem && refused.found.contains("models.json: cannot read"), "{refused:?}");
    let command = format!("`ls -ld '{}'`", state.join("models.json").display());
    assert!(refused.advice.contains(&command) && !refused.advice.contains("restart"), "{refused:?}");
}

#[test]
fn sockets_of_systemd_are_neither_made_nor_tried() {
    let root = tempfile::tempdir().unwrap();
    // A client on it would start the service.
    let path = root.path().join("recurved.sock");
    let socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    socket.set_nonblocking(true).unwrap();
    let missing = root.path().join("none/recurved.sock");
    let held = [&path, &missing].map(|path| Held::new(config::Address::Unix(path.clone()), false));
    let listen = held.clone().map(|held| held.address).into();
    let settings = Settings { listen, state_dir: root.path().to_owned(), ..config::defaults() };
    let patient = Patient { held: &held, ..at(root.path(), &settings) };
    for check in [ports::check, permissions::check] {
        let findings = check(&patient);
        assert!(findings.iter().all(|finding| finding.verdict == Verdict::Ok), "{findings:?}");
    }
    assert!(ports::listened(&patient));
    assert_eq!(socket.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    let alone = Patient { held: &[], ..patient };
    assert!(ports::check(&alone).iter().any(|finding| finding.verdict == Verdict::Problem));
}

#[test]
fn a_service_is_installed_enabled_and_has_its_drop_in() {
    let (settings, root) = (config::defaults(), tempfile::tempdir().unwrap());
    let root = root.path();
    let check = || systemd::check(&at(root, &settings)).remove(0);
    file(root, "run/systemd/system/x", "");
    file(root, "usr/lib/x86_64-linux-gnu/systemd/libsystemd-shared-257.so", "");
    assert!(check().found.starts_with("systemd 257, without a unit"), "{:?}", check());
    file(root, "usr/lib/systemd/system/recurved.service", "");
    assert_eq!(check().verdict, Verdict::Warning, "{:?}", check());
    file(root, "etc/systemd/system/multi-user.target.wants/recurved.service", "");
    assert!(check().advice.contains("systemd-254.conf"), "{:?}", check());
    file(root, "etc/systemd/system/recurved.service.d/systemd-254.conf", "");
    assert_eq!(check().verdict, Verdict::Ok, "{:?}", check());
}

#[test]
fn a_model_is_held_against_what_is_left() {
    let (settings, root) = (config::defaults(), tempfile::tempdir().unwrap());
    let model = |needed| Ok(Some(Model { name: "m".to_owned(), needed, weights: 1_000_000 }));
    let patient = |needed, serving| Patient { model: model(needed), serving, ..at(root.path(), &settings) };
    assert_eq!(memory::check(&patient(1_000_000, None))[0].verdict, Verdict::Ok);
    assert_eq!(memory::check(&patient(5_000_000_000, None))[0].verdict, Verdict::Problem);
    // What is in memory already needs no more of it.
    let serving = Serving { model: true, ..Serving::default() };
    assert_eq!(memory::check(&patient(5_000_000_000, Some(&serving)))[0].verdict, Verdict::Ok);
    // Nor does what a daemon beside this one has.
    let state = tempfile::tempdir().unwrap();
    let settings = Settings { bundle: None, state_dir: state.path().to_owned(), ..config::defaults() };
    let seen = || memory::check(&Patient { model: model(5_000_000_000), ..at(root.path(), &settings) }).remove(0);
    file(state.path(), "lock", "");
    let inode = std::os::unix::fs::MetadataExt::ino(&state.path().join("lock").metadata().unwrap());
    file(root.path(), "proc/locks", &format!("1: FLOCK  ADVISORY  WRITE 77 fe:00:{inode} 0 EOF\n"));
    file(root.path(), "proc/77/comm", "other\n");
    assert_eq!(seen().verdict, Verdict::Problem);
    file(root.path(), "proc/77/comm", "recurved\n");
    assert!(seen().verdict == Verdict::Note && seen().found.contains("a daemon runs"), "{:?}", seen());
    let settings = config::defaults();
    let broken = |denied, stranger| {
        let model = Err(Untold { reason: "index.json: no such file".to_owned(), denied });
        memory::check(&Patient { model, stranger, ..at(root.path(), &settings) }).remove(0)
    };
    for (denied, stranger) in [(false, false), (true, false), (false, true)] {
        assert_eq!(broken(denied, stranger).verdict, Verdict::Problem);
    }
    let hidden = broken(true, true);
    assert!(hidden.verdict == Verdict::Skipped && hidden.advice.contains("sudo agent-cli doctor"), "{hidden:?}");
    let error = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
    let error = crate::store::StoreError::Io { action: "read", path: "record".into(), source: error };
    assert!(Untold::of(&error).denied);
}

#[test]
fn findings_are_printed_for_people_and_for_programs() {
    let findings = [Finding::ok("cpu", "4 cores"), Finding::new("disk", Verdict::Problem, "full", "delete")];
    assert_eq!(text(&findings), "+ cpu   4 cores\nx disk  full\n        -> delete\n");
    let value: serde_json::Value = serde_json::from_str(&json(&findings)).unwrap();
    assert_eq!(value["ok"], false);
    assert_eq!(value["findings"][1]["verdict"], "problem");
    assert!(ill(&findings) && !ill(&findings[..1]));
}
