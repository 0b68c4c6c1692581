//! Live sessions over server-sent events, for clients without WebSocket. One-way: the client sends no frames.
//!
//! The data of each event is one frame as over WebSocket. Its id is the position in the user's own stream, which a
//! browser sends back as `Last-Event-ID` when it reconnects.

use actix::ActorContext;
use actix_web::http::header::{self, ContentEncoding};
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse};
use actix_web_actors::HttpContext;
use bytestring::ByteString;
use futures_util::StreamExt;
use serde::Deserialize;

use super::close_cause::CloseCause;
use super::domain_calls::Principal;
use super::error::LiveError;
use super::frames::{ClientFrame, ServerFrame};
use super::hub::Hub;
use super::kill_switch::KillSwitch;
use super::session::{Session, Transport};
use crate::types::ClientNetwork;

/// Field that sets the reconnection delay of browsers, in milliseconds.
const RETRY: &str = "retry: 2000\n\n";

/// Most events that are written to the connection as one chunk.
const EVENTS_PER_CHUNK: usize = 1_024;

/// Transport of server-sent events.
pub struct EventStream;

impl Transport for EventStream {
    type Context = HttpContext<Session<Self>>;
    const ANSWERS_PINGS: bool = false;

    fn frame(ctx: &mut Self::Context, frame: &ByteString, position: Option<(&str, i64)>) {
        let event = match position {
            Some((epoch, seq)) => format!("id: {epoch}:{seq}\ndata: {frame}\n\n"),
            None => format!("data: {frame}\n\n"),
        };
        ctx.write(Bytes::from(event));
    }

    fn ping(ctx: &mut Self::Context) {
        ctx.write(Bytes::from_static(b": ping\n\n"));
    }

    fn end(ctx: &mut Self::Context, cause: CloseCause) {
        let frame = ServerFrame::Error { code: cause.code_name(), detail: cause.message(), topic: None }.encode();
        Self::frame(ctx, &frame, None);
        ctx.write_eof();
        ctx.stop();
    }
}

/// Query of a request for server-sent events.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct EventsQuery {
    /// Names of the topics, separated by commas.
    #[serde(default)]
    pub topics: String,
    /// Epoch of the stream that `after` counts in. `Last-Event-ID` takes precedence over both.
    #[serde(default)]
    pub epoch: Option<String>,
    /// Sequence number of the last notification that the client has.
    #[serde(default)]
    pub after: Option<i64>,
}

/// Starts a live session that lasts as long as the response.
///
/// # Errors
/// [`LiveError::ForeignOrigin`] and [`LiveError::TooManySockets`].
pub async fn start_sse(
    request: HttpRequest,
    hub: Hub,
    principal: Option<Principal>,
    network: Option<ClientNetwork>,
    query: EventsQuery,
) -> Result<HttpResponse, LiveError> {
    if !hub.settings().origins.allow(&request) {
        return Err(LiveError::ForeignOrigin);
    }
    let permit = hub.admit(network)?;
    let last = request.headers().get("last-event-id").and_then(|id| id.to_str().ok()).and_then(parse_event_id);
    let (epoch, after) = last.map_or((query.epoch, query.after), |(epoch, seq)| (Some(epoch), Some(seq)));
    let topics = query.topics.split(',').map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned).collect();
    let first_frame = ClientFrame::Subscribe { topics, epoch, after };
    let kill_switch = request.conn_data::<KillSwitch>().cloned();
    let session = Session::new(EventStream, hub, permit, kill_switch, principal, Some(first_frame));
    let chunks = HttpContext::with_factory(|ctx| {
        ctx.write(Bytes::from_static(RETRY.as_bytes()));
        session
    });
    // All ready events are written at once, so that none stays in the session while the connection is full and the
    // session is not polled: a long replay then waits for its client, as over WebSocket.
    let body = chunks.ready_chunks(EVENTS_PER_CHUNK).map(|events| {
        let events = events.into_iter().collect::<Result<Vec<Bytes>, _>>()?;
        Ok::<_, actix_web::Error>(Bytes::from(events.concat()))
    });
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "text/event-stream"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        // Compression would hold events back until a block is full.
        .insert_header(ContentEncoding::Identity)
        .insert_header(("X-Accel-Buffering", "no"))
        .streaming(body))
}

/// Parses `EPOCH:SEQ`.
fn parse_event_id(id: &str) -> Option<(String, i64)> {
    let (epoch, seq) = id.rsplit_once(':')?;
    Some((epoch.to_owned(), seq.parse().ok()?))
}
