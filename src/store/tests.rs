//! Guarantees of the store, on real databases: SQLite files, or PostgreSQL when the test run has a server.

use diesel::connection::{InstrumentationEvent, get_default_instrumentation};
use diesel::sql_query;
use diesel::sql_types::{BigInt, Text};
use parking_lot::Mutex;
use tempfile::TempDir;

use super::*;
use crate::messaging::{Caller, CheckInvariants, Credential, IdempotencyKey, Identity, ListAuditEntries, Role};
use crate::store::query::*;
use crate::types::{ApiKeyId, SessionId, UserId};

const NO_MIGRATIONS: Migrations = Migrations {
    sqlite: diesel_migrations::embed_migrations!("src/store/tests_migrations"),
    postgres: diesel_migrations::embed_migrations!("src/store/tests_migrations_postgres"),
};

#[derive(serde::Serialize, serde::Deserialize)]
struct Put {
    name: String,
}
crate::requests! { CommonError; "test.Put": Put => i64, once, |_| Access::Anyone; }

/// A request whose response is text.
#[derive(serde::Serialize, serde::Deserialize)]
struct Describe {}
crate::requests! { CommonError; "test.Describe": Describe => String, once, |_| Access::Anyone; }

/// A request of staff, with a secret that is no id.
#[derive(serde::Serialize, serde::Deserialize)]
struct StaffPut {
    product_id: String,
    note: String,
}
crate::requests! { CommonError; "test.StaffPut": StaffPut => i64, once, |_| Access::Staff(Role::Support); }

#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct WasPut {
    name: String,
}
crate::events! { "test.was_put": WasPut; }

#[derive(QueryableByName)]
struct RowCount {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

struct TestStore {
    store: Store,
    clock: Clock,
    dir: TempDir,
}

fn open() -> TestStore {
    let (dir, clock) = (TempDir::new().unwrap(), Clock::system());
    let store = open_in(&dir, &clock).unwrap();
    TestStore { store, clock, dir }
}

fn open_in(dir: &TempDir, clock: &Clock) -> Result<Store, OpenError> {
    let mut config = StoreConfig::new(dir.path().join("test.db"));
    config.server = crate::settings::Settings::test_database(dir.path()).server().cloned();
    Store::open("test", &config, NO_MIGRATIONS, clock, &PoolThreads::default())
}

fn put(tx: &mut Tx<'_>, name: &str) -> Result<i64, CommonError> {
    sql_query("INSERT INTO thing (name) VALUES ($1)").bind::<Text, _>(name).execute(tx.conn)?;
    tx.emit(&WasPut { name: name.to_owned() })?;
    Ok(count(tx.conn)?)
}

fn count(conn: &mut Conn) -> QueryResult<i64> {
    sql_query("SELECT count(*) AS n FROM thing").get_result::<RowCount>(conn).map(|row| row.n)
}

async fn things(store: &Store) -> i64 {
    store.read(|conn| Ok::<_, CommonError>(count(conn)?)).await.unwrap()
}

fn keyed(key: &str) -> RequestContext {
    RequestContext::internal("test").with_key(IdempotencyKey::parse(key).unwrap())
}

fn keyed_as(caller: Caller, key: &str) -> RequestContext {
    RequestContext::new(caller, "request").with_key(IdempotencyKey::parse(key).unwrap())
}

#[actix::test]
async fn failed_or_panicked_job_undoes_only_itself() {
    let fixture = open();
    let jobs = (0..60).map(|n| {
        fixture.store.write(move |tx| {
            put(tx, &format!("{n}"))?;
            match n % 3 {
                0 => Ok(n),
                1 => Err(CommonError::Forbidden),
                // In an inner transaction, where a plain `catch_unwind` would lose the whole batch.
                _ => tx.conn.transaction::<i64, CommonError>(|_| panic!("on purpose")),
            }
        })
    });
    let results = futures_util::future::join_all(jobs).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 20);
    assert_eq!(results.iter().filter(|result| **result == Err(CommonError::Internal)).count(), 20);
    // A new connection sees exactly the acknowledged changes.
    assert_eq!(things(&fixture.store).await, 20);
    assert_eq!(things(&open_in(&fixture.dir, &fixture.clock).unwrap()).await, 20);
}

