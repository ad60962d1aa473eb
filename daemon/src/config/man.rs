//! `recurved man`: the manual pages, made from the command line, the keys and the exit codes. For packages.

use std::io;
use std::path::Path;

use clap::CommandFactory as _;
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, roman};

use super::args::Cli;
use super::key::Key;
use super::keys::KEYS;
use crate::system::exit;

const SOURCE: &str = concat!("Recurve ", env!("CARGO_PKG_VERSION"));

const SERVICE: &str = "\
As a service of systemd's (`recurved.service`), the daemon says `READY=1` when the model answers, or when there is none yet, \
and `systemctl status recurved` shows in words how it is. While it loads a model it asks for more time to start as long as it gets on. \
The watchdog is fed by the engine's own progress: a service that is stuck is ended and started again.

Sockets that systemd holds (`recurved.socket`) are served, whatever `listen` says. They stay open while the service is started \
again or replaced by a newer one: whoever connects meanwhile waits, and is not refused.

A daemon whose configuration names no `bundle` serves the models that `agent-cli deploy` gives it, and keeps them in its state \
directory.";

const SIGNALS: [(&str, &str); 2] = [
    (
        "SIGTERM, SIGINT",
        "The daemon takes no new requests, lets running ones finish for `shutdown.grace` seconds, ends the others with the finish \
         reason SHUTDOWN, and ends with 0. A second signal ends it at once.",
    ),
    (
        "SIGHUP",
        "The configuration is read again, and the files of `tls`. What may change while the daemon runs is changed; the log names what \
         needs a restart. A configuration that is wrong changes nothing. In a terminal, SIGHUP stops the daemon.",
    ),
];

const FILES: [(&str, &str); 6] = [
    ("/etc/recurve/recurved.toml", "The configuration: see `recurved.toml`(5)."),
    ("/var/lib/recurve", "The models that were deployed, who did it, roots of trust, and the history (`state_dir`)."),
    ("/run/recurve/recurved.sock", "The Unix socket of `recurved.socket`, for root and the group `recurve`."),
    ("/usr/lib/recurve/libonnxruntime.so", "The ONNX Runtime library of the package."),
    (
        "/usr/lib/systemd/system/recurved.service, recurved.socket",
        "The units. Changes of your own belong in `systemctl edit recurved.service`.",
    ),
    ("/usr/share/recurve/systemd", "Drop-ins for the units: for TLS, for a GPU, for newer versions of systemd."),
];

const ENVIRONMENT: [(&str, &str); 4] = [
    ("RECURVE_CONFIG", "The configuration file."),
    ("RECURVE_*", "Each key of the configuration, in capitals, with `__` for the dot: `RECURVE_ENGINE__THREADS`."),
    ("ORT_DYLIB_PATH", "The ONNX Runtime library, where `engine.library` does not name one."),
    ("OTEL_*", "The variables of OpenTelemetry that `recurved.toml`(5) names."),
];

const SOURCES: &str = "\
A file in TOML. Each key has a default; the file, environment variables and flags change it, the later wins. A key that is not known is \
an error. `recurved check-config` prints every setting in effect with its source, and everything that is wrong, at once.

`systemctl reload recurved` has the daemon read the file again. `log.level`, `telemetry.interval`, `telemetry.traces` and the files \
of `tls` change at once; the log names every other key that changed and needs a restart.";

const EXAMPLE: &str = "\
listen = [\"127.0.0.1:50051\", \"unix:/run/recurve/recurved.sock\"]

[engine]
threads = 2";

/// Writes all pages into a folder, which is made where it is missing.
///
/// # Errors
/// The system refuses.
pub fn write(to: &Path) -> io::Result<()> {
    std::fs::create_dir_all(to)?;
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        let man = titled(below.clone());
        std::fs::write(to.join(man.get_filename()), subcommand(&man)?)?;
    }
    std::fs::write(to.join("recurved.8"), daemon(&titled(command))?)?;
    std::fs::write(to.join("recurved.toml.5"), configuration())
}

fn titled(command: clap::Command) -> Man {
    Man::new(command).section("8").manual("Recurve").source(SOURCE)
}

fn head(man: &Man) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    Ok(page)
}

fn subcommand(man: &Man) -> io::Result<Vec<u8>> {
    let mut page = head(man)?;
    man.render_options_section(&mut page)?;
    let mut end = Roff::new();
    end.control("SH", ["SEE ALSO"]).text(words("`recurved`(8), `recurved.toml`(5)"));
    end.to_writer(&mut page)?;
    Ok(page)
}

