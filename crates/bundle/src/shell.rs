//! Commands that a person may copy into a shell. Everything of ours that prints commands depends on this crate.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

/// Quotes an argument for a shell. A plain word stays as it is, other text is put in single quotes. Control characters and
/// bytes that are not UTF-8 are escaped in `$'…'`, which bash and zsh read.
pub fn quote(argument: impl AsRef<OsStr>) -> String {
    let bytes = argument.as_ref().as_bytes();
    let safe = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+:,@%=".contains(byte);
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.is_empty() && bytes.iter().all(safe) => text.to_owned(),
        Ok(text) if !text.chars().any(char::is_control) => format!("'{}'", text.replace('\'', r"'\''")),
        _ => {
            let shown = bytes.iter().map(|&byte| match byte {
                b'\'' | b'\\' => format!("\\{}", char::from(byte)),
                b' '..=b'~' => char::from(byte).to_string(),
                _ => format!("\\x{byte:02x}"),
            });
            format!("$'{}'", shown.collect::<String>())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_shell_reads_what_was_meant() {
        let arguments: [&[u8]; 12] = [
            b"bundles/2b-it",
            b"",
            b"two words",
            b"it's",
            b"$HOME `x` \"y\" \\z",
            b"*",
            b"a;b&c|d",
            b"~",
            b"n\xc3\xa4her",
            b"line\nbreak",
            b"\xff\xfe'\\",
            b"#x",
        ];
        for argument in arguments {
            let script = format!("printf %s {}", quote(OsStr::from_bytes(argument)));
            let output = Command::new("bash").args(["-c", &script]).output().unwrap();
            assert_eq!(output.stdout, argument, "{script}");
        }
        assert_eq!(quote("bundles/2b-it"), "bundles/2b-it");
    }
}
