//! The invariants of `docs/architecture.md`, and that its map is true and complete.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Most lines of code in a file, its unit tests not counted.
const MOST_LINES: usize = 450;

/// A file of the repository.
struct File {
    /// From the root, with `/`.
    path: String,
    text: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every text file that is, or could be, committed.
fn files() -> Vec<File> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(listed.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listed.stderr));
    let names = String::from_utf8(listed.stdout).unwrap();
    let paths: BTreeSet<&str> = names.split_terminator('\0').collect();
    // A file may have been deleted since, and one that is not text has nothing to check.
    let text = |path: &&str| std::fs::read_to_string(root().join(path)).ok();
    let files: Vec<File> =
        paths.iter().filter_map(|path| Some(File { path: (*path).to_owned(), text: text(path)? })).collect();
    assert!(files.iter().any(|file| file.path == "daemon/src/lib.rs"), "the repository's files were not found");
    files
}

/// Rust code of ours that ends up in a program.
fn sources() -> Vec<File> {
    let is_test = |path: &str| path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("/tests.rs");
    let mut files = files();
    files.retain(|file| file.path.ends_with(".rs") && file.path.contains("src/") && !is_test(&file.path));
    files
}

/// What comes before the unit tests at the end of a file, without comments.
fn code(file: &File) -> impl Iterator<Item = (usize, &str)> {
    let end = file.text.find("\n#[cfg(test)]\nmod tests {").unwrap_or(file.text.len());
    let lines = file.text[..end].lines().enumerate();
    lines.map(|(number, line)| (number + 1, line.split("//").next().unwrap_or_default()))
}

/// Whether `word` stands in `line` with no letter, digit or underscore before it, nor after it unless it ends in one that is
/// no part of a name itself.
fn names(line: &str, word: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let whole = |next: Option<char>, edge: Option<char>| {
            !(edge.is_some_and(part_of_name) && next.is_some_and(part_of_name))
        };
        whole(before, word.chars().next()) && whole(after, word.chars().next_back())
    })
}

