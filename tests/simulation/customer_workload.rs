//! The people of a history: what they want, what they were told, and what they do about it. They outlive the shop's
//! processes: who got no answer asks again under the same key.

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
use mercat::types::{Amount, CartItemId, CommentId, InvoiceId, ProductId, Quantity, SessionId, UserId};
use serde::Serialize;
use serde_json::Value;

use super::rng::Dice;
use super::scenario::Shop;

/// What somebody wants of the shop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Want {
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

/// A wish under its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Which buyer; staff when none.
    pub buyer: Option<usize>,
    pub key: String,
    pub want: Want,
    /// What is wanted at once has the same: nobody can say in which order it is done.
    at_once: u64,
}

/// What was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// It is done, and this is the answer.
    Yes(Value),
    /// It is not done and will not be, for the reason of this code.
    No(String),
    /// Nobody knows, or not yet.
    Unknown(String),
}

/// What a buyer did to the cart, in order.
#[derive(Debug, Clone)]
pub enum CartStep {
    Put(ProductId, Quantity),
    Set(ProductId, Quantity),
    CheckedOut(InvoiceId, BTreeMap<ProductId, Quantity>),
}

pub struct Buyer {
    pub user: UserId,
    session: SessionId,
    /// Asked and not answered.
    pub pending: Vec<Ask>,
    /// With what was wanted at once.
    pub steps: Vec<(u64, CartStep)>,
    pub invoices: Vec<InvoiceId>,
    open: Option<InvoiceId>,
    items: BTreeMap<ProductId, CartItemId>,
    /// Whether anything is in the cart, as far as is known.
    filled: bool,
    /// Whether the shop had too little of it.
    wanting: bool,
    comments: BTreeMap<ProductId, CommentId>,
    pub erased: bool,
}

/// Everybody, and everything they were told.
pub struct People {
    pub buyers: Vec<Buyer>,
    pub staff: UserId,
    staff_session: SessionId,
    pub staff_pending: Vec<Ask>,
    pub products: Vec<ProductId>,
    pub totals: BTreeMap<InvoiceId, Amount>,
    /// InvoiceSelection that are known to be paid.
    pub paid: Vec<InvoiceId>,
    /// What was answered with yes, by key.
    pub answers: BTreeMap<String, (Ask, Value)>,
    /// Keys under which it was said that the invoice is paid by another.
    pub paid_by_another: BTreeSet<String>,
    /// Promises found broken on the way.
    pub broken: Vec<String>,
    keys: u64,
    choices: u64,
}

pub type Everybody = Rc<RefCell<People>>;

impl Buyer {
    pub fn new(user: UserId) -> Self {
        Self {
            user,
            session: SessionId::new(),
            pending: Vec::new(),
            steps: Vec::new(),
            invoices: Vec::new(),
            open: None,
            items: BTreeMap::new(),
            filled: false,
            wanting: false,
            comments: BTreeMap::new(),
            erased: false,
        }
    }
}

impl People {
    pub fn new(buyers: Vec<Buyer>, products: Vec<ProductId>) -> Self {
        Self {
            buyers,
            staff: UserId::new(),
            staff_session: SessionId::new(),
            staff_pending: Vec::new(),
            paid: Vec::new(),
            products,
            totals: BTreeMap::new(),
            answers: BTreeMap::new(),
            paid_by_another: BTreeSet::new(),
            broken: Vec::new(),
            keys: 0,
            choices: 0,
        }
    }

    pub fn ask(&mut self, buyer: Option<usize>, want: Want) -> Ask {
        self.keys += 1;
        Ask { buyer, key: format!("key-{}", self.keys), want, at_once: self.choices }
    }

    /// In whose name something is asked.
    pub fn caller(&self, buyer: Option<usize>, want: Option<&Want>) -> Caller {
        let (user_id, role, session) = match buyer {
            // Guests have nothing to say.
            Some(n) if matches!(want, Some(Want::Comment { .. } | Want::Uncomment { .. })) => {
                (self.buyers[n].user, Role::Customer, self.buyers[n].session)
            }
            Some(n) => (self.buyers[n].user, Role::Guest, self.buyers[n].session),
            None => (self.staff, Role::Admin, self.staff_session),
        };
        Caller::User { identity: Identity { user_id, role, credential: Credential::Session(session) }, internal: false }
    }

