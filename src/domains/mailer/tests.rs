//! Tests of the mailer through its messages, against a fake mail server with faults, and against an independent one if
//! `MERCAT_TEST_SMTP` has its address (see `scripts/dev/smtp`).

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tempfile::TempDir;
use uuid::Uuid;

use super::delivery::MailerState;
use super::*;
use crate::contract::payments::{Invoice, InvoiceLine, InvoicePaid, InvoiceRefunded, InvoiceStatus};
use crate::contract::users::{
    CredentialChange, CredentialsChanged, EmailVerificationRequested, PasswordResetRequested, Register, UserChanged,
    UserErased, UserRegistered,
};
use crate::domains::users;
use crate::messaging::{
    Caller, Client, CommonError, Credential, DeliverEvents, Event, EventEnvelope, IdempotencyKey, Identity,
    RequestContext, Role,
};
use crate::settings::Settings;
use crate::store::Store;
use crate::store::query::*;
use crate::types::{
    Amount, ApiKeyId, Clock, Currency, EmailAddress, EmailId, EventId, FieldError, InvoiceId, Page, PageRequest, UserId,
};

struct TestMailer {
    mailer: Client<MailerActor>,
    state: Arc<MailerState>,
    store: Store,
    users: RunningDomain<UsersActor>,
    clock: Clock,
    dir: TempDir,
}

fn open_shop(change: impl FnOnce(&mut Settings)) -> TestMailer {
    open_in(TempDir::new().unwrap(), Clock::system(), change)
}

fn open_in(dir: TempDir, clock: Clock, change: impl FnOnce(&mut Settings)) -> TestMailer {
    let mut settings = Settings::for_test(dir.path());
    settings.public_url = Some("https://tea.example".to_owned());
    settings.shop.name = "Tea & Co".to_owned();
    change(&mut settings);
    let runtime = DomainRuntime::new(settings, clock.clone());
    let users = users::open(&runtime).unwrap();
    let (opened, state) = open_with_state(&runtime, users.client.clone()).unwrap();
    TestMailer { mailer: opened.client, store: opened.store, users, state, clock, dir }
}

/// Opens a mailer that sends through the mail server at `smtp`.
fn shop_with(smtp: &str) -> TestMailer {
    open_shop(|settings| settings.mailer.smtp = Some(smtp.to_owned()))
}

fn staff() -> RequestContext {
    RequestContext::internal("test")
}

fn email_to(to: &str) -> SendEmail {
    SendEmail { to: to.to_owned(), subject: "Caf\u{e9}".to_owned(), text: "Hello\n.\nYou".to_owned(), html: None }
}

fn event<E: Event>(shop: &TestMailer, event: &E) -> EventEnvelope {
    let data = serde_json::to_value(event).unwrap();
    EventEnvelope { id: EventId::new(), name: E::NAME.to_owned(), at: shop.clock.now(), data, trace: None }
}

impl TestMailer {
    async fn send(&self, to: &str) -> EmailId {
        self.mailer.call(staff(), email_to(to)).await.unwrap().id
    }

    async fn resend(&self, email_id: EmailId) -> Result<AcceptedEmail, MailerError> {
        self.mailer.call(staff(), ResendEmail { email_id }).await
    }

    async fn get(&self, email_id: EmailId) -> Email {
        self.mailer.call(staff(), GetEmail { email_id }).await.unwrap()
    }

    async fn list(&self) -> Vec<Email> {
        let page = PageRequest { limit: Some(100), cursor: None };
        self.mailer.call(staff(), ListEmails { page, ..Default::default() }).await.unwrap().items
    }

    /// Templates and recipients of all emails, in the order of acceptance.
    async fn sent(&self) -> Vec<(String, String)> {
        let mut all: Vec<_> =
            self.list().await.into_iter().map(|email| (email.template, email.to.to_string())).collect();
        all.reverse();
        all
    }

    async fn deliver(&self, events: Vec<EventEnvelope>) {
        self.mailer.call(staff(), DeliverEvents { events }).await.unwrap();
    }

    /// Published statuses and failure reasons of an email.
    async fn published(&self, id: EmailId) -> (Vec<EmailStatus>, Vec<String>) {
        let (mut statuses, mut reasons) = (Vec::new(), Vec::new());
        for (_, event) in self.store.outbox_read_after("test", 1_000).await.unwrap() {
            match (event.decode::<EmailChanged>().unwrap(), event.decode::<EmailFailed>().unwrap()) {
                (Some(changed), _) if changed.email_id == id => statuses.push(changed.status),
                (_, Some(failed)) if failed.email_id == id => reasons.push(failed.reason),
                _ => {}
            }
        }
        (statuses, reasons)
    }

    /// Published alerts that mail is held up.
    async fn alerts(&self) -> Vec<DeliveryStalled> {
        let events = self.store.outbox_read_after("test", 1_000).await.unwrap();
        events.iter().filter_map(|(_, event)| event.decode::<DeliveryStalled>().unwrap()).collect()
    }

    async fn run_after(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
        self.state.run_once().await;
    }

    fn registered(&self, user_id: UserId, email: &str) -> EventEnvelope {
        let (email, name, created_at) = (email.parse().unwrap(), "Ada".to_owned(), self.clock.now());
        event(self, &UserRegistered { user_id, email, name, role: Role::Customer, email_verified: true, created_at })
    }

    fn paid(&self, invoice: &Invoice, imported: bool) -> EventEnvelope {
        event(self, &InvoicePaid { invoice: invoice.clone(), hold: None, checkout: None, imported })
    }

    fn refunded(&self, invoice: &Invoice, amount: Amount, refunded: Amount) -> EventEnvelope {
        let invoice = Invoice { refunded, ..invoice.clone() };
        let (restock, hold, reason) = (false, None, "requested".to_owned());
        event(self, &InvoiceRefunded { invoice, amount, restock, lines: Vec::new(), hold, reason, imported: false })
    }
}

