//! Tests of the comments domain through its messages, on a database file.

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

struct TestComments {
    client: Client<CommentsActor>,
    catalog: Client<CatalogActor>,
    store: crate::store::Store,
    _runtime: DomainRuntime,
    _dir: TempDir,
}

/// Opens the comments without a catalog.
fn open_without_catalog() -> TestComments {
    open_with(|_| Client::disabled("catalog"))
}

fn open_with(catalog: impl FnOnce(&DomainRuntime) -> Client<CatalogActor>) -> TestComments {
    let dir = TempDir::new().unwrap();
    let runtime = DomainRuntime::new(Settings::for_test(dir.path()), Clock::system());
    let catalog = catalog(&runtime);
    let RunningDomain { client, store } = open(&runtime, catalog.clone()).unwrap();
    TestComments { client, catalog, store, _runtime: runtime, _dir: dir }
}

fn as_user(user_id: UserId, role: Role) -> RequestContext {
    let identity = Identity::new(user_id, role, Credential::Session(SessionId::new()));
    RequestContext::new(Caller::User { identity, internal: false }, "test")
}

impl TestComments {
    async fn import(&self, product: ProductId, user: UserId, rating: i32, at: i64) -> Result<Comment, CommentsError> {
        let at = Timestamp::from_micros(at);
        let (author, text) = ("Ada Lovelace".to_owned(), " Good. ".to_owned());
        let request = ImportComment { product_id: product, user_id: user, author, rating, text, at };
        self.client.call(RequestContext::internal("test"), request).await
    }

    async fn list(&self, product_id: ProductId, page: PageRequest) -> Page<Comment> {
        let anyone = RequestContext::new(Caller::Anyone { address: "192.0.2.1".into(), internal: false }, "test");
        self.client.call(anyone, ListComments { product_id, page }).await.unwrap()
    }

