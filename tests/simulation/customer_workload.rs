//! The customers' workload: the operations they start, the replies they observed, and their retries.
//!
//! The population outlives the shop's processes. An operation without a definite reply is retried under the same
//! idempotency key.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use mercat::contract::cart::{AddItem, CancelCheckout, Checkout, RemoveItem, SetQuantity};
use mercat::contract::catalog::{ProductPatch, UpdateProduct};
use mercat::contract::comments::{AddComment, DeleteComment};
use mercat::contract::payments::{GetInvoice, PayInvoice, RefundInvoice, VoidInvoice};
use mercat::contract::users::DeleteUser;
use mercat::messaging::{Caller, Credential, DomainError, ErrorKind, IdempotencyKey, Identity, RequestContext, Role};
use mercat::types::{Amount, CartItemId, CommentId, InvoiceId, PostalAddress, ProductId, Quantity, SessionId, UserId};
use serde::Serialize;
use serde_json::Value;

use super::rng::Rng;
use super::scenario::Shop;

/// A request of the workload, with the values it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    Add { product: ProductId, quantity: Quantity },
    Set { item: CartItemId, product: ProductId, quantity: Quantity },
    Remove { item: CartItemId, product: ProductId },
    Checkout,
    Pay { invoice: InvoiceId, token: &'static str },
    Cancel { invoice: Option<InvoiceId> },
    Comment { product: ProductId, rating: i32 },
    Uncomment { product: ProductId, comment: CommentId },
    Erase,
    Refund { invoice: InvoiceId, amount: Option<Amount>, restock: bool },
    Void { invoice: InvoiceId },
    Stock { product: ProductId, stock: Quantity },
}

/// An operation under its idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingOperation {
    /// Index of the customer; an administrator when absent.
    pub customer: Option<usize>,
    pub key: String,
    pub operation: Operation,
    /// Number shared by the operations that start at once: their order of execution is not determined.
    batch: u64,
}

/// Outcome of an operation as its caller observed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observed {
    /// Done, with this reply.
    Accepted(Value),
    /// Definitely not done, with this error code.
    Rejected(String),
    /// Outcome unknown, or not known yet, with this error code.
    Unknown(String),
}

/// A change of a customer's cart. A customer's steps are kept in order.
#[derive(Debug, Clone)]
pub enum CartStep {
    Put(ProductId, Quantity),
    Set(ProductId, Quantity),
    CheckedOut(InvoiceId, BTreeMap<ProductId, Quantity>),
}

pub struct Customer {
    pub user: UserId,
    session: SessionId,
    /// Operations without a definite reply.
    pub pending: Vec<PendingOperation>,
    /// Cart steps with the batch of the operation that made them.
    pub steps: Vec<(u64, CartStep)>,
    pub invoices: Vec<InvoiceId>,
    open: Option<InvoiceId>,
    items: BTreeMap<ProductId, CartItemId>,
    /// Whether the cart has an item, as far as the customer has observed.
    has_items: bool,
    /// Whether the last checkout was rejected for lack of stock.
    out_of_stock: bool,
    comments: BTreeMap<ProductId, CommentId>,
    pub erased: bool,
}

/// All customers and the administrator, with the replies they observed.
pub struct Population {
    pub customers: Vec<Customer>,
    pub admin: UserId,
    admin_session: SessionId,
    pub admin_pending: Vec<PendingOperation>,
    pub products: Vec<ProductId>,
    pub totals: BTreeMap<InvoiceId, Amount>,
    /// Invoices that are known to be paid.
    pub paid: Vec<InvoiceId>,
    /// Accepted operations with their first reply, by key.
    pub accepted: BTreeMap<String, (PendingOperation, Value)>,
    /// Keys of payments that were rejected because another one had paid the invoice.
    pub already_paid: BTreeSet<String>,
    /// Violations that the workload observed.
    pub violations: Vec<String>,
    keys: u64,
    batches: u64,
}

pub type SharedPopulation = Rc<RefCell<Population>>;