fn invoice(user_id: UserId, email: Option<&str>) -> Invoice {
    let line = InvoiceLine {
        description: "Tea <green>".to_owned(),
        product_id: None,
        quantity: 2,
        unit_price: 450,
        tax: None,
    };
    let at = Clock::system().now();
    Invoice {
        id: InvoiceId::new(),
        number: "INV-000042".to_owned(),
        user_id,
        status: InvoiceStatus::Paid,
        lines: vec![line],
        total: 900,
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
        email: email.map(|email| email.parse().unwrap()),
        processing: false,
        created_at: at,
        expires_at: at,
        paid_at: Some(at),
    }
}

fn pairs(emails: &[(&str, &str)]) -> Vec<(String, String)> {
    emails.iter().map(|(kind, to)| ((*kind).to_owned(), (*to).to_owned())).collect()
}

/// A fake mail server whose faults depend on the recipient: `refuse` is rejected permanently, `later` once; `lost` is
/// accepted, but the first reply is lost; `mute` gets no reply for a second; `slow` is accepted after a delay.
#[derive(Clone, Default)]
struct FakeSmtpServer {
    /// Recipient and content of each accepted email.
    emails: Arc<Mutex<Vec<(String, String)>>>,
    seen: Arc<Mutex<HashSet<String>>>,
    connections: Arc<AtomicUsize>,
    connections_max: Arc<AtomicUsize>,
    connections_total: Arc<AtomicUsize>,
    /// Reply to every `MAIL`, instead of 250.
    sender_refusal: Arc<Mutex<Option<&'static str>>>,
}

impl FakeSmtpServer {
    fn refuse_sender(&self, reply: Option<&'static str>) {
        *self.sender_refusal.lock() = reply;
    }

    fn start(port: u16) -> (Self, u16) {
        let (server, listener) = (Self::default(), TcpListener::bind(("127.0.0.1", port)).unwrap());
        let (handle, port) = (server.clone(), listener.local_addr().unwrap().port());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let handle = handle.clone();
                std::thread::spawn(move || {
                    handle.connections_total.fetch_add(1, Ordering::SeqCst);
                    handle
                        .connections_max
                        .fetch_max(handle.connections.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    let _ = handle.serve(stream);
                    handle.connections.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        (server, port)
    }

    fn is_first(&self, to: &str) -> bool {
        self.seen.lock().insert(to.to_owned())
    }

    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let (mut to, mut reply) = (String::new(), move |text: &str| stream.write_all(format!("{text}\r\n").as_bytes()));
        reply("220 test")?;
        while let Some(line) = lines.next() {
            let line = line?;
            let command = line.split([' ', ':']).next().unwrap_or_default().to_uppercase();
            match command.as_str() {
                "RCPT" => {
                    to = line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
                    if to.starts_with("mute") {
                        std::thread::sleep(Duration::from_secs(1));
                    }
                    match () {
                        () if to.starts_with("refuse") => reply(&format!("550 5.1.1 {to} is unknown here"))?,
                        () if to.starts_with("later") && self.is_first(&to) => reply("451 4.7.1 greylisted")?,
                        () => reply("250 ok")?,
                    }
                }
                "DATA" => {
                    reply("354 go on")?;
                    let mut content = String::new();
                    for line in lines.by_ref() {
                        let line = line?;
                        if line == "." {
                            break;
                        }
                        content.push_str(line.strip_prefix('.').unwrap_or(&line));
                        content.push('\n');
                    }
                    if to.starts_with("slow") {
                        std::thread::sleep(Duration::from_millis(60));
                    }
                    self.emails.lock().push((to.clone(), content));
                    if to.starts_with("lost") && self.is_first(&to) {
                        return Ok(());
                    }
                    reply("250 taken")?;
                }
                "MAIL" => reply(self.sender_refusal.lock().unwrap_or("250 ok"))?,
                "QUIT" => return reply("221 bye"),
                _ => reply("250 ok")?,
            }
        }
        Ok(())
    }

    fn accepted(&self) -> Vec<(String, String)> {
        self.emails.lock().clone()
    }
}

fn header<'a>(content: &'a str, name: &str) -> &'a str {
    let start = format!("{name}: ");
    content.lines().find_map(|line| line.strip_prefix(start.as_str())).unwrap_or_default()
}

#[actix::test]
async fn email_is_kept_without_a_mail_server() {
    let shop = open_shop(|_| ());
    let accepted =
        shop.mailer.call(staff(), SendEmail { html: Some("<b>Hi</b>".into()), ..email_to("Ada@example.com") });
    let AcceptedEmail { id, status } = accepted.await.unwrap();
    assert_eq!(status, EmailStatus::Kept);
    shop.run_after(3_600).await;
    let whole = shop.get(id).await;
    assert_eq!((whole.to.as_str(), whole.template.as_str(), whole.status), ("ada@example.com", "message", status));
    assert_eq!((whole.text.as_deref(), whole.html.as_deref()), (Some("Hello\n.\nYou"), Some("<b>Hi</b>")));
    assert_eq!(shop.list().await, [Email { text: None, html: None, ..whole }]);
    assert_eq!(shop.published(id).await, (vec![EmailStatus::Kept], vec![]));
    let none = shop.mailer.call(staff(), GetEmail { email_id: EmailId::new() }).await;
    assert_eq!(none, Err(MailerError::EmailNotFound));
}

