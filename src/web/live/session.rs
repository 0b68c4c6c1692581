//! Session of one client: its topics, its position in its own stream, its frames. Equal for every transport.
//!
//! A session that calls a domain handles nothing else meanwhile (`ctx.wait`), so it is a plain sequence of steps;
//! pushes wait in its bounded mailbox.

use std::sync::Arc;

use actix::dev::{AsyncContextParts, ToEnvelope};
use actix::{Actor, ActorFutureExt, AsyncContext, Handler, WrapFuture};
use bytestring::ByteString;

use super::close_cause::CloseCause;
use super::domain_calls::{LookupError, Principal};
use super::frames::{ClientFrame, SNAPSHOT, ServerFrame, StreamPosition};
use super::hub::{Hub, HubRegistration};
use super::kill_switch::KillSwitch;
use super::message::SessionMessage;
use super::registry::SessionHandle;
use super::token_bucket::TokenBucket;
use super::topic::Topic;
use crate::contract::notifications::{MissedNotifications, Stream};
use crate::contract::users::Authenticated;
use crate::messaging::{Credential, Identity};
use crate::types::{SessionId, UserId};
use crate::web::network_limit::NetworkPermit;

/// Most invalid tokens that a client may send.
const INVALID_TOKENS_MAX: u32 = 10;
/// Times that a client may resume its stream from a position of its own: at once, and then per second. Each may replay
/// all that is kept.
const RESUMES_BURST: f64 = 5.0;
const RESUMES_PER_SECOND: f64 = 0.1;

/// Transport of a session's frames to its client.
pub trait Transport: Sized + Unpin + 'static {
    /// Actor context of a session over this transport.
    type Context: AsyncContextParts<Session<Self>> + ToEnvelope<Session<Self>, SessionMessage>;
    /// Whether clients answer pings.
    const ANSWERS_PINGS: bool;

    /// Sends a frame. `position` is the client's position in its own stream once it has read the frame.
    fn frame(ctx: &mut Self::Context, frame: &ByteString, position: Option<(&str, i64)>);
    /// Sends a ping.
    fn ping(ctx: &mut Self::Context);
    /// Sends the cause of the end, and ends the session.
    fn end(ctx: &mut Self::Context, cause: CloseCause);
}

/// Subscription that has no `subscribed` frame yet.
struct Subscription {
    names: Vec<String>,
    /// Whether the client named a position to resume from.
    is_resumed: bool,
}

/// Actor of one live session.
pub struct Session<T: Transport> {
    pub(super) transport: T,
    hub: Hub,
    kill_switch: Option<KillSwitch>,
    _permit: NetworkPermit,
    principal: Option<Principal>,
    registration: Option<HubRegistration>,
    topics: Vec<Topic>,
    /// Position of the client in its own stream. Valid after the ready frame.
    position: Stream,
    is_ready: bool,
    /// Frame that came before the ready frame and is handled after it.
    first_frame: Option<ClientFrame>,
    invalid_tokens: u32,
    frame_limit: TokenBucket,
    resume_limit: TokenBucket,
    /// Last notification that the client has acknowledged.
    acked: i64,
    is_ending: bool,
}

impl<T: Transport> Session<T> {
    /// A session that is not started. `first_frame` is handled as if the client had sent it first.
    pub fn new(
        transport: T,
        hub: Hub,
        permit: NetworkPermit,
        kill_switch: Option<KillSwitch>,
        principal: Option<Principal>,
        first_frame: Option<ClientFrame>,
    ) -> Self {
        let per_second = f64::from(hub.settings().frames_per_second);
        Self {
            transport,
            hub,
            kill_switch,
            _permit: permit,
            principal,
            registration: None,
            topics: Vec::new(),
            position: Stream { epoch: String::new(), seq: 0 },
            is_ready: false,
            first_frame,
            invalid_tokens: 0,
            frame_limit: TokenBucket::new(per_second, 2.0 * per_second),
            resume_limit: TokenBucket::new(RESUMES_PER_SECOND, RESUMES_BURST),
            acked: 0,
            is_ending: false,
        }
    }

    /// The hub's view of this session, once it is started.
    pub(super) fn registered(&self) -> Option<&SessionHandle> {
        self.registration.as_ref().map(|registration| &*registration.handle)
    }