impl Customer {
    pub fn new(user: UserId) -> Self {
        Self {
            user,
            session: SessionId::new(),
            pending: Vec::new(),
            steps: Vec::new(),
            invoices: Vec::new(),
            open: None,
            items: BTreeMap::new(),
            has_items: false,
            out_of_stock: false,
            comments: BTreeMap::new(),
            erased: false,
        }
    }
}

impl Population {
    pub fn new(customers: Vec<Customer>, products: Vec<ProductId>) -> Self {
        Self {
            customers,
            admin: UserId::new(),
            admin_session: SessionId::new(),
            admin_pending: Vec::new(),
            paid: Vec::new(),
            products,
            totals: BTreeMap::new(),
            accepted: BTreeMap::new(),
            already_paid: BTreeSet::new(),
            violations: Vec::new(),
            keys: 0,
            batches: 0,
        }
    }

    pub fn new_operation(&mut self, customer: Option<usize>, operation: Operation) -> PendingOperation {
        self.keys += 1;
        PendingOperation { customer, key: format!("key-{}", self.keys), operation, batch: self.batches }
    }

    /// Caller of an operation: a guest, a customer (comments need one) or the administrator.
    pub fn caller(&self, customer: Option<usize>, operation: Option<&Operation>) -> Caller {
        let (user_id, role, session) = match customer {
            // Guests may not comment.
            Some(n) if matches!(operation, Some(Operation::Comment { .. } | Operation::Uncomment { .. })) => {
                (self.customers[n].user, Role::Customer, self.customers[n].session)
            }
            Some(n) => (self.customers[n].user, Role::Guest, self.customers[n].session),
            None => (self.admin, Role::Admin, self.admin_session),
        };
        Caller::User { identity: Identity::new(user_id, role, Credential::Session(session)), internal: false }
    }

    /// Whether a repetition was refused because its first response was to a person who was erased since, or shows one.
    fn is_blanked(&self, pending: &PendingOperation, first: &Value, observed: &Observed) -> bool {
        let is_own = pending.customer.is_some_and(|n| self.customers[n].erased);
        let shown = first.to_string();
        let shows = |customer: &Customer| customer.erased && shown.contains(&customer.user.to_string());
        *observed == Observed::Rejected("idempotency_key_reused".to_owned())
            && (is_own || self.customers.iter().any(shows))
    }

    /// Records an outcome and compares it with earlier outcomes of the same key.
    ///
    /// `already_accepted` is true if the key had been accepted before this execution started: of two concurrent
    /// executions, one may be rejected before the other is done.
    pub fn record(&mut self, pending: &PendingOperation, observed: &Observed, already_accepted: bool) {
        match (self.accepted.get(&pending.key), observed) {
            (Some((_, first)), Observed::Accepted(again)) if first != again => {
                self.violations.push(format!("P1: {pending:?} was answered {first} and then {again}"));
            }
            (Some((_, first)), Observed::Rejected(_)) if self.is_blanked(pending, first, observed) => {}
            (Some((_, first)), Observed::Rejected(code)) if already_accepted => {
                self.violations.push(format!("P1: {pending:?} was answered {first} and then refused with {code}"));
            }
            (None, Observed::Accepted(answer)) => {
                self.accepted.insert(pending.key.clone(), (pending.clone(), answer.clone()));
                if let Some(n) = pending.customer {
                    self.apply_reply(n, pending, answer);
                }
            }
            (None, Observed::Rejected(code)) => {
                if let (Operation::Pay { .. }, "already_paid") = (&pending.operation, code.as_str()) {
                    self.already_paid.insert(pending.key.clone());
                }
                self.apply_rejection(pending, code);
            }
            _ => {}
        }
        if let Observed::Unknown(code) = observed
            && code == "internal"
        {
            self.violations.push(format!("H1: {pending:?} failed with an internal error"));
        }
    }

