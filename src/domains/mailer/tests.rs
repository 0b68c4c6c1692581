//! The mailer through its messages, against a small mail server of our own that can be told to misbehave, and, when
//! the environment names one, against a real one written by others (see `scripts/dev/smtp`).

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;

use super::delivery::MailerState;
use super::*;
use crate::contract::payments::{Invoice, InvoiceLine, InvoicePaid, InvoiceRefunded, InvoiceStatus};
use crate::contract::users::{
    EmailVerificationRequested, PasswordResetRequested, UserChanged, UserErased, UserRegistered,
};
use crate::messaging::{
    Caller, Client, CommonError, Credential, DeliverEvents, Event, EventEnvelope, IdempotencyKey, Identity,
    RequestContext, Role,
};
use crate::settings::Settings;
use crate::store::Store;
use crate::store::query::*;
use crate::types::{
    Amount, ApiKeyId, Clock, Currency, EmailId, EventId, FieldError, InvoiceId, Page, PageRequest, UserId,
};

struct Shop {
    mailer: Client<MailerActor>,
    state: Arc<MailerState>,
    store: Store,
    clock: Clock,
    dir: TempDir,
}

fn open_shop(change: impl FnOnce(&mut Settings)) -> Shop {
    open_in(TempDir::new().unwrap(), Clock::system(), change)
}

fn open_in(dir: TempDir, clock: Clock, change: impl FnOnce(&mut Settings)) -> Shop {
    let mut settings = Settings::for_test(dir.path());
    settings.public_url = Some("https://tea.example".to_owned());
    settings.shop.name = "Tea & Co".to_owned();
    change(&mut settings);
    let (opened, state) = open_with_room(&DomainRuntime::new(settings, clock.clone())).unwrap();
    Shop { mailer: opened.client, store: opened.store, state, clock, dir }
}

/// A shop that sends through the mail server at `smtp`.
fn shop_with(smtp: &str) -> Shop {
    open_shop(|settings| settings.mailer.smtp = Some(smtp.to_owned()))
}

fn staff() -> RequestContext {
    RequestContext::internal("test")
}

fn mail(to: &str) -> SendEmail {
    SendEmail { to: to.to_owned(), subject: "Caf\u{e9}".to_owned(), text: "Hello\n.\nYou".to_owned(), html: None }
}

fn news<E: Event>(shop: &Shop, event: &E) -> EventEnvelope {
    let data = serde_json::to_value(event).unwrap();
    EventEnvelope { id: EventId::new(), name: E::NAME.to_owned(), at: shop.clock.now(), data, trace: None }
}

impl Shop {
    async fn send(&self, to: &str) -> EmailId {
        self.mailer.call(staff(), mail(to)).await.unwrap().id
    }

    async fn get(&self, email_id: EmailId) -> Email {
        self.mailer.call(staff(), GetEmail { email_id }).await.unwrap()
    }

    async fn list(&self) -> Vec<Email> {
        let page = PageRequest { limit: Some(100), cursor: None };
        self.mailer.call(staff(), ListEmails { page, ..Default::default() }).await.unwrap().items
    }

    /// Kinds and addresses of all mails, the first accepted first.
    async fn letters(&self) -> Vec<(String, String)> {
        let mut all: Vec<_> = self.list().await.into_iter().map(|mail| (mail.template, mail.to.to_string())).collect();
        all.reverse();
        all
    }

    async fn tell(&self, events: Vec<EventEnvelope>) {
        self.mailer.call(staff(), DeliverEvents { events }).await.unwrap();
    }

