//! Whose turn it is: interactive jobs before background ones, and among those the client that has the fewest jobs in the
//! engine; of several such clients the one that was served longest ago; of one client's jobs the oldest.

use std::collections::{HashMap, VecDeque};

use crate::engine::job::{ClientId, Priority};

/// Jobs of several clients.
#[derive(Debug)]
pub(super) struct Queue<T> {
    /// One line a client and priority, the client that was served longest ago first; none is empty.
    lines: Vec<Line<T>>,
    running: HashMap<ClientId, usize>,
}

#[derive(Debug)]
struct Line<T> {
    client: ClientId,
    priority: Priority,
    jobs: VecDeque<T>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { lines: Vec::new(), running: HashMap::new() }
    }
}

impl<T> Queue<T> {
    pub(super) fn len(&self) -> usize {
        self.lines.iter().map(|line| line.jobs.len()).sum()
    }

    pub(super) fn push(&mut self, client: ClientId, priority: Priority, job: T) {
        match self.lines.iter_mut().find(|line| line.client == client && line.priority == priority) {
            Some(line) => line.jobs.push_back(job),
            None => self.lines.push(Line { client, priority, jobs: VecDeque::from([job]) }),
        }
    }

    /// The job whose turn it is; it counts as running until [`Queue::done`].
    pub(super) fn pop(&mut self) -> Option<T> {
        let running = |line: &Line<T>| self.running.get(&line.client).copied().unwrap_or(0);
        // `min_by_key` keeps the first of equal ones.
        let turn = (0..self.lines.len()).min_by_key(|&i| (self.lines[i].priority, running(&self.lines[i])))?;
        let mut line = self.lines.remove(turn);
        let job = line.jobs.pop_front();
        *self.running.entry(line.client.clone()).or_insert(0) += 1;
        if !line.jobs.is_empty() {
            self.lines.push(line);
        }
        job
    }

    /// A job of this client left the engine.
    pub(super) fn done(&mut self, client: &ClientId) {
        if let Some(running) = self.running.get_mut(client) {
            *running = running.saturating_sub(1);
            if *running == 0 {
                self.running.remove(client);
            }
        }
    }

    /// Takes out a job that waits.
    pub(super) fn remove(&mut self, is: impl Fn(&T) -> bool) -> Option<T> {
        let (at, place) = self
            .lines
            .iter()
            .enumerate()
            .find_map(|(at, line)| line.jobs.iter().position(&is).map(|place| (at, place)))?;
        let job = self.lines[at].jobs.remove(place);
        if self.lines[at].jobs.is_empty() {
            self.lines.remove(at);
        }
        job
    }

    /// Takes out every job that waits.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = T> + use<T> {
        std::mem::take(&mut self.lines).into_iter().flat_map(|line| line.jobs)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client(name: &str) -> ClientId {
        ClientId(name.into())
    }

    fn order(jobs: &[(&str, Priority)]) -> Vec<usize> {
        let mut queue = Queue::default();
        for (i, (name, priority)) in jobs.iter().enumerate() {
            queue.push(client(name), *priority, i);
        }
        std::iter::from_fn(|| queue.pop()).collect()
    }

    use Priority::{Background, Interactive};

    #[test]
    fn clients_take_turns() {
        let jobs = [("a", Interactive), ("a", Interactive), ("a", Interactive), ("b", Interactive), ("c", Interactive)];
        assert_eq!(order(&jobs), [0, 3, 4, 1, 2]);
    }

    #[test]
    fn interactive_jobs_come_first() {
        assert_eq!(order(&[("a", Background), ("b", Background), ("a", Interactive)]), [2, 1, 0]);
    }

    #[test]
    fn a_client_with_running_jobs_waits_for_one_with_none() {
        let mut queue = Queue::default();
        queue.push(client("a"), Interactive, 0);
        queue.push(client("a"), Interactive, 1);
        assert_eq!(queue.pop(), Some(0));
        queue.push(client("b"), Interactive, 2);
        assert_eq!(queue.pop(), Some(2));
        queue.done(&client("b"));
        queue.push(client("b"), Interactive, 3);
        assert_eq!((queue.pop(), queue.pop(), queue.pop()), (Some(3), Some(1), None));
    }

    proptest! {
        #[test]
        fn every_job_comes_out_once_and_in_its_clients_order(jobs in prop::collection::vec((0..4u8, any::<bool>()), 0..40), gone in prop::collection::vec(0..40usize, 0..6)) {
            let mut queue = Queue::default();
            for (i, (name, background)) in jobs.iter().enumerate() {
                let priority = if *background { Background } else { Interactive };
                queue.push(client(&name.to_string()), priority, i);
            }
            let removed: Vec<usize> = gone.iter().filter_map(|&g| queue.remove(|&job| job == g)).collect();
            prop_assert_eq!(queue.len(), jobs.len() - removed.len());
            let came: Vec<usize> = std::iter::from_fn(|| queue.pop()).collect();
            let mut all: Vec<usize> = came.iter().chain(&removed).copied().collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..jobs.len()).collect::<Vec<_>>());
            for (name, background) in &jobs {
                let own: Vec<_> = came.iter().filter(|&&i| jobs[i] == (*name, *background)).collect();
                prop_assert!(own.is_sorted());
            }
        }
    }
}