    fn apply_reply(&mut self, n: usize, pending: &PendingOperation, answer: &Value) {
        let read = |field: &str| answer[field].as_str().unwrap_or_default().to_owned();
        let customer = &mut self.customers[n];
        match &pending.operation {
            Operation::Add { product, quantity } => {
                customer.steps.push((pending.batch, CartStep::Put(*product, *quantity)));
                customer.open = None;
                (customer.has_items, customer.out_of_stock) = (true, false);
                if let Ok(item) = read("id").parse() {
                    customer.items.insert(*product, item);
                }
            }
            Operation::Set { product, quantity, .. } => {
                customer.out_of_stock = false;
                customer.steps.push((pending.batch, CartStep::Set(*product, *quantity)));
            }
            Operation::Remove { product, .. } => {
                customer.out_of_stock = false;
                customer.steps.push((pending.batch, CartStep::Set(*product, 0)));
            }
            Operation::Checkout => {
                let Ok(invoice) = read("id").parse() else { return };
                let mut lines = BTreeMap::new();
                for line in answer["lines"].as_array().into_iter().flatten() {
                    if let Some(Ok(product)) = line["product_id"].as_str().map(str::parse) {
                        *lines.entry(product).or_default() += line["quantity"].as_i64().unwrap_or_default();
                    }
                }
                customer.steps.push((pending.batch, CartStep::CheckedOut(invoice, lines)));
                customer.invoices.push(invoice);
                customer.open = Some(invoice);
                self.totals.insert(invoice, answer["total"].as_i64().unwrap_or_default());
            }
            Operation::Pay { invoice, .. } => {
                (customer.open, customer.has_items) = (None, false);
                if !self.paid.contains(invoice) {
                    self.paid.push(*invoice);
                }
            }
            Operation::Cancel { .. } => customer.open = None,
            Operation::Comment { product, .. } => {
                if let Ok(comment) = read("id").parse() {
                    customer.comments.insert(*product, comment);
                }
            }
            Operation::Uncomment { product, .. } => drop(customer.comments.remove(product)),
            Operation::Erase => {
                customer.erased = true;
                customer.pending.clear();
            }
            Operation::Refund { .. } | Operation::Void { .. } | Operation::Stock { .. } => {}
        }
    }

    fn apply_rejection(&mut self, pending: &PendingOperation, code: &str) {
        let Some(customer) = pending.customer.and_then(|n| self.customers.get_mut(n)) else { return };
        match (&pending.operation, code) {
            (Operation::Pay { .. }, "already_paid" | "invoice_expired" | "invoice_void")
            | (Operation::Cancel { .. }, "no_checkout") => {
                customer.open = None;
            }
            (Operation::Checkout, "cart_empty") => customer.has_items = false,
            (Operation::Checkout, "out_of_stock") => customer.out_of_stock = true,
            (Operation::Set { product, .. } | Operation::Remove { product, .. }, "item_not_found") => {
                customer.items.remove(product);
            }
            _ => {}
        }
    }

    /// Chooses a customer's next operations: one, or two at once.
    fn next_operations(&mut self, n: usize, rng: &mut Rng) -> Vec<PendingOperation> {
        self.batches += 1;
        let products = self.products.clone();
        let product = *rng.pick(&products).unwrap();
        let customer = &self.customers[n];
        let add = Operation::Add { product, quantity: i64::try_from(rng.between(1, 2)).unwrap() };
        let item = customer.items.get(&product).copied();
        let fewer = |quantity| item.map(|item| Operation::Set { item, product, quantity });
        let operations = match (customer.open, rng.below(100)) {
            (Some(invoice), 0..46) => vec![pay(invoice, rng)],
            (Some(invoice), 46..58) => vec![pay(invoice, rng), pay(invoice, rng)],
            (Some(invoice), 58..66) => vec![pay(invoice, rng), Operation::Cancel { invoice: Some(invoice) }],
            (Some(invoice), 66..76) => vec![Operation::Cancel { invoice: Some(invoice) }],
            (Some(_), 76..82) => vec![Operation::Checkout],
            // Does not pay, perhaps until the invoice expires.
            (Some(_), 82..94) => vec![comment(product, customer, rng)],
            (Some(_), _) => vec![add],
            (None, 0..1) if customer.steps.len() > 4 => vec![Operation::Erase],
            (None, 1..2) => vec![Operation::Cancel { invoice: None }],
            (None, 2..6) => vec![comment(product, customer, rng)],
            (None, _) if !customer.has_items => {
                if rng.chance(100) {
                    vec![Operation::Checkout]
                } else {
                    vec![add]
                }
            }
            (None, 6..40) if customer.out_of_stock => vec![fewer(1).unwrap_or(Operation::Checkout)],
            (None, 40..50) if customer.out_of_stock && item.is_some() => {
                vec![item.map_or(Operation::Checkout, |item| Operation::Remove { item, product })]
            }
            (None, 6..14) => vec![add],
            (None, 14..18) => vec![add.clone(), add],
            (None, 18..24) => vec![fewer(i64::try_from(rng.below(4)).unwrap()).unwrap_or(add)],
            (None, 24..32) => vec![Operation::Checkout, Operation::Checkout],
            (None, 32..38) => vec![add, Operation::Checkout],
            (None, _) => vec![Operation::Checkout],
        };
        operations.into_iter().map(|operation| self.new_operation(Some(n), operation)).collect()
    }
}

