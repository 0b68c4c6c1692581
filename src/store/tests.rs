//! The store's promises, each on a real database file.

use std::sync::Mutex;

use diesel::connection::{InstrumentationEvent, get_default_instrumentation};
use diesel::sql_query;
use diesel::sql_types::{BigInt, Text};
use tempfile::TempDir;

use super::*;
use crate::messaging::{Caller, CheckInvariants, IdempotencyKey};
use crate::store::query::*;

const NO_MIGRATIONS: Migrations = Migrations {
    sqlite: diesel_migrations::embed_migrations!("src/store/tests_migrations"),
    postgres: diesel_migrations::embed_migrations!("src/store/tests_migrations_postgres"),
};

#[derive(serde::Serialize, serde::Deserialize)]
struct Put {
    name: String,
}
crate::requests! { CommonError; "test.Put": Put => i64, once, |_| Access::Anyone; }

#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct WasPut {
    name: String,
}
crate::events! { "test.was_put": WasPut; }

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

struct Shop {
    store: Store,
    clock: Clock,
    dir: TempDir,
}

fn open() -> Shop {
    let (dir, clock) = (TempDir::new().unwrap(), Clock::system());
    let store = open_in(&dir, &clock).unwrap();
    Shop { store, clock, dir }
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
    sql_query("SELECT count(*) AS n FROM thing").get_result::<Count>(conn).map(|c| c.n)
}

async fn things(store: &Store) -> i64 {
    store.read(|conn| Ok::<_, CommonError>(count(conn)?)).await.unwrap()
}

fn keyed(key: &str) -> RequestContext {
    RequestContext::internal("test").with_key(IdempotencyKey::parse(key).unwrap())
}

#[actix::test]
async fn a_job_that_fails_or_panics_undoes_itself_and_nobody_else() {
    let shop = open();
    let jobs = (0..60).map(|n| {
        shop.store.write(move |tx| {
            put(tx, &format!("{n}"))?;
            match n % 3 {
                0 => Ok(n),
                1 => Err(CommonError::Forbidden),
                // Deep in a transaction of its own, where the obvious way of catching it loses the whole batch.
                _ => tx.conn.transaction::<i64, CommonError>(|_| panic!("on purpose")),
            }
        })
    });
    let answers = futures_util::future::join_all(jobs).await;
    assert_eq!(answers.iter().filter(|a| a.is_ok()).count(), 20);
    assert_eq!(answers.iter().filter(|a| **a == Err(CommonError::Internal)).count(), 20);
    // Asked of a fresh connection: what was answered with yes is really in the file, and nothing else.
    assert_eq!(things(&shop.store).await, 20);
    assert_eq!(things(&open_in(&shop.dir, &shop.clock).unwrap()).await, 20);
}

#[actix::test]
async fn a_hot_statement_is_parsed_once_a_connection() {
    let shop = open();
    let asked = shop.store.write(|tx| {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&kept);
        tx.conn.set_instrumentation(move |event: InstrumentationEvent<'_>| {
            if let InstrumentationEvent::CacheQuery { sql, .. } = event {
                heard.lock().unwrap().push(sql.to_owned());
            }
        });
        for seq in 1..4 {
            outbox::advance_cursor(tx.conn, "somebody", seq)?;
            tx.conn.transaction(|_| Ok::<_, CommonError>(()))?;
        }
        tx.conn.set_instrumentation(get_default_instrumentation());
        Ok::<_, CommonError>(kept.lock().unwrap().clone())
    });
    let kept = asked.await.unwrap();
    let times = |part: &str| kept.iter().filter(|sql| sql.contains(part)).count();
    assert_eq!(times("outbox_cursor"), 1, "{kept:?}");
    assert!(tested_on_server() || times("SAVEPOINT") == 1, "{kept:?}");
}