    /// Takes down what was heard, and finds out what does not fit what was heard before.
    /// `was_known` says whether it was answered with yes before it was asked: of two that run beside each other, one
    /// may be refused while the other is yet to be done.
    pub fn take_down(&mut self, ask: &Ask, heard: &Heard, was_known: bool) {
        match (self.answers.get(&ask.key), heard) {
            (Some((_, first)), Heard::Yes(again)) if first != again => {
                self.broken.push(format!("P1: {ask:?} was answered {first} and then {again}"));
            }
            (Some((_, first)), Heard::No(code)) if was_known => {
                self.broken.push(format!("P1: {ask:?} was answered {first} and then refused with {code}"));
            }
            (None, Heard::Yes(answer)) => {
                self.answers.insert(ask.key.clone(), (ask.clone(), answer.clone()));
                if let Some(n) = ask.buyer {
                    self.learn(n, ask, answer);
                }
            }
            (None, Heard::No(code)) => {
                if let (Want::Pay { .. }, "already_paid") = (&ask.want, code.as_str()) {
                    self.paid_by_another.insert(ask.key.clone());
                }
                self.learn_no(ask, code);
            }
            _ => {}
        }
        if let Heard::Unknown(code) = heard
            && code == "internal"
        {
            self.broken.push(format!("H1: {ask:?} met a fault of the shop's own"));
        }
    }

    fn learn(&mut self, n: usize, ask: &Ask, answer: &Value) {
        let read = |field: &str| answer[field].as_str().unwrap_or_default().to_owned();
        let buyer = &mut self.buyers[n];
        match &ask.want {
            Want::Add { product, quantity } => {
                buyer.steps.push((ask.at_once, CartStep::Put(*product, *quantity)));
                buyer.open = None;
                (buyer.filled, buyer.wanting) = (true, false);
                if let Ok(item) = read("id").parse() {
                    buyer.items.insert(*product, item);
                }
            }
            Want::Set { product, quantity, .. } => {
                buyer.wanting = false;
                buyer.steps.push((ask.at_once, CartStep::Set(*product, *quantity)));
            }
            Want::Remove { product, .. } => {
                buyer.wanting = false;
                buyer.steps.push((ask.at_once, CartStep::Set(*product, 0)));
            }
            Want::Checkout => {
                let Ok(invoice) = read("id").parse() else { return };
                let mut lines = BTreeMap::new();
                for line in answer["lines"].as_array().into_iter().flatten() {
                    if let Some(Ok(product)) = line["product_id"].as_str().map(str::parse) {
                        *lines.entry(product).or_default() += line["quantity"].as_i64().unwrap_or_default();
                    }
                }
                buyer.steps.push((ask.at_once, CartStep::CheckedOut(invoice, lines)));
                buyer.invoices.push(invoice);
                buyer.open = Some(invoice);
                self.totals.insert(invoice, answer["total"].as_i64().unwrap_or_default());
            }
            Want::Pay { invoice, .. } => {
                (buyer.open, buyer.filled) = (None, false);
                if !self.paid.contains(invoice) {
                    self.paid.push(*invoice);
                }
            }
            Want::Cancel { .. } => buyer.open = None,
            Want::Comment { product, .. } => {
                if let Ok(comment) = read("id").parse() {
                    buyer.comments.insert(*product, comment);
                }
            }
            Want::Uncomment { product, .. } => drop(buyer.comments.remove(product)),
            Want::Erase => {
                buyer.erased = true;
                buyer.pending.clear();
            }
            Want::Refund { .. } | Want::Void { .. } | Want::Stock { .. } => {}
        }
    }

    fn learn_no(&mut self, ask: &Ask, code: &str) {
        let Some(buyer) = ask.buyer.and_then(|n| self.buyers.get_mut(n)) else { return };
        match (&ask.want, code) {
            (Want::Pay { .. }, "already_paid" | "invoice_expired" | "invoice_void")
            | (Want::Cancel { .. }, "no_checkout") => {
                buyer.open = None;
            }
            (Want::Checkout, "cart_empty") => buyer.filled = false,
            (Want::Checkout, "out_of_stock") => buyer.wanting = true,
            (Want::Set { product, .. } | Want::Remove { product, .. }, "item_not_found") => {
                buyer.items.remove(product);
            }
            _ => {}
        }
    }

