//! Writes the configuration file that packages install: every key with its words and its default, commented out.

use std::fmt::Write as _;

use super::key::{Key, Kind};
use super::keys::KEYS;

const HEAD: &str = "\
# Configuration of recurved. Everything here is commented out: what is not set has its default.
#
# Every key is told of in recurved.toml(5). `recurved check-config` prints what is in effect and all that is
# wrong. After a change: `systemctl reload recurved`, and `systemctl restart recurved` for what the log says
# needs a restart.
";

/// Longest line of words.
const WIDTH: usize = 110;

/// The whole file.
pub fn template() -> String {
    let mut file = HEAD.to_owned();
    let mut sections = Vec::new();
    for key in KEYS {
        let section = section(key);
        if !sections.contains(&section) {
            sections.push(section);
        }
    }
    // Keys without a table come before every table.
    sections.sort_by_key(|section| section.is_some());
    for this in sections {
        if let Some(name) = this {
            let _ = write!(file, "\n[{name}]\n");
        }
        for key in KEYS.iter().filter(|key| section(key) == this) {
            describe(&mut file, key);
        }
    }
    file
}

fn section(key: &Key) -> Option<&'static str> {
    key.path.split_once('.').map(|(section, _)| section)
}

fn describe(file: &mut String, key: &Key) {
    let allowed = key.kind.allowed();
    let unset = if key.default.is_none() { " Not set by default." } else { "" };
    file.push('\n');
    comment(file, &format!("{}{unset} Allowed: {allowed}.", key.doc));
    let name = key.path.rsplit('.').next().unwrap_or(key.path);
    let _ = writeln!(file, "#{name} = {}", key.default.unwrap_or(example(key.kind)));
}

/// What a key could be that has no default.
fn example(kind: Kind) -> &'static str {
    match kind {
        Kind::Bool => "false",
        Kind::Integer { .. } => "60",
        Kind::Choice(_) => "\"\"",
        Kind::LogFilter => "\"info\"",
        Kind::Path => "\"/…\"",
        Kind::Addresses | Kind::Registries | Kind::Pairs => "[]",
        Kind::Url => "\"http://127.0.0.1:4317\"",
        Kind::Socket => "\"127.0.0.1:9464\"",
    }
}

/// Words as comments, broken between words.
fn comment(file: &mut String, words: &str) {
    let mut length = 0;
    for word in words.split_whitespace() {
        if length > 0 && length + 1 + word.chars().count() > WIDTH {
            file.push('\n');
            length = 0;
        }
        file.push_str(if length == 0 { "# " } else { " " });
        length += if length == 0 { 2 } else { 1 } + word.chars().count();
        file.push_str(word);
    }
    file.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Cli, Source, load_from};

    #[test]
    fn the_file_sets_nothing_and_what_is_uncommented_is_known_and_right() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("recurved.toml");
        let flags = <Cli as clap::Parser>::parse_from(["recurved"]).flags;
        std::fs::write(&path, template()).unwrap();
        let untouched = load_from(&flags, Some(&path), &[], &[]).report;
        let bare = load_from(&flags, None, &[], &[]).report;
        assert_eq!(untouched.text(), bare.text());
        // Those that have a default.
        let lines: Vec<String> = template().lines().map(uncommented).collect();
        std::fs::write(&path, lines.join("\n")).unwrap();
        let all = load_from(&flags, Some(&path), &[], &[]).report;
        assert!(all.ok, "{}", all.text());
        let from_file =
            |key: &Key| all.values.iter().any(|entry| entry.key == key.path && matches!(entry.source, Source::File(_)));
        assert!(KEYS.iter().filter(|key| key.default.is_some()).all(from_file));
    }

    fn uncommented(line: &str) -> String {
        let set = line.strip_prefix('#').filter(|rest| rest.starts_with(|first: char| first.is_ascii_lowercase()));
        let Some(set) = set else { return line.to_owned() };
        let name = set.split(' ').next();
        let unset = |key: &Key| key.path.rsplit('.').next() == name && key.default.is_none();
        if KEYS.iter().any(unset) { line.to_owned() } else { set.to_owned() }
    }

    #[test]
    fn no_line_of_words_is_too_long() {
        for line in template().lines().filter(|line| line.starts_with("# ")) {
            assert!(line.chars().count() <= WIDTH || !line[2..].contains(' '), "{line}");
        }
    }
}
