//! Delivery to the mail server: SMTP and the encoding of messages, both by `lettre`. No other module uses them.
//!
//! `lettre`'s connection pool is not used. It takes a connection back when a time limit cuts off a dialogue, and then
//! reads the reply to one email as the reply to the next, so that an email could count as sent that never was. Here each
//! worker owns its connection and drops it after any error.
//! Does not contain: the queue, retries.

use std::time::{Duration, SystemTime};

use lettre::address::Envelope;
use lettre::message::{Mailbox, MultiPart, SinglePart};
use lettre::transport::smtp::Error as SmtpError;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, TlsParameters, TlsParametersBuilder};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::{ClientId, Extension, MailBodyParameter, MailParameter};
use lettre::{Address, Message};
use uuid::Uuid;

use super::model::{SendOutcome, SmtpReply, SmtpStage};
use crate::types::{EmailAddress, EmailId, Timestamp, collapse_whitespace};

/// Time limit of `QUIT`.
const QUIT_TIMEOUT: Duration = Duration::from_secs(2);

/// Address, credentials and encryption of the mail server.
pub struct Smtp {
    host: String,
    port: u16,
    credentials: Option<Credentials>,
    tls: Tls,
}

/// Encryption of the connection.
enum Tls {
    /// STARTTLS if the server offers it, with any certificate. It protects against passive listeners only; an active
    /// attacker could remove the offer anyway.
    IfOffered(TlsParameters),
    /// STARTTLS with a valid certificate; no delivery without it.
    Required(TlsParameters),
    /// TLS from the first byte, with a valid certificate.
    Implicit(TlsParameters),
}

impl Smtp {
    /// Parses `smtp://` or `smtps://` with `[USER:PASSWORD@]HOST[:PORT]`, user and password percent-encoded;
    /// `smtp://...?tls=required` requires STARTTLS.
    ///
    /// # Errors
    /// A description of the error that does not contain the value, because it may contain a password.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or("must begin with smtp:// or smtps://")?;
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '#']) {
            return Err(
                "must end after the port; a `/`, `?`, `#` or `%` in a password is written %2F, %3F, %23, %25".into()
            );
        }
        let (user, address) = rest.rsplit_once('@').map_or((None, rest), |(user, address)| (Some(user), address));
        let (host, port) = parse_host_port(address)?;
        let (tls, default_port): (fn(TlsParameters) -> Tls, u16) = match (scheme, query) {
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
                let (user, password) = (percent_decode(user)?, percent_decode(password)?);
                if user.is_empty() || password.is_empty() {
                    return Err("has an empty user or password".to_owned());
                }
                Ok(Credentials::new(user, password))
            })
            .transpose()?;
        // With two crypto providers in one program rustls panics unless one is installed; `main` installs it too.
        rustls::crypto::ring::default_provider().install_default().ok();
        let any_certificate = scheme == "smtp" && query.is_none();
        let parameters = TlsParametersBuilder::new(host.clone())
            .dangerous_accept_invalid_certs(any_certificate)
            .build()
            .map_err(|_| "names a host for which TLS cannot be set up".to_owned())?;
        if credentials.is_some() && any_certificate && !is_loopback(&host) {
            log::warn!(
                "mailer: the password may be sent to the mail server unencrypted; use smtps:// or ?tls=required"
            );
        }
        Ok(Self { host, port: port.unwrap_or(default_port), credentials, tls: tls(parameters) })
    }

    /// Connects and authenticates. The caller applies a time limit.
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

    /// Connects, authenticates and disconnects within `limit`.
    ///
    /// # Errors
    /// A description of the failure.
    pub async fn probe(&self, limit: Duration) -> Result<(), String> {
        match tokio::time::timeout(limit, self.connect()).await {
            Ok(Ok(connection)) => {
                SmtpConnection { connection, sent: 0 }.close().await;
                Ok(())
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("it did not answer within {} seconds", limit.as_secs())),
        }
    }

    /// Sends a message within `limit` over the connection in `slot`, or over a new one, which it stores there. After any
    /// error the connection is closed and the slot is empty, so that a late reply is never read.
    pub async fn send(&self, slot: &mut Option<SmtpConnection>, message: &Message, limit: Duration) -> SendOutcome {
        let open = slot.take().filter(|open| open.sent < EMAILS_PER_CONNECTION_MAX);
        let bytes = message.formatted();
        let dialogue = async {
            let mut connection = match open {
                Some(line) => line,
                // Errors of connecting do not concern the email.
                None => {
                    let connected = self.connect().await;
                    let connection = connected.map_err(|error| outcome_of(&error, SmtpStage::Connection))?;
                    SmtpConnection { connection, sent: 0 }
                }
            };
            connection.deliver(message.envelope(), &bytes).await?;
            connection.sent += 1;
            Ok(connection)
        };
        match tokio::time::timeout(limit, dialogue).await {
            Ok(Ok(open)) => {
                *slot = Some(open);
                SendOutcome::Sent
            }
            Ok(Err(outcome)) => outcome,
            Err(_) => {
                SendOutcome::Transient(format!("the mail server did not answer within {} seconds", limit.as_secs()))
            }
        }
    }
}