#[actix::test]
async fn s09_action_of_staff_is_recorded_with_its_effect_and_stays() {
    let fixture = open();
    let identity = Identity::new(UserId::new(), Role::Support, Credential::ApiKey(ApiKeyId::new()));
    let ctx = RequestContext::new(Caller::User { identity, internal: false }, "request");
    let put_as_staff = |name: &'static str, result: Result<i64, CommonError>| {
        let request = StaffPut { product_id: "p1".to_owned(), note: "private".to_owned() };
        let write = fixture.store.idempotent(&ctx, &request).unwrap();
        write.run(move |tx| {
            put(tx, name)?;
            tx.describe_change(1.into(), 2.into());
            result
        })
    };
    put_as_staff("a", Ok(1)).await.unwrap();
    put_as_staff("b", Err(CommonError::Forbidden)).await.unwrap_err();
    let list = || fixture.store.audit_entries(ListAuditEntries { user_id: None, before: None, limit: 10 });
    let entries = list().await.unwrap();
    assert_eq!((entries.len(), things(&fixture.store).await), (1, 1));
    assert_eq!(
        (&*entries[0].action, entries[0].role, entries[0].user_id),
        ("test.StaffPut", Role::Support, identity.user_id)
    );
    assert_eq!(entries[0].subject, serde_json::json!({ "product_id": "p1" }));
    assert_eq!(entries[0].change, Some(serde_json::json!({ "before": 1, "after": 2 })));
    for sql in ["DELETE FROM audit", "UPDATE audit SET role = 'admin'"] {
        let changed = fixture.store.write(move |tx| Ok::<_, CommonError>(sql_query(sql).execute(tx.conn)?));
        assert!(changed.await.is_err(), "{sql}");
    }
    assert_eq!(list().await.unwrap(), entries);
}

#[actix::test]
async fn s04_responses_about_an_erased_user_are_blanked() {
    let fixture = open();
    let (ada, bob, session) = (UserId::new(), UserId::new(), SessionId::new());
    let by = |user, key: &str| {
        let identity = Identity::new(user, Role::Customer, Credential::Session(session));
        keyed_as(Caller::User { identity, internal: false }, key)
    };
    let send = async |ctx: RequestContext, response: String| {
        let write = fixture.store.idempotent(&ctx, &Describe {}).unwrap();
        write.run::<_, CommonError>(move |_| Ok(response)).await
    };
    for (ctx, response) in
        [(by(ada, "own"), "ada@example.com".to_owned()), (by(bob, "of others"), format!("about {ada}"))]
    {
        send(ctx, response).await.unwrap();
    }
    send(by(bob, "unrelated"), "bob".to_owned()).await.unwrap();
    fixture.store.write(move |tx| Ok::<_, CommonError>(tx.erase_responses(ada, true)?)).await.unwrap();
    for ctx in [by(ada, "own"), by(bob, "of others")] {
        assert_eq!(send(ctx, "again".to_owned()).await, Err(CommonError::IdempotencyKeyReused));
    }
    assert_eq!(send(by(bob, "unrelated"), "again".to_owned()).await.as_deref(), Ok("bob"));
}