#[actix::test]
async fn a_key_runs_its_request_once_and_refuses_another() {
    let shop = open();
    let ask = |ctx: RequestContext, name: &'static str| {
        let store = shop.store.clone();
        async move {
            let request = Put { name: name.to_owned() };
            let answer = store.idempotent(&ctx, &request).unwrap().run::<_, CommonError>(move |tx| put(tx, name)).await;
            (answer, ctx.is_replayed())
        }
    };
    assert_eq!(ask(keyed("k"), "a").await, (Ok(1), false));
    assert_eq!(ask(keyed("k"), "a").await, (Ok(1), true));
    assert_eq!(ask(keyed("k"), "b").await, (Err(CommonError::IdempotencyKeyReused), false));
    let stranger = RequestContext::new(Caller::Anyone { address: "192.0.2.1".into(), internal: false }, "r")
        .with_key(IdempotencyKey::parse("k").unwrap());
    assert_eq!(ask(stranger, "a").await, (Ok(2), false));
    // Fifty at once under one key: one runs.
    let fifty = futures_util::future::join_all((0..50).map(|_| ask(keyed("fifty"), "c"))).await;
    assert!(fifty.iter().all(|(answer, _)| *answer == Ok(3)));
    assert_eq!(fifty.iter().filter(|(_, replayed)| !replayed).count(), 1);
    assert_eq!(things(&shop.store).await, 3);
    // A day later the key is free again.
    shop.clock.advance(std::time::Duration::from_secs(24 * 3600 + 1));
    assert_eq!(ask(keyed("k"), "b").await, (Ok(4), false));
}

#[actix::test]
async fn p01_a_repetition_that_is_refused_by_what_the_first_did_gets_its_answer() {
    let (shop, request) = (open(), Put { name: "the last piece".to_owned() });
    let (first, again) = (keyed("k"), keyed("k"));
    let looks_while_the_first_ends = || async {
        let had = shop
            .store
            .idempotent(&first, &request)
            .unwrap()
            .run::<_, CommonError>(|tx| put(tx, "the last piece"))
            .await;
        assert_eq!(had, Ok(1));
        Err(CommonError::Forbidden)
    };
    assert_eq!(shop.store.idempotent(&again, &request).unwrap().check_first(looks_while_the_first_ends).await, Ok(1));
    assert!(again.is_replayed());
    // Who has no first is refused as ever.
    let refused = shop
        .store
        .idempotent(&keyed("l"), &request)
        .unwrap()
        .check_first::<i64, _, _>(|| async { Err(CommonError::Forbidden) })
        .await;
    assert_eq!(refused, Err(CommonError::Forbidden));
}

#[actix::test]
async fn a_failed_request_leaves_its_key_free() {
    let shop = open();
    let request = Put { name: "a".to_owned() };
    let refused = shop
        .store
        .idempotent(&keyed("k"), &request)
        .unwrap()
        .run::<i64, CommonError>(|tx| {
            put(tx, "a")?;
            Err(CommonError::Forbidden)
        })
        .await;
    assert_eq!(refused, Err(CommonError::Forbidden));
    let key = keyed("k");
    let write = shop.store.idempotent(&key, &request).unwrap();
    assert_eq!(write.run::<_, CommonError>(|tx| put(tx, "a")).await, Ok(1));
}

#[actix::test]
async fn an_event_is_told_only_if_its_change_is_durable_and_has_its_effect_once() {
    let shop = open();
    let _ = shop.store.write(|tx| put(tx, "kept")).await;
    let _ = shop
        .store
        .write(|tx| {
            put(tx, "undone")?;
            Err::<(), _>(CommonError::Forbidden)
        })
        .await;
    let told = shop.store.outbox_read_after("me", 10).await.unwrap();
    let events: Vec<EventEnvelope> = told.iter().map(|(_, event)| event.clone()).collect();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].decode::<WasPut>().unwrap(), Some(WasPut { name: "kept".to_owned() }));
    // Told three times, done once: as after crashes between telling and noting it.
    for _ in 0..3 {
        shop.store.consume(events.clone(), |tx, _| put(tx, "effect").map(drop)).await.unwrap();
    }
    assert_eq!(things(&shop.store).await, 2);
    shop.store.outbox_advance_cursor("me", told[0].0).await.unwrap();
    let left = shop.store.outbox_read_after("me", 10).await.unwrap();
    assert_eq!(left.len(), 1, "only the news of the effect itself");
}

