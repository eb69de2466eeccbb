// Loadline's realtime client: one file, no dependencies, no build. See realtime.d.ts for its types, and docs/realtime.md.
//
// It speaks the JSON protocol of centrifuge (https://centrifugal.dev/docs/transports/client_protocol) by WebSocket, HTTP streaming and server-sent
// events, and the gateway's own long polling, which the least proxy lets through. Whichever answers first is kept.

const all = ['websocket', 'stream', 'sse', 'poll'];
const terminal = (code) => (code >= 3500 && code < 4000 && code !== 3504) || (code >= 4500 && code < 5000);
const lines = (commands) => commands.map((c) => JSON.stringify(c)).join('\n');
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const fault = (text, more) => Object.assign(new Error(`realtime: ${text}`), more);
const post = async (url, body, signal) => {
  const answer = await fetch(url, { method: 'POST', credentials: 'include', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body), signal });
  if (answer.ok) return answer;
  const { title = '' } = await answer.json().catch(() => ({}));
  // The gateway has said why: another way to it would hear the same.
  throw fault(`${answer.status} ${title}`, {
    told: answer.status === 401 || answer.status === 429 || answer.status === 503,
    after: Number(answer.headers.get('Retry-After')),
    code: answer.status === 401 && title !== 'token expired' ? 3500 : 0,
  });
};

export class Realtime {
  #url;
  #options = { timeout: 4000, minDelay: 500, maxDelay: 20000, wait: 25, onState() {}, onError() {} };
  #channels = new Map();
  #order; // of transports that are tried
  #worked = new Set(); // transports
  #since = 0; // when it was connected last
  #tries = 0; // since it was connected for a while
  #connection; // what goes on
  #attempt = 0; // its number: what comes late from an older one is not heard
  #timers = new Map();
  #commands = new Map(); // by id
  #id = 1;
  #tokens = new Map(); // the latest of each channel, the newest at the end
  #state = 'idle';
  #online = () => this.#state === 'waiting' && this.#connect(0);

  stats = { transport: '', reconnects: 0, recovered: 0, lost: 0, publications: 0, duplicates: 0 };

  constructor(url, options = {}) {
    this.#url = new URL(url, globalThis.location?.href).href.replace(/\/$/, '');
    for (const [name, value] of Object.entries(options)) if (value !== undefined) this.#options[name] = value;
    // A token would be in the address of an EventSource, and in every log on its way.
    this.#options.transports ??= options.token ? all.filter((t) => t !== 'sse') : all;
    this.#order = this.#options.transports;
    globalThis.addEventListener?.('online', this.#online);
  }

  get state() {
    return this.#state;
  }

  get headers() {
    return this.#headers([...new Set(this.#tokens.values())].slice(-4));
  }

  #headers(tokens) {
    return tokens.length ? { 'Causal-Token': tokens.join(', ') } : {};
  }