#[actix::test]
async fn s01_responses_to_strangers_have_a_budget() {
    let fixture = open();
    let send = async |caller: Caller, key: &str| {
        let ctx = keyed_as(caller, key);
        let request = Put { name: "a".to_owned() };
        let write = fixture.store.idempotent(&ctx, &request).unwrap();
        write.run::<_, CommonError>(|tx| put(tx, "a")).await.unwrap();
        ctx.is_replayed()
    };
    let stranger = |n: u8| Caller::Anyone { address: format!("127.0.0.{n}").into(), internal: false };
    let identity = Identity::new(UserId::new(), Role::Customer, Credential::Session(SessionId::new()));
    let user = Caller::User { identity, internal: false };
    send(user.clone(), "a key of some user").await;
    for n in 1..=5 {
        fixture.clock.advance(std::time::Duration::from_secs(1));
        send(stranger(n), "a key of a stranger").await;
    }
    let deleted = fixture
        .store
        .write(|tx| Ok::<_, CommonError>(super::idempotency::delete_oldest_of_strangers(tx.conn, 2)?))
        .await;
    assert_eq!(deleted, Ok(3));
    assert!(send(user, "a key of some user").await);
    for (n, kept) in [(5, true), (4, true), (1, false)] {
        assert_eq!(send(stranger(n), "a key of a stranger").await, kept, "{n}");
    }
}

#[actix::test]
async fn hot_statement_is_parsed_once_per_connection() {
    let fixture = open();
    let cached = fixture.store.write(|tx| {
        let log = Arc::new(Mutex::new(Vec::new()));
        let listener_log = Arc::clone(&log);
        tx.conn.set_instrumentation(move |event: InstrumentationEvent<'_>| {
            if let InstrumentationEvent::CacheQuery { sql, .. } = event {
                listener_log.lock().push(sql.to_owned());
            }
        });
        for seq in 1..4 {
            outbox::advance_cursor(tx.conn, "subscriber", seq)?;
            tx.conn.transaction(|_| Ok::<_, CommonError>(()))?;
        }
        tx.conn.set_instrumentation(get_default_instrumentation());
        Ok::<_, CommonError>(log.lock().clone())
    });
    let cached = cached.await.unwrap();
    let times = |part: &str| cached.iter().filter(|sql| sql.contains(part)).count();
    assert_eq!(times("outbox_cursor"), 1, "{cached:?}");
    assert!(tested_on_server() || times("SAVEPOINT") == 1, "{cached:?}");
}

#[actix::test]
async fn key_runs_its_request_once_and_rejects_another() {
    let fixture = open();
    let send = |ctx: RequestContext, name: &'static str| {
        let store = fixture.store.clone();
        async move {
            let request = Put { name: name.to_owned() };
            let result = store.idempotent(&ctx, &request).unwrap().run::<_, CommonError>(move |tx| put(tx, name)).await;
            (result, ctx.is_replayed())
        }
    };
    assert_eq!(send(keyed("k"), "a").await, (Ok(1), false));
    assert_eq!(send(keyed("k"), "a").await, (Ok(1), true));
    assert_eq!(send(keyed("k"), "b").await, (Err(CommonError::IdempotencyKeyReused), false));
    let other_caller = RequestContext::new(Caller::Anyone { address: "192.0.2.1".into(), internal: false }, "r")
        .with_key(IdempotencyKey::parse("k").unwrap());
    assert_eq!(send(other_caller, "a").await, (Ok(2), false));
    // Of fifty concurrent requests under one key, one runs.
    let fifty = futures_util::future::join_all((0..50).map(|_| send(keyed("fifty"), "c"))).await;
    assert!(fifty.iter().all(|(result, _)| *result == Ok(3)));
    assert_eq!(fifty.iter().filter(|(_, replayed)| !replayed).count(), 1);
    assert_eq!(things(&fixture.store).await, 3);
    // A day later the key is free again.
    fixture.clock.advance(std::time::Duration::from_secs(24 * 3600 + 1));
    assert_eq!(send(keyed("k"), "b").await, (Ok(4), false));
}

