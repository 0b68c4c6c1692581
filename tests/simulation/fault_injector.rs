//! What decides at each step: the seed's dice, and when the process dies.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mercat::domains::payments::PaymentProvider;
use mercat::fault_injection::{self, InjectedFault, InjectionPoint};
use mercat::types::{Clock, Timestamp};
use tokio::sync::Notify;
use uuid::Uuid;

use super::fake_provider::{Bank, Teller};
use super::rng::Dice;

/// The world of one history. Clones share it; it outlives the processes in it.
#[derive(Clone)]
pub struct FaultInjector(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    /// Rings when the process dies.
    died: Notify,
}

struct State {
    dice: Dice,
    clock: Clock,
    ids: u64,
    stopped: bool,
    /// How many steps the process still has; none is for ever.
    life: Option<u64>,
    troubled: bool,
    /// Disks in trouble, and for how many more commits.
    disks: HashMap<&'static str, (InjectedFault, u64)>,
    bank: Bank,
    story: Option<Vec<String>>,
    tally: Tally,
}

/// What has been met: a promise of which nothing is met here is not tried.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    pub steps: u64,
    pub deaths: u64,
    pub recoveries: u64,
    pub full: u64,
    pub broken: u64,
    pub doubtful: u64,
    pub disks: u64,
    pub lost: u64,
    pub twice: u64,
    pub answers: u64,
    pub unanswered: u64,
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

impl Tally {
    pub fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.deaths += other.deaths;
        self.recoveries += other.recoveries;
        self.full += other.full;
        self.broken += other.broken;
        self.doubtful += other.doubtful;
        self.disks += other.disks;
        self.lost += other.lost;
        self.twice += other.twice;
        self.answers += other.answers;
        self.unanswered += other.unanswered;
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

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [
            (self.steps, "steps"),
            (self.deaths, "deaths"),
            (self.recoveries, "recoveries"),
            (self.full, "full disks"),
            (self.broken, "commits failed"),
            (self.doubtful, "commits doubted"),
            (self.disks, "other failures of disks"),
            (self.lost, "messages lost"),
            (self.twice, "doubled"),
            (self.answers, "answers"),
            (self.unanswered, "of them unknown"),
            (self.paid, "invoices paid"),
            (self.payments_refused, "payments refused"),
            (self.expired, "invoices expired"),
            (self.out_of_stock, "checkouts refused for stock"),
            (self.late_sales, "goods sold after their hold"),
            (self.refused_sales, "sales that could not be kept"),
            (self.refunds, "refunds"),
            (self.refunds_refused, "refunds refused"),
            (self.comments, "comments"),
            (self.erased, "erased"),
        ];
        let all: Vec<String> = all.iter().map(|(n, what)| format!("{n} {what}")).collect();
        f.write_str(&all.join(", "))
    }
}

