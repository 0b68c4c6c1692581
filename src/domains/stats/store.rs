//! SQL of the stats domain.

pub mod invariants;
pub mod reported;

use diesel::dsl::exists;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Text};
use diesel::upsert::excluded;
use diesel_migrations::embed_migrations;

use super::model::{Counters, ProductSale, floor_day, floor_hour};
use super::schema::{action, counter, daily, erased, hourly, product_name, product_sales};
use super::{Bucket, LoggedAction, TopProduct};
use crate::messaging::CommonError;
use crate::store::query::*;
use crate::store::{Conn, Migrations, Prepare};
use crate::types::{ActionId, Amount, ProductId, Quantity, Timestamp, UserId};

/// Migrations of this domain's database.
pub const MIGRATIONS: Migrations = Migrations {
    sqlite: embed_migrations!("migrations/stats/sqlite"),
    postgres: embed_migrations!("migrations/stats/postgres"),
};

/// Name of the counter of served requests.
const SERVED_REQUESTS: &str = "served";

/// A row of the action log to insert.
#[derive(Debug, Insertable)]
#[diesel(table_name = action)]
pub struct NewAction {
    /// Time of the action.
    pub at: Timestamp,
    /// Identifier of the entry.
    pub id: ActionId,
    /// User who acted, if known.
    pub user_id: Option<UserId>,
    /// Kind of the action.
    pub kind: String,
    /// Object of the action.
    pub subject: Option<String>,
    /// Further data as JSON.
    pub data: Option<String>,
    /// Size of an entry that a caller reported; none for the shop's own.
    pub reported_bytes: Option<i64>,
}

/// Inserts an action; without its user and data if the user has been erased meanwhile.
pub fn append(conn: &mut Conn, action: &NewAction) -> QueryResult<()> {
    if let Some(user) = action.user_id
        && diesel::select(exists(erased::table.find(user))).get_result(conn)?
    {
        let subject = action.subject.clone().filter(|subject| *subject != user.to_string());
        let anonymous = NewAction { user_id: None, subject, data: None, kind: action.kind.clone(), ..*action };
        return diesel::insert_into(action::table).values(&anonymous).execute(conn).map(drop);
    }
    diesel::insert_into(action::table).values(action).execute(conn).map(drop)
}

/// Conditions of a query for actions.
#[derive(Debug, Default)]
pub struct Filter {
    /// Start of the period, inclusive.
    pub from: Option<Timestamp>,
    /// End of the period, exclusive.
    pub to: Option<Timestamp>,
    /// Kind of action; all when absent.
    pub action: Option<String>,
    /// User who acted; everyone when absent.
    pub user_id: Option<UserId>,
    /// Time and id of the last action of the page before.
    pub after: Option<(Timestamp, ActionId)>,
}

/// Lists actions in time order.
pub fn list_actions(conn: &mut Conn, filter: &Filter, limit: i64) -> Result<Vec<LoggedAction>, CommonError> {
    type ActionRow = (Timestamp, ActionId, Option<UserId>, String, Option<String>, Option<String>);
    let rows: Vec<ActionRow> = for_backend!(conn, c => {
        let columns =
            (action::at, action::id, action::user_id, action::kind, action::subject, action::data);
        let mut query = action::table.select(columns).into_boxed();
        if let Some(from) = filter.from {
            query = query.filter(action::at.ge(from));
        }
        if let Some(to) = filter.to {
            query = query.filter(action::at.lt(to));
        }
        if let Some(kind) = &filter.action {
            query = query.filter(action::kind.eq(kind.clone()));
        }
        if let Some(user_id) = filter.user_id {
            query = query.filter(action::user_id.eq(user_id));
        }
        if let Some((at, id)) = filter.after {
            // The first condition is implied by the second; the index needs it.
            query = query.filter(action::at.ge(at)).filter(action::at.gt(at).or(action::id.gt(id)));
        }
        diesel::RunQueryDsl::load(query.order((action::at, action::id)).limit(limit), c)?
    });
    rows.into_iter()
        .map(|(at, id, user_id, action, subject, data)| {
            let data = data.map(|data| serde_json::from_str(&data)).transpose().map_err(|error| {
                log::error!("stats: data of action {id} cannot be decoded: {error}");
                CommonError::Internal
            })?;
            Ok(LoggedAction { id, at, user_id, action, subject, data })
        })
        .collect()
}

/// Deletes about `limit` of the oldest actions before `until`. Returns `true` if there may be more.
pub fn delete_old(conn: &mut Conn, until: Timestamp, limit: i64) -> QueryResult<bool> {
    let oldest: Vec<Timestamp> =
        action::table.filter(action::at.lt(until)).order(action::at).limit(limit).select(action::at).load(conn)?;
    let Some(last) = oldest.last() else { return Ok(false) };
    reported::release_until(conn, *last)?;
    diesel::delete(action::table.filter(action::at.le(last))).execute(conn)?;
    Ok(i64::try_from(oldest.len()) == Ok(limit))
}

/// Removes a user from their actions: the user, the data, and a subject that is the user's id. Actions that arrive later
/// are stored without them too.
pub fn erase_user(conn: &mut Conn, user: UserId) -> QueryResult<()> {
    diesel::insert_into(erased::table).values(erased::user_id.eq(user)).on_conflict_do_nothing().execute(conn)?;
    diesel::update(action::table.filter(action::user_id.eq(user)).filter(action::subject.eq(user.to_string())))
        .set(action::subject.eq(None::<String>))
        .execute(conn)?;
    diesel::update(action::table.filter(action::user_id.eq(user)))
        .set((action::user_id.eq(None::<UserId>), action::data.eq(None::<String>)))
        .execute(conn)
        .map(drop)
}

