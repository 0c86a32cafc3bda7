//! A few threads that work through jobs and hand the results back in order.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

/// Does every job, at most `threads` at a time; `progress` gets the number done, on the caller's thread.
///
/// After a failure no new job begins; those under way are awaited.
///
/// # Errors
/// The failure of the earliest job that failed.
pub(super) fn in_order<T: Sync, R: Send, E: Send>(
    jobs: &[T],
    threads: usize,
    work: impl Fn(&T) -> Result<R, E> + Sync,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<R>, E> {
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (sender, receiver) = mpsc::channel();
    let mut results: Vec<Option<R>> = jobs.iter().map(|_| None).collect();
    let mut failure: Option<(usize, E)> = None;
    std::thread::scope(|scope| {
        for _ in 0..threads.min(jobs.len()) {
            let (sender, next, stop, work) = (sender.clone(), &next, &stop, &work);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(job) = jobs.get(at) else { break };
                    if sender.send((at, work(job))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        let mut done = 0;
        for (at, result) in receiver {
            match result {
                Ok(result) => {
                    results[at] = Some(result);
                    done += 1;
                    progress(done);
                }
                Err(error) => {
                    stop.store(true, Ordering::Relaxed);
                    if failure.as_ref().is_none_or(|(first, _)| at < *first) {
                        failure = Some((at, error));
                    }
                }
            }
        }
    });
    match failure {
        Some((_, error)) => Err(error),
        None => Ok(results.into_iter().flatten().collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn results_come_in_order_and_never_too_many_jobs_at_a_time() {
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let jobs: Vec<u64> = (0..20).collect();
        let work = |&job: &u64| -> Result<u64, ()> {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(20 - job));
            now.fetch_sub(1, Ordering::SeqCst);
            Ok(job * job)
        };
        let mut seen = Vec::new();
        let squares = in_order(&jobs, 3, work, &mut |done| seen.push(done)).unwrap();
        assert_eq!(squares, jobs.iter().map(|j| j * j).collect::<Vec<_>>());
        assert_eq!(seen, (1..=20).collect::<Vec<_>>());
        assert!((2..=3).contains(&most.into_inner()));
    }

    #[test]
    fn the_earliest_failure_is_told_and_ends_the_work() {
        let begun = AtomicUsize::new(0);
        let jobs: Vec<usize> = (0..1000).collect();
        let work = |&job: &usize| {
            begun.fetch_add(1, Ordering::SeqCst);
            if job < 2 {
                Err(job)
            } else {
                std::thread::sleep(Duration::from_millis(1));
                Ok(())
            }
        };
        assert!(in_order(&jobs, 2, work, &mut |_| {}).unwrap_err() < 2);
        assert!(begun.into_inner() < jobs.len());
        assert_eq!(
            in_order(&[], 2, |job: &usize| Ok::<usize, ()>(*job), &mut |_| {}),
            Ok(vec![])
        );
    }
}
