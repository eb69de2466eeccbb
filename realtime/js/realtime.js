// Loadline's realtime client: one file, no dependencies, no build. See realtime.d.ts for its types, and docs/realtime.md.
//
// It speaks the JSON protocol of centrifuge (https://centrifugal.dev/docs/transports/client_protocol) by WebSocket, HTTP streaming and server-sent
// events, and the gateway's own long polling, which the least proxy lets through. Whichever answers first is kept.

const transports = ['websocket', 'stream', 'sse', 'poll'];
const terminal = (code) => (code >= 3500 && code < 4000) || (code >= 4500 && code < 5000);
const lines = (commands) => commands.map((c) => JSON.stringify(c)).join('\n');
const post = (url, body, signal) =>
  fetch(url, { method: 'POST', credentials: 'include', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body), signal });

export class Realtime {
  #url;
  #options;
  #channels = new Map(); // name to channel
  #order; // of transports that are tried
  #tries = 0; // since the last answer
  #connection; // what goes on: {send, close, name, ready}
  #attempt = 0; // its number, so that what comes late from an older one is not heard
  #timers = new Map();
  #commands = new Map(); // id to [resolve, reject]
  #id = 1;
  #seen = ''; // the latest token of a publication
  #closed = false;
  #alone = () => this.#state === 'waiting' && this.#connect(0);
  #state = 'idle';

  /** What is there to look at: see realtime.d.ts. */
  stats = { transport: '', reconnects: 0, recovered: 0, lost: 0, publications: 0, duplicates: 0 };

