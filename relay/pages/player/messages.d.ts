/** The messages between the relay, the page, the Worker and the audio thread. */

import type { Channel, ChannelState, Codec, Latency, PlayerCode, PlayerState, PlayerStats, Silence } from "./types.js";

// From the relay, as docs/protocol.md has them. What a later relay adds is ignored.

export type Pace = "live" | "speech";

export interface Format {
  codec: string;
  rate: number;
  channels: number;
  clock_rate: number;
}

export interface Hello {
  type: "hello";
  session: string;
  session_name: string | null;
  channel: string;
  channels: Channel[];
  state: ChannelState;
  silence: Silence | null;
  pace: Pace;
  /** Null before the first broadcaster. */
  format: Format | null;
  epoch: number;
  next_seq: number;
  clock_ms: number;
  /** Missing in the greeting of an older relay. */
  clock_id?: string;
  resumed: boolean;
  /** What was granted; a relay that grants no `packet_ms` knows no `delivery`. */
  coalesce_ms?: number;
  packet_ms?: number;
}

export interface Gap {
  type: "gap";
  epoch: number;
  from_seq: number;
  to_seq: number;
  duration_ms: number;
  reason: "overflow" | "stale" | "resume" | "clear";
}

export interface Complaint {
  type: "error";
  code: number;
  message: string;
}

/** How long frames wait to be sent together: what a listener asks for, and what it is granted. */
export interface Delivery {
  type: "delivery";
  coalesce_ms: number;
  packet_ms: number;
}

export interface BroadcastStats {
  type: "stats";
  listeners: number;
  dropped_frames: number;
  /** How many times as fast as real time its audio comes, when that is wrong; else null. */
  arrival_rate: number | null;
}

/** Any control message but `hello`; the last two are for a broadcaster. */
export type ControlMessage =
  | Gap
  | Complaint
  | { type: "channels"; session_name: string | null; channels: Channel[] }
  | { type: "format"; format: Format; epoch: number }
  | { type: "state"; state: ChannelState; pace?: Pace; silence: Silence | null }
  | { type: "clear" }
  | { type: "pong"; sent_ms: number; clock_ms: number }
  | Delivery
  | { type: "goaway"; reconnect_after_ms: number }
  | BroadcastStats
  | { type: "backpressure"; on: boolean };

/** A control message to the relay: the first four from a listener, the last four from a broadcaster. */
export type Command =
  | { type: "switch"; channel?: string; codec?: string }
  | Delivery
  | { type: "stats"; buffer_ms: number; playout_ms: number; underruns: number; jumps: number }
  | { type: "ping"; sent_ms: number }
  | { type: "mute"; on: boolean }
  | { type: "pause" }
  | { type: "end" };

// Between the page and the Worker.

/** What a page wants to play. */
export interface Request {
  url: string;
  session: string;
  channel: string;
  token: string | null;
  latency: Latency;
  /** Whether to spend as little data as possible. */
  saveData: boolean;
  /** The codec to ask for first. */
  codec: Codec;
}

export type PageMessage =
  | { type: "play"; run: number; request: Request }
  /** The way to the audio thread; null when there is none any more. */
  | { type: "port"; port: MessagePort | null }
  | { type: "running"; isRunning: boolean }
  /** How late sound leaves the speaker after it was rendered. */
  | { type: "speaker"; ms: number }
  | { type: "latency"; preset: Latency }
  | { type: "save-data"; isOn: boolean }
  | { type: "codec"; codec: Codec }
  | { type: "token"; token: string | null }
  | { type: "switch"; channel: string }
  | { type: "stop" };

export interface Status {
  state: PlayerState;
  reason: string;
  code: PlayerCode | null;
  retryInMs: number | null;
}

export type SessionMessage =
  | ({ type: "status" } & Status)
  /** Four times a second. */
  | { type: "stats"; stats: PlayerStats }
  /** Which one is played, when that changed. */
  | { type: "channel"; channel: string }
  | { type: "channels"; channels: Channel[]; sessionName: string | null }
  /** Why there is nothing to hear, when that changed. */
  | { type: "silence"; silence: Silence | null }
  /** Something that a person may want to know. */
  | { type: "notice"; code: number; message: string };

/** `run` is that of the "play", so that the page knows what is from a run that is over. */
export type WorkerMessage = SessionMessage & { run: number };

// Between the Worker and the audio thread.

export interface AudioOrder {
  type: "audio";
  /** A number that `Report` gives back. */
  frame: number;
  /** Interleaved. */
  samples: Int16Array<ArrayBuffer>;
  /** Whether it does not follow what came last. */
  splice: boolean;
  /** So many samples of each channel are the same sound as the end of what came last, in another codec. */
  overlap: number;
  /** Seconds of silence before it. */
  pause: number;
}

export type Order =
  /** Sound of another format follows. */
  | { type: "format"; rate: number; channels: number }
  | AudioOrder
  /** See `SincResampler.trim` and `Playhead`; `by` is how many seconds the stretch is to gain or lose. */
  | { type: "steer"; trimPpm: number; stretch: number; by: number; expecting: boolean }
  /** Play what is held, after a while; null takes that back. */
  | { type: "start"; inSeconds: number | null }
  /** Skip. */
  | { type: "jump"; seconds: number }
  /** Fade out, and throw away what is held. */
  | { type: "clear" };

/** Answered by an `Answer` with the same `id`. */
export interface Question {
  type: "report";
  id: number;
}

export interface Answer {
  id: number;
  /** Null before there is a format. */
  report: Report | null;
}

export type Mode = "silent" | "playing" | "concealing";

/** Where the audio thread is. */
export interface Report {
  mode: Mode;
  /** What is heard is `offsetSeconds` behind the first sample of this frame; -1 before the first one. */
  frame: number;
  offsetSeconds: number;
  /** The frame that was written last; -1 before the first one. */
  newest: number;
  heldSeconds: number;
  underruns: number;
  concealedSeconds: number;
  lostSeconds: number;
}