#[actix::test]
async fn invalid_email_is_rejected_by_field() {
    let shop = open_shop(|_| ());
    let fine = email_to("ada@example.com");
    let cases = [
        ("to", "invalid_email", SendEmail { to: "ada".into(), ..fine.clone() }),
        ("to", "invalid_email", SendEmail { to: "a@example.com, b@example.com".into(), ..fine.clone() }),
        ("to", "invalid_email", SendEmail { to: "a@example.com\r\nBcc: b@example.com".into(), ..fine.clone() }),
        ("subject", "required", SendEmail { subject: "  ".into(), ..fine.clone() }),
        ("subject", "invalid", SendEmail { subject: "Hi\r\nBcc: b@example.com".into(), ..fine.clone() }),
        ("subject", "invalid", SendEmail { subject: "Hi\nBcc: b@example.com".into(), ..fine.clone() }),
        ("subject", "invalid", SendEmail { subject: "Hi\u{0}".into(), ..fine.clone() }),
        ("subject", "too_long", SendEmail { subject: "s".repeat(201), ..fine.clone() }),
        ("text", "required", SendEmail { text: String::new(), ..fine.clone() }),
        ("text", "too_long", SendEmail { text: "t".repeat(100_001), ..fine.clone() }),
        ("text", "too_long", SendEmail { text: format!("t{}", " ".repeat(100_000)), ..fine.clone() }),
        ("html", "too_long", SendEmail { html: Some("h".repeat(500_001)), ..fine.clone() }),
    ];
    for (field, code, request) in cases {
        let refused = shop.mailer.call(staff(), request).await;
        let Err(MailerError::Common(CommonError::ValidationFailed { errors })) = refused else {
            panic!("a bad {field} was taken: {refused:?}")
        };
        let FieldError { field: got, code: got_code, .. } = &errors[0];
        assert_eq!((got.as_ref(), got_code.as_ref()), (field, code));
    }
    assert_eq!(shop.list().await, []);
    let longest = SendEmail { subject: "s".repeat(200), text: "t".repeat(100_000), ..fine };
    assert!(shop.mailer.call(staff(), longest).await.is_ok());
}

#[actix::test]
async fn only_staff_sends_and_reads_emails() {
    let shop = open_shop(|_| ());
    let identity = |role| Identity::new(UserId::new(), role, Credential::ApiKey(ApiKeyId::new()));
    let as_user = |role| RequestContext::new(Caller::User { identity: identity(role), internal: true }, "r");
    let denied = || Err(MailerError::Common(CommonError::Forbidden));
    let customer = || as_user(Role::Customer);
    assert_eq!(shop.mailer.call(customer(), email_to("ada@example.com")).await, denied());
    assert_eq!(shop.mailer.call(customer(), ListEmails::default()).await, Err(CommonError::Forbidden.into()));
    assert_eq!(
        shop.mailer.call(customer(), GetEmail { email_id: EmailId::new() }).await,
        Err(CommonError::Forbidden.into())
    );
    assert!(shop.mailer.call(as_user(Role::Admin), email_to("ada@example.com")).await.is_ok());
}

#[actix::test]
async fn recipient_limit_applies_per_hour() {
    let shop = open_shop(|settings| settings.mailer.per_recipient_hour = 2);
    // Automatic emails do not count.
    shop.deliver(vec![shop.registered(UserId::new(), "ada@example.com")]).await;
    shop.send("ada@example.com").await;
    shop.clock.advance(Duration::from_secs(600));
    shop.send("ADA@example.com").await;
    let refused = shop.mailer.call(staff(), email_to("ada@example.com")).await;
    let Err(MailerError::RecipientLimit { max: 2, retry_after }) = refused else { panic!("{refused:?}") };
    assert!((2_990..=3_001).contains(&retry_after), "{retry_after}");
    shop.send("bob@example.com").await;
    shop.clock.advance(Duration::from_secs(retry_after));
    shop.send("ada@example.com").await;
    // Fifty in parallel: the limit is counted in the transaction that inserts.
    let fifty = (0..50).map(|_| shop.mailer.call(staff(), email_to("eve@example.com")));
    let fifty = futures_util::future::join_all(fifty).await;
    assert_eq!(fifty.iter().filter(|answer| answer.is_ok()).count(), 2);
}

#[actix::test]
async fn known_recipients_only_rejects_other_addresses() {
    let shop = open_shop(|settings| settings.mailer.known_recipients_only = true);
    let (ada, send) = (UserId::new(), |to: &str| shop.mailer.call(staff(), email_to(to)));
    assert_eq!(send("ada@example.com").await, Err(MailerError::UnknownRecipient));
    shop.deliver(vec![shop.registered(ada, "ada@example.com")]).await;
    assert!(send("Ada@example.com").await.is_ok());
    let (email, name) = (Some("new@example.com".parse().unwrap()), "Ada".to_owned());
    shop.deliver(vec![event(
        &shop,
        &UserChanged { user_id: ada, email, name, role: Role::Customer, email_verified: true },
    )])
    .await;
    assert_eq!(send("ada@example.com").await, Err(MailerError::UnknownRecipient));
    assert!(send("new@example.com").await.is_ok());
}

#[actix::test]
async fn requests_with_one_key_send_one_email() {
    let shop = open_shop(|_| ());
    let keyed = || staff().with_key(IdempotencyKey::internal("k"));
    let many =
        futures_util::future::join_all((0..20).map(|_| shop.mailer.call(keyed(), email_to("ada@example.com")))).await;
    assert!(many.iter().all(|answer| answer == &many[0]));
    assert_eq!(shop.list().await.len(), 1);
    let other = shop.mailer.call(keyed(), email_to("bob@example.com")).await;
    assert_eq!(other, Err(MailerError::Common(CommonError::IdempotencyKeyReused)));
}

