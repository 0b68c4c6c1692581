//! The demo shop: what a first start shows, and what people try things on.
//!
//! Lives here: made-up products with drawn pictures (`tools/demo_pictures.py` draws them), customers, orders of the last weeks,
//! comments, and how they are put into a shop through its messages. Never enters: SQL, a rule of any domain.
//!
//! A load may end at any moment and be begun again: products are known by their sku, people by their address, comments
//! by who says them of what, pictures and orders by how many of them are there already. Nothing comes twice.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Deserialize;

use crate::app::Clients;
use crate::contract::catalog::{AddImage, ImportOutcome, ImportProducts, ListImages, NewProduct};
use crate::contract::comments::{CommentsError, ImportComment};
use crate::contract::payments::{ImportInvoice, InvoiceLine, InvoiceStatus, ListInvoices};
use crate::contract::users::{CreateUser, ListUsers, UpdateUser, User, UsersError};
use crate::messaging::{RequestContext, Role};
use crate::types::{Clock, PageRequest, ProductId, Quantity, Timestamp, UserId};

/// The demo administrator's address.
pub const ADMIN: &str = "admin@example.com";
/// Pictures that are rendered at the same time. More than most machines have cores would only take memory.
const RENDERED_AT_ONCE: usize = 4;
/// How long one answer may take, on the slowest machine a demo is tried on.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// The pictures, in the binary.
#[derive(rust_embed::RustEmbed)]
#[folder = "src/demo/pictures/"]
struct Pictures;

#[derive(Deserialize)]
struct DemoProduct {
    #[serde(flatten)]
    product: NewProduct,
    pictures: Vec<String>,
}

#[derive(Deserialize)]
struct People {
    customers: Vec<Customer>,
    orders: Vec<Order>,
    comments: Vec<DemoComment>,
}

#[derive(Deserialize)]
struct Customer {
    email: String,
    name: String,
}

#[derive(Deserialize)]
struct Order {
    customer: String,
    days_ago: u32,
    lines: Vec<Line>,
    outcome: InvoiceStatus,
}

#[derive(Deserialize)]
struct Line {
    sku: String,
    quantity: Quantity,
}

#[derive(Deserialize)]
struct DemoComment {
    customer: String,
    sku: String,
    rating: i32,
    text: String,
}

/// What happens to people of the demo who are there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExistingAccounts {
    /// They stay as they are: they may be somebody's own.
    Keep,
    /// They get a new password: they are of a load that was cut short before it told anybody the old one.
    Reset,
}

/// What was loaded.
#[derive(Debug)]
pub struct DemoSummary {
    /// All products of the demo.
    pub products: usize,
    /// Pictures that were not there before.
    pub pictures: u64,
    /// All customers of the demo.
    pub customers: usize,
    /// Orders that were not there before.
    pub orders: u64,
    /// Comments that were not there before.
    pub comments: u64,
    /// The administrator's password, unless the administrator was there before. Kept nowhere else.
    pub admin_password: Option<String>,
    /// The password of those customers who were not there before, if any.
    pub customer_password: Option<String>,
    /// The address of one of the customers.
    pub customer: String,
}

/// Why a demo shop cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {reason}")]
pub struct LoadError {
    what: String,
    reason: String,
}

/// Says of what an error came.
fn of<E: std::fmt::Display>(what: impl Into<String>) -> impl FnOnce(E) -> LoadError {
    let what = what.into();
    move |error| LoadError { what, reason: error.to_string() }
}

