/**
 * `<relay-player src="https://relay.example/listen/ev1" latency="balanced">`: a player with its own small controls.
 *
 * Importing this module defines the element. README.md describes its attributes. The element fires the events of
 * `RelayPlayer`: `statechange`, `stats`, `channels`, `silence` and `notice`; they bubble. If it cannot play, it shows
 * the reason and fires an `error` event.
 */

import { readAttributes } from "./element-attributes.js";
import { RelayPlayer } from "./relay-player.js";

/**
 * @typedef {import("./element-attributes.js").Wanted} Wanted
 * @typedef {import("./types.js").PlayerCode} PlayerCode
 * @typedef {import("./types.js").PlayerProblem} PlayerProblem
 * @typedef {import("./types.js").PlayerState} PlayerState
 * @typedef {import("./element-types.js").RelayPlayerElementWords} Words
 */

const NAME = "relay-player";

/** Attributes by the names of their properties. */
const ATTRIBUTES = /** @type {const} */ ({
  src: "src",
  session: "session",
  channel: "channel",
  latency: "latency",
  token: "token",
  saveData: "save-data",
});
const PROPERTIES = /** @type {(keyof typeof ATTRIBUTES)[]} */ (Object.keys(ATTRIBUTES));

const STYLE = `
  :host { display: inline-flex; flex-wrap: wrap; align-items: center; gap: 0.5em 0.75em; font: inherit; }
  :host([hidden]) { display: none; }
  [hidden] { display: none; }
  button, select, input { font: inherit; accent-color: currentColor; }
  button { min-width: 5.5em; min-height: 2.75em; cursor: pointer; }
  label { display: inline-flex; align-items: center; gap: 0.4em; }
  output { min-width: 12em; }
`;

/** @type {Record<PlayerState | import("./types.js").Silence, string>} */
const STATES = {
  idle: "",
  connecting: "Connecting…",
  waiting: "Waiting for the broadcaster.",
  buffering: "Buffering…",
  playing: "Live",
  concealing: "Live",
  rebuffering: "Buffering…",
  reconnecting: "Connection lost. Reconnecting…",
  blocked: "The browser blocked the sound. Press Play again.",
  interrupted: "Another app is using the sound. If the sound does not return, press Play.",
  failed: "Playback failed.",
  ended: "The session has ended.",
  muted: "The broadcaster is muted.",
  paused: "The broadcaster has paused.",
};

/**
 * States in which the broadcaster may have given the reason for silence.
 *
 * @type {ReadonlySet<PlayerState>}
 */
const HUSHED = new Set(["waiting", "buffering", "playing", "concealing", "rebuffering"]);

/**
 * Why the element cannot play, by the code of the `error` event.
 *
 * @type {Record<PlayerProblem, string>}
 */
const PROBLEMS = {
  address: "This player has no valid address of a relay.",
  session: "This player names no valid session.",
  channel: "This player names no valid channel.",
  token: "This player's token is cut off or misspelt. Open the link that you were given again.",
  "foreign-host": "This player works only where its files come from the page's own host.",
  "trusted-types": "This page's Trusted Types do not let the player start its Worker.",
  "not-loaded": "The player could not be loaded. Reload the page.",
};

/** @type {ReadonlySet<PlayerState>} */
const STARTABLE = new Set(["idle", "blocked", "interrupted", "failed", "ended"]);
const EVENTS = /** @type {const} */ (["statechange", "stats", "channels", "silence", "notice"]);
/** @type {CSSStyleSheet | null} */
let styleSheet = null;

/** A server that renders pages may import this module although it has no HTMLElement. */
const Base = /** @type {new () => import("./element-types.js").Base} */ (globalThis.HTMLElement ?? Object);

class PlayerElement extends Base {
  static observedAttributes = Object.values(ATTRIBUTES);

  /**
   * The element's texts. A page in another language replaces them once, before it creates the first element.
   *
   * @type {Words}
   */
  static words = {
    play: "Play",
    stop: "Stop",
    volume: "Volume",
    channel: "Channel",
    states: STATES,
    problems: PROBLEMS,
  };

