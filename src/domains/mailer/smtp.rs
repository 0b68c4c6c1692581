//! How a mail reaches the mail server: the only place that speaks SMTP and builds messages, both by `lettre`.
//!
//! `lettre`'s pool of connections is not used. It takes a connection back when a send is cut off by a time limit, in
//! the middle of a dialogue, and then reads the answer to one mail as the answer to the next: a mail could count as
//! sent that never was. Here a worker holds its own connection and drops it at the first trouble.

use std::time::{Duration, SystemTime};

use lettre::address::Envelope;
use lettre::message::{Mailbox, MultiPart, SinglePart};
use lettre::transport::smtp::Error as SmtpError;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, TlsParameters, TlsParametersBuilder};
use lettre::transport::smtp::extension::ClientId;
use lettre::{Address, Message};

use super::model::SendOutcome;
use crate::types::{EmailAddress, EmailId, Timestamp, collapse_whitespace};

/// How long a polite goodbye may take.
const QUIT_TIMEOUT: Duration = Duration::from_secs(2);

/// Refusals that speak of our sign-in and not of the mail (RFC 4954): they pass when somebody mends the settings.
const AUTH_REJECTION_CODES: [u16; 4] = [530, 534, 535, 538];

/// The mail server.
pub struct Smtp {
    host: String,
    port: u16,
    credentials: Option<Credentials>,
    tls: Tls,
}

/// How the way there is kept private.
enum Tls {
    /// Encrypted if the server offers it (STARTTLS), whatever its certificate: better than nothing against those who
    /// only listen, and whoever could forge a certificate could as well strike out the offer.
    IfOffered(TlsParameters),
    /// Encrypted by STARTTLS with a certificate that holds, or not at all.
    Required(TlsParameters),
    /// Encrypted from the first byte with a certificate that holds.
    Implicit(TlsParameters),
}

impl Smtp {
    /// Reads `smtp://` or `smtps://` with `[USER:PASSWORD@]HOST[:PORT]`, user and password percent-encoded;
    /// `smtp://...?tls=required` insists on STARTTLS. What is wrong is said without showing the value.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or("must begin with smtp:// or smtps://")?;
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '#']) {
            return Err(
                "must end after the port; a `/`, `?`, `#` or `%` in a password is written %2F, %3F, %23, %25".into()
            );
        }
        let (user, place) = rest.rsplit_once('@').map_or((None, rest), |(user, place)| (Some(user), place));
        let (host, port) = host_and_port(place)?;
        let (tls, usual_port): (fn(TlsParameters) -> Tls, u16) = match (scheme, query) {
            ("smtps", None) => (Tls::Implicit, 465),
            ("smtp", Some("tls=required")) => (Tls::Required, 587),
            ("smtp", None) => (Tls::IfOffered, 25),
            ("smtp" | "smtps", _) => return Err("knows no parameter but tls=required, with smtp://".into()),
            _ => return Err("must begin with smtp:// or smtps://".into()),
        };
        let credentials = user
            .map(|user| {
                let (user, password) =
                    user.split_once(':').ok_or("names a user without a password; write USER:PASSWORD@")?;
                let (user, password) = (decoded(user)?, decoded(password)?);
                if user.is_empty() || password.is_empty() {
                    return Err("has an empty user or password".to_owned());
                }
                Ok(Credentials::new(user, password))
            })
            .transpose()?;
        // Two providers of cryptography in one program make rustls panic unless one was chosen; `main` chooses it too.
        rustls::crypto::ring::default_provider().install_default().ok();
        let any_certificate = scheme == "smtp" && query.is_none();
        let parameters = TlsParametersBuilder::new(host.clone())
            .dangerous_accept_invalid_certs(any_certificate)
            .build()
            .map_err(|_| "names a host for which TLS cannot be set up".to_owned())?;
        if credentials.is_some() && any_certificate && !is_near(&host) {
            log::warn!(
                "mailer: the mail server's password may travel in the clear; smtps:// or ?tls=required prevents it"
            );
        }
        Ok(Self { host, port: port.unwrap_or(usual_port), credentials, tls: tls(parameters) })
    }

    /// Connects and signs in. Without a limit of time: the caller has one.
    async fn connect(&self) -> Result<AsyncSmtpConnection, SmtpError> {
        let hello = ClientId::default();
        let implicit = if let Tls::Implicit(tls) = &self.tls { Some(tls.clone()) } else { None };
        let server = (self.host.as_str(), self.port);
        let mut connection = AsyncSmtpConnection::connect_tokio1(server, None, &hello, implicit, None).await?;
        match &self.tls {
            Tls::IfOffered(tls) if connection.can_starttls() => connection.starttls(tls.clone(), &hello).await?,
            Tls::Required(tls) => connection.starttls(tls.clone(), &hello).await?,
            Tls::IfOffered(_) | Tls::Implicit(_) => {}
        }
        if let Some(credentials) = &self.credentials {
            connection.auth(DEFAULT_MECHANISMS, credentials).await?;
        }
        Ok(connection)
    }

    /// Connects, greets, signs in and says goodbye within `limit`.
    pub async fn greet(&self, limit: Duration) -> Result<(), String> {
        match tokio::time::timeout(limit, self.connect()).await {
            Ok(Ok(connection)) => {
                SmtpConnection { connection, sent: 0 }.close().await;
                Ok(())
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("it did not answer within {} seconds", limit.as_secs())),
        }
    }

    /// Sends a message within `limit` over the connection in `line`, or over a new one, which it leaves there. After
    /// any trouble there is none, and its socket is closed: a late answer has nowhere to go.
    pub async fn send(&self, line: &mut Option<SmtpConnection>, message: &Message, limit: Duration) -> SendOutcome {
        let open = line.take().filter(|line| line.sent < LINE_MAX);
        let bytes = message.formatted();
        let dialogue = async {
            let mut line = match open {
                Some(line) => line,
                // Whatever goes wrong before the mail is mentioned is not the mail's fault.
                None => SmtpConnection { connection: self.connect().await.map_err(not_now)?, sent: 0 },
            };
            line.connection.send(message.envelope(), &bytes).await.map_err(judge)?;
            line.sent += 1;
            Ok(line)
        };
        match tokio::time::timeout(limit, dialogue).await {
            Ok(Ok(open)) => {
                *line = Some(open);
                SendOutcome::Sent
            }
            Ok(Err(outcome)) => outcome,
            Err(_) => SendOutcome::NotNow(format!("the mail server did not answer within {} seconds", limit.as_secs())),
        }
    }
}