    /// What a buyer wants next: one thing, or two at once.
    fn choose(&mut self, n: usize, dice: &mut Dice) -> Vec<Ask> {
        self.choices += 1;
        let products = self.products.clone();
        let product = *dice.pick(&products).unwrap();
        let buyer = &self.buyers[n];
        let add = Want::Add { product, quantity: i64::try_from(dice.between(1, 2)).unwrap() };
        let item = buyer.items.get(&product).copied();
        let fewer = |quantity| item.map(|item| Want::Set { item, product, quantity });
        let wants = match (buyer.open, dice.below(100)) {
            (Some(invoice), 0..46) => vec![pay(invoice, dice)],
            (Some(invoice), 46..58) => vec![pay(invoice, dice), pay(invoice, dice)],
            (Some(invoice), 58..66) => vec![pay(invoice, dice), Want::Cancel { invoice: Some(invoice) }],
            (Some(invoice), 66..76) => vec![Want::Cancel { invoice: Some(invoice) }],
            (Some(_), 76..82) => vec![Want::Checkout],
            // Waits, perhaps until the invoice has run out.
            (Some(_), 82..94) => vec![comment(product, buyer, dice)],
            (Some(_), _) => vec![add],
            (None, 0..1) if buyer.steps.len() > 4 => vec![Want::Erase],
            (None, 1..2) => vec![Want::Cancel { invoice: None }],
            (None, 2..6) => vec![comment(product, buyer, dice)],
            (None, _) if !buyer.filled => {
                if dice.chance(100) {
                    vec![Want::Checkout]
                } else {
                    vec![add]
                }
            }
            (None, 6..40) if buyer.wanting => vec![fewer(1).unwrap_or(Want::Checkout)],
            (None, 40..50) if buyer.wanting && item.is_some() => {
                vec![item.map_or(Want::Checkout, |item| Want::Remove { item, product })]
            }
            (None, 6..14) => vec![add],
            (None, 14..18) => vec![add.clone(), add],
            (None, 18..24) => vec![fewer(i64::try_from(dice.below(4)).unwrap()).unwrap_or(add)],
            (None, 24..32) => vec![Want::Checkout, Want::Checkout],
            (None, 32..38) => vec![add, Want::Checkout],
            (None, _) => vec![Want::Checkout],
        };
        wants.into_iter().map(|want| self.ask(Some(n), want)).collect()
    }
}

fn comment(product: ProductId, buyer: &Buyer, dice: &mut Dice) -> Want {
    match buyer.comments.get(&product) {
        Some(comment) => Want::Uncomment { product, comment: *comment },
        None => Want::Comment { product, rating: i32::try_from(dice.between(1, 5)).unwrap() },
    }
}

fn pay(invoice: InvoiceId, dice: &mut Dice) -> Want {
    let token = match dice.below(100) {
        0..62 => "tok_ok",
        62..70 => "tok_declined",
        70..78 => "tok_error",
        78..90 => "tok_flaky",
        90..98 => "tok_slow",
        _ => "tok_nobody",
    };
    Want::Pay { invoice, token }
}

fn hear<T: Serialize, E: DomainError>(answer: Result<T, E>) -> Heard {
    match answer {
        Ok(answer) => Heard::Yes(serde_json::to_value(answer).unwrap()),
        Err(error) => {
            let code = serde_json::to_value(&error).unwrap()["code"].as_str().unwrap_or_default().to_owned();
            match error.kind() {
                ErrorKind::Internal | ErrorKind::Unavailable | ErrorKind::DeadlineExceeded => Heard::Unknown(code),
                _ if code == "request_in_progress" => Heard::Unknown(code),
                _ => Heard::No(code),
            }
        }
    }
}

