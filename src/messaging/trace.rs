//! Trace of the current task (W3C `traceparent`), for log lines and events that a request causes.
//!
//! Set while a future made by [`instrument`] is polled or a closure runs in [`in_scope`]. Work that goes to another thread
//! or process must pass the trace on explicitly.

use std::future::Future;
use std::sync::Arc;

tokio::task_local! {
    static NOW: Option<Arc<str>>;
}

/// Parses a `traceparent` header: version 00, lower-case hex digits, and neither trace id nor span id all zeros. `None` if
/// it is malformed.
#[must_use]
pub fn parse(header: &str) -> Option<Arc<str>> {
    let parts: Vec<&str> = header.splitn(5, '-').collect();
    let hex = |part: &str, length| part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let nonzero = |part: &str, length| hex(part, length) && part.bytes().any(|b| b != b'0');
    match parts[..] {
        ["00", trace, span, flags] if nonzero(trace, 32) && nonzero(span, 16) && hex(flags, 2) => Some(header.into()),
        _ => None,
    }
}

/// Returns the trace id of a `traceparent`, which all its spans share.
#[must_use]
pub fn id(traceparent: &str) -> &str {
    traceparent.split('-').nth(1).unwrap_or_default()
}

/// Returns the `traceparent` of the current task, if it has one.
#[must_use]
pub fn current() -> Option<Arc<str>> {
    NOW.try_with(Option::clone).ok().flatten()
}

/// Wraps a future so that it runs in this trace; with `None` in no trace, not in the surrounding one.
pub fn instrument<F: Future>(trace: Option<Arc<str>>, work: F) -> impl Future<Output = F::Output> {
    NOW.scope(trace, work)
}

/// Calls `work` in this trace.
pub fn in_scope<T>(trace: Option<Arc<str>>, work: impl FnOnce() -> T) -> T {
    NOW.sync_scope(trace, work)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn traceparent_parse_rejects_malformed_headers() {
        assert_eq!(parse(TRACE).as_deref(), Some(TRACE));
        assert_eq!(id(TRACE), "0af7651916cd43dd8448eb211c80319c");
        for bad in [
            "",
            "00",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "00-0af7651916cd43dd8448eb211c80319c\n-b7ad6b7169203331-01",
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[actix::test]
    async fn trace_is_current_only_in_instrumented_future() {
        let current_later = async || {
            tokio::task::yield_now().await;
            current()
        };
        let (inside, outside) =
            futures_util::join!(instrument(parse(TRACE), current_later()), instrument(None, current_later()));
        assert_eq!((inside, outside, current()), (parse(TRACE), None, None));
        assert_eq!(in_scope(parse(TRACE), current), parse(TRACE));
    }
}