    /// What the mailer announced: for each mail's change its status, for each given up its reason.
    async fn announced(&self, id: EmailId) -> (Vec<EmailStatus>, Vec<String>) {
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

    async fn round_after(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
        self.state.round().await;
    }

    fn registered(&self, user_id: UserId, email: &str) -> EventEnvelope {
        let (email, name, created_at) = (email.parse().unwrap(), "Ada".to_owned(), self.clock.now());
        news(self, &UserRegistered { user_id, email, name, role: Role::Customer, created_at })
    }

    fn paid(&self, invoice: &Invoice, imported: bool) -> EventEnvelope {
        news(self, &InvoicePaid { invoice: invoice.clone(), hold: None, checkout: None, imported })
    }

    fn refunded(&self, invoice: &Invoice, amount: Amount, refunded: Amount) -> EventEnvelope {
        let invoice = Invoice { refunded, ..invoice.clone() };
        let (restock, hold, reason) = (false, None, "requested".to_owned());
        news(self, &InvoiceRefunded { invoice, amount, restock, lines: Vec::new(), hold, reason, imported: false })
    }
}

fn invoice(user_id: UserId, email: Option<&str>) -> Invoice {
    let line = InvoiceLine { description: "Tea <green>".to_owned(), product_id: None, quantity: 2, unit_price: 450 };
    let at = Clock::system().now();
    Invoice {
        id: InvoiceId::new(),
        number: "INV-000042".to_owned(),
        user_id,
        status: InvoiceStatus::Paid,
        lines: vec![line],
        total: 900,
        refunded: 0,
        currency: Currency::EUR,
        email: email.map(|email| email.parse().unwrap()),
        processing: false,
        created_at: at,
        expires_at: at,
        paid_at: Some(at),
    }
}

fn pairs(letters: &[(&str, &str)]) -> Vec<(String, String)> {
    letters.iter().map(|(kind, to)| ((*kind).to_owned(), (*to).to_owned())).collect()
}

/// A mail server that does what the recipient's name asks for: `refuse` is refused for good, `later` the first time,
/// `lost` is taken the first time but the yes is never said, `mute` gets no answer for a second, `slow` takes a while.
#[derive(Clone, Default)]
struct Server {
    /// Recipient and content of every mail it took.
    mails: Arc<Mutex<Vec<(String, String)>>>,
    met: Arc<Mutex<HashSet<String>>>,
    guests: Arc<AtomicUsize>,
    most_guests: Arc<AtomicUsize>,
    visits: Arc<AtomicUsize>,
}

impl Server {
    fn open(port: u16) -> (Self, u16) {
        let (server, listener) = (Self::default(), TcpListener::bind(("127.0.0.1", port)).unwrap());
        let (own, port) = (server.clone(), listener.local_addr().unwrap().port());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let own = own.clone();
                std::thread::spawn(move || {
                    own.visits.fetch_add(1, Ordering::SeqCst);
                    own.most_guests.fetch_max(own.guests.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    let _ = own.talk(stream);
                    own.guests.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        (server, port)
    }

    fn is_first(&self, to: &str) -> bool {
        self.met.lock().unwrap().insert(to.to_owned())
    }

    fn talk(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let (mut to, mut say) = (String::new(), move |text: &str| stream.write_all(format!("{text}\r\n").as_bytes()));
        say("220 test")?;
        while let Some(line) = lines.next() {
            let line = line?;
            let word = line.split([' ', ':']).next().unwrap_or_default().to_uppercase();
            match word.as_str() {
                "RCPT" => {
                    to = line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
                    if to.starts_with("mute") {
                        std::thread::sleep(Duration::from_secs(1));
                    }
                    match () {
                        () if to.starts_with("refuse") => say(&format!("550 5.1.1 {to} is unknown here"))?,
                        () if to.starts_with("later") && self.is_first(&to) => say("451 4.7.1 greylisted")?,
                        () => say("250 ok")?,
                    }
                }
                "DATA" => {
                    say("354 go on")?;
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
                    self.mails.lock().unwrap().push((to.clone(), content));
                    if to.starts_with("lost") && self.is_first(&to) {
                        return Ok(());
                    }
                    say("250 taken")?;
                }
                "QUIT" => return say("221 bye"),
                _ => say("250 ok")?,
            }
        }
        Ok(())
    }

    fn taken(&self) -> Vec<(String, String)> {
        self.mails.lock().unwrap().clone()
    }
}

fn header<'a>(content: &'a str, name: &str) -> &'a str {
    let start = format!("{name}: ");
    content.lines().find_map(|line| line.strip_prefix(start.as_str())).unwrap_or_default()
}

#[actix::test]
async fn without_a_mail_server_mail_is_kept_to_be_read() {
    let shop = open_shop(|_| ());
    let accepted = shop.mailer.call(staff(), SendEmail { html: Some("<b>Hi</b>".into()), ..mail("Ada@example.com") });
    let AcceptedEmail { id, status } = accepted.await.unwrap();
    assert_eq!(status, EmailStatus::Kept);
    shop.round_after(3_600).await;
    let whole = shop.get(id).await;
    assert_eq!((whole.to.as_str(), whole.template.as_str(), whole.status), ("ada@example.com", "message", status));
    assert_eq!((whole.text.as_deref(), whole.html.as_deref()), (Some("Hello\n.\nYou"), Some("<b>Hi</b>")));
    assert_eq!(shop.list().await, [Email { text: None, html: None, ..whole }]);
    assert_eq!(shop.announced(id).await, (vec![EmailStatus::Kept], vec![]));
    let none = shop.mailer.call(staff(), GetEmail { email_id: EmailId::new() }).await;
    assert_eq!(none, Err(MailerError::EmailNotFound));
}

#[actix::test]
async fn what_cannot_be_a_mail_is_refused_by_its_field() {
    let shop = open_shop(|_| ());
    let fine = mail("ada@example.com");
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
        let FieldError { field: got, code: word, .. } = &errors[0];
        assert_eq!((got.as_ref(), word.as_ref()), (field, code));
    }
    assert_eq!(shop.list().await, []);
    let longest = SendEmail { subject: "s".repeat(200), text: "t".repeat(100_000), ..fine };
    assert!(shop.mailer.call(staff(), longest).await.is_ok());
}

#[actix::test]
async fn only_staff_sends_and_reads_mail() {
    let shop = open_shop(|_| ());
    let identity = |role| Identity { user_id: UserId::new(), role, credential: Credential::ApiKey(ApiKeyId::new()) };
    let as_user = |role| RequestContext::new(Caller::User { identity: identity(role), internal: true }, "r");
    let denied = || Err(MailerError::Common(CommonError::Forbidden));
    let customer = || as_user(Role::Customer);
    assert_eq!(shop.mailer.call(customer(), mail("ada@example.com")).await, denied());
    assert_eq!(shop.mailer.call(customer(), ListEmails::default()).await, Err(CommonError::Forbidden.into()));
    assert_eq!(
        shop.mailer.call(customer(), GetEmail { email_id: EmailId::new() }).await,
        Err(CommonError::Forbidden.into())
    );
    assert!(shop.mailer.call(as_user(Role::Admin), mail("ada@example.com")).await.is_ok());
}

#[actix::test]
async fn one_person_gets_only_so_many_mails_an_hour() {
    let shop = open_shop(|settings| settings.mailer.per_recipient_hour = 2);
    // What the shop writes by itself does not count.
    shop.tell(vec![shop.registered(UserId::new(), "ada@example.com")]).await;
    shop.send("ada@example.com").await;
    shop.clock.advance(Duration::from_secs(600));
    shop.send("ADA@example.com").await;
    let refused = shop.mailer.call(staff(), mail("ada@example.com")).await;
    let Err(MailerError::RecipientLimit { max: 2, retry_after }) = refused else { panic!("{refused:?}") };
    assert!((2_990..=3_001).contains(&retry_after), "{retry_after}");
    shop.send("bob@example.com").await;
    shop.clock.advance(Duration::from_secs(retry_after));
    shop.send("ada@example.com").await;
    // Fifty at once: the limit holds because it is counted where it is written.
    let fifty = (0..50).map(|_| shop.mailer.call(staff(), mail("eve@example.com")));
    let fifty = futures_util::future::join_all(fifty).await;
    assert_eq!(fifty.iter().filter(|answer| answer.is_ok()).count(), 2);
}

#[actix::test]
async fn a_shop_that_writes_to_its_users_only_refuses_strangers() {
    let shop = open_shop(|settings| settings.mailer.known_recipients_only = true);
    let (ada, send) = (UserId::new(), |to: &str| shop.mailer.call(staff(), mail(to)));
    assert_eq!(send("ada@example.com").await, Err(MailerError::UnknownRecipient));
    shop.tell(vec![shop.registered(ada, "ada@example.com")]).await;
    assert!(send("Ada@example.com").await.is_ok());
    let (email, name) = (Some("new@example.com".parse().unwrap()), "Ada".to_owned());
    shop.tell(vec![news(&shop, &UserChanged { user_id: ada, email, name, role: Role::Customer })]).await;
    assert_eq!(send("ada@example.com").await, Err(MailerError::UnknownRecipient));
    assert!(send("new@example.com").await.is_ok());
}

#[actix::test]
async fn the_same_wish_under_one_key_is_one_mail() {
    let shop = open_shop(|_| ());
    let keyed = || staff().with_key(IdempotencyKey::own("k"));
    let many =
        futures_util::future::join_all((0..20).map(|_| shop.mailer.call(keyed(), mail("ada@example.com")))).await;
    assert!(many.iter().all(|answer| answer == &many[0]));
    assert_eq!(shop.list().await.len(), 1);
    let other = shop.mailer.call(keyed(), mail("bob@example.com")).await;
    assert_eq!(other, Err(MailerError::Common(CommonError::IdempotencyKeyReused)));
}

#[actix::test]
async fn the_shop_writes_what_events_ask_for_once() {
    let shop = open_shop(|_| ());
    let (ada, email, name) = (UserId::new(), "ada@example.com", "Ada".to_owned());
    let address = || email.parse().unwrap();
    let bought = invoice(ada, None);
    let events = vec![
        shop.registered(ada, email),
        news(
            &shop,
            &EmailVerificationRequested { user_id: ada, email: address(), name: name.clone(), token: "v+1".into() },
        ),
        news(&shop, &PasswordResetRequested { user_id: ada, email: address(), name, token: "r1".into() }),
        shop.paid(&bought, false),
        shop.refunded(&bought, 100, 100),
        shop.refunded(&bought, 800, 900),
        shop.paid(&invoice(ada, None), true),
    ];
    shop.tell(events.clone()).await;
    shop.tell(events).await;
    // Told under new ids too, as by a sender that lost its memory: an invoice still has one receipt.
    shop.tell(vec![shop.paid(&bought, false), shop.refunded(&bought, 100, 100)]).await;
    let kinds = ["welcome", "verify", "reset", "receipt", "refund", "refund"];
    assert_eq!(shop.letters().await, pairs(&kinds.map(|kind| (kind, email))));
    let mut texts = Vec::new();
    for mail in shop.list().await.into_iter().rev() {
        let whole = shop.get(mail.id).await;
        texts.push((whole.subject, whole.text.unwrap(), whole.html.unwrap()));
    }
    assert!(texts[0].1.contains("https://tea.example/"));
    assert!(texts[1].1.contains("https://tea.example/verify?token=v%2B1\n"));
    assert!(texts[2].1.contains("https://tea.example/reset?token=r1\n"));
    let (subject, text, html) = &texts[3];
    assert!(subject.contains("INV-000042"), "{subject}");
    assert!(text.contains("2 x Tea <green>\n    4.50 EUR each, 9.00 EUR\n") && text.contains("Total: 9.00 EUR"));
    assert!(html.contains("Tea &lt;green&gt;") && html.contains("9.00 EUR"));
    assert!(texts[4].1.contains("1.00 EUR of invoice INV-000042") && !texts[4].1.contains("all of it"));
    assert!(texts[5].1.contains("8.00 EUR of invoice INV-000042") && texts[5].1.contains("all of it"));
}

#[actix::test]
async fn an_account_of_the_past_is_known_but_not_welcomed() {
    let shop = open_shop(|settings| settings.mailer.known_recipients_only = true);
    let mut old = shop.registered(UserId::new(), "ada@example.com");
    old.data["created_at"] = "2020-01-01T00:00:00Z".into();
    shop.tell(vec![old]).await;
    assert_eq!(shop.letters().await, []);
    shop.send("ada@example.com").await;
}

#[actix::test]
async fn a_receipt_goes_where_the_invoice_says_or_waits_for_the_address() {
    let shop = open_shop(|_| ());
    let (guest, ada) = (UserId::new(), UserId::new());
    // Payments' events came before users': nobody knows Ada's address yet.
    shop.tell(vec![
        shop.paid(&invoice(guest, Some("guest@example.com")), false),
        shop.paid(&invoice(ada, None), false),
    ])
    .await;
    assert_eq!(shop.letters().await, pairs(&[("receipt", "guest@example.com")]));
    shop.tell(vec![shop.registered(ada, "ada@example.com")]).await;
    shop.tell(vec![shop.paid(&invoice(ada, Some("office@example.com")), false)]).await;
    assert_eq!(
        shop.letters().await,
        pairs(&[
            ("receipt", "guest@example.com"),
            ("receipt", "ada@example.com"),
            ("welcome", "ada@example.com"),
            ("receipt", "office@example.com"),
        ])
    );
    // Who does not turn up within a week is not waited for.
    let bob = UserId::new();
    shop.tell(vec![shop.paid(&invoice(bob, None), false)]).await;
    shop.clock.advance(Duration::from_secs(7 * 86_400 + 1));
    shop.state.purge().await.unwrap();
    shop.tell(vec![shop.registered(bob, "bob@example.com")]).await;
    assert_eq!(shop.letters().await[4..], pairs(&[("welcome", "bob@example.com")]));
}

#[actix::test]
async fn an_erased_person_leaves_no_address_and_no_words_and_gets_nothing_more() {
    let (server, port) = Server::open(0);
    let shop = shop_with(&format!("smtp://127.0.0.1:{port}"));
    let (ada, bob) = (UserId::new(), UserId::new());
    shop.tell(vec![shop.registered(ada, "ada@example.com"), shop.registered(bob, "bob@example.com")]).await;
    shop.state.round().await;
    // One to an address she had for an invoice, one that is still to be sent, one to another person.
    shop.tell(vec![shop.paid(&invoice(ada, Some("later-ada@example.com")), false)]).await;
    shop.state.round().await;
    shop.send("bob@example.com").await;
    shop.state.round().await;
    let queued = shop.list().await.into_iter().find(|mail| mail.status == EmailStatus::Queued).unwrap();
    let erased = UserErased { user_id: ada, email: Some("ada@example.com".parse().unwrap()) };
    shop.tell(vec![news(&shop, &erased)]).await;
    shop.round_after(60).await;
    let mails = shop.list().await;
    let whole = serde_json::to_string(&mails).unwrap();
    assert!(!whole.contains("ada@example.com") && whole.contains("erased@example.invalid"), "{whole}");
    for mail in mails.iter().filter(|mail| mail.to.as_str() == "erased@example.invalid") {
        let mail = shop.get(mail.id).await;
        assert_eq!((mail.text, mail.html, mail.subject.as_str()), (None, None, "(erased)"));
    }
    assert_eq!(mails.iter().filter(|mail| mail.to.as_str() == "bob@example.com").count(), 2);
    let given_up = shop.get(queued.id).await;
    assert_eq!((given_up.status, given_up.template.as_str(), given_up.attempts), (EmailStatus::Failed, "receipt", 1));
    // No accident, so staff is not alarmed.
    assert_eq!(shop.announced(queued.id).await, (vec![EmailStatus::Queued, EmailStatus::Failed], vec![]));
    assert!(server.taken().iter().all(|(to, _)| to != "later-ada@example.com"));
    // What still comes for her has no address to go to.
    shop.tell(vec![shop.refunded(&invoice(ada, None), 1, 1)]).await;
    assert_eq!(shop.list().await.len(), mails.len());
}

#[actix::test]
async fn mails_are_listed_newest_first_by_pages_and_filters() {
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
    assert_eq!(seen.iter().map(|mail| mail.id).collect::<HashSet<_>>().len(), 25);
    assert!(seen.windows(2).all(|pair| (pair[0].created_at, pair[0].id) > (pair[1].created_at, pair[1].id)));
    let to_ada = ListEmails { to: Some("ADA@example.com".into()), ..Default::default() };
    assert_eq!(shop.mailer.call(staff(), to_ada).await.unwrap().items.len(), 5);
    let failed = ListEmails { status: Some(EmailStatus::Failed), ..Default::default() };
    assert_eq!(shop.mailer.call(staff(), failed).await.unwrap().items, []);
    assert!(shop.mailer.call(staff(), ListEmails { to: Some("ada".into()), ..Default::default() }).await.is_err());
}

#[actix::test]
async fn a_mail_is_sent_refused_at_once_or_tried_again() {
    let (server, port) = Server::open(0);
    let shop = shop_with(&format!("smtp://127.0.0.1:{port}"));
    let (fine, refused, later) = (
        shop.send("ada@example.com").await,
        shop.send("refuse@example.com").await,
        shop.send("later@example.com").await,
    );
    shop.state.round().await;
    let mail = shop.get(fine).await;
    assert_eq!((mail.status, mail.attempts, mail.last_error, mail.next_attempt_at), (EmailStatus::Sent, 1, None, None));
    assert!(mail.sent_at.is_some());
    let (_, content) = server.taken().into_iter().find(|(to, _)| to == "ada@example.com").unwrap();
    assert_eq!(header(&content, "Message-ID"), format!("<{fine}@example.com>"));
    // The shop's name, encoded as a header must have it.
    assert_eq!(header(&content, "From"), "=?utf-8?b?VGVhICYgQ28=?= <shop@example.com>");
    assert_eq!(header(&content, "Subject"), "=?utf-8?b?Q2Fmw6k=?=");
    assert!(content.trim_end().ends_with("Hello\n.\nYou"), "{content}");
    assert_eq!(shop.announced(fine).await, (vec![EmailStatus::Queued, EmailStatus::Sent], vec![]));
    let mail = shop.get(refused).await;
    assert_eq!((mail.status, mail.attempts), (EmailStatus::Failed, 1));
    assert!(mail.last_error.as_ref().unwrap().contains("unknown here"), "{:?}", mail.last_error);
    let (statuses, reasons) = shop.announced(refused).await;
    assert_eq!((statuses, reasons), (vec![EmailStatus::Queued, EmailStatus::Failed], vec![mail.last_error.unwrap()]));
    let mail = shop.get(later).await;
    assert_eq!((mail.status, mail.attempts), (EmailStatus::Queued, 1));
    assert!(mail.last_error.unwrap().contains("greylisted"));
    shop.round_after(12).await;
    assert_eq!((shop.get(later).await.status, shop.get(later).await.attempts), (EmailStatus::Sent, 2));
}

#[actix::test]
async fn a_mail_whose_yes_was_lost_is_sent_again_as_the_same_mail() {
    let (server, port) = Server::open(0);
    let shop = shop_with(&format!("smtp://127.0.0.1:{port}"));
    let id = shop.send("lost@example.com").await;
    shop.state.round().await;
    assert_eq!((shop.get(id).await.status, server.taken().len()), (EmailStatus::Queued, 1));
    shop.round_after(12).await;
    assert_eq!(shop.get(id).await.status, EmailStatus::Sent);
    let ids: Vec<String> = server.taken().iter().map(|(_, mail)| header(mail, "Message-ID").to_owned()).collect();
    assert_eq!(ids, [format!("<{id}@example.com>"), format!("<{id}@example.com>")]);
}

#[actix::test]
async fn a_mail_whose_worker_died_is_sent_when_its_claim_runs_out() {
    let (server, port) = Server::open(0);
    let shop = open_shop(|_| ());
    let sends = |settings: &mut Settings| settings.mailer.smtp = Some(format!("smtp://127.0.0.1:{port}"));
    // The state that a kill leaves behind: accepted and claimed, and nobody to send it.
    let (now, id) = (shop.clock.now(), shop.send("ada@example.com").await);
    let until = now.saturating_add(Duration::from_secs(40));
    let claim = move |tx: &mut crate::store::Tx<'_>| {
        let queued = (schema::email::status.eq("queued"), schema::email::next_attempt_at.eq(now));
        diesel::update(schema::email::table.find(id)).set(queued).execute(tx.conn)?;
        Ok::<_, CommonError>(store::claim(tx.conn, tx.now, until)?.map(|post| post.id))
    };
    assert_eq!(shop.store.write(claim).await, Ok(Some(id)));
    assert_eq!(
        shop.store.write(move |tx| Ok::<_, CommonError>(store::claim(tx.conn, tx.now, until)?.is_some())).await,
        Ok(false)
    );
    let Shop { dir, clock, .. } = shop;
    let shop = open_in(dir, clock, sends);
    shop.state.round().await;
    assert_eq!(server.taken().len(), 0);
    shop.round_after(41).await;
    assert_eq!((shop.get(id).await.status, server.taken().len()), (EmailStatus::Sent, 1));
}

