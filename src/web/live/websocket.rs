//! Live sessions over WebSocket (RFC 6455). The only file that uses the WebSocket library.

use std::rc::Rc;

use actix::{ActorContext, StreamHandler};
use actix_http::ws::Item;
use actix_web::web::{Bytes, Payload};
use actix_web::{HttpRequest, HttpResponse};
use actix_web_actors::ws::{CloseCode, CloseReason, Message, ProtocolError, WebsocketContext, WsResponseBuilder};
use bytestring::ByteString;

use super::close_cause::CloseCause;
use super::domain_calls::Principal;
use super::error::LiveError;
use super::frame_limiter::{CloseReasonSlot, FRAME_MAX, FrameLimiter};
use super::hub::Hub;
use super::kill_switch::KillSwitch;
use super::session::{Session, Transport};
use crate::types::ClientNetwork;

/// Transport over WebSocket.
#[derive(Default)]
pub struct WebSocket {
    close_reason: CloseReasonSlot,
    /// Beginning of a fragmented message.
    fragments: Option<Fragments>,
    /// Connection of a session that has started.
    connection: Option<KillSwitch>,
}

impl Drop for WebSocket {
    /// The server ends the TCP connection after the closing handshake (RFC 6455 §7.1.1).
    fn drop(&mut self) {
        if let Some(connection) = &self.connection {
            connection.finish();
        }
    }
}

/// Fragments of one message (RFC 6455 §5.4).
struct Fragments {
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

    fn end(ctx: &mut Self::Context, cause: CloseCause) {
        let code = CloseCode::from(cause.code());
        ctx.close(Some(CloseReason { code, description: Some(cause.message().to_owned()) }));
        ctx.stop();
    }
}

/// Turns a connection from `network` into a live session of `principal`, whose token the extractor has authenticated; an
/// invalid token is rejected before this.
///
/// # Errors
/// [`LiveError::ForeignOrigin`], [`LiveError::TooManySockets`] and [`LiveError::NotAWebSocket`].
pub async fn start_websocket(
    request: HttpRequest,
    payload: Payload,
    hub: Hub,
    principal: Option<Principal>,
    network: Option<ClientNetwork>,
) -> Result<HttpResponse, LiveError> {
    if !hub.settings().origins.allow(&request) {
        return Err(LiveError::ForeignOrigin);
    }
    let permit = hub.admit(network)?;
    let kill_switch = request.conn_data::<KillSwitch>().cloned();
    let close_reason = CloseReasonSlot::default();
    let bytes = FrameLimiter::new(payload, Rc::clone(&close_reason));
    let transport = WebSocket { close_reason, fragments: None, connection: None };
    let session = Session::new(transport, hub, permit, kill_switch, principal, None);
    WsResponseBuilder::new(session, &request, bytes).frame_size(FRAME_MAX).start().map_err(|_| LiveError::NotAWebSocket)
}

impl Session<WebSocket> {
    /// Handles a fragment of a message.
    fn on_fragment(&mut self, item: Item, ctx: &mut WebsocketContext<Self>) {
        let (bytes, is_last): (Bytes, bool) = match item {
            Item::FirstText(bytes) => {
                self.transport.fragments = Some(Fragments { is_text: true, bytes: Vec::new() });
                (bytes, false)
            }
            Item::FirstBinary(bytes) => {
                self.transport.fragments = Some(Fragments { is_text: false, bytes: Vec::new() });
                (bytes, false)
            }
            Item::Continue(bytes) => (bytes, false),
            Item::Last(bytes) => (bytes, true),
        };
        let Some(fragments) = &mut self.transport.fragments else { return };
        if fragments.bytes.len() + bytes.len() > FRAME_MAX {
            return self.end(CloseCause::TooLarge, ctx);
        }
        fragments.bytes.extend_from_slice(&bytes);
        if is_last && let Some(whole) = self.transport.fragments.take() {
            match std::str::from_utf8(&whole.bytes) {
                Ok(text) if whole.is_text => self.on_frame(text, ctx),
                Err(_) if whole.is_text => self.end(CloseCause::NotUtf8, ctx),
                _ => self.reject_frame("frames are text, not binary", ctx),
            }
        }
    }
}

impl StreamHandler<Result<Message, ProtocolError>> for Session<WebSocket> {
    fn started(&mut self, _: &mut Self::Context) {
        self.transport.connection = self.registered().and_then(|handle| handle.kill_switch.clone());
    }

    fn handle(&mut self, message: Result<Message, ProtocolError>, ctx: &mut Self::Context) {
        // A whole text is counted when it is handled: acknowledgements are not.
        let is_text = matches!(message, Ok(Message::Text(_)));
        if !self.on_activity() || (!is_text && !self.count_frame(ctx)) {
            return;
        }
        match message {
            Ok(Message::Text(text)) => self.on_frame(&text, ctx),
            Ok(Message::Binary(_)) => self.reject_frame("frames are text, not binary", ctx),
            Ok(Message::Continuation(item)) => self.on_fragment(item, ctx),
            Ok(Message::Ping(bytes)) => ctx.pong(&bytes),
            Ok(Message::Pong(_) | Message::Nop) => {}
            Ok(Message::Close(reason)) => {
                ctx.close(reason);
                ctx.stop();
            }
            Err(error) => match (self.transport.close_reason.get(), error) {
                (Some(cause), _) => self.end(cause, ctx),
                (None, ProtocolError::Io(_)) => self.end(CloseCause::NotUtf8, ctx),
                (None, _) => self.end(CloseCause::Protocol, ctx),
            },
        }
    }

    fn finished(&mut self, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
