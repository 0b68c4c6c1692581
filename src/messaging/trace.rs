//! In which trace the work of this moment is (W3C `traceparent`), so that every line that is logged on a request's way,
//! and every event that it causes, can say it without each place having to be told.
//!
//! It is known while a future made by [`within`] is polled, or a closure runs by [`during`]: on a thread, for as long as
//! that takes. What goes to another thread or process takes it along by hand.

use std::future::Future;
use std::sync::Arc;

tokio::task_local! {
    static NOW: Option<Arc<str>>;
}

/// A `traceparent` as a caller wrote it, if it is one that can be handed on: version 00, in small letters, and neither
/// the trace nor the span all zeros.
#[must_use]
pub fn read(header: &str) -> Option<Arc<str>> {
    let parts: Vec<&str> = header.splitn(5, '-').collect();
    let hex = |part: &str, length| part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let named = |part: &str, length| hex(part, length) && part.bytes().any(|b| b != b'0');
    match parts[..] {
        ["00", trace, span, flags] if named(trace, 32) && named(span, 16) && hex(flags, 2) => Some(header.into()),
        _ => None,
    }
}

/// The trace's own id in a `traceparent`, which all its spans share: what people look for in logs.
#[must_use]
pub fn id(traceparent: &str) -> &str {
    traceparent.split('-').nth(1).unwrap_or_default()
}

/// Where the work of this moment stands in a trace, if it is in one.
#[must_use]
pub fn current() -> Option<Arc<str>> {
    NOW.try_with(Option::clone).ok().flatten()
}

/// `work`, in this trace; in none, and so not in the one around it either, if there is none.
pub fn within<F: Future>(trace: Option<Arc<str>>, work: F) -> impl Future<Output = F::Output> {
    NOW.scope(trace, work)
}

/// Does `work` at once, in this trace.
pub fn during<T>(trace: Option<Arc<str>>, work: impl FnOnce() -> T) -> T {
    NOW.sync_scope(trace, work)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn only_what_is_a_traceparent_is_taken_for_one() {
        assert_eq!(read(TRACE).as_deref(), Some(TRACE));
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
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }

    #[actix::test]
    async fn it_is_known_while_its_own_work_runs_and_by_nothing_else() {
        let here = async || {
            tokio::task::yield_now().await;
            current()
        };
        let (inside, outside) = futures_util::join!(within(read(TRACE), here()), within(None, here()));
        assert_eq!((inside, outside, current()), (read(TRACE), None, None));
        assert_eq!(during(read(TRACE), current), read(TRACE));
    }
}