fn daemon(man: &Man) -> io::Result<Vec<u8>> {
    let mut page = head(man)?;
    let mut service = Roff::new();
    service.control("SS", ["As a service"]);
    paragraphs(&mut service, SERVICE);
    service.to_writer(&mut page)?;
    man.render_options_section(&mut page)?;
    man.render_subcommands_section(&mut page)?;
    let mut end = Roff::new();
    table(&mut end, "SIGNALS", SIGNALS.map(|(name, text)| (name.to_owned(), text)));
    table(&mut end, "FILES", FILES.map(|(name, text)| (name.to_owned(), text)));
    table(&mut end, "ENVIRONMENT", ENVIRONMENT.map(|(name, text)| (name.to_owned(), text)));
    table(&mut end, "EXIT STATUS", exit::CODES.map(|(code, meaning)| (code.to_string(), meaning)));
    end.control("PP", []).text(words("After each but 0, systemd starts the service again."));
    end.control("SH", ["SEE ALSO"]).text(words("`recurved.toml`(5), `agent-cli`(1), `systemctl`(1), `journalctl`(1)"));
    end.to_writer(&mut page)?;
    Ok(page)
}

fn configuration() -> String {
    let mut page = Roff::new();
    page.control("TH", ["recurved.toml", "5", "", SOURCE, "Recurve"]);
    page.control("SH", ["NAME"]).text([roman("recurved.toml - configuration of the daemon recurved")]);
    page.control("SH", ["SYNOPSIS"]).text([roman("/etc/recurve/recurved.toml")]);
    page.control("SH", ["DESCRIPTION"]);
    paragraphs(&mut page, SOURCES);
    page.control("SH", ["EXAMPLE"]).control("nf", []);
    for line in EXAMPLE.lines() {
        page.text([roman(line)]);
    }
    page.control("fi", []).control("SH", ["KEYS"]);
    for key in KEYS {
        describe(&mut page, key);
    }
    page.control("SH", ["SEE ALSO"]).text(words("`recurved`(8)"));
    page.render()
}

fn describe(page: &mut Roff, key: &Key) {
    page.control("TP", []).text([bold(key.path)]).text(words(key.doc));
    let default = key.default.unwrap_or("not set");
    let flag = key.flag.map_or(String::new(), |flag| format!(", flag `{flag}`"));
    page.control("IP", []);
    page.text(words(&format!(
        "Default: {default}. Allowed: {}. Variable `{}`{flag}.",
        key.kind.allowed(),
        key.variable()
    )));
}

fn table<const N: usize>(page: &mut Roff, title: &str, rows: [(String, &str); N]) {
    page.control("SH", [title]);
    for (name, text) in rows {
        page.control("TP", []).text([bold(name)]).text(words(text));
    }
}

fn paragraphs(page: &mut Roff, text: &str) {
    for (number, paragraph) in text.split("\n\n").enumerate() {
        if number > 0 {
            page.control("PP", []);
        }
        page.text(words(paragraph));
    }
}

/// Text with what stands between backticks in bold.
fn words(text: &str) -> Vec<Inline> {
    let parts = text.split('`').enumerate().filter(|(_, part)| !part.is_empty());
    parts.map(|(number, part)| if number % 2 == 1 { bold(part) } else { roman(part) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_have_their_sections_and_every_key() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path()).unwrap();
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        let daemon = read("recurved.8");
        for section in ["DESCRIPTION", "OPTIONS", "SIGNALS", "FILES", "ENVIRONMENT", "\"EXIT STATUS\"", "\"SEE ALSO\""]
        {
            assert!(daemon.contains(&format!(".SH {section}")), "{section} in {daemon}");
        }
        assert!(daemon.contains("recurved\\-check\\-config(8)") && !daemon.contains("config\\-reference"));
        assert!(read("recurved-check-config.8").contains(".SH SYNOPSIS"));
        let keys = read("recurved.toml.5");
        for key in KEYS {
            assert!(keys.contains(&format!("\\fB{}\\fR", key.path)), "{}", key.path);
        }
    }

    #[test]
    fn what_stands_between_backticks_is_bold() {
        assert_eq!(words("a `b` c"), [roman("a "), bold("b"), roman(" c")]);
        assert_eq!(words("`b`(8)"), [bold("b"), roman("(8)")]);
    }
}
