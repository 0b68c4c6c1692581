//! A listener's session: what it may hear, what it has heard, and what it says. The same over every wire.
//!
//! While a session asks a domain it takes nothing else in hand (`ctx.wait`), so it is a plain sequence of steps; what
//! is pushed meanwhile waits in its bounded mailbox.

use std::time::Instant;

use actix::dev::{AsyncContextParts, ToEnvelope};
use actix::{Actor, ActorFutureExt, AsyncContext, Handler, Message, WrapFuture};
use bytestring::ByteString;

use super::frames::{ClientFrame, SNAPSHOT, ServerFrame, StreamPosition};
use super::hub::{ConnectionPermit, Hub, LookupError, Principal, Registration, SessionHandle};
use super::kill_switch::KillSwitch;
use super::topic::Topic;
use crate::contract::notifications::{MissedNotifications, Stream};
use crate::contract::users::Authenticated;
use crate::messaging::{Credential, Identity};
use crate::types::{SessionId, UserId};

/// How many tokens that are good for nothing a listener may show.
const BAD_TOKENS_MAX: u32 = 10;

/// What the hub puts into a session's mailbox.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub enum SessionMessage {
    /// An event on a topic.
    Event { topic: Topic, frame: ByteString },
    /// An entry of the listener's own stream.
    Notification { seq: i64, frame: ByteString },
    /// What the listener may see may have changed, or this sign-in of theirs has ended.
    AccessChanged { session: Option<SessionId> },
    /// Some pushes were lost on their way.
    Lost,
    /// It is time for a sign of life.
    Ping,
    /// It is over.
    End(CloseCause),
    /// Look whether anything was lost.
    Wake,
}

impl SessionMessage {
    /// How much memory it holds on to, about.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Event { frame, .. } | Self::Notification { frame, .. } => frame.len(),
            _ => 0,
        }
    }
}

/// Why a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseCause {
    /// The sign-in is over.
    SignedOut,
    /// The token has served its time.
    Expired,
    /// Too many frames, or too many bad tokens.
    RateLimited,
    /// Pings were not answered.
    PingTimeout,
    /// A frame was too large.
    TooLarge,
    /// It does not speak WebSocket.
    Protocol,
    /// It did not read.
    SlowConsumer,
    /// A domain it needs does not answer.
    Unavailable,
    /// The shop closes.
    GoingAway,
}

impl CloseCause {
    /// The close code (RFC 6455 §7.4.1, and 1013 of the IANA registry).
    pub const fn code(self) -> u16 {
        match self {
            Self::GoingAway => 1001,
            Self::Protocol => 1002,
            Self::SignedOut | Self::Expired | Self::RateLimited | Self::PingTimeout => 1008,
            Self::TooLarge => 1009,
            Self::SlowConsumer | Self::Unavailable => 1013,
        }
    }

    /// A stable word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::SignedOut => "signed_out",
            Self::Expired => "token_expired",
            Self::RateLimited => "too_many_frames",
            Self::PingTimeout => "no_pong",
            Self::TooLarge => "frame_too_large",
            Self::Protocol => "protocol_error",
            Self::SlowConsumer => "fell_behind",
            Self::Unavailable => "unavailable",
            Self::GoingAway => "going_away",
        }
    }

    /// A sentence, short enough for a close frame (123 bytes).
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::SignedOut => "this sign-in has ended; sign in again",
            Self::Expired => "the token has expired; sign in again",
            Self::RateLimited => "too many frames; slow down",
            Self::PingTimeout => "no answer to a ping",
            Self::TooLarge => "a frame may have at most 65536 bytes",
            Self::Protocol => "these bytes are no WebSocket frame",
            Self::SlowConsumer => "you did not keep up; connect again with epoch and after",
            Self::Unavailable => "not possible right now; connect again in a moment",
            Self::GoingAway => "the shop is restarting; connect again in a moment",
        }
    }
}