#[actix::test]
async fn a_closed_port_costs_no_mail() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let shop = shop_with(&format!("smtp://127.0.0.1:{port}"));
    let id = shop.send("ada@example.com").await;
    shop.state.round().await;
    let mail = shop.get(id).await;
    assert_eq!((mail.status, mail.attempts), (EmailStatus::Queued, 1));
    assert!(mail.last_error.is_some() && mail.next_attempt_at.is_some_and(|at| at > shop.clock.now()));
    let (server, _) = Server::open(port);
    shop.round_after(5).await;
    assert_eq!(shop.get(id).await.attempts, 1, "not before its time");
    shop.round_after(7).await;
    assert_eq!((shop.get(id).await.status, server.taken().len()), (EmailStatus::Sent, 1));
}

#[actix::test]
async fn after_six_tries_a_mail_is_given_up_and_told_once() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let shop = shop_with(&format!("smtp://127.0.0.1:{port}"));
    let id = shop.send("ada@example.com").await;
    shop.state.round().await;
    for (tries, wait) in [(1, 10), (2, 60), (3, 300), (4, 1_800), (5, 7_200)] {
        let mail = shop.get(id).await;
        assert_eq!((mail.status, mail.attempts), (EmailStatus::Queued, tries));
        shop.round_after(wait + wait / 10 + 1).await;
    }
    let mail = shop.get(id).await;
    assert_eq!((mail.status, mail.attempts, mail.next_attempt_at), (EmailStatus::Failed, 6, None));
    shop.round_after(86_400).await;
    assert_eq!(shop.get(id).await.attempts, 6);
    let (statuses, reasons) = shop.announced(id).await;
    assert_eq!((statuses, reasons), (vec![EmailStatus::Queued, EmailStatus::Failed], vec![mail.last_error.unwrap()]));
}

