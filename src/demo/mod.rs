//! Data of the demo shop, and its loading into a shop through the messages of the domains.
//!
//! Contains: invented products with drawn pictures (by `tools/demo_pictures.py`), customers, orders of the last weeks and
//! comments. Does not contain: SQL, or a rule of any domain.
//!
//! Loading is idempotent: it may stop at any moment and be started again. Products are recognised by their SKU, accounts
//! by their address, comments by author and product; of pictures and orders, as many are skipped as exist already.

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
/// Most products whose pictures are rendered at the same time, and most accounts that are created at the same time. More
/// than the number of cores only takes memory.
const CONCURRENCY: usize = 4;
/// Time limit of each call: rendering takes long on a slow machine.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// Pictures, embedded into the binary.
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
    customers: Vec<DemoCustomer>,
    orders: Vec<DemoOrder>,
    comments: Vec<DemoComment>,
}

#[derive(Deserialize)]
struct DemoCustomer {
    email: String,
    name: String,
}

#[derive(Deserialize)]
struct DemoOrder {
    customer: String,
    days_ago: u32,
    lines: Vec<DemoOrderLine>,
    outcome: InvoiceStatus,
}

#[derive(Deserialize)]
struct DemoOrderLine {
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

/// Treatment of demo accounts that exist already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExistingAccounts {
    /// They stay as they are: they may belong to a real user.
    Keep,
    /// They get a new password: they come from a load that was interrupted before it printed the old one.
    Reset,
}

/// Result of loading the demo.
#[derive(Debug)]
pub struct DemoSummary {
    /// Number of products of the demo, new and existing.
    pub products: usize,
    /// Number of new pictures.
    pub pictures: u64,
    /// Number of customers of the demo, new and existing.
    pub customers: usize,
    /// Number of new orders.
    pub orders: u64,
    /// Number of new comments.
    pub comments: u64,
    /// The administrator's password, if the load set it. Not stored in clear text anywhere else.
    pub admin_password: Option<String>,
    /// The common password of the customers for whom the load set one, if any.
    pub customer_password: Option<String>,
    /// E-mail address of the first customer.
    pub customer: String,
}

/// Error of loading the demo: the part that failed, and the cause.
#[derive(Debug, thiserror::Error)]
#[error("{part}: {reason}")]
pub struct LoadError {
    part: String,
    reason: String,
}

/// Returns a function that wraps an error into a [`LoadError`] of `part`.
fn error_in<E: std::fmt::Display>(part: impl Into<String>) -> impl FnOnce(E) -> LoadError {
    let part = part.into();
    move |error| LoadError { part, reason: error.to_string() }
}