#[actix::test]
async fn each_event_causes_one_email() {
    let shop = open_shop(|_| ());
    let (ada, email) = (UserId::new(), "ada@example.com");
    let address = || email.parse().unwrap();
    let bought = invoice(ada, None);
    let events = vec![
        shop.registered(ada, email),
        event(&shop, &EmailVerificationRequested { user_id: ada, email: address(), link_id: Uuid::nil() }),
        event(&shop, &PasswordResetRequested { user_id: ada, email: address(), link_id: Uuid::nil() }),
        shop.paid(&bought, false),
        shop.refunded(&bought, 100, 100),
        shop.refunded(&bought, 800, 900),
        shop.paid(&invoice(ada, None), true),
    ];
    shop.deliver(events.clone()).await;
    shop.deliver(events).await;
    // The same events under new ids: an invoice still has one receipt.
    shop.deliver(vec![shop.paid(&bought, false), shop.refunded(&bought, 100, 100)]).await;
    let kinds = ["welcome", "verify", "reset", "receipt", "refund", "refund"];
    assert_eq!(shop.sent().await, pairs(&kinds.map(|kind| (kind, email))));
    let mut texts = Vec::new();
    for email in shop.list().await.into_iter().rev() {
        let whole = shop.get(email.id).await;
        texts.push((whole.subject, whole.text.unwrap(), whole.html.unwrap()));
    }
    assert!(texts[0].1.contains("https://tea.example/"));
    let placeholder = model::token_placeholder(Uuid::nil());
    assert!(texts[1].1.contains(&format!("https://tea.example/verify?token={placeholder}\n")));
    assert!(texts[2].1.contains(&format!("https://tea.example/reset?token={placeholder}\n")));
    let (subject, text, html) = &texts[3];
    assert!(subject.contains("INV-000042"), "{subject}");
    assert!(text.contains("2 x Tea <green>\n    4.50 EUR each, 9.00 EUR\n") && text.contains("Total: 9.00 EUR"));
    assert!(html.contains("Tea &lt;green&gt;") && html.contains("9.00 EUR"));
    assert!(texts[4].1.contains("1.00 EUR of order INV-000042") && !texts[4].1.contains("full refund"));
    assert!(texts[5].1.contains("8.00 EUR of order INV-000042") && texts[5].1.contains("full refund"));
}

/// Registers an account and delivers the events that this causes.
async fn register(shop: &TestMailer, email: &str, name: &str) -> EmailVerificationRequested {
    let anyone = Caller::Anyone { address: "192.0.2.1".into(), internal: false };
    let request = Register { email: email.to_owned(), password: "a fine password".to_owned(), name: name.to_owned() };
    shop.users.client.call(RequestContext::new(anyone, "test"), request).await.unwrap();
    let events: Vec<(i64, EventEnvelope)> = shop.users.store.outbox_read_after("test", 1_000).await.unwrap();
    let events: Vec<EventEnvelope> = events.into_iter().map(|(_, event)| event).collect();
    let of_mailer = |event: &EventEnvelope| SUBSCRIPTIONS.contains(&event.name.as_str());
    shop.deliver(events.iter().filter(|event| of_mailer(event)).cloned().collect()).await;
    events.iter().filter_map(|event| event.decode().unwrap()).next_back().unwrap()
}

#[actix::test]
async fn s03_token_of_a_link_is_in_the_sent_email_only() {
    let (server, port) = FakeSmtpServer::start(0);
    let shop = shop_with(&format!("smtp://127.0.0.1:{port}"));
    let requested = register(&shop, "ada@example.com", "Ada").await;
    shop.state.run_once().await;
    let sent = server.accepted();
    let mailed = sent.iter().find(|(_, text)| text.contains("/verify?token")).unwrap().1.replace("=\n", "");
    assert!(mailed.contains("mcv_"), "{mailed}");
    let row = shop.list().await.into_iter().find(|email| email.template == "verify").unwrap();
    let stored = shop.get(row.id).await;
    assert!(!stored.text.unwrap().contains("mcv_") && !stored.html.unwrap().contains("mcv_"));
    assert!(!serde_json::to_string(&requested).unwrap().contains("mcv_"));
}

#[actix::test]
async fn kept_link_is_shown_to_administrators_only() {
    let shop = open_shop(|_| ());
    register(&shop, "ada@example.com", "Ada").await;
    let id = shop.list().await.into_iter().find(|email| email.template == "verify").unwrap().id;
    for (role, is_shown) in [(Role::Support, false), (Role::Manager, false), (Role::Admin, true)] {
        let identity = Identity::new(UserId::new(), role, Credential::ApiKey(ApiKeyId::new()));
        let ctx = RequestContext::new(Caller::User { identity, internal: false }, "test");
        let email = shop.mailer.call(ctx, GetEmail { email_id: id }).await.unwrap();
        assert_eq!(email.text.unwrap().contains("token=mcv_"), is_shown, "{role:?}");
    }
}

#[actix::test]
async fn link_that_ended_before_sending_is_not_sent() {
    let (server, port) = FakeSmtpServer::start(0);
    let shop = shop_with(&format!("smtp://127.0.0.1:{port}"));
    let (user_id, email) = (UserId::new(), "ada@example.com".parse().unwrap());
    shop.deliver(vec![event(&shop, &PasswordResetRequested { user_id, email, link_id: Uuid::nil() })]).await;
    shop.state.run_once().await;
    let emails = shop.list().await;
    assert_eq!((emails[0].status, server.accepted().len()), (EmailStatus::Failed, 0));
}

