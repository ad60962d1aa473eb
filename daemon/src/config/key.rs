//! What a key of the configuration is: its path, its default, what its value may be.

/// A key of the configuration.
#[derive(Debug)]
pub(super) struct Key {
    /// Dotted path, as in `engine.threads`.
    pub(super) path: &'static str,
    /// What its value may be.
    pub(super) kind: Kind,
    /// The default as TOML; `None` where the key is not set by default.
    pub(super) default: Option<&'static str>,
    /// The flag of the command line that sets it.
    pub(super) flag: Option<&'static str>,
    /// What it does, with the unit of its value.
    pub(super) doc: &'static str,
}

/// What a value may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number, both bounds allowed.
    Integer {
        /// The least.
        min: u64,
        /// The greatest.
        max: u64,
    },
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A log level, or a list of `TARGET=LEVEL`.
    LogFilter,
    /// A path.
    Path,
    /// A list of addresses.
    Addresses,
    /// A list of registries, perhaps empty.
    Registries,
    /// `http://HOST:PORT` or `https://HOST:PORT`.
    Url,
    /// An IP address and a port.
    Socket,
    /// A list of `NAME=VALUE`, perhaps empty.
    Pairs,
}

impl Kind {
    /// What is allowed, in words.
    pub(super) fn allowed(self) -> String {
        match self {
            Self::Bool => "true or false".into(),
            Self::Integer { min, max } => format!("a whole number from {min} to {max}"),
            Self::Choice(words) => words.join(" or "),
            Self::LogFilter => {
                "off, error, warn, info, debug or trace, or a list such as \"info,recurved::grpc=debug\"".into()
            }
            Self::Path => "a path".into(),
            Self::Addresses => "a list of IP:PORT, localhost:PORT or unix:/PATH".into(),
            Self::Registries => "a list of HOST or HOST:PORT".into(),
            Self::Url => "http://HOST:PORT or https://HOST:PORT".into(),
            Self::Socket => "IP:PORT".into(),
            Self::Pairs => "a list of NAME=VALUE".into(),
        }
    }
}

impl Key {
    /// The environment variable that sets it.
    pub(super) fn variable(&self) -> String {
        variable(self.path)
    }
}

/// What the environment variables begin with.
pub(super) const VARIABLE_PREFIX: &str = "RECURVE_";

/// The environment variable that stands for this path, whether or not there is such a key.
pub(super) fn variable(path: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", path.replace('.', "__").to_uppercase())
}
