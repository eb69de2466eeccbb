// The bell: what is for who looks, and how much of it is new.
import { ask } from '/web/api.js';
import { announce, avatar, h, icon, icons, when } from '/web/dom.js';
import { listen } from '/web/live.js';
import { reader } from '/web/reader.js';

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

  // Many at once would use up what a user may ask in a minute.
  const reading = reader(load, 3000);

  async function markRead() {
    read.disabled = true;
    try {
      await ask('PUT', '/notifications/read', { body: { notifications: { upTo: newest } } });
      reading.read({}, true);
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
    refresh: (why, headers) => reading.read(headers),
    // It is not waited for: the next one may come, and is read with it.
    onPublication: (data, { tags }) => void reading.read({ 'Causal-Token': tags.token }),
  });
  reading.read(); // who is connected may not be able to listen
  // Another window may have read them.
  const looked = () => document.visibilityState === 'visible' && reading.read();
  document.addEventListener('visibilitychange', looked);
  return {
    elements: [button, panel],
    end() {
      ended = true;
      stop();
      reading.end();
      document.removeEventListener('visibilitychange', looked);
      document.body.dataset.unread = '';
    },
  };
}