#[actix::test]
async fn p01_rejected_repetition_gets_the_first_response() {
    let (fixture, request) = (open(), Put { name: "the last piece".to_owned() });
    let (first, repetition) = (keyed("k"), keyed("k"));
    let check_that_the_first_overtakes = || async {
        let result = fixture
            .store
            .idempotent(&first, &request)
            .unwrap()
            .run::<_, CommonError>(|tx| put(tx, "the last piece"))
            .await;
        assert_eq!(result, Ok(1));
        Err(CommonError::Forbidden)
    };
    assert_eq!(
        fixture.store.idempotent(&repetition, &request).unwrap().check_first(check_that_the_first_overtakes).await,
        Ok(1)
    );
    assert!(repetition.is_replayed());
    // A request without an earlier one is rejected as usual.
    let rejected = fixture
        .store
        .idempotent(&keyed("l"), &request)
        .unwrap()
        .check_first::<i64, _, _>(|| async { Err(CommonError::Forbidden) })
        .await;
    assert_eq!(rejected, Err(CommonError::Forbidden));
}

#[actix::test]
async fn failed_request_leaves_its_key_free() {
    let fixture = open();
    let request = Put { name: "a".to_owned() };
    let rejected = fixture
        .store
        .idempotent(&keyed("k"), &request)
        .unwrap()
        .run::<i64, CommonError>(|tx| {
            put(tx, "a")?;
            Err(CommonError::Forbidden)
        })
        .await;
    assert_eq!(rejected, Err(CommonError::Forbidden));
    let key = keyed("k");
    let write = fixture.store.idempotent(&key, &request).unwrap();
    assert_eq!(write.run::<_, CommonError>(|tx| put(tx, "a")).await, Ok(1));
}

#[actix::test]
async fn event_of_durable_change_has_its_effect_once() {
    let fixture = open();
    let _ = fixture.store.write(|tx| put(tx, "kept")).await;
    let _ = fixture
        .store
        .write(|tx| {
            put(tx, "undone")?;
            Err::<(), _>(CommonError::Forbidden)
        })
        .await;
    let rows = fixture.store.outbox_read_after("me", 10).await.unwrap();
    let events: Vec<EventEnvelope> = rows.iter().map(|(_, event)| event.clone()).collect();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].decode::<WasPut>().unwrap(), Some(WasPut { name: "kept".to_owned() }));
    // Delivered three times, as after crashes before the cursor was advanced.
    for _ in 0..3 {
        fixture.store.consume(events.clone(), |tx, _| put(tx, "effect").map(drop)).await.unwrap();
    }
    assert_eq!(things(&fixture.store).await, 2);
    fixture.store.outbox_advance_cursor("me", rows[0].0).await.unwrap();
    let left = fixture.store.outbox_read_after("me", 10).await.unwrap();
    assert_eq!(left.len(), 1, "only the event of the effect");
}

#[actix::test]
async fn events_carry_the_trace_of_their_cause() {
    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let fixture = open();
    fixture.store.write(|tx| put(tx, "outside")).await.unwrap();
    trace::instrument(trace::parse(TRACE), fixture.store.write(|tx| put(tx, "inside"))).await.unwrap();
    let traces = async |after: usize| -> Vec<Option<String>> {
        let rows = fixture.store.outbox_read_after("me", 10).await.unwrap();
        rows.into_iter().skip(after).map(|(_, event)| event.trace).collect()
    };
    let caused = [None, Some(TRACE.to_owned())];
    assert_eq!(traces(0).await, caused);
    let events = fixture.store.outbox_read_after("me", 10).await.unwrap().into_iter().map(|(_, event)| event).collect();
    fixture.store.consume(events, |tx, _| put(tx, "effect").map(drop)).await.unwrap();
    assert_eq!(traces(2).await, caused);
    // Readers run in the trace too, for their log lines.
    let seen = trace::instrument(trace::parse(TRACE), fixture.store.read(|_| Ok::<_, CommonError>(trace::current())))
        .await
        .unwrap();
    assert_eq!(seen.as_deref(), Some(TRACE));
}