/// Adds counters to the hour and the day of `at`.
pub fn count(conn: &mut Conn, at: Timestamp, counters: &Counters) -> QueryResult<()> {
    macro_rules! add_to {
        ($table:ident, $start:expr) => {
            diesel::insert_into($table::table)
                .values((
                    $table::start.eq($start),
                    $table::revenue.eq(counters.revenue),
                    $table::orders.eq(counters.orders),
                    $table::sign_ups.eq(counters.sign_ups),
                    $table::carts.eq(counters.carts),
                ))
                .on_conflict($table::start)
                .do_update()
                .set((
                    $table::revenue.eq($table::revenue + excluded($table::revenue)),
                    $table::orders.eq($table::orders + excluded($table::orders)),
                    $table::sign_ups.eq($table::sign_ups + excluded($table::sign_ups)),
                    $table::carts.eq($table::carts + excluded($table::carts)),
                ))
                .prepared()
                .execute(conn)?
        };
    }
    add_to!(hourly, floor_hour(at));
    add_to!(daily, floor_day(at));
    Ok(())
}

/// Adds product sales to the day of `at`.
pub fn count_sales(conn: &mut Conn, at: Timestamp, sales: &[ProductSale]) -> QueryResult<()> {
    for sale in sales {
        diesel::insert_into(product_sales::table)
            .values((
                product_sales::day.eq(floor_day(at)),
                product_sales::product_id.eq(sale.product_id),
                product_sales::quantity.eq(sale.quantity),
                product_sales::revenue.eq(sale.revenue),
            ))
            .on_conflict((product_sales::day, product_sales::product_id))
            .do_update()
            .set((
                product_sales::quantity.eq(product_sales::quantity + excluded(product_sales::quantity)),
                product_sales::revenue.eq(product_sales::revenue + excluded(product_sales::revenue)),
            ))
            .prepared()
            .execute(conn)?;
        let last_sale: Option<Timestamp> = product_name::table
            .filter(product_name::product_id.eq(sale.product_id))
            .select(product_name::sold_at)
            .first(conn)
            .optional()?;
        // A sale that arrives late does not restore an old name.
        if last_sale.is_none_or(|sold_at| sold_at <= at) {
            diesel::insert_into(product_name::table)
                .values((
                    product_name::product_id.eq(sale.product_id),
                    product_name::name.eq(&sale.name),
                    product_name::sold_at.eq(at),
                ))
                .on_conflict(product_name::product_id)
                .do_update()
                .set((product_name::name.eq(&sale.name), product_name::sold_at.eq(at)))
                .execute(conn)?;
        }
    }
    Ok(())
}

/// Reads the counters from `from` to before `to`: per hour if the buckets are hours, else per day.
pub fn counters(
    conn: &mut Conn,
    bucket: Bucket,
    from: Timestamp,
    to: Timestamp,
) -> QueryResult<Vec<(Timestamp, Counters)>> {
    type CounterRow = (Timestamp, Amount, i64, i64, i64);
    let rows: Vec<CounterRow> = match bucket {
        Bucket::Hour => hourly::table.filter(hourly::start.ge(from)).filter(hourly::start.lt(to)).load(conn)?,
        _ => daily::table.filter(daily::start.ge(from)).filter(daily::start.lt(to)).load(conn)?,
    };
    let to_counters = |(at, revenue, orders, sign_ups, carts)| (at, Counters { revenue, orders, sign_ups, carts });
    Ok(rows.into_iter().map(to_counters).collect())
}

/// Reads the products with the highest revenue on the days from `from` to before `to`.
pub fn top_products(conn: &mut Conn, from: Timestamp, to: Timestamp, limit: i64) -> QueryResult<Vec<TopProduct>> {
    #[derive(QueryableByName)]
    struct TopProductRow {
        #[diesel(sql_type = Text)]
        product_id: ProductId,
        #[diesel(sql_type = Text)]
        name: String,
        #[diesel(sql_type = BigInt)]
        units_sold: Quantity,
        #[diesel(sql_type = BigInt)]
        total_revenue: Amount,
    }
    let rows: Vec<TopProductRow> = sql_query(
        "SELECT s.product_id, n.name, CAST(SUM(s.quantity) AS BIGINT) AS units_sold, CAST(SUM(s.revenue) AS BIGINT) AS total_revenue
         FROM product_sales s JOIN product_name n ON n.product_id = s.product_id
         WHERE s.day >= $1 AND s.day < $2
         GROUP BY s.product_id, n.name ORDER BY total_revenue DESC, units_sold DESC, s.product_id LIMIT $3",
    )
    .bind::<BigInt, _>(from)
    .bind::<BigInt, _>(to)
    .bind::<BigInt, _>(limit)
    .load(conn)?;
    let to_product = |row: TopProductRow| TopProduct {
        product_id: row.product_id,
        name: row.name,
        quantity: row.units_sold,
        revenue: row.total_revenue,
    };
    Ok(rows.into_iter().map(to_product).collect())
}

/// Adds to the count of served requests and returns the new count.
pub fn add_served_requests(conn: &mut Conn, count: i64) -> QueryResult<i64> {
    diesel::insert_into(counter::table)
        .values((counter::name.eq(SERVED_REQUESTS), counter::value.eq(count)))
        .on_conflict(counter::name)
        .do_update()
        .set(counter::value.eq(counter::value + excluded(counter::value)))
        .prepared()
        .execute(conn)?;
    served_requests(conn)
}

/// Reads the count of served requests.
pub fn served_requests(conn: &mut Conn) -> QueryResult<i64> {
    let count =
        counter::table.filter(counter::name.eq(SERVED_REQUESTS)).select(counter::value).first(conn).optional()?;
    Ok(count.unwrap_or(0))
}
