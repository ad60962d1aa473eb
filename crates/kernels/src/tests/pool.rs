//! Threads that share work.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::Pool;

/// Threads that look for work for a moment, and threads that sleep at once.
fn pools() -> impl Iterator<Item = Pool> {
    (1..=4)
        .flat_map(|threads| [Duration::ZERO, Duration::from_micros(50)].map(|spin| Pool::new(threads, spin).unwrap()))
}

#[test]
fn every_part_once() {
    for mut pool in pools() {
        for parts in (0..40).chain([63, 64, 65, 100, 1000, 4096]) {
            let done: Vec<_> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
            pool.run(parts, &|part| {
                done[part].fetch_add(1, Ordering::Relaxed);
            });
            assert!(done.iter().all(|done| done.load(Ordering::Relaxed) == 1), "{parts} parts of {pool:?}");
        }
    }
}

/// Work follows work at once or after the threads have gone to sleep; what one wrote, the next one sees.
#[test]
fn one_after_another() {
    for mut pool in pools() {
        let sum = AtomicUsize::new(0);
        for round in 0..500 {
            let before = sum.load(Ordering::Relaxed);
            pool.run(7, &|part| {
                assert!(sum.fetch_add(part, Ordering::Relaxed) >= before);
            });
            assert_eq!(sum.load(Ordering::Relaxed), before + 21);
            if round % 100 == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

/// No thread is one too many, and none is needed.
#[test]
fn number_of_threads() {
    for threads in 0..=4 {
        let pool = Pool::new(threads, Duration::ZERO).unwrap();
        assert_eq!(pool.threads(), threads.max(1));
    }
}

#[test]
fn a_part_that_panics() {
    for mut pool in pools() {
        for broken in [0, 5, 9] {
            let done = AtomicUsize::new(0);
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(10, &|part| {
                    done.fetch_add(1, Ordering::Relaxed);
                    assert_ne!(part, broken, "as asked");
                });
            }));
            assert!(result.is_err(), "{pool:?}");
            assert!(done.load(Ordering::Relaxed) <= 10);
            let after = AtomicUsize::new(0);
            pool.run(10, &|_| {
                after.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(after.load(Ordering::Relaxed), 10, "{pool:?}");
        }
    }
}

/// Threads end with their pool, whether they look for work or sleep, whether they ever had some or not.
#[test]
fn dropped() {
    for wait in [0, 2] {
        for mut pool in pools() {
            if pool.threads() % 2 == 0 {
                pool.run(3, &|_| ());
            }
            std::thread::sleep(Duration::from_millis(wait));
            drop(pool);
        }
    }
}

/// The pool may go from thread to thread between works, while a thread that did the last part of one is late in waking the
/// giver of that one.
#[test]
fn given_by_different_threads() {
    for pool in pools() {
        let pool = Mutex::new(pool);
        let done = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        pool.lock().unwrap().run(5, &|_| {
                            done.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(done.load(Ordering::Relaxed), 3 * 500 * 5);
    }
}