#[actix::test]
async fn bad_event_is_dead_lettered_and_the_next_applied() {
    let fixture = open();
    for name in ["good", "bad", "also good"] {
        fixture.store.write(move |tx| put(tx, name)).await.unwrap();
    }
    let events: Vec<EventEnvelope> =
        fixture.store.outbox_read_after("me", 10).await.unwrap().into_iter().map(|(_, e)| e).collect();
    fixture
        .store
        .consume(events, |tx, event| {
            put(tx, "effect")?;
            if event.data["name"] == "bad" { Err(CommonError::Forbidden) } else { Ok(()) }
        })
        .await
        .unwrap();
    assert_eq!(things(&fixture.store).await, 3 + 2);
}

/// Job after which the database file cannot grow.
fn fill_the_disk(tx: &mut Tx<'_>) -> Result<(), CommonError> {
    #[derive(QueryableByName)]
    struct PageCountRow {
        #[diesel(sql_type = BigInt)]
        page_count: i64,
    }
    let pages: PageCountRow = sql_query("PRAGMA page_count").get_result(tx.conn)?;
    sql_query(format!("PRAGMA max_page_count = {}", pages.page_count)).execute(tx.conn)?;
    Ok(())
}

#[actix::test]
async fn full_disk_rejects_writes_without_changes() {
    if crate::store::tested_on_server() {
        return;
    }
    let fixture = open();
    fixture.store.write(|tx| put(tx, "before")).await.unwrap();
    // While the first job sleeps the others queue up behind it, and share its commit or the next one.
    let sleep = fixture.store.write(|tx| {
        fill_the_disk(tx)?;
        std::thread::sleep(std::time::Duration::from_millis(50));
        Ok::<_, CommonError>(0)
    });
    let jobs = (0..20).map(|n| {
        fixture.store.write(move |tx| match n {
            // Larger than a page: SQLite rolls back the whole transaction, not the statement alone.
            7 => put(tx, &"x".repeat(100_000)),
            _ => put(tx, &n.to_string()),
        })
    });
    let (_, results) = futures_util::future::join(sleep, futures_util::future::join_all(jobs)).await;
    assert_eq!(results[7], Err(CommonError::StorageUnavailable));
    let done = i64::try_from(results.iter().filter(|result| result.is_ok()).count()).unwrap();
    assert_eq!(things(&fixture.store).await, 1 + done);
    // A new connection has no limit.
    fixture.store.write(|tx| put(tx, "after")).await.unwrap();
}

#[actix::test]
async fn full_disk_delays_an_event_without_dead_lettering_it() {
    if crate::store::tested_on_server() {
        return;
    }
    let fixture = open();
    fixture.store.write(|tx| put(tx, "happened")).await.unwrap();
    let events: Vec<EventEnvelope> =
        fixture.store.outbox_read_after("me", 10).await.unwrap().into_iter().map(|(_, e)| e).collect();
    let effect = |tx: &mut Tx<'_>, _: &EventEnvelope| put(tx, &"x".repeat(100_000)).map(drop);
    fixture.store.write(fill_the_disk).await.unwrap();
    assert_eq!(fixture.store.consume(events.clone(), effect).await, Err(CommonError::StorageUnavailable));
    assert_eq!(things(&fixture.store).await, 1);
    fixture.store.consume(events, effect).await.unwrap();
    assert_eq!(things(&fixture.store).await, 2);
    let dead_letters = fixture.store.read(|conn| {
        let found: RowCount = sql_query("SELECT count(*) AS n FROM dead_letter").get_result(conn)?;
        Ok::<_, CommonError>(found.n)
    });
    assert_eq!(dead_letters.await, Ok(0));
}

