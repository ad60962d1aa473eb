//! `agent-cli models`: the models that a daemon keeps.

mod pull;

use comfy_table::{CellAlignment, Table, presets};
use recurve_proto::v1::{Model, ModelStage};
use serde::Serialize;

use crate::args::On;
use crate::client::models::Operator;
use crate::exit::Failure;
use crate::output::{self, Format};

/// Arguments of `agent-cli models`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  agent-cli models
  agent-cli models pull oci://registry.local:5000/models/2b-it:1.0
  agent-cli models remove sha256:8e0bf7e4")]
pub(crate) struct Args {
    #[command(flatten)]
    on: On,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text, global = true)]
    format: Format,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List them; the same as no action
    List,
    /// Have the daemon fetch a model from an OCI registry, to be served later
    Pull(pull::Args),
    /// Remove one that is neither active nor the one to go back to
    Remove {
        /// Its digest, or the beginning of it
        #[arg(value_name = "DIGEST")]
        bundle: String,
    },
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let mut operator = Operator::connect(&args.on).await?;
    match args.action {
        None | Some(Action::List) => list(&mut operator, args.format).await,
        Some(Action::Pull(given)) => pull::run(&mut operator, &given, args.format).await,
        Some(Action::Remove { bundle }) => remove(&mut operator, &bundle, args.format).await,
    }
}

async fn list(operator: &mut Operator, format: Format) -> Result<(), Failure> {
    let mut models = operator.list().await?;
    // What is served first, then what is gone back to; the others by name.
    models.sort_by(|a, b| {
        let key = |model: &Model| (!model.active, !model.previous);
        key(a).cmp(&key(b)).then_with(|| (&a.name, &a.bundle).cmp(&(&b.name, &b.bundle)))
    });
    if format == Format::Json {
        return output::json(&models.iter().map(Listed::from).collect::<Vec<_>>());
    }
    if models.is_empty() {
        return output::line("no models: give it one with `agent-cli deploy BUNDLE`");
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["model", "digest", "stage", "bytes", ""]);
    for model in &models {
        let digest: String = model.bundle.chars().take("sha256:".len() + 12).collect();
        table.add_row([name(model), &digest, stage(model), &model.bytes.to_string(), &role(model)]);
    }
    if let Some(column) = table.column_mut(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    output::line(&table.trim_fmt())
}

async fn remove(operator: &mut Operator, beginning: &str, format: Format) -> Result<(), Failure> {
    let models = operator.list().await?;
    let hex = |digest: &str| digest.strip_prefix("sha256:").unwrap_or(digest).to_owned();
    let wanted = hex(beginning);
    let found: Vec<&Model> = models.iter().filter(|model| hex(&model.bundle).starts_with(&wanted)).collect();
    let [model] = found.as_slice() else {
        return Err(Failure::Usage(format!(
            "{} models of {} have a digest that begins with {beginning:?}: one is needed; `agent-cli models` lists them",
            found.len(),
            operator.target()
        )));
    };
    let freed = operator.remove(model.bundle.clone()).await?;
    match format {
        Format::Json => output::json(&Removed { bundle: &model.bundle, freed }),
        Format::Text => output::line(&format!("{} is removed; {freed} bytes are free again", model.bundle)),
    }
}

fn name(model: &Model) -> &str {
    if model.name.is_empty() { "(not whole)" } else { &model.name }
}

fn stage(model: &Model) -> &'static str {
    match model.stage() {
        ModelStage::Received => "received",
        ModelStage::Verified => "verified",
        ModelStage::Prepared => "prepared",
        ModelStage::Confirmed => "confirmed",
        ModelStage::Unspecified => "unknown",
    }
}

fn role(model: &Model) -> String {
    let role = match (model.active, model.previous) {
        (true, _) => "active",
        (false, true) => "before",
        (false, false) => "",
    };
    match model.failure.as_str() {
        "" => role.to_owned(),
        failure => format!("{role} failed: {failure}").trim_start().to_owned(),
    }
}

#[derive(Debug, Serialize)]
struct Listed<'a> {
    model: &'a str,
    bundle: &'a str,
    stage: &'static str,
    bytes: u64,
    active: bool,
    previous: bool,
    /// Why the daemon went back from it by itself; null where it did not.
    failure: Option<&'a str>,
}

impl<'a> From<&'a Model> for Listed<'a> {
    fn from(model: &'a Model) -> Self {
        Self {
            model: &model.name,
            bundle: &model.bundle,
            stage: stage(model),
            bytes: model.bytes,
            active: model.active,
            previous: model.previous,
            failure: Some(model.failure.as_str()).filter(|failure| !failure.is_empty()),
        }
    }
}

#[derive(Debug, Serialize)]
struct Removed<'a> {
    bundle: &'a str,
    freed: u64,
}