#[actix::test]
async fn s07_text_of_a_stranger_is_not_mailed() {
    let shop = open_shop(|_| ());
    let lure = "You won, see https://evil.example/x";
    register(&shop, "victim@example.com", lure).await;
    let user_id = UserId::new();
    let email: EmailAddress = "bob@example.com".parse().unwrap();
    let verified = |name: &str| UserRegistered {
        user_id,
        email: email.clone(),
        name: name.to_owned(),
        role: Role::Customer,
        email_verified: true,
        created_at: shop.clock.now(),
    };
    shop.deliver(vec![event(&shop, &verified("Claim at evil.example now"))]).await;
    for email in shop.list().await {
        let text = shop.get(email.id).await.text.unwrap();
        assert!(text.starts_with("Hello,") && !text.contains("evil"), "{text}");
    }
    assert_eq!(shop.list().await.len(), 3);
    for (name, salutation) in [("Ada Lind", "Ada Lind"), ("Dr. J. R. Lind", "Dr. J. R. Lind"), ("a@b.example", "")] {
        assert_eq!(model::salutation(name), salutation);
    }
}

#[actix::test]
async fn owner_is_told_of_changed_credentials() {
    let shop = open_shop(|_| ());
    let (user_id, email) = (UserId::new(), "ada@example.com".parse().unwrap());
    let change = CredentialsChanged { user_id, email, change: CredentialChange::Password, by_staff: false };
    shop.deliver(vec![event(&shop, &change)]).await;
    assert_eq!(shop.sent().await, pairs(&[("security", "ada@example.com")]));
}

#[actix::test]
async fn s07_automatic_emails_to_one_address_are_spread() {
    let (server, port) = FakeSmtpServer::start(0);
    let shop = open_shop(|settings| {
        settings.mailer.smtp = Some(format!("smtp://127.0.0.1:{port}"));
        settings.mailer.automatic_per_recipient_hour = 3;
    });
    let (user_id, email) = (UserId::new(), "ada@example.com".parse::<EmailAddress>().unwrap());
    let (change, by_staff) = (CredentialChange::ApiKey, false);
    let notice = CredentialsChanged { user_id, email, change, by_staff };
    let notices: Vec<EventEnvelope> = (0..5).map(|_| event(&shop, &notice)).collect();
    shop.deliver(notices).await;
    shop.state.run_once().await;
    assert_eq!(server.accepted().len(), 3);
    shop.send("ada@example.com").await;
    shop.run_after(1_800).await;
    assert_eq!(server.accepted().len(), 4, "an e-mail of staff has a limit of its own");
    shop.run_after(1_900).await;
    assert_eq!(server.accepted().len(), 6, "the others are sent later, and none is lost");
}

#[actix::test]
async fn imported_account_gets_no_welcome() {
    let shop = open_shop(|settings| settings.mailer.known_recipients_only = true);
    let mut old = shop.registered(UserId::new(), "ada@example.com");
    old.data["created_at"] = "2020-01-01T00:00:00Z".into();
    shop.deliver(vec![old]).await;
    assert_eq!(shop.sent().await, []);
    shop.send("ada@example.com").await;
}

#[actix::test]
async fn receipt_waits_until_the_address_is_known() {
    let shop = open_shop(|_| ());
    let (guest, ada) = (UserId::new(), UserId::new());
    // The events of payments arrive before those of users, so the address of Ada is unknown.
    shop.deliver(vec![
        shop.paid(&invoice(guest, Some("guest@example.com")), false),
        shop.paid(&invoice(ada, None), false),
    ])
    .await;
    assert_eq!(shop.sent().await, pairs(&[("receipt", "guest@example.com")]));
    shop.deliver(vec![shop.registered(ada, "ada@example.com")]).await;
    shop.deliver(vec![shop.paid(&invoice(ada, Some("office@example.com")), false)]).await;
    assert_eq!(
        shop.sent().await,
        pairs(&[
            ("receipt", "guest@example.com"),
            ("receipt", "ada@example.com"),
            ("welcome", "ada@example.com"),
            ("receipt", "office@example.com"),
        ])
    );
    // A pending email is dropped after a week.
    let bob = UserId::new();
    shop.deliver(vec![shop.paid(&invoice(bob, None), false)]).await;
    shop.clock.advance(Duration::from_secs(7 * 86_400 + 1));
    shop.state.purge().await.unwrap();
    shop.deliver(vec![shop.registered(bob, "bob@example.com")]).await;
    assert_eq!(shop.sent().await[4..], pairs(&[("welcome", "bob@example.com")]));
}

#[actix::test]
async fn erased_user_leaves_no_address_and_gets_no_email() {
    let (server, port) = FakeSmtpServer::start(0);
    let shop = shop_with(&format!("smtp://127.0.0.1:{port}"));
    let (ada, bob) = (UserId::new(), UserId::new());
    shop.deliver(vec![shop.registered(ada, "ada@example.com"), shop.registered(bob, "bob@example.com")]).await;
    shop.state.run_once().await;
    // One email to an invoice address, which stays queued, and one to another user.
    shop.deliver(vec![shop.paid(&invoice(ada, Some("later-ada@example.com")), false)]).await;
    shop.state.run_once().await;
    shop.send("bob@example.com").await;
    shop.state.run_once().await;
    let queued = shop.list().await.into_iter().find(|email| email.status == EmailStatus::Queued).unwrap();
    let erased = UserErased { user_id: ada, email: Some("ada@example.com".parse().unwrap()) };
    shop.deliver(vec![event(&shop, &erased)]).await;
    shop.run_after(60).await;
    let emails = shop.list().await;
    let whole = serde_json::to_string(&emails).unwrap();
    assert!(!whole.contains("ada@example.com") && whole.contains("erased@example.invalid"), "{whole}");
    for email in emails.iter().filter(|email| email.to.as_str() == "erased@example.invalid") {
        let email = shop.get(email.id).await;
        assert_eq!((email.text, email.html, email.subject.as_str()), (None, None, "(erased)"));
    }
    assert_eq!(emails.iter().filter(|email| email.to.as_str() == "bob@example.com").count(), 2);
    let abandoned = shop.get(queued.id).await;
    assert_eq!(
        (abandoned.status, abandoned.template.as_str(), abandoned.attempts),
        (EmailStatus::Failed, "receipt", 1)
    );
    // Staff is not alerted, since nothing needs to be done.
    assert_eq!(shop.published(queued.id).await, (vec![EmailStatus::Queued, EmailStatus::Failed], vec![]));
    assert!(server.accepted().iter().all(|(to, _)| to != "later-ada@example.com"));
    // Later events about the user cause no email.
    shop.deliver(vec![shop.refunded(&invoice(ada, None), 1, 1)]).await;
    assert_eq!(shop.list().await.len(), emails.len());
}

