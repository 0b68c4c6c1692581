// The account page: name, e-mail and password, sign-out, deletion of the account.
// Does not contain: other users' accounts, orders (they have their own page).

import { request } from '../api.js';
import { confirmDialog } from '../dialog.js';
import { h } from '../dom.js';
import { field, form } from '../forms.js';
import { withBusyState } from '../components.js';
import { navigate, refresh } from '../router.js';
import { secondFactorPart } from '../second_factor.js';
import { isStaff, signedInUser, replaceUser, signOut } from '../session.js';
import { toast } from '../toasts.js';
import { signInRequired } from './sign_in.js';

function actionButton(text, props, work) {
  const button = h('button', { type: 'button', class: 'button', ...props }, text);
  button.addEventListener('click', () => withBusyState(button, () => work().catch((problem) => toast({ title: problem.message, tone: 'bad' }))));
  return button;
}

async function save(user, changes) {
  const { data } = await request('PATCH', `/user/${user.id}`, { body: changes });
  replaceUser(data);
  refresh();
  toast({ title: 'Saved', tone: 'good' });
}

function nameForm(user) {
  return form({
    items: [field({ name: 'name', label: 'Name', value: user.name, autocomplete: 'name', required: true, test: 'account-name' })],
    button: 'Save name',
    buttonClass: 'button',
    test: 'account-form',
    buttonTest: 'account-save',
    submit: (values) => save(user, values),
  }).element;
}

function emailHint(user) {
  if (user.pending_email) return `Will change to ${user.pending_email} when you open the link in the e-mail we sent there.`;
  return user.email_verified ? 'Confirmed.' : 'Not confirmed yet: open the link in the e-mail we sent.';
}

function accessForm(user) {
  const email = field({
    name: 'email', label: 'E-mail', type: 'email', value: user.email, autocomplete: 'email', required: true, test: 'account-email',
    hint: emailHint(user),
  });
  return form({
    items: [
      email,
      field({ name: 'password', label: 'New password', type: 'password', autocomplete: 'new-password', hint: 'Leave blank to keep your current password.', test: 'account-password' }),
      field({ name: 'current_password', label: 'Current password', type: 'password', autocomplete: 'current-password', required: true, test: 'account-current-password' }),
    ],
    button: 'Save e-mail and password',
    buttonClass: 'button',
    test: 'access-form',
    buttonTest: 'access-save',
    submit: async (values) => {
      const changes = { current_password: values.current_password };
      if (values.email !== user.email) changes.email = values.email;
      if (values.password) changes.password = values.password;
      await save(user, changes);
    },
  }).element;
}

export function accountView() {
  const user = signedInUser();
  if (!user) return signInRequired('Account');

  const leave = actionButton('Sign out', { test: 'signout' }, async () => {
    await signOut();
    navigate('/');
  });
  const erase = actionButton('Delete account', { class: 'button danger', test: 'account-delete' }, async () => {
    const sure = await confirmDialog({
      title: 'Delete your account?', text: 'Your name, address and cart are erased. Past orders are kept without your name. This cannot be undone.', confirmLabel: 'Delete permanently',
    });
    if (!sure) return;
    await request('DELETE', `/user/${user.id}`);
    replaceUser(null);
    navigate('/');
  });

  return {
    title: 'Account',
    element: h('div', { class: 'small-page' },
      h('h1', {}, 'Account'),
      h('p', { class: 'link-row' }, h('a', { href: '/orders', test: 'orders-link' }, 'Your orders'), h('a', { href: '/addresses', test: 'addresses-link' }, 'Your addresses'), isStaff() && h('a', { href: '/admin' }, 'Back office')),
      nameForm(user),
      h('section', { class: 'account-part', 'aria-label': 'E-mail and password' }, accessForm(user)),
      secondFactorPart(user, refresh),
      h('section', { class: 'account-part account-end', 'aria-label': 'Leave' }, leave, erase)),
  };
}
