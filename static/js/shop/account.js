// One's own account: name, address and password, sign-out, and the way to delete it all.
// Must never enter: other people's accounts, orders (they have their own page).

import { request } from '../api.js';
import { confirmDeed } from '../dialog.js';
import { h } from '../dom.js';
import { field, form } from '../forms.js';
import { whileBusy } from '../parts.js';
import { navigate, refresh } from '../router.js';
import { account, replaceUser, signOut } from '../session.js';
import { toast } from '../toasts.js';
import { signInFirst } from './sign_in.js';

function actionButton(text, props, work) {
  const button = h('button', { type: 'button', class: 'button', ...props }, text);
  button.addEventListener('click', () => whileBusy(button, () => work().catch((problem) => toast({ title: problem.message, tone: 'bad' }))));
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
    button: 'Save the name',
    buttonClass: 'button',
    test: 'account-form',
    buttonTest: 'account-save',
    submit: (values) => save(user, values),
  }).element;
}

function accessForm(user) {
  const email = field({
    name: 'email', label: 'E-mail', type: 'email', value: user.email, autocomplete: 'email', required: true, test: 'account-email',
    hint: user.email_verified ? 'Verified.' : 'Not verified yet: open the link in the letter we sent.',
  });
  return form({
    items: [
      email,
      field({ name: 'password', label: 'New password', type: 'password', autocomplete: 'new-password', hint: 'Leave it empty to keep the old one.', test: 'account-password' }),
      field({ name: 'current_password', label: 'Present password', type: 'password', autocomplete: 'current-password', required: true, test: 'account-current-password' }),
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
  const user = account();
  if (!user) return signInFirst('Account');

  const leave = actionButton('Sign out', { test: 'signout' }, async () => {
    await signOut();
    navigate('/');
  });
  const erase = actionButton('Delete the account', { class: 'button danger', test: 'account-delete' }, async () => {
    const sure = await confirmDeed({
      title: 'Delete the account?', text: 'Your name, address and cart are erased. Past orders stay, without your name. This cannot be undone.', agree: 'Delete for good',
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
      h('p', { class: 'link-row' }, h('a', { href: '/orders', test: 'orders-link' }, 'Your orders'), user.role === 'admin' && h('a', { href: '/admin' }, 'Back office')),
      nameForm(user),
      h('section', { class: 'account-part', 'aria-label': 'E-mail and password' }, accessForm(user)),
      h('section', { class: 'account-part account-end', 'aria-label': 'Leave' }, leave, erase)),
  };
}
