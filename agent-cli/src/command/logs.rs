//! `agent-cli logs`: what daemons logged since they started.

mod follow;

use recurve_proto::v1::{LogLevel, LogLine, LogsRequest};

use crate::args::On;
use crate::client::models::PATIENCE;
use crate::client::operate::Node;
use crate::exit::Failure;
use crate::fleet::ask::ask_all;
use crate::fleet::select::Selector;
use crate::output::{self, Format};
use crate::status::Trouble;
use crate::target::Address;
use crate::terminal;
use crate::values::whole;
use crate::view::log;

/// How the time of a line is written: the day stands in it, as logs are kept.
const TIME: &str = "%Y-%m-%d %H:%M:%S%.3f";

/// Arguments of `agent-cli logs`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  agent-cli logs
  agent-cli logs --on gw-1 --follow --level warn
  agent-cli logs --on gw-1 --request 0198c6f2-7d1e-7f00-8000-5b0c1d2e3f40
  agent-cli logs --to all --grep probation --last 0

A daemon keeps its newest lines in memory, since it started; the journal of its system keeps more.")]
pub(crate) struct Args {
    #[command(flatten)]
    on: On,
    /// These devices of the inventory, as in `agent-cli deploy`; may be repeated. Lines are in order of their time
    #[arg(long, value_name = "SELECTOR")]
    to: Vec<Selector>,
    /// Go on with what comes, until Ctrl-C; a daemon that is started again is called again
    #[arg(short, long)]
    follow: bool,
    /// Only lines that contain this, in the message or in a field
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    grep: String,
    /// Only lines of this level and those above
    #[arg(long, value_enum, value_name = "LEVEL")]
    level: Option<Level>,
    /// Only lines of the request with this id
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    request: String,
    /// At most so many of the newest lines of each device; 0: all
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100, value_parser = whole::<u32>(0..=u64::from(u32::MAX)))]
    last: u32,
    /// How to print; json gives one object on a line for each line
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let devices = args.on.devices(&args.to)?;
    let level = match args.level {
        None => LogLevel::Unspecified,
        Some(Level::Error) => LogLevel::Error,
        Some(Level::Warn) => LogLevel::Warn,
        Some(Level::Info) => LogLevel::Info,
        Some(Level::Debug) => LogLevel::Debug,
        Some(Level::Trace) => LogLevel::Trace,
    };
    let request = LogsRequest {
        level: level.into(),
        contains: args.grep,
        request_id: args.request,
        after: 0,
        last: args.last,
        follow: args.follow,
    };
    let many = !args.to.is_empty();
    let wide = devices.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let print = Print { format: args.format, colour: terminal::colours(&std::io::stdout()), many, wide };
    if args.follow {
        return follow::run(devices, request, print).await;
    }
    once(devices, request, print).await
}

/// Prints what there is, in order of time.
async fn once(devices: Vec<(String, Address)>, request: LogsRequest, print: Print) -> Result<(), Failure> {
    let count = devices.len();
    let answers = ask_all(devices, move |address: Address| {
        let request = request.clone();
        async move { all(&address, request).await }
    })
    .await;
    let (mut lines, mut failures) = (Vec::new(), Vec::new());
    for (name, answer) in answers {
        match answer {
            Ok((told, lost)) => {
                print.lost(&name, lost);
                lines.extend(told.into_iter().map(|line| (name.clone(), line)));
            }
            Err(trouble) => failures.push((name, trouble)),
        }
    }
    // Those of one device stay in their own order, whatever its clock did meanwhile.
    if print.many {
        lines.sort_by_key(|(_, line)| line.at.map(|at| (at.seconds, at.nanos)));
    }
    lines.iter().try_for_each(|(name, line)| print.line(name, line))?;
    partly(failures, count, print.many)
}

/// How a command ends that some of the devices failed at; each is told.
pub(super) fn partly(failures: Vec<(String, Trouble)>, count: usize, many: bool) -> Result<(), Failure> {
    let failed = failures.len();
    for (name, trouble) in failures {
        if !many {
            return Err(trouble.failure);
        }
        output::aside(&format!("agent-cli: {name}: {}", trouble.words));
    }
    match failed {
        0 => Ok(()),
        failed => Err(Failure::Partly(format!("{failed} of {count} devices did not do it"))),
    }
}

async fn all(address: &Address, request: LogsRequest) -> Result<(Vec<LogLine>, u64), Trouble> {
    let mut node = Node::at(address, PATIENCE).await?;
    let mut told = node.logs(request).await?;
    let (mut lines, mut lost) = (Vec::new(), 0);
    while let Some(message) = told.next_within(PATIENCE).await? {
        lines.extend(message.lines);
        lost += message.lost;
    }
    Ok((lines, lost))
}

/// How lines are printed.
#[derive(Debug, Clone, Copy)]
struct Print {
    format: Format,
    colour: bool,
    /// Several devices: each line says which.
    many: bool,
    /// Characters of the longest name.
    wide: usize,
}

impl Print {
    fn line(&self, name: &str, line: &LogLine) -> Result<(), Failure> {
        if self.format == Format::Json {
            return output::json(&log::Line::of(name, line));
        }
        let text = log::shown(line, TIME, self.colour);
        let text = if self.many { format!("{name:wide$}  {text}\n", wide = self.wide) } else { text + "\n" };
        output::raw(text.as_bytes())
    }

    fn lost(&self, name: &str, lost: u64) {
        if lost > 0 {
            output::aside(&format!("agent-cli: {name}: {lost} lines left memory before they could be sent"));
        }
    }
}
