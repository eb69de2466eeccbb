// The forms to log in and to register.
import { session } from '/web/api.js';
import { h, problem } from '/web/dom.js';

const forms = {
  login: { title: 'Welcome back', send: 'Log in', other: ['New here?', '#/register', 'Register'] },
  register: { title: 'Join Conduit', send: 'Register', other: ['Have an account?', '#/login', 'Log in'] },
};

/** The page of a form. entered is called when somebody has logged in. */
export function accountPage(kind, entered) {
  const { title, send, other } = forms[kind];
  const notice = h('div');
  const button = h('button', { type: 'submit' }, send);
  const field = (name, label, attributes) => h('label', null, h('span', null, label), h('input', { name, required: true, ...attributes }));
  async function submit(event) {
    event.preventDefault();
    button.disabled = true;
    notice.replaceChildren();
    try {
      await session('POST', kind, { user: Object.fromEntries(new FormData(event.target)) });
      entered();
    } catch (error) {
      notice.replaceChildren(problem(error));
      button.disabled = false;
    }
  }
  return {
    title: send,
    elements: [
      h(
        'div',
        { class: 'card' },
        h('h1', { tabindex: '-1' }, title),
        h(
          'form',
          { class: 'sheet', onsubmit: submit },
          kind === 'register' && field('username', 'Name', { autocomplete: 'username', maxlength: '64' }),
          field('email', 'E-mail', { type: 'email', autocomplete: kind === 'login' ? 'username' : 'email' }),
          field('password', 'Password', { type: 'password', minlength: kind === 'register' && '8', autocomplete: kind === 'login' ? 'current-password' : 'new-password' }),
          notice,
          button,
        ),
        h('p', { class: 'hint' }, other[0], ' ', h('a', { href: other[1] }, other[2])),
      ),
    ],
  };
}
