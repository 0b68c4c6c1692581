//! The only SQL of the statistics.

pub mod invariants;

use diesel::dsl::exists;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Text};
use diesel::upsert::excluded;
use diesel_migrations::embed_migrations;

use super::model::{Counters, ProductSale, day_of, hour_of};
use super::schema::{action, counter, daily, erased, hourly, product_name, product_sales};
use super::{Action, Bucket, TopProduct};
use crate::messaging::CommonError;
use crate::store::query::*;
use crate::store::{Conn, Migrations, Prepare};
use crate::types::{ActionId, Amount, ProductId, Quantity, Timestamp, UserId};

/// The tables of this domain.
pub const MIGRATIONS: Migrations = Migrations {
    sqlite: embed_migrations!("migrations/stats/sqlite"),
    postgres: embed_migrations!("migrations/stats/postgres"),
};

/// The name of the counter of requests served.
const SERVED: &str = "served";

/// A line of the action log as it is written.
#[derive(Debug, Insertable)]
#[diesel(table_name = action)]
pub struct NewAction {
    /// When.
    pub at: Timestamp,
    /// Selection.
    pub id: ActionId,
    /// Who, if known.
    pub user_id: Option<UserId>,
    /// What.
    pub kind: String,
    /// With what.
    pub subject: Option<String>,
    /// Anything else, as JSON.
    pub data: Option<String>,
}

/// Adds a line to the log; a nameless one when its user was erased meanwhile.
pub fn append(conn: &mut Conn, line: &NewAction) -> QueryResult<()> {
    if let Some(user) = line.user_id
        && diesel::select(exists(erased::table.find(user))).get_result(conn)?
    {
        let subject = line.subject.clone().filter(|subject| *subject != user.to_string());
        let nameless = NewAction { user_id: None, subject, data: None, kind: line.kind.clone(), ..*line };
        return diesel::insert_into(action::table).values(&nameless).execute(conn).map(drop);
    }
    diesel::insert_into(action::table).values(line).execute(conn).map(drop)
}

/// What to list of the log.
#[derive(Debug, Default)]
pub struct Filter {
    /// From this instant on.
    pub from: Option<Timestamp>,
    /// Before this instant.
    pub to: Option<Timestamp>,
    /// Only this action.
    pub action: Option<String>,
    /// Only of this user.
    pub user_id: Option<UserId>,
    /// After this line.
    pub after: Option<(Timestamp, ActionId)>,
}

/// The next lines of the log in time order.
pub fn actions(conn: &mut Conn, filter: &Filter, limit: i64) -> Result<Vec<Action>, CommonError> {
    type Row = (Timestamp, ActionId, Option<UserId>, String, Option<String>, Option<String>);
    let rows: Vec<Row> = on!(conn, c => {
        let mut query = action::table.into_boxed();
        if let Some(from) = filter.from {
            query = query.filter(action::at.ge(from));
        }
        if let Some(to) = filter.to {
            query = query.filter(action::at.lt(to));
        }
        if let Some(word) = &filter.action {
            query = query.filter(action::kind.eq(word.clone()));
        }
        if let Some(user_id) = filter.user_id {
            query = query.filter(action::user_id.eq(user_id));
        }
        if let Some((at, id)) = filter.after {
            // The first condition says nothing new; it is what lets the index find the place.
            query = query.filter(action::at.ge(at)).filter(action::at.gt(at).or(action::id.gt(id)));
        }
        diesel::RunQueryDsl::load(query.order((action::at, action::id)).limit(limit), c)?
    });
    rows.into_iter()
        .map(|(at, id, user_id, action, subject, data)| {
            let data = data.map(|data| serde_json::from_str(&data)).transpose().map_err(|error| {
                log::error!("the data of action {id} cannot be read: {error}");
                CommonError::Internal
            })?;
            Ok(Action { id, at, user_id, action, subject, data })
        })
        .collect()
}

/// Forgets the oldest actions from before `until`, about `limit` of them; says whether there may be more.
pub fn forget(conn: &mut Conn, until: Timestamp, limit: i64) -> QueryResult<bool> {
    let oldest: Vec<Timestamp> =
        action::table.filter(action::at.lt(until)).order(action::at).limit(limit).select(action::at).load(conn)?;
    let Some(last) = oldest.last() else { return Ok(false) };
    diesel::delete(action::table.filter(action::at.le(last))).execute(conn)?;
    Ok(i64::try_from(oldest.len()) == Ok(limit))
}

