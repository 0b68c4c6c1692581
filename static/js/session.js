// The signed-in user of this page: signs in and out, creates the guest, notifies watchers of changes.
// Does not contain: tokens (the cookie is HttpOnly), pages, forms.

import { get, idempotentRequest, request } from './api.js';

const watchers = new Set();
const makeGuest = idempotentRequest();
let user = null;
let pendingGuest = null;

function setUser(next) {
  const other = (next?.id ?? null) !== (user?.id ?? null) || next?.role !== user?.role;
  user = next;
  for (const watcher of watchers) watcher(user, other);
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

/** Calls `watcher(user, other)` on each change; `other` is true when the user or the role is different. */
export function onSessionChange(watcher) {
  watchers.add(watcher);
}

/** Reads the current user from the server. Asked once: the page waits for the answer. */
export async function loadSession() {
  try {
    setUser((await request('GET', '/me', { once: true })).data);
  } catch (failure) {
    if (failure.status !== 401) throw failure;
    setUser(null);
  }
}

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
