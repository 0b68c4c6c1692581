// Signing in with a code: the field that sign-in forms show when an account needs one, and the part of the account page
// that sets it up and switches it off.
// Does not contain: the check of a code, which the server does.

import { request } from './api.js';
import { withBusyState } from './components.js';
import { h, replaceContent } from './dom.js';
import { field, form } from './forms.js';
import { replaceUser } from './session.js';
import { toast } from './toasts.js';

/**
 * A code field that is hidden until it is needed. `withCode(work)` runs `work`, and shows the field instead of an error
 * when the server asks for a code.
 */
export function codeField() {
  const code = field({
    name: 'code', label: 'Code', autocomplete: 'one-time-code', inputmode: 'numeric', test: 'signin-code',
    hint: 'From your authenticator app, or one of your recovery codes.',
  });
  code.element.hidden = true;
  const withCode = async (work) => {
    try {
      await work();
    } catch (problem) {
      if (problem.code !== 'second_factor_required') throw problem;
      code.element.hidden = false;
      code.input.required = true;
      code.input.focus();
      throw new Error('Please enter the code of your authenticator app.');
    }
  };
  return { code, withCode };
}

/** The values of a sign-in form, without an empty code. */
export function credentials({ code, ...values }) {
  return code ? { ...values, code } : values;
}

function recoveryCodes(codes, done) {
  const finish = h('button', { class: 'button', type: 'button', test: 'totp-done' }, 'I have saved them');
  finish.addEventListener('click', done);
  return h('div', { test: 'recovery-codes' },
    h('p', {}, 'Sign-in with a code is on. Keep these recovery codes in a safe place: each signs you in once if you lose your phone. They are not shown again.'),
    h('ul', { class: 'codes' }, codes.map((code) => h('li', {}, h('code', {}, code)))), finish);
}

/** Part of the account page. `refresh()` renders the page again. */
export function secondFactorPart(user, refresh) {
  const place = h('div', {});
  const changed = (on) => replaceUser({ ...user, second_factor: on });

  const showOff = () => {
    const begin = h('button', { class: 'button', type: 'button', test: 'totp-begin' }, 'Set up');
    begin.addEventListener('click', () => withBusyState(begin, async () => {
      try {
        showEnrolment((await request('POST', `/user/${user.id}/totp`)).data);
      } catch (problem) {
        toast({ title: problem.message, tone: 'bad' });
      }
    }));
    replaceContent(place, h('p', { class: 'muted' }, 'Off. With an authenticator app, signing in takes a code besides your password.'), begin);
  };

  const showEnrolment = ({ secret, qr_svg: picture, otpauth_url: url }) => {
    const image = h('img', { src: `data:image/svg+xml,${encodeURIComponent(picture)}`, alt: 'QR code for your authenticator app', width: 220, height: 220 });
    const confirm = form({
      items: [field({ name: 'code', label: 'Code', autocomplete: 'one-time-code', inputmode: 'numeric', required: true, test: 'totp-code' })],
      button: 'Switch on',
      test: 'totp-form',
      buttonTest: 'totp-confirm',
      submit: async ({ code }) => {
        const { data } = await request('POST', `/user/${user.id}/totp/confirm`, { body: { code } });
        replaceContent(place, recoveryCodes(data.recovery_codes, () => { changed(true); refresh(); }));
      },
    });
    replaceContent(place, h('p', {}, 'Scan this code with your app, or ', h('a', { href: url }, 'open it on this device'), '. Then enter the code that the app shows.'),
      image, h('p', { class: 'small muted' }, 'Secret: ', h('code', { class: 'break', test: 'totp-secret' }, secret)), confirm.element);
  };

  const showOn = () => {
    const off = form({
      items: [field({ name: 'code', label: 'Code', autocomplete: 'one-time-code', required: true, test: 'totp-off-code', hint: 'From your authenticator app, or a recovery code.' })],
      button: 'Switch off',
      buttonClass: 'button',
      test: 'totp-off-form',
      buttonTest: 'totp-off',
      submit: async ({ code }) => {
        await request('DELETE', `/user/${user.id}/totp`, { body: { code } });
        changed(false);
        refresh();
        toast({ title: 'Sign-in with a code is off', tone: 'good' });
      },
    });
    replaceContent(place, h('p', {}, 'On: signing in takes a code besides your password.'), off.element);
  };

  if (user.second_factor) showOn();
  else showOff();
  return h('section', { class: 'account-part', 'aria-label': 'Sign-in with a code' }, h('h2', {}, 'Sign-in with a code'), place);
}