/// Makes what a user did nameless: who and the data go, and so does a subject that names the user. What is heard of
/// them later is nameless too.
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

/// Counts something in its hour and its day.
pub fn count(conn: &mut Conn, at: Timestamp, tally: &Counters) -> QueryResult<()> {
    macro_rules! add_to {
        ($table:ident, $start:expr) => {
            diesel::insert_into($table::table)
                .values((
                    $table::start.eq($start),
                    $table::revenue.eq(tally.revenue),
                    $table::orders.eq(tally.orders),
                    $table::sign_ups.eq(tally.sign_ups),
                    $table::carts.eq(tally.carts),
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
    add_to!(hourly, hour_of(at));
    add_to!(daily, day_of(at));
    Ok(())
}

/// Counts what was sold of products on the day of `at`.
pub fn count_sales(conn: &mut Conn, at: Timestamp, sales: &[ProductSale]) -> QueryResult<()> {
    for sale in sales {
        diesel::insert_into(product_sales::table)
            .values((
                product_sales::day.eq(day_of(at)),
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
        let known: Option<Timestamp> = product_name::table
            .filter(product_name::product_id.eq(sale.product_id))
            .select(product_name::sold_at)
            .first(conn)
            .optional()?;
        // A sale of the past that arrives late does not bring an old name back.
        if known.is_none_or(|sold_at| sold_at <= at) {
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

/// What was counted from `from` to before `to`, by hour when the buckets are hours, else by day.
pub fn tallies(
    conn: &mut Conn,
    bucket: Bucket,
    from: Timestamp,
    to: Timestamp,
) -> QueryResult<Vec<(Timestamp, Counters)>> {
    type Row = (Timestamp, Amount, i64, i64, i64);
    let rows: Vec<Row> = match bucket {
        Bucket::Hour => hourly::table.filter(hourly::start.ge(from)).filter(hourly::start.lt(to)).load(conn)?,
        _ => daily::table.filter(daily::start.ge(from)).filter(daily::start.lt(to)).load(conn)?,
    };
    let tally = |(at, revenue, orders, sign_ups, carts)| (at, Counters { revenue, orders, sign_ups, carts });
    Ok(rows.into_iter().map(tally).collect())
}

/// The products that brought most on the days from `from` to before `to`.
pub fn top_products(conn: &mut Conn, from: Timestamp, to: Timestamp, limit: i64) -> QueryResult<Vec<TopProduct>> {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = Text)]
        product_id: ProductId,
        #[diesel(sql_type = Text)]
        name: String,
        #[diesel(sql_type = BigInt)]
        sold: Quantity,
        #[diesel(sql_type = BigInt)]
        brought: Amount,
    }
    let rows: Vec<Row> = sql_query(
        "SELECT s.product_id, n.name, CAST(SUM(s.quantity) AS BIGINT) AS sold, CAST(SUM(s.revenue) AS BIGINT) AS brought
         FROM product_sales s JOIN product_name n ON n.product_id = s.product_id
         WHERE s.day >= $1 AND s.day < $2
         GROUP BY s.product_id, n.name ORDER BY brought DESC, sold DESC, s.product_id LIMIT $3",
    )
    .bind::<BigInt, _>(from)
    .bind::<BigInt, _>(to)
    .bind::<BigInt, _>(limit)
    .load(conn)?;
    let top =
        |Row { product_id, name, sold, brought }| TopProduct { product_id, name, quantity: sold, revenue: brought };
    Ok(rows.into_iter().map(top).collect())
}

/// Adds to the count of requests served; gives the new count.
pub fn add_served(conn: &mut Conn, more: i64) -> QueryResult<i64> {
    diesel::insert_into(counter::table)
        .values((counter::name.eq(SERVED), counter::value.eq(more)))
        .on_conflict(counter::name)
        .do_update()
        .set(counter::value.eq(counter::value + excluded(counter::value)))
        .prepared()
        .execute(conn)?;
    served(conn)
}

/// The count of requests served.
pub fn served(conn: &mut Conn) -> QueryResult<i64> {
    let count = counter::table.filter(counter::name.eq(SERVED)).select(counter::value).first(conn).optional()?;
    Ok(count.unwrap_or(0))
}
