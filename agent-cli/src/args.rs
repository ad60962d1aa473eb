//! The command line. The only file that reads the environment.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, Subcommand};
use recurve_proto::v1::generate_request::Prompt;
use recurve_proto::v1::{GenerateRequest, Priority, Sampling};
use recurve_registry::{Access, AuthFile, Credentials, Repository, Retry};

use crate::command;
use crate::exit::{self, Failure};
use crate::fleet::inventory::{Device, Inventory};
use crate::fleet::select::{Selector, select};
use crate::target::{self, Address, CertificateFiles, Target};
pub(crate) use crate::values::{Tokens, duration, duration_or_none};
use crate::values::{decimal, logit_bias, whole};

/// Exports RecurrentGemma checkpoints to bundles, and talks to the daemons that serve them.
#[derive(Debug, Parser)]
#[command(name = "agent-cli", version, after_help = exit::help(), max_term_width = 110)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Generate an answer to a prompt, and print it as it arrives
    Generate(command::generate::Args),
    /// Hold a conversation in the terminal; Ctrl-C stops the answer, not the program
    Chat(command::chat::Args),
    /// Print the log-probability of each token of a text
    Score(command::score::Args),
    /// Turn text into token ids
    Tokenize(command::tokenize::Args),
    /// Turn token ids into text
    Detokenize(command::detokenize::Args),
    /// Measure how fast a daemon answers
    Bench(command::bench::Args),
    /// Turn a Hugging Face checkpoint into a bundle that a daemon can serve
    Export(command::export::Args),
    /// Show what is in a bundle, verify it, or compare two
    Bundle(command::bundle::Args),
    /// Push a bundle to an OCI registry
    Push(command::push::Args),
    /// Pull a bundle from an OCI registry
    Pull(command::pull::Args),
    /// Send a bundle to a daemon or a fleet, have it tested there, and serve it
    Deploy(command::deploy::Args),
    /// Return a daemon or a fleet to the model that was active before
    Rollback(command::rollback::Args),
    /// Collect the history of daemons, and summarize it
    Telemetry(command::telemetry::Args),
    /// Show what daemons serve, and their last failure
    Status(command::status::Args),
    /// Watch daemons live: load, times, temperatures, alarms
    Top(command::top::Args),
    /// Show the log of daemons
    Logs(command::logs::Args),
    /// Describe a daemon, change its settings, drain it, or show who changed it
    Node(command::node::Args),
    /// Diagnose a machine, and say how to mend what is wrong
    Doctor(command::doctor::Args),
    /// List the models of a daemon, or remove one
    Models(command::models::Args),
    /// Sign bundles, and manage the signatures that a daemon accepts
    Trust(command::trust::Args),
    /// List, add, change and remove the devices of the inventory
    Devices(command::devices::Args),
    /// Print a completion script for a shell
    Completions(command::completions::Args),
    /// Write the manual pages into a folder
    Man(command::man::Args),
}

/// Which daemon.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct On {
    /// The daemon to connect to: the name of a device in the inventory, host:port, or unix:/path. Default: the socket
    /// /run/recurve/recurved.sock if it exists, else 127.0.0.1:50051
    #[arg(long = "on", value_name = "TARGET", env = "RECURVE_ON", hide_env_values = true, global = true)]
    target: Option<OsString>,
    #[command(flatten)]
    fleet: Fleet,
    /// The CA certificate (PEM) that signed the daemon's certificate. Switches TLS on
    #[arg(long, value_name = "FILE", env = "RECURVE_CA", hide_env_values = true, global = true, help_heading = TLS)]
    ca: Option<PathBuf>,
    /// Your own certificate (PEM), signed by a CA that the daemon accepts
    #[arg(long, value_name = "FILE", env = "RECURVE_CERTIFICATE", hide_env_values = true, global = true, help_heading = TLS)]
    certificate: Option<PathBuf>,
    /// The private key (PEM) of your certificate
    #[arg(long, value_name = "FILE", env = "RECURVE_KEY", hide_env_values = true, global = true, help_heading = TLS)]
    key: Option<PathBuf>,
}

const TLS: &str = "TLS, where the inventory does not say it";

