//! The node in one line, as `systemctl status` shows it.

use crate::progress::Part;

/// What there is to say of the node at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) life: Life,
    /// Another model is being loaded, or the first one.
    pub(super) loading: Option<Part>,
    /// Why none of the models that there are is served.
    pub(super) trouble: Option<String>,
    /// An operator told it to take no new requests.
    pub(super) draining: bool,
    /// The model still has to prove itself.
    pub(super) probation: bool,
}

/// Where it is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Life {
    Starting,
    Empty,
    Serving { model: String, streams: u64, waiting: usize },
    Switching,
    Stopping { streams: u64 },
}

impl Snapshot {
    /// The line.
    pub(super) fn line(&self) -> String {
        let loading = self.loading.as_ref().map(loading);
        match (&self.life, loading) {
            (Life::Starting, None) => "starting".to_owned(),
            (Life::Starting, Some(loading)) => loading,
            (Life::Empty, None) if self.trouble.is_some() => {
                format!("no model can be served: {}", self.trouble.as_deref().unwrap_or_default())
            }
            (Life::Empty, None) => "no model yet: deploy one with `agent-cli deploy`".to_owned(),
            (Life::Empty, Some(loading)) => format!("no model yet; {loading}"),
            (Life::Switching, None) => "changing models".to_owned(),
            (Life::Switching, Some(loading)) => format!("changing models: {loading}"),
            (Life::Stopping { streams: 0 }, _) => "stopping".to_owned(),
            (Life::Stopping { streams }, _) => format!("stopping: {} left", count(*streams, "stream")),
            (Life::Serving { model, streams, waiting }, loading) => {
                let mut line = self.serving(model, *streams, *waiting);
                if let Some(loading) = loading {
                    line.push_str("; ");
                    line.push_str(&loading);
                }
                line
            }
        }
    }

    fn serving(&self, model: &str, streams: u64, waiting: usize) -> String {
        if self.draining {
            return match streams {
                0 => "drained: no new requests until `agent-cli node resume` or a restart".to_owned(),
                _ => format!("draining: {} left", count(streams, "stream")),
            };
        }
        let streams = match streams {
            0 => "idle".to_owned(),
            _ => count(streams, "stream"),
        };
        let waiting = if waiting > 0 { format!(", {waiting} waiting") } else { String::new() };
        let probation = if self.probation { " (on probation)" } else { "" };
        format!("serving {model}{probation}: {streams}{waiting}")
    }
}

fn loading(part: &Part) -> String {
    match part.percent() {
        100 => format!("loading {}: weights are in memory, preparing", part.model),
        percent => format!("loading {}: {percent} % of its weights", part.model),
    }
}

fn count(number: u64, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serving(streams: u64, waiting: usize) -> Snapshot {
        let life = Life::Serving { model: "m".into(), streams, waiting };
        Snapshot { life, loading: None, trouble: None, draining: false, probation: false }
    }

    fn part(done: u64) -> Option<Part> {
        Some(Part { model: "n".into(), done, total: 1000 })
    }

    #[test]
    fn each_state_has_its_words() {
        let of = |life, loading| Snapshot { life, loading, trouble: None, draining: false, probation: false }.line();
        for (line, expected) in [
            (of(Life::Starting, None), "starting"),
            (of(Life::Starting, part(404)), "loading n: 40 % of its weights"),
            (of(Life::Starting, part(1000)), "loading n: weights are in memory, preparing"),
            (of(Life::Empty, None), "no model yet: deploy one with `agent-cli deploy`"),
            (of(Life::Switching, part(0)), "changing models: loading n: 0 % of its weights"),
            (of(Life::Stopping { streams: 1 }, None), "stopping: 1 stream left"),
            (serving(0, 0).line(), "serving m: idle"),
            (serving(3, 2).line(), "serving m: 3 streams, 2 waiting"),
            (Snapshot { probation: true, ..serving(1, 0) }.line(), "serving m (on probation): 1 stream"),
            (Snapshot { draining: true, ..serving(2, 0) }.line(), "draining: 2 streams left"),
            (
                Snapshot { loading: part(500), ..serving(0, 0) }.line(),
                "serving m: idle; loading n: 50 % of its weights",
            ),
        ] {
            assert_eq!(line, expected);
        }
        let trouble = Snapshot { life: Life::Empty, trouble: Some("its graph is damaged".into()), ..serving(0, 0) };
        assert_eq!(trouble.line(), "no model can be served: its graph is damaged");
        assert!(Snapshot { draining: true, ..serving(0, 0) }.line().starts_with("drained"));
    }
}