/// Maximum number of emails per connection; servers limit it too.
const EMAILS_PER_CONNECTION_MAX: u32 = 50;

/// An open connection of one worker.
pub struct SmtpConnection {
    connection: AsyncSmtpConnection,
    sent: u32,
}

impl SmtpConnection {
    /// Sends a message. Each command is sent on its own, because the meaning of a rejection depends on the command that
    /// it replies to (RFC 5321, section 4.3.2).
    async fn deliver(&mut self, envelope: &Envelope, bytes: &[u8]) -> Result<(), SendOutcome> {
        let at = |stage| move |error: SmtpError| outcome_of(&error, stage);
        let parameters = self.mail_parameters(envelope, bytes)?;
        let connection = &mut self.connection;
        let mail = Mail::new(envelope.from().cloned(), parameters);
        connection.command(mail).await.map_err(at(SmtpStage::Sender))?;
        for to in envelope.to() {
            let recipient = Rcpt::new(to.clone(), Vec::new());
            connection.command(recipient).await.map_err(at(SmtpStage::Recipient))?;
        }
        connection.command(Data).await.map_err(at(SmtpStage::Content))?;
        connection.message(bytes).await.map_err(at(SmtpStage::Content))?;
        Ok(())
    }

    /// Returns the extensions that a message needs: `SMTPUTF8` (RFC 6531) and `8BITMIME` (RFC 6152).
    fn mail_parameters(&self, envelope: &Envelope, bytes: &[u8]) -> Result<Vec<MailParameter>, SendOutcome> {
        let server = self.connection.server_info();
        let mut parameters = Vec::new();
        if envelope.to().iter().chain(envelope.from()).any(|address| !AsRef::<str>::as_ref(address).is_ascii()) {
            if !server.supports_feature(Extension::SmtpUtfEight) {
                let reason = "the address has letters that this mail server does not support (SMTPUTF8)";
                return Err(SendOutcome::Rejected(reason.to_owned()));
            }
            parameters.push(MailParameter::SmtpUtfEight);
        }
        if !bytes.is_ascii() {
            if !server.supports_feature(Extension::EightBitMime) {
                let reason = "the text has letters that this mail server does not support (8BITMIME)";
                return Err(SendOutcome::Rejected(reason.to_owned()));
            }
            parameters.push(MailParameter::Body(MailBodyParameter::EightBitMime));
        }
        Ok(parameters)
    }

    /// Sends `QUIT` and closes the connection.
    pub async fn close(mut self) {
        let _ = tokio::time::timeout(QUIT_TIMEOUT, self.connection.quit()).await;
    }
}

/// Returns the outcome of a delivery that failed in reply to a command.
fn outcome_of(error: &SmtpError, stage: SmtpStage) -> SendOutcome {
    let text = error.to_string();
    match error.status() {
        Some(code) => SmtpReply::new(stage, code.into(), text).outcome(),
        None => SendOutcome::Transient(text),
    }
}

