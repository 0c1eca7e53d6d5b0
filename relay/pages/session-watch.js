/**
 * Watches a session that the page does not play: which channels it has, and whether they are live.
 *
 * It connects as a listener and stays connected while there is nothing to hear, so it learns at once when audio begins.
 * It reconnects no more often than any other listener.
 */

import { SESSION_ENDED, isFinal } from "./player/close-codes.js";
import { RelaySocket } from "./player/relay-socket.js";

/**
 * @typedef {object} News
 * @property {string | null} sessionName
 * @property {import("./player/types.js").Channel[]} channels
 * @property {import("./player/types.js").ChannelState} state State of the requested channel.
 * @property {import("./player/types.js").Silence | null} silence Why the requested channel is silent.
 *
 * @typedef {import("./player/relay-socket.js").SocketEventMap} SocketEventMap
 *
 * @typedef {object} WatchEventMap
 * @property {CustomEvent<News>} news
 * @property {CustomEvent<import("./player/relay-socket.js").Ending["code"]>} refused The code that forbids
 *   another attempt.
 */

const Emitter = /** @type {new () => import("./player/types.js").TypedEventTarget<WatchEventMap>} */ (EventTarget);

export class SessionWatch extends Emitter {
  #target;
  /** @type {RelaySocket | null} */
  #socket = null;
  /** @type {number | undefined} */
  #timer;
  /** @type {News | null} */
  #news = null;
  #channel = "";

  /** @param {() => {address: string, protocols: string[]}} target Returns where to connect; called for each attempt. */
  constructor(target) {
    super();
    this.#target = target;
  }

  /**
   * Starts watching, unless it already does.
   *
   * @param {number} delayMs How long to wait before connecting.
   */
  start(delayMs = 0) {
    if (this.#socket === null) {
      const socket = new RelaySocket(() => this.#target().address, {
        protocols: () => this.#target().protocols,
        // Another session may have begun and ended before this attempt.
        isFinal: (code) => code !== SESSION_ENDED && isFinal(code),
      });
      /** @type {<Type extends keyof SocketEventMap>(type: Type, take: (detail: SocketEventMap[Type]["detail"]) => void) => void} */
      const hear = (type, take) =>
        socket.addEventListener(type, ({ detail }) => (this.#socket === socket ? take(detail) : socket.close()));
      hear("hello", (hello) => this.#greet(hello));
      hear("message", (message) => this.#hear(message));
      hear("down", () => {});
      hear("stop", ({ code }) => this.#fire("refused", code));
      this.#socket = socket;
      this.#timer = setTimeout(() => socket.open(), delayMs);
    }
  }

  stop() {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    // Browsers log an error if a page closes a WebSocket before it opens. `hear` closes it at its first event.
    if (socket?.accepted || socket?.isWaiting) {
      socket.close();
    }
  }

  /** @param {import("./player/messages.js").Hello} hello */
  #greet({ session_name: sessionName, channel, channels, state, silence = null }) {
    this.#channel = channel;
    this.#tell({ sessionName, channels: Array.isArray(channels) ? channels : [], state, silence });
  }

  /** @param {import("./player/messages.js").ControlMessage} message */
  #hear(message) {
    if (this.#news === null) {
      return;
    }
    if (message.type === "channels") {
      this.#tell({ ...this.#news, sessionName: message.session_name, channels: message.channels });
    } else if (message.type === "state") {
      // The relay's own list follows within a second.
      const { state, silence = null } = message;
      const channels = this.#news.channels.map((entry) => (entry.id === this.#channel ? { ...entry, state } : entry));
      this.#tell({ ...this.#news, channels, state, silence });
    }
  }

  /** @param {News} news */
  #tell(news) {
    this.#news = news;
    this.#fire("news", news);
  }

  /**
   * @template {keyof WatchEventMap} Type
   * @param {Type} type
   * @param {WatchEventMap[Type]["detail"]} detail
   */
  #fire(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
