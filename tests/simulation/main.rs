//! Deterministic simulation: the real domains on one thread and on a simulated clock, under a schedule drawn from a
//! seed. The process may crash between any two durable steps; disks fill up, messages are lost or duplicated, the payment
//! provider is slow, silent or loses calls. After each recovery the databases of all domains must satisfy
//! `invariants.rs`, and at the end `mercat check` must find nothing.
//!
//! A seed determines a whole scenario. A failing seed is printed with its last steps and the command that repeats it.
//!
//! | variable | effect |
//! |---|---|
//! | `MERCAT_SIMULATION_SEED=S` | run one seed and print its trace |
//! | `MERCAT_SIMULATION_SEEDS=N` | run N seeds instead of 300 |
//! | `MERCAT_SIMULATION_FIRST_SEED=S` | start at seed S instead of 1 |
//! | `MERCAT_SIMULATION_KEEP_GOING=1` | continue after a failing seed |
//! | `MERCAT_SIMULATION_REPEATS=N` | run N seeds twice and compare their traces |
//!
//! Each run prints its coverage counters: an invariant about a case that never occurs is not tested.
//!
//! Does not cover: loss of power (the process leaves its database connections to the next one, which saves most of the
//! time), several threads, HTTP. `tests/e2e/crash.rs` kills the real binary instead.
#![allow(clippy::unwrap_used, reason = "a test stops at the first failure")]

mod admin_workload;
mod customer_workload;
mod fake_provider;
mod fault_injector;
mod invariants;
mod rng;
mod scenario;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use scenario::{DatabaseTemplate, Scenario};

/// Seeds of an ordinary run, with about a thousand crashes. Limited, because the API tests run at the same time on all
/// four deployments, and the whole suite is to take less than half an hour on two cores.
const SEEDS: u64 = 300;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Runs the scenario of one seed. A panic counts as a failure.
fn run(template: &DatabaseTemplate, seed: u64, traced: bool) -> (Result<(), String>, Scenario) {
    let mut scenario = Scenario::new(template, seed, traced);
    let result = catch_unwind(AssertUnwindSafe(|| scenario.run()));
    mercat::fault_injection::install(None);
    mercat::domains::payments::set_test_provider(None);
    mercat::store::close_cached_connections();
    let outcome = result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panic: {}", text.unwrap_or_default()))
    });
    (outcome, scenario)
}

/// Describes a failing seed: the last steps of its trace, the violation and the command that repeats it.
fn describe(template: &DatabaseTemplate, seed: u64, violation: &str) -> String {
    let (_, scenario) = run(template, seed, true);
    let steps = scenario.faults.trace();
    let last = steps.iter().skip(steps.len().saturating_sub(120)).map(String::as_str).collect::<Vec<_>>().join("\n");
    format!(
        "{last}\n\nseed {seed}: {violation}\nrepeat with: MERCAT_SIMULATION_SEED={seed} cargo test --test simulation"
    )
}

#[test]
fn p14_invariants_hold_after_every_crash() {
    let template = DatabaseTemplate::create();
    if let Some(seed) = number("MERCAT_SIMULATION_SEED") {
        let (outcome, scenario) = run(&template, seed, true);
        println!("{}", scenario.faults.trace().join("\n"));
        assert!(outcome.is_ok(), "seed {seed}: {}", outcome.unwrap_err());
        return;
    }
    let (first, seeds) =
        (number("MERCAT_SIMULATION_FIRST_SEED").unwrap_or(1), number("MERCAT_SIMULATION_SEEDS").unwrap_or(SEEDS));
    let keep_going = number("MERCAT_SIMULATION_KEEP_GOING").is_some();
    let started = std::time::Instant::now();
    let (next, done, failures) = (AtomicU64::new(first), AtomicBool::new(false), Mutex::new(Vec::new()));
    let counters = Mutex::new(fault_injector::CoverageCounters::default());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds {
                        break;
                    }
                    let (outcome, scenario) = run(&template, seed, false);
                    counters.lock().add(&scenario.faults.counters());
                    if let Err(reason) = outcome {
                        failures.lock().push((seed, reason));
                        done.store(!keep_going, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner();
    failures.sort();
    println!("{seeds} seeds in {:.1?}: {}", started.elapsed(), counters.into_inner());
    for (seed, reason) in &failures {
        println!("seed {seed}: {}", reason.lines().next().unwrap_or_default());
    }
    if let Some((seed, reason)) = failures.first() {
        panic!("{} of {seeds} seeds\n{}", failures.len(), describe(&template, *seed, reason));
    }
}

#[test]
fn seed_determines_the_scenario() {
    let template = DatabaseTemplate::create();
    // The other test keeps all cores busy meanwhile, so a dependency on real time or on thread scheduling would show.
    for seed in 1..=number("MERCAT_SIMULATION_REPEATS").unwrap_or(12) {
        assert_deterministic(&template, seed);
    }
}

fn assert_deterministic(template: &DatabaseTemplate, seed: u64) {
    let [(first, one), (again, other)] = [(); 2].map(|()| {
        let (outcome, scenario) = run(template, seed, true);
        (outcome, scenario.faults.trace())
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
    assert!(one.len() > 100, "the scenario has hardly any steps");
}
