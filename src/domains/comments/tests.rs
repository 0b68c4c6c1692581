//! The comments' promises, through messages, on a real database file.

use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::contract::catalog::{CreateProduct, DeleteProduct};
use crate::contract::users::{UserChanged, UserErased};
use crate::domains::catalog::{self, CatalogActor};
use crate::messaging::{
    Caller, CommonError, Credential, DeliverEvents, Event, EventEnvelope, IdempotencyKey, Identity, RequestContext,
    Role,
};
use crate::settings::Settings;
use crate::types::{Clock, EventId, Page, PageRequest, ProductId, SessionId, Timestamp, UserId};

struct Shop {
    client: Client<CommentsActor>,
    catalog: Client<CatalogActor>,
    store: crate::store::Store,
    _ground: DomainRuntime,
    _dir: TempDir,
}

/// A shop whose catalog is switched off: what must not depend on it does not.
fn shop() -> Shop {
    shop_with(|_| Client::off("catalog"))
}

fn shop_with(catalog: impl FnOnce(&DomainRuntime) -> Client<CatalogActor>) -> Shop {
    let dir = TempDir::new().unwrap();
    let ground = DomainRuntime::new(Settings::for_test(dir.path()), Clock::system());
    let catalog = catalog(&ground);
    let RunningDomain { client, store } = open(&ground, catalog.clone()).unwrap();
    Shop { client, catalog, store, _ground: ground, _dir: dir }
}

fn as_user(user_id: UserId, role: Role) -> RequestContext {
    let identity = Identity { user_id, role, credential: Credential::Session(SessionId::new()) };
    RequestContext::new(Caller::User { identity, internal: false }, "test")
}

impl Shop {
    async fn record(&self, product: ProductId, user: UserId, rating: i32, at: i64) -> Result<Comment, CommentsError> {
        let at = Timestamp::from_micros(at);
        let (author, text) = ("Ada Lovelace".to_owned(), " Good. ".to_owned());
        let request = ImportComment { product_id: product, user_id: user, author, rating, text, at };
        self.client.call(RequestContext::internal("test"), request).await
    }

    async fn list(&self, product_id: ProductId, page: PageRequest) -> Page<Comment> {
        let anyone = RequestContext::new(Caller::Anyone { address: "192.0.2.1".into(), internal: false }, "test");
        self.client.call(anyone, ListComments { product_id, page }).await.unwrap()
    }

    async fn hear<E: Event>(&self, event: &E) {
        let data = serde_json::to_value(event).unwrap();
        let delivery = EventEnvelope {
            id: EventId::new(),
            name: E::NAME.to_owned(),
            at: Timestamp::from_micros(0),
            data,
            trace: None,
        };
        self.client.call(RequestContext::internal("users"), DeliverEvents { events: vec![delivery] }).await.unwrap();
    }

    async fn product(&self, name: &str) -> ProductId {
        let product = json!({ "name": name, "sku": name, "price": 1, "currency": "EUR", "stock": 1 });
        let create = CreateProduct { product: serde_json::from_value(product).unwrap() };
        self.catalog.call(RequestContext::internal("test"), create).await.unwrap().id
    }

    /// The ratings that were told, as (sum, count).
    async fn ratings(&self) -> Vec<(i64, i64)> {
        let told = self.store.outbox_read_after("test", 100).await.unwrap();
        told.iter().filter_map(|(_, e)| e.decode::<RatingChanged>().unwrap()).map(|r| (r.sum, r.count)).collect()
    }
}

#[actix::test]
async fn one_comment_a_customer_and_product_and_the_sums_follow() {
    let (shop, tea, pot, ada, bob) = (shop(), ProductId::new(), ProductId::new(), UserId::new(), UserId::new());
    let first = shop.record(tea, ada, 5, 1).await.unwrap();
    assert_eq!((first.author.as_str(), first.text.as_str()), ("Ada Lovelace", "Good."));
    assert_eq!(shop.record(tea, ada, 1, 2).await, Err(CommentsError::AlreadyCommented));
    shop.record(tea, bob, 2, 3).await.unwrap();
    shop.record(pot, ada, 4, 4).await.unwrap();
    let delete = DeleteComment { product_id: tea, comment_id: first.id };
    shop.client.call(as_user(ada, Role::Customer), delete).await.unwrap();
    // Deleted, so it can be said anew.
    shop.record(tea, ada, 3, 5).await.unwrap();
    assert_eq!(shop.ratings().await, [(5, 1), (7, 2), (4, 1), (2, 1), (5, 2)]);
}

#[actix::test]
async fn fifty_comments_of_one_customer_at_once_are_one() {
    let (shop, tea, ada) = (shop(), ProductId::new(), UserId::new());
    let answers = futures_util::future::join_all((0..50).map(|n| shop.record(tea, ada, 5, n))).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    assert_eq!(shop.ratings().await, [(5, 1)]);
}