/// Puts the demo shop into the shop. Tells `step` how many steps of how many are done.
pub async fn load(
    clients: &Clients,
    clock: &Clock,
    accounts: ExistingAccounts,
    step: &dyn Fn(u64, u64),
) -> Result<DemoSummary, LoadError> {
    let goods: Vec<DemoProduct> =
        serde_json::from_str(include_str!("products.json")).map_err(of("the demo's products"))?;
    let people: People = serde_json::from_str(include_str!("people.json")).map_err(of("the demo's people"))?;
    let pictures: usize = goods.iter().map(|product| product.pictures.len()).sum();
    let all = 1 + pictures + 1 + people.customers.len() + people.orders.len() + people.comments.len();
    let loader = Loader {
        clients,
        now: clock.now(),
        step,
        done: AtomicU64::new(0),
        all: u64::try_from(all).unwrap_or(u64::MAX),
    };
    let rows: Vec<NewProduct> = goods.iter().map(|product| product.product.clone()).collect();
    let ids = loader.products(&rows).await?;
    let shelf: HashMap<&str, (ProductId, &NewProduct)> =
        rows.iter().zip(ids).map(|(row, id)| (row.sku.as_str(), (id, row))).collect();
    // Rendering keeps the cores busy, people keep the hashers busy: together they take no longer than one of them.
    let (pictures, (admin_password, customer_password, orders, comments)) =
        futures_util::future::try_join(loader.pictures(&goods, &shelf), async {
            let times = loader.times(&people.orders);
            let password = password()?;
            let admin = loader.admin(accounts, &password).await?;
            let customer_password = self::password()?;
            let (who, any_new) = loader.customers(&people, &times, accounts, &customer_password).await?;
            let orders = loader.orders(&people.orders, &times, &who, &shelf).await?;
            let comments = loader.comments(&people, &times, &who, &shelf).await?;
            Ok((admin.then_some(password), any_new.then_some(customer_password), orders, comments))
        })
        .await?;
    Ok(DemoSummary {
        products: rows.len(),
        pictures,
        customers: people.customers.len(),
        orders,
        comments,
        admin_password,
        customer_password,
        customer: people.customers.first().map(|customer| customer.email.clone()).unwrap_or_default(),
    })
}

struct Loader<'a> {
    clients: &'a Clients,
    now: Timestamp,
    step: &'a dyn Fn(u64, u64),
    done: AtomicU64,
    all: u64,
}