#[actix::test]
async fn email_list_is_paged_filtered_and_newest_first() {
    let shop = open_shop(|_| ());
    for n in 0..25 {
        shop.send(&format!("{}@example.com", if n % 5 == 0 { "ada" } else { "bob" })).await;
    }
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let page = PageRequest { limit: Some(10), cursor };
        let Page { items, next } = shop.mailer.call(staff(), ListEmails { page, ..Default::default() }).await.unwrap();
        seen.extend(items);
        cursor = next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen.iter().map(|email| email.id).collect::<HashSet<_>>().len(), 25);
    assert!(seen.windows(2).all(|pair| (pair[0].created_at, pair[0].id) > (pair[1].created_at, pair[1].id)));
    let to_ada = ListEmails { to: Some("ADA@example.com".into()), ..Default::default() };
    assert_eq!(shop.mailer.call(staff(), to_ada).await.unwrap().items.len(), 5);
    let failed = ListEmails { status: Some(EmailStatus::Failed), ..Default::default() };
    assert_eq!(shop.mailer.call(staff(), failed).await.unwrap().items, []);
    assert!(shop.mailer.call(staff(), ListEmails { to: Some("ada".into()), ..Default::default() }).await.is_err());
}

#[actix::test]
async fn email_is_sent_rejected_or_retried() {
    let (server, port) = FakeSmtpServer::start(0);
    let shop = shop_with(&format!("smtp://127.0.0.1:{port}"));
    let (fine, refused, later) = (
        shop.send("ada@example.com").await,
        shop.send("refuse@example.com").await,
        shop.send("later@example.com").await,
    );
    shop.state.run_once().await;
    let email = shop.get(fine).await;
    assert_eq!(
        (email.status, email.attempts, email.last_error, email.next_attempt_at),
        (EmailStatus::Sent, 1, None, None)
    );
    assert!(email.sent_at.is_some());
    let (_, content) = server.accepted().into_iter().find(|(to, _)| to == "ada@example.com").unwrap();
    assert_eq!(header(&content, "Message-ID"), format!("<{fine}@example.com>"));
    // The name of the shop, encoded for a header.
    assert_eq!(header(&content, "From"), "=?utf-8?b?VGVhICYgQ28=?= <shop@example.com>");
    assert_eq!(header(&content, "Subject"), "=?utf-8?b?Q2Fmw6k=?=");
    assert!(content.trim_end().ends_with("Hello\n.\nYou"), "{content}");
    assert_eq!(shop.published(fine).await, (vec![EmailStatus::Queued, EmailStatus::Sent], vec![]));
    let email = shop.get(refused).await;
    assert_eq!((email.status, email.attempts), (EmailStatus::Failed, 1));
    assert!(email.last_error.as_ref().unwrap().contains("unknown here"), "{:?}", email.last_error);
    let (statuses, reasons) = shop.published(refused).await;
    assert_eq!((statuses, reasons), (vec![EmailStatus::Queued, EmailStatus::Failed], vec![email.last_error.unwrap()]));
    let email = shop.get(later).await;
    assert_eq!((email.status, email.attempts), (EmailStatus::Queued, 1));
    assert!(email.last_error.unwrap().contains("greylisted"));
    shop.run_after(12).await;
    assert_eq!((shop.get(later).await.status, shop.get(later).await.attempts), (EmailStatus::Sent, 2));
}

#[actix::test]
async fn email_with_lost_reply_is_resent_with_the_same_id() {
    let (server, port) = FakeSmtpServer::start(0);
    let shop = shop_with(&format!("smtp://127.0.0.1:{port}"));
    let id = shop.send("lost@example.com").await;
    shop.state.run_once().await;
    assert_eq!((shop.get(id).await.status, server.accepted().len()), (EmailStatus::Queued, 1));
    shop.run_after(12).await;
    assert_eq!(shop.get(id).await.status, EmailStatus::Sent);
    let ids: Vec<String> = server.accepted().iter().map(|(_, email)| header(email, "Message-ID").to_owned()).collect();
    assert_eq!(ids, [format!("<{id}@example.com>"), format!("<{id}@example.com>")]);
}

#[actix::test]
async fn claimed_email_is_sent_after_its_claim_expires() {
    let (server, port) = FakeSmtpServer::start(0);
    let shop = open_shop(|_| ());
    let sends = |settings: &mut Settings| settings.mailer.smtp = Some(format!("smtp://127.0.0.1:{port}"));
    // As after a crash of a worker: accepted and claimed, but never sent.
    let (now, id) = (shop.clock.now(), shop.send("ada@example.com").await);
    let until = now.saturating_add(Duration::from_secs(40));
    let claim = move |tx: &mut crate::store::Tx<'_>| {
        let queued = (schema::email::status.eq("queued"), schema::email::next_attempt_at.eq(now));
        diesel::update(schema::email::table.find(id)).set(queued).execute(tx.conn)?;
        Ok::<_, CommonError>(store::claim(tx.conn, tx.now, until)?.map(|message| message.id))
    };
    assert_eq!(shop.store.write(claim).await, Ok(Some(id)));
    assert_eq!(
        shop.store.write(move |tx| Ok::<_, CommonError>(store::claim(tx.conn, tx.now, until)?.is_some())).await,
        Ok(false)
    );
    let TestMailer { dir, clock, .. } = shop;
    let shop = open_in(dir, clock, sends);
    shop.state.run_once().await;
    assert_eq!(server.accepted().len(), 0);
    shop.run_after(41).await;
    assert_eq!((shop.get(id).await.status, server.accepted().len()), (EmailStatus::Sent, 1));
}

