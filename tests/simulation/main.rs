//! The crash laboratory: the real domains on one thread and on a clock that only the laboratory moves, under a schedule
//! drawn from a seed. Between any two durable steps the process may die; disks fill up, messages are lost or come
//! twice, the provider of payments is late, silent or forgetful. After each recovery the books of all rooms must agree, and
//! at the end of time `mercat check` must find nothing either.
//!
//! A seed is a whole history. One that breaks a promise is printed with its last steps and happens again when it is
//! asked for: `MERCAT_LAB_SEED=S cargo test --test lab`. `MERCAT_LAB_SEEDS=N` tries N of them, from `MERCAT_LAB_FIRST` on,
//! and with `MERCAT_LAB_GO_ON=1` goes on after one that fails. `MERCAT_LAB_TWICE=N` lives N of them twice and compares.
//! What a run has met is counted and printed: a promise about something that is not met is not tried.
//!
//! What it cannot see: the loss of power and what SQLite finds in its log after it (its own matter; here a process leaves its
//! connections to the next, which saves most of the time), two threads at once, HTTP. The first two are met by the real
//! binary in `tests/e2e/crash.rs`.
#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that is not as it should be")]

mod admin_workload;
mod customer_workload;
mod fake_provider;
mod fault_injector;
mod invariants;
mod rng;
mod scenario;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use scenario::{History, Template};

/// How many seeds an ordinary run tries: the process dies a thousand times in them. No more, because the interface's tests
/// run four times beside it, on all shapes, and all of it is to take less than half an hour on two cores.
const SEEDS: u64 = 300;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Lives through the history of one seed.
fn live(template: &Template, seed: u64, told: bool) -> (Result<(), String>, History) {
    let mut history = History::new(template, seed, told);
    let lived = catch_unwind(AssertUnwindSafe(|| history.live()));
    mercat::fault_injection::enter(None);
    mercat::fault_injection::close();
    let outcome = lived.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("a panic: {}", text.unwrap_or_default()))
    });
    (outcome, history)
}

/// The last steps of a history and the way to it.
fn describe(template: &Template, seed: u64, broken: &str) -> String {
    let (_, history) = live(template, seed, true);
    let steps = history.world.story();
    let last = steps.iter().skip(steps.len().saturating_sub(120)).map(String::as_str).collect::<Vec<_>>().join("\n");
    format!("{last}\n\nseed {seed}: {broken}\nagain: MERCAT_LAB_SEED={seed} cargo test --test lab")
}

#[test]
fn p14_whatever_fails_and_whenever_the_process_dies_every_book_agrees() {
    let template = Template::make();
    if let Some(seed) = number("MERCAT_LAB_SEED") {
        let (outcome, history) = live(&template, seed, true);
        println!("{}", history.world.story().join("\n"));
        assert!(outcome.is_ok(), "seed {seed}: {}", outcome.unwrap_err());
        return;
    }
    let (first, seeds) = (number("MERCAT_LAB_FIRST").unwrap_or(1), number("MERCAT_LAB_SEEDS").unwrap_or(SEEDS));
    let goes_on = number("MERCAT_LAB_GO_ON").is_some();
    let begun = std::time::Instant::now();
    let (next, over, broken) = (AtomicU64::new(first), AtomicBool::new(false), Mutex::new(Vec::new()));
    let tally = Mutex::new(fault_injector::Tally::default());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds {
                        break;
                    }
                    let (outcome, history) = live(&template, seed, false);
                    tally.lock().unwrap().add(&history.world.tally());
                    if let Err(reason) = outcome {
                        broken.lock().unwrap().push((seed, reason));
                        over.store(!goes_on, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let mut broken = broken.into_inner().unwrap();
    broken.sort();
    println!("{seeds} seeds in {:.1?}: {}", begun.elapsed(), tally.into_inner().unwrap());
    for (seed, reason) in &broken {
        println!("seed {seed}: {}", reason.lines().next().unwrap_or_default());
    }
    if let Some((seed, reason)) = broken.first() {
        panic!("{} of {seeds} seeds\n{}", broken.len(), describe(&template, *seed, reason));
    }
}

#[test]
fn a_seed_makes_the_same_history_each_time() {
    let template = Template::make();
    // Beside the other test there is more to do than there are cores, so whatever looked at a clock of the machine, or at
    // which thread is quicker, would show.
    for seed in 1..=number("MERCAT_LAB_TWICE").unwrap_or(12) {
        lives_the_same_twice(&template, seed);
    }
}

fn lives_the_same_twice(template: &Template, seed: u64) {
    let [(first, one), (again, other)] = [(); 2].map(|()| {
        let (outcome, history) = live(template, seed, true);
        (outcome, history.world.story())
    });
    let split = one.iter().zip(&other).position(|(a, b)| a != b);
    assert!(
        split.is_none() && one.len() == other.len(),
        "seed {seed} at step {split:?} of {}: {:?} and {:?}",
        one.len(),
        split.and_then(|at| one.get(at)),
        split.and_then(|at| other.get(at))
    );
    assert_eq!(first, again);
    assert!(one.len() > 100, "a history of next to nothing");
}