fn comment(product: ProductId, customer: &Customer, rng: &mut Rng) -> Operation {
    match customer.comments.get(&product) {
        Some(comment) => Operation::Uncomment { product, comment: *comment },
        None => Operation::Comment { product, rating: i32::try_from(rng.between(1, 5)).unwrap() },
    }
}

fn pay(invoice: InvoiceId, rng: &mut Rng) -> Operation {
    let token = match rng.below(100) {
        0..62 => "tok_ok",
        62..70 => "tok_declined",
        70..78 => "tok_error",
        78..90 => "tok_flaky",
        90..98 => "tok_slow",
        _ => "tok_nobody",
    };
    Operation::Pay { invoice, token }
}

fn observe<T: Serialize, E: DomainError>(answer: Result<T, E>) -> Observed {
    match answer {
        Ok(answer) => Observed::Accepted(serde_json::to_value(answer).unwrap()),
        Err(error) => {
            let code = serde_json::to_value(&error).unwrap()["code"].as_str().unwrap_or_default().to_owned();
            match error.kind() {
                ErrorKind::Internal | ErrorKind::Unavailable | ErrorKind::DeadlineExceeded => Observed::Unknown(code),
                _ if code == "request_in_progress" => Observed::Unknown(code),
                _ => Observed::Rejected(code),
            }
        }
    }
}

/// Address that orders are delivered to.
fn address() -> PostalAddress {
    PostalAddress {
        name: "Ada Lovelace".to_owned(),
        company: None,
        line1: "1 rue de Rivoli".to_owned(),
        line2: None,
        postal_code: "75001".to_owned(),
        city: "Paris".to_owned(),
        region: None,
        country: "FR".parse().unwrap(),
        phone: None,
        vat_id: None,
    }
}