#[actix::test]
async fn an_event_says_in_which_trace_it_was_caused_and_so_does_what_its_effect_causes() {
    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let shop = open();
    shop.store.write(|tx| put(tx, "outside")).await.unwrap();
    trace::instrument(trace::parse(TRACE), shop.store.write(|tx| put(tx, "inside"))).await.unwrap();
    let traces = async |after: usize| -> Vec<Option<String>> {
        let told = shop.store.outbox_read_after("me", 10).await.unwrap();
        told.into_iter().skip(after).map(|(_, event)| event.trace).collect()
    };
    let caused = [None, Some(TRACE.to_owned())];
    assert_eq!(traces(0).await, caused);
    let events = shop.store.outbox_read_after("me", 10).await.unwrap().into_iter().map(|(_, event)| event).collect();
    shop.store.consume(events, |tx, _| put(tx, "effect").map(drop)).await.unwrap();
    assert_eq!(traces(2).await, caused);
    // A reader knows it too, for what it logs.
    let seen = trace::instrument(trace::parse(TRACE), shop.store.read(|_| Ok::<_, CommonError>(trace::current())))
        .await
        .unwrap();
    assert_eq!(seen.as_deref(), Some(TRACE));
}

#[actix::test]
async fn one_bad_event_is_set_aside_and_the_next_still_has_its_effect() {
    let shop = open();
    for name in ["good", "bad", "also good"] {
        shop.store.write(move |tx| put(tx, name)).await.unwrap();
    }
    let events: Vec<EventEnvelope> =
        shop.store.outbox_read_after("me", 10).await.unwrap().into_iter().map(|(_, e)| e).collect();
    shop.store
        .consume(events, |tx, event| {
            put(tx, "effect")?;
            if event.data["name"] == "bad" { Err(CommonError::Forbidden) } else { Ok(()) }
        })
        .await
        .unwrap();
    assert_eq!(things(&shop.store).await, 3 + 2);
}

/// From this job on the database file may not grow.
fn fill_the_disk(tx: &mut Tx<'_>) -> Result<(), CommonError> {
    #[derive(QueryableByName)]
    struct Pages {
        #[diesel(sql_type = BigInt)]
        page_count: i64,
    }
    let pages: Pages = sql_query("PRAGMA page_count").get_result(tx.conn)?;
    sql_query(format!("PRAGMA max_page_count = {}", pages.page_count)).execute(tx.conn)?;
    Ok(())
}

#[actix::test]
async fn on_a_full_disk_whoever_is_told_no_has_changed_nothing() {
    if crate::store::tested_on_server() {
        return;
    }
    let shop = open();
    shop.store.write(|tx| put(tx, "before")).await.unwrap();
    // While the first job sleeps the others gather behind it, and share its commit or the next one.
    let sleep = shop.store.write(|tx| {
        fill_the_disk(tx)?;
        std::thread::sleep(std::time::Duration::from_millis(50));
        Ok::<_, CommonError>(0)
    });
    let jobs = (0..20).map(|n| {
        shop.store.write(move |tx| match n {
            // More than any page has room for: SQLite gives the whole transaction up, not the statement alone.
            7 => put(tx, &"x".repeat(100_000)),
            _ => put(tx, &n.to_string()),
        })
    });
    let (_, answers) = futures_util::future::join(sleep, futures_util::future::join_all(jobs)).await;
    assert_eq!(answers[7], Err(CommonError::StorageUnavailable));
    let done = i64::try_from(answers.iter().filter(|answer| answer.is_ok()).count()).unwrap();
    assert_eq!(things(&shop.store).await, 1 + done);
    // A new connection finds room again.
    shop.store.write(|tx| put(tx, "after")).await.unwrap();
}

