//! Files of TLS in PEM, as both ends of the wire read them: what is wrong with one, in words.

/// What a file must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// At least one certificate.
    Certificate,
    /// A private key without a passphrase.
    PrivateKey,
}

/// Says why a file cannot be used, and what to do. Looks at its form only, not into certificates and keys.
///
/// # Errors
/// The file holds no PEM, or something else than what is wanted.
pub fn check(bytes: &[u8], wanted: Wanted) -> Result<(), String> {
    let labels = labels(bytes);
    let (what, command, fits): (_, _, fn(&str) -> bool) = match wanted {
        Wanted::Certificate => ("certificate", "x509", |label| label == "CERTIFICATE"),
        Wanted::PrivateKey => {
            ("private key", "pkey", |label| matches!(label, "PRIVATE KEY" | "EC PRIVATE KEY" | "RSA PRIVATE KEY"))
        }
    };
    let has = |label: &str| labels.iter().any(|found| found == label);
    let locked = has("ENCRYPTED PRIVATE KEY") || String::from_utf8_lossy(bytes).contains("Proc-Type: 4,ENCRYPTED");
    if wanted == Wanted::PrivateKey && locked {
        return Err("the key is protected by a passphrase, which nobody can type here; \
                    `openssl pkey -in FILE -out NEW` writes it without one"
            .to_owned());
    }
    if labels.iter().any(|label| fits(label)) {
        return Ok(());
    }
    Err(match bytes {
        [] => "the file is empty".to_owned(),
        _ if !labels.is_empty() => format!("it holds no {what} in PEM, but {}", labels.join(", ")),
        // The tag of a sequence in ASN.1, which certificates and keys are.
        [0x30, ..] => format!(
            "it holds no {what} in PEM; it looks like DER, which `openssl {command} -inform der -in FILE -out NEW` converts"
        ),
        _ => format!("it holds no {what} in PEM: there is no line -----BEGIN …-----"),
    })
}

/// The kinds of the blocks in a file, in their order.
fn labels(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let label = |line: &str| line.trim().strip_prefix("-----BEGIN ")?.strip_suffix("-----").map(str::to_owned);
    text.lines().filter_map(label).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_holds_instead_is_named() {
        use Wanted::{Certificate, PrivateKey};
        let block = |label: &str| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n").into_bytes();
        let both = [block("EC PARAMETERS"), block("EC PRIVATE KEY")].concat();
        let old =
            b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nAAAA\n-----END RSA PRIVATE KEY-----\n".to_vec();
        for (bytes, wanted, expected) in [
            (block("CERTIFICATE"), Certificate, None),
            (block("PRIVATE KEY"), PrivateKey, None),
            (both, PrivateKey, None),
            (block("PRIVATE KEY"), Certificate, Some("no certificate in PEM, but PRIVATE KEY")),
            (block("CERTIFICATE"), PrivateKey, Some("no private key in PEM, but CERTIFICATE")),
            (block("CERTIFICATE REQUEST"), Certificate, Some("but CERTIFICATE REQUEST")),
            (block("ENCRYPTED PRIVATE KEY"), PrivateKey, Some("passphrase")),
            (old, PrivateKey, Some("passphrase")),
            (vec![0x30, 0x82, 1, 0], Certificate, Some("openssl x509 -inform der")),
            (vec![0x30, 0x82, 1, 0], PrivateKey, Some("openssl pkey -inform der")),
            (b"fleet".to_vec(), Certificate, Some("no line -----BEGIN")),
            (Vec::new(), PrivateKey, Some("empty")),
        ] {
            let found = check(&bytes, wanted).err();
            match expected {
                None => assert_eq!(found, None),
                Some(part) => assert!(found.as_deref().is_some_and(|found| found.contains(part)), "{part}: {found:?}"),
            }
        }
    }
}
