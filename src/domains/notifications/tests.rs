//! The notifications' promises, through messages, on a real database file.

use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::broadcast::Receiver;

use super::*;
use crate::contract::payments::{Invoice, InvoiceCreated, InvoicePaid, InvoiceStatus};
use crate::contract::users::{AccessChanged, UserErased, UserRegistered};
use crate::messaging::{
    Caller, Client, Credential, DeliverEvents, Event, EventEnvelope, Identity, RequestContext, Role,
};
use crate::settings::Settings;
use crate::types::{Clock, Currency, EventId, InvoiceId, NotificationId, PageRequest, SessionId, Timestamp, UserId};

struct Shop {
    client: Client<NotificationsActor>,
    feed: Feed,
    _ground: DomainRuntime,
}

fn open_in(dir: &TempDir, keep: i64) -> Shop {
    let mut settings = Settings::for_test(dir.path());
    settings.notifications.keep = keep;
    let (ground, feed) = (DomainRuntime::new(settings, Clock::system()), Feed::default());
    let RunningDomain { client, .. } = open(&ground, feed.clone()).unwrap();
    Shop { client, feed, _ground: ground }
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
        currency: Currency::EUR,
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
    event(&UserRegistered { user_id: user, email, name, role: Role::Customer, created_at: Timestamp::from_micros(0) })
}

fn of(user: UserId) -> RequestContext {
    let credential = Credential::Session(SessionId::new());
    let identity = Identity { user_id: user, role: Role::Customer, credential };
    RequestContext::new(Caller::User { identity, internal: false }, "test")
}

impl Shop {
    async fn tell(&self, events: Vec<EventEnvelope>) {
        self.client.call(RequestContext::internal("test"), DeliverEvents { events }).await.unwrap();
    }

    async fn list(&self, user: UserId) -> NotificationPage {
        self.client.call(of(user), ListNotifications::default()).await.unwrap()
    }

    async fn missed(&self, user_id: UserId, epoch: &str, after: i64) -> MissedNotifications {
        let request = ReadMissed { user_id, epoch: epoch.to_owned(), after };
        self.client.call(RequestContext::internal("test"), request).await.unwrap()
    }
}

fn shown(listener: &mut Receiver<Arc<Push>>) -> Vec<Push> {
    std::iter::from_fn(|| listener.try_recv().ok()).map(|push| (*push).clone()).collect()
}

fn seqs(notifications: &[Notification]) -> Vec<i64> {
    notifications.iter().map(|n| n.seq).collect()
}

#[actix::test]
async fn a_stream_counts_without_gaps_whoever_delivers_and_however_often() {
    let dir = TempDir::new().unwrap();
    let (shop, ada, bob) = (open_in(&dir, 1_000), UserId::new(), UserId::new());
    let batches: Vec<Vec<EventEnvelope>> =
        (0..20).map(|n| (0..10).map(|m| created(if m % 2 == 0 { ada } else { bob }, n * 10 + m)).collect()).collect();
    // Two relays at once, and each batch three times over, as after crashes between effect and note.
    for _ in 0..3 {
        let (one, other) = batches.split_at(10);
        let carry = |some: Vec<Vec<EventEnvelope>>| async {
            for batch in some {
                shop.tell(batch).await;
            }
        };
        futures_util::future::join(carry(one.to_vec()), carry(other.to_vec())).await;
    }
    let epoch = shop.list(ada).await.epoch;
    for user in [ada, bob] {
        assert_eq!(seqs(&shop.missed(user, &epoch, 0).await.notifications), (1..=100).collect::<Vec<_>>());
    }
}

#[actix::test]
async fn what_two_relays_bring_at_once_goes_out_in_the_order_it_became_durable() {
    let dir = TempDir::new().unwrap();
    let (shop, ada) = (open_in(&dir, 1_000), UserId::new());
    let mut listener = shop.feed.listen();
    let deliveries = (0..40).map(|n| shop.tell((0..5).map(|m| created(ada, n * 5 + m)).collect()));
    futures_util::future::join_all(deliveries).await;
    let mut orders = Vec::new();
    let mut own = Vec::new();
    for push in shown(&mut listener) {
        match push {
            Push::Notification { notification, .. } => {
                own.push((notification.seq, notification.data["number"].clone()))
            }
            Push::Event { topic, data, .. } if topic == "orders" => orders.push(data["number"].clone()),
            _ => {}
        }
    }
    let (places, numbers): (Vec<i64>, Vec<Value>) = own.into_iter().unzip();
    assert_eq!(places, (1..=200).collect::<Vec<_>>());
    assert_eq!(orders, numbers, "the staff's topic has the same order as the stream");
}