#[actix::test]
async fn rolled_back_batch_fails_all_its_jobs() {
    if crate::store::tested_on_server() {
        return;
    }
    // SQLite does this when the disk is full; with and without an error in the job.
    for is_reported in [true, false] {
        let fixture = open();
        let store = fixture.store.clone();
        let ((started, has_started), (release, released)) = (std::sync::mpsc::channel(), std::sync::mpsc::channel());
        let busy = actix::spawn(async move {
            let slow = move |tx: &mut Tx<'_>| {
                let _ = started.send(());
                let _ = released.recv();
                put(tx, "before")
            };
            store.write(slow).await
        });
        // The others are queued while it runs, and so form one batch.
        while has_started.try_recv().is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        let rollback = fixture.store.write(move |tx| {
            tx.conn.batch_execute("ROLLBACK")?;
            if is_reported { Err(CommonError::StorageUnavailable) } else { Ok(0) }
        });
        let (first, last) = (fixture.store.write(|tx| put(tx, "first")), fixture.store.write(|tx| put(tx, "last")));
        let release_when_queued = async {
            while fixture.store.queue_depth() < 3 {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            release.send(()).unwrap();
        };
        let (first, rolled_back, last, ()) = futures_util::join!(first, rollback, last, release_when_queued);
        assert_eq!(busy.await.unwrap(), Ok(1));
        assert!(first.is_err() && rolled_back.is_err() && last.is_err(), "{first:?} {rolled_back:?} {last:?}");
        assert_eq!(things(&fixture.store).await, 1, "a rejected job has changed nothing");
        assert_eq!(fixture.store.write(|tx| put(tx, "after")).await, Ok(2));
    }
}

