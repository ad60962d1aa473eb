//! What was most likely meant by a word that is no key, no variable, no flag and no command: for messages that say it.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::Error;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use recurve_bundle::shell;

use super::args::Cli;
use super::key::Key;
use super::keys::{KEYS, find};

/// Names that other servers have for some of our keys.
const ELSEWHERE: [(&str, &str); 8] = [
    ("port", "listen"),
    ("host", "listen"),
    ("bind", "listen"),
    ("address", "listen"),
    ("model", "bundle"),
    ("model_path", "bundle"),
    ("verbose", "log.level"),
    ("debug", "log.level"),
];

/// How alike two names must be.
const ALIKE: f64 = 0.85;

/// What to say of a key that there is not.
pub(super) fn key(path: &str) -> String {
    let Some(key) = nearest(path) else {
        return "unknown key; `recurved check-config` lists all keys".to_owned();
    };
    let section = |path: &str| path.rsplit_once('.').map(|(section, _)| section.to_owned());
    match key.path.rsplit_once('.') {
        Some((right, name)) if section(path).as_deref() != Some(right) => {
            format!("unknown key; did you mean {}? (`{name}` in the section `[{right}]`)", key.path)
        }
        _ => format!("unknown key; did you mean {}?", key.path),
    }
}

/// What to say of a section that there is not.
pub(super) fn section(name: &str, sections: &[&str]) -> String {
    let alike = sections.iter().map(|section| (strsim::jaro_winkler(section, &plain(name)), section));
    let best = alike.filter(|(likeness, _)| *likeness > ALIKE).max_by(|(a, _), (b, _)| a.total_cmp(b));
    let meant = best.map(|(_, section)| format!("did you mean {section}? ")).unwrap_or_default();
    format!("unknown section; {meant}the sections are {}", sections.join(", "))
}

/// What to say of a variable of the environment that stands for this path, which is no key.
pub(super) fn variable(path: &str) -> String {
    match nearest(path) {
        Some(key) => format!("unknown variable; did you mean {}?", key.variable()),
        None => "unknown variable; variables are RECURVE_ and the key in capitals, with __ for the dot, such as \
                 RECURVE_ENGINE__THREADS for engine.threads; `recurved check-config` lists all keys"
            .to_owned(),
    }
}

/// The key that was most likely meant.
fn nearest(path: &str) -> Option<&'static Key> {
    let path = plain(path);
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let elsewhere = ELSEWHERE.iter().find(|(name, _)| *name == path).and_then(|(_, key)| find(key));
    let likeness = |key: &Key| {
        let joined = key.path.replace('.', "_");
        let whole = strsim::jaro_winkler(key.path, &path).max(strsim::jaro_winkler(&joined, &path));
        // The same name in another section is less than the same path.
        whole.max(strsim::jaro_winkler(&last(key.path), &last(&path)) * 0.99)
    };
    elsewhere.or_else(|| {
        KEYS.iter()
            .map(|key| (likeness(key), key))
            .filter(|(likeness, _)| *likeness > ALIKE)
            .max_by(|(a, _), (b, _)| a.total_cmp(b))
            .map(|(_, key)| key)
    })
}

/// As keys are spelled.
fn plain(name: &str) -> String {
    name.to_lowercase().replace('-', "_")
}

/// The error of a wrong command line, in words that say what was most likely meant.
pub(super) fn explained(error: Error, words: &[OsString]) -> Error {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    let explanation = match error.kind() {
        ErrorKind::InvalidSubcommand if error.get(ContextKind::SuggestedSubcommand).is_none() => {
            text(ContextKind::InvalidSubcommand).map(|word| command(&word))
        }
        ErrorKind::UnknownArgument => text(ContextKind::InvalidArg).and_then(|flag| self::flag(&flag)),
        ErrorKind::InvalidUtf8 => words.iter().find(|word| word.to_str().is_none()).map(|word| not_text(word)),
        _ => None,
    };
    match explanation {
        Some(explanation) => Cli::parser().error(error.kind(), explanation),
        None => error,
    }
}

/// What to say of a first word that is no command.
fn command(word: &str) -> String {
    if matches!(word, "serve" | "server" | "run" | "start") {
        return format!("unknown command '{word}'. Without a command `recurved` serves: leave '{word}' out");
    }
    if word.contains('/') || Path::new(word).exists() {
        return format!("'{word}' is not a command. To serve that bundle: recurved --bundle {}", shell::quote(word));
    }
    format!(
        "unknown command '{word}'; the commands are check-config and doctor. Without one `recurved` serves: a bundle with \
         --bundle DIR, or the models in its state directory"
    )
}