#[actix::test]
async fn an_event_that_meets_a_full_disk_is_not_set_aside_and_has_its_effect_later() {
    if crate::store::tested_on_server() {
        return;
    }
    let shop = open();
    shop.store.write(|tx| put(tx, "happened")).await.unwrap();
    let events: Vec<EventEnvelope> =
        shop.store.outbox_read_after("me", 10).await.unwrap().into_iter().map(|(_, e)| e).collect();
    let effect = |tx: &mut Tx<'_>, _: &EventEnvelope| put(tx, &"x".repeat(100_000)).map(drop);
    shop.store.write(fill_the_disk).await.unwrap();
    assert_eq!(shop.store.consume(events.clone(), effect).await, Err(CommonError::StorageUnavailable));
    assert_eq!(things(&shop.store).await, 1);
    shop.store.consume(events, effect).await.unwrap();
    assert_eq!(things(&shop.store).await, 2);
    let aside = shop.store.read(|conn| {
        let found: Count = sql_query("SELECT count(*) AS n FROM dead_letter").get_result(conn)?;
        Ok::<_, CommonError>(found.n)
    });
    assert_eq!(aside.await, Ok(0));
}

#[actix::test]
async fn a_transaction_that_the_database_undid_by_itself_is_told_to_everybody_in_it() {
    if crate::store::tested_on_server() {
        return;
    }
    // What SQLite does when the disk is full in the middle; whether the job hears of it or not.
    for heard in [true, false] {
        let shop = open();
        let store = shop.store.clone();
        let ((begin, begun), (go, gone)) = (std::sync::mpsc::channel(), std::sync::mpsc::channel());
        let busy = actix::spawn(async move {
            let slow = move |tx: &mut Tx<'_>| {
                let _ = begin.send(());
                let _ = gone.recv();
                put(tx, "before")
            };
            store.write(slow).await
        });
        // It has begun, so that the others come while it works, and so together.
        while begun.try_recv().is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        let undo = shop.store.write(move |tx| {
            tx.conn.batch_execute("ROLLBACK")?;
            if heard { Err(CommonError::StorageUnavailable) } else { Ok(0) }
        });
        let (first, last) = (shop.store.write(|tx| put(tx, "first")), shop.store.write(|tx| put(tx, "last")));
        let all_wait = async {
            while shop.store.queue_depth() < 3 {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            go.send(()).unwrap();
        };
        let (first, undone, last, ()) = futures_util::join!(first, undo, last, all_wait);
        assert_eq!(busy.await.unwrap(), Ok(1));
        assert!(first.is_err() && undone.is_err() && last.is_err(), "{first:?} {undone:?} {last:?}");
        assert_eq!(things(&shop.store).await, 1, "who was told no finds nothing done");
        assert_eq!(shop.store.write(|tx| put(tx, "after")).await, Ok(2));
    }
}