#[actix::test]
async fn unreachable_server_loses_no_email() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let shop = shop_with(&format!("smtp://127.0.0.1:{port}"));
    let id = shop.send("ada@example.com").await;
    shop.state.run_once().await;
    let email = shop.get(id).await;
    assert_eq!((email.status, email.attempts), (EmailStatus::Queued, 1));
    assert!(email.last_error.is_some() && email.next_attempt_at.is_some_and(|at| at > shop.clock.now()));
    let (server, _) = FakeSmtpServer::start(port);
    shop.run_after(5).await;
    assert_eq!(shop.get(id).await.attempts, 1, "not before its time");
    shop.run_after(7).await;
    assert_eq!((shop.get(id).await.status, server.accepted().len()), (EmailStatus::Sent, 1));
}

#[actix::test]
async fn email_fails_once_after_four_days() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let shop = shop_with(&format!("smtp://127.0.0.1:{port}"));
    let id = shop.send("ada@example.com").await;
    let accepted = shop.clock.now();
    shop.state.run_once().await;
    let email = loop {
        let email = shop.get(id).await;
        let Some(next) = email.next_attempt_at else { break email };
        assert_eq!(email.status, EmailStatus::Queued);
        shop.clock.advance(next.duration_since(shop.clock.now()));
        shop.state.run_once().await;
    };
    assert_eq!((email.status, email.next_attempt_at), (EmailStatus::Failed, None));
    assert!(shop.clock.now().duration_since(accepted) > Duration::from_secs(4 * 86_400));
    shop.run_after(86_400).await;
    assert_eq!(shop.get(id).await.attempts, email.attempts);
    let (statuses, reasons) = shop.published(id).await;
    assert_eq!((statuses, reasons), (vec![EmailStatus::Queued, EmailStatus::Failed], vec![email.last_error.unwrap()]));
}

#[actix::test]
async fn refused_shop_loses_no_email_and_alerts_staff() {
    let (server, port) = FakeSmtpServer::start(0);
    let shop = shop_with(&format!("smtp://127.0.0.1:{port}"));
    server.refuse_sender(Some("550 5.7.1 the sender is not verified"));
    let id = shop.send("ada@example.com").await;
    let other = shop.send("bob@example.com").await;
    shop.state.run_once().await;
    let email = shop.get(id).await;
    assert_eq!((email.status, email.attempts), (EmailStatus::Queued, 1));
    assert!(email.last_error.unwrap().contains("not verified"));
    for _ in 0..5 {
        shop.run_after(3 * 3_600).await;
    }
    let alerts = shop.alerts().await;
    assert_eq!((alerts.len(), alerts[0].queued), (1, 2), "{alerts:?}");
    assert!(alerts[0].reason.contains("not verified"), "{alerts:?}");
    for _ in 0..3 {
        shop.run_after(5 * 3_600).await;
    }
    let alerts = shop.alerts().await;
    assert_eq!((alerts.len(), alerts[1].since), (2, alerts[0].since), "repeated after a day: {alerts:?}");
    // The settings are repaired: the next attempt delivers both, and ends the alert.
    server.refuse_sender(None);
    shop.run_after(5 * 3_600).await;
    assert_eq!((shop.get(id).await.status, shop.get(other).await.status), (EmailStatus::Sent, EmailStatus::Sent));
    server.refuse_sender(Some("550 5.4.5 daily limit exceeded"));
    shop.send("eve@example.com").await;
    shop.state.run_once().await;
    assert_eq!(shop.alerts().await.len(), 3);
}

#[actix::test]
async fn staff_sends_an_email_again() {
    let (server, port) = FakeSmtpServer::start(0);
    let shop = open_shop(|_| ());
    let kept = shop.send("ada@example.com").await;
    let refused = shop.send("refuse@example.com").await;
    assert_eq!(shop.resend(kept).await, Err(MailerError::NoMailServer));
    assert_eq!(shop.resend(EmailId::new()).await, Err(MailerError::EmailNotFound));
    let TestMailer { dir, clock, .. } = shop;
    let shop = open_in(dir, clock, |settings| settings.mailer.smtp = Some(format!("smtp://127.0.0.1:{port}")));
    for id in [kept, refused] {
        assert_eq!(shop.resend(id).await, Ok(AcceptedEmail { id, status: EmailStatus::Queued }));
    }
    shop.state.run_once().await;
    assert_eq!((shop.get(kept).await.status, shop.get(refused).await.status), (EmailStatus::Sent, EmailStatus::Failed));
    // A rejected one is attempted again, with all attempts left.
    shop.resend(refused).await.unwrap();
    assert_eq!((shop.get(refused).await.status, shop.get(refused).await.attempts), (EmailStatus::Queued, 0));
    // Of a sent one a copy is sent: mail clients hide a second email with the same Message-ID. Once per key.
    let once = || staff().with_key(IdempotencyKey::internal("k"));
    let copy = shop.mailer.call(once(), ResendEmail { email_id: kept }).await.unwrap();
    assert_ne!(copy.id, kept);
    assert_eq!(shop.mailer.call(once(), ResendEmail { email_id: kept }).await.unwrap(), copy);
    shop.state.run_once().await;
    let (first, second) = (shop.get(kept).await, shop.get(copy.id).await);
    assert_eq!((&first.to, &first.subject, &first.text), (&second.to, &second.subject, &second.text));
    assert_eq!(server.accepted().len(), 2);
}

