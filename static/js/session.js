// The signed-in user of this browser: signs in and out, creates the guest, notifies watchers of changes, also of those that
// another tab made or that the server tells.
// Does not contain: tokens (the cookie is HttpOnly), pages, forms.

import { idempotentRequest, request } from './api.js';
import { onAccessChange } from './live.js';

const watchers = new Set();
const makeGuest = idempotentRequest();
let user = null;
let pendingGuest = null;

// All tabs share one cookie: what one of them changes, the others read again.
const tabs = new BroadcastChannel('session');

function apply(next, elsewhere) {
  const other = (next?.id ?? null) !== (user?.id ?? null) || next?.role !== user?.role;
  user = next;
  for (const watcher of watchers) watcher(user, other, elsewhere);
  return other;
}

/** Takes over a user whose cookie this page has just got. */
function setUser(next) {
  if (apply(next, false)) tabs.postMessage('changed');
}

/** The user, a guest included, or null. */
export function currentUser() {
  return user;
}

/** The user if it has an account, or null for guests and visitors. */
export function signedInUser() {
  return user && user.role !== 'guest' ? user : null;
}

/** Whether the user works in the back office; what each role may do, the server decides. */
export function isStaff(who = user) {
  return ['read_only', 'support', 'manager', 'admin'].includes(who?.role);
}

/** Whether the user may remove other people's reviews. */
export function mayModerate() {
  return ['support', 'manager', 'admin'].includes(user?.role);
}

/**
 * Calls `watcher(user, other, elsewhere)` on each change; `other` is true when the user or the role is different,
 * `elsewhere` when this page did not cause it.
 */
export function onSessionChange(watcher) {
  watchers.add(watcher);
}

/** Reads the current user from the server. Asked once: the page waits for the answer. */
export async function loadSession() {
  apply((await request('GET', '/session', { once: true })).data.user, true);
}

const readAgain = () => loadSession().catch(() => {}); // the page stays as it is; its next request says what is wrong
tabs.addEventListener('message', readAgain);
onAccessChange(readAgain);

/** The user; creates a guest if there is none. Concurrent calls create one guest. */
export async function ensureUser() {
  if (user) return user;
  pendingGuest ??= makeGuest('POST', '/guest').finally(() => {
    pendingGuest = null;
  });
  const made = await pendingGuest;
  if (!user) setUser(made.user);
  return user;
}

export async function signIn(values) {
  const { data } = await request('POST', '/signin', { body: values });
  setUser(data.user);
  return data;
}

/** Registers and signs in; a guest keeps its id and cart and is signed in already. */
export async function signUp(values) {
  const { data } = await request('POST', '/user/', { body: values });
  if (user?.id === data.id) setUser(data);
  else await signIn({ email: values.email, password: values.password });
}

export async function signOut() {
  await request('POST', '/signout');
  setUser(null);
}

/** Replaces the user after the account was edited or deleted on the page. */
export function replaceUser(next) {
  setUser(next);
}