/// Loads the demo into a shop. Calls `progress` with the number of completed steps and of all steps.
///
/// # Errors
/// [`LoadError`] when a domain fails or rejects a part of the demo. What was loaded until then stays.
pub async fn load(
    clients: &Clients,
    clock: &Clock,
    accounts: ExistingAccounts,
    progress: &dyn Fn(u64, u64),
) -> Result<DemoSummary, LoadError> {
    let products: Vec<DemoProduct> =
        serde_json::from_str(include_str!("products.json")).map_err(error_in("the demo's products"))?;
    let people: People = serde_json::from_str(include_str!("people.json")).map_err(error_in("the demo's people"))?;
    let pictures: usize = products.iter().map(|product| product.pictures.len()).sum();
    let steps = 1 + pictures + 1 + people.customers.len() + people.orders.len() + people.comments.len();
    let loader = Loader {
        clients,
        now: clock.now(),
        progress,
        completed: AtomicU64::new(0),
        steps: u64::try_from(steps).unwrap_or(u64::MAX),
    };
    let rows: Vec<NewProduct> = products.iter().map(|product| product.product.clone()).collect();
    let ids = loader.import_products(&rows).await?;
    let by_sku: ProductsBySku<'_> = rows.iter().zip(ids).map(|(row, id)| (row.sku.as_str(), (id, row))).collect();
    // Rendering is bound by the catalog's threads, accounts by the password hashers: together they take no longer than
    // the slower of the two.
    let (pictures, (admin_password, customer_password, orders, comments)) =
        futures_util::future::try_join(loader.add_pictures(&products, &by_sku), async {
            let times = loader.order_times(&people.orders);
            let admin_password = random_password()?;
            let is_admin_password_set = loader.create_admin(accounts, &admin_password).await?;
            let customer_password = random_password()?;
            let (users, is_any_password_set) =
                loader.create_customers(&people, &times, accounts, &customer_password).await?;
            let orders = loader.import_orders(&people.orders, &times, &users, &by_sku).await?;
            let comments = loader.import_comments(&people, &times, &users, &by_sku).await?;
            Ok((
                is_admin_password_set.then_some(admin_password),
                is_any_password_set.then_some(customer_password),
                orders,
                comments,
            ))
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
    /// Called with the number of completed steps and of all steps.
    progress: &'a dyn Fn(u64, u64),
    completed: AtomicU64,
    steps: u64,
}

/// Identifier and data of each product.
type ProductsBySku<'a> = HashMap<&'a str, (ProductId, &'a NewProduct)>;
/// Identifier and name of each customer.
type UsersByEmail<'a> = HashMap<&'a str, (UserId, &'a str)>;

impl Loader<'_> {
    fn ctx() -> RequestContext {
        RequestContext::internal("demo").with_timeout(CALL_TIMEOUT)
    }

    fn advance_progress(&self) {
        let completed = self.completed.fetch_add(1, Ordering::Relaxed) + 1;
        (self.progress)(completed, self.steps);
    }

    /// Imports the products and returns their ids, in the same order.
    async fn import_products(&self, rows: &[NewProduct]) -> Result<Vec<ProductId>, LoadError> {
        let request =
            ImportProducts { rows: rows.iter().cloned().map(Into::into).collect(), overwrite: true, dry_run: false };
        let outcomes = self.clients.catalog.call(Self::ctx(), request).await.map_err(error_in("the products"))?;
        self.advance_progress();
        rows.iter()
            .zip(outcomes)
            .map(|(row, outcome)| match outcome {
                ImportOutcome::Created(id) | ImportOutcome::Unchanged(id) => Ok(id),
                ImportOutcome::Updated { product_id, .. } => Ok(product_id),
                ImportOutcome::Refused(reason) => Err(LoadError { part: format!("the product {}", row.sku), reason }),
                ImportOutcome::LeftOut => {
                    Err(LoadError { part: format!("the product {}", row.sku), reason: "it is not for sale".to_owned() })
                }
            })
            .collect()
    }

    /// Adds missing pictures, for several products at once. Returns their number.
    async fn add_pictures(&self, products: &[DemoProduct], by_sku: &ProductsBySku<'_>) -> Result<u64, LoadError> {
        let jobs = products.iter().filter_map(|product| {
            let (product_id, _) = *by_sku.get(product.product.sku.as_str())?;
            Some(self.add_pictures_of(product, product_id))
        });
        stream::iter(jobs).buffer_unordered(CONCURRENCY).try_fold(0, |sum, new| async move { Ok(sum + new) }).await
    }

    /// Adds the missing pictures of one product, in their order. Returns their number.
    async fn add_pictures_of(&self, product: &DemoProduct, product_id: ProductId) -> Result<u64, LoadError> {
        let part = || format!("the pictures of {}", product.product.sku);
        let catalog = &self.clients.catalog;
        let existing = catalog.call(Self::ctx(), ListImages { product_id }).await.map_err(error_in(part()))?.len();
        let mut new = 0;
        for (n, name) in product.pictures.iter().enumerate() {
            if n >= existing {
                let file =
                    Pictures::get(name).ok_or_else(|| error_in(part())(format!("{name} is not in the program")))?;
                let request = AddImage { product_id, alt: String::new(), data: file.data.into_owned() };
                catalog.call(Self::ctx(), request).await.map_err(error_in(part()))?;
                new += 1;
            }
            self.advance_progress();
        }
        Ok(new)
    }

    /// Returns the time of each order: on its day between 8 and 22 o'clock, in ascending order, none in the future.
    fn order_times(&self, orders: &[DemoOrder]) -> Vec<Timestamp> {
        let midnight = self.now.micros().rem_euclid(micros(DAY));
        let today = Timestamp::from_micros(self.now.micros() - midnight);
        let mut last = Timestamp::from_micros(i64::MIN);
        let mut times: Vec<Timestamp> = orders
            .iter()
            .enumerate()
            .map(|(n, order)| {
                // 519 is 14 hours by the golden ratio in minutes: spread evenly, without a visible pattern.
                let minute = 8 * 60 + (u32::try_from(n).unwrap_or(0).wrapping_mul(519)) % (14 * 60);
                let time = today.saturating_sub(DAY * order.days_ago).saturating_add(MINUTE * minute);
                last = time.max(last.saturating_add(MINUTE * 7));
                last
            })
            .collect();
        // Times in the future, and those that would follow them, are moved to before now.
        let mut latest = self.now.saturating_sub(MINUTE * 4);
        for time in times.iter_mut().rev() {
            *time = (*time).min(latest);
            latest = time.saturating_sub(MINUTE * 11);
        }
        times
    }

    /// Creates the administrator. Returns whether `password` was set.
    async fn create_admin(&self, accounts: ExistingAccounts, password: &str) -> Result<bool, LoadError> {
        let created_at = self.now.saturating_sub(DAY * 45);
        let (_, is_password_set) =
            self.create_account(ADMIN, "Shop Admin", Role::Admin, created_at, accounts, password).await?;
        Ok(is_password_set)
    }

    /// Creates the customers, each shortly before their first order. Returns them, and whether `password` was set for any.
    async fn create_customers<'a>(
        &self,
        people: &'a People,
        times: &[Timestamp],
        accounts: ExistingAccounts,
        password: &str,
    ) -> Result<(UsersByEmail<'a>, bool), LoadError> {
        let jobs = people.customers.iter().enumerate().map(|(n, customer)| async move {
            let first = people.orders.iter().zip(times).find(|(order, _)| order.customer == customer.email);
            let before = MINUTE * (9 + 6 * u32::try_from(n).unwrap_or(0));
            let created_at = first.map_or(self.now.saturating_sub(DAY * 20), |(_, time)| *time).saturating_sub(before);
            let (id, is_password_set) = self
                .create_account(&customer.email, &customer.name, Role::Customer, created_at, accounts, password)
                .await?;
            Ok::<_, LoadError>((customer, id, is_password_set))
        });
        let created: Vec<_> = stream::iter(jobs).buffered(CONCURRENCY).try_collect().await?;
        let is_any_password_set = created.iter().any(|(.., is_password_set)| *is_password_set);
        let users = created.into_iter().map(|(c, id, _)| (c.email.as_str(), (id, c.name.as_str()))).collect();
        Ok((users, is_any_password_set))
    }

    /// Creates an account, or finds the existing one. Returns its id, and whether `password` was set.
    async fn create_account(
        &self,
        email: &str,
        name: &str,
        role: Role,
        created_at: Timestamp,
        accounts: ExistingAccounts,
        password: &str,
    ) -> Result<(UserId, bool), LoadError> {
        let part = || format!("the account {email}");
        let users = &self.clients.users;
        let request = CreateUser {
            email: email.to_owned(),
            password: password.to_owned(),
            name: name.to_owned(),
            role,
            created_at: Some(created_at),
        };
        let account = match users.call(Self::ctx(), request).await {
            Ok(user) => (user.id, true),
            Err(UsersError::EmailTaken) => {
                let user = self.find_account(email).await?;
                let is_reset = accounts == ExistingAccounts::Reset;
                if is_reset {
                    let request = UpdateUser {
                        user_id: user.id,
                        name: None,
                        email: None,
                        password: Some(password.to_owned()),
                        current_password: None,
                        role: None,
                        keep_api_keys: false,
                    };
                    users.call(Self::ctx(), request).await.map_err(error_in(part()))?;
                }
                (user.id, is_reset)
            }
            Err(error) => return Err(error_in(part())(error)),
        };
        self.advance_progress();
        Ok(account)
    }

    /// Finds the account with this address.
    async fn find_account(&self, email: &str) -> Result<User, LoadError> {
        let page = PageRequest { limit: Some(100), cursor: None };
        let request = ListUsers { q: Some(email.to_owned()), page };
        let part = || format!("the account {email}");
        let found = self.clients.users.call(Self::ctx(), request).await.map_err(error_in(part()))?;
        let has_email = |user: &User| user.email.as_ref().is_some_and(|address| address.as_str() == email);
        found.items.into_iter().find(has_email).ok_or_else(|| error_in(part())("is taken and cannot be found"))
    }

    /// Imports the orders as invoices, oldest first. Skips as many orders of each customer as the customer has invoices.
    async fn import_orders(
        &self,
        orders: &[DemoOrder],
        times: &[Timestamp],
        users: &UsersByEmail<'_>,
        by_sku: &ProductsBySku<'_>,
    ) -> Result<u64, LoadError> {
        let mut existing: BTreeMap<UserId, usize> = BTreeMap::new();
        for (user_id, _) in users.values() {
            let page = PageRequest { limit: Some(100), cursor: None };
            let request = ListInvoices { user_id: Some(*user_id), status: None, page };
            let found = self.clients.payments.call(Self::ctx(), request).await.map_err(error_in("the orders"))?;
            existing.insert(*user_id, found.items.len());
        }
        let mut new = 0;
        for (order, at) in orders.iter().zip(times) {
            let part = || format!("an order of {}", order.customer);
            let (user_id, _) =
                *users.get(order.customer.as_str()).ok_or_else(|| error_in(part())("there is no such customer"))?;
            self.advance_progress();
            if let Some(left) = existing.get_mut(&user_id).filter(|left| **left > 0) {
                *left -= 1;
                continue;
            }
            let mut currency = None;
            let mut lines = Vec::with_capacity(order.lines.len());
            for line in &order.lines {
                let (product_id, product) =
                    *by_sku.get(line.sku.as_str()).ok_or_else(|| error_in(part())("there is no such product"))?;
                currency = Some(product.currency);
                lines.push(InvoiceLine {
                    description: display_name(product),
                    product_id: Some(product_id),
                    quantity: line.quantity,
                    unit_price: product.price,
                    tax: None,
                });
            }
            let currency = currency.ok_or_else(|| error_in(part())("has no lines"))?;
            let request = ImportInvoice { user_id, lines, currency, status: order.outcome, at: *at };
            self.clients.payments.call(Self::ctx(), request).await.map_err(error_in(part()))?;
            new += 1;
        }
        Ok(new)
    }

    /// Imports the comments, each some days after the purchase of its product. Skips existing ones.
    async fn import_comments(
        &self,
        people: &People,
        times: &[Timestamp],
        users: &UsersByEmail<'_>,
        by_sku: &ProductsBySku<'_>,
    ) -> Result<u64, LoadError> {
        let mut new = 0;
        for (n, comment) in people.comments.iter().enumerate() {
            let n = u32::try_from(n).unwrap_or(0);
            let part = || format!("a comment of {}", comment.customer);
            let (user_id, author) =
                *users.get(comment.customer.as_str()).ok_or_else(|| error_in(part())("there is no such customer"))?;
            let (product_id, _) =
                *by_sku.get(comment.sku.as_str()).ok_or_else(|| error_in(part())("there is no such product"))?;
            let bought = people.orders.iter().zip(times).find(|(order, _)| {
                order.customer == comment.customer && order.lines.iter().any(|line| line.sku == comment.sku)
            });
            let bought = bought.map_or(self.now.saturating_sub(DAY * (6 + n % 20)), |(_, time)| *time);
            let after = DAY * (2 + n % 4) + MINUTE * (n * 97 % 600);
            let at = bought.saturating_add(after).min(self.now.saturating_sub(MINUTE * (15 + n * 13)));
            let request = ImportComment {
                product_id,
                user_id,
                author: author.to_owned(),
                rating: comment.rating,
                text: comment.text.clone(),
                at,
            };
            match self.clients.comments.call(Self::ctx(), request).await {
                Ok(_) => new += 1,
                Err(CommentsError::AlreadyCommented) => {}
                Err(error) => return Err(error_in(part())(error)),
            }
            self.advance_progress();
        }
        Ok(new)
    }
}

/// Returns a product's name with the values of its options: `Teapot (Blue)`.
fn display_name(product: &NewProduct) -> String {
    if product.options.is_empty() {
        return product.name.clone();
    }
    let options: Vec<&str> = product.options.values().map(String::as_str).collect();
    format!("{} ({})", product.name, options.join(", "))
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Returns a random password of 80 bits, of letters and digits that are not confused with others: no `l`, `o`, `0`, `1`.
fn random_password() -> Result<String, LoadError> {
    const PASSWORD_ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut random = [0_u8; 16];
    getrandom::fill(&mut random).map_err(error_in("a random password"))?;
    let mut text = String::with_capacity(19);
    for (n, byte) in random.iter().enumerate() {
        if n % 4 == 0 && n > 0 {
            text.push('-');
        }
        text.push(char::from(PASSWORD_ALPHABET[usize::from(byte % 32)]));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
