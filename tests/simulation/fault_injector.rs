//! Faults drawn from a seed: at each injection point a delay, a fault or the crash of the process.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mercat::fault_injection::{self, InjectedFault, InjectionPoint};
use mercat::types::{Clock, Timestamp};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use uuid::Uuid;

use super::fake_provider::FakeProvider;
use super::rng::Rng;

/// The faults of one scenario. Clones share it; it outlives the processes in it.
#[derive(Clone)]
pub struct SimFaults(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    /// Notified when the process crashes.
    crashed: Notify,
}

struct State {
    rng: Rng,
    clock: Clock,
    ids: u64,
    crashed: bool,
    /// Injection points until the crash; no crash when absent.
    steps_left: Option<u64>,
    faults_enabled: bool,
    /// Faulty disks by domain, with the number of commits that the fault still lasts.
    disks: HashMap<&'static str, (InjectedFault, u64)>,
    provider: FakeProvider,
    trace: Option<Vec<String>>,
    counters: CoverageCounters,
}

/// Counts of faults and outcomes of a run, summed over scenarios. An invariant about a case that never occurs is not
/// tested.
#[derive(Debug, Default, Clone)]
pub struct CoverageCounters {
    pub steps: u64,
    pub crashes: u64,
    pub recoveries: u64,
    pub disks_full: u64,
    pub commits_failed: u64,
    pub commits_unknown: u64,
    pub disk_errors: u64,
    pub messages_lost: u64,
    pub messages_duplicated: u64,
    pub replies: u64,
    pub replies_unknown: u64,
    pub paid: u64,
    pub payments_refused: u64,
    pub expired: u64,
    pub out_of_stock: u64,
    pub late_sales: u64,
    pub refused_sales: u64,
    pub refunds: u64,
    pub refunds_refused: u64,
    pub comments: u64,
    pub erased: u64,
}

impl CoverageCounters {
    pub fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.crashes += other.crashes;
        self.recoveries += other.recoveries;
        self.disks_full += other.disks_full;
        self.commits_failed += other.commits_failed;
        self.commits_unknown += other.commits_unknown;
        self.disk_errors += other.disk_errors;
        self.messages_lost += other.messages_lost;
        self.messages_duplicated += other.messages_duplicated;
        self.replies += other.replies;
        self.replies_unknown += other.replies_unknown;
        self.paid += other.paid;
        self.payments_refused += other.payments_refused;
        self.expired += other.expired;
        self.out_of_stock += other.out_of_stock;
        self.late_sales += other.late_sales;
        self.refused_sales += other.refused_sales;
        self.refunds += other.refunds;
        self.refunds_refused += other.refunds_refused;
        self.comments += other.comments;
        self.erased += other.erased;
    }
}

impl fmt::Display for CoverageCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [
            (self.steps, "steps"),
            (self.crashes, "crashes"),
            (self.recoveries, "recoveries"),
            (self.disks_full, "full disks"),
            (self.commits_failed, "commits failed"),
            (self.commits_unknown, "commits of unknown outcome"),
            (self.disk_errors, "other disk faults"),
            (self.messages_lost, "messages lost"),
            (self.messages_duplicated, "messages duplicated"),
            (self.replies, "replies"),
            (self.replies_unknown, "replies unknown"),
            (self.paid, "invoices paid"),
            (self.payments_refused, "payments refused"),
            (self.expired, "invoices expired"),
            (self.out_of_stock, "checkouts refused for stock"),
            (self.late_sales, "sales after the hold expired"),
            (self.refused_sales, "sales refunded for lack of stock"),
            (self.refunds, "refunds"),
            (self.refunds_refused, "refunds refused"),
            (self.comments, "comments"),
            (self.erased, "users erased"),
        ];
        let all: Vec<String> = all.iter().map(|(n, what)| format!("{n} {what}")).collect();
        f.write_str(&all.join(", "))
    }
}

