// The notification bell: the user's notifications as a list with unread marks, kept live; each new one is also a toast.
// Reads the list first, then subscribes from its last sequence, so that nothing is missed or shown twice.
// Does not contain: events of other topics.

import { get, request } from './api.js';
import { h } from './dom.js';
import { listen, resumeFrom, start } from './live.js';
import { emptyState, iconButton, errorBox } from './components.js';
import { ago } from './time.js';
import { toast } from './toasts.js';

/**
 * `linkFor(notification)` → where it leads, or null; `onNotification(notification)` is called for each live one.
 * Returns { element, follow(user) }.
 */
export function notificationBell({ linkFor, onNotification }) {
  const badge = h('span', { class: 'count', test: 'unread-count', hidden: true });
  const list = h('ul', { class: 'notes', test: 'notification-list' });
  const foot = h('div', { class: 'list-foot' });
  const panel = h('section', { class: 'panel', 'aria-label': 'Notifications', id: 'notifications', hidden: true },
    h('h2', {}, 'Notifications'), list, foot);
  const button = iconButton('bell', 'Notifications', { test: 'bell', 'aria-expanded': 'false', 'aria-controls': 'notifications' });
  button.append(badge);
  const element = h('div', { class: 'bell', hidden: true }, button, panel);

  let user = null;
  let shown = [];
  let unread = 0;
  let next = null;
  let following = null;

  const render = () => {
    badge.hidden = unread === 0;
    badge.textContent = unread > 99 ? '99+' : String(unread);
    button.setAttribute('aria-label', unread > 0 ? `Notifications, ${unread} unread` : 'Notifications');
    list.replaceChildren(...shown.map(renderEntry));
    if (shown.length === 0) foot.replaceChildren(emptyState('Nothing yet', 'Updates about your orders will appear here.'));
    else if (next) foot.replaceChildren(h('button', { class: 'button small', type: 'button', on: { click: readOlder } }, 'Older'));
    else foot.replaceChildren();
  };

  const renderEntry = (note) => {
    const link = linkFor(note);
    const title = link
      ? h('a', { href: link, on: { click: () => { open(false); markRead(note); } } }, note.title)
      : h('span', {}, note.title);
    return h('li', { class: note.read ? 'note' : 'note unread', test: 'notification', 'data-kind': note.kind },
      h('div', {}, h('p', { class: 'note-title' }, title), h('p', { class: 'muted' }, note.body), h('p', { class: 'small muted' }, ago(note.created_at))),
      !note.read && iconButton('check', `Mark as read: ${note.title}`, { on: { click: () => markRead(note) }, test: 'mark-read' }));
  };

  const markRead = async (note) => {
    if (note.read) return;
    note.read = true;
    unread = Math.max(0, unread - 1);
    render();
    // The pressed button is gone: the focus goes to the next one, or back to the bell.
    if (!panel.hidden) (list.querySelector('button') ?? button).focus();
    await request('POST', `/notifications/${note.id}/read`).catch((problem) => toast({ title: 'Not marked', body: problem.message, tone: 'bad' }));
  };

  const readOlder = async () => {
    const page = await get('/notifications/', { cursor: next });
    next = page.next;
    shown = [...shown, ...page.items];
    render();
  };

  const readFirst = async () => {
    const page = await get('/notifications/');
    shown = page.items;
    next = page.next;
    unread = page.unread;
    render();
    return { epoch: page.epoch, seq: page.seq };
  };

  const readElsewhere = ({ id }) => {
    const note = shown.find((known) => known.id === id);
    if (!note || note.read) return;
    note.read = true;
    unread = Math.max(0, unread - 1);
    render();
  };

  const arrived = (note) => {
    if (shown.some((known) => known.seq === note.seq)) return;
    shown = [{ ...note, read: false }, ...shown];
    unread += 1;
    render();
    onNotification?.(note);
    toast({ title: note.title, body: note.body, href: linkFor(note), tone: note.kind.endsWith('failed') ? 'bad' : 'good', lasting: true });
  };

  const open = (wanted) => {
    panel.hidden = !wanted;
    button.setAttribute('aria-expanded', String(wanted));
  };
  button.addEventListener('click', () => open(panel.hidden));
  element.addEventListener('keydown', (event) => {
    if (event.key !== 'Escape' || panel.hidden) return;
    open(false);
    button.focus();
  });
  document.addEventListener('click', (event) => {
    if (!panel.hidden && !event.composedPath().includes(element)) open(false);
  });

  /** Opens the live connection as this user, or anonymously for null. */
  const follow = async (nextUser) => {
    following?.abort();
    user = nextUser;
    element.hidden = !user;
    open(false);
    if (!user) {
      start(null, null);
      return;
    }
    const mine = new AbortController();
    following = mine;
    let resume = null;
    try {
      resume = await readFirst();
    } catch (problem) {
      foot.replaceChildren(errorBox(problem));
    }
    if (mine.signal.aborted) return;
    start(user.id, resume);
    listen('user', {
      event: (frame) => (frame.type === 'event' ? readElsewhere(frame.data) : arrived(frame)),
      lost: () => readFirst().then(resumeFrom, (problem) => foot.replaceChildren(errorBox(problem))),
    }, mine.signal);
  };

  return { element, follow };
}
