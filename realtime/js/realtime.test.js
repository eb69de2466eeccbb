// What the module does with a gateway that says what real ones seldom say: TestModule in examples/conduit/contract runs these in a browser.

let Realtime;
const real = { WebSocket: globalThis.WebSocket, fetch: globalThis.fetch, EventSource: globalThis.EventSource };
let sockets;
let asked; // of fetch
let reply; // to a command of a socket
let answer; // to fetch

class Socket {
  constructor(url) {
    Object.assign(this, { url, readyState: 0, sent: [] });
    sockets.push(this);
    setTimeout(() => {
      this.readyState = 1;
      this.onopen();
    });
  }

  send(text) {
    for (const line of text.split('\n')) {
      const command = JSON.parse(line);
      this.sent.push(command);
      if (command.connect) this.hear({ id: command.id, connect: { client: 'c', ping: 25, ...this.connected, data: { tokens: true } } });
      else if (command.id) {
        const messages = reply(command, this);
        if (messages) this.hear(...messages.map((m, i) => (i ? m : { id: command.id, ...m })));
      }
    }
  }

  // All in one frame.
  hear(...messages) {
    if (this.readyState === 1) this.onmessage({ data: messages.map((m) => JSON.stringify(m)).join('\n') });
  }

  end(code = 1006) {
    this.readyState = 3;
    this.onclose({ code, reason: '' });
  }

  close() {
    this.readyState = 3;
  }
}

const place = (more) => ({ subscribe: { epoch: 'e', recoverable: true, positioned: true, ...more } });
const pub = (offset, more) => ({ offset, data: offset, ...more });
const push = (channel, offset, more) => ({ push: { channel, pub: pub(offset, more) } });
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const status = (code, body = {}, headers = {}) => new Response(JSON.stringify(body), { status: code, headers });

async function until(what, is) {
  for (let n = 0; n < 2000; n++, await sleep(10)) if (is()) return;
  throw new Error(`it does not come that ${what}`);
}

function same(got, want) {
  if (JSON.stringify(got) !== JSON.stringify(want)) throw new Error(`${JSON.stringify(got)}, not ${JSON.stringify(want)}`);
}

// A client, and what it has heard.
function client(options, listener = {}, name = 'a:1') {
  const seen = { heard: [], read: [], states: [], errors: [], denied: [] };
  seen.rt = new Realtime('/none', { minDelay: 20, maxDelay: 60, onState: (s) => seen.states.push(s), onError: (e) => seen.errors.push(String(e)), ...options });
  seen.listener = {
    onPublication: (data) => seen.heard.push(data),
    refresh: (why, headers) => seen.read.push(why + (headers['Causal-Token'] ? '+' + headers['Causal-Token'] : '')),
    onDenied: (e) => seen.denied.push(e.message),
    ...listener,
  };
  seen.off = seen.rt.subscribe(name, seen.listener);
  return seen;
}

const subscribed = (more) => ({ subscribe }) => (subscribe ? [place(more)] : [{ history: { publications: [] } }]);

