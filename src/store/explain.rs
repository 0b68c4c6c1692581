//! Query plans for the domains' tests, which check that a hot query uses an index.
#![allow(clippy::unwrap_used, reason = "used by tests only")]

use std::sync::Arc;

use diesel::QueryableByName;
use diesel::connection::{InstrumentationEvent, get_default_instrumentation};
use parking_lot::Mutex;

use super::conn::RunQuery as _;
use super::{Conn, Store};
use crate::messaging::CommonError;

/// Runs `work` and returns the steps of the plan of each of its queries, each with the SQL.
pub async fn explain(store: &Store, work: impl FnOnce(&mut Conn) + Send + 'static) -> Vec<(String, String)> {
    #[derive(QueryableByName)]
    struct QueryPlanStep {
        #[diesel(sql_type = diesel::sql_types::Text)]
        detail: String,
    }
    let plans = store.write(move |tx| {
        let queries = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&queries);
        tx.conn.set_instrumentation(move |event: InstrumentationEvent<'_>| {
            if let InstrumentationEvent::StartQuery { query, .. } = event {
                log.lock().push(query.to_string());
            }
        });
        work(&mut *tx.conn);
        tx.conn.set_instrumentation(get_default_instrumentation());
        let mut plans = Vec::new();
        for query in queries.lock().iter() {
            let text = query.split(" -- binds").next().unwrap_or_default();
            let steps: Vec<QueryPlanStep> =
                diesel::sql_query(format!("EXPLAIN QUERY PLAN {text}")).load(&mut *tx.conn)?;
            plans.extend(steps.into_iter().map(|step| (text.to_owned(), step.detail)));
        }
        Ok::<_, CommonError>(plans)
    });
    plans.await.unwrap()
}
