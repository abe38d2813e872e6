//! The threads that sessions live on: one runtime of one thread for each core.
//!
//! A session stays on the worker that it was given to, so its two sockets, its timer and its gate
//! shard are never touched by another core. `doc/architecture.md` has the measurements.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use futures_util::future::join_all;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};

type Job = Box<dyn FnOnce(usize) + Send>;

/// All workers.
#[derive(Debug)]
pub struct Workers {
    workers: Vec<Worker>,
}

#[derive(Debug)]
struct Worker {
    jobs: mpsc::UnboundedSender<Job>,
    /// Tasks that it has.
    load: Arc<AtomicUsize>,
}

impl Workers {
    /// Starts this many.
    pub fn start(count: usize) -> io::Result<Self> {
        let workers = (0..count).map(Worker::start).collect::<io::Result<_>>()?;
        Ok(Workers { workers })
    }

    /// Completes when each worker has had a turn.
    pub async fn turn(&self) {
        let turns = self.workers.iter().map(|worker| {
            let (done, turn) = oneshot::channel();
            let job = move |_| {
                // The receiver may be gone.
                let _ = done.send(());
            };
            let _ = worker.jobs.send(Box::new(job));
            turn
        });
        join_all(turns).await;
    }

    /// Runs a task on the worker that has the fewest. `make` is called there.
    ///
    /// The task must keep its seat, all of it, for as long as it runs. (Wrapping it here instead would make
    /// every session's memory larger by the size of its future, which the wrapper holds twice.)
    pub fn spawn<F>(&self, make: impl FnOnce(Seat) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(worker) = self.workers.iter().min_by_key(|worker| worker.load()) else { return };
        worker.load.fetch_add(1, Ordering::Relaxed);
        let load = worker.load.clone();
        let job = move |number| {
            tokio::spawn(make(Seat { worker: number, load }));
        };
        // A worker ends with the process only.
        let _ = worker.jobs.send(Box::new(job));
    }
}

/// A task's place on a worker.
#[derive(Debug)]
pub struct Seat {
    /// The worker's number.
    pub worker: usize,
    load: Arc<AtomicUsize>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.load.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Worker {
    fn start(number: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (jobs, mut received) = mpsc::unbounded_channel::<Job>();
        thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
            runtime.block_on(async {
                while let Some(job) = received.recv().await {
                    job(number);
                }
            });
        })?;
        Ok(Worker { jobs, load: Arc::default() })
    }

    fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn tasks_that_come_one_after_another_are_spread() {
        let workers = Workers::start(2).expect("threads");
        let (send, receive) = mpsc::channel();
        for _ in 0..8 {
            let send = send.clone();
            workers.spawn(move |seat| async move {
                // The whole seat, not a copy of its number.
                let seat = seat;
                send.send(seat.worker).expect("the test listens");
                std::future::pending::<()>().await;
            });
            receive.recv().expect("the task runs");
        }
        assert_eq!(workers.workers.iter().map(Worker::load).collect::<Vec<_>>(), [4, 4]);
    }
}