  /** @type {RelayPlayer | null} */
  #player = null;
  /**
   * The attributes' values that the player got last. The person may have chosen another channel since.
   *
   * @type {Wanted | null}
   */
  #told = null;
  /**
   * Why there is no player, as a code of `PROBLEMS`, or null.
   *
   * @type {PlayerProblem | null}
   */
  #problem = null;
  #isChanging = false;
  #button = document.createElement("button");
  #volume = document.createElement("input");
  #channels = document.createElement("select");
  #chooser = document.createElement("label");
  #status = document.createElement("output");

  constructor() {
    super();
    const words = this.#words;
    const root = this.attachShadow({ mode: "open", delegatesFocus: true });
    root.adoptedStyleSheets = [sharedStyle()];

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

    // An output element is a live region: screen readers read each change out once.
    this.#status.part = "status";
    root.append(this.#button, loudness, this.#chooser, this.#status);
    this.#show();

    for (const name of PROPERTIES) {
      // biome-ignore lint/suspicious/noPrototypeBuiltins: Object.hasOwn came after the oldest of the browsers
      if (Object.prototype.hasOwnProperty.call(this, name)) {
        // The page set this before the element was defined. An own property would hide the accessor.
        const value = this[name];
        Reflect.deleteProperty(this, name);
        Reflect.set(this, name, value);
      }
    }
  }

  /** The element's `RelayPlayer`; null if the attributes name no session or are invalid. */
  get player() {
    this.#follow();
    return this.#player;
  }

  get state() {
    return this.#player?.state ?? "idle";
  }

  get stats() {
    return this.#player?.stats ?? null;
  }

  /** Starts to play. Call it from a click handler: browsers allow sound only after a click. */
  async play() {
    this.#follow();
    try {
      await this.#player?.play();
    } catch (error) {
      this.#refuse(codeOf(error));
    }
  }

  stop() {
    this.#player?.stop();
  }

  connectedCallback() {
    this.#change();
  }

  /** Because this exists, `moveBefore` does not call the other two callbacks. */
  connectedMoveCallback() {}

  disconnectedCallback() {
    // A page that moves the element removes it and inserts it again. It then keeps playing.
    setTimeout(() => {
      if (!this.isConnected) {
        this.#drop();
        this.#problem = null;
        this.#show();
      }
    });
  }

  /**
   * @param {string} _name
   * @param {string | null} before
   * @param {string | null} after
   */
  attributeChangedCallback(_name, before, after) {
    if (before !== after) {
      this.#change();
    }
  }

  get #words() {
    return /** @type {typeof PlayerElement} */ (this.constructor).words;
  }

  /** Schedules `#follow` once for all attributes that change together, as a framework sets them. */
  #change() {
    if (!this.#isChanging) {
      this.#isChanging = true;
      queueMicrotask(() => this.#follow());
    }
  }

