//! Many devices are asked something short at once.

use tokio::task::JoinSet;

/// Devices that are asked at once.
const ASKED: usize = 32;

/// Asks each device; gives the answers in the devices' order, each with the key that came with it: with its address, or
/// whatever says how it is asked. One that this program failed at is missing.
pub(crate) async fn ask_all<K, A, T, F>(devices: impl IntoIterator<Item = (K, A)>, ask: impl Fn(A) -> F) -> Vec<(K, T)>
where
    K: Send + 'static,
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let mut open = devices.into_iter().enumerate();
    let (mut asked, mut answers) = (JoinSet::new(), Vec::new());
    loop {
        while asked.len() < ASKED
            && let Some((place, (key, address))) = open.next()
        {
            let answer = ask(address);
            asked.spawn(async move { (place, key, answer.await) });
        }
        match asked.join_next().await {
            Some(Ok(answer)) => answers.push(answer),
            // It panicked, which was said on standard error.
            Some(Err(_)) => {}
            None => break,
        }
    }
    answers.sort_by_key(|(place, ..)| *place);
    answers.into_iter().map(|(_, key, answer)| (key, answer)).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::target::{Address, Target};

    #[tokio::test]
    async fn answers_come_in_the_devices_order() {
        let address = |port: u16| Address { target: Target::Tcp { host: "gw".to_owned(), port }, certificates: None };
        let devices = (1..=50).map(|port| (port, address(port)));
        let ask = |address: Address| async move {
            let Target::Tcp { port, .. } = address.target else { return 0 };
            // The later ones answer first.
            tokio::time::sleep(Duration::from_millis(u64::from(50 - port))).await;
            port
        };
        let answers = ask_all(devices, ask).await;
        assert!(answers.len() == 50 && answers.iter().all(|(key, port)| key == port), "{answers:?}");
    }
}
