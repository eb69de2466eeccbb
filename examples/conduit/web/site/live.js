// What is told while somebody looks, and what the connection does, for the strip below the page.
import { account } from '/web/api.js';

const wanted = new Map(); // listeners by channel
let connection;
let leaving = false; // we close it
let again; // a timer
let off = '';

const names = { websocket: 'WebSocket', stream: 'HTTP stream', sse: 'Server-sent events', poll: 'Long polling', '': '' };
const states = { idle: 'Nothing to follow here', connecting: 'Connecting', connected: 'Live', waiting: 'Reconnecting', closed: 'Connecting' };

/** Listens to a channel, in the place of who has before, until the function that it returns is called. */
export function listen(channel, listener) {
  if (!channel) return () => {};
  wanted.get(channel)?.end(); // a page that is shown again
  let stop;
  listener.begin = () => (stop = connection.subscribe(channel, listener));
  listener.end = () => {
    if (wanted.get(channel) === listener) wanted.delete(channel);
    stop?.();
    stop = undefined;
  };
  wanted.set(channel, listener);
  if (connection) listener.begin();
  return listener.end;
}

/** Connects as who looks now. */
export async function restart() {
  clearTimeout(again);
  leaving = true;
  connection?.close();
  connection = undefined;
  leaving = false;
  if (!account.live) return show((off = 'Not live: nothing is told here'));
  off = '';
  show();
  let Realtime;
  try {
    // A module that could not be loaded is not asked for again under the same name.
    ({ Realtime } = await import(loads++ ? `/realtime/realtime.js?${loads}` : '/realtime/realtime.js'));
  } catch {
    again = setTimeout(restart, 2000 + Math.random() * 3000);
    return;
  }
  loads = 0;
  if (connection) return; // somebody was quicker
  // For who wants to see another: ?transports=poll
  const transports = new URLSearchParams(location.search).get('transports')?.split(',');
  connection = new Realtime('/realtime', { transports, minDelay: 200, maxDelay: 10000, onState: changed, onError: (error) => console.debug(error.message) });
  for (const listener of wanted.values()) listener.begin();
}

let loads = 0;

function changed(state) {
  show();
  // Sent away for good: somebody has logged out, here or elsewhere.
  if (state === 'closed' && !leaving) again = setTimeout(() => dispatchEvent(new Event('session')), 500 + Math.random() * 1000);
}

function show() {
  const { stats, state } = connection ?? { stats: { transport: '', reconnects: 0, recovered: 0, lost: 0 }, state: 'connecting' };
  const line = document.getElementById('live-state');
  line.dataset.state = off ? 'off' : state;
  write(line.querySelector('.text'), off || states[state]);
  write(document.getElementById('live-transport'), names[stats.transport]);
  for (const name of ['reconnects', 'recovered', 'lost']) write(document.getElementById(`live-${name}`), String(stats[name]));
}

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

setInterval(show, 500);
