//! `agent-cli top`: a fleet, live.

use std::time::Duration;

use tokio::sync::mpsc::{self, Sender};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::args::{On, duration};
use crate::exit::Failure;
use crate::fleet::select::Selector;
use crate::output::Format;
use crate::target::Address;
use crate::terminal::{Endings, colours};
use crate::top::device::Device;
use crate::top::draw::{Light, height};
use crate::top::fleet::{Fleet, Next};
use crate::top::follow::{self, Heard};
use crate::top::rates::WINDOW;
use crate::top::terminal::{self, Input, Screen};
use crate::top::{keys, once};

/// Between two pictures, if nobody presses a key.
const PICTURE: Duration = Duration::from_secs(1);
/// How soon it is seen that a device comes or goes.
const SOON: Duration = Duration::from_millis(100);
/// What a daemon takes at least.
const LEAST: Duration = Duration::from_millis(100);
/// News that wait to be taken.
const NEWS: usize = 256;

/// Arguments of `agent-cli top`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  agent-cli top
  agent-cli top --to all
  agent-cli top --to site=north --every 5s
  agent-cli top --to all --once --format json

Keys: ? explains them, q quits.")]
pub(crate) struct Args {
    #[command(flatten)]
    on: On,
    /// These devices of the inventory, as in `agent-cli deploy`; may be repeated
    #[arg(long, value_name = "SELECTOR")]
    to: Vec<Selector>,
    /// How often each device tells how it is; at least 100ms
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    every: Duration,
    /// Print one table and end; needs no terminal. Times are then those since each daemon started
    #[arg(long)]
    once: bool,
    /// How to print with --once; json gives one object on a line for each device
    #[arg(long, value_enum, default_value_t = Format::Text, requires = "once")]
    format: Format,
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    if args.every < LEAST {
        return Err(Failure::Usage(format!("--every {:?} is too often: at least 100ms", args.every)));
    }
    let devices = args.on.devices(&args.to)?;
    if args.once {
        return once::run(devices, args.every, args.format, args.to.is_empty()).await;
    }
    if !terminal::is_there() {
        return Err(Failure::Usage(
            "`agent-cli top` needs a terminal that understands escape sequences (TERM is not `dumb`). Without one, `agent-cli \
             top --once` prints the same table once, `agent-cli status --watch` prints what changes, and `agent-cli telemetry` \
             prints what was measured"
                .to_owned(),
        ));
    }
    Watch::new(devices, args.every).run().await
}

/// The view while it runs.
struct Watch {
    fleet: Fleet,
    devices: Vec<(String, Address)>,
    every: Duration,
    start: Instant,
    colour: bool,
    /// Whose log is read, by which task.
    log: Option<(usize, AbortHandle)>,
}

impl Watch {
    fn new(devices: Vec<(String, Address)>, every: Duration) -> Self {
        let known = |(name, address): &(String, Address)| Device::new(name.clone(), address.target.to_string());
        let fleet = Fleet::new(devices.iter().map(known).collect());
        Self { fleet, devices, every, start: Instant::now(), colour: colours(&std::io::stdout()), log: None }
    }

    fn now(&self) -> Duration {
        WINDOW + self.start.elapsed()
    }

    async fn run(mut self) -> Result<(), Failure> {
        let (out, mut news) = mpsc::channel::<Heard>(NEWS);
        let mut tasks = JoinSet::new();
        for (place, (_, address)) in self.devices.iter().enumerate() {
            tasks.spawn(follow::device(place, address.clone(), self.every, out.clone()));
        }
        let mut endings = Endings::listen()?;
        let mut suspensions = terminal::suspensions()?;
        let mut screen = Screen::take()?;
        let mut input = terminal::input();
        let mut picture = Instant::now();
        loop {
            tokio::select! {
                () = sleep_until(picture) => {
                    self.show(&mut screen)?;
                    picture = Instant::now() + PICTURE.min(self.every.max(LEAST));
                }
                Some((place, heard)) = news.recv() => {
                    if self.fleet.take(place, self.now(), heard) {
                        picture = picture.min(Instant::now() + SOON);
                    }
                }
                typed = input.recv() => {
                    let Some(typed) = typed else { return Ok(()) };
                    match self.typed(typed, &screen) {
                        Next::Quit => return Ok(()),
                        Next::Suspend => screen.suspend()?,
                        Next::Go => {}
                    }
                    self.read_log(&mut tasks, &out);
                    self.show(&mut screen)?;
                }
                Some(Err(error)) = tasks.join_next() => {
                    // A page that was closed ends the reading of its log.
                    if !error.is_cancelled() {
                        return Err(Failure::Failed(format!("this program failed: {error}")));
                    }
                }
                Some(()) = suspensions.recv() => {
                    screen.suspend()?;
                    self.show(&mut screen)?;
                }
                failure = endings.next() => return Err(failure),
            }
        }
    }

    fn typed(&mut self, typed: Input, screen: &Screen) -> Next {
        let Input::Key(key) = typed else { return Next::Go };
        keys::action(key, &self.fleet).map_or(Next::Go, |action| self.fleet.act(action, height(screen.area())))
    }

    fn show(&self, screen: &mut Screen) -> Result<(), Failure> {
        screen.show(&self.fleet, &Light { now: self.now(), clock: follow::clock(), colour: self.colour })
    }

    /// Reads the log of the device whose page is open, and of no other.
    fn read_log(&mut self, tasks: &mut JoinSet<()>, out: &Sender<Heard>) {
        let page = self.fleet.page();
        if self.log.as_ref().map(|(place, _)| *place) == page {
            return;
        }
        if let Some((_, task)) = self.log.take() {
            task.abort();
        }
        if let Some((place, (_, address))) = page.and_then(|place| Some((place, self.devices.get(place)?))) {
            let task = tasks.spawn(follow::log(place, address.clone(), out.clone()));
            self.log = Some((place, task));
        }
    }
}
