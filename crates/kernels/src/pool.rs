//! Threads that share the work of one product.
//!
//! A product takes tens of microseconds to a few milliseconds, and the next one follows at once: threads look for work for
//! a moment before they sleep. Each thread has a share of neighbouring parts and takes them one after another, so that what
//! it reads is one stream; who is done takes what others have left, from the end of their shares, so that a thread which the
//! system holds back delays one part and not half of the product. A thread whose core is wanted by others sleeps at once:
//! what it would spend on looking is taken from its next turn.
//!
//! Who goes to sleep says so and then looks once more; who has news for it tells them and then looks who sleeps. A full
//! fence lies between the two on each side, so that at least one of them sees the other.

#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::thread::{JoinHandle, Thread, ThreadId};
use std::time::{Duration, Instant};

use crate::contention::Contention;

/// How often a waiting thread looks before it asks for the time.
const LOOKS: u32 = 64;

/// Threads that wait for work. The thread that gives the work takes part in it.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Of the thread that gives the work: for as long as it is the same one.
    contention: Option<(ThreadId, Contention)>,
}

type Work<'a> = dyn Fn(usize) + Sync + 'a;

struct Shared {
    /// What each thread has to take, as [`Share`]; the giver's is the first.
    shares: Vec<Aligned>,
    /// The work that parts are being taken of; valid as long as one of its parts is not done.
    work: UnsafeCell<Option<*const Work<'static>>>,
    /// Parts that are not done.
    undone: AtomicUsize,
    giver: UnsafeCell<Option<Thread>>,
    giver_sleeps: AtomicBool,
    sleepers: Vec<AtomicBool>,
    panicked: AtomicBool,
    stop: AtomicBool,
    spin: Duration,
}

/// A share in memory of its own: its thread takes from it while others take from theirs.
#[repr(align(128))]
struct Aligned(AtomicU64);

/// Parts of a work that nobody has taken: in one word, so that taking is one exchange.
#[derive(Clone, Copy)]
struct Share {
    /// Number of the work: a thread that was late finds another one, and its exchange fails.
    work: u32,
    from: u16,
    to: u16,
}

/// Most parts at a time.
const MOST: usize = u16::MAX as usize;

impl Share {
    fn pack(self) -> u64 {
        u64::from(self.work) << 32 | u64::from(self.from) << 16 | u64::from(self.to)
    }

    fn unpack(word: u64) -> Self {
        Self { work: (word >> 32) as u32, from: (word >> 16) as u16, to: word as u16 }
    }

    fn left(self) -> u16 {
        self.to - self.from
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("threads", &self.sleepers.len())
            .field("spin", &self.spin)
            .finish_non_exhaustive()
    }
}

// SAFETY: `work` and `giver` are written by the giver alone, while no part is open or undone; a thread reads them only
// after it took a part, and before it counts that part as done.
unsafe impl Sync for Shared {}
// SAFETY: the pointer in `work` is to something that is `Sync`.
unsafe impl Send for Shared {}

impl Pool {
    /// `threads` in all, with the one that gives the work; each looks for work for `spin` before it sleeps.
    ///
    /// # Errors
    /// The system gives no more threads.
    pub fn new(threads: usize, spin: Duration) -> std::io::Result<Self> {
        let others = threads.saturating_sub(1);
        let shared = Arc::new(Shared {
            shares: (0..=others).map(|_| Aligned(AtomicU64::new(0))).collect(),
            work: UnsafeCell::new(None),
            undone: AtomicUsize::new(0),
            giver: UnsafeCell::new(None),
            giver_sleeps: AtomicBool::new(false),
            sleepers: (0..others).map(|_| AtomicBool::new(false)).collect(),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            spin,
        });
        let mut pool = Self { shared, workers: Vec::new(), contention: None };
        for i in 0..others {
            let shared = Arc::clone(&pool.shared);
            let worker = std::thread::Builder::new().name(format!("kernels-{i}")).spawn(move || shared.serve(i + 1))?;
            pool.workers.push(worker);
        }
        Ok(pool)
    }

    /// Threads in all.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `work` once for each part from 0 to `parts`, on all threads, and returns when all are done.
    ///
    /// # Panics
    /// If the work panics.
    pub fn run(&mut self, parts: usize, work: &Work<'_>) {
        if self.workers.is_empty() || parts <= 1 {
            (0..parts).for_each(work);
            return;
        }
        for first in (0..parts).step_by(MOST) {
            self.run_some((parts - first).min(MOST), &|part| work(first + part));
        }
    }

