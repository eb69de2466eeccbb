// Lists of articles, and the form for a new one.
import { account, ask } from '/web/api.js';
import { announce, avatar, h, icon, icons, problem, when } from '/web/dom.js';

const perPage = 10;

const to = (query) => {
  const text = new URLSearchParams(Object.entries(query).filter(([, value]) => value)).toString();
  return text ? `#/?${text}` : '#/';
};

/** The page of a list: all, a tag's, an author's, or what those write whom the user follows. */
export async function listPage(query) {
  const { tag, author, feed } = Object.fromEntries(query);
  const page = Math.max(1, Number(query.get('page')) || 1);
  const part = new URLSearchParams({ limit: perPage, offset: (page - 1) * perPage });
  if (tag) part.set('tag', tag);
  if (author) part.set('author', author);
  const [{ articles, articlesCount }, tags] = await Promise.all([ask('GET', `/articles${feed && account.user ? '/feed' : ''}?${part}`), popular()]);
  const pages = Math.ceil(articlesCount / perPage);
  const title = tag ? `Tagged “${tag}”` : author ? `By ${author}` : feed ? 'Your feed' : 'Latest';
  const turn = (other, text) => h('a', { href: to({ tag, author, feed, page: other > 1 && other }) }, text);
  return {
    title,
    elements: [
      h('div', { class: 'heading' }, h('h1', { tabindex: '-1' }, title), tabs({ tag, author, feed })),
      tags.length > 0 && h('nav', { class: 'tags', 'aria-label': 'Tags' }, tags.map((name) => h('a', { href: to({ tag: name }), 'aria-current': name === tag && 'page' }, name))),
      articles.length ? h('ol', { class: 'articles' }, articles.map(row)) : h('p', { class: 'hint' }, 'There is nothing here yet.'),
      pages > 1 &&
        h('nav', { class: 'pages', 'aria-label': 'Pages' }, page > 1 ? turn(page - 1, '← Newer') : h('span'), h('span', null, `Page ${page} of ${pages.toLocaleString()}`), page < pages ? turn(page + 1, 'Older →') : h('span')),
    ],
  };
}

function tabs({ tag, author, feed }) {
  if (!account.user) return (tag || author) && h('nav', { class: 'tabs', 'aria-label': 'Lists' }, h('a', { href: '#/' }, 'All articles'));
  const here = (is) => is && 'page';
  return h('nav', { class: 'tabs', 'aria-label': 'Lists' }, h('a', { href: '#/', 'aria-current': here(!tag && !author && !feed) }, 'All articles'), h('a', { href: to({ feed: 1 }), 'aria-current': here(feed) }, 'Your feed'));
}

// Those of late, or those that are used most.
async function popular() {
  const { tags } = await ask('GET', '/tags/popular?days=30&limit=12').catch(() => ({ tags: [] }));
  if (tags.length >= 5) return tags.map((tag) => tag.name);
  return (await ask('GET', '/tags')).tags.slice(0, 12);
}

function row(article) {
  const link = `#/article/${encodeURIComponent(article.slug)}`;
  return h(
    'li',
    null,
    h('div', { class: 'byline' }, avatar(article.author.username), h('a', { href: to({ author: article.author.username }) }, article.author.username), when(article.createdAt), favourite(article)),
    h('h2', null, h('a', { href: link }, article.title)),
    h('p', null, article.description),
    tagList(article.tagList),
  );
}

export function tagList(tags) {
  return tags.length > 0 && h('ul', { class: 'tags' }, tags.map((tag) => h('li', null, h('a', { href: to({ tag }) }, tag))));
}

/** The button by which an article is liked, or not any more. */
export function favourite(article) {
  const count = h('span');
  const button = h('button', { class: 'favourite', type: 'button', onclick: toggle }, icon(icons.heart), count);
  let { favorited, favoritesCount } = article;
  const show = () => {
    count.textContent = favoritesCount.toLocaleString();
    button.setAttribute('aria-pressed', String(favorited));
    button.setAttribute('aria-label', `Like, ${favoritesCount} ${favoritesCount === 1 ? 'does' : 'do'}`);
  };
  async function toggle() {
    if (!account.user) return (location.hash = '#/login');
    button.disabled = true;
    try {
      const { article: now } = await ask(favorited ? 'DELETE' : 'POST', `/articles/${encodeURIComponent(article.slug)}/favorite`);
      ({ favorited, favoritesCount } = now);
      show();
    } catch (error) {
      announce(error.message);
    }
    button.disabled = false;
    button.focus();
  }
  show();
  return button;
}

/** The page for a new article. */
export function newPage() {
  const field = (name, label, attributes, tag = 'input') => h('label', null, h('span', null, label), h(tag, { name, required: true, ...attributes }));
  const notice = h('div');
  const send = h('button', { type: 'submit' }, 'Publish');
  async function submit(event) {
    event.preventDefault();
    const { title, description, body, tags } = Object.fromEntries(new FormData(event.target));
    send.disabled = true;
    try {
      const { article } = await ask('POST', '/articles', { body: { article: { title, description, body, tagList: tags.split(',').map((t) => t.trim()).filter(Boolean) } } });
      location.hash = `#/article/${encodeURIComponent(article.slug)}`;
    } catch (error) {
      notice.replaceChildren(problem(error));
      send.disabled = false;
    }
  }
  return {
    title: 'Write',
    elements: [
      h('h1', { tabindex: '-1' }, 'Write an article'),
      h(
        'form',
        { class: 'sheet', onsubmit: submit },
        field('title', 'Title', { maxlength: '255' }),
        field('description', 'What is it about?', { maxlength: '1000' }),
        field('body', 'Text', { rows: '12', maxlength: '200000' }, 'textarea'),
        field('tags', 'Tags, separated by commas', { required: false }),
        notice,
        h('div', { class: 'row' }, h('span'), send),
      ),
    ],
  };
}
