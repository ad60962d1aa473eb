//! Work on long texts: beside the threads that serve calls, a few at a time and so many bytes at a time, and with a bound on
//! those that wait.

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::violations::RequestError;

/// Texts worked on at the same time: the engine needs the cores.
const AT_ONCE: usize = 2;
/// Texts that may wait for their turn.
const WAITING: usize = 16;

/// Bytes of texts worked on at the same time. Tokenizing takes more than a hundred bytes of memory for each. A longer text is
/// worked on alone.
const BYTES_AT_ONCE: u32 = 1 << 20;

/// Where the daemon does this work.
pub(super) static LONG_TEXTS: LongTexts = LongTexts::new(AT_ONCE, WAITING, BYTES_AT_ONCE);

/// Turns to work, and places to wait for one.
pub(super) struct LongTexts {
    turns: Semaphore,
    /// One for each text that is worked on or waits.
    places: Semaphore,
    waiting: usize,
    bytes: Semaphore,
    most_bytes: u32,
}

impl LongTexts {
    const fn new(at_once: usize, waiting: usize, most_bytes: u32) -> Self {
        Self {
            turns: Semaphore::const_new(at_once),
            places: Semaphore::const_new(at_once + waiting),
            waiting,
            bytes: Semaphore::const_new(most_bytes as usize),
            most_bytes,
        }
    }

    /// Does `work` on so many bytes when its turn comes. A caller that goes away while it waits gives up its place; work that has begun
    /// keeps its turn until it ends, whether or not its caller is still there.
    ///
    /// # Errors
    /// As many texts wait as may, or the work panicked.
    pub(super) async fn run<T: Send + 'static>(
        &'static self,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, RequestError> {
        let place = self.places.try_acquire().map_err(|_| RequestError::Busy { limit: self.waiting })?;
        let turn = self.turns.acquire().await;
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.most_bytes);
        let bytes = self.bytes.acquire_many(bytes).await;
        let result = spawn_blocking(move || {
            let _until_done = (place, turn, bytes);
            work()
        });
        result.await.map_err(|_| RequestError::Bundle("the bundle's tokenizer failed on this text".into()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures_util::poll;

    use super::*;

    #[tokio::test]
    async fn what_finds_no_place_is_refused_and_what_waits_is_done_later() {
        static TEXTS: LongTexts = LongTexts::new(1, 1, 10);
        let (release, held) = mpsc::channel::<()>();
        let mut first = Box::pin(TEXTS.run(1, move || held.recv().is_ok()));
        let mut second = Box::pin(TEXTS.run(1, || 2));
        assert!(poll!(&mut first).is_pending());
        assert!(poll!(&mut second).is_pending());
        assert_eq!(TEXTS.run(1, || 3).await, Err(RequestError::Busy { limit: 1 }));
        release.send(()).unwrap();
        assert_eq!((first.await, second.await), (Ok(true), Ok(2)));
        assert_eq!(TEXTS.run(1, || 4).await, Ok(4));
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_frees_its_place_but_not_the_turn_of_work_that_runs() {
        static TEXTS: LongTexts = LongTexts::new(1, 1, 10);
        let (release, held) = mpsc::channel::<()>();
        let mut running = Box::pin(TEXTS.run(1, move || held.recv().is_ok()));
        assert!(poll!(&mut running).is_pending());
        drop(running);
        let mut waiting = Box::pin(TEXTS.run(1, || 2));
        assert!(poll!(&mut waiting).is_pending());
        drop(waiting);
        let mut next = Box::pin(TEXTS.run(1, || 3));
        assert!(poll!(&mut next).is_pending());
        release.send(()).unwrap();
        assert_eq!(next.await, Ok(3));
    }

    #[tokio::test]
    async fn so_many_bytes_are_worked_on_at_once() {
        static TEXTS: LongTexts = LongTexts::new(8, 8, 10);
        let (release, held) = mpsc::channel::<()>();
        let mut first = Box::pin(TEXTS.run(6, move || held.recv().is_ok()));
        let mut second = Box::pin(TEXTS.run(5, || 2));
        let mut longest = Box::pin(TEXTS.run(usize::MAX, || 3));
        assert!(poll!(&mut first).is_pending());
        for _ in 0..20 {
            tokio::task::yield_now().await;
            assert!(poll!(&mut second).is_pending());
            assert!(poll!(&mut longest).is_pending());
        }
        release.send(()).unwrap();
        assert_eq!((first.await, second.await, longest.await), (Ok(true), Ok(2), Ok(3)));
    }

    #[tokio::test]
    async fn work_that_panics_gives_its_turn_back() {
        static TEXTS: LongTexts = LongTexts::new(1, 0, 10);
        for _ in 0..3 {
            assert!(matches!(TEXTS.run(1, || panic!("on purpose")).await, Err::<(), _>(RequestError::Bundle(_))));
        }
    }
}