type ProductsBySku<'a> = HashMap<&'a str, (ProductId, &'a NewProduct)>;
type UsersByEmail<'a> = HashMap<&'a str, (UserId, &'a str)>;

impl Loader<'_> {
    fn ctx() -> RequestContext {
        RequestContext::internal("demo").with_timeout(CALL_TIMEOUT)
    }

    fn stepped(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        (self.step)(done, self.all);
    }

    /// Puts the products in and gives back their ids, in the same order.
    async fn products(&self, rows: &[NewProduct]) -> Result<Vec<ProductId>, LoadError> {
        let request = ImportProducts { rows: rows.to_vec() };
        let outcomes = self.clients.catalog.call(Self::ctx(), request).await.map_err(of("the products"))?;
        self.stepped();
        rows.iter()
            .zip(outcomes)
            .map(|(row, outcome)| match outcome {
                ImportOutcome::Created(id) | ImportOutcome::Updated(id) => Ok(id),
                ImportOutcome::Refused(reason) => Err(LoadError { what: format!("the product {}", row.sku), reason }),
            })
            .collect()
    }

    /// Adds the pictures that are missing: several products at once, the pictures of one in their order.
    async fn pictures(&self, goods: &[DemoProduct], shelf: &ProductsBySku<'_>) -> Result<u64, LoadError> {
        let jobs = goods.iter().filter_map(|goods| {
            let (product_id, _) = *shelf.get(goods.product.sku.as_str())?;
            Some(self.pictures_of(goods, product_id))
        });
        stream::iter(jobs).buffer_unordered(RENDERED_AT_ONCE).try_fold(0, |sum, new| async move { Ok(sum + new) }).await
    }

    async fn pictures_of(&self, goods: &DemoProduct, product_id: ProductId) -> Result<u64, LoadError> {
        let what = || format!("the pictures of {}", goods.product.sku);
        let catalog = &self.clients.catalog;
        let there = catalog.call(Self::ctx(), ListImages { product_id }).await.map_err(of(what()))?.len();
        let mut new = 0;
        for (at, name) in goods.pictures.iter().enumerate() {
            if at >= there {
                let file = Pictures::get(name).ok_or_else(|| of(what())(format!("{name} is not in the program")))?;
                let request = AddImage { product_id, alt: String::new(), data: file.data.into_owned() };
                catalog.call(Self::ctx(), request).await.map_err(of(what()))?;
                new += 1;
            }
            self.stepped();
        }
        Ok(new)
    }

    /// When each order was made: on its day, in waking hours, one after the other, and none in the future.
    fn times(&self, orders: &[Order]) -> Vec<Timestamp> {
        let midnight = self.now.micros().rem_euclid(micros(DAY));
        let today = Timestamp::from_micros(self.now.micros() - midnight);
        let mut last = Timestamp::from_micros(i64::MIN);
        let mut times: Vec<Timestamp> = orders
            .iter()
            .enumerate()
            .map(|(at, order)| {
                // From 8 to 22 o'clock, spread evenly by the golden ratio, which never looks like a pattern.
                let minute = 8 * 60 + (u32::try_from(at).unwrap_or(0).wrapping_mul(519)) % (14 * 60);
                let time = today.saturating_sub(DAY * order.days_ago).saturating_add(MINUTE * minute);
                last = time.max(last.saturating_add(MINUTE * 7));
                last
            })
            .collect();
        // Those of today that have not come yet, and what they follow, are moved to just before now.
        let mut latest = self.now.saturating_sub(MINUTE * 4);
        for time in times.iter_mut().rev() {
            *time = (*time).min(latest);
            latest = time.saturating_sub(MINUTE * 11);
        }
        times
    }

    /// Makes the administrator. Whether the password is theirs now.
    async fn admin(&self, accounts: ExistingAccounts, password: &str) -> Result<bool, LoadError> {
        let created_at = self.now.saturating_sub(DAY * 45);
        let (_, new) = self.person(ADMIN, "Shop Admin", Role::Admin, created_at, accounts, password).await?;
        Ok(new)
    }

    /// Makes the customers, each shortly before their first order. Gives back who they are, and whether the password is
    /// any one's now.
    async fn customers<'a>(
        &self,
        people: &'a People,
        times: &[Timestamp],
        accounts: ExistingAccounts,
        password: &str,
    ) -> Result<(UsersByEmail<'a>, bool), LoadError> {
        let jobs = people.customers.iter().enumerate().map(|(at, customer)| async move {
            let first = people.orders.iter().zip(times).find(|(order, _)| order.customer == customer.email);
            let before = MINUTE * (9 + 6 * u32::try_from(at).unwrap_or(0));
            let created_at = first.map_or(self.now.saturating_sub(DAY * 20), |(_, time)| *time).saturating_sub(before);
            let (id, new) =
                self.person(&customer.email, &customer.name, Role::Customer, created_at, accounts, password).await?;
            Ok::<_, LoadError>((customer, id, new))
        });
        let made: Vec<_> = stream::iter(jobs).buffered(RENDERED_AT_ONCE).try_collect().await?;
        let any_new = made.iter().any(|(.., new)| *new);
        let who = made.into_iter().map(|(c, id, _)| (c.email.as_str(), (id, c.name.as_str()))).collect();
        Ok((who, any_new))
    }

    /// Makes an account, or finds the one that is there. Whether the password is theirs now.
    async fn person(
        &self,
        email: &str,
        name: &str,
        role: Role,
        created_at: Timestamp,
        accounts: ExistingAccounts,
        password: &str,
    ) -> Result<(UserId, bool), LoadError> {
        let what = || format!("the account {email}");
        let users = &self.clients.users;
        let request = CreateUser {
            email: email.to_owned(),
            password: password.to_owned(),
            name: name.to_owned(),
            role,
            created_at: Some(created_at),
        };
        let made = match users.call(Self::ctx(), request).await {
            Ok(user) => Some((user.id, true)),
            Err(UsersError::EmailTaken) => None,
            Err(error) => return Err(of(what())(error)),
        };
        let found = match made {
            Some(made) => made,
            None => {
                let user = self.find(email).await?;
                if accounts == ExistingAccounts::Reset {
                    let request = UpdateUser {
                        user_id: user.id,
                        name: None,
                        email: None,
                        password: Some(password.to_owned()),
                        current_password: None,
                        role: None,
                    };
                    users.call(Self::ctx(), request).await.map_err(of(what()))?;
                }
                (user.id, accounts == ExistingAccounts::Reset)
            }
        };
        self.stepped();
        Ok(found)
    }

    /// The account with this address.
    async fn find(&self, email: &str) -> Result<User, LoadError> {
        let page = PageRequest { limit: Some(100), cursor: None };
        let request = ListUsers { q: Some(email.to_owned()), page };
        let what = || format!("the account {email}");
        let found = self.clients.users.call(Self::ctx(), request).await.map_err(of(what()))?;
        let same = |user: &User| user.email.as_ref().is_some_and(|address| address.as_str() == email);
        found.items.into_iter().find(same).ok_or_else(|| of(what())("is taken and cannot be found"))
    }

    /// Writes the orders into the books, the oldest first, less as many of each customer as are there already.
    async fn orders(
        &self,
        orders: &[Order],
        times: &[Timestamp],
        who: &UsersByEmail<'_>,
        shelf: &ProductsBySku<'_>,
    ) -> Result<u64, LoadError> {
        let mut there: BTreeMap<UserId, usize> = BTreeMap::new();
        for (user_id, _) in who.values() {
            let page = PageRequest { limit: Some(100), cursor: None };
            let request = ListInvoices { user_id: Some(*user_id), status: None, page };
            let found = self.clients.payments.call(Self::ctx(), request).await.map_err(of("the orders"))?;
            there.insert(*user_id, found.items.len());
        }
        let mut new = 0;
        for (order, at) in orders.iter().zip(times) {
            let what = || format!("an order of {}", order.customer);
            let (user_id, _) =
                *who.get(order.customer.as_str()).ok_or_else(|| of(what())("there is no such customer"))?;
            self.stepped();
            if let Some(left) = there.get_mut(&user_id).filter(|left| **left > 0) {
                *left -= 1;
                continue;
            }
            let mut currency = None;
            let mut lines = Vec::with_capacity(order.lines.len());
            for line in &order.lines {
                let (product_id, product) =
                    *shelf.get(line.sku.as_str()).ok_or_else(|| of(what())("there is no such product"))?;
                currency = Some(product.currency);
                lines.push(InvoiceLine {
                    description: described(product),
                    product_id: Some(product_id),
                    quantity: line.quantity,
                    unit_price: product.price,
                });
            }
            let currency = currency.ok_or_else(|| of(what())("has no lines"))?;
            let request = ImportInvoice { user_id, lines, currency, status: order.outcome, at: *at };
            self.clients.payments.call(Self::ctx(), request).await.map_err(of(what()))?;
            new += 1;
        }
        Ok(new)
    }

    /// Writes what customers said, some days after they bought it.
    async fn comments(
        &self,
        people: &People,
        times: &[Timestamp],
        who: &UsersByEmail<'_>,
        shelf: &ProductsBySku<'_>,
    ) -> Result<u64, LoadError> {
        let mut new = 0;
        for (n, said) in people.comments.iter().enumerate() {
            let n = u32::try_from(n).unwrap_or(0);
            let what = || format!("a comment of {}", said.customer);
            let (user_id, author) =
                *who.get(said.customer.as_str()).ok_or_else(|| of(what())("there is no such customer"))?;
            let (product_id, _) =
                *shelf.get(said.sku.as_str()).ok_or_else(|| of(what())("there is no such product"))?;
            let bought = people.orders.iter().zip(times).find(|(order, _)| {
                order.customer == said.customer && order.lines.iter().any(|line| line.sku == said.sku)
            });
            let bought = bought.map_or(self.now.saturating_sub(DAY * (6 + n % 20)), |(_, time)| *time);
            let after = DAY * (2 + n % 4) + MINUTE * (n * 97 % 600);
            let at = bought.saturating_add(after).min(self.now.saturating_sub(MINUTE * (15 + n * 13)));
            let request = ImportComment {
                product_id,
                user_id,
                author: author.to_owned(),
                rating: said.rating,
                text: said.text.clone(),
                at,
            };
            match self.clients.comments.call(Self::ctx(), request).await {
                Ok(_) => new += 1,
                Err(CommentsError::AlreadyCommented) => {}
                Err(error) => return Err(of(what())(error)),
            }
            self.stepped();
        }
        Ok(new)
    }
}

/// A product's name with what sets it apart: `Teapot (Blue)`.
fn described(product: &NewProduct) -> String {
    if product.options.is_empty() {
        return product.name.clone();
    }
    let options: Vec<&str> = product.options.values().map(String::as_str).collect();
    format!("{} ({})", product.name, options.join(", "))
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// A random password of 80 bits, in letters and digits that nobody mistakes for others.
fn password() -> Result<String, LoadError> {
    const PASSWORD_ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut random = [0_u8; 16];
    getrandom::fill(&mut random).map_err(of("a random password"))?;
    let mut text = String::with_capacity(19);
    for (at, byte) in random.iter().enumerate() {
        if at % 4 == 0 && at > 0 {
            text.push('-');
        }
        text.push(char::from(PASSWORD_ALPHABET[usize::from(byte % 32)]));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