const cases = {
  async 'a reply and what follows it in one frame'() {
    let times = 0;
    reply = ({ subscribe }) => {
      if (!subscribe) return [{ history: {} }];
      if (!times++) return [place({ offset: 1 })];
      same(subscribe.offset, 1);
      return [place({ offset: 3, recovered: true, was_recovering: true, publications: [pub(2), pub(3)] }), push('a:1', 4)];
    };
    const c = client({ transports: ['websocket'] });
    await until('it is connected', () => c.read.length === 1);
    sockets[0].end();
    await until('all is heard', () => c.heard.length === 3);
    same(c.heard, [2, 3, 4]);
    same(c.rt.stats.recovered, 2);
    same(c.read, ['first']);
    c.rt.close();
  },

  async 'another epoch begins anew, from nothing'() {
    let times = 0;
    reply = ({ subscribe }) => (subscribe ? [times++ ? place({ epoch: 'f', offset: 0, recovered: false, was_recovering: true }) : place({ offset: 9 })] : [{ history: {} }]);
    const c = client({ transports: ['websocket'] });
    await until('it is connected', () => c.read.length === 1);
    sockets[0].end();
    await until('it is read anew', () => c.read.length === 2);
    sockets[1].hear(push('a:1', 1), push('a:1', 1));
    await until('it goes on', () => c.heard.length === 1);
    same(c.read, ['first', 'lost']);
    same(c.rt.stats.duplicates, 1);
    c.rt.close();
  },

  async 'a refresh that fails is tried again, and publications wait for it'() {
    reply = subscribed({ offset: 0 });
    let tries = 0;
    const d = client({ transports: ['websocket'] }, {
      refresh: async () => {
        await sleep(20);
        if (++tries < 3) throw new Error('no');
        d.heard.push('read');
      },
    });
    await until('it is connected', () => d.rt.state === 'connected');
    sockets.at(-1).hear(push('a:1', 1));
    await until('it is heard', () => d.heard.length === 2);
    same(d.heard, ['read', 1]);
    same(tries, 3);
    d.rt.close();
  },

  async 'many late ones are one refresh, with the token of the latest'() {
    reply = ({ subscribe }) => (subscribe ? [place({ offset: 0 })] : [{ history: { publications: [pub(1, { tags: { token: 'last' } })] } }]);
    const c = client({ transports: ['websocket'] }, { refresh: async (why, headers) => { await sleep(30); c.read.push(why + '+' + headers['Causal-Token']); } });
    await until('it is read', () => c.read.length === 1);
    sockets[0].hear(...[1, 2, 3, 4].map((n) => push('a:1', n, { tags: { late: '1', token: 't' + n } })));
    await sleep(300);
    same(c.read, ['first+last', 'late+last', 'late+last']); // one that had begun, and one of the rest; what is late does not move a token back
    same(c.heard, []);
    c.rt.close();
  },

  async 'a channel that keeps nothing is read, and heard'() {
    reply = ({ subscribe }) => (subscribe ? [{ subscribe: {} }] : [{ error: { code: 103, message: 'permission denied' } }]);
    const c = client({ transports: ['websocket'] });
    await until('it is read', () => c.read.length === 1);
    sockets[0].hear({ push: { channel: 'a:1', pub: { data: 1 } } }, { push: { channel: 'a:1', pub: { data: 2 } } });
    await until('it is heard', () => c.heard.length === 2);
    same(c.read, ['first']);
    same(sockets[0].sent.filter(({ history }) => history).length, 0);
    c.rt.close();
  },

  async 'what could not be shown is read anew'() {
    reply = subscribed({ offset: 0 });
    const c = client({ transports: ['websocket'] }, { onPublication: async (n) => { if (n === 1) throw new Error('no'); c.heard.push(n); } });
    await until('it is read', () => c.read.length === 1);
    sockets[0].hear(push('a:1', 1), push('a:1', 2));
    await until('it is read again', () => c.read.length === 2 && c.heard.length === 1);
    same(c.read, ['first', 'lost']);
    c.rt.close();
  },

  async 'a poll of nothing is not missed'() {
    answer = (_, body) => status(200, { channels: Object.fromEntries(Object.keys(body.channels).map((name) => [name, { epoch: 'e', offset: 0 }])) });
    const c = client({ transports: ['poll'], wait: -9.9 }); // a poll is given up after 100 ms
    await until('it is connected', () => c.rt.state === 'connected');
    c.off();
    await sleep(500);
    same(c.rt.state, 'connected');
    same(c.errors, []);
    c.rt.close();
  },

  async 'more than can be shown is read anew'() {
    reply = subscribed({ offset: 0 });
    let go;
    const c = client({ transports: ['websocket'] }, { onPublication: (n) => { c.heard.push(n); if (n === 1) return new Promise((r) => (go = r)); } });
    await until('it is read', () => c.read.length === 1);
    sockets[0].hear(...Array.from({ length: 1500 }, (_, i) => push('a:1', i + 1)));
    await until('the first is shown', () => go);
    go();
    await until('it is read anew', () => c.read.includes('lost'));
    await until('the rest is shown', () => c.heard.at(-1) === 1500);
    if (c.heard.length > 1002) throw new Error(`${c.heard.length} were kept`);
    c.rt.close();
  },

  async 'a gateway that has no room is asked again by the same way, after what it asks for'() {
    let first = 0;
    answer = (url) => {
      first ||= performance.now();
      return url.endsWith('/stream') ? status(503, { title: 'there is no room' }, { 'Retry-After': '1' }) : status(500);
    };
    const c = client({ transports: ['stream', 'poll'] });
    await until('it has asked twice', () => asked.length === 2);
    if (performance.now() - first < 450) throw new Error(`asked again after ${performance.now() - first} ms`);
    same(asked.map(({ url }) => url.split('/').pop()), ['stream', 'stream']);
    c.rt.close();
  },

  async 'who is nobody is not asked again'() {
    answer = () => status(401, { title: 'not authenticated' });
    const c = client({ transports: ['stream', 'poll'] });
    await until('it has ended', () => c.rt.state === 'closed');
    same(asked.length, 1);
  },

  async 'an expired token is replaced'() {
    const tokens = ['old', 'new'];
    answer = (_, body) => (body.token === 'old' ? status(401, { title: 'token expired' }) : status(200, { channels: { 'a:1': { epoch: 'e', offset: 0 } } }));
    const c = client({ transports: ['poll'], token: () => tokens.shift() ?? 'new' });
    await until('it is connected', () => c.rt.state === 'connected');
    same(asked[1].body.token, 'new');
    c.rt.close();
  },

  async 'what is not here is passed over'() {
    globalThis.WebSocket = class { constructor() { throw new Error('none'); } };
    answer = (url) => (url.endsWith('/poll') ? status(200, { channels: { 'a:1': { epoch: 'e', offset: 0 } } }) : status(404));
    const c = client({ transports: ['websocket', 'stream', 'poll'] });
    await until('it is connected', () => c.rt.state === 'connected');
    same(c.rt.stats.transport, 'poll');
    c.rt.close();
  },

  async 'a way that has worked is not left at once'() {
    reply = subscribed({ offset: 0 });
    answer = () => status(200, { channels: { 'a:1': { epoch: 'e', offset: 0 } } });
    const c = client({ transports: ['websocket', 'poll'] });
    await until('it is connected', () => c.rt.state === 'connected');
    const refused = class extends Socket { constructor(url) { super(url); setTimeout(() => this.end()); } };
    globalThis.WebSocket = refused;
    sockets[0].end();
    await until('it has tried', () => sockets.length === 2 && c.rt.state === 'waiting');
    same(asked.length, 0);
    globalThis.WebSocket = Socket;
    await until('it is connected again', () => c.rt.state === 'connected');
    same(c.rt.stats.transport, 'websocket');
    c.rt.close();
  },

  async 'no answer in time is another way'() {
    globalThis.WebSocket = class { close() {} };
    answer = () => status(200, { channels: { 'a:1': { epoch: 'e', offset: 0 } } });
    const c = client({ transports: ['websocket', 'poll'], timeout: 100 });
    await until('it is connected', () => c.rt.state === 'connected');
    same(c.rt.stats.transport, 'poll');
    c.rt.close();
  },

  async 'what cannot be said now is asked again, and what is forbidden is not'() {
    const times = {};
    reply = ({ subscribe }) => {
      if (!subscribe) return [{ history: {} }];
      const n = (times[subscribe.channel] = (times[subscribe.channel] ?? 0) + 1);
      if (subscribe.channel === 'a:1') return [n === 1 ? { error: { code: 100, message: 'internal', temporary: true } } : place({ offset: 0 })];
      return [{ error: { code: 103, message: 'permission denied' } }];
    };
    const c = client({ transports: ['websocket'] });
    c.rt.subscribe('a:2', c.listener);
    await until('the other is denied', () => c.denied.length === 1);
    for (let n = 0; n < 5 && !c.read.length; n++) await sleep(1100);
    same(c.read, ['first']);
    same(times, { 'a:1': 2, 'a:2': 1 });
    c.rt.close();
  },

  async 'what is cut off for good stays so'() {
    reply = subscribed({ offset: 0 });
    const c = client({ transports: ['websocket'] });
    await until('it is connected', () => c.rt.state === 'connected');
    sockets[0].hear({ push: { disconnect: { code: 3503, reason: 'force disconnect' } } });
    same(c.rt.state, 'closed');
    await sleep(150);
    same(sockets.length, 1);
  },

  async 'a poll that waits gives way to what is subscribed to, and left'() {
    answer = (_, body, signal) =>
      new Promise((resolve, reject) => {
        signal.addEventListener('abort', () => reject(new DOMException('', 'AbortError')));
        const channels = {};
        for (const [name, at] of Object.entries(body.channels)) if (!at.epoch) channels[name] = { epoch: 'e', offset: 0 };
        if (Object.keys(channels).length) resolve(status(200, { channels }));
      });
    const c = client({ transports: ['poll'] });
    await until('it waits', () => c.rt.state === 'connected' && asked.length === 2);
    const off = c.rt.subscribe('a:2', c.listener);
    await until('both are asked for', () => asked.length === 4 && 'a:2' in asked[3].body.channels);
    same(asked[3].body.channels['a:2'], { epoch: 'e', offset: 0 });
    off();
    await until('one is', () => asked.length === 5);
    same(Object.keys(asked[4].body.channels), ['a:1']);
    same(c.rt.stats.reconnects, 0);
    c.rt.close();
  },

  async 'what is published is answered, or fails'() {
    reply = ({ subscribe, publish }) => (publish ? [publish.data === 1 ? { publish: {} } : { error: { code: 103, message: 'permission denied' } }] : subscribe ? [place({ offset: 0 })] : [{ history: {} }]);
    const c = client({ transports: ['websocket'] });
    await until('it is connected', () => c.rt.state === 'connected');
    await c.rt.publish('a:1', 1);
    let text = '';
    await c.rt.publish('a:1', 2).catch((e) => (text = e.message));
    same(text, 'realtime: permission denied');
    reply = () => undefined;
    const waiting = c.rt.publish('a:1', 3).catch((e) => e.message);
    c.rt.close();
    same(await waiting, 'realtime: the connection has ended');
  },

  async 'a token is renewed before it expires'() {
    const given = [];
    reply = ({ subscribe, refresh }, socket) => {
      if (!refresh) return subscribe ? [place({ offset: 0 })] : [{ history: {} }];
      given.push(refresh.token);
      return [{ refresh: { expires: true, ttl: 3600 } }];
    };
    Socket.prototype.connected = { expires: true, ttl: 6 };
    try {
      let n = 0;
      const c = client({ transports: ['websocket'], token: () => 't' + ++n });
      await until('it is connected', () => c.rt.state === 'connected');
      same(sockets[0].sent[0].connect.token, 't1');
      await until('it is renewed', () => given.length === 1);
      same(given, ['t2']);
      c.rt.close();
    } finally {
      delete Socket.prototype.connected;
    }
  },

  async 'with a token there is no way that has it in an address'() {
    answer = () => status(404);
    globalThis.WebSocket = class { constructor() { throw new Error('none'); } };
    let sources = 0;
    globalThis.EventSource = class { constructor() { sources++; } close() {} };
    const c = client({ token: () => 't' });
    await until('all are tried', () => c.rt.state === 'waiting');
    same(sources, 0);
    c.rt.close();
  },

  async 'silence ends a connection'() {
    reply = subscribed({ offset: 0 });
    const set = globalThis.setTimeout;
    globalThis.setTimeout = (f, ms, ...more) => set(f, ms > 30000 ? 50 : ms, ...more); // a ping and ten seconds
    try {
      const c = client({ transports: ['websocket'] });
      await until('it comes back', () => sockets.length >= 2);
      if (!c.errors.some((e) => e.includes('nothing is heard'))) throw new Error(c.errors.join());
      c.rt.close();
    } finally {
      globalThis.setTimeout = set;
    }
  },
};

export const names = Object.keys(cases);

// run answers nothing, or what is wrong.
export async function run(name, module) {
  ({ Realtime } = await import(module));
  [sockets, asked] = [[], []];
  reply = () => undefined;
  answer = () => status(404);
  globalThis.WebSocket = Socket;
  globalThis.fetch = async (url, { body, signal }) => {
    const of = { url: String(url), body: body && JSON.parse(body) };
    asked.push(of);
    return answer(of.url, of.body, signal);
  };
  try {
    await cases[name]();
    return '';
  } catch (error) {
    return `${error.message}\n${error.stack}`;
  } finally {
    Object.assign(globalThis, real);
  }
}
