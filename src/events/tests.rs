//! Tests of event delivery over a real RabbitMQ, also when connections fail. `MERCAT_TEST_RABBITMQ` is its URL
//! (`scripts/dev/rabbitmq` starts one). Each test uses its own virtual host, `t1` to `t9`.

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
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::RabbitMq;
use crate::app::App;
use crate::consistency_check;
use crate::contract::cart::{AddItem, Checkout};
use crate::contract::catalog::{CreateProduct, NewProduct};
use crate::contract::payments::{Invoice, PayInvoice};
use crate::contract::users::CreateUser;
use crate::messaging::grpc::test_authority::TestAuthority;
use crate::messaging::{IdempotencyKey, RequestContext, Role};
use crate::settings::{EventTransport, Settings};
use crate::types::{Clock, PeerTls, ProductId};

fn broker(host: &str) -> Option<String> {
    let named = std::env::var("MERCAT_TEST_RABBITMQ").ok().map(|url| format!("{url}/{host}"));
    if named.is_none() {
        // Not captured with the output of the test, so that it is always shown.
        let _ = writeln!(std::io::stderr(), "skipped: no broker is named by MERCAT_TEST_RABBITMQ");
    }
    named
}

/// Opens a channel of another program. Waits for a broker that is starting.
async fn open_channel(url: &str) -> Channel {
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

struct TestApp {
    app: App,
    product: ProductId,
    _dir: TempDir,
}

impl TestApp {
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
        let invoice = cart
            .call(plain(), Checkout { user_id, email: None, shipping_address: None, billing_address: None, note: None })
            .await
            .unwrap();
        let mut ctx = plain().with_key(IdempotencyKey::parse(&format!("pay-{name}")).unwrap());
        ctx.trace = Some(TRACE.into());
        let pay = PayInvoice { invoice_id: invoice.id, token: "tok_ok".into() };
        self.app.clients.payments.call(ctx, pay).await.unwrap()
    }

    /// Asserts that every event has been handled once: each paid invoice has a receipt, a sale, a statistics entry and a
    /// notification.
    async fn assert_consistent(&self) {
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

/// Trace context of every payment.
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn plain() -> RequestContext {
    RequestContext::internal("test")
}

/// TCP proxy to the broker that can be cut.
struct CutProxy {
    cut: Arc<Notify>,
    open: Arc<std::sync::atomic::AtomicBool>,
    url: String,
}

impl CutProxy {
    async fn to(url: &str) -> Self {
        let uri: lapin::uri::AMQPUri = url.parse().unwrap();
        let broker_address = format!("{}:{}", uri.authority.host, uri.authority.port);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = url.replace(&broker_address, &listener.local_addr().unwrap().to_string());
        let (cut, open) = (Arc::new(Notify::new()), Arc::new(std::sync::atomic::AtomicBool::new(true)));
        let (task_cut, task_open) = (Arc::clone(&cut), Arc::clone(&open));
        actix::spawn(async move {
            while let Ok((mut downstream, _)) = listener.accept().await {
                if !task_open.load(std::sync::atomic::Ordering::SeqCst) {
                    let _ = downstream.shutdown().await;
                    continue;
                }
                let (broker_address, task_cut) = (broker_address.clone(), Arc::clone(&task_cut));
                actix::spawn(async move {
                    let Ok(mut upstream) = TcpStream::connect(broker_address).await else { return };
                    tokio::select! {
                        () = task_cut.notified() => {}
                        _ = copy_bidirectional(&mut downstream, &mut upstream) => {}
                    }
                });
            }
        });
        Self { cut, open, url }
    }

    fn set_open(&self, open: bool) {
        self.open.store(open, std::sync::atomic::Ordering::SeqCst);
        self.cut.notify_waiters();
    }
}

#[actix::test]
async fn p15_events_over_rabbitmq_are_handled_once() {
    let Some(url) = broker("t1") else { return };
    drop(open_channel(&url).await);
    let shop = TestApp::open(&url).await;
    for name in ["ada", "bea", "cleo"] {
        shop.order(name).await;
    }
    shop.assert_consistent().await;
}

#[actix::test]
async fn p15_broker_interruptions_lose_and_repeat_nothing() {
    let Some(url) = broker("t2") else { return };
    drop(open_channel(&url).await);
    let proxy = CutProxy::to(&url).await;
    let shop = TestApp::open(&proxy.url).await;
    for round in 0..6 {
        shop.order(&format!("before{round}")).await;
        // In mid-flight: some events are published, some are handled, some acknowledgements are lost.
        proxy.set_open(false);
        shop.order(&format!("without{round}")).await;
        proxy.set_open(true);
        shop.order(&format!("after{round}")).await;
    }
    shop.assert_consistent().await;
}

#[actix::test]
async fn other_programs_can_bind_a_queue_and_read_json() {
    let Some(url) = broker("t3") else { return };
    let channel = open_channel(&url).await;
    let shop = TestApp::open(&url).await;
    shop.app.settle().await.unwrap();
    let own = QueueDeclareOptions { exclusive: true, ..Default::default() };
    channel.queue_declare("other".into(), own, FieldTable::default()).await.unwrap();
    let (options, none) = (QueueBindOptions::default(), FieldTable::default());
    channel
        .queue_bind("other".into(), "mercat.events".into(), "payments.invoice_paid".into(), options, none)
        .await
        .unwrap();
    let consuming = BasicConsumeOptions::default();
    let mut deliveries =
        channel.basic_consume("other".into(), "".into(), consuming, FieldTable::default()).await.unwrap();
    let invoice = shop.order("ada").await;
    let message = deliveries.next().await.unwrap().unwrap();
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
async fn python_program_receives_a_payment_event() {
    use std::io::BufRead as _;
    let Some(url) = broker("t6") else { return };
    let Ok(python) = std::env::var("MERCAT_TEST_AMQP_PYTHON") else {
        let _ = writeln!(std::io::stderr(), "skipped: no Python with pika is named by MERCAT_TEST_AMQP_PYTHON");
        return;
    };
    drop(open_channel(&url).await);
    let shop = TestApp::open(&url).await;
    shop.app.settle().await.unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/dev/amqp");
    let mut program = std::process::Command::new(python)
        .args([script, &url, "payments.invoice_paid"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(program.stdout.take().unwrap()).lines().map(Result::unwrap);
    // Read on another thread: the shop that publishes the event runs on this one.
    let (ready, mut lines) = tokio::task::spawn_blocking(move || (lines.next(), lines)).await.unwrap();
    assert_eq!(ready.as_deref(), Some("ready"));
    let invoice = shop.order("ada").await;
    let received = tokio::task::spawn_blocking(move || lines.next()).await.unwrap();
    let received: Value = serde_json::from_str(&received.unwrap()).unwrap();
    assert_eq!(received["event"]["data"]["invoice"]["id"], json!(invoice.id));
    assert_eq!(
        (&received["message_id"], &received["type"]),
        (&received["event"]["id"], &json!("payments.invoice_paid"))
    );
    assert!(program.wait().unwrap().success());
}

#[actix::test]
async fn malformed_message_is_dead_lettered() {
    let Some(url) = broker("t4") else { return };
    let channel = open_channel(&url).await;
    let shop = TestApp::open(&url).await;
    shop.app.settle().await.unwrap();
    let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
    let publish = channel.basic_publish("".into(), "mercat.stats".into(), options, b"not an event", properties);
    publish.await.unwrap();
    shop.order("ada").await;
    shop.assert_consistent().await;
    let dead = channel.basic_get("mercat.dead".into(), BasicGetOptions::default()).await.unwrap().unwrap();
    assert_eq!(dead.data, b"not an event");
}

#[actix::test]
async fn deleted_queue_is_declared_again() {
    let Some(url) = broker("t5") else { return };
    let channel = open_channel(&url).await;
    let shop = TestApp::open(&url).await;
    shop.order("ada").await;
    shop.assert_consistent().await;
    for queue in ["mercat.stats", "mercat.mailer"] {
        channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
        let (passive, none) = (QueueDeclareOptions { passive: true, ..Default::default() }, FieldTable::default());
        let started = std::time::Instant::now();
        while open_channel(&url).await.queue_declare(queue.into(), passive, none.clone()).await.is_err() {
            assert!(started.elapsed() < Duration::from_secs(30), "{queue} is not declared again");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    shop.order("bea").await;
    shop.assert_consistent().await;
}

/// A port that takes TLS with these certificates and passes what it gets on to `to`.
async fn tls_port(to: String, certificates: &PeerTls) -> u16 {
    let chain = CertificateDer::pem_slice_iter(certificates.certificate.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(certificates.key.as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    actix::spawn(async move {
        while let Ok((downstream, _)) = listener.accept().await {
            let (acceptor, to) = (acceptor.clone(), to.clone());
            actix::spawn(async move {
                let Ok(mut downstream) = acceptor.accept(downstream).await else { return };
                let mut upstream = TcpStream::connect(to).await.unwrap();
                let _ = copy_bidirectional(&mut downstream, &mut upstream).await;
            });
        }
    });
    port
}

#[actix::test]
async fn amqps_trusts_only_the_configured_authority() {
    let Some(url) = broker("t7") else { return };
    open_channel(&url).await;
    let authority = TestAuthority::generate();
    let mut uri: lapin::uri::AMQPUri = url.parse().unwrap();
    let plain = format!("{}:{}", uri.authority.host, uri.authority.port);
    uri.scheme = lapin::uri::AMQPScheme::AMQPS;
    uri.authority.host = "localhost".to_owned();
    uri.authority.port = tls_port(plain, &authority.process("localhost")).await;
    let trusting = RabbitMq::new(uri.clone(), Some(authority.process("x").authority), Vec::new());
    trusting.probe().await.unwrap();
    assert_eq!(trusting.address(), format!("amqps://localhost:{}", uri.authority.port));
    for other in [Some(TestAuthority::generate().process("x").authority), None] {
        assert!(RabbitMq::new(uri.clone(), other, Vec::new()).probe().await.is_err());
    }
}
