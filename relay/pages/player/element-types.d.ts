/** The types of `<relay-player>` that its JavaScript can not express. */

import type { RelayPlayerElement } from "./element.js";
import type { PlayerCode, PlayerProblem, PlayerState, RelayPlayerEventMap, Silence } from "./types.js";

declare global {
  interface HTMLElementTagNameMap {
    "relay-player": RelayPlayerElement;
  }
}

/** What an element says. The built-in English stands where `states` and `problems` have nothing. */
export interface RelayPlayerElementWords {
  play: string;
  stop: string;
  volume: string;
  channel: string;
  states: Partial<Record<PlayerState | Silence, string>>;
  problems?: Partial<Record<PlayerProblem, string>>;
}

/** The events of a `<relay-player>`: those of its player, which bubble, and `error`, which does not. */
export interface RelayPlayerElementEventMap extends Omit<HTMLElementEventMap, "error">, RelayPlayerEventMap {
  error: CustomEvent<{ readonly code: PlayerCode | PlayerProblem; readonly reason: string }>;
}

/** An element with the events of a player and its attributes as properties. */
export interface Base extends HTMLElement {
  src: string | null;
  session: string | null;
  channel: string | null;
  latency: string | null;
  token: string | null;
  /** Reads as the attribute does; a boolean may be set. */
  get saveData(): string | null;
  set saveData(value: string | boolean | null);

  addEventListener<Type extends keyof RelayPlayerElementEventMap>(
    type: Type,
    listener: (this: RelayPlayerElement, event: RelayPlayerElementEventMap[Type]) => unknown,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject,
    options?: boolean | AddEventListenerOptions,
  ): void;
  removeEventListener<Type extends keyof RelayPlayerElementEventMap>(
    type: Type,
    listener: (this: RelayPlayerElement, event: RelayPlayerElementEventMap[Type]) => unknown,
    options?: boolean | EventListenerOptions,
  ): void;
  removeEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject,
    options?: boolean | EventListenerOptions,
  ): void;
}