/// Mails that go over one connection: servers dislike guests who never leave.
const LINE_MAX: u32 = 50;

/// An open connection of one worker.
pub struct SmtpConnection {
    connection: AsyncSmtpConnection,
    sent: u32,
}

impl SmtpConnection {
    /// Says goodbye.
    pub async fn close(mut self) {
        let _ = tokio::time::timeout(QUIT_TIMEOUT, self.connection.quit()).await;
    }
}

fn not_now(error: SmtpError) -> SendOutcome {
    SendOutcome::NotNow(error.to_string())
}

/// Whether the mail itself was refused, or it may be taken another time.
fn judge(error: SmtpError) -> SendOutcome {
    let sign_in = error.status().is_some_and(|code| AUTH_REJECTION_CODES.contains(&code.into()));
    // What the client itself refuses at this point is an address that the server has no way to take.
    let refused = (error.is_permanent() && !sign_in) || error.is_client();
    if refused { SendOutcome::Refused(error.to_string()) } else { not_now(error) }
}

fn host_and_port(place: &str) -> Result<(String, Option<u16>), String> {
    let (host, port) = match place.strip_prefix('[') {
        // An IPv6 address has colons of its own, so it stands in brackets.
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or("has a `[` without its `]`")?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| "has no IPv6 address in its brackets")?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':').unwrap_or("")) })
        }
        None => place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
    };
    let named =
        !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':'));
    if !named {
        return Err("names no host, such as mail.example.com".into());
    }
    let port = match port {
        None => None,
        Some(text) => {
            let port = text.parse::<u16>().ok().filter(|port| *port != 0);
            Some(port.ok_or("has a port that is not a number from 1 to 65535")?)
        }
    };
    Ok((host.to_owned(), port))
}

fn is_near(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Undoes percent-encoding.
fn decoded(text: &str) -> Result<String, String> {
    let wrong =
        || "has a `%` in its user or password that two hexadecimal digits do not follow; write % as %25".to_owned();
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let (high, low) = (digit().ok_or_else(wrong)?, digit().ok_or_else(wrong)?);
        bytes.push(u8::try_from(high * 16 + low).map_err(|_| wrong())?);
    }
    String::from_utf8(bytes).map_err(|_| "has a user or password that is not UTF-8".to_owned())
}

/// Who the shop's mails come from.
pub struct Sender {
    mailbox: Mailbox,
    domain: String,
}

/// A mail as a message needs it.
#[derive(Debug, Clone)]
pub struct OutgoingMessage {
    /// Selection.
    pub id: EmailId,
    /// Where to.
    pub to: EmailAddress,
    /// Its subject.
    pub subject: String,
    /// Its plain text.
    pub text: String,
    /// Its HTML.
    pub html: Option<String>,
    /// When it was accepted.
    pub created_at: Timestamp,
}