  /** Applies changed attributes to the player. */
  #follow() {
    if (!this.#isChanging) {
      return;
    }
    this.#isChanging = false;
    if (!this.isConnected) {
      return;
    }
    const { problem, wanted } = readAttributes(this);
    const told = this.#told;
    const player = this.#player;
    if (wanted === null) {
      this.#refuse(problem);
    } else if (player === null || told?.url !== wanted.url || told.session !== wanted.session) {
      this.#renew(wanted);
    } else {
      this.#told = wanted;
      if (told.token !== wanted.token) {
        player.token = wanted.token;
      }
      if (told.latency !== wanted.latency) {
        player.latency = wanted.latency;
      }
      if (told.saveData !== wanted.saveData) {
        player.saveData = wanted.saveData;
      }
      if (told.channel !== wanted.channel) {
        player.switchChannel(wanted.channel);
      }
    }
  }

  /**
   * Replaces the player. The new one plays if the old one did.
   *
   * @param {Wanted} wanted
   */
  #renew(wanted) {
    const isPlaying = !STARTABLE.has(this.state);
    this.#drop();
    try {
      this.#player = new RelayPlayer({ ...wanted, volume: this.#gain });
    } catch (error) {
      this.#refuse(codeOf(error));
      return;
    }
    this.#told = wanted;
    this.#problem = null;
    const player = this.#player;
    for (const type of EVENTS) {
      player.addEventListener(type, ({ detail }) => this.#pass(player, type, detail));
    }
    this.#show();
    if (isPlaying) {
      this.play();
    }
  }

  #drop() {
    this.#player?.dispose();
    this.#player = null;
    this.#told = null;
    this.#chooser.hidden = true;
  }

  /**
   * Removes the player and shows the problem. Null shows none, because the element does not name a session yet.
   *
   * @param {PlayerProblem | null} problem
   */
  #refuse(problem) {
    const isNew = problem !== this.#problem;
    this.#drop();
    this.#problem = problem;
    this.#show();
    if (isNew && problem !== null) {
      this.#fail(problem, this.#status.value);
    }
  }

  /**
   * Fires `error`, which does not bubble, like that of media elements.
   *
   * @param {PlayerCode | PlayerProblem} code
   * @param {string} reason
   */
  #fail(code, reason) {
    this.dispatchEvent(new CustomEvent("error", { detail: { code, reason } }));
  }

  /**
   * Shows the news in a player's event and fires the event from the element.
   *
   * @param {RelayPlayer} player
   * @param {(typeof EVENTS)[number]} type
   * @param {unknown} detail
   */
  #pass(player, type, detail) {
    if (player !== this.#player) {
      return;
    }
    const { state, code, reason } = player;
    if (type === "channels") {
      this.#showChannels(player);
    } else if (type === "statechange" || type === "silence") {
      this.#show();
    } else if (type === "notice") {
      // The notice may report a failed switch.
      this.#channels.value = player.channel;
    }
    this.dispatchEvent(new CustomEvent(type, { detail, bubbles: true, composed: true }));
    if (type === "statechange" && state === "failed" && code !== null) {
      this.#fail(code, reason);
    }
  }

  /** Loudness does not grow in proportion to gain. Squaring makes the slider's steps sound about equal. */
  get #gain() {
    return (this.#volume.valueAsNumber / 100) ** 2;
  }

  #applyVolume() {
    if (this.#player !== null) {
      this.#player.volume = this.#gain;
    }
  }

  #show() {
    const words = this.#words;
    const { state } = this;
    this.#button.textContent = STARTABLE.has(state) ? words.play : words.stop;
    this.#button.disabled = this.#player === null;
    const said = (HUSHED.has(state) && this.#player?.silence) || state;
    const tellsWhy = state === "failed" || this.#player?.code === "unreachable";
    const sentence =
      this.#problem !== null
        ? (words.problems?.[this.#problem] ?? PROBLEMS[this.#problem])
        : (tellsWhy && this.#player?.reason) || (words.states[said] ?? STATES[said]);
    if (this.#status.value !== sentence) {
      this.#status.value = sentence;
    }
  }

  /** @param {RelayPlayer} player */
  #showChannels({ channels, channel }) {
    this.#channels.replaceChildren(
      ...channels.map(({ id, name, lang }) => {
        const option = new Option(name, id);
        option.lang = lang ?? "";
        return option;
      }),
    );
    this.#channels.value = channel;
    this.#chooser.hidden = channels.length < 2;
  }
}

for (const [property, attribute] of Object.entries(ATTRIBUTES)) {
  Object.defineProperty(PlayerElement.prototype, property, {
    configurable: true,
    enumerable: true,
    get() {
      return this.getAttribute(attribute);
    },
    set(value) {
      if (value === null || value === undefined) {
        this.removeAttribute(attribute);
      } else {
        this.setAttribute(attribute, value);
      }
    },
  });
}

/** A strict Content-Security-Policy allows a constructed style sheet, but no inline style. */
function sharedStyle() {
  if (styleSheet === null) {
    styleSheet = new CSSStyleSheet();
    styleSheet.replaceSync(STYLE);
  }
  return styleSheet;
}

/**
 * Returns why the browser could not create the Worker.
 *
 * @param {unknown} error
 * @returns {PlayerProblem}
 */
function codeOf(error) {
  if (new URL(import.meta.url).origin !== location.origin) {
    return "foreign-host";
  }
  return error instanceof TypeError && globalThis.trustedTypes !== undefined ? "trusted-types" : "not-loaded";
}

// If the page loads a second copy of this module, the first copy's element stays.
if (globalThis.customElements?.get(NAME) === undefined) {
  globalThis.customElements?.define(NAME, PlayerElement);
}

/** @typedef {PlayerElement} RelayPlayerElement */

/** @type {typeof PlayerElement} */
export const RelayPlayerElement =
  /** @type {typeof PlayerElement | undefined} */ (globalThis.customElements?.get(NAME)) ?? PlayerElement;