#[actix::test]
async fn email_with_a_link_or_without_recipient_is_not_resent() {
    let (_, port) = FakeSmtpServer::start(0);
    let shop = shop_with(&format!("smtp://127.0.0.1:{port}"));
    let (user_id, email) = (UserId::new(), "ada@example.com".parse::<EmailAddress>().unwrap());
    let request = PasswordResetRequested { user_id, email: email.clone(), link_id: Uuid::nil() };
    shop.deliver(vec![shop.registered(user_id, "ada@example.com"), event(&shop, &request)]).await;
    let id = shop.list().await.into_iter().find(|email| email.template == "reset").unwrap().id;
    assert_eq!(shop.resend(id).await, Err(MailerError::EmailNotResendable));
    shop.deliver(vec![event(&shop, &UserErased { user_id, email: Some(email) })]).await;
    for email in shop.list().await {
        assert_eq!(shop.resend(email.id).await, Err(MailerError::EmailNotResendable));
    }
}

#[actix::test]
async fn emails_share_a_few_connections() {
    let (server, port) = FakeSmtpServer::start(0);
    let shop = shop_with(&format!("smtp://127.0.0.1:{port}"));
    for n in 0..24 {
        shop.send(&format!("slow{n}@example.com")).await;
    }
    shop.state.run_once().await;
    let taken: HashSet<String> = server.accepted().into_iter().map(|(to, _)| to).collect();
    assert_eq!((taken.len(), server.accepted().len()), (24, 24));
    let (most, connections_total) =
        (server.connections_max.load(Ordering::SeqCst), server.connections_total.load(Ordering::SeqCst));
    assert!((2..=4).contains(&most) && connections_total < 24, "{most} at once, {connections_total} in all");
}

#[actix::test]
async fn late_reply_is_not_read_for_the_next_email() {
    let (server, port) = FakeSmtpServer::start(0);
    let smtp = smtp::Smtp::parse(&format!("smtp://127.0.0.1:{port}")).unwrap();
    let sender = smtp::Sender::new("Tea", &"shop@example.com".parse().unwrap()).unwrap();
    let message = |to: &str| {
        let (id, to, created_at) = (EmailId::new(), to.parse().unwrap(), Clock::system().now());
        sender
            .message(smtp::OutgoingMessage {
                id,
                to,
                subject: "s".into(),
                template: "welcome".into(),
                text: "t".into(),
                html: None,
                created_at,
                link_id: None,
            })
            .unwrap()
    };
    let (mut line, limit) = (None, Duration::from_millis(300));
    assert_eq!(smtp.send(&mut line, &message("ada@example.com"), limit).await, model::SendOutcome::Sent);
    assert!(line.is_some());
    let late = smtp.send(&mut line, &message("mute@example.com"), limit).await;
    assert!(matches!(late, model::SendOutcome::Transient(_)) && line.is_none(), "{late:?}");
    let refused = smtp.send(&mut line, &message("refuse@example.com"), limit).await;
    assert!(matches!(refused, model::SendOutcome::Rejected(_)), "{refused:?}");
    assert_eq!(server.accepted().len(), 1);
}

#[actix::test]
async fn invalid_server_url_stops_the_start() {
    let dir = TempDir::new().unwrap();
    let mut settings = Settings::for_test(dir.path());
    settings.mailer.smtp = Some("smtp://ada:hunter2@email.example.com:port".to_owned());
    let refused = open(&DomainRuntime::new(settings, Clock::system()), Client::disabled("users"))
        .map(drop)
        .unwrap_err()
        .to_string();
    assert!(refused.contains("mailer.smtp") && refused.contains("port") && !refused.contains("hunter2"), "{refused}");
    assert!(!refused.contains("database"), "{refused}");
}

/// Runs against an independent mail server, if it is available.
#[actix::test]
async fn independent_mail_server_accepts_rejects_and_delays() {
    let (Ok(smtp), Ok(maildir)) = (std::env::var("MERCAT_TEST_SMTP"), std::env::var("MERCAT_TEST_SMTP_MAILDIR")) else {
        // Bypasses the output capture of the test harness, so that it is always visible.
        let mut seen = std::io::stderr();
        let _ = writeln!(seen, "skipped: no mail server is named by MERCAT_TEST_SMTP (see scripts/dev/smtp)");
        return;
    };
    let shop = shop_with(&smtp);
    let run = uuid::Uuid::now_v7().simple().to_string();
    let html = SendEmail { html: Some("<p>Caf\u{e9}</p>".into()), ..email_to(&format!("ada-{run}@example.com")) };
    let fine = shop.mailer.call(staff(), html).await.unwrap().id;
    let refused = shop.send(&format!("refuse-{run}@example.com")).await;
    let later = shop.send(&format!("later-{run}@example.com")).await;
    let mut plain = Vec::new();
    for n in 0..20 {
        plain.push(shop.send(&format!("m{n}-{run}@example.com")).await);
    }
    shop.state.run_once().await;
    assert_eq!(shop.get(fine).await.status, EmailStatus::Sent);
    for id in plain {
        assert_eq!(shop.get(id).await.status, EmailStatus::Sent);
    }
    let email = shop.get(refused).await;
    assert_eq!((email.status, email.attempts), (EmailStatus::Failed, 1), "{:?}", email.last_error);
    let email = shop.get(later).await;
    assert_eq!((email.status, email.attempts), (EmailStatus::Queued, 1), "{:?}", email.last_error);
    shop.run_after(12).await;
    assert_eq!(shop.get(later).await.status, EmailStatus::Sent);
    let files = std::fs::read_dir(std::path::Path::new(&maildir).join("new")).unwrap();
    let emails: Vec<String> = files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    let with = |id: EmailId| emails.iter().filter(|email| email.contains(&format!("Message-ID: <{id}@"))).count();
    assert_eq!((with(fine), with(refused), with(later)), (1, 0, 1));
}