    async fn deliver<E: Event>(&self, event: &E) {
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

    /// Returns the emitted rating totals: (sum, count).
    async fn emitted_ratings(&self) -> Vec<(i64, i64)> {
        let events = self.store.outbox_read_after("test", 100).await.unwrap();
        events.iter().filter_map(|(_, e)| e.decode::<RatingChanged>().unwrap()).map(|r| (r.sum, r.count)).collect()
    }
}

#[actix::test]
async fn one_comment_per_customer_and_product() {
    let (comments, tea, pot, ada, bob) =
        (open_without_catalog(), ProductId::new(), ProductId::new(), UserId::new(), UserId::new());
    let first = comments.import(tea, ada, 5, 1).await.unwrap();
    assert_eq!((first.author.as_str(), first.text.as_str()), ("Ada Lovelace", "Good."));
    assert_eq!(comments.import(tea, ada, 1, 2).await, Err(CommentsError::AlreadyCommented));
    comments.import(tea, bob, 2, 3).await.unwrap();
    comments.import(pot, ada, 4, 4).await.unwrap();
    let delete = DeleteComment { product_id: tea, comment_id: first.id };
    comments.client.call(as_user(ada, Role::Customer), delete).await.unwrap();
    // After the deletion the customer may comment again.
    comments.import(tea, ada, 3, 5).await.unwrap();
    assert_eq!(comments.emitted_ratings().await, [(5, 1), (7, 2), (4, 1), (2, 1), (5, 2)]);
}

#[actix::test]
async fn concurrent_comments_of_one_customer_become_one() {
    let (comments, tea, ada) = (open_without_catalog(), ProductId::new(), UserId::new());
    let results = futures_util::future::join_all((0..50).map(|n| comments.import(tea, ada, 5, n))).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert_eq!(comments.emitted_ratings().await, [(5, 1)]);
}

#[actix::test]
async fn comments_list_newest_first_across_pages() {
    let (comments, tea) = (open_without_catalog(), ProductId::new());
    for at in [1, 2, 2, 2, 3] {
        comments.import(tea, UserId::new(), 5, at).await.unwrap();
    }
    let (mut cursor, mut seen) = (None, Vec::new());
    loop {
        let page = comments.list(tea, PageRequest { limit: Some(2), cursor }).await;
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
async fn comment_is_deleted_by_author_or_staff_only() {
    let (comments, tea, ada) = (open_without_catalog(), ProductId::new(), UserId::new());
    let comment = comments.import(tea, ada, 5, 1).await.unwrap();
    let delete = |product_id| DeleteComment { product_id, comment_id: comment.id };
    let stranger = comments.client.call(as_user(UserId::new(), Role::Customer), delete(tea)).await;
    let wrong_product = comments.client.call(as_user(ada, Role::Customer), delete(ProductId::new())).await;
    assert_eq!((stranger, wrong_product), (Err(CommentsError::CommentNotFound), Err(CommentsError::CommentNotFound)));
    let staff = as_user(UserId::new(), Role::Admin).with_key(IdempotencyKey::parse("k").unwrap());
    for _ in 0..2 {
        comments.client.call(staff.clone(), delete(tea)).await.unwrap();
    }
    assert!(staff.is_replayed());
    assert_eq!(comments.emitted_ratings().await, [(5, 1), (0, 0)]);
}

#[actix::test]
async fn author_name_follows_the_account() {
    let (comments, tea, ada) = (open_without_catalog(), ProductId::new(), UserId::new());
    comments.import(tea, ada, 5, 1).await.unwrap();
    let named = |name: &str| UserChanged {
        user_id: ada,
        email: None,
        name: name.to_owned(),
        role: Role::Customer,
        email_verified: true,
    };
    comments.deliver(&named("Ada King")).await;
    assert_eq!(comments.list(tea, PageRequest::default()).await.items[0].author, "Ada King");
    comments.deliver(&UserErased { user_id: ada, email: None }).await;
    // A late or repeated event does not restore the name.
    comments.deliver(&named("Ada King")).await;
    let kept = &comments.list(tea, PageRequest::default()).await.items[0];
    assert_eq!((kept.user_id, kept.author.as_str(), kept.rating), (None, "Former customer", 5));
}

#[actix::test]
async fn invalid_comment_is_rejected_without_catalog() {
    let (comments, product_id) = (open_without_catalog(), ProductId::new());
    let add = |rating, text: &str| AddComment { product_id, rating, text: text.to_owned() };
    let call = |role, request| comments.client.call(as_user(UserId::new(), role), request);
    assert_eq!(call(Role::Guest, add(5, "")).await, Err(CommonError::Forbidden.into()));
    for (rating, text) in [(0, ""), (6, ""), (5, "x".repeat(5_001).as_str()), (5, "bell \u{7}")] {
        let refused = call(Role::Customer, add(rating, text)).await;
        assert!(matches!(refused, Err(CommentsError::Common(CommonError::ValidationFailed { .. }))), "{rating} {text}");
    }
    // A valid comment fails without the catalog, and nothing is written.
    assert_eq!(call(Role::Customer, add(5, "")).await, Err(CommonError::Unavailable.into()));
    assert!(comments.emitted_ratings().await.is_empty());
}

#[actix::test]
async fn comment_needs_a_product_and_replays_under_its_key() {
    let comments = open_with(|runtime| catalog::open(runtime).unwrap().client);
    let tea = comments.product("Tea").await;
    let add = |product_id| AddComment { product_id, rating: 4, text: " Fine. ".to_owned() };
    let ada = as_user(UserId::new(), Role::Customer);
    let unknown = comments.client.call(ada.clone(), add(ProductId::new())).await;
    assert_eq!(unknown, Err(CommentsError::ProductNotFound));
    let keyed = ada.clone().with_key(IdempotencyKey::parse("k").unwrap());
    let first = comments.client.call(keyed.clone(), add(tea)).await.unwrap();
    assert_eq!((first.author.as_str(), first.text.as_str(), first.rating), ("Customer", "Fine.", 4));
    assert_eq!(comments.client.call(ada, add(tea)).await, Err(CommentsError::AlreadyCommented));
    let events = comments.store.outbox_read_after("test", 100).await.unwrap();
    let added: Vec<Comment> =
        events.iter().filter_map(|(_, e)| e.decode::<CommentAdded>().unwrap()).map(|added| added.comment).collect();
    assert_eq!((added, comments.emitted_ratings().await), (vec![first.clone()], vec![(4, 1)]));
    // Existing comments take the author's name.
    let (user_id, name) = (first.user_id.unwrap(), "Ada".to_owned());
    comments.deliver(&UserChanged { user_id, email: None, name, role: Role::Customer, email_verified: true }).await;
    assert_eq!(comments.list(tea, PageRequest::default()).await.items[0].author, "Ada");
    // A deleted product accepts no more comments, but a replay returns the first reply.
    comments.catalog.call(RequestContext::internal("test"), DeleteProduct { product_id: tea }).await.unwrap();
    let late = comments.client.call(as_user(UserId::new(), Role::Customer), add(tea)).await;
    assert_eq!(late, Err(CommentsError::ProductNotFound));
    assert_eq!(comments.client.call(keyed.clone(), add(tea)).await, Ok(first));
    assert!(keyed.is_replayed());
    // A user who was erased while the request was running leaves no trace.
    let gone = UserId::new();
    comments.deliver(&UserErased { user_id: gone, email: None }).await;
    let cup = comments.product("Cup").await;
    let refused = comments.client.call(as_user(gone, Role::Customer), add(cup)).await;
    assert_eq!(refused, Err(CommonError::Unauthenticated.into()));
}
