//! The command line. The only file that reads the environment.

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
    /// Continue a prompt; the text streams as it is made
    Generate(command::generate::Args),
    /// Talk in the terminal; Ctrl-C stops an answer, not the program
    Chat(command::chat::Args),
    /// Tell how probable a text is to the model, token by token
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
    /// Serve the model that was active before, on a daemon or a fleet
    Rollback(command::rollback::Args),
    /// Gather the history of daemons, and tell how they did
    Telemetry(command::telemetry::Args),
    /// Tell what daemons serve, and what went wrong there
    Status(command::status::Args),
    /// Watch daemons live: load, times, temperatures, alarms
    Top(command::top::Args),
    /// Show what daemons logged
    Logs(command::logs::Args),
    /// Describe a daemon's node, change its settings, drain it, tell who changed it
    Node(command::node::Args),
    /// Look for what is wrong with a machine, and say what to do about it
    Doctor(command::doctor::Args),
    /// List the models of a daemon, or remove one
    Models(command::models::Args),
    /// Sign bundles, and say whose signatures a daemon believes
    Trust(command::trust::Args),
    /// Keep the inventory: which devices there are
    Devices(command::devices::Args),
    /// Print a script that completes this command line in a shell
    Completions(command::completions::Args),
    /// Write the manual pages into a folder
    Man(command::man::Args),
}

/// Which daemon.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct On {
    /// The daemon to ask: a name of the inventory, host:port, or unix:/path. Default: the socket
    /// /run/recurve/recurved.sock where it exists, else 127.0.0.1:50051
    #[arg(long = "on", value_name = "TARGET", env = "RECURVE_ON", hide_env_values = true, global = true)]
    target: Option<String>,
    #[command(flatten)]
    fleet: Fleet,
    /// The certificate in PEM of the authority that knows the daemon: TLS, for daemons that other machines can reach
    #[arg(long, value_name = "FILE", env = "RECURVE_CA", hide_env_values = true, global = true, help_heading = TLS)]
    ca: Option<PathBuf>,
    /// Your own certificate in PEM, of the authority that the daemon asks
    #[arg(long, value_name = "FILE", env = "RECURVE_CERTIFICATE", hide_env_values = true, global = true, help_heading = TLS)]
    certificate: Option<PathBuf>,
    /// Your certificate's private key in PEM
    #[arg(long, value_name = "FILE", env = "RECURVE_KEY", hide_env_values = true, global = true, help_heading = TLS)]
    key: Option<PathBuf>,
}

const TLS: &str = "TLS, where the inventory does not say it";

impl On {
    /// The address that was asked for, or the default one.
    pub(crate) fn address(&self) -> Result<Address, Failure> {
        match self.target.as_deref() {
            Some(name) if target::is_name(name) => self.device(&self.fleet.on(name)?),
            on => {
                let target = target::resolve(on, Path::new(target::LOCAL_SOCKET))?;
                // Whoever may open a Unix socket is known by that.
                let tcp = matches!(target, Target::Tcp { .. });
                let certificates = if tcp { self.certificates()?.map(|files| files.read()).transpose()? } else { None };
                Ok(Address { target, certificates })
            }
        }
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
        match self.target.as_deref() {
            Some(name) if to.is_empty() && target::is_name(name) => Ok(vec![(name.to_owned(), self.address()?)]),
            _ => self.devices(to),
        }
    }