/// Executes an operation once and records its outcome. Never returns if the process crashes meanwhile.
pub async fn execute(shop: &Shop, population: &SharedPopulation, pending: &PendingOperation) -> Observed {
    let caller = population.borrow().caller(pending.customer, Some(&pending.operation));
    let impatient = shop.faults.has_faults() && shop.faults.rng(|rng| rng.chance(60));
    let timeout = Duration::from_millis(if impatient { shop.faults.rng(|rng| rng.between(5, 200)) } else { 10_000 });
    let ctx = RequestContext::new(caller, "simulation")
        .with_timeout(timeout)
        .with_key(IdempotencyKey::parse(&pending.key).unwrap());
    let user_id = pending.customer.map(|n| population.borrow().customers[n].user);
    let user = user_id.unwrap_or_else(|| population.borrow().admin);
    let clients = &shop.app.clients;
    let already_accepted = population.borrow().accepted.contains_key(&pending.key);
    shop.faults
        .note(format_args!("customer {:?} key {} request {:?}", pending.customer, pending.key, pending.operation));
    let observed = match pending.operation.clone() {
        Operation::Add { product, quantity } => {
            observe(clients.cart.call(ctx, AddItem { user_id: user, product_id: product, quantity }).await)
        }
        Operation::Set { item, quantity, .. } => {
            observe(clients.cart.call(ctx, SetQuantity { user_id: user, item_id: item, quantity }).await)
        }
        Operation::Remove { item, .. } => {
            observe(clients.cart.call(ctx, RemoveItem { user_id: user, item_id: item }).await)
        }
        Operation::Checkout => {
            let email = Some(format!("{user}@example.com"));
            let shipping_address = Some(address());
            let request = Checkout { user_id: user, email, shipping_address, billing_address: None, note: None };
            observe(clients.cart.call(ctx, request).await)
        }
        Operation::Pay { invoice, token } => {
            observe(clients.payments.call(ctx, PayInvoice { invoice_id: invoice, token: token.to_owned() }).await)
        }
        Operation::Cancel { .. } => observe(clients.cart.call(ctx, CancelCheckout { user_id: user }).await),
        Operation::Comment { product, rating } => {
            let request = AddComment { product_id: product, rating, text: "So so.".to_owned() };
            observe(clients.comments.call(ctx, request).await)
        }
        Operation::Uncomment { product, comment } => {
            observe(clients.comments.call(ctx, DeleteComment { product_id: product, comment_id: comment }).await)
        }
        Operation::Erase => observe(clients.users.call(ctx, DeleteUser { user_id: user }).await),
        Operation::Refund { invoice, amount, restock } => observe(
            clients.payments.call(ctx, RefundInvoice { invoice_id: invoice, amount, restock, lines: None }).await,
        ),
        Operation::Void { invoice } => observe(clients.payments.call(ctx, VoidInvoice { invoice_id: invoice }).await),
        Operation::Stock { product, stock } => {
            let patch = ProductPatch { stock: Some(stock), ..ProductPatch::default() };
            observe(clients.catalog.call(ctx, UpdateProduct { product_id: product, patch }).await)
        }
    };
    if shop.faults.is_crashed() {
        std::future::pending::<()>().await;
    }
    shop.faults.note(format_args!(
        "customer {:?} key {} reply {}",
        pending.customer,
        pending.key,
        summarize(&observed)
    ));
    shop.faults.count(|counters| {
        counters.replies += 1;
        match (&pending.operation, &observed) {
            (_, Observed::Unknown(_)) => counters.replies_unknown += 1,
            (Operation::Checkout, Observed::Rejected(code)) if code == "out_of_stock" => counters.out_of_stock += 1,
            (Operation::Refund { .. }, Observed::Rejected(code)) if code == "refund_too_large" => {
                counters.refunds_refused += 1
            }
            (Operation::Pay { .. }, Observed::Rejected(_)) => counters.payments_refused += 1,
            (Operation::Comment { .. }, Observed::Accepted(_)) => counters.comments += 1,
            (Operation::Erase, Observed::Accepted(_)) => counters.erased += 1,
            _ => {}
        }
    });
    population.borrow_mut().record(pending, &observed, already_accepted);
    observed
}

fn summarize(observed: &Observed) -> String {
    match observed {
        Observed::Accepted(answer) => format!("accepted {} {}", answer["id"], answer["status"]),
        other => format!("{other:?}"),
    }
}

