//! Sessions over WebSocket. The only file that knows the WebSocket library.

use std::rc::Rc;

use actix::{ActorContext, StreamHandler};
use actix_http::ws::Item;
use actix_web::web::{Bytes, Payload};
use actix_web::{HttpRequest, HttpResponse};
use actix_web_actors::ws::{CloseCode, CloseReason, Message, ProtocolError, WebsocketContext, WsResponseBuilder};
use bytestring::ByteString;

use super::LiveError;
use super::frame_limiter::{CloseReasonSlot, FRAME_MAX, FrameLimiter};
use super::hub::{Hub, Principal};
use super::kill_switch::KillSwitch;
use super::origin::origin_allowed;
use super::session::{CloseCause, Session, Transport};

/// The wire.
#[derive(Default)]
pub struct WebSocket {
    verdict: CloseReasonSlot,
    /// The message that is coming in parts.
    parts: Option<Parts>,
}

struct Parts {
    is_text: bool,
    bytes: Vec<u8>,
}

impl Transport for WebSocket {
    type Context = WebsocketContext<Session<Self>>;
    const ANSWERS_PINGS: bool = true;

    fn frame(ctx: &mut Self::Context, frame: &ByteString, _: Option<(&str, i64)>) {
        ctx.text(frame.clone());
    }

    fn ping(ctx: &mut Self::Context) {
        ctx.ping(b"");
    }

    fn end(ctx: &mut Self::Context, ending: CloseCause) {
        let (code, description) = (CloseCode::from(ending.code()), Some(ending.sentence().to_owned()));
        ctx.close(Some(CloseReason { code, description }));
        ctx.stop();
    }
}

/// Makes a connection a live session. `who` is what the gateway found out from the cookie or the bearer token, if
/// there was one; a token that is no good it has refused already.
///
/// # Errors
/// When a page of another site asks, when too many listen, and when it is no WebSocket handshake.
pub async fn start_websocket(
    req: HttpRequest,
    payload: Payload,
    hub: Hub,
    who: Option<Principal>,
) -> Result<HttpResponse, LiveError> {
    if !origin_allowed(&req, hub.settings().public_url.as_deref()) {
        return Err(LiveError::ForeignOrigin);
    }
    let admission = hub.admit()?;
    let (kill, verdict) = (req.conn_data::<KillSwitch>().cloned(), CloseReasonSlot::default());
    let bytes = FrameLimiter::new(payload, Rc::clone(&verdict));
    let session = Session::new(WebSocket { verdict, parts: None }, hub, admission, kill, who, None);
    WsResponseBuilder::new(session, &req, bytes).frame_size(FRAME_MAX).start().map_err(|_| LiveError::NotAWebSocket)
}

impl Session<WebSocket> {
    /// A part of a message came.
    fn hear_part(&mut self, item: Item, ctx: &mut WebsocketContext<Self>) {
        let (bytes, last): (Bytes, bool) = match item {
            Item::FirstText(bytes) => {
                self.wire.parts = Some(Parts { is_text: true, bytes: Vec::new() });
                (bytes, false)
            }
            Item::FirstBinary(bytes) => {
                self.wire.parts = Some(Parts { is_text: false, bytes: Vec::new() });
                (bytes, false)
            }
            Item::Continue(bytes) => (bytes, false),
            Item::Last(bytes) => (bytes, true),
        };
        let Some(parts) = &mut self.wire.parts else { return };
        if parts.bytes.len() + bytes.len() > FRAME_MAX {
            return self.end(CloseCause::TooLarge, ctx);
        }
        parts.bytes.extend_from_slice(&bytes);
        if last && let Some(whole) = self.wire.parts.take() {
            match std::str::from_utf8(&whole.bytes) {
                Ok(text) if whole.is_text => self.hear(text, ctx),
                _ => self.misheard("a frame is text in UTF-8", ctx),
            }
        }
    }
}

impl StreamHandler<Result<Message, ProtocolError>> for Session<WebSocket> {
    fn handle(&mut self, message: Result<Message, ProtocolError>, ctx: &mut Self::Context) {
        if self.heard(ctx) {
            return;
        }
        match message {
            Ok(Message::Text(text)) => self.hear(&text, ctx),
            Ok(Message::Binary(_)) => self.misheard("frames are text, not binary", ctx),
            Ok(Message::Continuation(item)) => self.hear_part(item, ctx),
            Ok(Message::Ping(bytes)) => ctx.pong(&bytes),
            Ok(Message::Pong(_) | Message::Nop) => {}
            Ok(Message::Close(reason)) => {
                ctx.close(reason);
                ctx.stop();
            }
            Err(error) => match (self.wire.verdict.get(), error) {
                (Some(ending), _) => self.end(ending, ctx),
                // A whole frame, so the next one can be read; this one is nonsense.
                (None, ProtocolError::Io(_)) => self.misheard("a frame is text in UTF-8", ctx),
                (None, _) => self.end(CloseCause::Protocol, ctx),
            },
        }
    }

    fn finished(&mut self, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
