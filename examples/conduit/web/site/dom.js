// What pages are made of. Data is text, always: nothing here reads it as markup.

/** An element with attributes, listeners (onclick, ...) and children; what is null or false is left out. */
export function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value == null || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.flat().filter((child) => child != null && child !== false));
  return element;
}

const SVG = 'http://www.w3.org/2000/svg';

/** A drawing of one path. */
export function icon(path) {
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('viewBox', '0 0 24 24');
  svg.setAttribute('aria-hidden', 'true');
  const line = document.createElementNS(SVG, 'path');
  line.setAttribute('d', path);
  svg.append(line);
  return svg;
}

export const icons = {
  bell: 'M6 17V11a6 6 0 0 1 12 0v6l2 2H4zM10 21.5h4',
  heart: 'M12 20s-7.5-4.6-7.5-10A4.2 4.2 0 0 1 12 7.3 4.2 4.2 0 0 1 19.5 10c0 5.4-7.5 10-7.5 10z',
};

/** The first sign of a name in a colour of its own: pictures would be from elsewhere, and tell there who reads what. */
export function avatar(name) {
  let sum = 0;
  for (const sign of name) sum = (sum * 31 + sign.codePointAt(0)) % 997;
  return h('span', { class: `avatar hue-${sum % 8}`, 'aria-hidden': 'true' }, [...name][0]?.toUpperCase() ?? '?');
}

const day = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium' });
const minute = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'short' });
const distance = new Intl.RelativeTimeFormat(undefined, { numeric: 'auto' });

function since(date) {
  const seconds = (Date.now() - date) / 1000;
  if (seconds < 45) return 'just now';
  if (seconds < 3600) return distance.format(-Math.round(seconds / 60), 'minute');
  if (seconds < 86400) return distance.format(-Math.round(seconds / 3600), 'hour');
  return seconds < 7 * 86400 ? distance.format(-Math.round(seconds / 86400), 'day') : day.format(date);
}

/** When something was, which stays right while the page is open: see below. */
export function when(text) {
  const date = new Date(text);
  return h('time', { datetime: text, title: minute.format(date) }, since(date));
}

setInterval(() => {
  for (const time of document.querySelectorAll('time')) time.textContent = since(new Date(time.dateTime));
}, 30000);

/** Says something to who does not see the page. */
export function announce(text) {
  document.getElementById('announce').textContent = text;
}

/** What went wrong, in a form or instead of a page. */
export function problem(error) {
  return h('p', { class: 'problem', role: 'alert' }, error.message);
}