/// How a session's frames get to its listener.
pub trait Transport: Sized + Unpin + 'static {
    /// The context of an actor on this wire.
    type Context: AsyncContextParts<Session<Self>> + ToEnvelope<Session<Self>, SessionMessage>;
    /// Whether the listener answers pings.
    const ANSWERS_PINGS: bool;

    /// Sends a frame. `place` is where the listener's own stream stands once it has read it.
    fn frame(ctx: &mut Self::Context, frame: &ByteString, place: Option<(&str, i64)>);
    /// Sends a sign of life.
    fn ping(ctx: &mut Self::Context);
    /// Says why it is over, and ends.
    fn end(ctx: &mut Self::Context, ending: CloseCause);
}

/// A listener's session.
pub struct Session<W: Transport> {
    pub(super) wire: W,
    hub: Hub,
    kill: Option<KillSwitch>,
    /// StockHold for its drop.
    _admission: ConnectionPermit,
    who: Option<Principal>,
    joined: Option<Registration>,
    topics: Vec<Topic>,
    /// Where the listener's own stream stands for them; from the ready frame on.
    own: Stream,
    ready: bool,
    /// Said before the ready frame; done after it.
    first: Option<ClientFrame>,
    bad_tokens: u32,
    frames: TokenBucket,
    ending: bool,
}

impl<W: Transport> Session<W> {
    /// A session that has not begun. `first` is done as if it were the first frame.
    pub fn new(
        wire: W,
        hub: Hub,
        admission: ConnectionPermit,
        kill: Option<KillSwitch>,
        who: Option<Principal>,
        first: Option<ClientFrame>,
    ) -> Self {
        let frames = TokenBucket::new(hub.settings().frames_per_second);
        Self {
            wire,
            hub,
            kill,
            _admission: admission,
            who,
            joined: None,
            topics: Vec::new(),
            own: Stream { epoch: String::new(), seq: 0 },
            ready: false,
            first,
            bad_tokens: 0,
            frames,
            ending: false,
        }
    }

    fn seat(&self) -> Option<&std::sync::Arc<SessionHandle>> {
        self.joined.as_ref().map(|joined| &joined.seat)
    }

    fn identity(&self) -> Option<&Identity> {
        self.who.as_ref().map(|who| &who.authenticated.identity)
    }

    fn user(&self) -> Option<UserId> {
        self.identity().map(|identity| identity.user_id)
    }

    fn say(&self, frame: &ServerFrame<'_>, ctx: &mut W::Context) {
        W::frame(ctx, &frame.encode(), None);
    }

    /// Sends a frame after which a listener knows where its own stream stands.
    fn say_placed(&self, frame: &ServerFrame<'_>, ctx: &mut W::Context) {
        let place = self.user().map(|_| (self.own.epoch.as_str(), self.own.seq));
        W::frame(ctx, &frame.encode(), place);
    }

    fn complain(&self, code: &str, detail: &str, topic: Option<&str>, ctx: &mut W::Context) {
        self.say(&ServerFrame::Error { code, detail, topic }, ctx);
    }

    /// Ends the session.
    pub(super) fn end(&mut self, ending: CloseCause, ctx: &mut W::Context) {
        if !std::mem::replace(&mut self.ending, true) {
            if let Some(seat) = self.seat() {
                self.hub.dismiss(seat);
            }
            W::end(ctx, ending);
        }
    }

    /// Notes a sign of life; says whether there were too many, which ends the session.
    pub(super) fn heard(&mut self, ctx: &mut W::Context) -> bool {
        if let Some(seat) = self.seat() {
            self.hub.heard(seat);
        }
        let flood = !self.frames.take();
        if flood {
            self.end(CloseCause::RateLimited, ctx);
        }
        flood || self.ending
    }

    /// Something that is no frame of ours came.
    pub(super) fn misheard(&self, detail: &str, ctx: &mut W::Context) {
        self.complain("bad_frame", detail, None, ctx);
    }

    /// A frame came.
    pub(super) fn hear(&mut self, text: &str, ctx: &mut W::Context) {
        match serde_json::from_str(text) {
            Err(_) => self.misheard(
                "this is no frame of ours: one JSON object with `type` auth, subscribe, unsubscribe, ack or ping and its fields",
                ctx,
            ),
            Ok(frame) if self.ready || matches!(frame, ClientFrame::Auth { .. }) => self.act(frame, ctx),
            Ok(frame) => {
                self.first = Some(frame);
                self.greet(ctx);
            }
        }
    }