  constructor(url, options = {}) {
    this.#url = new URL(url, globalThis.location?.href).href.replace(/\/$/, '');
    this.#options = { transports, timeout: 4000, minDelay: 500, maxDelay: 20000, wait: 25, onState() {}, onError() {} };
    for (const [name, value] of Object.entries(options)) if (value !== undefined) this.#options[name] = value;
    this.#order = [...this.#options.transports];
    globalThis.addEventListener?.('online', this.#alone);
  }

  get state() {
    return this.#state;
  }

  /** The header that lets a read see what publications have told of. */
  get headers() {
    return this.#seen ? { 'Causal-Token': this.#seen } : {};
  }

  /** Listens to a channel, and returns a function that ends it. */
  subscribe(name, { onPublication = () => {}, refresh = () => {}, onDenied = () => {} } = {}) {
    if (this.#channels.has(name)) throw new Error(`realtime: ${name} is subscribed to already`);
    const channel = { name, onPublication, refresh, onDenied, epoch: '', offset: 0, queue: Promise.resolve() };
    this.#channels.set(name, channel);
    if (this.#state === 'idle') queueMicrotask(() => this.#state === 'idle' && this.#channels.size && this.#connect(0));
    else if (this.#connection?.ready) this.#connection.subscribe(channel);
    return () => {
      if (this.#channels.get(name) !== channel) return;
      this.#channels.delete(name);
      if (this.#connection?.ready) this.#connection.unsubscribe(name);
    };
  }

  /** Sends to a channel, where its namespace lets clients do that. */
  async publish(channel, data) {
    const connection = this.#connection;
    if (connection?.ready && connection.name !== 'poll') {
      await this.#command({ publish: { channel, data } });
      return;
    }
    const answer = await post(this.#url + '/publish', { channel, data, token: await this.#options.token?.() });
    if (!answer.ok) throw new Error(`realtime: not published: ${answer.status}`);
  }

  /** Ends it for good. */
  close() {
    this.#closed = true;
    globalThis.removeEventListener?.('online', this.#alone);
    this.#drop();
    this.#become('closed');
  }

  #become(state) {
    if (state === this.#state) return;
    this.#state = state;
    this.#options.onState(state, this.stats);
  }

  #after(name, ms, f) {
    clearTimeout(this.#timers.get(name));
    this.#timers.set(name, setTimeout(f, ms));
  }

  #drop() {
    this.#attempt++;
    for (const timer of this.#timers.values()) clearTimeout(timer);
    for (const [, reject] of this.#commands.values()) reject(new Error('realtime: the connection has ended'));
    this.#commands.clear();
    const connection = this.#connection;
    this.#connection = undefined;
    connection?.close();
  }

  /** Tries the transport at a place of the order. */
  async #connect(place) {
    if (this.#closed) return;
    this.#drop();
    const attempt = this.#attempt;
    this.#become('connecting');
    const name = this.#order[place];
    const current = () => attempt === this.#attempt && !this.#closed;
    let token;
    try {
      token = await this.#options.token?.();
    } catch (error) {
      if (current()) this.#fail(error);
      return;
    }
    if (!current()) return;
    const failed = (error, code = 0) => {
      if (!current()) return;
      if (terminal(code)) return this.#end(error);
      // Before an answer the next transport may do; after one it was the network, or the gateway has gone.
      if (!this.#connection.ready && place + 1 < this.#order.length) this.#connect(place + 1);
      else this.#fail(error);
    };
    const link = {
      received: (message) => current() && this.#receive(message, failed),
      alive: (seconds) => seconds && this.#after('alive', seconds * 1000 + 10000, () => failed(new Error('realtime: nothing is heard'))),
      failed,
    };
    const ready = (result = {}) => {
      if (!current()) return;
      clearTimeout(this.#timers.get('answer'));
      if (this.stats.transport) this.stats.reconnects++;
      this.stats.transport = name;
      this.#tries = 0;
      // The next time this one comes first, then the others.
      this.#order = [name, ...this.#options.transports.filter((t) => t !== name)];
      this.#connection.ready = result;
      link.ping = result.ping;
      link.alive(link.ping);
      if (result.expires) this.#after('token', Math.max(1, result.ttl - 5) * 1000, () => this.#renew(failed));
      this.#become('connected');
      for (const channel of this.#channels.values()) this.#connection.subscribe(channel);
    };
    this.#after('answer', this.#options.timeout, () => failed(new Error(`realtime: no answer by ${name}`)));
    this.#link = link;
    if (name === 'poll') {
      this.#connection = this.#poll(current, failed, ready, token);
      return;
    }
    this.#connection = {
      name,
      subscribe: (channel) => this.#listen(channel, failed),
      unsubscribe: (channel) => this.#command({ unsubscribe: { channel } }).catch(() => {}),
      ...{ websocket, stream, sse }[name](this.#url, { id: this.#id++, connect: { token, name: 'loadline' } }, link, () => this.#connection?.ready),
    };
    this.#commands.set(this.#id - 1, [ready, (error) => failed(error, error.code === 109 ? 0 : error.terminal ? 3500 : 0)]);
  }

  #link;

  #fail(error) {
    this.#drop();
    this.#options.onError(error);
    this.#become('waiting');
    // Full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/.
    const { minDelay, maxDelay } = this.#options;
    this.#after('again', Math.random() * Math.min(maxDelay, minDelay * 2 ** this.#tries++), () => this.#connect(0));
  }

  #end(error) {
    this.#options.onError(error);
    this.close();
  }

  #send(...commands) {
    this.#connection.send(commands);
  }

  #command(command) {
    const id = this.#id++;
    return new Promise((resolve, reject) => {
      this.#commands.set(id, [resolve, reject]);
      this.#send({ id, ...command });
    });
  }

  async #renew(failed) {
    try {
      const { expires, ttl } = (await this.#command({ refresh: { token: await this.#options.token() } })) ?? {};
      if (expires) this.#after('token', Math.max(1, ttl - 5) * 1000, () => this.#renew(failed));
    } catch (error) {
      failed(error);
    }
  }

  async #listen(channel, failed) {
    const { name, epoch, offset } = channel;
    let result;
    try {
      result = await this.#command({ subscribe: { channel: name, ...(epoch && { recover: true, epoch, offset }) } });
    } catch (error) {
      if (error.code && !error.temporary) this.#deny(channel, error);
      else if (error.code) this.#after(name, 1000 + Math.random() * 4000, () => this.#channels.get(name) === channel && this.#listen(channel, failed));
      return; // or the connection has ended, and the next one listens
    }
    this.#place(channel, result, epoch !== '');
  }

  #deny(channel, error) {
    if (this.#channels.get(channel.name) === channel) this.#channels.delete(channel.name);
    channel.onDenied(error);
  }

  // Where a channel is after it was subscribed to: what was missed is there, or what it is about is read anew.
  #place(channel, { epoch = '', offset = 0, recovered = false, publications = [] }, again) {
    if (this.#channels.get(channel.name) !== channel) return;
    const was = channel.epoch;
    if (!recovered) channel.offset = publications.length ? 0 : offset;
    channel.epoch = epoch;
    if (!again) this.#refresh(channel, 'first');
    else if (!recovered) {
      this.stats.lost++;
      this.#refresh(channel, 'lost');
    } else if (was && publications.length) this.stats.recovered += publications.length;
    for (const p of publications) this.#publication(channel, p);
    channel.offset = Math.max(channel.offset, offset * !recovered);
  }

  #publication(channel, { data, offset = 0, tags = {}, info }) {
    if (offset && offset <= channel.offset) {
      this.stats.duplicates++;
      return;
    }
    if (offset) channel.offset = offset;
    if (tags.token) this.#seen = tags.token;
    if (tags.late) return this.#refresh(channel, 'late');
    this.stats.publications++;
    this.#queue(channel, () => channel.onPublication(data, { offset, tags, info }));
  }

  #refresh(channel, why) {
    this.#queue(channel, () => channel.refresh(why, this.headers));
  }

  // One after the other: what is published while a page is read is shown after it.
  #queue(channel, f) {
    channel.queue = channel.queue.then(() => this.#channels.get(channel.name) === channel && f()).catch((error) => this.#options.onError(error));
  }

  #receive(message, failed) {
    this.#link.alive(this.#link.ping);
    if (message.id) {
      const [resolve, reject] = this.#commands.get(message.id) ?? [];
      this.#commands.delete(message.id);
      if (!resolve) return;
      const { id, error, ...results } = message;
      if (error) reject(Object.assign(new Error(`realtime: ${error.message}`), error));
      else resolve(Object.values(results)[0] ?? {});
      return;
    }
    const { push } = message;
    if (!push) {
      if (this.#connection.ready?.pong) this.#send({});
      return;
    }
    const channel = this.#channels.get(push.channel);
    if (push.disconnect) failed(new Error(`realtime: ${push.disconnect.reason}`), push.disconnect.code);
    else if (channel && push.pub) this.#publication(channel, push.pub);
    else if (channel && push.unsubscribe) {
      if (push.unsubscribe.code >= 2500) this.#listen(channel, failed); // it has missed something
      else this.#deny(channel, new Error(`realtime: ${push.unsubscribe.reason}`));
    }
  }

  #poll(current, failed, ready, token) {
    let abort = new AbortController();
    const connection = { name: 'poll', close: () => abort.abort(), send() {} };
    const changed = () => abort.abort();
    connection.subscribe = connection.unsubscribe = changed;
    const once = async () => {
      abort = new AbortController();
      const { signal } = abort;
      const channels = {};
      for (const { name, epoch, offset } of this.#channels.values()) channels[name] = epoch ? { epoch, offset } : {};
      if (!this.#channels.size) return new Promise((resolve) => signal.addEventListener('abort', resolve));
      if (connection.ready) token = await this.#options.token?.();
      const answer = await post(this.#url + '/poll', { token, channels, wait: connection.ready ? this.#options.wait : 0.001 }, signal);
      if (!answer.ok) throw Object.assign(new Error(`realtime: a poll is answered ${answer.status}`), { status: answer.status, after: answer.headers.get('Retry-After') });
      const told = await answer.json();
      if (!current()) return;
      for (const name of told.denied ?? []) if (this.#channels.has(name)) this.#deny(this.#channels.get(name), new Error('realtime: permission denied'));
      for (const [name, result] of Object.entries(told.channels ?? {})) {
        const channel = this.#channels.get(name);
        if (!channel) continue;
        const { epoch, offset = 0 } = channels[name];
        if (!epoch || !result.recovered) this.#place(channel, result, Boolean(epoch));
        else {
          if (result.publications && this.#fresh) this.stats.recovered += result.publications.length;
          for (const p of result.publications ?? []) this.#publication(channel, p);
          channel.epoch = result.epoch;
          channel.offset = Math.max(channel.offset, offset);
        }
      }
      this.#fresh = false;
      if (!connection.ready) {
        connection.subscribe = connection.unsubscribe = () => {};
        ready();
        connection.subscribe = connection.unsubscribe = changed;
      }
    };
    this.#fresh = true;
    const loop = async () => {
      while (current()) {
        try {
          await once();
        } catch (error) {
          if (!current()) return;
          if (error.name === 'AbortError') continue;
          failed(error, error.status === 401 && !this.#options.token ? 3500 : 0);
          return;
        }
      }
    };
    queueMicrotask(loop);
    return connection;
  }

  #fresh = false; // the poll that is sent is the first since an interruption
}

function websocket(url, connect, { received, failed }) {
  const socket = new WebSocket(url.replace(/^http/, 'ws') + '/websocket');
  const waiting = [connect];
  const send = (commands) => (socket.readyState === 1 ? socket.send(lines(commands)) : waiting.push(...commands));
  socket.onopen = () => send(waiting.splice(0));
  socket.onmessage = ({ data }) => data.split('\n').forEach((line) => line && received(JSON.parse(line)));
  socket.onclose = ({ code, reason }) => failed(new Error(`realtime: the WebSocket has ended: ${code} ${reason}`), code);
  return { send, close: () => socket.close() };
}

// What clients send whose connection goes one way. All of it goes in its order.
function emulated(url, ready, failed) {
  let before = Promise.resolve();
  return (commands) => {
    const { session, node } = ready();
    before = before
      .then(() => post(url + '/emulation', { session, node, data: lines(commands) }))
      .then((answer) => answer.ok || failed(new Error(`realtime: a command is answered ${answer.status}`)))
      .catch(failed);
  };
}

function stream(url, connect, { received, failed }, ready) {
  const abort = new AbortController();
  (async () => {
    const answer = await post(url + '/stream', connect, abort.signal);
    if (!answer.ok || !answer.body) throw Object.assign(new Error(`realtime: a stream is answered ${answer.status}`), { code: answer.status === 401 ? 3500 : 0 });
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = ''; ; ) {
      const { value, done } = await reader.read();
      if (done) throw new Error('realtime: the stream has ended');
      const all = (rest + value).split('\n');
      rest = all.pop();
      all.forEach((line) => line && received(JSON.parse(line)));
    }
  })().catch((error) => failed(error, error.code));
  return { send: emulated(url, ready, failed), close: () => abort.abort() };
}

function sse(url, connect, { received, failed }, ready) {
  const source = new EventSource(`${url}/sse?cf_connect=${encodeURIComponent(JSON.stringify(connect))}`, { withCredentials: true });
  source.onmessage = ({ data }) => received(JSON.parse(data));
  source.onerror = () => failed(new Error('realtime: the events have ended'));
  return { send: emulated(url, ready, failed), close: () => source.close() };
}