impl FaultInjector {
    pub fn new(seed: u64, told: bool) -> Self {
        let state = State {
            dice: Dice::new(seed),
            clock: Clock::system(),
            ids: 0,
            stopped: false,
            life: None,
            troubled: false,
            disks: HashMap::new(),
            bank: Bank::default(),
            story: told.then(Vec::new),
            tally: Tally::default(),
        };
        Self(Arc::new(Inner { state: Mutex::new(state), died: Notify::new() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new process begins, calm, at this time.
    pub fn begin(&self, clock: Clock) {
        let mut state = self.state();
        (state.stopped, state.life, state.troubled) = (false, None, false);
        state.disks.clear();
        state.clock = clock;
        state.note(format_args!("a process begins"));
    }

    /// From now on things go wrong, and after `life` steps the process dies.
    pub fn trouble(&self, life: u64) {
        let mut state = self.state();
        (state.life, state.troubled) = (Some(life), true);
        state.note(format_args!("trouble begins; {life} steps to live"));
    }

    /// Ends the process now.
    pub fn stop(&self) {
        self.state().die();
        self.0.died.notify_one();
    }

    /// Waits for the death of the process.
    pub async fn died(&self) {
        self.0.died.notified().await;
    }

    pub fn is_dead(&self) -> bool {
        self.state().stopped
    }

    pub fn now(&self) -> Timestamp {
        self.state().clock.now()
    }

    /// Moves the clock, but no timer: time jumps.
    pub fn jump(&self, by: Duration) {
        let mut state = self.state();
        state.clock.advance(by);
        state.note(format_args!("the clock jumps by {by:?}"));
    }

    pub fn dice<T>(&self, roll: impl FnOnce(&mut Dice) -> T) -> T {
        roll(&mut self.state().dice)
    }

    pub fn is_troubled(&self) -> bool {
        self.state().troubled
    }

    /// With the provider's books, and whatever was on its way to them done.
    pub fn bank<T>(&self, ask: impl FnOnce(&mut Bank, &mut Dice, Timestamp) -> T) -> T {
        let state = &mut *self.state();
        let now = state.clock.now();
        state.bank.work_off(now);
        ask(&mut state.bank, &mut state.dice, now)
    }

    pub fn count(&self, count: impl FnOnce(&mut Tally)) {
        count(&mut self.state().tally);
    }

    pub fn note(&self, what: fmt::Arguments<'_>) {
        self.state().note(what);
    }

    pub fn story(&self) -> Vec<String> {
        self.state().story.clone().unwrap_or_default()
    }

    pub fn tally(&self) -> Tally {
        self.state().tally.clone()
    }
}

impl State {
    fn note(&mut self, what: fmt::Arguments<'_>) {
        if let Some(story) = &mut self.story {
            let now = self.clock.now().micros() / 1_000;
            story.push(format!("{:>8}.{:03} {what}", now / 1_000 % 10_000_000, now % 1_000));
        }
    }

    fn die(&mut self) {
        if !self.stopped {
            self.stopped = true;
            self.tally.deaths += 1;
            self.note(format_args!("the process dies"));
        }
    }

    fn fate(&mut self, step: InjectionPoint) -> InjectedFault {
        let fate = match step {
            InjectionPoint::Commit(domain) => {
                if let Some((fate, left)) = self.disks.get(domain).copied() {
                    if left > 1 {
                        self.disks.insert(domain, (fate, left - 1));
                    } else {
                        self.disks.remove(domain);
                    }
                    fate
                } else if self.dice.chance(25) {
                    let fates = [
                        InjectedFault::DiskFull,
                        InjectedFault::DiskFull,
                        InjectedFault::DiskFull,
                        InjectedFault::ReadOnly,
                        InjectedFault::Unavailable,
                        InjectedFault::CommitFails,
                        InjectedFault::CommitFails,
                        InjectedFault::CommitUnknown,
                    ];
                    let fate = self.dice.pick(&fates).copied().unwrap_or(InjectedFault::None);
                    if self.dice.chance(400) {
                        let more = self.dice.between(1, 6);
                        self.disks.insert(domain, (fate, more));
                    }
                    fate
                } else {
                    InjectedFault::None
                }
            }
            InjectionPoint::Read(_) if self.dice.chance(3) => InjectedFault::Unavailable,
            InjectionPoint::Request(..) if self.dice.chance(10) => InjectedFault::MessageLost,
            InjectionPoint::Request(_, true) if self.dice.chance(20) => InjectedFault::Duplicated,
            InjectionPoint::Answer(_) if self.dice.chance(15) => InjectedFault::MessageLost,
            _ => InjectedFault::None,
        };
        match fate {
            InjectedFault::None => {}
            InjectedFault::MessageLost => self.tally.lost += 1,
            InjectedFault::Duplicated => self.tally.twice += 1,
            InjectedFault::DiskFull => self.tally.full += 1,
            InjectedFault::CommitFails => self.tally.broken += 1,
            InjectedFault::CommitUnknown => self.tally.doubtful += 1,
            InjectedFault::ReadOnly | InjectedFault::Unavailable => self.tally.disks += 1,
        }
        fate
    }

    fn pause(&mut self, step: InjectionPoint) -> Duration {
        let millis = match step {
            InjectionPoint::Committed(_) | InjectionPoint::Read(_) => self.dice.below(3),
            InjectionPoint::Commit(_) if self.troubled && self.dice.chance(30) => self.dice.between(20, 900),
            InjectionPoint::Commit(_) => self.dice.below(6),
            InjectionPoint::Request(..) | InjectionPoint::Answer(_) if self.troubled && self.dice.chance(15) => {
                self.dice.between(20, 2_500)
            }
            InjectionPoint::Request(..) | InjectionPoint::Answer(_) => self.dice.below(4),
        };
        Duration::from_millis(millis)
    }
}

impl fault_injection::FaultInjector for FaultInjector {
    fn meet(&self, step: InjectionPoint) -> (Duration, InjectedFault) {
        let mut state = self.state();
        if state.stopped {
            return (Duration::ZERO, InjectedFault::None);
        }
        state.tally.steps += 1;
        // A death at a query is one before whatever comes next.
        if let (Some(life), false) = (&mut state.life, matches!(step, InjectionPoint::Read(_))) {
            if *life == 0 {
                state.note(format_args!("{step:?} is not got past"));
                state.die();
                self.0.died.notify_one();
                return (Duration::ZERO, InjectedFault::None);
            }
            *life -= 1;
        }
        let pause = state.pause(step);
        let fate = if state.troubled { state.fate(step) } else { InjectedFault::None };
        state.note(format_args!("{step:?} {pause:?} {fate:?}"));
        (pause, fate)
    }

    fn is_stopped(&self) -> bool {
        self.state().stopped
    }

    fn id(&self) -> Uuid {
        let mut state = self.state();
        state.ids += 1;
        let millis = u128::try_from(state.clock.now().micros() / 1_000).unwrap_or_default();
        // Time, version, variant, a count that makes them rise, and two bytes of chance at the end.
        let count = u128::from(state.ids) & 0xFF_FFFF_FFFF;
        let chance = u128::from(state.dice.below(0x1_0000));
        Uuid::from_u128((millis << 80) | (0x7 << 76) | (0b10 << 62) | (count << 16) | chance)
    }

    fn provider(&self) -> Box<dyn PaymentProvider> {
        Box::new(Teller::new(self.clone()))
    }
}