#[actix::test]
async fn many_mails_go_over_a_few_connections() {
    let (server, port) = Server::open(0);
    let shop = shop_with(&format!("smtp://127.0.0.1:{port}"));
    for n in 0..24 {
        shop.send(&format!("slow{n}@example.com")).await;
    }
    shop.state.round().await;
    let taken: HashSet<String> = server.taken().into_iter().map(|(to, _)| to).collect();
    assert_eq!((taken.len(), server.taken().len()), (24, 24));
    let (most, visits) = (server.most_guests.load(Ordering::SeqCst), server.visits.load(Ordering::SeqCst));
    assert!((2..=4).contains(&most) && visits < 24, "{most} at once, {visits} in all");
}

#[actix::test]
async fn after_a_time_limit_the_next_mail_does_not_hear_the_answer_to_the_last() {
    let (server, port) = Server::open(0);
    let smtp = smtp::Smtp::parse(&format!("smtp://127.0.0.1:{port}")).unwrap();
    let sender = smtp::Sender::new("Tea", &"shop@example.com".parse().unwrap()).unwrap();
    let message = |to: &str| {
        let (id, to, created_at) = (EmailId::new(), to.parse().unwrap(), Clock::system().now());
        sender
            .message(smtp::OutgoingMessage { id, to, subject: "s".into(), text: "t".into(), html: None, created_at })
            .unwrap()
    };
    let (mut line, limit) = (None, Duration::from_millis(300));
    assert_eq!(smtp.send(&mut line, &message("ada@example.com"), limit).await, model::SendOutcome::Sent);
    assert!(line.is_some());
    let late = smtp.send(&mut line, &message("mute@example.com"), limit).await;
    assert!(matches!(late, model::SendOutcome::NotNow(_)) && line.is_none(), "{late:?}");
    let refused = smtp.send(&mut line, &message("refuse@example.com"), limit).await;
    assert!(matches!(refused, model::SendOutcome::Refused(_)), "{refused:?}");
    assert_eq!(server.taken().len(), 1);
}