/// Asks once and takes down what was heard. Who asks a process that dies hears nothing, ever.
pub async fn ask(shop: &Shop, people: &Everybody, ask: &Ask) -> Heard {
    let caller = people.borrow().caller(ask.buyer, Some(&ask.want));
    let hurry = shop.world.is_troubled() && shop.world.dice(|dice| dice.chance(60));
    let patience = Duration::from_millis(if hurry { shop.world.dice(|dice| dice.between(5, 200)) } else { 10_000 });
    let ctx =
        RequestContext::new(caller, "lab").with_timeout(patience).with_key(IdempotencyKey::parse(&ask.key).unwrap());
    let user_id = ask.buyer.map(|n| people.borrow().buyers[n].user);
    let user = user_id.unwrap_or_else(|| people.borrow().staff);
    let clients = &shop.app.clients;
    let was_known = people.borrow().answers.contains_key(&ask.key);
    shop.world.note(format_args!("{:?} asks under {}: {:?}", ask.buyer, ask.key, ask.want));
    let heard = match ask.want.clone() {
        Want::Add { product, quantity } => {
            hear(clients.cart.call(ctx, AddItem { user_id: user, product_id: product, quantity }).await)
        }
        Want::Set { item, quantity, .. } => {
            hear(clients.cart.call(ctx, SetQuantity { user_id: user, item_id: item, quantity }).await)
        }
        Want::Remove { item, .. } => hear(clients.cart.call(ctx, RemoveItem { user_id: user, item_id: item }).await),
        Want::Checkout => {
            let email = Some(format!("{user}@example.com"));
            hear(clients.cart.call(ctx, Checkout { user_id: user, email }).await)
        }
        Want::Pay { invoice, token } => {
            hear(clients.payments.call(ctx, PayInvoice { invoice_id: invoice, token: token.to_owned() }).await)
        }
        Want::Cancel { .. } => hear(clients.cart.call(ctx, CancelCheckout { user_id: user }).await),
        Want::Comment { product, rating } => {
            let request = AddComment { product_id: product, rating, text: "So so.".to_owned() };
            hear(clients.comments.call(ctx, request).await)
        }
        Want::Uncomment { product, comment } => {
            hear(clients.comments.call(ctx, DeleteComment { product_id: product, comment_id: comment }).await)
        }
        Want::Erase => hear(clients.users.call(ctx, DeleteUser { user_id: user }).await),
        Want::Refund { invoice, amount, restock } => {
            hear(clients.payments.call(ctx, RefundInvoice { invoice_id: invoice, amount, restock, lines: None }).await)
        }
        Want::Void { invoice } => hear(clients.payments.call(ctx, VoidInvoice { invoice_id: invoice }).await),
        Want::Stock { product, stock } => {
            let patch = ProductPatch { stock: Some(stock), ..ProductPatch::default() };
            hear(clients.catalog.call(ctx, UpdateProduct { product_id: product, patch }).await)
        }
    };
    if shop.world.is_dead() {
        std::future::pending::<()>().await;
    }
    shop.world.note(format_args!("{:?} hears under {}: {}", ask.buyer, ask.key, brief(&heard)));
    shop.world.count(|tally| {
        tally.answers += 1;
        match (&ask.want, &heard) {
            (_, Heard::Unknown(_)) => tally.unanswered += 1,
            (Want::Checkout, Heard::No(code)) if code == "out_of_stock" => tally.out_of_stock += 1,
            (Want::Refund { .. }, Heard::No(code)) if code == "refund_too_large" => tally.refunds_refused += 1,
            (Want::Pay { .. }, Heard::No(_)) => tally.payments_refused += 1,
            (Want::Comment { .. }, Heard::Yes(_)) => tally.comments += 1,
            (Want::Erase, Heard::Yes(_)) => tally.erased += 1,
            _ => {}
        }
    });
    people.borrow_mut().take_down(ask, &heard, was_known);
    heard
}

fn brief(heard: &Heard) -> String {
    match heard {
        Heard::Yes(answer) => format!("yes {} {}", answer["id"], answer["status"]),
        other => format!("{other:?}"),
    }
}