    /// Only the names of these, without any certificates; none where nothing was named.
    pub(crate) fn names(&self, to: &[Selector]) -> Result<Option<Vec<String>>, Failure> {
        match self.target.as_deref() {
            _ if !to.is_empty() => {
                Ok(Some(select(to, &self.inventory()?)?.into_iter().map(|device| device.name).collect()))
            }
            Some(name) if target::is_name(name) => Ok(Some(vec![self.fleet.on(name)?.name])),
            on @ Some(_) => Ok(Some(vec![target::resolve(on, Path::new(target::LOCAL_SOCKET))?.to_string()])),
            None => Ok(None),
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
    /// Speak plain HTTP, without encryption. A registry on loopback needs no such word
    #[arg(long)]
    plain_http: bool,
    /// Certificates in PEM of an authority that is trusted beside the system's
    #[arg(long, value_name = "FILE")]
    registry_ca: Option<PathBuf>,
    /// Where the credentials are. Default: those that podman, skopeo and docker keep for this user
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
    /// The inventory of devices. Default: recurve/fleet.toml in $XDG_CONFIG_HOME, else in ~/.config
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
    /// Where it is kept. Default: recurve/telemetry.db in $XDG_DATA_HOME, else in ~/.local/share
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

const SAMPLING: &str = "Sampling (each is the bundle's own where it is not given)";

/// How an answer is made: what `generate` and `chat` have in common.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Generation {
    /// Most tokens to generate. Default: the bundle's own
    #[arg(long, value_name = "N")]
    max_tokens: Option<u32>,
    /// Randomness: 0 always takes the most probable token; 0 to 100
    #[arg(long, help_heading = SAMPLING, value_name = "X", allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// Choose among the K most probable tokens; 0: all
    #[arg(long, help_heading = SAMPLING, value_name = "K")]
    top_k: Option<u32>,
    /// Choose among the most probable tokens that together have probability P; above 0, up to 1; 1: all
    #[arg(long, help_heading = SAMPLING, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Choose among tokens at least P times as probable as the most probable; 0 to 1; 0: all
    #[arg(long, help_heading = SAMPLING, value_name = "P", allow_negative_numbers = true)]
    min_p: Option<f32>,
    /// Make tokens seen among the last 1,024 less likely by this factor; 1: no change
    #[arg(long, help_heading = SAMPLING, value_name = "X", allow_negative_numbers = true)]
    repetition_penalty: Option<f32>,
    /// Subtract X once from the logit of each token seen among the last 1,024; -100 to 100
    #[arg(long, help_heading = SAMPLING, value_name = "X", allow_negative_numbers = true)]
    presence_penalty: Option<f32>,
    /// Subtract X for each time the token was seen among the last 1,024; -100 to 100
    #[arg(long, help_heading = SAMPLING, value_name = "X", allow_negative_numbers = true)]
    frequency_penalty: Option<f32>,
    /// Add VALUE to the logit of token ID, such as 17=-100; may be repeated
    #[arg(long, help_heading = SAMPLING, value_name = "ID=VALUE", value_parser = logit_bias)]
    logit_bias: Vec<(u32, f32)>,
    /// Repeat an answer: the same seed, prompt and settings give the same tokens. Default: drawn at random
    #[arg(long, help_heading = SAMPLING, value_name = "N")]
    seed: Option<u64>,
    /// End before this text, at most 256 bytes; may be repeated up to 16 times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Go on after the model's end-of-text token, up to --max-tokens
    #[arg(long)]
    ignore_eos: bool,
    /// Let interactive requests go first
    #[arg(long)]
    background: bool,
    /// Give up after this time, such as 500ms, 30s or 2m. Default: wait
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// Tell tokens, times and seed on standard error
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

/// `ID=VALUE`.
fn logit_bias(text: &str) -> Result<(u32, f32), String> {
    let (id, value) = text.split_once('=').ok_or("write ID=VALUE, such as 17=-100")?;
    let id = id.parse().map_err(|_| format!("{id:?} is not a token id"))?;
    let value = value.parse().map_err(|_| format!("{value:?} is not a number"))?;
    Ok((id, value))
}

/// A time above zero with its unit: `500ms`, `1.5s`, `2m`, `1h`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("write a number and a unit: 500ms, 30s, 2m or 1h".to_owned()),
    };
    let number: f64 = number.parse().map_err(|_| format!("{number:?} is not a number"))?;
    // A gRPC deadline has at most eight digits; a year is far below what it can say.
    const LONGEST: f64 = 365.0 * 24.0 * 3600.0;
    let seconds = number * seconds;
    if !(0.001..=LONGEST).contains(&seconds) {
        return Err("the time must be from 1ms to 8760h".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// As [`duration`], or `0s`.
pub(crate) fn duration_or_none(text: &str) -> Result<Duration, String> {
    if matches!(text, "0" | "0s") { Ok(Duration::ZERO) } else { duration(text) }
}

/// Token ids, separated by commas or spaces: `2,17,30`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tokens(pub(crate) Vec<u32>);

impl std::str::FromStr for Tokens {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ids: Vec<u32> = text
            .split([',', ' ', '\t', '\r', '\n'])
            .filter(|part| !part.is_empty())
            .map(|part| part.parse().map_err(|_| format!("{part:?} is not a token id: write ids such as 2,17,30")))
            .collect::<Result<_, _>>()?;
        if ids.is_empty() {
            return Err("no token ids: write ids such as 2,17,30".to_owned());
        }
        Ok(Self(ids))
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

    #[test]
    fn times_need_a_unit_and_a_sensible_size() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3600)));
        for wrong in ["", "30", "s", "-1s", "0s", "1d", "1..2s", "99999999h", "0.1ms", "ms", "1 s"] {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn token_ids_are_separated_by_commas_or_spaces() {
        assert_eq!("2,17, 30\n".parse(), Ok(Tokens(vec![2, 17, 30])));
        assert_eq!("2 17".parse(), Ok(Tokens(vec![2, 17])));
        for wrong in ["", " ", ",", "2,x", "-1", "4294967296", "[2]"] {
            assert!(wrong.parse::<Tokens>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_logit_bias_is_an_id_and_a_number() {
        assert_eq!(logit_bias("17=-100"), Ok((17, -100.0)));
        for wrong in ["17", "=1", "a=1", "17=", "17=x"] {
            assert!(logit_bias(wrong).is_err(), "{wrong:?}");
        }
    }
}