/// Runs one customer's workload in one process.
pub async fn run_customer(shop: Rc<Shop>, population: SharedPopulation, n: usize) {
    for _ in 0..40 {
        if population.borrow().customers[n].erased {
            return;
        }
        if population.borrow().customers[n].pending.is_empty() {
            let operations = shop.faults.rng(|rng| population.borrow_mut().next_operations(n, rng));
            population.borrow_mut().customers[n].pending = operations;
        }
        retry_pending(&shop, &population, n, true).await;
        check_read_your_writes(&shop, &population, n).await;
        let delay = shop.faults.rng(|rng| if rng.chance(40) { rng.between(200, 2_000) } else { rng.below(30) });
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
}

/// Executes operations concurrently. Returns those without a definite reply.
pub async fn execute_all(
    shop: &Shop,
    population: &SharedPopulation,
    all: &[PendingOperation],
) -> Vec<PendingOperation> {
    let observed = join_all(all.iter().map(|one| execute(shop, population, one))).await;
    let mut open: Vec<PendingOperation> = Vec::new();
    for one in all {
        let mut outcomes =
            all.iter().zip(&observed).filter(|(pending, _)| pending.key == one.key).map(|(_, observed)| observed);
        // Of two outcomes of one operation, an accepted one is definite, and an unknown one leaves it pending.
        let is_unresolved = !outcomes.clone().any(|observed| matches!(observed, Observed::Accepted(_)))
            && outcomes.any(|observed| matches!(observed, Observed::Unknown(_)));
        if is_unresolved && !open.contains(one) {
            open.push(one.clone());
        }
    }
    open
}

/// Executes a customer's pending operations concurrently, some of them twice if `twice` is set.
async fn retry_pending(shop: &Shop, population: &SharedPopulation, n: usize, twice: bool) {
    let mut all = population.borrow().customers[n].pending.clone();
    for one in all.clone() {
        // A double click.
        if twice && shop.faults.rng(|rng| rng.chance(100)) {
            all.push(one);
        }
    }
    let unresolved = execute_all(shop, population, &all).await;
    population.borrow_mut().customers[n].pending.retain(|one| unresolved.contains(one));
    // Some replay an accepted operation, at once or much later.
    let replayed = shop.faults.rng(|rng| {
        let known: Vec<PendingOperation> = population
            .borrow()
            .accepted
            .values()
            .filter(|(pending, _)| pending.customer == Some(n))
            .map(|(pending, _)| pending.clone())
            .collect();
        if rng.chance(120) { rng.pick(&known).cloned() } else { None }
    });
    if let Some(replayed) = replayed.filter(|_| twice) {
        execute(shop, population, &replayed).await;
    }
}

/// Checks that a paid invoice reads as paid.
async fn check_read_your_writes(shop: &Shop, population: &SharedPopulation, n: usize) {
    if !shop.faults.rng(|rng| rng.chance(150)) {
        return;
    }
    let paid = population.borrow().accepted.values().rev().find_map(|(pending, _)| match pending.operation {
        Operation::Pay { invoice, .. } if pending.customer == Some(n) => Some(invoice),
        _ => None,
    });
    let Some(invoice_id) = paid else { return };
    let ctx = RequestContext::new(population.borrow().caller(Some(n), None), "simulation");
    let observed = observe(shop.app.clients.payments.call(ctx, GetInvoice { invoice_id }).await);
    let fits = match &observed {
        Observed::Accepted(invoice) => matches!(invoice["status"].as_str(), Some("paid" | "refunded")),
        Observed::Rejected(_) => false,
        Observed::Unknown(_) => true,
    };
    if !fits && !shop.faults.is_crashed() {
        population
            .borrow_mut()
            .violations
            .push(format!("P14: invoice {invoice_id} was paid and is read as {observed:?}"));
    }
}

/// Retries all pending operations until each has a definite reply.
///
/// # Errors
/// Lists the operations that are still pending after 200 rounds (three minutes).
pub async fn complete_pending(shop: &Shop, population: &SharedPopulation) -> Result<(), String> {
    let count = population.borrow().customers.len();
    for _ in 0..200 {
        for n in 0..count {
            retry_pending(shop, population, n, false).await;
        }
        super::admin_workload::retry_pending(shop, population).await;
        let open = |population: &Population| {
            population.customers.iter().any(|customer| !customer.pending.is_empty())
                || !population.admin_pending.is_empty()
        };
        if !open(&population.borrow()) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(900)).await;
    }
    let population = population.borrow();
    let open: Vec<&PendingOperation> =
        population.customers.iter().flat_map(|customer| &customer.pending).chain(&population.admin_pending).collect();
    Err(format!("P3: no definite reply within three minutes without faults to {open:?}"))
}

/// Replays every accepted operation and compares the reply with the first one.
pub async fn replay_all(shop: &Shop, population: &SharedPopulation) -> Result<(), String> {
    let accepted: Vec<(PendingOperation, Value)> = population.borrow().accepted.values().cloned().collect();
    for (pending, first) in accepted {
        let observed = execute(shop, population, &pending).await;
        let is_blanked = population.borrow().is_blanked(&pending, &first, &observed);
        if observed != Observed::Accepted(first.clone()) && pending.operation != Operation::Erase && !is_blanked {
            return Err(format!("P1: {pending:?} was answered {first} and in the end {observed:?}"));
        }
    }
    Ok(())
}
