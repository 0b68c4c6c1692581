//! SQL of the comments domain.

pub mod invariants;

use diesel_migrations::embed_migrations;

use super::Comment;
use super::model::DELETED_AUTHOR;
use super::schema::{comment, person, rating};
use crate::store::query::*;
use crate::store::{Conn, Migrations, Prepare};
use crate::types::{CommentId, ProductId, Timestamp, UserId};

/// Migrations of this domain's database.
pub const MIGRATIONS: Migrations = Migrations {
    sqlite: embed_migrations!("migrations/comments/sqlite"),
    postgres: embed_migrations!("migrations/comments/postgres"),
};

/// A row of the table `comment`.
#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = comment)]
struct CommentRow {
    id: CommentId,
    product_id: ProductId,
    user_id: Option<UserId>,
    author: String,
    rating: i32,
    text: String,
    created_at: Timestamp,
}

impl From<CommentRow> for Comment {
    fn from(row: CommentRow) -> Self {
        let CommentRow { id, product_id, user_id, author, rating, text, created_at } = row;
        Self { id, product_id, user_id, author, rating, text, created_at }
    }
}

impl From<&Comment> for CommentRow {
    fn from(comment: &Comment) -> Self {
        Self {
            id: comment.id,
            product_id: comment.product_id,
            user_id: comment.user_id,
            author: comment.author.clone(),
            rating: comment.rating,
            text: comment.text.clone(),
            created_at: comment.created_at,
        }
    }
}

/// Knowledge about the author of a comment.
pub enum AuthorStatus {
    /// The users domain has published nothing yet.
    Unknown,
    /// Display name.
    Named(String),
    /// The account is deleted.
    Deleted,
}

/// Reads the status of an author.
pub fn author_status(conn: &mut Conn, user: UserId) -> QueryResult<AuthorStatus> {
    let name: Option<Option<String>> = person::table.find(user).select(person::name).first(conn).optional()?;
    Ok(match name {
        None => AuthorStatus::Unknown,
        Some(Some(name)) => AuthorStatus::Named(name),
        Some(None) => AuthorStatus::Deleted,
    })
}

/// Sets an author's display name, on existing comments too. No effect on a deleted account.
pub fn set_author_name(conn: &mut Conn, user: UserId, name: &str) -> QueryResult<()> {
    if matches!(author_status(conn, user)?, AuthorStatus::Deleted) {
        return Ok(());
    }
    upsert_author(conn, user, Some(name))?;
    diesel::update(comment::table.filter(comment::user_id.eq(user))).set(comment::author.eq(name)).execute(conn)?;
    Ok(())
}

fn upsert_author(conn: &mut Conn, user: UserId, name: Option<&str>) -> QueryResult<usize> {
    diesel::insert_into(person::table)
        .values((person::user_id.eq(user), person::name.eq(name)))
        .on_conflict(person::user_id)
        .do_update()
        .set(person::name.eq(name))
        .execute(conn)
}

/// Removes an author's id and name. The comments stay.
pub fn anonymize_author(conn: &mut Conn, user: UserId) -> QueryResult<()> {
    upsert_author(conn, user, None)?;
    diesel::update(comment::table.filter(comment::user_id.eq(user)))
        .set((comment::user_id.eq(None::<UserId>), comment::author.eq(DELETED_AUTHOR)))
        .execute(conn)?;
    Ok(())
}

/// Inserts a comment. Returns `false` if its author has commented on the product already.
pub fn insert(conn: &mut Conn, new: &Comment) -> QueryResult<bool> {
    Ok(diesel::insert_into(comment::table).values(CommentRow::from(new)).on_conflict_do_nothing().execute(conn)? == 1)
}

/// Reads a comment on a product.
pub fn find(conn: &mut Conn, product: ProductId, id: CommentId) -> QueryResult<Option<Comment>> {
    let row: Option<CommentRow> = comment::table
        .filter(comment::id.eq(id))
        .filter(comment::product_id.eq(product))
        .select(CommentRow::as_select())
        .first(conn)
        .optional()?;
    Ok(row.map(Comment::from))
}

/// Deletes a comment.
pub fn delete(conn: &mut Conn, id: CommentId) -> QueryResult<()> {
    diesel::delete(comment::table.find(id)).execute(conn)?;
    Ok(())
}

/// Adds to the sum and the count of a product's ratings, and returns the new ones.
pub fn adjust_rating(conn: &mut Conn, product: ProductId, sum: i64, count: i64) -> QueryResult<(i64, i64)> {
    diesel::insert_into(rating::table)
        .values((rating::product_id.eq(product), rating::sum.eq(sum), rating::count.eq(count)))
        .on_conflict(rating::product_id)
        .do_update()
        .set((rating::sum.eq(rating::sum + sum), rating::count.eq(rating::count + count)))
        .returning((rating::sum, rating::count))
        .prepared()
        .get_result(conn)
}

/// Lists a product's comments, newest first, after the comment with the time and id `after`.
pub fn list(
    conn: &mut Conn,
    product: ProductId,
    after: Option<(Timestamp, CommentId)>,
    limit: i64,
) -> QueryResult<Vec<Comment>> {
    let rows: Vec<CommentRow> = for_backend!(conn, c => {
        let mut query = comment::table.filter(comment::product_id.eq(product)).into_boxed();
        if let Some((at, id)) = after {
            query = query.filter(comment::created_at.lt(at).or(comment::created_at.eq(at).and(comment::id.lt(id))));
        }
        let query = query.order((comment::created_at.desc(), comment::id.desc())).limit(limit).select(CommentRow::as_select());
        diesel::RunQueryDsl::load(query, c)?
    });
    Ok(rows.into_iter().map(Comment::from).collect())
}