    fn act(&mut self, frame: ClientFrame, ctx: &mut W::Context) {
        match frame {
            ClientFrame::Auth { token } => self.sign_in(token, ctx),
            ClientFrame::Subscribe { topics, epoch, after } => self.subscribe(topics, epoch, after, ctx),
            ClientFrame::Unsubscribe { topics } => self.unsubscribe(&topics, ctx),
            ClientFrame::Ack { seq } if (0..=self.own.seq).contains(&seq) => {}
            ClientFrame::Ack { .. } => self.misheard("this acknowledges what was never told", ctx),
            ClientFrame::Ping => self.say(&ServerFrame::Pong, ctx),
        }
    }

    /// Finds out where things stand and says that it is ready. Whoever is signed in is asked about again: the
    /// sign-in may have ended before this session was there to hear of it.
    fn greet(&mut self, ctx: &mut W::Context) {
        let (hub, who) = (self.hub.clone(), self.who.clone());
        let ask = async move {
            let authenticated = match &who {
                Some(who) => Some(hub.authenticate(&who.token).await?),
                None => None,
            };
            let user = authenticated.map(|authenticated| authenticated.identity.user_id);
            Ok((authenticated, hub.stream(user).await?))
        };
        ctx.wait(ask.into_actor(self).map(|answer, this, ctx| match answer {
            Err(trouble) => this.give_up(trouble, ctx),
            Ok((authenticated, stream)) => {
                if let Some(authenticated) = authenticated {
                    this.is(authenticated);
                }
                this.own = stream;
                this.ready = true;
                let Stream { epoch, seq } = &this.own;
                this.say_placed(&ServerFrame::Ready { user_id: this.user(), epoch, seq: *seq }, ctx);
                if let Some(first) = this.first.take() {
                    this.act(first, ctx);
                }
            }
        }));
    }

    fn give_up(&mut self, trouble: LookupError, ctx: &mut W::Context) {
        let ending = match trouble {
            LookupError::Denied => CloseCause::SignedOut,
            LookupError::Unavailable => CloseCause::Unavailable,
        };
        self.end(ending, ctx);
    }

    /// Takes over what is newly known of the listener.
    fn is(&mut self, authenticated: Authenticated) {
        if let Some(who) = &mut self.who {
            who.authenticated = authenticated;
        }
        if let Some(seat) = self.seat() {
            seat.expires(authenticated.expires_at);
            self.hub.identify(seat, authenticated.identity.user_id);
        }
    }

    fn sign_in(&mut self, token: String, ctx: &mut W::Context) {
        let (hub, shown) = (self.hub.clone(), token.clone());
        let ask = async move { hub.authenticate(&shown).await };
        ctx.wait(ask.into_actor(self).map(move |answer, this, ctx| match answer {
            Ok(authenticated) if this.user().is_some_and(|user| user != authenticated.identity.user_id) => {
                this.complain("already_signed_in", "this connection is another user's; open a new one", None, ctx);
            }
            Ok(authenticated) => {
                this.who = Some(Principal { authenticated, token: token.into() });
                // Into the hub first, then asked once more: so nothing that ends the sign-in is missed.
                this.is(authenticated);
                this.greet(ctx);
            }
            Err(LookupError::Denied) => {
                this.bad_tokens += 1;
                this.complain("invalid_token", "the token is not valid or has expired; sign in again", None, ctx);
                if this.bad_tokens >= BAD_TOKENS_MAX {
                    this.end(CloseCause::RateLimited, ctx);
                }
            }
            Err(LookupError::Unavailable) => {
                this.complain("unavailable", "nobody can be asked who you are; try again in a moment", None, ctx);
            }
        }));
    }

