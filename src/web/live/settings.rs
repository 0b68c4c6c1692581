//! Limits of the live sessions.

use std::time::Duration;

use crate::web::origin::AllowedOrigins;

/// Limits of the live sessions.
#[derive(Debug, Clone)]
pub struct LiveSettings {
    /// Most sessions at once.
    pub sockets_max: usize,
    /// Most sessions of one network at once; none while limits are switched off.
    pub sockets_per_network: Option<usize>,
    /// Most frames in the mailbox of one session.
    pub queued_max: usize,
    /// Most bytes of frames in the mailbox of one session.
    pub queued_bytes_max: usize,
    /// Time in which a slow client must read its close frame before the connection is cut.
    pub stall_max: Duration,
    /// Interval between pings.
    pub ping_interval: Duration,
    /// Timeout for the answer to a ping.
    pub pong_timeout: Duration,
    /// Frames per second that a client may send; twice as many in a burst.
    pub frames_per_second: u32,
    /// Most topics per session.
    pub topics_max: usize,
    /// Time in which a client without a token may authenticate before the ready frame greets it as anonymous.
    pub auth_grace: Duration,
    /// Origins whose pages may connect.
    pub origins: AllowedOrigins,
}

impl Default for LiveSettings {
    fn default() -> Self {
        Self {
            sockets_max: 20_000,
            sockets_per_network: None,
            queued_max: 1_024,
            queued_bytes_max: 256 * 1_024,
            stall_max: Duration::from_secs(5),
            ping_interval: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(10),
            frames_per_second: 100,
            topics_max: 200,
            auth_grace: Duration::from_secs(1),
            origins: AllowedOrigins::default(),
        }
    }
}
