// The only HTTP client. Turns calls into requests of the REST API and responses into values or `Problem`s, retries what is
// safe to retry, and gives writes their CSRF header and idempotency key.
// Does not contain: pages, tokens (the cookie is HttpOnly), knowledge of single resources.

const BASE = '/api/v1';
const ATTEMPTS_MAX = 4;
const TIMEOUT = 20_000;

/** A rejected or failed request: the server's problem document, or a network failure (status 0). */
export class Problem extends Error {
  constructor({ status = 0, code = 'network', title = '', detail = '', errors = [], request_id: requestId = '' }, retryAfter = 0) {
    super(detail || title || 'Something went wrong.');
    this.status = status;
    this.code = code;
    this.errors = errors;
    this.requestId = requestId;
    this.retryAfter = retryAfter;
  }

  /** Whether the request was definitely rejected, so that the next attempt is a new request. */
  get refused() {
    return this.status >= 400 && this.status < 500 && this.code !== 'request_in_progress';
  }
}

let unauthenticated = () => {};

/** Calls `handler(problem)` on every 401. */
export function onUnauthenticated(handler) {
  unauthenticated = handler;
}

/** A fresh idempotency key. (Not `randomUUID`: that is missing on plain http outside localhost.) */
function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

function sleep(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener('abort', () => {
      clearTimeout(timer);
      reject(signal.reason);
    }, { once: true });
  });
}

function address(path, query) {
  const url = new URL(BASE + path, location.origin);
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== undefined && value !== null && value !== '') url.searchParams.set(name, value);
  }
  return url;
}

async function parseProblem(response) {
  const retryAfter = Number(response.headers.get('Retry-After')) || 0;
  let document = {};
  if (/json/.test(response.headers.get('Content-Type') ?? '')) document = await response.json().catch(() => ({}));
  return new Problem({ code: 'unknown', title: `The shop answered ${response.status}.`, ...document, status: response.status }, retryAfter);
}

async function fetchOnce(method, url, { body, headers, signal }) {
  const limit = AbortSignal.timeout(TIMEOUT);
  try {
    const response = await fetch(url, {
      method, body, headers, credentials: 'same-origin', signal: signal ? AbortSignal.any([signal, limit]) : limit,
    });
    if (!response.ok) throw await parseProblem(response);
    const isJson = /json/.test(response.headers.get('Content-Type') ?? '');
    return { data: isJson ? await response.json() : null, etag: response.headers.get('ETag') };
  } catch (failure) {
    if (failure instanceof Problem || signal?.aborted) throw failure;
    throw new Problem({ detail: 'The shop cannot be reached. Check your connection and try again.' });
  }
}

function mayRetry(failure, repeatable) {
  return repeatable && failure instanceof Problem
    && (failure.status === 0 || failure.status === 503 || failure.code === 'request_in_progress');
}

/** One request. Reads, and writes with a `key`, are retried after a network failure or a 503, unless asked `once`. */
export async function request(method, path, { query, body, key, ifMatch, signal, once } = {}) {
  const isForm = body instanceof FormData;
  const headers = { Accept: 'application/json' };
  if (method !== 'GET') headers['X-Requested-With'] = 'mercat';
  if (body !== undefined && !isForm) headers['Content-Type'] = 'application/json';
  if (key) headers['Idempotency-Key'] = key;
  if (ifMatch) headers['If-Match'] = ifMatch;
  const options = { headers, signal, body: body === undefined || isForm ? body : JSON.stringify(body) };
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await fetchOnce(method, address(path, query), options);
    } catch (failure) {
      if (failure.status === 401) unauthenticated(failure);
      if (once || attempt === ATTEMPTS_MAX || !mayRetry(failure, method === 'GET' || Boolean(key))) throw failure;
      const backoff = 250 * 2 ** attempt * (0.5 + Math.random());
      await sleep(Math.max(backoff, Math.min(failure.retryAfter, 5) * 1000), signal);
    }
  }
}

/** GET of a file, as a Blob. */
export async function requestFile(path, type) {
  const response = await fetch(address(path), { headers: { Accept: type }, credentials: 'same-origin', signal: AbortSignal.timeout(TIMEOUT) });
  if (!response.ok) throw await parseProblem(response);
  return response.blob();
}

/** GET, the body alone. */
export async function get(path, query, signal) {
  return (await request('GET', path, { query, signal })).data;
}

/**
 * One thing the customer wants done once (pay this, add that). Every try of the same request carries the same key, also
 * when the customer presses the button again after a failure; a definite answer ends it, and the next call is a new lastRequest.
 */
export function idempotentRequest() {
  let key = null;
  let lastRequest = null;
  return async (method, path, body) => {
    const now = JSON.stringify([method, path, body]);
    if (key === null || lastRequest !== now) {
      key = newKey();
      lastRequest = now;
    }
    try {
      const { data } = await request(method, path, { body, key });
      key = null;
      return data;
    } catch (failure) {
      if (failure.refused) key = null;
      throw failure;
    }
  };
}