impl On {
    /// The address that was asked for, or the default one.
    pub(crate) fn address(&self) -> Result<Address, Failure> {
        match self.name() {
            Some(name) => self.device(&self.fleet.on(name)?),
            None => {
                let target = target::resolve(self.target.as_deref(), Path::new(target::LOCAL_SOCKET))?;
                // Whoever may open a Unix socket is known by that.
                let tcp = matches!(target, Target::Tcp { .. });
                let certificates = if tcp { self.certificates()?.map(|files| files.read()).transpose()? } else { None };
                Ok(Address { target, certificates })
            }
        }
    }

    /// The name of the inventory that stands where an address may stand.
    fn name(&self) -> Option<&str> {
        self.target.as_deref().and_then(OsStr::to_str).filter(|text| target::is_name(text))
    }

    /// The devices that selectors mean; without any the one daemon, called by its address.
    pub(crate) fn devices(&self, to: &[Selector]) -> Result<Vec<(String, Address)>, Failure> {
        if to.is_empty() {
            let address = self.address()?;
            return Ok(vec![(address.target.to_string(), address)]);
        }
        let named = |device: Device| Ok((device.name.clone(), self.device(&device)?));
        select(to, &self.inventory()?)?.into_iter().map(named).collect()
    }

    /// The same, where a device of the inventory keeps its name when `--on` names it.
    pub(crate) fn named(&self, to: &[Selector]) -> Result<Vec<(String, Address)>, Failure> {
        match self.name() {
            Some(name) if to.is_empty() => Ok(vec![(name.to_owned(), self.address()?)]),
            _ => self.devices(to),
        }
    }

    /// Only the names of these, without any certificates; none where nothing was named.
    pub(crate) fn names(&self, to: &[Selector]) -> Result<Option<Vec<String>>, Failure> {
        match (self.name(), self.target.as_deref()) {
            _ if !to.is_empty() => {
                Ok(Some(select(to, &self.inventory()?)?.into_iter().map(|device| device.name).collect()))
            }
            (Some(name), _) => Ok(Some(vec![self.fleet.on(name)?.name])),
            (None, on @ Some(_)) => Ok(Some(vec![target::resolve(on, Path::new(target::LOCAL_SOCKET))?.to_string()])),
            (None, None) => Ok(None),
        }
    }

    /// The address of a device of the inventory: its own TLS comes before what the command line says.
    fn device(&self, device: &Device) -> Result<Address, Failure> {
        let files = match (&device.target, &device.tls) {
            (Target::Unix(_), _) => None,
            (Target::Tcp { .. }, Some(own)) => Some(own.clone()),
            (Target::Tcp { .. }, None) => self.certificates()?,
        };
        Ok(Address { target: device.target.clone(), certificates: files.map(|files| files.read()).transpose()? })
    }

    /// The inventory.
    fn inventory(&self) -> Result<Inventory, Failure> {
        self.fleet.inventory()
    }

    /// The files for TLS, where it is asked for.
    fn certificates(&self) -> Result<Option<CertificateFiles>, Failure> {
        let own = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
            (None, None) => None,
            _ => return Err(Failure::Usage("--certificate and --key go together: give both, or neither".to_owned())),
        };
        match &self.ca {
            Some(ca) => Ok(Some(CertificateFiles { ca: ca.clone(), own })),
            None if own.is_some() => {
                Err(Failure::Usage("--certificate needs --ca, the authority that knows the daemon".to_owned()))
            }
            None => Ok(None),
        }
    }
}

/// How a registry is reached, and as whom.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RegistryArgs {
    /// Use plain HTTP, without encryption. Not needed for a registry on loopback
    #[arg(long)]
    plain_http: bool,
    /// CA certificates (PEM) to trust in addition to the system's
    #[arg(long, value_name = "FILE")]
    registry_ca: Option<PathBuf>,
    /// The file with the credentials. Default: the files of podman, skopeo and docker for this user
    #[arg(long, value_name = "FILE", env = "REGISTRY_AUTH_FILE", hide_env_values = true)]
    auth_file: Option<PathBuf>,
}