    /// The same for at most [`MOST`] parts, with other threads.
    fn run_some(&mut self, parts: usize, work: &Work<'_>) {
        let shared = &*self.shared;
        let giver = std::thread::current();
        let (_, contention) = match &mut self.contention {
            Some(known) if known.0 == giver.id() => known,
            other => other.insert((giver.id(), Contention::new())),
        };
        // SAFETY: all parts of the last work are done, so that nobody reads `work` or `giver`; the lifetime is that of this
        // call, which returns only when no thread has the pointer any more.
        unsafe {
            *shared.work.get() = Some(std::mem::transmute::<*const Work<'_>, *const Work<'static>>(work));
            *shared.giver.get() = Some(giver);
        }
        shared.undone.store(parts, Ordering::Relaxed);
        let (threads, number) = (self.workers.len() + 1, shared.share(0).work.wrapping_add(1));
        for (i, share) in shared.shares.iter().enumerate() {
            let [from, to] = [i, i + 1].map(|i| (parts * i / threads) as u16);
            share.0.store(Share { work: number, from, to }.pack(), Ordering::Release);
        }
        fence(Ordering::SeqCst);
        for (sleeper, worker) in shared.sleepers.iter().zip(&self.workers) {
            if sleeper.swap(false, Ordering::Relaxed) {
                worker.thread().unpark();
            }
        }
        while shared.do_part(0) {}
        shared.wait_for_others(contention);
        assert!(!shared.panicked.swap(false, Ordering::Relaxed), "a part of the work panicked");
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Before each `unpark`, which a thread that looked too early finds when it sleeps.
        self.shared.stop.store(true, Ordering::Relaxed);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // It panics nowhere: what the work panics with is caught.
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn share(&self, thread: usize) -> Share {
        Share::unpack(self.shares[thread].0.load(Ordering::Acquire))
    }

    /// Takes a part: the next of the thread's own share, or the last of the largest other one.
    fn take_part(&self, thread: usize) -> Option<usize> {
        if let Some(part) = self.take(thread, |share| (share.from, Share { from: share.from + 1, ..share })) {
            return Some(part);
        }
        loop {
            let others = 0..self.shares.len();
            let most = others.map(|other| (self.share(other).left(), other)).max().filter(|(left, _)| *left > 0)?.1;
            if let Some(part) = self.take(most, |share| (share.to - 1, Share { to: share.to - 1, ..share })) {
                return Some(part);
            }
        }
    }

    /// Takes a part of a share, unless it is empty.
    fn take(&self, thread: usize, how: impl Fn(Share) -> (u16, Share)) -> Option<usize> {
        let share = |word| Some(Share::unpack(word)).filter(|share| share.left() > 0);
        let taken = self.shares[thread]
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| share(word).map(|share| how(share).1.pack()));
        taken.ok().map(|word| usize::from(how(Share::unpack(word)).0))
    }

    /// Takes a part and does it; whether there was one.
    fn do_part(&self, thread: usize) -> bool {
        let Some(part) = self.take_part(thread) else { return false };
        // SAFETY: a part of this work is taken and not done: the giver waits, and the work is alive.
        let done = unsafe {
            let work = (*self.work.get()).map(|work| &*work);
            std::panic::catch_unwind(AssertUnwindSafe(|| work.into_iter().for_each(|work| work(part))))
        };
        if done.is_err() {
            self.panicked.store(true, Ordering::Relaxed);
        }
        // SAFETY: as above. Once the part counts as done, the giver may go on and write here.
        let giver = unsafe { (*self.giver.get()).clone() };
        // Only read: by now another giver may sleep for its own work, and whoever does the last part of that must see so.
        if self.undone.fetch_sub(1, Ordering::AcqRel) == 1 {
            fence(Ordering::SeqCst);
            if self.giver_sleeps.load(Ordering::Relaxed)
                && let Some(giver) = giver
            {
                giver.unpark();
            }
        }
        true
    }

    fn wait_for_others(&self, contention: &mut Contention) {
        let all_done = || self.undone.load(Ordering::Acquire) == 0;
        while !self.look(contention, &all_done) {
            self.giver_sleeps.store(true, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            if !all_done() {
                contention.sleep(std::thread::park);
            }
            self.giver_sleeps.store(false, Ordering::Relaxed);
        }
    }

    fn serve(&self, thread: usize) {
        let open = || (0..self.shares.len()).any(|thread| self.share(thread).left() > 0);
        let mut contention = Contention::new();
        while !self.stop.load(Ordering::Relaxed) {
            if self.look(&mut contention, &open) {
                while self.do_part(thread) {}
                continue;
            }
            let sleeps = &self.sleepers[thread - 1];
            sleeps.store(true, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            if !open() && !self.stop.load(Ordering::Relaxed) {
                contention.sleep(std::thread::park);
            }
            sleeps.store(false, Ordering::Relaxed);
        }
    }

    /// Looks for a while; whether it was seen.
    fn look(&self, contention: &mut Contention, seen: &dyn Fn() -> bool) -> bool {
        let mut until = None;
        loop {
            for _ in 0..LOOKS {
                if seen() {
                    return true;
                }
                std::hint::spin_loop();
            }
            let now = Instant::now();
            if contention.is_there(now) || now >= *until.get_or_insert(now + self.spin) {
                return seen();
            }
        }
    }
}
