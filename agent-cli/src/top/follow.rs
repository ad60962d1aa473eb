//! Devices are listened to, and called again when they are lost.

use std::time::Duration;

use recurve_proto::v1::{LogLevel, LogsRequest};
use tokio::sync::mpsc::Sender;
use tokio::time::sleep;

use super::device::News;
use crate::client::operate::Node;
use crate::status::Trouble;
use crate::target::Address;

/// News of the device at a place of the fleet.
pub(crate) type Heard = (usize, News);

/// How long a device may be silent before it is asked for a sign of life.
const PATIENCE: Duration = Duration::from_secs(5);
/// The pause before a lost device is called again: it doubles from the first to the last.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Log lines that a page begins with.
const LINES: u32 = 50;

/// The pause after this one.
pub(crate) fn longer(pause: Duration) -> Duration {
    (pause * 2).min(PAUSES.1)
}

/// The pause before a device that was lost is called again for the first time.
pub(crate) fn shortest() -> Duration {
    PAUSES.0
}

/// The time on the wall.
pub(crate) fn clock() -> String {
    chrono::Local::now().format("%H:%M:%S").to_string()
}

/// Listens to a device for as long as anybody listens to us.
pub(crate) async fn device(place: usize, address: Address, every: Duration, out: Sender<Heard>) {
    let mut pause = PAUSES.0;
    loop {
        let mut told = false;
        let trouble = match listen(place, &address, every, &out, &mut told).await {
            Ok(()) => return,
            Err(trouble) => trouble,
        };
        if told {
            pause = PAUSES.0;
        }
        let news = News::Away { clock: clock(), why: trouble.words, refuses: !trouble.lost };
        if out.send((place, news)).await.is_err() {
            return;
        }
        sleep(pause).await;
        pause = longer(pause);
    }
}

/// Over one connection; ends well only if nobody listens any more.
async fn listen(
    place: usize,
    address: &Address,
    every: Duration,
    out: &Sender<Heard>,
    told: &mut bool,
) -> Result<(), Trouble> {
    let mut node = Node::at(address, PATIENCE).await?;
    let mut stream = node.watch(every).await?;
    let silent = every * 3 + PATIENCE;
    while let Some(message) = stream.next_within(silent).await? {
        *told = true;
        if out.send((place, News::Told(Box::new(message)))).await.is_err() {
            return Ok(());
        }
    }
    Err(Trouble::lost(node.target(), "it ended the connection".to_owned()))
}

/// Reads what a device logs at WARN and above, for as long as anybody wants it.
pub(crate) async fn log(place: usize, address: Address, out: Sender<Heard>) {
    let mut pause = PAUSES.0;
    loop {
        let news = match read(place, &address, &out).await {
            Ok(()) => News::NoLog("it ended".to_owned()),
            Err(trouble) => News::NoLog(trouble.words),
        };
        if out.send((place, news)).await.is_err() {
            return;
        }
        sleep(pause).await;
        pause = longer(pause);
    }
}

async fn read(place: usize, address: &Address, out: &Sender<Heard>) -> Result<(), Trouble> {
    let mut node = Node::at(address, PATIENCE).await?;
    let level = LogLevel::Warn.into();
    let mut stream = node.logs(LogsRequest { level, last: LINES, follow: true, ..LogsRequest::default() }).await?;
    let mut heard = out.send((place, News::LogBegins)).await;
    while heard.is_ok()
        && let Some(message) = stream.next().await?
    {
        heard = out.send((place, News::Logged(message.lines))).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::client::operate::fake::Fake;

    #[test]
    fn pauses_grow_up_to_a_bound() {
        let pauses = std::iter::successors(Some(shortest()), |pause| Some(longer(*pause)));
        let seconds: Vec<u64> = pauses.take(7).map(|pause| pause.as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 30, 30]);
    }

    #[tokio::test]
    async fn a_device_that_goes_and_comes_again_is_heard_again() {
        let served = Fake { instance: "a", lines: 0 }.serve(0);
        let port = served.port;
        let (out, mut heard) = mpsc::channel(1);
        let listening = tokio::spawn(device(7, served.address.clone(), Duration::from_secs(1), out));
        let (place, News::Told(told)) = heard.recv().await.unwrap() else { panic!("it is there") };
        assert_eq!((place, told.state.unwrap().instance.as_str()), (7, "a"));
        drop(served);
        let (_, News::Away { refuses, .. }) = heard.recv().await.unwrap() else { panic!("it is gone") };
        assert!(!refuses);
        let _again = Fake { instance: "b", lines: 0 }.serve(port);
        let told = loop {
            if let (_, News::Told(told)) = heard.recv().await.unwrap() {
                break told;
            }
        };
        // What it said before it went may still have been under way.
        assert!(["a", "b"].contains(&told.state.unwrap().instance.as_str()));
        drop(heard);
        listening.await.unwrap();
    }

    #[tokio::test]
    async fn the_log_of_a_page_begins_with_the_newest_lines() {
        let served = Fake { instance: "a", lines: 60 }.serve(0);
        let (out, mut heard) = mpsc::channel(1);
        let reading = tokio::spawn(log(0, served.address.clone(), out));
        assert!(matches!(heard.recv().await, Some((0, News::LogBegins))));
        let Some((0, News::Logged(lines))) = heard.recv().await else { panic!("there are lines") };
        assert_eq!((lines.len(), lines[0].number), (50, 11));
        reading.abort();
    }
}