    fn subscribe(&mut self, names: Vec<String>, epoch: Option<String>, after: Option<i64>, ctx: &mut W::Context) {
        let topics_max = self.hub.settings().topics_max;
        let too_many = format!("at most {topics_max} topics at once");
        if names.len() > topics_max {
            return self.complain("too_many_topics", &too_many, None, ctx);
        }
        let was_told = self.topics.contains(&Topic::User);
        let (mut accepted, refused_none) = (Vec::new(), names.is_empty());
        for name in names {
            let Some(topic) = Topic::parse(&name) else {
                self.complain("unknown_topic", "there is no such topic", Some(&name), ctx);
                continue;
            };
            if let Err((code, detail)) = topic.check(self.identity()) {
                self.complain(code, detail, Some(&name), ctx);
            } else if !self.topics.contains(&topic) && self.topics.len() >= topics_max {
                self.complain("too_many_topics", &too_many, Some(&name), ctx);
            } else {
                if !self.topics.contains(&topic) {
                    self.topics.push(topic);
                }
                if let Some(seat) = self.seat() {
                    self.hub.subscribe(seat, topic);
                }
                accepted.push(topic);
            }
        }
        if accepted.is_empty() && !refused_none {
            return;
        }
        let names: Vec<String> = accepted.iter().map(Topic::to_string).collect();
        let (own, asked) = (accepted.contains(&Topic::User), after.is_some());
        if !own || (was_told && !asked) {
            let stream = own.then(|| StreamPosition { epoch: &self.own.epoch, seq: self.own.seq });
            let frame = ServerFrame::Subscribed { topics: &names, recovered: false, stream, snapshot: None };
            return if own { self.say_placed(&frame, ctx) } else { self.say(&frame, ctx) };
        }
        // From where the listener says, or else from where the ready frame said. SessionMessage pushes wait in the mailbox
        // meanwhile, and those that this already tells are passed over.
        if let Some(after) = after {
            self.own = Stream { epoch: epoch.unwrap_or_else(|| self.own.epoch.clone()), seq: after };
        }
        self.catch_up(Some((names, asked)), ctx);
    }

    fn unsubscribe(&mut self, names: &[String], ctx: &mut W::Context) {
        for name in names {
            match Topic::parse(name) {
                None => return self.complain("unknown_topic", "there is no such topic", Some(name), ctx),
                Some(topic) => {
                    self.topics.retain(|t| *t != topic);
                    if let Some(seat) = self.seat() {
                        self.hub.unsubscribe(seat, topic);
                    }
                }
            }
        }
    }

    /// Reads from the domain what the listener has not heard of its own stream. `answer` is what it subscribed to,
    /// and whether it named a place, when that is still to be answered.
    fn catch_up(&mut self, answer: Option<(Vec<String>, bool)>, ctx: &mut W::Context) {
        let Some(user) = self.user() else { return };
        let (hub, Stream { epoch, seq }) = (self.hub.clone(), self.own.clone());
        let ask = async move { hub.missed(user, epoch, seq).await };
        ctx.wait(ask.into_actor(self).map(move |missed, this, ctx| match missed {
            Err(trouble) => this.give_up(trouble, ctx),
            Ok(missed) => this.tell_missed(missed, answer, ctx),
        }));
    }

    fn tell_missed(&mut self, missed: MissedNotifications, answer: Option<(Vec<String>, bool)>, ctx: &mut W::Context) {
        let MissedNotifications { recovered, notifications, stream } = missed;
        if !recovered {
            let names = answer.map_or_else(|| vec![Topic::User.to_string()], |(names, _)| names);
            self.own = stream;
            let stream = Some(StreamPosition { epoch: &self.own.epoch, seq: self.own.seq });
            let frame = ServerFrame::Subscribed { topics: &names, recovered, stream, snapshot: Some(SNAPSHOT) };
            return self.say_placed(&frame, ctx);
        }
        if let Some((names, asked)) = answer {
            let place = Some(StreamPosition { epoch: &stream.epoch, seq: stream.seq });
            let frame = ServerFrame::Subscribed { topics: &names, recovered: asked, stream: place, snapshot: None };
            self.say_placed(&frame, ctx);
        }
        for notification in &notifications {
            self.tell(notification.seq, &ServerFrame::from(notification).encode(), ctx);
        }
        if self.own.seq < stream.seq {
            self.catch_up(None, ctx);
        }
    }

    fn tell(&mut self, seq: i64, frame: &ByteString, ctx: &mut W::Context) {
        self.own.seq = seq;
        W::frame(ctx, frame, Some((&self.own.epoch, seq)));
    }