/// What to say of a flag that there is not; nothing where the parser's own words are as good.
fn flag(flag: &str) -> Option<String> {
    let name = flag.strip_prefix("--")?.replace("__", ".");
    let key = nearest(&name)?;
    Some(match key.flag {
        Some(right) => format!("unknown flag '{flag}'; did you mean {right}?"),
        None => format!(
            "unknown flag '{flag}'. {} is set in the configuration file, or by the variable {}",
            key.path,
            key.variable()
        ),
    })
}

fn not_text(word: &OsStr) -> String {
    format!("the argument {word:?} is not UTF-8 text; only paths may be something else")
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    fn refused(words: &[&str]) -> String {
        let words = ["recurved"].iter().chain(words).map(|word| OsString::from(*word));
        Cli::understand(words).map(drop).unwrap_err().to_string()
    }

    #[test]
    fn a_word_that_is_no_command_says_how_a_bundle_is_served() {
        for (words, expected) in [
            (&["bundles/2b"][..], "To serve that bundle: recurved --bundle bundles/2b\n"),
            (&["/my bundles/2b"], "To serve that bundle: recurved --bundle '/my bundles/2b'\n"),
            (&["/it's/2b"], "To serve that bundle: recurved --bundle '/it'\\''s/2b'\n"),
            (&["/two\nlines/2b"], "To serve that bundle: recurved --bundle $'/two\\x0alines/2b'\n"),
            (&["src"], "To serve that bundle: recurved --bundle src\n"),
            (&["serve", "--bundle", "b"], "Without a command `recurved` serves: leave 'serve' out"),
            (&["nonsense"], "the commands are check-config and doctor"),
            (&["chek-config"], "check-config"),
        ] {
            let said = refused(words);
            assert!(said.contains(expected), "{words:?}: {said}");
        }
    }

    #[test]
    fn a_flag_that_there_is_not_says_what_sets_the_key() {
        for (flag, expected) in [
            (
                "--threads",
                "engine.threads is set in the configuration file, or by the variable RECURVE_ENGINE__THREADS",
            ),
            ("--engine.threads", "RECURVE_ENGINE__THREADS"),
            ("--engine-slots", "RECURVE_ENGINE__SLOTS"),
            ("--port", "did you mean --listen?"),
            ("--log-level", "did you mean --log?"),
            ("--statedir", "did you mean --state-dir?"),
            ("--xyzzy", "unexpected argument '--xyzzy'"),
        ] {
            let said = refused(&[flag, "4"]);
            assert!(said.contains(expected), "{flag}: {said}");
        }
    }

    #[test]
    fn text_that_must_be_utf_8_is_named() {
        let words = [&b"recurved"[..], b"--log", b"a\xffb"].map(|word| OsStr::from_bytes(word).to_owned());
        let said = Cli::understand(words).map(drop).unwrap_err().to_string();
        assert!(said.contains(r#"the argument "a\xFFb" is not UTF-8"#), "{said}");
    }

    #[test]
    fn variables_and_keys_that_are_nearly_right_are_told() {
        for (path, right) in [
            ("engine_threads", "RECURVE_ENGINE__THREADS"),
            ("threads", "RECURVE_ENGINE__THREADS"),
            ("engine.thread", "RECURVE_ENGINE__THREADS"),
            ("engine_prefill_budget", "RECURVE_ENGINE__PREFILL_BUDGET"),
            ("log_level", "RECURVE_LOG__LEVEL"),
            ("port", "RECURVE_LISTEN"),
            ("statedir", "RECURVE_STATE_DIR"),
        ] {
            assert_eq!(variable(path), format!("unknown variable; did you mean {right}?"));
        }
        assert!(variable("xyzzy").contains("RECURVE_ENGINE__THREADS for engine.threads"));
        assert!(key("threads").contains("did you mean engine.threads? (`threads` in the section `[engine]`)"));
        assert_eq!(key("engine.Threads"), "unknown key; did you mean engine.threads?");
        assert_eq!(key("engine.prefill-budget"), "unknown key; did you mean engine.prefill_budget?");
        assert!(section("engin", &["log", "engine"]).starts_with("unknown section; did you mean engine? "));
    }
}
