//! Tests of the notifications domain through its messages, on a database file.

use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::broadcast::Receiver;

use super::*;
use crate::contract::catalog::LowStock;
use crate::contract::mailer::EmailFailed;
use crate::contract::payments::{Invoice, InvoiceCreated, InvoicePaid, InvoiceStatus};
use crate::contract::users::{AccessChanged, UserErased, UserRegistered};
use crate::messaging::{
    Caller, Client, Credential, DeliverEvents, Event, EventEnvelope, Identity, RequestContext, Role,
};
use crate::settings::Settings;
use crate::types::{Clock, Currency, EventId, InvoiceId, NotificationId, PageRequest, SessionId, Timestamp, UserId};

struct TestNotifications {
    client: Client<NotificationsActor>,
    feed: Feed,
    _runtime: DomainRuntime,
}

fn open_in(dir: &TempDir, keep: i64) -> TestNotifications {
    let mut settings = Settings::for_test(dir.path());
    settings.notifications.keep = keep;
    let (runtime, feed) = (DomainRuntime::new(settings, Clock::system()), Feed::default());
    let RunningDomain { client, .. } = open(&runtime, feed.clone()).unwrap();
    TestNotifications { client, feed, _runtime: runtime }
}

fn event<E: Event>(event: &E) -> EventEnvelope {
    let data = serde_json::to_value(event).unwrap();
    EventEnvelope { id: EventId::new(), name: E::NAME.to_owned(), at: Timestamp::from_micros(0), data, trace: None }
}

fn invoice(user: UserId, number: i64) -> Invoice {
    Invoice {
        id: InvoiceId::new(),
        number: format!("INV-{number:06}"),
        user_id: user,
        status: InvoiceStatus::Open,
        lines: Vec::new(),
        total: 1299,
        refunded: 0,
        refunding: 0,
        returned_late: 0,
        dispute: None,
        currency: Currency::EUR,
        shipping: None,
        tax: 0,
        tax_included: true,
        taxes: Vec::new(),
        shipping_address: None,
        billing_address: None,
        note: None,
        email: None,
        processing: false,
        created_at: Timestamp::from_micros(0),
        expires_at: Timestamp::from_micros(0),
        paid_at: None,
    }
}

fn created(user: UserId, number: i64) -> EventEnvelope {
    event(&InvoiceCreated { invoice: invoice(user, number) })
}

fn registered(user: UserId) -> EventEnvelope {
    let (email, name) = ("ada@example.com".parse().unwrap(), "Ada".to_owned());
    event(&UserRegistered {
        user_id: user,
        email,
        name,
        role: Role::Customer,
        email_verified: true,
        created_at: Timestamp::from_micros(0),
    })
}

fn customer(user: UserId) -> RequestContext {
    let credential = Credential::Session(SessionId::new());
    let identity = Identity::new(user, Role::Customer, credential);
    RequestContext::new(Caller::User { identity, internal: false }, "test")
}

impl TestNotifications {
    async fn deliver(&self, events: Vec<EventEnvelope>) {
        self.client.call(RequestContext::internal("test"), DeliverEvents { events }).await.unwrap();
    }

    async fn list(&self, user: UserId) -> NotificationPage {
        self.client.call(customer(user), ListNotifications::default()).await.unwrap()
    }

    async fn missed(&self, user_id: UserId, epoch: &str, after: i64) -> MissedNotifications {
        let request = ReadMissed { user_id, epoch: epoch.to_owned(), after };
        self.client.call(RequestContext::internal("test"), request).await.unwrap()
    }
}

fn received(receiver: &mut Receiver<Arc<Push>>) -> Vec<Push> {
    std::iter::from_fn(|| receiver.try_recv().ok()).map(|push| (*push).clone()).collect()
}

fn seqs(notifications: &[Notification]) -> Vec<i64> {
    notifications.iter().map(|n| n.seq).collect()
}

#[actix::test]
async fn n01_stream_has_no_gaps_under_repeated_delivery() {
    let dir = TempDir::new().unwrap();
    let (notifications, ada, bob) = (open_in(&dir, 1_000), UserId::new(), UserId::new());
    let batches: Vec<Vec<EventEnvelope>> =
        (0..20).map(|n| (0..10).map(|m| created(if m % 2 == 0 { ada } else { bob }, n * 10 + m)).collect()).collect();
    // Two concurrent relays, and each batch three times, as after crashes before an acknowledgement.
    for _ in 0..3 {
        let (one, other) = batches.split_at(10);
        let relay = |batches: Vec<Vec<EventEnvelope>>| async {
            for batch in batches {
                notifications.deliver(batch).await;
            }
        };
        futures_util::future::join(relay(one.to_vec()), relay(other.to_vec())).await;
    }
    let epoch = notifications.list(ada).await.epoch;
    for user in [ada, bob] {
        assert_eq!(seqs(&notifications.missed(user, &epoch, 0).await.notifications), (1..=100).collect::<Vec<_>>());
    }
}

