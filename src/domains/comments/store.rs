//! The only SQL of the comments.

pub mod invariants;

use super::Comment;
use super::model::DELETED_AUTHOR;
use super::schema::{comment, person, rating};
use crate::store::query::*;
use crate::store::{Conn, Prepare};
use crate::types::{CommentId, ProductId, Timestamp, UserId};

/// A comment as it is kept.
#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = comment)]
pub struct Row {
    id: CommentId,
    product_id: ProductId,
    user_id: Option<UserId>,
    author: String,
    rating: i32,
    text: String,
    created_at: Timestamp,
}

impl From<Row> for Comment {
    fn from(row: Row) -> Self {
        let Row { id, product_id, user_id, author, rating, text, created_at } = row;
        Self { id, product_id, user_id, author, rating, text, created_at }
    }
}

impl From<&Comment> for Row {
    fn from(c: &Comment) -> Self {
        Self {
            id: c.id,
            product_id: c.product_id,
            user_id: c.user_id,
            author: c.author.clone(),
            rating: c.rating,
            text: c.text.clone(),
            created_at: c.created_at,
        }
    }
}

/// What is known of a person.
pub enum AuthorStatus {
    /// Nothing yet.
    Unknown,
    /// What they are called.
    Named(String),
    /// Their account is gone.
    Gone,
}

/// Who a user is.
pub fn person(conn: &mut Conn, user: UserId) -> QueryResult<AuthorStatus> {
    let found: Option<Option<String>> = person::table.find(user).select(person::name).first(conn).optional()?;
    Ok(match found {
        None => AuthorStatus::Unknown,
        Some(Some(name)) => AuthorStatus::Named(name),
        Some(None) => AuthorStatus::Gone,
    })
}

/// Notes what a person is called, on what they have said too. Someone who is gone stays gone.
pub fn name_person(conn: &mut Conn, user: UserId, name: &str) -> QueryResult<()> {
    if matches!(person(conn, user)?, AuthorStatus::Gone) {
        return Ok(());
    }
    put_person(conn, user, Some(name))?;
    diesel::update(comment::table.filter(comment::user_id.eq(user))).set(comment::author.eq(name)).execute(conn)?;
    Ok(())
}

fn put_person(conn: &mut Conn, user: UserId, name: Option<&str>) -> QueryResult<usize> {
    diesel::insert_into(person::table)
        .values((person::user_id.eq(user), person::name.eq(name)))
        .on_conflict(person::user_id)
        .do_update()
        .set(person::name.eq(name))
        .execute(conn)
}

/// Forgets who a person was; what they said stays.
pub fn erase_person(conn: &mut Conn, user: UserId) -> QueryResult<()> {
    put_person(conn, user, None)?;
    diesel::update(comment::table.filter(comment::user_id.eq(user)))
        .set((comment::user_id.eq(None::<UserId>), comment::author.eq(DELETED_AUTHOR)))
        .execute(conn)?;
    Ok(())
}

/// Writes a comment; says whether it could be, which it cannot when its author has commented on the product before.
pub fn insert(conn: &mut Conn, new: &Comment) -> QueryResult<bool> {
    Ok(diesel::insert_into(comment::table).values(Row::from(new)).on_conflict_do_nothing().execute(conn)? == 1)
}

/// A comment on a product.
pub fn find(conn: &mut Conn, product: ProductId, id: CommentId) -> QueryResult<Option<Comment>> {
    let row: Option<Row> = comment::table
        .filter(comment::id.eq(id))
        .filter(comment::product_id.eq(product))
        .select(Row::as_select())
        .first(conn)
        .optional()?;
    Ok(row.map(Comment::from))
}

/// Takes a comment away.
pub fn delete(conn: &mut Conn, id: CommentId) -> QueryResult<()> {
    diesel::delete(comment::table.find(id)).execute(conn)?;
    Ok(())
}

/// Changes the sum and number of a product's ratings by so much, and says what they are now.
pub fn add_rating(conn: &mut Conn, product: ProductId, points: i64, number: i64) -> QueryResult<(i64, i64)> {
    diesel::insert_into(rating::table)
        .values((rating::product_id.eq(product), rating::sum.eq(points), rating::count.eq(number)))
        .on_conflict(rating::product_id)
        .do_update()
        .set((rating::sum.eq(rating::sum + points), rating::count.eq(rating::count + number)))
        .returning((rating::sum, rating::count))
        .prepared()
        .get_result(conn)
}

/// A product's comments, newest first, from behind `after` on.
pub fn list(
    conn: &mut Conn,
    product: ProductId,
    after: Option<(Timestamp, CommentId)>,
    limit: i64,
) -> QueryResult<Vec<Comment>> {
    let rows: Vec<Row> = on!(conn, c => {
        let mut query = comment::table.filter(comment::product_id.eq(product)).into_boxed();
        if let Some((at, id)) = after {
            query = query.filter(comment::created_at.lt(at).or(comment::created_at.eq(at).and(comment::id.lt(id))));
        }
        let query = query.order((comment::created_at.desc(), comment::id.desc())).limit(limit).select(Row::as_select());
        diesel::RunQueryDsl::load(query, c)?
    });
    Ok(rows.into_iter().map(Comment::from).collect())
}
