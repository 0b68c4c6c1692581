// The only WebSocket. One connection a page: subscribes topics, hands frames to who asked, reconnects with backoff and
// jitter, and resumes the user's own stream by epoch and sequence, so that nothing comes twice and nothing is lost.
// Must never enter: what a frame means, how it looks.

const FIRST_WAIT = 500;
const LONGEST_WAIT = 30_000;
const QUIET = 30_000; // after this long without a frame we ask whether the other side is there
const PATIENCE = 10_000; // and this long we wait for the answer

const topics = new Map(); // topic → Set of { event, stale }
const asked = new Set(); // topics that the shop has not confirmed yet
const stateWatchers = new Set();
const position = { epoch: null, seq: null }; // of the own stream; what was handed out already

let socket = null;
let ready = false;
let state = 'connecting';
let attempts = 0;
let retryTimer = 0;
let quietTimer = 0;

function setState(next) {
  if (state === next) return;
  state = next;
  for (const watcher of stateWatchers) watcher(state);
}

function send(frame) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(frame));
}

function askFor(names) {
  if (!ready || names.length === 0) return;
  for (const name of names) asked.add(name);
  const frame = { type: 'subscribe', topics: names };
  if (names.includes('user') && position.epoch !== null) Object.assign(frame, { epoch: position.epoch, after: position.seq });
  send(frame);
}

/** A live connection speaks now and then; one that stays silent after a ping is dead, whatever the system believes. */
function listenForSilence() {
  clearTimeout(quietTimer);
  quietTimer = setTimeout(() => {
    send({ type: 'ping' });
    quietTimer = setTimeout(drop, PATIENCE);
  }, QUIET);
}

function onReady(frame) {
  ready = true;
  attempts = 0;
  if (position.epoch === null) Object.assign(position, { epoch: frame.epoch, seq: frame.seq });
  setState('live');
  askFor([...topics.keys()]);
}

function onSubscribed(frame) {
  // What happened on a public topic before we listened to it is not sent again, and a view may have read before that.
  for (const name of frame.topics.filter((topic) => asked.delete(topic) && topic !== 'user')) {
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

const HANDLERS = {
  ready: onReady,
  subscribed: onSubscribed,
  notification: onNotification,
  event: (frame) => {
    for (const one of topics.get(frame.topic) ?? []) one.event(frame);
  },
};

function onMessage(message) {
  listenForSilence();
  const frame = JSON.parse(message.data);
  HANDLERS[frame.type]?.(frame);
}

function connect() {
  clearTimeout(retryTimer);
  setState('connecting');
  const opened = new WebSocket(`${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/api/v1/ws`);
  socket = opened;
  opened.addEventListener('message', (message) => {
    if (socket === opened) onMessage(message);
  });
  opened.addEventListener('close', () => {
    if (socket === opened) drop();
  });
  listenForSilence();
}

/** Leaves the connection behind and comes back later: full jitter, so that a thousand clients do not come at once. */
function drop() {
  hangUp();
  setState('offline');
  const ceiling = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** attempts);
  attempts += 1;
  retryTimer = setTimeout(connect, ceiling / 4 + Math.random() * ceiling);
}

function hangUp() {
  const old = socket;
  socket = null;
  ready = false;
  clearTimeout(retryTimer);
  clearTimeout(quietTimer);
  old?.close();
}

/** Opens the connection. `resume` is where the list that was read over REST ends: { epoch, seq }, or null. */
export function start(resume) {
  hangUp();
  Object.assign(position, { epoch: resume?.epoch ?? null, seq: resume?.seq ?? null });
  attempts = 0;
  connect();
}

/** After the own list was read again over REST: go on from there. */
export function resumeFrom({ epoch, seq }) {
  Object.assign(position, { epoch, seq });
  askFor(topics.has('user') ? ['user'] : []);
}

/**
 * Listens to a topic until `signal` aborts.
 * `event(frame)`: something happened. `stale()`: something may have happened unheard, read afresh. `lost()`: the own stream cannot
 * be resumed.
 */
export function listen(topic, listener, signal) {
  if (!topics.has(topic)) {
    topics.set(topic, new Set());
    askFor([topic]);
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

/** Calls `watcher` now and at each change: 'connecting', 'live' or 'offline'. */
export function watchState(watcher) {
  stateWatchers.add(watcher);
  watcher(state);
}

addEventListener('online', () => {
  if (!ready) {
    hangUp();
    connect();
  }
});
