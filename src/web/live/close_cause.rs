//! Causes for which the shop ends a session, with their codes on the wire.

/// Cause of the end of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseCause {
    /// The token was revoked, or its account deleted.
    SignedOut,
    /// The token has expired.
    Expired,
    /// The client sent too many frames, or too many invalid tokens.
    RateLimited,
    /// The client did not answer a ping.
    PingTimeout,
    /// A frame was too large.
    TooLarge,
    /// The bytes were no WebSocket frame.
    Protocol,
    /// A text was not UTF-8.
    NotUtf8,
    /// The client did not read its frames.
    SlowConsumer,
    /// A domain that the session needs does not answer.
    Unavailable,
    /// The process is stopping.
    GoingAway,
}

impl CloseCause {
    /// WebSocket close code (RFC 6455 §7.4.1, and 1013 of the IANA registry).
    pub const fn code(self) -> u16 {
        match self {
            Self::GoingAway => 1001,
            Self::Protocol => 1002,
            Self::NotUtf8 => 1007,
            Self::SignedOut | Self::Expired | Self::RateLimited | Self::PingTimeout => 1008,
            Self::TooLarge => 1009,
            Self::SlowConsumer | Self::Unavailable => 1013,
        }
    }

    /// Machine-readable name, in error frames of server-sent events.
    pub const fn code_name(self) -> &'static str {
        match self {
            Self::SignedOut => "signed_out",
            Self::Expired => "token_expired",
            Self::RateLimited => "too_many_frames",
            Self::PingTimeout => "no_pong",
            Self::TooLarge => "frame_too_large",
            Self::Protocol => "protocol_error",
            Self::NotUtf8 => "not_utf8",
            Self::SlowConsumer => "fell_behind",
            Self::Unavailable => "unavailable",
            Self::GoingAway => "going_away",
        }
    }

    /// Sentence for people, short enough for a close frame (123 bytes).
    pub const fn message(self) -> &'static str {
        match self {
            Self::SignedOut => "this sign-in has ended; sign in again",
            Self::Expired => "the token has expired; sign in again",
            Self::RateLimited => "too many frames; slow down",
            Self::PingTimeout => "no answer to a ping",
            Self::TooLarge => "a frame may have at most 65536 bytes",
            Self::Protocol => "these bytes are no WebSocket frame",
            Self::NotUtf8 => "a text frame must be UTF-8",
            Self::SlowConsumer => "you did not keep up; connect again with epoch and after",
            Self::Unavailable => "not possible right now; connect again in a moment",
            Self::GoingAway => "the shop is restarting; connect again in a moment",
        }
    }
}