#[actix::test]
async fn newest_come_first_page_after_page() {
    let (shop, tea) = (shop(), ProductId::new());
    for at in [1, 2, 2, 2, 3] {
        shop.record(tea, UserId::new(), 5, at).await.unwrap();
    }
    let (mut cursor, mut seen) = (None, Vec::new());
    loop {
        let page = shop.list(tea, PageRequest { limit: Some(2), cursor }).await;
        seen.extend(page.items.iter().map(|c| (c.created_at.micros(), c.id)));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    let mut sorted = seen.clone();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    sorted.dedup();
    assert_eq!((seen.len(), &seen), (5, &sorted));
}

#[actix::test]
async fn only_its_author_and_staff_take_a_comment_away_and_a_retry_hears_the_same() {
    let (shop, tea, ada) = (shop(), ProductId::new(), UserId::new());
    let comment = shop.record(tea, ada, 5, 1).await.unwrap();
    let delete = |product_id| DeleteComment { product_id, comment_id: comment.id };
    let stranger = shop.client.call(as_user(UserId::new(), Role::Customer), delete(tea)).await;
    let elsewhere = shop.client.call(as_user(ada, Role::Customer), delete(ProductId::new())).await;
    assert_eq!((stranger, elsewhere), (Err(CommentsError::CommentNotFound), Err(CommentsError::CommentNotFound)));
    let staff = as_user(UserId::new(), Role::Admin).with_key(IdempotencyKey::parse("k").unwrap());
    for _ in 0..2 {
        shop.client.call(staff.clone(), delete(tea)).await.unwrap();
    }
    assert!(staff.is_replayed());
    assert_eq!(shop.ratings().await, [(5, 1), (0, 0)]);
}

#[actix::test]
async fn a_name_follows_its_person_and_goes_with_the_account() {
    let (shop, tea, ada) = (shop(), ProductId::new(), UserId::new());
    shop.record(tea, ada, 5, 1).await.unwrap();
    let named = |name: &str| UserChanged { user_id: ada, email: None, name: name.to_owned(), role: Role::Customer };
    shop.hear(&named("Ada King")).await;
    assert_eq!(shop.list(tea, PageRequest::default()).await.items[0].author, "Ada King");
    shop.hear(&UserErased { user_id: ada, email: None }).await;
    // Told late or again, it does not bring the name back.
    shop.hear(&named("Ada King")).await;
    let kept = &shop.list(tea, PageRequest::default()).await.items[0];
    assert_eq!((kept.user_id, kept.author.as_str(), kept.rating), (None, "Former customer", 5));
}

#[actix::test]
async fn what_cannot_be_is_refused_before_the_catalog_is_asked() {
    let (shop, product_id) = (shop(), ProductId::new());
    let add = |rating, text: &str| AddComment { product_id, rating, text: text.to_owned() };
    let ask = |role, request| shop.client.call(as_user(UserId::new(), role), request);
    assert_eq!(ask(Role::Guest, add(5, "")).await, Err(CommonError::Forbidden.into()));
    for (rating, text) in [(0, ""), (6, ""), (5, "x".repeat(5_001).as_str()), (5, "bell \u{7}")] {
        let refused = ask(Role::Customer, add(rating, text)).await;
        assert!(matches!(refused, Err(CommentsError::Common(CommonError::ValidationFailed { .. }))), "{rating} {text}");
    }
    // All is well but the catalog, and then nothing is written.
    assert_eq!(ask(Role::Customer, add(5, "")).await, Err(CommonError::Unavailable.into()));
    assert!(shop.ratings().await.is_empty());
}

#[actix::test]
async fn a_customer_comments_on_what_there_is_and_a_retry_hears_the_first_answer() {
    let shop = shop_with(|ground| catalog::open(ground).unwrap().client);
    let tea = shop.product("Tea").await;
    let add = |product_id| AddComment { product_id, rating: 4, text: " Fine. ".to_owned() };
    let ada = as_user(UserId::new(), Role::Customer);
    let unknown = shop.client.call(ada.clone(), add(ProductId::new())).await;
    assert_eq!(unknown, Err(CommentsError::ProductNotFound));
    let keyed = ada.clone().with_key(IdempotencyKey::parse("k").unwrap());
    let first = shop.client.call(keyed.clone(), add(tea)).await.unwrap();
    assert_eq!((first.author.as_str(), first.text.as_str(), first.rating), ("Customer", "Fine.", 4));
    assert_eq!(shop.client.call(ada, add(tea)).await, Err(CommentsError::AlreadyCommented));
    let told = shop.store.outbox_read_after("test", 100).await.unwrap();
    let told: Vec<Comment> =
        told.iter().filter_map(|(_, e)| e.decode::<CommentAdded>().unwrap()).map(|added| added.comment).collect();
    assert_eq!((told, shop.ratings().await), (vec![first.clone()], vec![(4, 1)]));
    // Known by their name from now on, here too.
    let (user_id, name) = (first.user_id.unwrap(), "Ada".to_owned());
    shop.hear(&UserChanged { user_id, email: None, name, role: Role::Customer }).await;
    assert_eq!(shop.list(tea, PageRequest::default()).await.items[0].author, "Ada");
    // Gone from the shop: nothing more is said of it, but a repetition is answered as it was.
    shop.catalog.call(RequestContext::internal("test"), DeleteProduct { product_id: tea }).await.unwrap();
    let late = shop.client.call(as_user(UserId::new(), Role::Customer), add(tea)).await;
    assert_eq!(late, Err(CommentsError::ProductNotFound));
    assert_eq!(shop.client.call(keyed.clone(), add(tea)).await, Ok(first));
    assert!(keyed.is_replayed());
    // A person who was erased while the request was on its way leaves no trace.
    let gone = UserId::new();
    shop.hear(&UserErased { user_id: gone, email: None }).await;
    let cup = shop.product("Cup").await;
    let refused = shop.client.call(as_user(gone, Role::Customer), add(cup)).await;
    assert_eq!(refused, Err(CommonError::Unauthenticated.into()));
}