#[actix::test]
async fn while_somebody_holds_the_file_writes_are_refused_and_reads_go_on_and_it_notices_the_end_by_itself() {
    if crate::store::tested_on_server() {
        return;
    }
    let (dir, clock) = (TempDir::new().unwrap(), Clock::system());
    let config = StoreConfig::new(dir.path().join("test.db"));
    let store = Store::open("test", &config, NO_MIGRATIONS, &clock, &PoolThreads::default()).unwrap();
    store.write(|tx| put(tx, "before")).await.unwrap();
    let in_trouble = || config.storage.read_only.load(std::sync::atomic::Ordering::Relaxed);
    let mut other = writer::connect(&config.file).unwrap();
    other.batch_execute("BEGIN IMMEDIATE").unwrap();
    assert_eq!(store.write(|tx| put(tx, "refused")).await, Err(CommonError::StorageUnavailable));
    assert!(in_trouble());
    // Sooner than before, with the busy timeout of a degraded writer: `writer.rs` has the test.
    assert_eq!(store.write(|tx| put(tx, "refused")).await, Err(CommonError::StorageUnavailable));
    assert_eq!(things(&store).await, 1);
    other.batch_execute("ROLLBACK").unwrap();
    for _ in 0..1_200 {
        if !in_trouble() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(!in_trouble(), "nobody wrote, and it noticed");
    assert_eq!(store.write(|tx| put(tx, "after")).await, Ok(2));
}

#[actix::test]
async fn events_that_nobody_hears_are_settled_and_forgotten_in_time() {
    // On a server they are never read, and so never get a number.
    let shop = open();
    let kept = async || {
        let rows = "SELECT count(*) AS n FROM outbox";
        shop.store.read(move |conn| Ok::<_, CommonError>(sql_query(rows).get_result::<Count>(conn)?.n)).await.unwrap()
    };
    shop.store.write(|tx| put(tx, "a")).await.unwrap();
    assert!(!shop.store.outbox_is_drained(vec!["me"]).await.unwrap());
    assert!(shop.store.outbox_is_drained(vec![]).await.unwrap());
    shop.store.prune(vec![]).await.unwrap();
    assert_eq!(kept().await, 1);
    shop.clock.advance(std::time::Duration::from_secs(8 * 24 * 60 * 60));
    shop.store.prune(vec!["me"]).await.unwrap();
    assert_eq!(kept().await, 1, "somebody has not heard of it");
    shop.store.prune(vec![]).await.unwrap();
    assert_eq!(kept().await, 0);
}

#[actix::test]
async fn what_the_broker_has_is_as_good_as_heard_for_whoever_waits_for_news() {
    let shop = open();
    shop.store.write(|tx| put(tx, "a")).await.unwrap();
    let (last, _) = shop.store.outbox_read_after(BROKER_CURSOR, 10).await.unwrap()[0];
    let heard = async || {
        let audit = CheckInvariants { deep: false, subscribers: vec!["me".to_owned()] };
        let audited = shop.store.audit(audit, Invariants { rules: &[], counted: &[] }).await.unwrap();
        (audited.head, audited.heard["me"])
    };
    assert_eq!(heard().await, (last, 0));
    shop.store.outbox_advance_cursor(BROKER_CURSOR, last).await.unwrap();
    assert_eq!(heard().await, (last, last));
}

#[actix::test]
async fn news_wakes_whoever_asked_before_it_was_made() {
    let shop = open();
    let news = shop.store.outbox_changed();
    shop.store.write(|tx| put(tx, "a")).await.unwrap();
    tokio::time::timeout(std::time::Duration::from_secs(60), news).await.expect("woken");
}

#[test]
fn a_database_of_a_newer_version_is_refused_with_the_way_out() {
    if crate::store::tested_on_server() {
        return;
    }
    let shop = open();
    let mut conn = writer::connect(&shop.dir.path().join("test.db")).unwrap();
    sql_query("INSERT INTO __diesel_schema_migrations (version) VALUES ('29990101000000')").execute(&mut conn).unwrap();
    let refused = open_in(&shop.dir, &shop.clock).map(drop).unwrap_err();
    assert!(refused.reason.contains("newer mercat"), "{refused}");
}

/// A second process on the same schema, as far as one can be had here.
fn twin(shop: &Shop) -> Option<Store> {
    tested_on_server().then(|| open_in(&shop.dir, &shop.clock).unwrap())
}

#[actix::test]
async fn an_error_that_a_job_swallows_is_no_yes() {
    // PostgreSQL undoes the whole transaction then, and its COMMIT says nothing of it.
    let shop = open();
    let answer = shop
        .store
        .write(|tx| {
            put(tx, "lost")?;
            let _ = sql_query("SELECT nothing FROM nowhere").execute(tx.conn);
            Ok::<_, CommonError>(())
        })
        .await;
    assert_eq!(things(&shop.store).await, i64::from(answer.is_ok()));
    assert!(shop.store.write(|tx| put(tx, "after")).await.is_ok());
}

#[actix::test]
async fn n02_no_event_is_passed_over_though_transactions_end_in_another_order() {
    let shop = open();
    let Some(other) = twin(&shop) else { return };
    const EACH: usize = 150;
    let begun = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let told = actix::spawn({
        let (store, begun) = (shop.store.clone(), std::sync::Arc::clone(&begun));
        async move {
            let mut told = Vec::new();
            loop {
                let ends = !begun.load(std::sync::atomic::Ordering::SeqCst);
                let rows = store.outbox_read_after("me", 7).await.unwrap();
                if let Some((last, _)) = rows.last() {
                    store.outbox_advance_cursor("me", *last).await.unwrap();
                } else if ends {
                    return told;
                }
                told.extend(rows.into_iter().map(|(_, event)| event.decode::<WasPut>().unwrap().unwrap().name));
            }
        }
    });
    let write = |n: usize| {
        let store = if n.is_multiple_of(2) { shop.store.clone() } else { other.clone() };
        async move {
            let job = move |tx: &mut Tx<'_>| {
                tx.emit(&WasPut { name: n.to_string() })?;
                // The later it began, the sooner it ends.
                std::thread::sleep(std::time::Duration::from_millis(7 - (n % 8) as u64));
                Ok::<_, CommonError>(())
            };
            store.write_locked(LockSet::none(), job).await.unwrap();
        }
    };
    futures_util::future::join_all((0..2 * EACH).map(write)).await;
    begun.store(false, std::sync::atomic::Ordering::SeqCst);
    let mut told = told.await.unwrap();
    assert_eq!(told.len(), 2 * EACH, "each once");
    told.sort_unstable();
    told.dedup();
    assert_eq!(told.len(), 2 * EACH);
    assert!(shop.store.outbox_is_drained(vec!["me"]).await.unwrap());
}