    fn identity(&self) -> Option<&Identity> {
        self.principal.as_ref().map(|principal| &principal.authenticated.identity)
    }

    fn token(&self) -> Option<Arc<str>> {
        self.principal.as_ref().map(|principal| Arc::clone(&principal.token))
    }

    fn stream_position(&self) -> StreamPosition<'_> {
        StreamPosition { epoch: &self.position.epoch, seq: self.position.seq }
    }

    fn user(&self) -> Option<UserId> {
        self.identity().map(|identity| identity.user_id)
    }

    fn send(&self, frame: &ServerFrame<'_>, ctx: &mut T::Context) {
        T::frame(ctx, &frame.encode(), None);
    }

    /// Sends a frame after which the client knows its position in its own stream.
    fn send_positioned(&self, frame: &ServerFrame<'_>, ctx: &mut T::Context) {
        let position = self.user().map(|_| (self.position.epoch.as_str(), self.position.seq));
        T::frame(ctx, &frame.encode(), position);
    }

    fn send_error(&self, code: &str, detail: &str, topic: Option<&str>, ctx: &mut T::Context) {
        self.send(&ServerFrame::Error { code, detail, topic }, ctx);
    }

    /// Ends the session.
    pub(super) fn end(&mut self, cause: CloseCause, ctx: &mut T::Context) {
        if !std::mem::replace(&mut self.is_ending, true) {
            if let Some(handle) = self.registered() {
                self.hub.evict(handle);
            }
            T::end(ctx, cause);
        }
    }

    /// Records activity of the client. Returns `false` if the session ends already and its frame is not to be handled.
    pub(super) fn on_activity(&self) -> bool {
        if let Some(handle) = self.registered() {
            self.hub.on_activity(handle);
        }
        !self.is_ending
    }

    /// Counts a frame of the client. Returns `false` if the session ends because of too many.
    pub(super) fn count_frame(&mut self, ctx: &mut T::Context) -> bool {
        if !self.frame_limit.take() {
            self.end(CloseCause::RateLimited, ctx);
        }
        !self.is_ending
    }

    /// Rejects input that is no frame of the protocol.
    pub(super) fn reject_frame(&self, detail: &str, ctx: &mut T::Context) {
        self.send_error("bad_frame", detail, None, ctx);
    }

    /// Takes an acknowledgement of what was not acknowledged before. There are at most as many as notifications, so
    /// they do not count as frames.
    fn take_new_ack(&mut self, frame: &ClientFrame) -> bool {
        let newest = self.position.seq;
        match frame {
            ClientFrame::Ack { seq } if self.is_ready && (self.acked + 1..=newest).contains(seq) => {
                self.acked = *seq;
                true
            }
            _ => false,
        }
    }

    /// Handles a frame of the client.
    pub(super) fn on_frame(&mut self, text: &str, ctx: &mut T::Context) {
        let parsed = serde_json::from_str(text);
        if parsed.as_ref().is_ok_and(|frame| self.take_new_ack(frame)) || !self.count_frame(ctx) {
            return;
        }
        match parsed {
            Err(_) => self.reject_frame(
                "this is no frame of ours: one JSON object with `type` auth, subscribe, unsubscribe, ack or ping and its fields",
                ctx,
            ),
            Ok(frame) if self.is_ready || matches!(frame, ClientFrame::Auth { .. }) => self.handle_frame(frame, ctx),
            Ok(frame) => {
                self.first_frame = Some(frame);
                self.send_ready(ctx);
            }
        }
    }

    fn handle_frame(&mut self, frame: ClientFrame, ctx: &mut T::Context) {
        match frame {
            ClientFrame::Auth { token } => self.sign_in(token, ctx),
            ClientFrame::Subscribe { topics, epoch, after } => self.subscribe(topics, epoch, after, ctx),
            ClientFrame::Unsubscribe { topics } => self.unsubscribe(&topics, ctx),
            ClientFrame::Ack { seq } if (0..=self.position.seq).contains(&seq) => {}
            ClientFrame::Ack { .. } => self.reject_frame("this acknowledges an entry that was never sent", ctx),
            ClientFrame::Ping => self.send(&ServerFrame::Pong, ctx),
        }
    }

    /// Reads the end of the stream and sends the ready frame. The token is authenticated again: it may have been revoked
    /// before this session could receive that.
    fn send_ready(&mut self, ctx: &mut T::Context) {
        let (hub, token) = (self.hub.clone(), self.token());
        let lookup = async move {
            let authenticated = match token {
                Some(token) => Some(hub.calls().authenticate(token).await?),
                None => None,
            };
            let user = authenticated.map(|authenticated| authenticated.identity.user_id);
            Ok((authenticated, hub.calls().stream(user).await?))
        };
        ctx.wait(lookup.into_actor(self).map(|result, this, ctx| match result {
            Err(error) => this.close_on_error(error, ctx),
            Ok((authenticated, stream)) => {
                if let Some(authenticated) = authenticated {
                    this.set_principal(authenticated);
                }
                // A client that reads its own stream already goes on where it is: pushes may be on their way.
                let is_reading = this.is_ready && this.topics.contains(&Topic::User);
                if !is_reading {
                    this.position = stream;
                }
                this.is_ready = true;
                let Stream { epoch, seq } = &this.position;
                // Without a position to resume from: a client that is cut off now has read nothing of what it missed.
                this.send(&ServerFrame::Ready { user_id: this.user(), epoch, seq: *seq }, ctx);
                if is_reading {
                    this.catch_up(None, ctx);
                }
                if let Some(frame) = this.first_frame.take() {
                    this.handle_frame(frame, ctx);
                }
            }
        }));
    }

    fn close_on_error(&mut self, error: LookupError, ctx: &mut T::Context) {
        let cause = match error {
            LookupError::Denied => CloseCause::SignedOut,
            LookupError::Unavailable => CloseCause::Unavailable,
        };
        self.end(cause, ctx);
    }

    /// Takes over the result of an authentication.
    fn set_principal(&mut self, authenticated: Authenticated) {
        if let Some(principal) = &mut self.principal {
            principal.authenticated = authenticated;
        }
        if let Some(handle) = self.registered() {
            handle.set_expiry(authenticated.expires_at);
            self.hub.set_user(handle, authenticated.identity.user_id);
        }
    }

    fn sign_in(&mut self, token: String, ctx: &mut T::Context) {
        let (hub, token): (_, Arc<str>) = (self.hub.clone(), token.into());
        let presented = Arc::clone(&token);
        let lookup = async move { hub.calls().authenticate(presented).await };
        ctx.wait(lookup.into_actor(self).map(move |result, this, ctx| match result {
            Ok(authenticated) if this.user().is_some_and(|user| user != authenticated.identity.user_id) => {
                this.send_error("already_signed_in", "this connection is another user's; open a new one", None, ctx);
            }
            Ok(authenticated) => {
                this.principal = Some(Principal { authenticated, token });
                // Registered with the hub first, then authenticated once more: so no revocation is missed.
                this.set_principal(authenticated);
                this.send_ready(ctx);
            }
            Err(LookupError::Denied) => {
                this.invalid_tokens += 1;
                this.send_error("invalid_token", "the token is not valid or has expired; sign in again", None, ctx);
                if this.invalid_tokens >= INVALID_TOKENS_MAX {
                    this.end(CloseCause::RateLimited, ctx);
                }
            }
            Err(LookupError::Unavailable) => {
                this.send_error("unavailable", "the token cannot be checked at the moment; try again", None, ctx);
            }
        }));
    }

    fn subscribe(&mut self, names: Vec<String>, epoch: Option<String>, after: Option<i64>, ctx: &mut T::Context) {
        let topics_max = self.hub.settings().topics_max;
        let too_many = format!("at most {topics_max} topics at once");
        if names.len() > topics_max {
            return self.send_error("too_many_topics", &too_many, None, ctx);
        }
        let had_own_stream = self.topics.contains(&Topic::User);
        let is_empty = names.is_empty();
        let mut accepted = Vec::new();
        for name in names {
            let Some(topic) = Topic::parse(&name) else {
                self.send_error("unknown_topic", "there is no such topic", Some(&name), ctx);
                continue;
            };
            if let Err((code, detail)) = topic.check(self.identity()) {
                self.send_error(code, detail, Some(&name), ctx);
            } else if !self.topics.contains(&topic) && self.topics.len() >= topics_max {
                self.send_error("too_many_topics", &too_many, Some(&name), ctx);
            } else {
                if !self.topics.contains(&topic) {
                    self.topics.push(topic);
                }
                if let Some(handle) = self.registered() {
                    self.hub.subscribe(handle, topic);
                }
                accepted.push(topic);
            }
        }
        if accepted.is_empty() && !is_empty {
            return;
        }
        let names: Vec<String> = accepted.iter().map(Topic::to_string).collect();
        let has_own_stream = accepted.contains(&Topic::User);
        let is_resumed = after.is_some();
        if has_own_stream && is_resumed && !self.resume_limit.take() {
            let detail = "you resumed your stream too often; what is new still arrives, read the rest over HTTP";
            return self.send_error("too_many_resumes", detail, Some(Topic::USER), ctx);
        }
        if !has_own_stream || (had_own_stream && !is_resumed) {
            let stream = has_own_stream.then(|| self.stream_position());
            let frame = ServerFrame::Subscribed { topics: &names, recovered: false, stream, snapshot: None };
            return if has_own_stream { self.send_positioned(&frame, ctx) } else { self.send(&frame, ctx) };
        }
        // From the client's position, or else from that of the ready frame. Pushes wait in the mailbox meanwhile, and those
        // that the replay already contains are skipped.
        if let Some(after) = after {
            self.acked = after;
            self.position = Stream { epoch: epoch.unwrap_or_else(|| self.position.epoch.clone()), seq: after };
        }
        self.catch_up(Some(Subscription { names, is_resumed }), ctx);
    }

    fn unsubscribe(&mut self, names: &[String], ctx: &mut T::Context) {
        for name in names {
            match Topic::parse(name) {
                None => return self.send_error("unknown_topic", "there is no such topic", Some(name), ctx),
                Some(topic) => {
                    self.topics.retain(|t| *t != topic);
                    if let Some(handle) = self.registered() {
                        self.hub.unsubscribe(handle, topic);
                    }
                }
            }
        }
    }

    /// Reads from the domain what follows the client's position in its own stream, and sends it. `subscription` is the one
    /// that has no `subscribed` frame yet.
    fn catch_up(&mut self, subscription: Option<Subscription>, ctx: &mut T::Context) {
        let Some(user) = self.user() else { return };
        let (hub, position) = (self.hub.clone(), self.position.clone());
        let lookup = async move { hub.calls().missed(user, position).await };
        ctx.wait(lookup.into_actor(self).map(move |missed, this, ctx| match missed {
            Err(error) => this.close_on_error(error, ctx),
            Ok(missed) => this.replay_missed(missed, subscription, ctx),
        }));
    }

    fn replay_missed(&mut self, missed: MissedNotifications, subscription: Option<Subscription>, ctx: &mut T::Context) {
        let MissedNotifications { recovered, notifications, stream } = missed;
        if !recovered {
            let own_stream = || vec![Topic::User.to_string()];
            let names = subscription.map_or_else(own_stream, |subscription| subscription.names);
            self.position = stream;
            let stream = Some(self.stream_position());
            let frame = ServerFrame::Subscribed { topics: &names, recovered, stream, snapshot: Some(SNAPSHOT) };
            return self.send_positioned(&frame, ctx);
        }
        if let Some(Subscription { names, is_resumed }) = subscription {
            let position = Some(StreamPosition { epoch: &stream.epoch, seq: stream.seq });
            let frame =
                ServerFrame::Subscribed { topics: &names, recovered: is_resumed, stream: position, snapshot: None };
            self.send_positioned(&frame, ctx);
        }
        for notification in &notifications {
            self.send_notification(notification.seq, &ServerFrame::from(notification).encode(), ctx);
        }
        if self.position.seq < stream.seq {
            self.catch_up(None, ctx);
        }
    }

    fn send_notification(&mut self, seq: i64, frame: &ByteString, ctx: &mut T::Context) {
        self.position.seq = seq;
        T::frame(ctx, frame, Some((&self.position.epoch, seq)));
    }

    /// Handles a pushed notification: sent if it is the next one, skipped if the client has it, read back if it leaves a
    /// gap.
    fn on_notification(&mut self, seq: i64, frame: &ByteString, ctx: &mut T::Context) {
        if !self.is_ready || !self.topics.contains(&Topic::User) || seq <= self.position.seq {
            return;
        }
        if seq == self.position.seq + 1 { self.send_notification(seq, frame, ctx) } else { self.catch_up(None, ctx) }
    }

    /// Handles a change of the rights of a user, or of one of their sessions: that of another session is ignored.
    fn on_access_changed(&mut self, session: Option<SessionId>, ctx: &mut T::Context) {
        let is_other = match (session, self.identity().map(|identity| identity.credential)) {
            (Some(ended), Some(Credential::Session(own))) => ended != own,
            (Some(_), Some(Credential::ApiKey(_))) => true,
            (None, _) | (_, None) => false,
        };
        match self.registered() {
            Some(handle) if is_other => handle.clear_deadline(),
            _ => self.reauthenticate(ctx),
        }
    }

    /// Reads back what may have been lost. The lost messages may include the end of this session.
    fn resync(&mut self, ctx: &mut T::Context) {
        if self.topics.iter().any(|topic| *topic != Topic::User) {
            self.send_error("events_missed", "some events were not delivered; read again what you show", None, ctx);
        }
        if self.topics.contains(&Topic::User) {
            self.catch_up(None, ctx);
        }
        self.reauthenticate(ctx);
    }

    /// Authenticates the token again, and unsubscribes from topics that the user has no right to any more.
    fn reauthenticate(&mut self, ctx: &mut T::Context) {
        let Some(token) = self.token() else { return };
        let hub = self.hub.clone();
        let lookup = async move { hub.calls().authenticate(token).await };
        ctx.wait(lookup.into_actor(self).map(|result, this, ctx| match result {
            Err(error) => this.close_on_error(error, ctx),
            Ok(authenticated) => {
                this.set_principal(authenticated);
                let mut forbidden = this.topics.clone();
                forbidden.retain(|topic| topic.check(this.identity()).is_err());
                for topic in forbidden {
                    let name = topic.to_string();
                    this.unsubscribe(std::slice::from_ref(&name), ctx);
                    this.send_error("forbidden", "you may no longer listen to this topic", Some(&name), ctx);
                }
                if let Some(handle) = this.registered() {
                    handle.clear_deadline();
                }
            }
        }));
    }
}