impl Sender {
    /// The shop by its name, with the address that mails come from.
    pub fn new(shop: &str, from: &EmailAddress) -> Result<Self, String> {
        let address: Address = from.as_str().parse().map_err(|_| "is not an address that mail can come from")?;
        let name = Some(collapse_whitespace(shop)).filter(|name| !name.is_empty());
        Ok(Self { domain: address.domain().to_owned(), mailbox: Mailbox::new(name, address) })
    }

    /// Makes the message. Made again from the same mail it has the same `Message-ID` and date. All headers are
    /// written by the builder, which encodes what could end one and begin another.
    pub fn message(&self, post: OutgoingMessage) -> Result<Message, String> {
        let to: Address = post.to.as_str().parse().map_err(|_| "the address cannot be written into a mail")?;
        let envelope = Envelope::new(Some(self.mailbox.email.clone()), vec![to.clone()]).map_err(|e| e.to_string())?;
        let micros = u64::try_from(post.created_at.micros()).unwrap_or(0);
        let builder = Message::builder()
            .envelope(envelope)
            .from(self.mailbox.clone())
            .to(Mailbox::new(None, to))
            .subject(post.subject)
            .message_id(Some(format!("<{}@{}>", post.id, self.domain)))
            .date(SystemTime::UNIX_EPOCH + Duration::from_micros(micros));
        let message = match post.html {
            Some(html) => builder.multipart(MultiPart::alternative_plain_html(post.text, html)),
            None => builder.singlepart(SinglePart::plain(post.text)),
        };
        message.map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_server_is_read_or_refused_with_a_reason_that_shows_no_password() {
        for (url, host, port) in [
            ("smtp://mail.example.com", "mail.example.com", 25),
            ("smtp://127.0.0.1:2525/", "127.0.0.1", 2525),
            ("smtp://u:p@mail:587?tls=required", "mail", 587),
            ("smtp://mail?tls=required", "mail", 587),
            ("smtps://u%40x:p%3A%2F@mail.example.com", "mail.example.com", 465),
            ("smtps://[::1]:4650", "::1", 4650),
        ] {
            let smtp = Smtp::parse(url).unwrap_or_else(|reason| panic!("{url}: {reason}"));
            assert_eq!((smtp.host.as_str(), smtp.port, smtp.credentials.is_some()), (host, port, url.contains('@')));
        }
        for (url, part) in [
            ("smtp://", "host"),
            ("smtp://u:secret@", "host"),
            ("smtp://mail:port", "65535"),
            ("smtp://mail:0", "65535"),
            ("smtp://mail:70000", "65535"),
            ("smtp://secret@mail", "without a password"),
            ("smtp://:secret@mail", "empty"),
            ("smtp://u:secret%zz@mail", "%25"),
            ("smtp://u:secret%f@mail", "%25"),
            ("smtp://u:secret%ff@mail", "UTF-8"),
            ("smtp://u:secret/x@mail", "%2F"),
            ("smtp://mail/path", "after the port"),
            ("smtp://mail?tls=maybe", "tls=required"),
            ("smtps://mail?tls=required", "smtp://"),
            ("smtp://[::1", "]"),
            ("smtp://ma il", "host"),
            ("http://mail", "smtp://"),
        ] {
            let reason = Smtp::parse(url).map(drop).unwrap_err();
            assert!(reason.contains(part) && !reason.contains("secret"), "{url}: {reason}");
        }
        assert_eq!(decoded("a%40b%20%C3%A9").unwrap(), "a@b \u{e9}");
    }

    #[test]
    fn a_message_cannot_be_given_headers_by_its_content() {
        let sender = Sender::new("Caf\u{e9}\r\nBcc: x@example.com", &"shop@example.com".parse().unwrap()).unwrap();
        let id = EmailId::new();
        let post = OutgoingMessage {
            id,
            to: "ada@example.com".parse().unwrap(),
            subject: "Hi\r\nBcc: x@example.com\r\n\r\nboo \u{e9}".to_owned(),
            text: "One\n.\nTwo\n".to_owned(),
            html: Some("<p>One</p>".to_owned()),
            created_at: Timestamp::parse("2026-03-01T12:00:00Z").unwrap(),
        };
        let message = sender.message(post.clone()).unwrap();
        let text = String::from_utf8(message.formatted()).unwrap();
        let (headers, _) = text.split_once("\r\n\r\n").unwrap();
        assert!(!headers.lines().any(|line| line.starts_with("Bcc")), "{headers}");
        assert!(headers.contains(&format!("Message-ID: <{id}@example.com>")), "{headers}");
        assert!(headers.contains("Date: Sun, 01 Mar 2026 12:00:00 +0000"), "{headers}");
        assert_eq!(message.envelope().to().len(), 1);
    }
}
