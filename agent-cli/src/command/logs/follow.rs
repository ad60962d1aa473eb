//! Lines as they come, from one life of a daemon to the next.

use recurve_proto::v1::{LogsRequest, LogsResponse};
use tokio::sync::mpsc::{self, Sender};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{PATIENCE, Print, partly};
use crate::client::operate::Node;
use crate::exit::Failure;
use crate::output;
use crate::status::Trouble;
use crate::target::Address;
use crate::top::follow::{longer, shortest};

/// Messages that wait to be printed.
const WAITING: usize = 64;

/// What is heard of a device.
enum Heard {
    Lines(LogsResponse),
    /// Something to tell beside the lines.
    Aside(String),
    /// It refuses; nothing more comes of it.
    Over(Trouble),
}

/// Follows the logs of these devices until Ctrl-C, or until all of them refuse.
pub(super) async fn run(devices: Vec<(String, Address)>, request: LogsRequest, print: Print) -> Result<(), Failure> {
    let (out, mut heard) = mpsc::channel(WAITING);
    let count = devices.len();
    let names: Vec<String> = devices.iter().map(|(name, _)| name.clone()).collect();
    // They end when this does.
    let mut tasks = JoinSet::new();
    for (place, (_, address)) in devices.into_iter().enumerate() {
        let reader = Reader { place, request: request.clone(), instance: None, patient: print.many, out: out.clone() };
        tasks.spawn(reader.run(address));
    }
    drop(out);
    let mut failures = Vec::new();
    while let Some((place, heard)) = heard.recv().await {
        let name = names.get(place).map_or("", String::as_str);
        match heard {
            Heard::Lines(message) => {
                print.lost(name, message.lost);
                message.lines.iter().try_for_each(|line| print.line(name, line))?;
            }
            Heard::Aside(words) => output::aside(&format!("agent-cli: {name}: {words}")),
            Heard::Over(trouble) => failures.push((name.to_owned(), trouble)),
        }
    }
    partly(failures, count, print.many)
}

struct Reader {
    place: usize,
    /// What is still to be read.
    request: LogsRequest,
    /// The life of the daemon that the lines are of.
    instance: Option<String>,
    /// It need not be there at the beginning.
    patient: bool,
    out: Sender<(usize, Heard)>,
}

impl Reader {
    async fn run(mut self, address: Address) {
        let (mut pause, mut waiting) = (shortest(), false);
        loop {
            let mut heard = false;
            let trouble = match self.read(&address, &mut waiting, &mut heard).await {
                Ok(()) => return,
                Err(trouble) => trouble,
            };
            if !(trouble.lost && (self.patient || self.instance.is_some())) {
                let _ = self.out.send((self.place, Heard::Over(trouble))).await;
                return;
            }
            if heard {
                pause = shortest();
            }
            if !waiting {
                waiting = true;
                if self.aside(format!("{}; waiting for it", trouble.words)).await.is_err() {
                    return;
                }
            }
            sleep(pause).await;
            pause = longer(pause);
        }
    }

    async fn aside(&self, words: String) -> Result<(), mpsc::error::SendError<(usize, Heard)>> {
        self.out.send((self.place, Heard::Aside(words))).await
    }

    /// Over one connection; ends well only if nobody reads any more.
    async fn read(&mut self, address: &Address, waiting: &mut bool, heard: &mut bool) -> Result<(), Trouble> {
        let mut node = Node::at(address, PATIENCE).await?;
        let instance = node.describe().await?.state.unwrap_or_default().instance;
        let words = self.resume(&instance);
        if let Some(words) = words.filter(|_| *waiting)
            && self.aside(words.to_owned()).await.is_err()
        {
            return Ok(());
        }
        *waiting = false;
        let mut told = node.logs(self.request.clone()).await?;
        while let Some(message) = told.next().await? {
            *heard = true;
            if let Some(line) = message.lines.last() {
                self.request.after = line.number;
                self.request.last = 0;
            }
            if self.out.send((self.place, Heard::Lines(message))).await.is_err() {
                return Ok(());
            }
        }
        Err(Trouble::lost(node.target(), "it ended the connection".to_owned()))
    }

    /// Goes on where it stopped, or at the beginning of a new life; what to tell of that.
    fn resume(&mut self, instance: &str) -> Option<&'static str> {
        match self.instance.replace(instance.to_owned()) {
            Some(before) if before != instance => {
                self.request.after = 0;
                self.request.last = 0;
                Some("it was started again: its lines are counted anew")
            }
            _ => Some("it is there again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::operate::fake::Fake;

    #[test]
    fn a_new_life_is_read_from_its_beginning() {
        let request = LogsRequest { last: 100, ..LogsRequest::default() };
        let mut reader = Reader { place: 0, request, instance: None, patient: false, out: mpsc::channel(1).0 };
        assert_eq!(reader.resume("a"), Some("it is there again"));
        assert_eq!((reader.request.after, reader.request.last), (0, 100));
        (reader.request.after, reader.request.last) = (17, 0);
        assert_eq!(reader.resume("a"), Some("it is there again"));
        assert_eq!(reader.request.after, 17);
        assert_eq!(reader.resume("b"), Some("it was started again: its lines are counted anew"));
        assert_eq!((reader.request.after, reader.request.last), (0, 0));
    }

    #[tokio::test]
    async fn lines_go_on_over_a_restart() {
        let numbers = |heard: Heard| match heard {
            Heard::Lines(message) => message.lines.iter().map(|line| line.number).collect::<Vec<_>>(),
            Heard::Aside(words) => panic!("{words}"),
            Heard::Over(trouble) => panic!("{trouble:?}"),
        };
        let served = Fake { instance: "a", lines: 5 }.serve(0);
        let port = served.port;
        let (out, mut heard) = mpsc::channel(1);
        let request = LogsRequest { last: 2, follow: true, ..LogsRequest::default() };
        let reader = Reader { place: 0, request, instance: None, patient: false, out };
        let reading = tokio::spawn(reader.run(served.address.clone()));
        assert_eq!(numbers(heard.recv().await.unwrap().1), [4, 5]);
        drop(served);
        let Some((0, Heard::Aside(words))) = heard.recv().await else { panic!("that it waits is told") };
        assert!(words.ends_with("; waiting for it"), "{words}");
        let _again = Fake { instance: "b", lines: 3 }.serve(port);
        let Some((0, Heard::Aside(words))) = heard.recv().await else { panic!("that it is back is told") };
        assert_eq!(words, "it was started again: its lines are counted anew");
        assert_eq!(numbers(heard.recv().await.unwrap().1), [1, 2, 3]);
        reading.abort();
    }

    #[tokio::test]
    async fn one_that_is_not_there_at_first_is_an_error() {
        let served = Fake { instance: "a", lines: 0 }.serve(0);
        let address = served.address.clone();
        drop(served);
        let (out, mut heard) = mpsc::channel(1);
        let request = LogsRequest { follow: true, ..LogsRequest::default() };
        Reader { place: 0, request, instance: None, patient: false, out }.run(address).await;
        let Some((0, Heard::Over(trouble))) = heard.recv().await else { panic!("it is over") };
        assert!(trouble.lost, "{trouble:?}");
    }
}
