//! SIGHUP: the configuration is read again. What may change while the node runs is changed, the files of TLS are read anew, and
//! what needs a restart is said.

use std::collections::BTreeMap;

use recurve_telemetry::event;
use serde_json::Value;
use tracing::{error, info, warn};

use crate::config::{Entry, Loaded, Settings, problems};
use crate::operate::Operations;

/// Where systemd shows copies of files to a service (LoadCredential=).
const CREDENTIALS: &str = "/run/credentials";
/// Who changed a setting.
const BY: &str = "SIGHUP";

/// Takes over what can be taken over of this configuration; nothing of one that is wrong.
pub(crate) fn reload(operations: &Operations, loaded: Loaded) {
    let Some(settings) = loaded.settings else {
        error!(
            problems = problems(&loaded.report.problems).trim_end(),
            "the configuration is wrong: nothing was changed"
        );
        return;
    };
    let now = operations.now();
    let values = &loaded.report.values;
    let wanted: BTreeMap<String, String> = values
        .iter()
        .filter_map(|entry| Some((entry.key.to_owned(), text(&entry.value))).filter(|(key, _)| now.contains_key(key)))
        .filter(|(key, value)| now.get(key) != Some(value))
        .collect();
    let changed = if wanted.is_empty() { Ok(Vec::new()) } else { operations.configure(&wanted) };
    match changed {
        Ok(changes) => {
            for change in changes {
                let (key, value) = (change.key, change.after);
                info!(event = event::CONFIGURED.name, key, value, by = BY, "a setting was changed");
            }
        }
        // They were checked when they were read.
        Err(wrong) => {
            for (key, words) in wrong {
                error!(key, "{key} {words}: it was not changed");
            }
        }
    }
    // Certificates are renewed under the same names.
    let mut in_place = Vec::from_iter(now.keys().map(String::as_str));
    if let (Some(tls), Some(files)) = (&operations.tls, &settings.tls) {
        match tls.read_again(files) {
            Ok(()) => {
                let copied = files.certificate.starts_with(CREDENTIALS);
                info!(certificate = %files.certificate.display(), "the files of TLS were read again, for new connections");
                if copied {
                    info!("systemd copied the files of TLS when the service started: new ones need a restart");
                }
                for concern in tls.concerns() {
                    warn!("{concern}");
                }
                in_place.extend(["tls.certificate", "tls.key", "tls.clients"]);
            }
            Err(error) => error!(%error, "the files of TLS are wrong: those that were read before stay"),
        }
    }
    if secrets(&operations.settings) != secrets(&settings) {
        // Its values are shown to nobody, and may be all that differs.
        in_place.push("telemetry.headers");
        warn!(key = "telemetry.headers", "a setting was changed that needs a restart");
    }
    for (key, value) in need_restart(&operations.values, values, &in_place) {
        warn!(key, value, "a setting was changed that needs a restart");
    }
    info!("configuration read again");
}

/// What goes to the collector beside what is measured.
fn secrets(settings: &Settings) -> Option<&[(String, String)]> {
    settings.telemetry.collector.as_ref().map(|collector| collector.headers.as_slice())
}

/// The keys that differ from what the daemon was started with, without those that are changed in place.
fn need_restart<'a>(before: &[Entry], after: &'a [Entry], in_place: &[&str]) -> Vec<(&'a str, String)> {
    let differs = |entry: &&Entry| before.iter().any(|old| old.key == entry.key && old.value != entry.value);
    let others = after.iter().filter(|entry| !in_place.contains(&entry.key)).filter(differs);
    others.map(|entry| (entry.key, text(&entry.value))).collect()
}

/// A value as an environment variable would give it.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;

    #[test]
    fn what_needs_a_restart_is_named() {
        let entry = |key: &'static str, value: Value| Entry { key, value, source: Source::Default };
        let before = [entry("engine.slots", 4.into()), entry("log.level", "info".into()), entry("bundle", Value::Null)];
        let after = [entry("engine.slots", 8.into()), entry("log.level", "debug".into()), entry("bundle", Value::Null)];
        assert_eq!(need_restart(&before, &after, &["log.level"]), [("engine.slots", "8".to_owned())]);
        assert!(need_restart(&before, &before, &[]).is_empty());
    }
}