#[actix::test]
async fn locked_file_rejects_writes_until_unlocked() {
    if crate::store::tested_on_server() {
        return;
    }
    let (dir, clock) = (TempDir::new().unwrap(), Clock::system());
    let config = StoreConfig::new(dir.path().join("test.db"));
    let store = Store::open("test", &config, NO_MIGRATIONS, &clock, &PoolThreads::default()).unwrap();
    store.write(|tx| put(tx, "before")).await.unwrap();
    let is_degraded = || config.storage.read_only.load(std::sync::atomic::Ordering::Relaxed);
    let mut other = writer::connect(&config.file).unwrap();
    other.batch_execute("BEGIN IMMEDIATE").unwrap();
    assert_eq!(store.write(|tx| put(tx, "rejected")).await, Err(CommonError::StorageUnavailable));
    assert!(is_degraded());
    // With the shorter busy timeout of a degraded writer, see the test in `writer.rs`.
    assert_eq!(store.write(|tx| put(tx, "rejected")).await, Err(CommonError::StorageUnavailable));
    assert_eq!(things(&store).await, 1);
    other.batch_execute("ROLLBACK").unwrap();
    for _ in 0..1_200 {
        if !is_degraded() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(!is_degraded(), "recovery needs no write");
    assert_eq!(store.write(|tx| put(tx, "after")).await, Ok(2));
}

#[actix::test]
async fn events_without_subscribers_are_pruned() {
    // On PostgreSQL they are never read, and so never get a number.
    let fixture = open();
    let stored = async || {
        let sql = "SELECT count(*) AS n FROM outbox";
        fixture
            .store
            .read(move |conn| Ok::<_, CommonError>(sql_query(sql).get_result::<RowCount>(conn)?.n))
            .await
            .unwrap()
    };
    fixture.store.write(|tx| put(tx, "a")).await.unwrap();
    assert!(!fixture.store.outbox_is_drained(vec!["me"]).await.unwrap());
    assert!(fixture.store.outbox_is_drained(vec![]).await.unwrap());
    fixture.store.prune(vec![]).await.unwrap();
    assert_eq!(stored().await, 1);
    fixture.clock.advance(std::time::Duration::from_secs(8 * 24 * 60 * 60));
    fixture.store.prune(vec!["me"]).await.unwrap();
    assert_eq!(stored().await, 1, "a subscriber has not received it");
    fixture.store.prune(vec![]).await.unwrap();
    assert_eq!(stored().await, 0);
}

#[actix::test]
async fn broker_cursor_counts_for_all_subscribers() {
    let fixture = open();
    fixture.store.write(|tx| put(tx, "a")).await.unwrap();
    let (last, _) = fixture.store.outbox_read_after(BROKER_CURSOR, 10).await.unwrap()[0];
    let head_and_cursor = async || {
        let request = CheckInvariants { deep: false, subscribers: vec!["me".to_owned()] };
        let report = fixture.store.check_invariants(request, Invariants { rules: &[], counted: &[] }).await.unwrap();
        (report.head, report.cursors["me"])
    };
    assert_eq!(head_and_cursor().await, (last, 0));
    fixture.store.outbox_advance_cursor(BROKER_CURSOR, last).await.unwrap();
    assert_eq!(head_and_cursor().await, (last, last));
}

#[actix::test]
async fn new_event_wakes_earlier_waiters() {
    let fixture = open();
    let changed = fixture.store.outbox_changed();
    fixture.store.write(|tx| put(tx, "a")).await.unwrap();
    tokio::time::timeout(std::time::Duration::from_secs(60), changed).await.expect("woken");
}

#[test]
fn newer_database_version_is_refused_with_remedy() {
    if crate::store::tested_on_server() {
        return;
    }
    let fixture = open();
    let mut conn = writer::connect(&fixture.dir.path().join("test.db")).unwrap();
    sql_query("INSERT INTO __diesel_schema_migrations (version) VALUES ('29990101000000')").execute(&mut conn).unwrap();
    let error = open_in(&fixture.dir, &fixture.clock).map(drop).unwrap_err();
    assert!(error.reason.contains("newer mercat"), "{error}");
}

/// Second store on the same schema, in place of a second process. `None` on SQLite, which has one process only.
fn second_process(fixture: &TestStore) -> Option<Store> {
    tested_on_server().then(|| open_in(&fixture.dir, &fixture.clock).unwrap())
}

#[actix::test]
async fn swallowed_query_error_keeps_result_and_data_consistent() {
    // PostgreSQL aborts the whole transaction then, and its COMMIT reports no error.
    let fixture = open();
    let result = fixture
        .store
        .write(|tx| {
            put(tx, "lost")?;
            let _ = sql_query("SELECT nothing FROM nowhere").execute(tx.conn);
            Ok::<_, CommonError>(())
        })
        .await;
    assert_eq!(things(&fixture.store).await, i64::from(result.is_ok()));
    assert!(fixture.store.write(|tx| put(tx, "after")).await.is_ok());
}

#[actix::test]
async fn n02_events_of_out_of_order_commits_are_all_delivered() {
    let fixture = open();
    let Some(other) = second_process(&fixture) else { return };
    const EVENTS_PER_PROCESS: usize = 150;
    let is_writing = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let received = actix::spawn({
        let (store, is_writing) = (fixture.store.clone(), std::sync::Arc::clone(&is_writing));
        async move {
            let mut received = Vec::new();
            loop {
                let is_done = !is_writing.load(std::sync::atomic::Ordering::SeqCst);
                let rows = store.outbox_read_after("me", 7).await.unwrap();
                if let Some((last, _)) = rows.last() {
                    store.outbox_advance_cursor("me", *last).await.unwrap();
                } else if is_done {
                    return received;
                }
                received.extend(rows.into_iter().map(|(_, event)| event.decode::<WasPut>().unwrap().unwrap().name));
            }
        }
    });
    let write = |n: usize| {
        let store = if n.is_multiple_of(2) { fixture.store.clone() } else { other.clone() };
        async move {
            let job = move |tx: &mut Tx<'_>| {
                tx.emit(&WasPut { name: n.to_string() })?;
                // Later jobs end earlier.
                std::thread::sleep(std::time::Duration::from_millis(7 - (n % 8) as u64));
                Ok::<_, CommonError>(())
            };
            store.write_locked(LockSet::none(), job).await.unwrap();
        }
    };
    futures_util::future::join_all((0..2 * EVENTS_PER_PROCESS).map(write)).await;
    is_writing.store(false, std::sync::atomic::Ordering::SeqCst);
    let mut received = received.await.unwrap();
    assert_eq!(received.len(), 2 * EVENTS_PER_PROCESS, "each exactly once");
    received.sort_unstable();
    received.dedup();
    assert_eq!(received.len(), 2 * EVENTS_PER_PROCESS);
    assert!(fixture.store.outbox_is_drained(vec!["me"]).await.unwrap());
}

