//! Writes docs/configuration.md from the keys.

use std::fmt::Write as _;

use super::key::Key;
use super::keys::KEYS;

const HEAD: &str = "\
# Configuration of `recurved`

Written by `cargo run -p recurved -- config-reference > docs/configuration.md`; a test compares.

Settings come from four sources; the later wins:

1. the defaults below, and the sockets that systemd hands over,
2. the configuration file: `--config FILE` or `RECURVE_CONFIG`, else `/etc/recurve/recurved.toml` if it exists,
3. environment variables: `RECURVE_` and the key in capitals, with `__` for the dot,
4. flags.

`recurved check-config` prints every setting in effect with its source, and everything that is wrong, at once;
`--format json` for programs. An unknown key is an error, in the file and in the environment.
SIGHUP (`systemctl reload recurved`) has a running daemon read them again: `log.level`, `telemetry.interval`, `telemetry.traces` and the
files of `tls` change at once, and the log names every other key that changed and needs a restart.

```toml
bundle = \"/var/lib/recurve/bundle\"
listen = [\"127.0.0.1:50051\", \"unix:/run/recurve/recurved.sock\"]

[engine]
threads = 2
```
";

/// The whole page.
pub fn page() -> String {
    let mut page = HEAD.to_owned();
    let mut section = None;
    for key in KEYS {
        let this = key.path.split_once('.').map(|(section, _)| section);
        if section != Some(this) {
            let title = this.map_or("General".to_owned(), |name| format!("`[{name}]`"));
            let _ = write!(page, "\n## {title}\n");
            section = Some(this);
        }
        describe(&mut page, key);
    }
    page
}

fn describe(page: &mut String, key: &Key) {
    let default = key.default.map_or("not set".to_owned(), |value| format!("`{value}`"));
    let flag = key.flag.map_or(String::new(), |flag| format!(", flag `{flag}`"));
    let _ = write!(
        page,
        "\n### `{}`\n\n{}\n\nDefault: {default}. Allowed: {}. Variable `{}`{flag}.\n",
        key.path,
        key.doc,
        key.kind.allowed(),
        key.variable(),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_docs_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == page(),
            "docs/configuration.md is out of date: cargo run -p recurved -- config-reference > docs/configuration.md"
        );
    }
}
