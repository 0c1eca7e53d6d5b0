/** The types of the player's interface. README.md explains what they stand for. */

/** Which least delay a player holds: 60, 200 or 600 ms. */
export type Latency = "low" | "balanced" | "stable";

/** How the sound comes over the network. */
export type Codec = "opus" | "pcm_s16le";

/** Why there is nothing to hear, as the broadcaster said. */
export type Silence = "muted" | "paused";

export type PlayerState =
  | "idle"
  | "connecting"
  | "waiting"
  | "buffering"
  | "playing"
  | "concealing"
  | "rebuffering"
  | "reconnecting"
  | "blocked"
  | "interrupted"
  | "failed"
  | "ended";

/** Why a player failed, ended or has no connection: a WebSocket close code, or the player's own word for it. */
export type PlayerCode =
  | number
  | "not-loaded"
  | "address"
  | "codec"
  | "protocol"
  | "source_lost"
  | "unreachable"
  | "http";

export type ChannelState = "waiting" | "live" | "source_lost" | "ended";

/** A channel of the session. */
export interface Channel {
  readonly id: string;
  /** What people call it; its id where nobody named it. */
  readonly name: string;
  /** The BCP 47 tag of its language; null where the broadcaster did not say. */
  readonly lang: string | null;
  readonly state: ChannelState;
}

export interface RelayPlayerOptions {
  /** `wss://…` or `https://…` of the relay, also with a path. The page's own host when left out. */
  url?: string | null;
  session: string;
  /** `main` when left out. */
  channel?: string;
  /** For a relay that asks for one. */
  token?: string | null;
  /** `balanced` when left out. */
  latency?: Latency;
  /** The gain, 0 to 1; 1 when left out. */
  volume?: number;
  /** Whether to spend as little data as possible; as the browser's user has set it when left out or null. */
  saveData?: boolean | null;
  /** The codec to ask for first, if this browser can play it; `opus` when left out. */
  codec?: Codec;
}

/** What a player measures. Durations are in milliseconds; counts begin with `play`. */
export interface PlayerStats {
  /** Sound that is there and not played. */
  readonly bufferMs: number;
  /** The delay that the network needs. */
  readonly targetMs: number;
  /** The delay that is, against the fastest frame of late. */
  readonly playoutMs: number;
  /** From capture to speaker, without the broadcaster's way to the relay. Null before it is known. */
  readonly delayMs: number | null;
  /** How often the sound ran out. */
  readonly underruns: number;
  /** How much of that was hidden. */
  readonly concealedMs: number;
  readonly jumps: number;
  readonly jumpedMs: number;
  /** How often sound was lost on the way. */
  readonly gaps: number;
  readonly gapMs: number;
  /** How much faster the broadcaster's sound card is than this one, in parts per million. */
  readonly driftPpm: number;
  /** The speed now; 1 is the broadcaster's. */
  readonly rate: number;
  readonly reconnects: number;
  /** How the sound comes: `opus` or `pcm_s16le`. Null before that is known. */
  readonly codec: string | null;
  /** How much comes over the network, headers of the audio included, in the last seconds. */
  readonly bitsPerSecond: number;
}

export interface StateChange {
  readonly state: PlayerState;
  readonly previous: PlayerState;
  /** Why it failed, ended or has no connection, in a sentence; otherwise empty. */
  readonly reason: string;
  /** The same as a code; otherwise null. */
  readonly code: PlayerCode | null;
  /** When the next attempt follows, after one that failed; otherwise null. */
  readonly retryInMs: number | null;
}

export interface Notice {
  /** 4001 when the token expired; otherwise the code of what the relay said. */
  readonly code: number;
  readonly message: string;
}

/** The events of a `RelayPlayer`. */
export interface RelayPlayerEventMap {
  statechange: CustomEvent<StateChange>;
  /** Four times a second. */
  stats: CustomEvent<PlayerStats>;
  /** When the list, or the name of the session, came or changed. */
  channels: CustomEvent<readonly Channel[]>;
  silence: CustomEvent<{ readonly silence: Silence | null }>;
  notice: CustomEvent<Notice>;
}

/** An `EventTarget` that fires the events of a map and no others. */
export interface TypedEventTarget<EventMap extends { [Type in keyof EventMap]: Event }> extends EventTarget {
  addEventListener<Type extends keyof EventMap & string>(
    type: Type,
    listener: ((event: EventMap[Type]) => unknown) | { handleEvent(event: EventMap[Type]): unknown } | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
  removeEventListener<Type extends keyof EventMap & string>(
    type: Type,
    listener: ((event: EventMap[Type]) => unknown) | { handleEvent(event: EventMap[Type]): unknown } | null,
    options?: boolean | EventListenerOptions,
  ): void;
}

/** What keeps a `<relay-player>` from having a player. */
export type PlayerProblem =
  | "address"
  | "session"
  | "channel"
  | "token"
  | "foreign-host"
  | "trusted-types"
  | "not-loaded";