    fn told_live(&mut self, seq: i64, frame: &ByteString, ctx: &mut W::Context) {
        if !self.ready || !self.topics.contains(&Topic::User) || seq <= self.own.seq {
            return;
        }
        if seq == self.own.seq + 1 { self.tell(seq, frame, ctx) } else { self.catch_up(None, ctx) }
    }

    /// Asks again who the listener is, and stops what they may no longer hear.
    fn ask_again(&mut self, ctx: &mut W::Context) {
        let Some(who) = self.who.clone() else { return };
        let hub = self.hub.clone();
        let ask = async move { hub.authenticate(&who.token).await };
        ctx.wait(ask.into_actor(self).map(|answer, this, ctx| match answer {
            Err(trouble) => this.give_up(trouble, ctx),
            Ok(authenticated) => {
                this.is(authenticated);
                let mut lost = this.topics.clone();
                lost.retain(|topic| topic.check(this.identity()).is_err());
                for topic in lost {
                    let name = topic.to_string();
                    this.unsubscribe(std::slice::from_ref(&name), ctx);
                    this.complain("forbidden", "you may no longer listen to this topic", Some(&name), ctx);
                }
                if let Some(seat) = this.seat() {
                    seat.acted();
                }
            }
        }));
    }
}

impl<W: Transport> Actor for Session<W> {
    type Context = W::Context;

    fn started(&mut self, ctx: &mut W::Context) {
        ctx.parts().set_mailbox_capacity(self.hub.settings().queued_max);
        let joined = self.hub.join(ctx.address().recipient(), self.kill.take(), W::ANSWERS_PINGS);
        self.joined = Some(joined);
        if let Some(who) = &self.who {
            self.is(who.authenticated);
        }
        if self.who.is_some() || self.first.is_some() {
            return self.greet(ctx);
        }
        // A listener that shows who it is at once shall not first be greeted as nobody.
        ctx.run_later(self.hub.settings().grace, |this, ctx| {
            if !this.ready && !this.ending {
                this.greet(ctx);
            }
        });
    }
}

impl<W: Transport> Handler<SessionMessage> for Session<W> {
    type Result = ();

    fn handle(&mut self, live: SessionMessage, ctx: &mut W::Context) {
        let Some(seat) = self.seat() else { return };
        seat.took(&live);
        if seat.fell_behind() {
            return self.end(CloseCause::SlowConsumer, ctx);
        }
        if self.ending {
            return;
        }
        match live {
            SessionMessage::Event { topic, frame } if self.topics.contains(&topic) => W::frame(ctx, &frame, None),
            SessionMessage::Event { .. } | SessionMessage::Wake => {}
            SessionMessage::Notification { seq, frame } => self.told_live(seq, &frame, ctx),
            SessionMessage::AccessChanged { session } => {
                let other = match (session, self.identity().map(|who| who.credential)) {
                    (Some(ended), Some(Credential::Session(own))) => ended != own,
                    (Some(_), Some(Credential::ApiKey(_))) => true,
                    (None, _) | (_, None) => false,
                };
                if other { seat.acted() } else { self.ask_again(ctx) }
            }
            SessionMessage::Lost => {
                if self.topics.iter().any(|topic| *topic != Topic::User) {
                    let detail = "some events were not told; read again what you show";
                    self.complain("events_missed", detail, None, ctx);
                }
                if self.topics.contains(&Topic::User) {
                    self.catch_up(None, ctx);
                }
                // What was lost may have said that this sign-in is over.
                self.ask_again(ctx);
            }
            SessionMessage::Ping => W::ping(ctx),
            SessionMessage::End(ending) => self.end(ending, ctx),
        }
    }
}

/// Counts frames: so many a second, and twice as many at once.
struct TokenBucket {
    per_second: f64,
    left: f64,
    at: Instant,
}

impl TokenBucket {
    fn new(per_second: u32) -> Self {
        let per_second = f64::from(per_second);
        Self { per_second, left: 2.0 * per_second, at: Instant::now() }
    }

    /// Takes one out, if there is one.
    fn take(&mut self) -> bool {
        let now = Instant::now();
        let new = now.duration_since(self.at).as_secs_f64() * self.per_second;
        (self.left, self.at) = ((self.left + new).min(2.0 * self.per_second), now);
        let any = self.left >= 1.0;
        if any {
            self.left -= 1.0;
        }
        any
    }
}
