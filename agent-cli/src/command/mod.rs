//! One file for each subcommand: its arguments and what it does.

pub(crate) mod bench;
pub(crate) mod bundle;
pub(crate) mod chat;
pub(crate) mod completions;
pub(crate) mod deploy;
pub(crate) mod detokenize;
pub(crate) mod devices;
pub(crate) mod export;
pub(crate) mod generate;
pub(crate) mod models;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod rollback;
pub(crate) mod score;
pub(crate) mod status;
pub(crate) mod tokenize;
pub(crate) mod trust;

use tokio::task::JoinSet;

use crate::target::Address;

/// Devices that are asked at once.
const ASKED: usize = 32;

/// Asks many devices at once; gives their answers in the devices' order.
async fn ask_all<T, F>(devices: Vec<(String, Address)>, ask: impl Fn(Address) -> F) -> Vec<(String, T)>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let mut open = devices.into_iter().enumerate();
    let (mut asked, mut answers) = (JoinSet::new(), Vec::new());
    loop {
        while asked.len() < ASKED
            && let Some((place, (device, address))) = open.next()
        {
            let answer = ask(address);
            asked.spawn(async move { (place, device, answer.await) });
        }
        match asked.join_next().await {
            Some(Ok(answer)) => answers.push(answer),
            // It panicked, which was said on standard error.
            Some(Err(_)) => {}
            None => break,
        }
    }
    answers.sort_by_key(|(place, ..)| *place);
    answers.into_iter().map(|(_, device, answer)| (device, answer)).collect()
}
