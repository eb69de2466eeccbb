/** How a client hears of publications. The first that answers is kept, and tried first after an interruption. */
export type Transport = 'websocket' | 'stream' | 'sse' | 'poll';

export type State = 'idle' | 'connecting' | 'connected' | 'waiting' | 'closed';

/** Why what a channel is about is to be read: it was subscribed to; something was missed that is not kept any more, or could not be shown; it is no news. */
export type Why = 'first' | 'lost' | 'late';

export interface Stats {
  /** That of the latest connection. */
  transport: Transport | '';
  reconnects: number;
  /** Publications that were missed, and brought. */
  recovered: number;
  /** How often something was missed that is not kept any more. */
  lost: number;
  publications: number;
  /** Publications that came twice, and were given once. */
  duplicates: number;
}

export interface Options {
  /** In the order in which they are tried. Default all four; with a token without sse, which would have it in its address, and so in logs. */
  transports?: Transport[];
  /** A token that is valid for a while, for gateways that want one. It is asked for before each connection, poll and renewal. */
  token?: () => Promise<string> | string;
  /** Milliseconds until the next transport is tried. Default 4000. */
  timeout?: number;
  /** Milliseconds between attempts: any up to minDelay (500), twice that, and so on, up to maxDelay (20000). */
  minDelay?: number;
  maxDelay?: number;
  /** Seconds that a poll waits. Default 25. */
  wait?: number;
  onState?: (state: State, stats: Stats) => void;
  onError?: (error: Error) => void;
}

export interface Meta {
  /** Place in the channel; 0 where it keeps no history. */
  offset: number;
  tags: Record<string, string>;
  info?: unknown;
}

export interface Listener<T = unknown> {
  /** One after the other; what it returns is waited for. When it fails, refresh is called with 'lost'. */
  onPublication?: (data: T, meta: Meta) => void | Promise<void>;
  /**
   * Reads what the channel is about, with headers that let it see all that was published there. Publications wait for it. It is called again
   * until it does not fail, so let it throw: fetch does not by itself where response.ok is false. What it has read may be published as well: go by ids.
   */
  refresh?: (why: Why, headers: Record<string, string>) => void | Promise<void>;
  /** The channel is not for this client, or any more. */
  onDenied?: (error: Error) => void;
}

export class Realtime {
  constructor(url: string | URL, options?: Options);
  readonly state: State;
  readonly stats: Stats;
  /** For reads that must see what publications have told of. */
  readonly headers: Record<string, string>;
  subscribe<T = unknown>(channel: string, listener: Listener<T>): () => void;
  publish(channel: string, data: unknown): Promise<void>;
  close(): void;
}