#[actix::test]
async fn jobs_with_a_common_lock_run_serially() {
    let fixture = open();
    let Some(other) = second_process(&fixture) else { return };
    // Read, wait, write: the sum is right only if the jobs exclude each other.
    let count_up = |n: usize| {
        let store = if n.is_multiple_of(2) { fixture.store.clone() } else { other.clone() };
        let locks = match n % 3 {
            0 => LockSet::domain(),
            1 => LockSet::key("thing", 1),
            _ => LockSet::key("other", n).with("thing", 1),
        };
        async move {
            let job = move |tx: &mut Tx<'_>| {
                let before = count(tx.conn)?;
                std::thread::sleep(std::time::Duration::from_millis(2));
                put(tx, &before.to_string())
            };
            store.write_locked(locks, job).await.unwrap()
        }
    };
    let mut seen = futures_util::future::join_all((0..40).map(count_up)).await;
    seen.sort_unstable();
    assert_eq!(seen, (1..=40).collect::<Vec<i64>>());
}

#[actix::test]
async fn dropped_connections_lose_no_acknowledged_write() {
    if !tested_on_server() {
        return;
    }
    let fixture = open();
    for n in 0..5 {
        fixture.store.write(move |tx| put(tx, &n.to_string())).await.unwrap();
    }
    let kill = "SELECT CAST(COUNT(pg_terminate_backend(pid)) AS BIGINT) AS n FROM pg_stat_activity
                WHERE pid <> pg_backend_pid() AND application_name = current_setting('application_name')";
    let killed =
        fixture.store.read(move |conn| Ok::<_, CommonError>(sql_query(kill).get_result::<RowCount>(conn)?.n)).await;
    assert!(killed.unwrap() >= 2, "a writer and the coordination connection");
    let (mut done, started) = (5, std::time::Instant::now());
    while done < 25 {
        assert!(started.elapsed() < std::time::Duration::from_secs(60), "the store does not recover");
        match fixture.store.write(|tx| put(tx, "more")).await {
            Ok(_) => done += 1,
            Err(error) => {
                assert_eq!(error, CommonError::StorageUnavailable);
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
    }
    assert_eq!(things(&fixture.store).await, done, "a rejected write was applied");
}

#[actix::test]
async fn p15_work_of_an_ended_process_is_taken_over() {
    if !tested_on_server() {
        return;
    }
    let first = open();
    let [second, third] = [(); 2].map(|()| open_in(&first.dir, &first.clock).unwrap());
    let process = |store: Store| async move { store.write(|tx| Ok::<_, CommonError>(tx.process)).await.unwrap() };
    let (one, two) = (process(first.store.clone()).await, process(second.clone()).await);
    let three = process(third.clone()).await;
    assert!(one.is_some() && one != two && two != three);
    let now = first.clock.now();
    // While all run, each may resume only what it began; what no process has signed is left to the leader for a minute.
    for (store, own) in [(&first.store, one), (&second, two), (&third, three)] {
        let takeover = store.takeover([one, two, three, None]).await;
        for process in [one, two, three, None] {
            assert_eq!(takeover.allows(now, process), process == own, "{process:?} by {own:?}");
        }
        let before = now.saturating_sub(2 * ORPHAN_TIMEOUT);
        assert_eq!(takeover.allows(before, None), own == one, "{own:?}");
        assert!(!takeover.allows(before, if own == two { three } else { two }));
    }
    drop(third);
    let started = std::time::Instant::now();
    while !first.store.takeover([three]).await.allows(now, three) {
        assert!(started.elapsed() < std::time::Duration::from_secs(60), "the end of a process is not noticed");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(!first.store.takeover([two]).await.allows(now, two));
    assert!(!second.takeover([three]).await.allows(now, three), "only the leader takes over");
}
