// Which page is shown, and to whom.
import { account, session } from '/web/api.js';
import { accountPage } from '/web/account.js';
import { articlePage } from '/web/article.js';
import { listPage, newPage } from '/web/articles.js';
import { bell } from '/web/bell.js';
import { announce, avatar, h, problem } from '/web/dom.js';
import { restart } from '/web/live.js';

const main = document.getElementById('main');
let page; // that is shown
let shows = 0; // how many were asked for: an older one that comes later is not shown
let title = 'Conduit';
let back = '#/'; // where a form was come to from
let rings; // the bell

const route = () => {
  const [path, query = ''] = (location.hash.slice(1) || '/').split('?');
  return { path, query: new URLSearchParams(query) };
};

function find() {
  const { path, query } = route();
  const [, name, rest] = path.split('/');
  if (name === 'article' && rest) return articlePage(decodeURIComponent(rest));
  if (name === 'login' || name === 'register') return accountPage(name, entered);
  if (name === 'new' && account.user) return newPage();
  return listPage(query);
}

async function show(focus = true) {
  const number = ++shows;
  if (!/^#\/(login|register)/.test(location.hash)) back = location.hash || '#/';
  main.setAttribute('aria-busy', 'true');
  let next;
  try {
    next = await find();
  } catch (error) {
    const again = h('button', { type: 'button', onclick: () => show() }, 'Try again');
    next = { title: 'Conduit', elements: [h('h1', { tabindex: '-1' }, error.status === 404 ? 'There is no such page' : 'That did not work'), problem(error), error.status !== 404 && again] };
  }
  if (number !== shows) return;
  page?.end?.();
  page = next;
  page.begin?.(); // not before: it would take what the one that is shown listens to
  main.replaceChildren(...page.elements.filter(Boolean));
  main.removeAttribute('aria-busy');
  title = page.title;
  name();
  if (!focus) return;
  scrollTo(0, 0);
  main.querySelector('h1')?.focus({ preventScroll: true });
}

function name() {
  document.title = (document.body.dataset.unread ?? '') + (title === 'Conduit' ? title : `${title} · Conduit`);
}

function header() {
  rings?.end();
  rings = account.user && bell(account.channel);
  const bar = document.getElementById('account');
  if (!account.user) return bar.replaceChildren(h('a', { href: '#/login' }, 'Log in'), h('a', { href: '#/register', class: 'button' }, 'Register'));
  const { username } = account.user;
  bar.replaceChildren(
    h('a', { href: '#/new' }, 'Write'),
    ...rings.elements,
    h('a', { href: `#/?author=${encodeURIComponent(username)}`, class: 'me', id: 'me' }, avatar(username), h('span', null, username)),
    h('button', { class: 'quiet', type: 'button', id: 'logout', onclick: leave }, 'Log out'),
  );
}

// Who looks is another.
function changed() {
  restart();
  header();
}

function entered() {
  changed();
  location.hash = back;
}

async function leave() {
  try {
    await session('POST', 'logout');
  } catch (error) {
    return announce(error.message);
  }
  changed();
  show();
}

let looking; // a timer
let wait = 0;
let cut = false; // the connection has ended with its session

// It may have ended, or be another's: here or in another window.
async function look(event) {
  if (event?.type === 'session') cut = true;
  clearTimeout(looking);
  try {
    const other = await session();
    if (other) {
      changed();
      show(false);
    } else if (cut) restart();
    cut = false;
    wait = 0;
  } catch {
    lookLater();
  }
}

// Where it cannot be asked it is asked again, by all pages that there are, and not by all at a time.
function lookLater() {
  clearTimeout(looking);
  wait = Math.min(60000, wait ? 2 * wait : 4000);
  looking = setTimeout(look, wait * (0.5 + Math.random()));
}

addEventListener('session', look);
document.addEventListener('visibilitychange', (event) => document.visibilityState === 'visible' && look(event));
addEventListener('unread', name);
addEventListener('hashchange', (event) => {
  // The link to skip is none of a page.
  if (location.hash === '#main') return history.replaceState(null, '', new URL(event.oldURL).hash || '#/');
  show();
});

try {
  await session();
} catch {
  lookLater(); // what everybody may read is read meanwhile
  account.live = true;
}
changed();
show(false);