/// One buyer's life in one process.
pub async fn buy(shop: Rc<Shop>, people: Everybody, n: usize) {
    for _ in 0..40 {
        if people.borrow().buyers[n].erased {
            return;
        }
        if people.borrow().buyers[n].pending.is_empty() {
            let asks = shop.world.dice(|dice| people.borrow_mut().choose(n, dice));
            people.borrow_mut().buyers[n].pending = asks;
        }
        settle(&shop, &people, n, true).await;
        read_what_was_written(&shop, &people, n).await;
        let pause = shop.world.dice(|dice| if dice.chance(40) { dice.between(200, 2_000) } else { dice.below(30) });
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

/// Asks for all of these at once; gives back which have no answer yet.
pub async fn ask_all(shop: &Shop, people: &Everybody, all: &[Ask]) -> Vec<Ask> {
    let heard = join_all(all.iter().map(|one| ask(shop, people, one))).await;
    let mut open: Vec<Ask> = Vec::new();
    for one in all {
        let mut of_it = all.iter().zip(&heard).filter(|(asked, _)| asked.key == one.key).map(|(_, heard)| heard);
        // Of two answers to one wish, a yes settles it, and an unknown leaves it open.
        let is_open = !of_it.clone().any(|heard| matches!(heard, Heard::Yes(_)))
            && of_it.any(|heard| matches!(heard, Heard::Unknown(_)));
        if is_open && !open.contains(one) {
            open.push(one.clone());
        }
    }
    open
}

/// Asks for everything that a buyer has no answer to, at once and perhaps twice; what is answered is settled.
async fn settle(shop: &Shop, people: &Everybody, n: usize, twice: bool) {
    let mut all = people.borrow().buyers[n].pending.clone();
    for one in all.clone() {
        // The impatient press the button twice.
        if twice && shop.world.dice(|dice| dice.chance(100)) {
            all.push(one);
        }
    }
    let open = ask_all(shop, people, &all).await;
    people.borrow_mut().buyers[n].pending.retain(|one| open.contains(one));
    // Some ask again although they were answered, at once or much later.
    let again = shop.world.dice(|dice| {
        let known: Vec<Ask> = people
            .borrow()
            .answers
            .values()
            .filter(|(ask, _)| ask.buyer == Some(n))
            .map(|(ask, _)| ask.clone())
            .collect();
        if dice.chance(120) { dice.pick(&known).cloned() } else { None }
    });
    if let Some(again) = again.filter(|_| twice) {
        ask(shop, people, &again).await;
    }
}

/// What was answered with yes is seen by whoever reads next.
async fn read_what_was_written(shop: &Shop, people: &Everybody, n: usize) {
    if !shop.world.dice(|dice| dice.chance(150)) {
        return;
    }
    let paid = people.borrow().answers.values().rev().find_map(|(ask, _)| match ask.want {
        Want::Pay { invoice, .. } if ask.buyer == Some(n) => Some(invoice),
        _ => None,
    });
    let Some(invoice_id) = paid else { return };
    let ctx = RequestContext::new(people.borrow().caller(Some(n), None), "lab");
    let heard = hear(shop.app.clients.payments.call(ctx, GetInvoice { invoice_id }).await);
    let fits = match &heard {
        Heard::Yes(invoice) => matches!(invoice["status"].as_str(), Some("paid" | "refunded")),
        Heard::No(_) => false,
        Heard::Unknown(_) => true,
    };
    if !fits && !shop.world.is_dead() {
        people.borrow_mut().broken.push(format!("P14: invoice {invoice_id} was paid and is read as {heard:?}"));
    }
}

/// Everybody gets an answer to everything at last.
pub async fn finish(shop: &Shop, people: &Everybody) -> Result<(), String> {
    let count = people.borrow().buyers.len();
    for _ in 0..200 {
        for n in 0..count {
            settle(shop, people, n, false).await;
        }
        super::admin_workload::settle(shop, people).await;
        let open = |people: &People| {
            people.buyers.iter().any(|buyer| !buyer.pending.is_empty()) || !people.staff_pending.is_empty()
        };
        if !open(&people.borrow()) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(900)).await;
    }
    let people = people.borrow();
    let open: Vec<&Ask> = people.buyers.iter().flat_map(|buyer| &buyer.pending).chain(&people.staff_pending).collect();
    Err(format!("P3: no answer in three minutes without any trouble to {open:?}"))
}

/// Every answer that was ever given is given again.
pub async fn ask_everything_again(shop: &Shop, people: &Everybody) -> Result<(), String> {
    let answers: Vec<(Ask, Value)> = people.borrow().answers.values().cloned().collect();
    for (asked, first) in answers {
        let heard = ask(shop, people, &asked).await;
        if heard != Heard::Yes(first.clone()) && asked.want != Want::Erase {
            return Err(format!("P1: {asked:?} was answered {first} and in the end {heard:?}"));
        }
    }
    Ok(())
}