/// Fails with every line of the files that names one of the words.
fn nobody_names(words: &[&str], files: &[File], why: &str) {
    assert!(!files.is_empty(), "no file to look at: {why}");
    let mut found = Vec::new();
    for file in files {
        for (number, line) in code(file) {
            if words.iter().any(|word| names(line, word)) {
                found.push(format!("{}:{number}: {}", file.path, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{why}:\n{}", found.join("\n"));
}

fn sources_where(keep: impl Fn(&str) -> bool) -> Vec<File> {
    sources().into_iter().filter(|file| keep(&file.path)).collect()
}

#[test]
fn words_are_found_as_names_only() {
    assert!(names("use tonic::Status;", "tonic"));
    assert!(names("let x = ort::init();", "ort::"));
    for (line, word) in [("let tonics = 1;", "tonic"), ("use sort::by;", "ort::"), ("unsafe_code", "unsafe")] {
        assert!(!names(line, word), "{line}");
    }
}

#[test]
fn only_grpc_names_tonic() {
    let allowed = |path: &str| {
        path.starts_with("daemon/src/grpc/")
            || path.starts_with("proto/")
            || path == "crates/telemetry/src/lib.rs"
            || is_client(path)
    };
    let words = ["tonic", "tonic_types", "tonic_health", "tonic_reflection"];
    nobody_names(&words, &sources_where(|path| !allowed(path)), "tonic is named outside daemon/src/grpc");
}

/// The files of the command line that talk to daemons.
fn is_client(path: &str) -> bool {
    matches!(path, "agent-cli/src/client.rs" | "agent-cli/src/status.rs") || path.starts_with("agent-cli/src/client/")
}

#[test]
fn only_the_runtime_names_ort() {
    let outside = sources_where(|path| !path.starts_with("crates/runtime/"));
    nobody_names(&["ort::", "use ort"], &outside, "ort is named outside crates/runtime");
    for file in files() {
        if file.path.ends_with("/Cargo.toml") && file.path != "crates/runtime/Cargo.toml" {
            assert!(!file.text.lines().any(|line| line.starts_with("ort")), "{} depends on ort", file.path);
        }
    }
}

#[test]
fn only_the_registry_names_reqwest() {
    let outside = sources_where(|path| !path.starts_with("crates/registry/"));
    nobody_names(&["reqwest"], &outside, "reqwest is named outside crates/registry");
}

#[test]
fn only_the_configuration_reads_the_environment() {
    let allowed = |path: &str| path.starts_with("daemon/src/config/") || path == "agent-cli/src/args.rs";
    let words = ["env::var", "env::var_os", "env::vars", "env::vars_os", "env = \""];
    nobody_names(&words, &sources_where(|path| !allowed(path)), "the environment is read outside the configuration");
}

#[test]
fn crates_depend_downwards_only() {
    let allowed: [(&str, &[&str]); 12] = [
        ("proto", &[]),
        ("crates/onnx", &[]),
        ("crates/kernels", &[]),
        ("crates/model", &["recurve-onnx"]),
        ("crates/runtime", &["recurve-kernels", "recurve-onnx"]),
        ("crates/bundle", &[]),
        ("crates/text", &[]),
        ("crates/author", &["recurve-bundle", "recurve-model", "recurve-text"]),
        ("crates/registry", &["recurve-bundle"]),
        ("crates/telemetry", &["recurve-proto"]),
        (
            "daemon",
            &[
                "recurve-bundle",
                "recurve-proto",
                "recurve-registry",
                "recurve-runtime",
                "recurve-telemetry",
                "recurve-text",
            ],
        ),
        (
            "agent-cli",
            &[
                "recurve-author",
                "recurve-bundle",
                "recurve-proto",
                "recurve-registry",
                "recurve-telemetry",
                "recurve-text",
            ],
        ),
    ];
    for (folder, expected) in allowed {
        assert_eq!(own_dependencies(folder), expected, "{folder}/Cargo.toml");
    }
}

/// The crates of ours that this one is built with, its tests aside, in alphabetical order.
fn own_dependencies(folder: &str) -> Vec<String> {
    let manifest = std::fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
    let mut section = "";
    let mut found = BTreeSet::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line;
        } else if matches!(section, "[dependencies]" | "[build-dependencies]") && line.starts_with("recurve") {
            found.insert(line.split(['.', ' ', '=']).next().unwrap_or_default().to_owned());
        }
    }
    found.into_iter().collect()
}

#[test]
fn the_daemon_does_not_depend_on_author() {
    let folder = |name: &str| match name {
        "recurve-proto" => "proto".to_owned(),
        name => name.replace("recurve-", "crates/"),
    };
    let mut open = vec!["daemon".to_owned()];
    while let Some(crate_folder) = open.pop() {
        assert_ne!(crate_folder, "crates/author");
        open.extend(own_dependencies(&crate_folder).iter().map(|name| folder(name)));
    }
}

#[test]
fn the_engine_does_no_file_or_network_io() {
    let engine = sources_where(|path| path.starts_with("daemon/src/engine/"));
    let words =
        ["std::fs", "std::net", "tokio::fs", "tokio::net", "std::os::unix::net", "File::", "fs::", "std::process"];
    nobody_names(&words, &engine, "the engine does I/O");
}

#[test]
fn the_plan_of_a_tick_is_a_pure_function() {
    let plan = sources_where(|path| path == "daemon/src/engine/plan.rs");
    nobody_names(
        &["Instant", "SystemTime", "std::time", "std::thread", "tokio", "Model"],
        &plan,
        "the plan is not pure",
    );
}

#[test]
fn the_decisions_about_a_fleet_are_pure_functions() {
    let files = ["agent-cli/src/fleet/select.rs", "agent-cli/src/fleet/wave.rs", "agent-cli/src/fleet/gate.rs"];
    let decisions = sources_where(|path| files.contains(&path));
    assert_eq!(decisions.len(), files.len());
    nobody_names(&["Instant", "SystemTime", "std::fs", "std::thread", "tokio", "client"], &decisions, "not pure");
}

#[test]
fn unsafe_stands_in_the_kernels_and_four_files() {
    // Memory that ONNX Runtime writes in place; asking what of a mapped file is in memory; giving freed memory back; the
    // handler of a signal.
    let files = ["buffer", "weights", "heap", "bus_error"].map(|name| format!("crates/runtime/src/{name}.rs"));
    let outside =
        sources_where(|path| !files.iter().any(|file| file == path) && !path.starts_with("crates/kernels/src/"));
    nobody_names(&["unsafe"], &outside, "unsafe code");
}

#[test]
fn a_file_holds_one_thing() {
    let mut files = files();
    files.retain(|file| [".rs", ".py", ".sh"].iter().any(|ending| file.path.ends_with(ending)));
    for file in files.iter().filter(|file| !file.path.starts_with("tests/") && !file.path.contains("/tests")) {
        let lines = code(file).count();
        assert!(
            lines <= MOST_LINES,
            "{} has {lines} lines, more than {MOST_LINES}: what are its two things?",
            file.path
        );
    }
}

#[test]
fn no_file_names_a_machine_or_a_mirror() {
    // In two pieces, or this file would name them.
    let words = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
        concat!("index", "-url"),
        concat!("INDEX", "_URL"),
        concat!("trusted", "-host"),
        concat!("replace", "-with"),
        concat!("artifac", "tory"),
    ];
    for file in files() {
        for (number, line) in file.text.lines().enumerate() {
            let found = words.iter().find(|word| line.contains(*word));
            assert!(found.is_none(), "{}:{}: names {found:?}", file.path, number + 1);
        }
    }
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let sources: BTreeSet<&str> = lock.lines().filter(|line| line.starts_with("source = ")).collect();
    assert_eq!(sources, BTreeSet::from(["source = \"registry+https://github.com/rust-lang/crates.io-index\""]));
}

/// What `docs/architecture.md` names in backticks and is a path from the root.
fn mapped_paths() -> BTreeSet<String> {
    let map = std::fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let words = map.split('`').skip(1).step_by(2);
    let is_path = |word: &&str| {
        let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
        let file = [".md", ".toml", ".rs", ".sh", ".py"].iter().any(|ending| word.ends_with(ending));
        plain && (word.contains('/') || file)
    };
    words.filter(is_path).map(str::to_owned).collect()
}

#[test]
fn every_path_on_the_map_exists() {
    let paths = mapped_paths();
    assert!(paths.len() > 50, "the map names {} paths", paths.len());
    let missing: Vec<_> = paths.iter().filter(|path| !root().join(path).exists()).collect();
    assert!(missing.is_empty(), "docs/architecture.md names what is not there: {missing:?}");
}

#[test]
fn every_source_file_is_on_the_map() {
    let paths = mapped_paths();
    let mapped =
        |path: &str| paths.iter().any(|named| path == named || (named.ends_with('/') && path.starts_with(named)));
    let missing: Vec<_> = sources().into_iter().map(|file| file.path).filter(|path| !mapped(path)).collect();
    assert!(missing.is_empty(), "docs/architecture.md does not name {missing:?}");
}
