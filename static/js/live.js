// The only WebSocket. One connection per page: subscribes to topics, dispatches frames to listeners, reconnects with backoff
// and jitter, and resumes the user's stream by epoch and sequence, so that nothing arrives twice and nothing is lost.
// Does not contain: the meaning of a frame, elements.

const BACKOFF_MIN = 500;
const BACKOFF_MAX = 30_000;
const HEARTBEAT_INTERVAL = 30_000; // ms without a frame before a ping is sent
const PONG_TIMEOUT = 10_000; // ms to wait for the pong
const PROBE_TIMEOUT = 3_000; // ms to wait for the pong after the page was asleep or out of sight
const CLOCK_INTERVAL = 2_000; // ms between two looks at the clock, which tell that the machine slept
const ACCESS_CODES = new Set(['unauthenticated', 'forbidden', 'scope_missing']);

const topics = new Map(); // topic → Set of { event, stale }
const pendingTopics = new Set(); // topics that the server has not confirmed yet
const stateWatchers = new Set();
const accessWatchers = new Set();
const position = { epoch: null, seq: null }; // of the user's stream: the last entry delivered

let socket = null;
let ready = false;
let state = 'connecting';
let attempts = 0;
let retryTimer = 0;
let heartbeatTimer = 0;
let userId = null; // whose connection this is to be, or null

function setState(next) {
  if (state === next) return;
  state = next;
  for (const watcher of stateWatchers) watcher(state);
}

function send(frame) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(frame));
}

function subscribe(names) {
  if (!ready || names.length === 0) return;
  for (const name of names) pendingTopics.add(name);
  const frame = { type: 'subscribe', topics: names };
  if (names.includes('user') && position.epoch !== null) Object.assign(frame, { epoch: position.epoch, after: position.seq });
  send(frame);
}

/** A live connection sends frames regularly; one that stays silent after a ping is dead, whatever the socket's state. */
function resetHeartbeat() {
  clearTimeout(heartbeatTimer);
  heartbeatTimer = setTimeout(() => probe(PONG_TIMEOUT), HEARTBEAT_INTERVAL);
}

/** Asks for a pong, and reconnects if none arrives in time. */
function probe(timeout) {
  if (!ready) return;
  clearTimeout(heartbeatTimer);
  send({ type: 'ping' });
  heartbeatTimer = setTimeout(reconnect, timeout);
}

function onReady(frame) {
  if ((frame.user_id ?? null) !== userId) {
    // The cookie is another user's by now, or of no user: whose page this is, the server says.
    accessChanged();
    reconnect();
    return;
  }
  ready = true;
  attempts = 0;
  if (position.epoch === null) Object.assign(position, { epoch: frame.epoch, seq: frame.seq });
  setState('live');
  subscribe([...topics.keys()]);
}

function onSubscribed(frame) {
  // Events on a public topic before the subscription are not replayed, and a view may have read its data before it.
  for (const name of frame.topics.filter((topic) => pendingTopics.delete(topic) && topic !== 'user')) {
    for (const one of topics.get(name) ?? []) one.stale?.();
  }
  if (!frame.topics.includes('user') || frame.recovered !== false) return;
  for (const one of topics.get('user') ?? []) one.lost?.();
}

function onNotification(frame) {
  if (position.seq !== null && frame.seq <= position.seq) return;
  position.seq = frame.seq;
  for (const one of topics.get('user') ?? []) one.event(frame);
  send({ type: 'ack', seq: frame.seq });
}

function accessChanged() {
  for (const watcher of accessWatchers) watcher();
}

function onError(frame) {
  if (ACCESS_CODES.has(frame.code)) {
    pendingTopics.delete(frame.topic);
    accessChanged();
  } else if (frame.code === 'events_missed') {
    for (const [topic, listeners] of topics) {
      if (topic !== 'user') for (const one of listeners) one.stale?.();
    }
  }
}

const HANDLERS = {
  ready: onReady,
  subscribed: onSubscribed,
  notification: onNotification,
  event: (frame) => {
    for (const one of topics.get(frame.topic) ?? []) one.event(frame);
  },
  error: onError,
};

function onMessage(message) {
  resetHeartbeat();
  const frame = JSON.parse(message.data);
  HANDLERS[frame.type]?.(frame);
}

function connect() {
  clearTimeout(retryTimer);
  setState('connecting');
  const opened = new WebSocket(`${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/api/v1/ws`);
  socket = opened;
  // The first frame asks to be greeted now, with or without a user: the cookie says who this is.
  opened.addEventListener('open', () => opened.send(JSON.stringify({ type: 'ping' })));
  opened.addEventListener('message', (message) => {
    if (socket === opened) onMessage(message);
  });
  opened.addEventListener('close', () => {
    if (socket === opened) reconnect();
  });
  resetHeartbeat();
}

/** Drops the connection and reconnects later, with jitter, so that clients do not all reconnect at once. */
function reconnect() {
  disconnect();
  setState('offline');
  const ceiling = Math.min(BACKOFF_MAX, BACKOFF_MIN * 2 ** attempts);
  attempts += 1;
  retryTimer = setTimeout(connect, ceiling / 4 + Math.random() * ceiling);
}

function disconnect() {
  const old = socket;
  socket = null;
  ready = false;
  clearTimeout(retryTimer);
  clearTimeout(heartbeatTimer);
  old?.close();
}

/**
 * Opens the connection of the user with this id, or without a user for null.
 * `resume` is the position of the list that was read over REST: { epoch, seq }, or null.
 */
export function start(id, resume) {
  disconnect();
  userId = id;
  Object.assign(position, { epoch: resume?.epoch ?? null, seq: resume?.seq ?? null });
  attempts = 0;
  connect();
}

/** Continues from the position of the list that was read again over REST. */
export function resumeFrom({ epoch, seq }) {
  Object.assign(position, { epoch, seq });
  subscribe(topics.has('user') ? ['user'] : []);
}

/**
 * Listens to a topic until `signal` aborts.
 * `event(frame)`: an event. `stale()`: events may have been missed, read again. `lost()`: the user's stream cannot be resumed.
 */
export function listen(topic, listener, signal) {
  if (!topics.has(topic)) {
    topics.set(topic, new Set());
    subscribe([topic]);
  }
  topics.get(topic).add(listener);
  signal?.addEventListener('abort', () => {
    const listeners = topics.get(topic);
    listeners.delete(listener);
    if (listeners.size > 0) return;
    topics.delete(topic);
    if (ready) send({ type: 'unsubscribe', topics: [topic] });
  }, { once: true });
}

/** Calls `watcher` now and on each change with 'connecting', 'live' or 'offline'. */
export function onStateChange(watcher) {
  stateWatchers.add(watcher);
  watcher(state);
}

/** Calls `watcher` when the server says that the connection is another user's than the page's, or has lost a right. */
export function onAccessChange(watcher) {
  accessWatchers.add(watcher);
}

// After sleep, or in a page that was out of sight, the connection may be dead without a sign.
document.addEventListener('visibilitychange', () => {
  if (document.visibilityState === 'visible') probe(PROBE_TIMEOUT);
});
let lookedAt = Date.now();
setInterval(() => {
  const now = Date.now();
  if (now - lookedAt > 3 * CLOCK_INTERVAL) probe(PROBE_TIMEOUT);
  lookedAt = now;
}, CLOCK_INTERVAL);

addEventListener('online', () => {
  if (!ready) {
    disconnect();
    connect();
  }
});