impl RegistryArgs {
    /// The way to a repository.
    pub(crate) fn access(&self, repository: &Repository) -> Result<Access, Failure> {
        let authority = self.registry_ca.as_ref().map(|path| {
            std::fs::read(path).map_err(|error| Failure::Usage(format!("cannot read {}: {error}", path.display())))
        });
        Ok(Access {
            credentials: self.credentials(repository)?,
            plain_http: self.plain_http,
            authority: authority.transpose()?,
            retry: Retry::PATIENT,
        })
    }

    /// The first credentials that fit: of the file that was named, or of the user's own in their usual order.
    pub(crate) fn credentials(&self, repository: &Repository) -> Result<Option<Credentials>, Failure> {
        let files = match &self.auth_file {
            Some(path) => vec![path.clone()],
            None => usual_auth_files().into_iter().filter(|path| path.exists()).collect(),
        };
        for path in files {
            let file = AuthFile::read(&path).map_err(|error| Failure::Usage(error.to_string()))?;
            if let Some(found) = file.find(repository) {
                return Ok(Some(found.clone()));
            }
        }
        Ok(None)
    }
}

/// Where podman, skopeo and docker keep credentials, in the order in which podman looks (containers-auth.json(5)).
#[expect(clippy::disallowed_methods, reason = "this is the one file that reads the environment")]
fn usual_auth_files() -> Vec<PathBuf> {
    let dir = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = dir("HOME");
    let config = dir("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
    let docker = dir("DOCKER_CONFIG").or_else(|| Some(home.as_ref()?.join(".docker")));
    [
        dir("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json")),
        config.map(|dir| dir.join("containers/auth.json")),
        docker.map(|dir| dir.join("config.json")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Which inventory.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Fleet {
    /// The inventory of devices. Default: recurve/fleet.toml in $XDG_CONFIG_HOME, or in ~/.config
    #[arg(long, value_name = "FILE", env = "RECURVE_FLEET", hide_env_values = true, global = true)]
    fleet: Option<PathBuf>,
}

impl Fleet {
    /// Where it is, or would be.
    pub(crate) fn path(&self) -> Result<PathBuf, Failure> {
        match &self.fleet {
            Some(path) => Ok(path.clone()),
            None => default_inventory().ok_or_else(|| {
                Failure::Usage(
                    "there is no home directory to look for the inventory in: name it with --fleet".to_owned(),
                )
            }),
        }
    }

    /// The inventory.
    pub(crate) fn inventory(&self) -> Result<Inventory, Failure> {
        Inventory::read(&self.path()?)
    }

    /// The device with this name, which stood where an address may stand too.
    fn on(&self, name: &str) -> Result<Device, Failure> {
        let path = self.path()?;
        if !path.exists() {
            return Err(Failure::Usage(format!(
                "--on {name:?} (or RECURVE_ON) has no port: write `{name}:50051`. It could be a name of the inventory {}, but that \
                 does not exist",
                path.display()
            )));
        }
        Inventory::read(&path)?.device(name).cloned().map_err(|failure| match failure {
            Failure::Usage(words) => {
                Failure::Usage(format!("--on {name:?} (or RECURVE_ON): {words}; for an address, write `{name}:50051`"))
            }
            failure => failure,
        })
    }
}

/// Where gathered telemetry is.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Telemetry {
    /// The database with the collected history. Default: recurve/telemetry.db in $XDG_DATA_HOME, or in ~/.local/share
    #[arg(long, value_name = "FILE", env = "RECURVE_TELEMETRY_STORE", hide_env_values = true)]
    store: Option<PathBuf>,
}

impl Telemetry {
    /// The file; none where there is no home directory.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        self.store.clone().or_else(|| Some(xdg("XDG_DATA_HOME", ".local/share")?.join("recurve/telemetry.db")))
    }
}

/// The inventory's file.
fn default_inventory() -> Option<PathBuf> {
    Some(xdg("XDG_CONFIG_HOME", ".config")?.join("recurve/fleet.toml"))
}

/// The folder that the XDG rules give: a relative path counts as none.
#[allow(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
fn xdg(variable: &str, in_home: &str) -> Option<PathBuf> {
    let folder = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    folder(variable).or_else(|| Some(folder("HOME")?.join(in_home)))
}

/// Whether colours are unwanted, as <https://no-color.org> says it.
#[expect(clippy::disallowed_methods, reason = "this is the one file that reads the environment")]
pub(crate) fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// Whether the terminal understands no escape sequences: `TERM` is `dumb`, or not set.
#[expect(clippy::disallowed_methods, reason = "this is the one file that reads the environment")]
pub(crate) fn dumb_terminal() -> bool {
    std::env::var_os("TERM").is_none_or(|term| term == "dumb")
}

const SAMPLING: &str = "Sampling (each is the bundle's own where it is not given)";

/// How an answer is made: what `generate` and `chat` have in common.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Generation {
    /// Maximum number of tokens to generate. Default: the bundle's
    #[arg(long, value_name = "N", value_parser = whole::<u32>(0..=u64::from(u32::MAX)))]
    max_tokens: Option<u32>,
    /// Randomness, 0 to 100; 0 always takes the most probable token
    #[arg(long, help_heading = SAMPLING, value_name = "X", value_parser = decimal)]
    temperature: Option<f32>,
    /// Choose among the K most probable tokens; 0: all
    #[arg(long, help_heading = SAMPLING, value_name = "K", value_parser = whole::<u32>(0..=u64::from(u32::MAX)))]
    top_k: Option<u32>,
    /// Choose among the most probable tokens that together have probability P; above 0, up to 1; 1: all
    #[arg(long, help_heading = SAMPLING, value_name = "P", value_parser = decimal)]
    top_p: Option<f32>,
    /// Choose among tokens at least P times as probable as the most probable; 0 to 1; 0: all
    #[arg(long, help_heading = SAMPLING, value_name = "P", value_parser = decimal)]
    min_p: Option<f32>,
    /// Make tokens seen among the last 1,024 less likely by this factor; 0.01 to 100; 1: no change
    #[arg(long, help_heading = SAMPLING, value_name = "X", value_parser = decimal)]
    repetition_penalty: Option<f32>,
    /// Subtract X once from the logit of each token seen among the last 1,024; -100 to 100
    #[arg(long, help_heading = SAMPLING, value_name = "X", value_parser = decimal)]
    presence_penalty: Option<f32>,
    /// Subtract X for each time the token was seen among the last 1,024; -100 to 100
    #[arg(long, help_heading = SAMPLING, value_name = "X", value_parser = decimal)]
    frequency_penalty: Option<f32>,
    /// Add VALUE to the logit of token ID, such as 17=-100; may be repeated
    #[arg(long, help_heading = SAMPLING, value_name = "ID=VALUE", value_parser = logit_bias)]
    logit_bias: Vec<(u32, f32)>,
    /// Seed of the random choices: the same seed, prompt and settings repeat an answer while the same kernels compute. A daemon
    /// with `engine.kernels = "auto"` (the default) may choose others when it starts again. Default: random
    #[arg(long, help_heading = SAMPLING, value_name = "N", value_parser = whole::<u64>(0..=u64::MAX))]
    seed: Option<u64>,
    /// Stop before this text (at most 256 bytes); may be repeated up to 16 times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Continue after the model's end-of-text token, up to --max-tokens
    #[arg(long)]
    ignore_eos: bool,
    /// Give this request a lower priority than interactive ones
    #[arg(long)]
    background: bool,
    /// Give up after this time, such as 500ms, 30s or 2m. Default: no limit
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// Print tokens, times and the seed to standard error
    #[arg(long)]
    pub(crate) stats: bool,
}

impl Generation {
    /// A request with these settings; what was not given stays unset.
    pub(crate) fn request(&self, prompt: Prompt) -> GenerateRequest {
        let priority = if self.background { Priority::Background } else { Priority::Interactive };
        GenerateRequest {
            prompt: Some(prompt),
            sampling: Some(self.sampling()),
            max_tokens: self.max_tokens,
            stop: self.stop.clone(),
            ignore_eos: self.ignore_eos,
            top_logprobs: None,
            priority: priority.into(),
            read_control_tokens: false,
        }
    }

    fn sampling(&self) -> Sampling {
        Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            logit_bias: self.logit_bias.iter().copied().collect(),
            seed: self.seed,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
