//! For the domains' tests: how the database finds what a query asks for, so that no search grows with the shop.
#![allow(clippy::unwrap_used, reason = "only tests enter this room")]

use std::sync::{Arc, Mutex};

use diesel::QueryableByName;
use diesel::connection::{InstrumentationEvent, get_default_instrumentation};

use super::conn::RunQuery as _;
use super::{Conn, Store};
use crate::messaging::CommonError;

/// How the database finds what `work` asks for: the plan of each query it runs, as the query is really said.
pub async fn plans(store: &Store, work: impl FnOnce(&mut Conn) + Send + 'static) -> Vec<(String, String)> {
    #[derive(QueryableByName)]
    struct Plan {
        #[diesel(sql_type = diesel::sql_types::Text)]
        detail: String,
    }
    let explained = store.write(move |tx| {
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&said);
        tx.conn.set_instrumentation(move |event: InstrumentationEvent<'_>| {
            if let InstrumentationEvent::StartQuery { query, .. } = event {
                heard.lock().unwrap().push(query.to_string());
            }
        });
        work(&mut *tx.conn);
        tx.conn.set_instrumentation(get_default_instrumentation());
        let mut plans = Vec::new();
        for query in said.lock().unwrap().iter() {
            let text = query.split(" -- binds").next().unwrap_or_default();
            let steps: Vec<Plan> = diesel::sql_query(format!("EXPLAIN QUERY PLAN {text}")).load(&mut *tx.conn)?;
            plans.extend(steps.into_iter().map(|step| (text.to_owned(), step.detail)));
        }
        Ok::<_, CommonError>(plans)
    });
    explained.await.unwrap()
}