#[actix::test]
async fn a_mail_server_that_cannot_be_meant_stops_the_start_without_showing_the_password() {
    let dir = TempDir::new().unwrap();
    let mut settings = Settings::for_test(dir.path());
    settings.mailer.smtp = Some("smtp://ada:hunter2@mail.example.com:port".to_owned());
    let refused = open(&DomainRuntime::new(settings, Clock::system())).map(drop).unwrap_err().to_string();
    assert!(refused.contains("mailer.smtp") && refused.contains("port") && !refused.contains("hunter2"), "{refused}");
    assert!(!refused.contains("database"), "{refused}");
}

/// Against a mail server written by others, when there is one.
#[actix::test]
async fn a_real_mail_server_takes_refuses_and_delays() {
    let (Ok(smtp), Ok(maildir)) = (std::env::var("MERCAT_TEST_SMTP"), std::env::var("MERCAT_TEST_SMTP_MAILDIR")) else {
        // Past the capturing of a test's output, so that everybody sees it.
        let mut seen = std::io::stderr();
        let _ = writeln!(seen, "skipped: no mail server is named by MERCAT_TEST_SMTP (see scripts/dev/smtp)");
        return;
    };
    let shop = shop_with(&smtp);
    let run = uuid::Uuid::now_v7().simple().to_string();
    let html = SendEmail { html: Some("<p>Caf\u{e9}</p>".into()), ..mail(&format!("ada-{run}@example.com")) };
    let fine = shop.mailer.call(staff(), html).await.unwrap().id;
    let refused = shop.send(&format!("refuse-{run}@example.com")).await;
    let later = shop.send(&format!("later-{run}@example.com")).await;
    let mut plain = Vec::new();
    for n in 0..20 {
        plain.push(shop.send(&format!("m{n}-{run}@example.com")).await);
    }
    shop.state.round().await;
    assert_eq!(shop.get(fine).await.status, EmailStatus::Sent);
    for id in plain {
        assert_eq!(shop.get(id).await.status, EmailStatus::Sent);
    }
    let mail = shop.get(refused).await;
    assert_eq!((mail.status, mail.attempts), (EmailStatus::Failed, 1), "{:?}", mail.last_error);
    let mail = shop.get(later).await;
    assert_eq!((mail.status, mail.attempts), (EmailStatus::Queued, 1), "{:?}", mail.last_error);
    shop.round_after(12).await;
    assert_eq!(shop.get(later).await.status, EmailStatus::Sent);
    let files = std::fs::read_dir(std::path::Path::new(&maildir).join("new")).unwrap();
    let mails: Vec<String> = files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    let with = |id: EmailId| mails.iter().filter(|mail| mail.contains(&format!("Message-ID: <{id}@"))).count();
    assert_eq!((with(fine), with(refused), with(later)), (1, 0, 1));
}