#[actix::test]
async fn jobs_that_touch_the_same_run_one_after_the_other_in_all_processes() {
    let shop = open();
    let Some(other) = twin(&shop) else { return };
    // Read, wait, write: only who keeps the others out gets to the sum.
    let count_up = |n: usize| {
        let store = if n.is_multiple_of(2) { shop.store.clone() } else { other.clone() };
        let touch = match n % 3 {
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
            store.write_locked(touch, job).await.unwrap()
        }
    };
    let mut seen = futures_util::future::join_all((0..40).map(count_up)).await;
    seen.sort_unstable();
    assert_eq!(seen, (1..=40).collect::<Vec<i64>>());
}

#[actix::test]
async fn when_the_server_drops_all_connections_nothing_answered_is_lost_and_the_store_comes_back() {
    if !tested_on_server() {
        return;
    }
    let shop = open();
    for n in 0..5 {
        shop.store.write(move |tx| put(tx, &n.to_string())).await.unwrap();
    }
    let kill = "SELECT CAST(COUNT(pg_terminate_backend(pid)) AS BIGINT) AS n FROM pg_stat_activity
                WHERE pid <> pg_backend_pid() AND application_name = current_setting('application_name')";
    let killed = shop.store.read(move |conn| Ok::<_, CommonError>(sql_query(kill).get_result::<Count>(conn)?.n)).await;
    assert!(killed.unwrap() >= 2, "a writer, and who tells others that we are there");
    let (mut done, begun) = (5, std::time::Instant::now());
    while done < 25 {
        assert!(begun.elapsed() < std::time::Duration::from_secs(60), "it does not come back");
        match shop.store.write(|tx| put(tx, "more")).await {
            Ok(_) => done += 1,
            Err(refused) => {
                assert_eq!(refused, CommonError::StorageUnavailable);
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
    }
    assert_eq!(things(&shop.store).await, done, "what was refused was not done");
}