  subscribe(name, { onPublication = () => {}, refresh = () => {}, onDenied = () => {} } = {}) {
    if (this.#channels.has(name)) throw fault(`${name} is subscribed to already`);
    const channel = { name, onPublication, refresh, onDenied, epoch: '', offset: 0, jobs: [], notBefore: 0 };
    this.#channels.set(name, channel);
    if (this.#state === 'idle') queueMicrotask(() => this.#state === 'idle' && this.#channels.size && this.#connect(0));
    else if (this.#connection?.ready) this.#connection.subscribe(channel);
    return () => {
      if (!this.#has(channel)) return;
      this.#remove(channel);
      if (this.#connection?.ready) this.#connection.unsubscribe(name);
    };
  }

  async publish(channel, data) {
    if (this.#connection?.ready && this.#connection.name !== 'poll') await this.#ask({ publish: { channel, data } });
    else await post(this.#url + '/publish', { channel, data, token: await this.#options.token?.() });
  }

  close() {
    globalThis.removeEventListener?.('online', this.#online);
    this.#drop();
    this.#become('closed');
  }

  #has(channel) {
    return this.#state !== 'closed' && this.#channels.get(channel.name) === channel;
  }

  #remove(channel) {
    this.#channels.delete(channel.name);
    this.#tokens.delete(channel.name);
  }

  #become(state) {
    if (state === this.#state) return;
    this.#state = state;
    this.#options.onState(state, this.stats);
  }

  #after(name, ms, f) {
    clearTimeout(this.#timers.get(name));
    this.#timers.set(name, setTimeout(f, Math.min(ms, 2 ** 31 - 1)));
  }

  #drop() {
    this.#attempt++;
    for (const timer of this.#timers.values()) clearTimeout(timer);
    const commands = [...this.#commands.values()];
    this.#commands.clear();
    const connection = this.#connection;
    this.#connection = undefined;
    connection?.close();
    for (const { no } of commands) no(fault('the connection has ended'));
  }

  // Full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/.
  #delay(tries) {
    const { minDelay, maxDelay } = this.#options;
    return Math.random() * Math.min(maxDelay, minDelay * 2 ** tries);
  }

  // Tries the transport at a place of the order.
  async #connect(place) {
    if (this.#state === 'closed') return;
    this.#drop();
    const attempt = this.#attempt;
    const name = this.#order[place];
    const current = () => attempt === this.#attempt && this.#state !== 'closed';
    const failed = (error) => {
      if (!current()) return;
      if (terminal(error.code)) {
        this.#options.onError(error);
        return this.close();
      }
      // Before an answer another transport may do. But one that has worked fails at once when its gateway has gone or has no room, and then
      // the others would add to that.
      const other = !this.#connection?.ready && !error.told && (error.silent || !this.#worked.has(name) || this.#tries > 1);
      if (other && place + 1 < this.#order.length) this.#connect(place + 1);
      else this.#fail(error);
    };
    this.#become('connecting');
    let token;
    try {
      token = await this.#options.token?.();
    } catch (error) {
      return failed(Object.assign(error, { told: true }));
    }
    if (!current()) return;
    const ready = (result = {}) => {
      clearTimeout(this.#timers.get('answer'));
      if (this.stats.transport) this.stats.reconnects++;
      this.stats.transport = name;
      this.#worked.add(name);
      this.#since = Date.now();
      this.#after('stable', 5000, () => (this.#tries = 0));
      // The next time this one comes first, then the others.
      this.#order = [name, ...this.#options.transports.filter((t) => t !== name)];
      this.#connection.ready = result;
      link.heard();
      if (result.expires) this.#renewIn(result.ttl, failed);
      this.#become('connected');
      for (const channel of this.#channels.values()) this.#connection.subscribe(channel);
    };
    const link = {
      failed,
      received: (message) => current() && this.#receive(message, failed),
      heard: () => this.#connection?.ready?.ping && this.#after('alive', this.#connection.ready.ping * 1000 + 10000, () => failed(fault('nothing is heard'))),
      ready: () => this.#connection.ready,
    };
    this.#heard = link.heard;
    this.#after('answer', this.#options.timeout, () => failed(fault(`no answer by ${name}`, { silent: true })));
    if (name === 'poll') {
      this.#connection = this.#poll(current, failed, ready, token);
      return;
    }
    const id = this.#id++;
    this.#commands.set(id, { yes: ready, no: (error) => failed(Object.assign(error, { told: error.code > 0 })) });
    try {
      this.#connection = {
        name,
        subscribe: (channel) => this.#listen(channel),
        unsubscribe: (channel) => this.#command({ unsubscribe: { channel } }),
        ...{ websocket, stream, sse }[name](this.#url, { id, connect: { token, name: 'loadline' } }, link),
      };
    } catch (error) {
      failed(error); // there is no such thing here
    }
  }

  #heard;

  #fail(error) {
    const delay = this.#delay(this.#tries++);
    // Since then the network may be another.
    if (this.#since && Date.now() - this.#since > 300000) this.#order = this.#options.transports;
    this.#drop();
    this.#options.onError(error);
    this.#become('waiting');
    const asked = (error.code === 3504 ? this.#options.maxDelay : error.after * 1000 || 0) * (0.5 + Math.random());
    this.#after('again', Math.max(delay, asked), () => this.#connect(0));
  }

  // What is answered is taken at once: the next message may be of what it says.
  #command(command, yes = () => {}, no = () => {}) {
    const id = this.#id++;
    this.#commands.set(id, { yes, no });
    this.#connection.send([{ id, ...command }]);
  }

  #ask(command) {
    return new Promise((yes, no) => (this.#connection?.ready ? this.#command(command, yes, no) : no(fault('there is no connection'))));
  }

  #renewIn(ttl, failed) {
    this.#after('token', Math.max(1, ttl - 5) * 1000, async () => {
      try {
        const { expires, ttl } = await this.#ask({ refresh: { token: await this.#options.token() } });
        if (expires) this.#renewIn(ttl, failed);
      } catch (error) {
        failed(error);
      }
    });
  }

  #listen(channel) {
    const { name, epoch, offset } = channel;
    this.#command(
      { subscribe: { channel: name, ...(epoch && { recover: true, epoch, offset }) } },
      (result) => this.#place(channel, result, epoch),
      (error) => {
        if (!error.code || !this.#has(channel)) return; // the next connection listens
        // It cannot be said now, or is full.
        if (error.temporary || error.code === 106) this.#after(name, 1000 + Math.random() * 4000, () => this.#has(channel) && this.#listen(channel));
        else this.#deny(channel, error);
      },
    );
  }

  #deny(channel, error) {
    if (!this.#has(channel)) return;
    this.#remove(channel);
    channel.onDenied(error);
  }

  // Where a channel is after it was subscribed to: what was missed is there, or what it is about is read anew.
  #place(channel, { epoch = '', offset = 0, recovered = false, publications = [], token }, again) {
    if (!this.#has(channel)) return;
    if (epoch !== channel.epoch || !recovered) channel.offset = 0; // a place is one of its epoch
    channel.epoch = epoch;
    if (again && recovered) {
      this.stats.recovered += publications.length;
      if (channel.unsure) this.#refresh(channel, 'lost', true);
    } else {
      if (again) this.stats.lost++;
      if (token) this.#seen(channel, token);
      this.#refresh(channel, again ? 'lost' : 'first', token === undefined);
    }
    for (const p of publications) this.#publication(channel, p);
    if (!recovered) channel.offset = Math.max(channel.offset, offset);
  }

  #seen({ name }, token) {
    this.#tokens.delete(name);
    this.#tokens.set(name, token);
  }

  #publication(channel, { data, offset = 0, tags = {}, info }) {
    if (offset && offset <= channel.offset) {
      this.stats.duplicates++;
      return;
    }
    if (offset) channel.offset = offset;
    if (tags.token && !(tags.late && this.#tokens.has(channel.name))) this.#seen(channel, tags.token);
    if (tags.late) return this.#refresh(channel, 'late');
    this.stats.publications++;
    this.#queue(channel, () => channel.onPublication(data, { offset, tags, info }));
  }

  // It is tried until it succeeds: the page would stay wrong. Several are one that has not begun.
  #refresh(channel, why, ask) {
    if (channel.due) return;
    channel.due = true;
    ask &&= channel.epoch; // others keep nothing that could be asked for
    const job = async () => {
      // What was published last may be what a replica does not have yet.
      if (ask) channel.unsure = !this.#connection?.ready; // and read again when it can be asked
      if (ask && this.#connection?.ready?.data?.tokens) {
        const { publications = [] } = await this.#ask({ history: { channel: channel.name, limit: 1, reverse: true } });
        if (publications[0]?.tags?.token) this.#seen(channel, publications[0].tags.token);
      }
      channel.due = false;
      const token = this.#tokens.get(channel.name);
      await channel.refresh(why, this.#headers(token ? [token] : []));
    };
    this.#queue(channel, Object.assign(job, { again: true }));
  }

  // One after the other: what is published while a page is read is shown after it.
  async #queue(channel, job) {
    channel.jobs.push(job);
    if (channel.jobs.length > 1000) {
      channel.jobs = []; // they would be shown for what is long over
      channel.due = false;
      return this.#refresh(channel, 'lost', true);
    }
    if (channel.busy) return;
    channel.busy = true;
    for (let next; (next = channel.jobs.shift()); ) {
      for (let n = 0; this.#has(channel); n++) {
        try {
          await next();
          break;
        } catch (error) {
          this.#options.onError(error);
          if (!next.again) {
            this.#refresh(channel, 'lost', true); // the page may not show it
            break;
          }
          await sleep(this.#delay(n) + 100);
        }
      }
    }
    channel.busy = false;
  }

  #receive(message, failed) {
    this.#heard();
    if (message.id) {
      const command = this.#commands.get(message.id);
      this.#commands.delete(message.id);
      const { id, error, ...results } = message;
      if (error) command?.no(fault(error.message, { code: error.code, temporary: error.temporary }));
      else command?.yes(Object.values(results)[0] ?? {});
      return;
    }
    const { push } = message;
    if (!push) {
      if (this.#connection.ready?.pong) this.#connection.send([{}]);
      return;
    }
    const channel = this.#channels.get(push.channel);
    if (push.disconnect) failed(fault(push.disconnect.reason, { code: push.disconnect.code, told: true }));
    else if (channel && push.pub) this.#publication(channel, push.pub);
    else if (channel && push.unsubscribe) {
      if (push.unsubscribe.code >= 2500) this.#listen(channel); // it has missed something
      else this.#deny(channel, fault(push.unsubscribe.reason));
    }
  }

  #poll(current, failed, ready, token) {
    let abort = new AbortController();
    let fresh = true; // the first since an interruption
    const changed = () => abort.abort();
    const connection = { name: 'poll', close: changed, send() {}, subscribe() {}, unsubscribe: changed };
    const once = async () => {
      abort = new AbortController();
      clearTimeout(this.#timers.get('alive'));
      const { signal } = abort;
      const { wait } = this.#options;
      const asked = {};
      for (const { name, epoch, offset, notBefore } of this.#channels.values()) if (notBefore <= Date.now()) asked[name] = epoch ? { epoch, offset } : {};
      if (!Object.keys(asked).length) {
        const timer = setTimeout(changed, 1000);
        await new Promise((resolve) => signal.addEventListener('abort', resolve));
        clearTimeout(timer);
        return begin();
      }
      if (connection.ready) {
        token = await this.#options.token?.();
        this.#after('alive', wait * 1000 + 10000, () => failed(fault('a poll is not answered')));
      }
      // The first is answered at once: who waits does not know whether anybody hears.
      const answer = await post(this.#url + '/poll', { token, channels: asked, wait: connection.ready ? wait : 0.001 }, signal);
      const { channels = {}, denied = [], later = [] } = await answer.json();
      if (!current()) return;
      for (const name of denied) if (this.#channels.has(name)) this.#deny(this.#channels.get(name), fault('permission denied'));
      for (const name of later) if (this.#channels.has(name)) this.#channels.get(name).notBefore = Date.now() + 1000 + Math.random() * 4000;
      for (const [name, result] of Object.entries(channels)) {
        const channel = this.#channels.get(name);
        const { epoch } = asked[name] ?? {};
        if (!channel || channel.epoch !== (epoch ?? '')) continue; // it is another's by now
        if (epoch && result.recovered && !fresh && result.epoch === epoch) for (const p of result.publications ?? []) this.#publication(channel, p);
        else this.#place(channel, { token: '', ...result }, epoch);
      }
      fresh = false;
      begin();
    };
    const begin = () => {
      if (connection.ready || !current()) return;
      ready();
      connection.subscribe = changed;
    };
    (async () => {
      await null; // it is the connection by then
      while (current()) {
        try {
          await once();
        } catch (error) {
          if (error.name !== 'AbortError') return failed(error);
        }
      }
    })();
    return connection;
  }
}

function websocket(url, connect, { received, failed }) {
  const socket = new WebSocket(url.replace(/^http/, 'ws') + '/websocket');
  socket.onopen = () => socket.send(lines([connect]));
  socket.onmessage = ({ data }) => data.split('\n').forEach((line) => line && received(JSON.parse(line)));
  socket.onclose = ({ code, reason }) => failed(fault(`the WebSocket has ended: ${code} ${reason}`, { code, told: code >= 3000 }));
  return { send: (commands) => socket.readyState === 1 && socket.send(lines(commands)), close: () => socket.close() };
}

// What clients send whose connection goes one way. All of it goes in its order.
function emulated(url, { ready, failed }) {
  let before = Promise.resolve();
  return (commands) => {
    const { session, node } = ready();
    before = before.then(() => post(url + '/emulation', { session, node, data: lines(commands) })).catch(failed);
  };
}

function stream(url, connect, link) {
  const abort = new AbortController();
  (async () => {
    const answer = await post(url + '/stream', connect, abort.signal);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = ''; ; ) {
      const { value, done } = await reader.read();
      if (done) throw fault('the stream has ended');
      const parts = (rest + value).split('\n');
      rest = parts.pop();
      parts.forEach((line) => line && link.received(JSON.parse(line)));
    }
  })().catch(link.failed);
  return { send: emulated(url, link), close: () => abort.abort() };
}

function sse(url, connect, link) {
  const source = new EventSource(`${url}/sse?cf_connect=${encodeURIComponent(JSON.stringify(connect))}`, { withCredentials: true });
  source.onmessage = ({ data }) => link.received(JSON.parse(data));
  source.onerror = () => link.failed(fault('the events have ended'));
  return { send: emulated(url, link), close: () => source.close() };
}
