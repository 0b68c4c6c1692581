//! SQL of the tag table and the full-text index, which both hold products for sale only.

use std::collections::BTreeMap;

use diesel::sql_query;
use diesel::sql_types::{BigInt, Text};

use super::{EXPORT_PAGE_SIZE, ProductRow, from_json};
use crate::domains::catalog::schema::{product, product_tag, search_rebuild};
use crate::domains::catalog::text_search;
use crate::store::query::*;
use crate::store::{Conn, Tx};

/// Updates the tags and the search index, which hold products for sale only.
pub(super) fn update_search_index(conn: &mut Conn, before: Option<&ProductRow>, after: &ProductRow) -> QueryResult<()> {
    let old_row = before.filter(|row| !row.deleted);
    let new_row = Some(after).filter(|row| !row.deleted);
    if old_row.map(|row| &row.tags) != new_row.map(|row| &row.tags) {
        if let Some(row) = old_row {
            let tags: Vec<String> = from_json(&row.tags);
            diesel::delete(product_tag::table)
                .filter(product_tag::tag.eq_any(tags))
                .filter(product_tag::seq.eq(row.seq))
                .execute(conn)?;
        }
        for tag in new_row.map(|row| from_json::<Vec<String>>(&row.tags)).unwrap_or_default() {
            diesel::insert_into(product_tag::table)
                .values((product_tag::tag.eq(tag), product_tag::seq.eq(after.seq)))
                .execute(conn)?;
        }
    }
    let (old, new) = (old_row.map(search_text), new_row.map(search_text));
    if old == new {
        return Ok(());
    }
    if old.is_some() {
        delete_search_words(conn, after.seq)?;
    }
    new.map_or(Ok(()), |words| insert_search_words(conn, after.seq, words))
}

fn delete_search_words(conn: &mut Conn, seq: i64) -> QueryResult<usize> {
    let row = if conn.is_postgres() { "seq" } else { "rowid" };
    sql_query(format!("DELETE FROM product_fts WHERE {row} = $1")).bind::<BigInt, _>(seq).execute(conn)
}

fn insert_search_words(conn: &mut Conn, seq: i64, words: (&str, String, &str)) -> QueryResult<()> {
    let (name, labels, description) = words;
    let [name, labels, description] = [name, &labels, description].map(text_search::index_words);
    if conn.is_postgres() {
        sql_query("INSERT INTO product_fts (seq, document) VALUES ($1, CAST($2 AS tsvector))")
            .bind::<BigInt, _>(seq)
            .bind::<Text, _>(text_search::ts_vector(&name, &labels, &description))
            .execute(conn)?;
    } else {
        sql_query("INSERT INTO product_fts (rowid, name, labels, description) VALUES ($1, $2, $3, $4)")
            .bind::<BigInt, _>(seq)
            .bind::<Text, _>(name)
            .bind::<Text, _>(labels)
            .bind::<Text, _>(description)
            .execute(conn)?;
    }
    Ok(())
}

/// The next products behind one, by their numbers.
fn rows_after(conn: &mut Conn, seq: i64) -> QueryResult<Vec<ProductRow>> {
    let page = product::table.filter(product::seq.gt(seq)).order(product::seq).limit(EXPORT_PAGE_SIZE as i64);
    page.select(ProductRow::as_select()).load(conn)
}

/// Rebuilds the search index from all products for sale. For a database that was filled by a bulk copy.
pub fn rebuild_search_index(conn: &mut Conn) -> QueryResult<()> {
    let mut after = 0;
    loop {
        let rows = rows_after(conn, after)?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = last.seq;
        for row in rows.iter().filter(|row| !row.deleted) {
            insert_search_words(conn, row.seq, search_text(row))?;
        }
    }
}

/// Whether the search index is being rebuilt after an upgrade; read-only, so that a shop that has been writes nothing.
pub fn is_rebuild_pending(conn: &mut Conn) -> QueryResult<bool> {
    Ok(search_rebuild::table.count().get_result::<i64>(conn)? > 0)
}

/// Rebuilds words and sort keys of some more products after an upgrade; returns `true` if there may be more. Each step is
/// durable, so that a crash loses none of them.
pub fn rebuild_some(tx: &mut Tx<'_>) -> QueryResult<bool> {
    let conn = &mut *tx.conn;
    let Some(after): Option<i64> = search_rebuild::table.select(search_rebuild::after_seq).first(conn).optional()?
    else {
        return Ok(false);
    };
    let rows = rows_after(conn, after)?;
    let Some(last) = rows.last() else {
        diesel::delete(search_rebuild::table).execute(conn)?;
        return Ok(false);
    };
    diesel::update(search_rebuild::table).set(search_rebuild::after_seq.eq(last.seq)).execute(conn)?;
    for row in &rows {
        let name_key = text_search::sort_key(&row.name);
        if name_key != row.name_key {
            let of_row = product::table.filter(product::seq.eq(row.seq));
            diesel::update(of_row).set(product::name_key.eq(name_key)).execute(conn)?;
        }
        // A product that was changed meanwhile is in the index already.
        delete_search_words(conn, row.seq)?;
        if !row.deleted {
            insert_search_words(conn, row.seq, search_text(row))?;
        }
    }
    Ok(true)
}

/// Searchable texts of a product: name; SKU, category, tags and options; description.
fn search_text(row: &ProductRow) -> (&str, String, &str) {
    let mut labels = vec![row.sku.clone()];
    labels.extend(row.category.clone());
    labels.extend(from_json::<Vec<String>>(&row.tags));
    labels.extend(from_json::<BTreeMap<String, String>>(&row.options).into_values());
    (&row.name, labels.join("\n"), &row.description)
}