#[actix::test]
async fn what_was_missed_is_told_whole_or_not_at_all() {
    let dir = TempDir::new().unwrap();
    let (shop, ada) = (open_in(&dir, 10), UserId::new());
    let fresh = shop.missed(ada, &shop.list(ada).await.epoch, 0).await;
    assert!(fresh.recovered && fresh.notifications.is_empty());
    shop.tell((1..=25).map(|n| created(ada, n)).collect()).await;
    let NotificationPage { epoch, seq, items, .. } = shop.list(ada).await;
    assert_eq!((seq, items.len()), (25, 10), "older ones than are kept are gone");
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
        let missed = shop.missed(ada, epoch, after).await;
        assert_eq!((missed.recovered, missed.notifications.len()), (recovered, number), "{epoch} {after}");
        assert_eq!(missed.stream.seq, 25);
    }
}

#[actix::test]
async fn the_epoch_stays_over_a_restart_and_is_another_when_the_history_is_lost() {
    let dir = TempDir::new().unwrap();
    let ada = UserId::new();
    let first = open_in(&dir, 10).list(ada).await.epoch;
    assert_eq!(open_in(&dir, 10).list(ada).await.epoch, first);
    assert_ne!(open_in(&TempDir::new().unwrap(), 10).list(ada).await.epoch, first);
}

#[actix::test]
async fn a_buyer_hears_in_plain_words_and_staff_on_their_topics() {
    let dir = TempDir::new().unwrap();
    let (shop, ada) = (open_in(&dir, 10), UserId::new());
    let mut listener = shop.feed.listen();
    let paid = |imported| event(&InvoicePaid { invoice: invoice(ada, 7), hold: None, checkout: None, imported });
    shop.tell(vec![registered(ada), created(ada, 7), paid(true), paid(false)]).await;
    let page = shop.list(ada).await;
    let kinds: Vec<&str> = page.items.iter().map(|n| n.kind.as_str()).collect();
    assert_eq!(kinds, ["invoice_paid", "invoice_created", "user_registered"], "orders of the past are told to nobody");
    assert_eq!(page.items[0].body, "We received 12.99 EUR for invoice INV-000007.");
    assert_eq!(page.items[0].data["total"], 1299);
    assert_eq!(page.items[2].title, "Welcome, Ada!");
    assert_eq!((page.unread, page.seq), (3, 3));
    let live: Vec<(String, String)> = shown(&mut listener)
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
async fn a_page_follows_a_page_and_reading_is_ones_own_matter() {
    let dir = TempDir::new().unwrap();
    let (shop, ada, bob) = (open_in(&dir, 100), UserId::new(), UserId::new());
    shop.tell((1..=5).map(|n| created(ada, n)).collect()).await;
    let ask = |cursor, after| ListNotifications { after, page: PageRequest { limit: Some(2), cursor } };
    let first = shop.client.call(of(ada), ask(None, None)).await.unwrap();
    let second = shop.client.call(of(ada), ask(first.next.clone(), None)).await.unwrap();
    assert_eq!((seqs(&first.items), seqs(&second.items)), (vec![5, 4], vec![3, 2]));
    let newer = shop.client.call(of(ada), ask(None, Some(4))).await.unwrap();
    assert_eq!((seqs(&newer.items), newer.next), (vec![5], None));
    let id = first.items[0].id;
    for _ in 0..2 {
        shop.client.call(of(ada), MarkRead { notification_id: id }).await.unwrap();
    }
    assert_eq!(shop.list(ada).await.unread, 4);
    for (user, id) in [(bob, id), (ada, NotificationId::new())] {
        let refused = shop.client.call(of(user), MarkRead { notification_id: id }).await;
        assert_eq!(refused, Err(NotificationsError::NotificationNotFound));
    }
}

#[actix::test]
async fn an_erased_user_leaves_nothing_and_late_news_bring_nothing_back() {
    let dir = TempDir::new().unwrap();
    let (shop, ada) = (open_in(&dir, 100), UserId::new());
    shop.tell(vec![registered(ada), created(ada, 1)]).await;
    let mut listener = shop.feed.listen();
    shop.tell(vec![event(&UserErased { user_id: ada, email: None })]).await;
    assert_eq!(shown(&mut listener), [Push::AccessChanged { user_id: ada, session_id: None }]);
    shop.tell(vec![created(ada, 2)]).await;
    assert!(shop.list(ada).await.items.is_empty());
}

#[actix::test]
async fn a_bad_event_is_set_aside_and_shows_nothing() {
    let dir = TempDir::new().unwrap();
    let (shop, ada) = (open_in(&dir, 100), UserId::new());
    let mut listener = shop.feed.listen();
    let mut bad = created(ada, 1);
    bad.data = json!({ "invoice": "not one" });
    let session_id = Some(SessionId::new());
    shop.tell(vec![bad, event(&AccessChanged { user_id: ada, session_id })]).await;
    assert_eq!(shown(&mut listener), [Push::AccessChanged { user_id: ada, session_id }]);
    assert_eq!(shop.list(ada).await.seq, 0);
}