fn parse_host_port(address: &str) -> Result<(String, Option<u16>), String> {
    let (host, port) = match address.strip_prefix('[') {
        // An IPv6 address contains colons and is therefore in brackets.
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or("has a `[` without its `]`")?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| "has no IPv6 address in its brackets")?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':').unwrap_or("")) })
        }
        None => address.split_once(':').map_or((address, None), |(host, port)| (host, Some(port))),
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

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Decodes percent-encoding.
fn percent_decode(text: &str) -> Result<String, String> {
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

/// Sender of the shop's emails.
pub struct Sender {
    mailbox: Mailbox,
    domain: String,
}

/// An email to be encoded as a message.
#[derive(Debug, Clone)]
pub struct OutgoingMessage {
    /// Id of the email.
    pub id: EmailId,
    /// Recipient.
    pub to: EmailAddress,
    /// Subject line.
    pub subject: String,
    /// Template of the email.
    pub template: String,
    /// Plain-text body.
    pub text: String,
    /// HTML body.
    pub html: Option<String>,
    /// Time of acceptance.
    pub created_at: Timestamp,
    /// Link in the bodies, whose placeholder the token replaces.
    pub link_id: Option<Uuid>,
}

impl Sender {
    /// Creates a sender of the shop's name and address.
    ///
    /// # Errors
    /// If `from` cannot be a sender.
    pub fn new(shop: &str, from: &EmailAddress) -> Result<Self, String> {
        let address: Address = from.as_str().parse().map_err(|_| "is not an address that mail can come from")?;
        let name = Some(collapse_whitespace(shop)).filter(|name| !name.is_empty());
        Ok(Self { domain: address.domain().to_owned(), mailbox: Mailbox::new(name, address) })
    }

    /// Encodes a message. The same email always has the same `Message-ID` and date. The builder encodes all headers, so
    /// that content cannot add one.
    ///
    /// # Errors
    /// If the message cannot be encoded.
    pub fn message(&self, outgoing: OutgoingMessage) -> Result<Message, String> {
        let to: Address = outgoing.to.as_str().parse().map_err(|_| "the address cannot be encoded in a message")?;
        let envelope = Envelope::new(Some(self.mailbox.email.clone()), vec![to.clone()]).map_err(|e| e.to_string())?;
        let micros = u64::try_from(outgoing.created_at.micros()).unwrap_or(0);
        let builder = Message::builder()
            .envelope(envelope)
            .from(self.mailbox.clone())
            .to(Mailbox::new(None, to))
            .subject(outgoing.subject)
            .message_id(Some(format!("<{}@{}>", outgoing.id, self.domain)))
            .date(SystemTime::UNIX_EPOCH + Duration::from_micros(micros));
        let message = match outgoing.html {
            Some(html) => builder.multipart(MultiPart::alternative_plain_html(outgoing.text, html)),
            None => builder.singlepart(SinglePart::plain(outgoing.text)),
        };
        message.map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_url_error_hides_the_password() {
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
        assert_eq!(percent_decode("a%40b%20%C3%A9").unwrap(), "a@b \u{e9}");
    }

    #[test]
    fn message_content_cannot_add_headers() {
        let sender = Sender::new("Caf\u{e9}\r\nBcc: x@example.com", &"shop@example.com".parse().unwrap()).unwrap();
        let id = EmailId::new();
        let outgoing = OutgoingMessage {
            id,
            to: "ada@example.com".parse().unwrap(),
            subject: "Hi\r\nBcc: x@example.com\r\n\r\nboo \u{e9}".to_owned(),
            template: "message".to_owned(),
            text: "One\n.\nTwo\n".to_owned(),
            html: Some("<p>One</p>".to_owned()),
            created_at: Timestamp::parse("2026-03-01T12:00:00Z").unwrap(),
            link_id: None,
        };
        let message = sender.message(outgoing.clone()).unwrap();
        let text = String::from_utf8(message.formatted()).unwrap();
        let (headers, _) = text.split_once("\r\n\r\n").unwrap();
        assert!(!headers.lines().any(|line| line.starts_with("Bcc")), "{headers}");
        assert!(headers.contains(&format!("Message-ID: <{id}@example.com>")), "{headers}");
        assert!(headers.contains("Date: Sun, 01 Mar 2026 12:00:00 +0000"), "{headers}");
        assert_eq!(message.envelope().to().len(), 1);
    }
}