#[actix::test]
async fn concurrent_deliveries_are_pushed_in_commit_order() {
    let dir = TempDir::new().unwrap();
    let (notifications, ada) = (open_in(&dir, 1_000), UserId::new());
    let mut receiver = notifications.feed.subscribe();
    let deliveries = (0..40).map(|n| notifications.deliver((0..5).map(|m| created(ada, n * 5 + m)).collect()));
    futures_util::future::join_all(deliveries).await;
    let mut orders = Vec::new();
    let mut own = Vec::new();
    for push in received(&mut receiver) {
        match push {
            Push::Notification { notification, .. } => {
                own.push((notification.seq, notification.data["number"].clone()))
            }
            Push::Event { topic, data, .. } if topic == "orders" => orders.push(data["number"].clone()),
            _ => {}
        }
    }
    let (seqs, numbers): (Vec<i64>, Vec<Value>) = own.into_iter().unzip();
    assert_eq!(seqs, (1..=200).collect::<Vec<_>>());
    assert_eq!(orders, numbers, "the topic of orders has the same order as the stream");
}

#[actix::test]
async fn missed_notifications_are_complete_or_none() {
    let dir = TempDir::new().unwrap();
    let (notifications, ada) = (open_in(&dir, 10), UserId::new());
    let fresh = notifications.missed(ada, &notifications.list(ada).await.epoch, 0).await;
    assert!(fresh.recovered && fresh.notifications.is_empty());
    notifications.deliver((1..=25).map(|n| created(ada, n)).collect()).await;
    let NotificationPage { epoch, seq, items, .. } = notifications.list(ada).await;
    assert_eq!((seq, items.len()), (25, 10), "only the last ten are kept");
    let cases = [
        (epoch.as_str(), 25, true, 0),
        (epoch.as_str(), 20, true, 5),
        (epoch.as_str(), 15, true, 10),
        (epoch.as_str(), 14, false, 0),
        (epoch.as_str(), 0, false, 0),
        (epoch.as_str(), 26, false, 0),
        (epoch.as_str(), -1, false, 0),
        ("another", 20, false, 0),
    ];
    for (epoch, after, recovered, number) in cases {
        let missed = notifications.missed(ada, epoch, after).await;
        assert_eq!((missed.recovered, missed.notifications.len()), (recovered, number), "{epoch} {after}");
        assert_eq!(missed.stream.seq, 25);
    }
}

#[actix::test]
async fn n01_epoch_survives_restart_and_changes_with_database() {
    let dir = TempDir::new().unwrap();
    let ada = UserId::new();
    let first = open_in(&dir, 10).list(ada).await.epoch;
    assert_eq!(open_in(&dir, 10).list(ada).await.epoch, first);
    assert_ne!(open_in(&TempDir::new().unwrap(), 10).list(ada).await.epoch, first);
}

#[actix::test]
async fn events_become_notifications_and_topic_pushes() {
    let dir = TempDir::new().unwrap();
    let (notifications, ada) = (open_in(&dir, 10), UserId::new());
    let mut receiver = notifications.feed.subscribe();
    let paid = |imported| event(&InvoicePaid { invoice: invoice(ada, 7), hold: None, checkout: None, imported });
    notifications.deliver(vec![registered(ada), created(ada, 7), paid(true), paid(false)]).await;
    let page = notifications.list(ada).await;
    let kinds: Vec<&str> = page.items.iter().map(|n| n.kind.as_str()).collect();
    assert_eq!(kinds, ["invoice_paid", "invoice_created", "user_registered"], "imported orders notify no one");
    assert_eq!(page.items[0].body, "We received 12.99 EUR for invoice INV-000007.");
    assert_eq!(page.items[0].data["total"], 1299);
    assert_eq!(page.items[2].title, "Welcome, Ada!");
    assert_eq!((page.unread, page.seq), (3, 3));
    let live: Vec<(String, String)> = received(&mut receiver)
        .into_iter()
        .filter_map(|push| match push {
            Push::Event { topic, kind, .. } => Some((topic, kind)),
            _ => None,
        })
        .collect();
    let expected = [
        ("stats", "stats_changed"),
        ("orders", "invoice_created"),
        ("stats", "stats_changed"),
        ("orders", "invoice_paid"),
        ("stats", "stats_changed"),
    ];
    assert_eq!(live, expected.map(|(topic, kind)| (topic.to_owned(), kind.to_owned())));
}

#[actix::test]
async fn pages_follow_and_only_the_owner_marks_read() {
    let dir = TempDir::new().unwrap();
    let (notifications, ada, bob) = (open_in(&dir, 100), UserId::new(), UserId::new());
    notifications.deliver((1..=5).map(|n| created(ada, n)).collect()).await;
    let request = |cursor, after| ListNotifications { after, page: PageRequest { limit: Some(2), cursor } };
    let first = notifications.client.call(customer(ada), request(None, None)).await.unwrap();
    let second = notifications.client.call(customer(ada), request(first.next.clone(), None)).await.unwrap();
    assert_eq!((seqs(&first.items), seqs(&second.items)), (vec![5, 4], vec![3, 2]));
    let newer = notifications.client.call(customer(ada), request(None, Some(4))).await.unwrap();
    assert_eq!((seqs(&newer.items), newer.next), (vec![5], None));
    let id = first.items[0].id;
    for _ in 0..2 {
        notifications.client.call(customer(ada), MarkRead { notification_id: id }).await.unwrap();
    }
    assert_eq!(notifications.list(ada).await.unread, 4);
    for (user, id) in [(bob, id), (ada, NotificationId::new())] {
        let refused = notifications.client.call(customer(user), MarkRead { notification_id: id }).await;
        assert_eq!(refused, Err(NotificationsError::NotificationNotFound));
    }
}

