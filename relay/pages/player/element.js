/**
 * `<relay-player src="https://relay.example/listen/ev1" latency="balanced">`: a player with its own small controls.
 *
 * Importing this module defines the element. README.md has its attributes; `statechange`, `stats`, `channels` and `notice`
 * are fired as by `RelayPlayer`, and bubble.
 */

import { RelayPlayer } from "./relay-player.js";
import { isLatency } from "./target-delay.js";

// A constructed style sheet is no inline style, so a strict Content-Security-Policy allows it. A server that renders pages
// imports this module too, and has neither style sheets nor elements.
const STYLE = globalThis.CSSStyleSheet && new CSSStyleSheet();
STYLE?.replaceSync(`
  :host { display: inline-flex; flex-wrap: wrap; align-items: center; gap: 0.5em 0.75em; font: inherit; }
  :host([hidden]) { display: none; }
  [hidden] { display: none; }
  button, select, input { font: inherit; accent-color: currentColor; }
  button { min-width: 5.5em; min-height: 2.75em; cursor: pointer; }
  label { display: inline-flex; align-items: center; gap: 0.4em; }
  output { min-width: 12em; }
`);

const STATES = {
  idle: "",
  connecting: "Connecting…",
  waiting: "Waiting for the broadcaster.",
  buffering: "Buffering…",
  playing: "Live",
  concealing: "Live",
  rebuffering: "Buffering…",
  reconnecting: "Connection lost. Connecting again…",
  blocked: "The browser holds the sound back. Press Play again.",
  interrupted: "Interrupted by another sound. Press Play if it does not go on by itself.",
  failed: "It does not work.",
  ended: "The session has ended.",
};

const STARTABLE = new Set(["idle", "blocked", "interrupted", "failed", "ended"]);
const EVENTS = ["statechange", "stats", "channels", "notice"];

export class RelayPlayerElement extends (globalThis.HTMLElement ?? Object) {
  static observedAttributes = ["src", "session", "channel", "latency", "token"];

  /** What it says; a page in another language replaces these once, before the first element is made. */
  static words = { play: "Play", stop: "Stop", volume: "Volume", channel: "Channel", states: STATES };

  #player = null;
  #button = document.createElement("button");
  #volume = document.createElement("input");
  #channels = document.createElement("select");
  #chooser = document.createElement("label");
  #status = document.createElement("output");

  constructor() {
    super();
    const { words } = RelayPlayerElement;
    const root = this.attachShadow({ mode: "open", delegatesFocus: true });
    root.adoptedStyleSheets = [STYLE];

    this.#button.type = "button";
    this.#button.part = "button";
    this.#button.addEventListener("click", () => (STARTABLE.has(this.state) ? this.play() : this.stop()));

    Object.assign(this.#volume, { type: "range", min: "0", max: "100", value: "100", part: "volume" });
    this.#volume.addEventListener("input", () => this.#applyVolume());
    const loudness = document.createElement("label");
    loudness.append(words.volume, this.#volume);

    this.#channels.part = "channel";
    this.#channels.addEventListener("change", () => this.#player?.switchChannel(this.#channels.value));
    this.#chooser.append(words.channel, this.#channels);
    this.#chooser.hidden = true;

    // An output is a live region: its changes are read out once each.
    this.#status.part = "status";
    root.append(this.#button, loudness, this.#chooser, this.#status);
    this.#show();
  }

  /** The `RelayPlayer` behind it; null while `src` and `session` name none. */
  get player() {
    return this.#player;
  }

  get state() {
    return this.#player?.state ?? "idle";
  }

  get stats() {
    return this.#player?.stats ?? null;
  }

  /** Starts; call it inside a click. */
  async play() {
    await this.#player?.play();
  }

  stop() {
    this.#player?.stop();
  }

  connectedCallback() {
    this.#renew();
  }

  disconnectedCallback() {
    this.#player?.dispose();
    this.#player = null;
  }

  attributeChangedCallback(name, before, after) {
    const player = this.#player;
    if (before === after || !this.isConnected) {
      return;
    }
    if (player === null || name === "src" || name === "session") {
      this.#renew();
    } else if (name === "channel") {
      player.switchChannel(after ?? "main");
    } else if (name === "latency") {
      player.latency = knownLatency(after);
    } else {
      player.token = after || null;
    }
  }

  #renew() {
    this.#player?.dispose();
    this.#player = null;
    const options = readSource(this);
    if (options.session) {
      const player = new RelayPlayer({ ...options, volume: this.#gain });
      for (const type of EVENTS) {
        player.addEventListener(type, ({ detail }) => this.#pass(player, type, detail));
      }
      this.#player = player;
    }
    this.#show();
  }

  #pass(player, type, detail) {
    if (player !== this.#player) {
      return;
    }
    if (type === "channels") {
      this.#showChannels(detail);
    } else if (type === "statechange") {
      this.#show();
    } else if (type === "notice") {
      // Perhaps of a switch that failed.
      this.#channels.value = player.channel;
    }
    this.dispatchEvent(new CustomEvent(type, { detail, bubbles: true, composed: true }));
  }

  /** Loudness is felt about as the square of the gain that a slider would give. */
  get #gain() {
    return (this.#volume.valueAsNumber / 100) ** 2;
  }

  #applyVolume() {
    if (this.#player !== null) {
      this.#player.volume = this.#gain;
    }
  }

  #show() {
    const { words } = RelayPlayerElement;
    const { state } = this;
    this.#button.textContent = STARTABLE.has(state) ? words.play : words.stop;
    this.#button.disabled = this.#player === null;
    const tellsWhy = state === "failed" || this.#player?.code === "unreachable";
    const sentence = (tellsWhy && this.#player.reason) || words.states[state];
    if (this.#status.value !== sentence) {
      this.#status.value = sentence;
    }
  }

  #showChannels(channels) {
    this.#channels.replaceChildren(
      ...channels.map(({ id, name, lang }) => {
        const option = new Option(name, id);
        option.lang = lang ?? "";
        return option;
      }),
    );
    this.#channels.value = this.#player.channel;
    this.#chooser.hidden = channels.length < 2;
  }
}

/** Reads the options of a `RelayPlayer` from an element: `src` may be a relay, or the address of its listening page. */
function readSource(element) {
  const source = new URL(element.getAttribute("src") ?? "/", document.baseURI);
  const found = source.pathname.match(/^(.*?)\/(?:v1\/)?listen\/([^/]+)(?:\/([^/]+))?\/?$/);
  const path = (found ? found[1] : source.pathname).replace(/\/+$/, "");
  const scheme = ["https:", "wss:"].includes(source.protocol) ? "wss:" : "ws:";
  return {
    url: `${scheme}//${source.host}${path}`,
    session: element.getAttribute("session") ?? found?.[2],
    channel: element.getAttribute("channel") ?? found?.[3] ?? "main",
    token: element.getAttribute("token") || null,
    latency: knownLatency(element.getAttribute("latency")),
  };
}

function knownLatency(preset) {
  return isLatency(preset) ? preset : "balanced";
}

globalThis.customElements?.define("relay-player", RelayPlayerElement);
