//! Devices are asked for their histories, many at once, and one thread keeps what they say.

use std::sync::Arc;
use std::time::Duration;

use recurve_proto::v1::TelemetryResponse;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::Store;
use super::write::Start;
use crate::client::node::{History, Node};
use crate::exit::Failure;
use crate::fleet::ask::ask_all;
use crate::status::Trouble;
use crate::target::Address;

/// Orders that wait for the thread. Who asks a device waits until its last message is kept, so that each has at most one.
const WAITING: usize = 4;
/// Histories that are read at once: a message of each is in memory, which may be several megabytes.
const READING: usize = 8;
/// How often a device is asked anew because it is another one than was expected.
const TRIES: usize = 3;

/// What became of a device.
#[derive(Debug)]
pub(crate) struct Gathered {
    /// Its name.
    pub(crate) device: String,
    /// Its history; none where nothing was heard of it.
    pub(crate) store: Option<String>,
    /// Records that were not here before.
    pub(crate) new: u64,
    /// Why not all of its history is here.
    pub(crate) trouble: Option<Trouble>,
}

impl Gathered {
    /// Of a device that nobody asked.
    pub(crate) fn nothing(device: String) -> Self {
        Self { device, store: None, new: 0, trouble: None }
    }
}

/// What the thread that owns the file is asked to do.
enum Order {
    StartByName { device: String, reply: Reply<Start> },
    Start { store: String, reply: Reply<Start> },
    Keep { device: String, store: String, message: TelemetryResponse, reply: Reply<u64> },
    Complete { store: String, reply: Reply<()> },
}

type Reply<T> = oneshot::Sender<Result<T, Failure>>;

/// Gathers what each device has since the last time; where there is nothing of it, what ended after `since`.
pub(crate) async fn gather(
    store: Store,
    devices: Vec<(String, Address)>,
    since: i64,
    patience: Duration,
) -> Result<(Store, Vec<Gathered>), Failure> {
    let (orders, inbox) = mpsc::channel(WAITING);
    let (done, ended) = oneshot::channel();
    std::thread::Builder::new()
        .name("telemetry store".to_owned())
        .spawn(move || {
            // Nobody waits where the command was interrupted.
            let _ = done.send(write(store, since, inbox));
        })
        .map_err(|error| Failure::Failed(format!("cannot start a thread: {error}")))?;
    let keeper = Keeper { orders, reading: Arc::new(Semaphore::new(READING)) };
    let asked = devices.into_iter().map(|(device, address)| (device.clone(), (device, address)));
    let ask = move |(device, address)| one(keeper.clone(), device, address, patience);
    // Dropped with its last copy of the orders' sender, so that the thread ends.
    let gathered = ask_all(asked, ask).await;
    let store = ended.await.map_err(|_| lost())?;
    Ok((store, gathered.into_iter().map(|(_, gathered)| gathered).collect()))
}

/// Carries out orders until nobody gives any.
fn write(mut store: Store, since: i64, mut inbox: mpsc::Receiver<Order>) -> Store {
    while let Some(order) = inbox.blocking_recv() {
        // Who asked may have gone away.
        match order {
            Order::StartByName { device, reply } => drop(reply.send(store.start_by_name(&device, since))),
            Order::Start { store: of, reply } => drop(reply.send(store.start(of, since))),
            Order::Keep { device, store: of, message, reply } => {
                drop(reply.send(store.keep(&device, &of, since, &message)));
            }
            Order::Complete { store: of, reply } => drop(reply.send(store.complete(&of, since))),
        }
    }
    store
}

/// Gives orders to the thread.
#[derive(Clone)]
struct Keeper {
    orders: mpsc::Sender<Order>,
    /// Who may read a history.
    reading: Arc<Semaphore>,
}

impl Keeper {
    async fn ask<T>(&self, order: impl FnOnce(Reply<T>) -> Order) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        self.orders.send(order(reply)).await.map_err(|_| lost())?;
        answer.await.map_err(|_| lost())?
    }
}

fn lost() -> Failure {
    Failure::Failed("the thread that keeps telemetry ended before its time".to_owned())
}

async fn one(keeper: Keeper, device: String, address: Address, patience: Duration) -> Gathered {
    let mut gathered = Gathered::nothing(device);
    gathered.trouble = follow(&keeper, &address, patience, &mut gathered).await.err();
    gathered
}

async fn follow(
    keeper: &Keeper,
    address: &Address,
    patience: Duration,
    gathered: &mut Gathered,
) -> Result<(), Trouble> {
    let device = gathered.device.clone();
    let start = keeper.ask(|reply| Order::StartByName { device: device.clone(), reply }).await?;
    let mut node = Node::at(address, patience).await?;
    let Some((store, mut history, first)) = begun(keeper, &mut node, start).await? else { return Ok(()) };
    gathered.store = Some(store.clone());
    // A device that cannot be reached, or does not answer, has none of these places.
    let _reading = keeper.reading.acquire().await.map_err(|_| lost())?;
    let mut next = Some(first);
    while let Some(message) = next {
        let (device, of) = (device.clone(), store.clone());
        gathered.new += keeper.ask(|reply| Order::Keep { device, store: of, message, reply }).await?;
        next = history.next().await?;
    }
    Ok(keeper.ask(|reply| Order::Complete { store, reply }).await?)
}

/// Asks for the history from where this one goes on: the device may have another name than before, or another history.
async fn begun(
    keeper: &Keeper,
    node: &mut Node,
    mut start: Start,
) -> Result<Option<(String, History, TelemetryResponse)>, Trouble> {
    for _ in 0..TRIES {
        let mut history = node.telemetry(start.request()).await?;
        let Some(first) = history.next().await? else { return Ok(None) };
        let store = first.store.clone();
        if store.is_empty() {
            return Err(Failure::Failed("the device does not say whose history it sends".to_owned()).into());
        }
        let known = keeper.ask(|reply| Order::Start { store: store.clone(), reply }).await?;
        // One that is named as it was asked for may have gone on under another run's hands: what is here already stays.
        if store == start.store || known.same(&start) {
            return Ok(Some((store, history, first)));
        }
        start = known;
    }
    Err(Failure::Failed("the device begins its history anew again and again: try later".to_owned()).into())
}
