// The bell: what is for who looks, and how much of it is new.
import { ask } from '/web/api.js';
import { announce, avatar, h, icon, icons, when } from '/web/dom.js';
import { connected, listen } from '/web/live.js';

const says = { article: 'has published', comment: 'has commented on', favorite: 'likes' };

/** The bell of a user, and what ends it. */
export function bell(channel) {
  const count = h('span', { class: 'count', id: 'unread', hidden: true });
  const button = h('button', { class: 'bell', type: 'button', popovertarget: 'notices', 'aria-label': 'Notifications' }, icon(icons.bell), count);
  const list = h('ol', { class: 'notices' });
  const read = h('button', { class: 'quiet', type: 'button', id: 'mark-read', onclick: markRead }, 'Mark all as read');
  const panel = h('section', { id: 'notices', popover: 'auto', 'aria-label': 'Notifications' }, h('header', null, h('h2', null, 'Notifications'), read), list);
  let newest = 0;
  let unread = -1;
  let before = Promise.resolve();
  let waiting;
  let ended = false;

  async function load(headers) {
    const { notifications, unreadCount } = await ask('GET', '/notifications?limit=20', { headers });
    if (ended) return;
    newest = notifications[0]?.id ?? 0;
    list.replaceChildren(...notifications.map(row));
    if (!notifications.length) list.append(h('li', { class: 'empty' }, 'Nothing yet. What others do with your articles is told here.'));
    const many = unreadCount >= 100 ? '99+' : String(unreadCount);
    count.textContent = many;
    count.hidden = read.hidden = unreadCount === 0;
    button.setAttribute('aria-label', unreadCount ? `Notifications, ${many} unread` : 'Notifications');
    document.body.dataset.unread = unreadCount ? `(${many}) ` : '';
    dispatchEvent(new Event('unread'));
    if (unread >= 0 && unreadCount > unread) announce(`${many} unread notifications`);
    unread = unreadCount;
  }

  // One after the other, so that an older answer does not come last; those that wait are one, which has seen what each has.
  function reload({ 'Causal-Token': token } = {}) {
    if (!waiting) {
      const next = { tokens: new Set() };
      next.done = before.then(() => {
        waiting = undefined;
        return load(next.tokens.size ? { 'Causal-Token': [...next.tokens].join(', ') } : {});
      });
      before = next.done.catch(() => {});
      waiting = next;
    }
    if (token) waiting.tokens.add(token);
    return waiting.done;
  }

  async function markRead() {
    read.disabled = true;
    try {
      await ask('PUT', '/notifications/read', { body: { notifications: { upTo: newest } } });
      await reload();
      button.focus();
    } catch (error) {
      announce(error.message);
    }
    read.disabled = false;
  }

  function row({ kind, actor, article, createdAt, read }) {
    return h(
      'li',
      { class: read ? null : 'new' },
      h(
        'a',
        { href: `#/article/${encodeURIComponent(article.slug)}`, onclick: () => panel.hidePopover() },
        avatar(actor.username),
        h('span', null, h('b', null, actor.username), ` ${says[kind]} `, h('em', null, article.title), h('small', null, when(createdAt), !read && h('span', { class: 'unseen' }, ', unread'))),
      ),
    );
  }

  const stop = listen(channel, {
    refresh: (why, headers) => reload(headers),
    // It is not waited for: the next one may come, and is read with it.
    onPublication: (data, { tags }) => void reload({ 'Causal-Token': tags.token }).catch(() => {}),
  });
  if (!connected()) reload().catch(() => {});
  // Another window may have read them.
  const looked = () => document.visibilityState === 'visible' && rereload().catch(() => {});
  document.addEventListener('visibilitychange', looked);
  return {
    elements: [button, panel],
    end() {
      ended = true;
      stop();
      document.removeEventListener('visibilitychange', looked);
      document.body.dataset.unread = '';
    },
  };
}
