// One article, and its comments as they are written.
import { account, ask } from '/web/api.js';
import { announce, avatar, h, problem, when } from '/web/dom.js';
import { favourite, tagList } from '/web/articles.js';
import { listen } from '/web/live.js';
import { reader } from '/web/reader.js';

/** The page of an article, what begins when it is shown, and what ends it. */
export async function articlePage(slug) {
  const path = `/articles/${encodeURIComponent(slug)}`;
  const { article, channel } = await ask('GET', path);
  const talk = comments(path, channel);
  return {
    title: article.title,
    begin: talk.begin,
    end: talk.end,
    elements: [
      h(
        'article',
        { class: 'reading' },
        h('h1', { tabindex: '-1' }, article.title),
        h('p', { class: 'lead' }, article.description),
        h('div', { class: 'byline' }, avatar(article.author.username), h('a', { href: `#/?author=${encodeURIComponent(article.author.username)}` }, article.author.username), when(article.createdAt), favourite(article)),
        h('div', { class: 'body' }, article.body),
        tagList(article.tagList),
      ),
      talk.element,
    ],
  };
}

function comments(path, channel) {
  const list = h('ol', { class: 'comments', id: 'comments' });
  const total = h('span', { class: 'total', id: 'comment-count' });
  const notice = h('div'); // of what was written
  const trouble = h('div'); // of what is read
  const shown = new Map(); // rows by id
  const gone = new Set(); // ids that were deleted: what is told of them may come later

  function add(comment, fresh) {
    if (shown.has(comment.id) || gone.has(comment.id)) return false;
    const row = h('li', { id: `comment-${comment.id}`, class: fresh ? 'fresh' : null });
    const mine = account.user?.username === comment.author.username;
    row.append(
      h('header', null, avatar(comment.author.username), h('b', null, comment.author.username), when(comment.createdAt), mine && h('button', { class: 'quiet', type: 'button', onclick: (e) => remove(comment.id, e.target), 'aria-label': 'Delete this comment' }, 'Delete')),
      h('p', null, comment.body),
    );
    const next = [...shown.keys()].filter((id) => id < comment.id).sort((a, b) => b - a)[0];
    list.insertBefore(row, shown.get(next) ?? null);
    shown.set(comment.id, row);
    count();
    return true;
  }

  function drop(id) {
    gone.add(id);
    hide(id);
  }

  // What is not there now may be with the next answer, which knows more.
  function hide(id) {
    const row = shown.get(id);
    if (!row) return;
    const focused = row.contains(document.activeElement);
    row.remove();
    shown.delete(id);
    count();
    if (focused) list.closest('section').querySelector('h2').focus();
  }

  function count() {
    total.textContent = String(shown.size);
    list.classList.toggle('none', shown.size === 0);
  }

  // What is there now, whatever was shown; but for what has come since it was asked.
  async function load(headers) {
    const before = [...shown.keys()];
    let all;
    try {
      all = (await ask('GET', `${path}/comments`, { headers })).comments;
    } catch (error) {
      const missing = error.status === 404;
      trouble.replaceChildren(problem(missing ? new Error('This article is not here any more: it was deleted, or has another title.') : error));
      if (!missing) throw error;
      return;
    }
    trouble.replaceChildren();
    const there = new Set(all.map((comment) => comment.id));
    for (const id of before) if (!there.has(id)) hide(id);
    for (const comment of all) add(comment, false);
    count();
  }

  async function remove(id, button) {
    button.disabled = true;
    try {
      await ask('DELETE', `${path}/comments/${id}`);
      drop(id);
      announce('The comment is deleted');
    } catch (error) {
      if (error.status === 404) return drop(id);
      button.disabled = false;
      notice.replaceChildren(problem(error));
    }
  }

  const text = h('textarea', { id: 'comment-text', rows: '3', required: true, maxlength: '30000', placeholder: 'What do you think?', 'aria-label': 'Your comment', oninput: () => (key = undefined) });
  const send = h('button', { type: 'submit' }, 'Comment');
  let key; // the same until what is sent is another: a second attempt writes no second comment
  async function submit(event) {
    event.preventDefault();
    if (!text.value.trim()) return;
    send.disabled = true;
    notice.replaceChildren();
    key ??= Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, '0')).join('');
    try {
      const { comment } = await ask('POST', `${path}/comments`, { body: { comment: { body: text.value } }, headers: { 'Idempotency-Key': `"${key}"` } });
      text.value = '';
      key = undefined;
      add(comment, true);
      announce('Your comment is there');
    } catch (error) {
      notice.replaceChildren(problem(error));
    }
    send.disabled = false;
    text.focus();
  }

  const reading = reader(load, 1000);
  const listener = {
    refresh: (why, headers) => reading.read(headers),
    onPublication: (told, { tags }) => {
      if (told.deleted) drop(told.deleted);
      else if (told.changed) reading.read({ 'Causal-Token': tags.token }); // the next one is shown meanwhile
      else if (add(told.comment, true)) announce(`New comment by ${told.comment.author.username}`);
    },
  };
  let stop;
  function begin() {
    stop = listen(channel, listener);
    reading.read(); // who is connected may not be able to listen
  }
  function end() {
    stop?.();
    reading.end();
  }

  const form = account.user
    ? h('form', { class: 'comment', onsubmit: submit }, text, h('div', { class: 'row' }, h('small', null, `as ${account.user.username}`), send))
    : h('p', { class: 'hint' }, h('a', { href: '#/login' }, 'Log in'), ' or ', h('a', { href: '#/register' }, 'register'), ' to comment.');
  return { element: h('section', { class: 'talk', 'aria-labelledby': 'talk-title' }, h('h2', { id: 'talk-title', tabindex: '-1' }, 'Comments ', total), form, notice, trouble, list), begin, end };
}