impl SimFaults {
    pub fn new(seed: u64, traced: bool) -> Self {
        let state = State {
            rng: Rng::new(seed),
            clock: Clock::system(),
            ids: 0,
            crashed: false,
            steps_left: None,
            faults_enabled: false,
            disks: HashMap::new(),
            provider: FakeProvider::default(),
            trace: traced.then(Vec::new),
            counters: CoverageCounters::default(),
        };
        Self(Arc::new(Inner { state: Mutex::new(state), crashed: Notify::new() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock()
    }

    /// Starts a process without faults, on this clock.
    pub fn start_process(&self, clock: Clock) {
        let mut state = self.state();
        (state.crashed, state.steps_left, state.faults_enabled) = (false, None, false);
        state.disks.clear();
        state.clock = clock;
        state.note(format_args!("process starts"));
    }

    /// Enables faults and crashes the process after `steps_left` injection points.
    pub fn enable_faults(&self, steps_left: u64) {
        let mut state = self.state();
        (state.steps_left, state.faults_enabled) = (Some(steps_left), true);
        state.note(format_args!("faults enabled; crash in {steps_left} steps"));
    }

    /// Crashes the process now.
    pub fn crash(&self) {
        self.state().mark_crashed();
        self.0.crashed.notify_one();
    }

    /// Waits for the crash of the process.
    pub async fn crashed(&self) {
        self.0.crashed.notified().await;
    }

    pub fn is_crashed(&self) -> bool {
        self.state().crashed
    }

    pub fn now(&self) -> Timestamp {
        self.state().clock.now()
    }

    /// Advances the clock without firing timers.
    pub fn advance_clock(&self, by: Duration) {
        let mut state = self.state();
        state.clock.advance(by);
        state.note(format_args!("clock advances by {by:?}"));
    }

    pub fn rng<T>(&self, draw: impl FnOnce(&mut Rng) -> T) -> T {
        draw(&mut self.state().rng)
    }

    pub fn has_faults(&self) -> bool {
        self.state().faults_enabled
    }

    /// Runs `action` on the provider after the calls that have arrived by now.
    pub fn provider<T>(&self, action: impl FnOnce(&mut FakeProvider, &mut Rng, Timestamp) -> T) -> T {
        let state = &mut *self.state();
        let now = state.clock.now();
        state.provider.process_queue(now);
        action(&mut state.provider, &mut state.rng, now)
    }

    pub fn count(&self, count: impl FnOnce(&mut CoverageCounters)) {
        count(&mut self.state().counters);
    }

    pub fn note(&self, what: fmt::Arguments<'_>) {
        self.state().note(what);
    }

    pub fn trace(&self) -> Vec<String> {
        self.state().trace.clone().unwrap_or_default()
    }

    pub fn counters(&self) -> CoverageCounters {
        self.state().counters.clone()
    }
}

impl State {
    fn note(&mut self, what: fmt::Arguments<'_>) {
        if let Some(trace) = &mut self.trace {
            let now = self.clock.now().micros() / 1_000;
            trace.push(format!("{:>8}.{:03} {what}", now / 1_000 % 10_000_000, now % 1_000));
        }
    }

    fn mark_crashed(&mut self) {
        if !self.crashed {
            self.crashed = true;
            self.counters.crashes += 1;
            self.note(format_args!("process crashes"));
        }
    }

    fn next_fault(&mut self, step: InjectionPoint) -> InjectedFault {
        let fault = match step {
            InjectionPoint::Commit(domain) => {
                if let Some((fault, left)) = self.disks.get(domain).copied() {
                    if left > 1 {
                        self.disks.insert(domain, (fault, left - 1));
                    } else {
                        self.disks.remove(domain);
                    }
                    fault
                } else if self.rng.chance(25) {
                    let faults = [
                        InjectedFault::DiskFull,
                        InjectedFault::DiskFull,
                        InjectedFault::DiskFull,
                        InjectedFault::ReadOnly,
                        InjectedFault::Unavailable,
                        InjectedFault::CommitFails,
                        InjectedFault::CommitFails,
                        InjectedFault::CommitUnknown,
                    ];
                    let fault = self.rng.pick(&faults).copied().unwrap_or(InjectedFault::None);
                    if self.rng.chance(400) {
                        let more = self.rng.between(1, 6);
                        self.disks.insert(domain, (fault, more));
                    }
                    fault
                } else {
                    InjectedFault::None
                }
            }
            InjectionPoint::Read(_) if self.rng.chance(3) => InjectedFault::Unavailable,
            InjectionPoint::Request(..) if self.rng.chance(10) => InjectedFault::MessageLost,
            InjectionPoint::Request(_, true) if self.rng.chance(20) => InjectedFault::Duplicated,
            InjectionPoint::Answer(_) if self.rng.chance(15) => InjectedFault::MessageLost,
            _ => InjectedFault::None,
        };
        match fault {
            InjectedFault::None => {}
            InjectedFault::MessageLost => self.counters.messages_lost += 1,
            InjectedFault::Duplicated => self.counters.messages_duplicated += 1,
            InjectedFault::DiskFull => self.counters.disks_full += 1,
            InjectedFault::CommitFails => self.counters.commits_failed += 1,
            InjectedFault::CommitUnknown => self.counters.commits_unknown += 1,
            InjectedFault::ReadOnly | InjectedFault::Unavailable => self.counters.disk_errors += 1,
        }
        fault
    }

    fn next_delay(&mut self, step: InjectionPoint) -> Duration {
        let millis = match step {
            InjectionPoint::Committed(_) | InjectionPoint::Read(_) => self.rng.below(3),
            InjectionPoint::Commit(_) if self.faults_enabled && self.rng.chance(30) => self.rng.between(20, 900),
            InjectionPoint::Commit(_) => self.rng.below(6),
            InjectionPoint::Request(..) | InjectionPoint::Answer(_) if self.faults_enabled && self.rng.chance(15) => {
                self.rng.between(20, 2_500)
            }
            InjectionPoint::Request(..) | InjectionPoint::Answer(_) => self.rng.below(4),
        };
        Duration::from_millis(millis)
    }
}

impl fault_injection::FaultInjector for SimFaults {
    fn inject(&self, step: InjectionPoint) -> (Duration, InjectedFault) {
        let mut state = self.state();
        if state.crashed {
            return (Duration::ZERO, InjectedFault::None);
        }
        state.counters.steps += 1;
        // A crash at a query equals one before the next step, so queries do not count.
        if let (Some(steps_left), false) = (&mut state.steps_left, matches!(step, InjectionPoint::Read(_))) {
            if *steps_left == 0 {
                state.note(format_args!("{step:?} crash point"));
                state.mark_crashed();
                self.0.crashed.notify_one();
                return (Duration::ZERO, InjectedFault::None);
            }
            *steps_left -= 1;
        }
        let delay = state.next_delay(step);
        let fault = if state.faults_enabled { state.next_fault(step) } else { InjectedFault::None };
        state.note(format_args!("{step:?} {delay:?} {fault:?}"));
        (delay, fault)
    }

    fn is_stopped(&self) -> bool {
        self.state().crashed
    }

    fn new_id(&self) -> Uuid {
        let mut state = self.state();
        state.ids += 1;
        let millis = u128::try_from(state.clock.now().micros() / 1_000).unwrap_or_default();
        // Time, version, variant, a counter that keeps ids ascending, and two random bytes at the end.
        let count = u128::from(state.ids) & 0xFF_FFFF_FFFF;
        let random = u128::from(state.rng.below(0x1_0000));
        Uuid::from_u128((millis << 80) | (0x7 << 76) | (0b10 << 62) | (count << 16) | random)
    }
}
