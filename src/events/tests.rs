//! Orders whose news travel over a real RabbitMQ, also when it comes and goes. `MERCAT_TEST_RABBITMQ` names one
//! (`scripts/dev/rabbitmq`); each test has a virtual host of its own, t1 to t9.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, QueueBindOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::app::App;
use crate::consistency_check;
use crate::contract::cart::{AddItem, Checkout};
use crate::contract::catalog::{CreateProduct, NewProduct};
use crate::contract::payments::{Invoice, PayInvoice};
use crate::contract::users::CreateUser;
use crate::messaging::{IdempotencyKey, RequestContext, Role};
use crate::settings::{EventTransport, Settings};
use crate::types::{Clock, ProductId};

fn broker(host: &str) -> Option<String> {
    let named = std::env::var("MERCAT_TEST_RABBITMQ").ok().map(|url| format!("{url}/{host}"));
    if named.is_none() {
        // Past the capturing of a test's output, so that everybody sees it.
        let _ = writeln!(std::io::stderr(), "skipped: no broker is named by MERCAT_TEST_RABBITMQ");
    }
    named
}

/// A channel of somebody who is not Mercat. A broker that still starts is waited for.
async fn stranger(url: &str) -> Channel {
    let mut tries = 0;
    loop {
        match Connection::connect(url, ConnectionProperties::default()).await {
            Ok(connection) => return connection.create_channel().await.unwrap(),
            Err(error) => assert!(tries < 600, "{error}"),
        }
        tries += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

struct Shop {
    app: App,
    product: ProductId,
    _dir: TempDir,
}

impl Shop {
    async fn open(url: &str) -> Self {
        let _ = env_logger::builder().is_test(true).try_init();
        let dir = TempDir::new().unwrap();
        let settings =
            Settings { events: EventTransport::RabbitMq(url.parse().unwrap()), ..Settings::for_test(dir.path()) };
        let app = App::open(settings, Clock::system()).unwrap();
        let product: NewProduct = serde_json::from_value(json!({
            "name": "Teapot", "sku": "teapot", "description": "Round", "price": 4_800, "currency": "EUR", "stock": 100,
        }))
        .unwrap();
        let product = app.clients.catalog.call(plain(), CreateProduct { product }).await.unwrap().id;
        Self { app, product, _dir: dir }
    }

    async fn order(&self, name: &str) -> Invoice {
        let (email, password) = (format!("{name}@example.com"), "correct horse".into());
        let user = CreateUser { email, password, name: name.into(), role: Role::Customer, created_at: None };
        let user_id = self.app.clients.users.call(plain(), user).await.unwrap().id;
        let cart = &self.app.clients.cart;
        cart.call(plain(), AddItem { user_id, product_id: self.product, quantity: 2 }).await.unwrap();
        let invoice = cart.call(plain(), Checkout { user_id, email: None }).await.unwrap();
        let mut ctx = plain().with_key(IdempotencyKey::parse(&format!("pay-{name}")).unwrap());
        ctx.trace = Some(TRACE.into());
        let pay = PayInvoice { invoice_id: invoice.id, token: "tok_ok".into() };
        self.app.clients.payments.call(ctx, pay).await.unwrap()
    }

    /// Everybody has heard of everything, each thing once: a receipt, a sale, a statistics entry and a notification for
    /// each paid invoice.
    async fn assert_sound(&self) {
        for _ in 0..600 {
            if self.app.settle().await.is_ok() {
                let report = consistency_check::run(&self.app.clients).await.unwrap();
                assert!(report.violations.is_empty(), "{:?}", report.violations);
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the shop does not settle");
    }
}

/// The trace in which every order is paid.
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn plain() -> RequestContext {
    RequestContext::internal("test")
}

/// A way to the broker that can be cut.
struct Wire {
    cut: Arc<Notify>,
    open: Arc<std::sync::atomic::AtomicBool>,
    url: String,
}

impl Wire {
    async fn to(url: &str) -> Self {
        let uri: lapin::uri::AMQPUri = url.parse().unwrap();
        let there = format!("{}:{}", uri.authority.host, uri.authority.port);
        let here = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = url.replace(&there, &here.local_addr().unwrap().to_string());
        let (cut, open) = (Arc::new(Notify::new()), Arc::new(std::sync::atomic::AtomicBool::new(true)));
        let (cutting, opened) = (Arc::clone(&cut), Arc::clone(&open));
        actix::spawn(async move {
            while let Ok((mut near, _)) = here.accept().await {
                if !opened.load(std::sync::atomic::Ordering::SeqCst) {
                    let _ = near.shutdown().await;
                    continue;
                }
                let (there, cutting) = (there.clone(), Arc::clone(&cutting));
                actix::spawn(async move {
                    let Ok(mut far) = TcpStream::connect(there).await else { return };
                    tokio::select! {
                        () = cutting.notified() => {}
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                    }
                });
            }
        });
        Self { cut, open, url }
    }

    fn set(&self, open: bool) {
        self.open.store(open, std::sync::atomic::Ordering::SeqCst);
        self.cut.notify_waiters();
    }
}

#[actix::test]
async fn p15_orders_are_whole_when_their_news_travel_over_rabbitmq() {
    let Some(url) = broker("t1") else { return };
    drop(stranger(&url).await);
    let shop = Shop::open(&url).await;
    for name in ["ada", "bea", "cleo"] {
        shop.order(name).await;
    }
    shop.assert_sound().await;
}

#[actix::test]
async fn p15_a_broker_that_comes_and_goes_loses_nothing_and_doubles_nothing() {
    let Some(url) = broker("t2") else { return };
    drop(stranger(&url).await);
    let wire = Wire::to(&url).await;
    let shop = Shop::open(&wire.url).await;
    for round in 0..6 {
        shop.order(&format!("before{round}")).await;
        // In mid-flight: some are published, some are heard, some acknowledgements are lost.
        wire.set(false);
        shop.order(&format!("without{round}")).await;
        wire.set(true);
        shop.order(&format!("after{round}")).await;
    }
    shop.assert_sound().await;
}

#[actix::test]
async fn strangers_can_bind_a_queue_and_read_json_that_is_documented() {
    let Some(url) = broker("t3") else { return };
    let stranger = stranger(&url).await;
    let shop = Shop::open(&url).await;
    shop.app.settle().await.unwrap();
    let own = QueueDeclareOptions { exclusive: true, ..Default::default() };
    stranger.queue_declare("ours".into(), own, FieldTable::default()).await.unwrap();
    let (options, none) = (QueueBindOptions::default(), FieldTable::default());
    stranger
        .queue_bind("ours".into(), "mercat.events".into(), "payments.invoice_paid".into(), options, none)
        .await
        .unwrap();
    let consuming = BasicConsumeOptions::default();
    let mut heard = stranger.basic_consume("ours".into(), "".into(), consuming, FieldTable::default()).await.unwrap();
    let invoice = shop.order("ada").await;
    let message = heard.next().await.unwrap().unwrap();
    message.ack(BasicAckOptions::default()).await.unwrap();
    let event: Value = serde_json::from_slice(&message.data).unwrap();
    assert_eq!(event["name"], "payments.invoice_paid");
    assert_eq!(event["data"]["invoice"]["id"], json!(invoice.id));
    assert_eq!(event["data"]["invoice"]["total"], 9_600);
    assert_eq!(message.properties.message_id().as_ref().map(ToString::to_string).as_deref(), event["id"].as_str());
    assert_eq!(message.properties.content_type().as_ref().map(|kind| kind.as_str()), Some("application/json"));
    let headers = message.properties.headers().as_ref().unwrap();
    let traced = headers.inner().get("traceparent").and_then(|value| value.as_long_string()).map(ToString::to_string);
    assert_eq!((traced.as_deref(), event["trace"].as_str()), (Some(TRACE), Some(TRACE)));
}

#[actix::test]
async fn a_program_in_another_language_hears_of_a_payment() {
    use std::io::BufRead as _;
    let Some(url) = broker("t6") else { return };
    let Ok(python) = std::env::var("MERCAT_TEST_AMQP_PYTHON") else {
        let _ = writeln!(std::io::stderr(), "skipped: no Python with pika is named by MERCAT_TEST_AMQP_PYTHON");
        return;
    };
    drop(stranger(&url).await);
    let shop = Shop::open(&url).await;
    shop.app.settle().await.unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/dev/amqp");
    let mut theirs = std::process::Command::new(python)
        .args([script, &url, "payments.invoice_paid"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = std::io::BufReader::new(theirs.stdout.take().unwrap()).lines().map(Result::unwrap);
    // Read on another thread: the shop that they hear of is on this one.
    let (ready, mut said) = tokio::task::spawn_blocking(move || (said.next(), said)).await.unwrap();
    assert_eq!(ready.as_deref(), Some("ready"));
    let invoice = shop.order("ada").await;
    let heard = tokio::task::spawn_blocking(move || said.next()).await.unwrap();
    let heard: Value = serde_json::from_str(&heard.unwrap()).unwrap();
    assert_eq!(heard["event"]["data"]["invoice"]["id"], json!(invoice.id));
    assert_eq!((&heard["message_id"], &heard["type"]), (&heard["event"]["id"], &json!("payments.invoice_paid")));
    assert!(theirs.wait().unwrap().success());
}

#[actix::test]
async fn what_is_no_event_is_set_aside_and_holds_nobody_up() {
    let Some(url) = broker("t4") else { return };
    let stranger = stranger(&url).await;
    let shop = Shop::open(&url).await;
    shop.app.settle().await.unwrap();
    let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
    let junk = stranger.basic_publish("".into(), "mercat.stats".into(), options, b"not an event", properties);
    junk.await.unwrap();
    shop.order("ada").await;
    shop.assert_sound().await;
    let dead = stranger.basic_get("mercat.dead".into(), BasicGetOptions::default()).await.unwrap().unwrap();
    assert_eq!(dead.data, b"not an event");
}

#[actix::test]
async fn a_queue_that_somebody_deletes_is_made_again() {
    let Some(url) = broker("t5") else { return };
    let breaker = stranger(&url).await;
    let shop = Shop::open(&url).await;
    shop.order("ada").await;
    shop.assert_sound().await;
    for queue in ["mercat.stats", "mercat.mailer"] {
        breaker.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
        let (there, none) = (QueueDeclareOptions { passive: true, ..Default::default() }, FieldTable::default());
        let begun = std::time::Instant::now();
        while stranger(&url).await.queue_declare(queue.into(), there, none.clone()).await.is_err() {
            assert!(begun.elapsed() < Duration::from_secs(30), "nobody makes {queue} again");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    shop.order("bea").await;
    shop.assert_sound().await;
}
