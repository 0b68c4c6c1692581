//! Sessions over server-sent events: the same stream for listeners without WebSocket, who cannot speak back.
//!
//! Each event's data is one frame as over WebSocket. Its id is the place in the listener's own stream, which a browser
//! sends back as `Last-Event-ID` when it connects again.

use actix::ActorContext;
use actix_web::http::header::{self, ContentEncoding};
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse};
use actix_web_actors::HttpContext;
use bytestring::ByteString;
use futures_util::StreamExt;
use serde::Deserialize;

use super::LiveError;
use super::frames::{ClientFrame, ServerFrame};
use super::hub::{Hub, Principal};
use super::kill_switch::KillSwitch;
use super::origin::origin_allowed;
use super::session::{CloseCause, Session, Transport};

/// How long a browser waits before it connects again, in milliseconds.
const RETRY: &str = "retry: 2000\n\n";

/// How many events go to the connection as one piece.
const TOGETHER_MAX: usize = 1_024;

/// The wire.
pub struct EventStream;

impl Transport for EventStream {
    type Context = HttpContext<Session<Self>>;
    const ANSWERS_PINGS: bool = false;

    fn frame(ctx: &mut Self::Context, frame: &ByteString, place: Option<(&str, i64)>) {
        let event = match place {
            Some((epoch, seq)) => format!("id: {epoch}:{seq}\ndata: {frame}\n\n"),
            None => format!("data: {frame}\n\n"),
        };
        ctx.write(Bytes::from(event));
    }

    fn ping(ctx: &mut Self::Context) {
        ctx.write(Bytes::from_static(b": ping\n\n"));
    }

    fn end(ctx: &mut Self::Context, ending: CloseCause) {
        let frame = ServerFrame::Error { code: ending.word(), detail: ending.sentence(), topic: None }.encode();
        Self::frame(ctx, &frame, None);
        ctx.write_eof();
        ctx.stop();
    }
}

/// What is asked for.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct EventsQuery {
    /// The topics, with commas between.
    #[serde(default)]
    pub topics: String,
    /// Under which history `after` counts. `Last-Event-ID` says both, and is stronger.
    #[serde(default)]
    pub epoch: Option<String>,
    /// The last place of its own stream that the listener has seen.
    #[serde(default)]
    pub after: Option<i64>,
}

/// Makes a request a live session that lasts as long as its answer. `who` is as for a socket.
///
/// # Errors
/// When a page of another site asks, and when too many listen.
pub async fn start_sse(
    req: HttpRequest,
    hub: Hub,
    who: Option<Principal>,
    query: EventsQuery,
) -> Result<HttpResponse, LiveError> {
    if !origin_allowed(&req, hub.settings().public_url.as_deref()) {
        return Err(LiveError::ForeignOrigin);
    }
    let admission = hub.admit()?;
    let last = req.headers().get("last-event-id").and_then(|id| id.to_str().ok()).and_then(place);
    let (epoch, after) = last.map_or((query.epoch, query.after), |(epoch, seq)| (Some(epoch), Some(seq)));
    let topics = query.topics.split(',').map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned).collect();
    let first = ClientFrame::Subscribe { topics, epoch, after };
    let kill = req.conn_data::<KillSwitch>().cloned();
    let session = Session::new(EventStream, hub, admission, kill, who, Some(first));
    let pieces = HttpContext::with_factory(|ctx| {
        ctx.write(Bytes::from_static(RETRY.as_bytes()));
        session
    });
    // All that is ready goes together, so that nothing is left behind in the session when the connection is full and
    // it is no longer polled: a long catching up then waits for its reader, as it does over WebSocket.
    let body = pieces.ready_chunks(TOGETHER_MAX).map(|pieces| {
        let pieces = pieces.into_iter().collect::<Result<Vec<Bytes>, _>>()?;
        Ok::<_, actix_web::Error>(Bytes::from(pieces.concat()))
    });
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "text/event-stream"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        // A stream that is compressed is a stream that waits until a block is full.
        .insert_header(ContentEncoding::Identity)
        .insert_header(("X-Accel-Buffering", "no"))
        .streaming(body))
}

/// Reads `EPOCH:SEQ`.
fn place(id: &str) -> Option<(String, i64)> {
    let (epoch, seq) = id.rsplit_once(':')?;
    Some((epoch.to_owned(), seq.parse().ok()?))
}