impl<T: Transport> Actor for Session<T> {
    type Context = T::Context;

    fn started(&mut self, ctx: &mut T::Context) {
        ctx.parts().set_mailbox_capacity(self.hub.settings().queued_max);
        let recipient = ctx.address().recipient();
        self.registration = Some(self.hub.register(recipient, self.kill_switch.take(), T::ANSWERS_PINGS));
        if let Some(principal) = &self.principal {
            self.set_principal(principal.authenticated);
        }
        if self.principal.is_some() || self.first_frame.is_some() {
            return self.send_ready(ctx);
        }
        // A client that authenticates with its first frame is not greeted as anonymous before.
        ctx.run_later(self.hub.settings().auth_grace, |this, ctx| {
            if !this.is_ready && !this.is_ending {
                this.send_ready(ctx);
            }
        });
    }
}

impl<T: Transport> Handler<SessionMessage> for Session<T> {
    type Result = ();

    fn handle(&mut self, message: SessionMessage, ctx: &mut T::Context) {
        let Some(handle) = self.registered() else { return };
        handle.on_dequeued(&message);
        if handle.fell_behind() {
            return self.end(CloseCause::SlowConsumer, ctx);
        }
        if self.is_ending {
            return;
        }
        match message {
            SessionMessage::Event { topic, frame } if self.topics.contains(&topic) => T::frame(ctx, &frame, None),
            SessionMessage::Event { .. } | SessionMessage::Wake => {}
            SessionMessage::Notification { seq, frame } => self.on_notification(seq, &frame, ctx),
            SessionMessage::AccessChanged { session } => self.on_access_changed(session, ctx),
            SessionMessage::Resync => self.resync(ctx),
            SessionMessage::Ping => T::ping(ctx),
            SessionMessage::End(cause) => self.end(cause, ctx),
        }
    }
}