#[actix::test]
async fn late_event_restores_nothing_of_an_erased_user() {
    let dir = TempDir::new().unwrap();
    let (notifications, ada) = (open_in(&dir, 100), UserId::new());
    notifications.deliver(vec![registered(ada), created(ada, 1)]).await;
    let mut receiver = notifications.feed.subscribe();
    notifications.deliver(vec![event(&UserErased { user_id: ada, email: None })]).await;
    assert_eq!(received(&mut receiver), [Push::AccessChanged { user_id: ada, session_id: None }]);
    notifications.deliver(vec![created(ada, 2)]).await;
    assert!(notifications.list(ada).await.items.is_empty());
}

#[actix::test]
async fn undecodable_event_pushes_nothing() {
    let dir = TempDir::new().unwrap();
    let (notifications, ada) = (open_in(&dir, 100), UserId::new());
    let mut receiver = notifications.feed.subscribe();
    let mut undecodable = created(ada, 1);
    undecodable.data = json!({ "invoice": "not one" });
    let session_id = Some(SessionId::new());
    notifications.deliver(vec![undecodable, event(&AccessChanged { user_id: ada, session_id })]).await;
    assert_eq!(received(&mut receiver), [Push::AccessChanged { user_id: ada, session_id }]);
    assert_eq!(notifications.list(ada).await.seq, 0);
}

#[actix::test]
async fn n07_staff_are_notified_of_what_they_may_see() {
    let dir = TempDir::new().unwrap();
    let notifications = open_in(&dir, 100);
    let (ada, owner, clerk) = (UserId::new(), UserId::new(), UserId::new());
    let staff = |user, role| {
        let identity = Identity::new(user, role, Credential::Session(SessionId::new()));
        RequestContext::new(Caller::User { identity, internal: false }, "test")
    };
    let list = async |user, role| {
        let page = notifications.client.call(staff(user, role), ListNotifications::default()).await.unwrap();
        page.items.into_iter().map(|notification| notification.kind).collect::<Vec<_>>()
    };
    let paid =
        |number| event(&InvoicePaid { invoice: invoice(ada, number), hold: None, checkout: None, imported: false });
    let imported = event(&InvoicePaid { invoice: invoice(ada, 9), hold: None, checkout: None, imported: true });
    let low = |stock| {
        let (product_id, sku, name) = (crate::types::ProductId::new(), "TEA-1".to_owned(), "Teapot".to_owned());
        event(&LowStock { product_id, sku, name, stock })
    };
    let failed = event(&EmailFailed {
        email_id: crate::types::EmailId::new(),
        to: "ada@example.com".parse().unwrap(),
        subject: "Receipt".to_owned(),
        reason: "no such mailbox".to_owned(),
    });
    // None of them has looked yet.
    notifications.deliver(vec![paid(1)]).await;
    assert_eq!(list(owner, Role::Admin).await, [] as [&str; 0]);
    assert_eq!(list(clerk, Role::ReadOnly).await, [] as [&str; 0]);
    list(ada, Role::Customer).await;
    let mut receiver = notifications.feed.subscribe();
    notifications.deliver(vec![paid(2), imported, low(3), failed.clone()]).await;
    assert_eq!(list(owner, Role::Admin).await, ["email_failed", "low_stock", "order_placed"]);
    assert_eq!(list(clerk, Role::ReadOnly).await, ["low_stock", "order_placed"]);
    assert_eq!(list(ada, Role::Customer).await, ["invoice_paid", "invoice_paid"]);
    let live = received(&mut receiver);
    let is_of_owner = |push: &&Push| matches!(push, Push::Notification { user_id, .. } if *user_id == owner);
    assert_eq!(live.iter().filter(is_of_owner).count(), 3, "{live:?}");
    // A changed role ends it, until they look with the new one; so does the deletion of the account.
    notifications.deliver(vec![event(&AccessChanged { user_id: owner, session_id: None })]).await;
    notifications.deliver(vec![event(&UserErased { user_id: clerk, email: None }), low(2)]).await;
    assert_eq!(list(owner, Role::ReadOnly).await.len(), 3);
    notifications.deliver(vec![failed, low(0)]).await;
    assert_eq!(list(owner, Role::ReadOnly).await[..2], ["low_stock", "email_failed"]);
    assert_eq!(list(clerk, Role::Customer).await, [] as [&str; 0]);
}
