// The API, as who looks: with a session by this page's server, which has the token; without one as everybody.

/** Who looks, and where he hears what is for him. */
export const account = { user: null, channel: '', live: false };

// What this page has seen of the database: what it reads is at least as new.
const seen = new Set();

export class Failure extends Error {
  constructor(status, message, headers) {
    super(message);
    this.status = status;
    this.after = Number(headers?.get('Retry-After')) || 0; // seconds
    this.away = headers?.get('Conduit-Away') ?? ''; // what cannot be asked: sessions
  }
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + '.';

async function failure(answer) {
  const said = await answer.json().catch(() => ({}));
  const messages = Object.entries(said.errors ?? {}).flatMap(([field, all]) => all.map((message) => sentence(`${field} ${message}`)));
  return new Failure(answer.status, messages.join(' ') || said.detail || said.title || `The server has answered ${answer.status}.`, answer.headers);
}

async function send(method, path, { body, headers = {} } = {}) {
  // The newest few are enough, and more are not looked at.
  const tokens = new Set([...seen, ...(headers['Causal-Token']?.split(', ') ?? [])]);
  if (tokens.size) headers = { ...headers, 'Causal-Token': [...tokens].slice(-4).join(', ') };
  if (body !== undefined) headers = { ...headers, 'Content-Type': 'application/json' };
  let answer;
  try {
    // What is only read is asked again; of what is not, somebody has to see what has become of it.
    const signal = method === 'GET' ? AbortSignal.timeout(20000) : undefined;
    answer = await fetch(path, { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw new Failure(0, 'The server cannot be reached.');
  }
  const token = answer.headers.get('Causal-Token');
  if (token) {
    seen.delete(token);
    seen.add(token);
    if (seen.size > 2) seen.delete(seen.values().next().value);
  }
  if (!answer.ok) throw await failure(answer);
  return answer;
}

// What only a user may read.
const own = /^\/(user|notifications|articles\/feed)/;

/** Asks the API. The answer's channel is where is told what happens to what it is about. */
export async function ask(method, path, options) {
  try {
    return await content(await send(method, (account.user ? '/web/api' : '/api') + path, options));
  } catch (error) {
    // While sessions are away, what everybody may read is read as everybody does. Who is refused for another reason is not to ask again at once.
    if (error.away === 'sessions' && account.user && method === 'GET' && !own.test(path)) return content(await send(method, '/api' + path, options));
    if (error.status === 401 && account.user) dispatchEvent(new Event('session')); // it has ended
    throw error;
  }
}

async function content(answer) {
  const said = answer.status === 204 ? {} : await answer.json();
  return Object.defineProperty(said, 'channel', { value: answer.headers.get('Realtime-Channel') ?? '' });
}

/** Does something with the session, and takes over who looks now. */
export async function session(method = 'GET', what = 'session', body) {
  const answer = await send(method, '/web/' + what, { body });
  const now = answer.status === 204 ? { user: null, channel: '', live: account.live } : await answer.json();
  const changed = now.user?.username !== account.user?.username;
  Object.assign(account, now);
  return changed;
}
