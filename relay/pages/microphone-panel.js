/**
 * Lets the person choose a microphone and the browser's audio processing, before and during a broadcast.
 *
 * If the chosen device disappears, the browser's default replaces it until it is plugged in again. A later choice by
 * the person takes precedence, even one made while the browser asks for permission. The page remembers all choices.
 */

import { element } from "./elements.js";
import { recall, remember, t } from "./i18n.js";
import { SourceError, openMicrophone } from "./sources.js";

const STORAGE_KEY = "relay.microphone";

/** Ids under which Chromium lists a device a second time. */
const ALIASES = ["default", "communications"];

/** Pairs of a switch's id and its media track constraint. */
const PROCESSING = /** @type {const} */ ([
  ["echo", "echoCancellation"],
  ["noise", "noiseSuppression"],
  ["gain", "autoGainControl"],
]);

export class MicrophonePanel {
  #broadcaster;
  #replaced = false;
  #lastChange = Promise.resolve();
  /** The settings with which the microphone was opened, as text. */
  #opened = "";

  /** @param {import("./broadcaster.js").Broadcaster} broadcaster */
  constructor(broadcaster) {
    this.#broadcaster = broadcaster;
    for (const id of ["device", ...PROCESSING.map(([id]) => id)]) {
      element(id).addEventListener("change", () => {
        this.#remember();
        this.#change(false);
      });
    }
    const supported = navigator.mediaDevices.getSupportedConstraints();
    for (const [id, name] of PROCESSING) {
      element(id).disabled = !supported[name];
    }
    this.#recall();
    navigator.mediaDevices.addEventListener("devicechange", () => this.#plugged());
    this.list();
  }

  /** Whether the default microphone replaces the chosen one, which is gone or cannot be opened. */
  get replaced() {
    return this.#replaced && element("device").value !== "";
  }

  /** Returns to the chosen device, even if it failed before. */
  reset() {
    this.#replaced = false;
  }

  /**
   * Opens the chosen microphone as a source for a `Broadcaster`.
   *
   * @param {AudioContext} context
   * @returns {Promise<import("./sources.js").Source>}
   */
  async open(context) {
    for (;;) {
      const options = this.#options;
      const isCurrent = () => JSON.stringify(options) === JSON.stringify(this.#options);
      let source;
      try {
        source = await openMicrophone(context, options, () => this.#change(true));
      } catch (error) {
        if (error instanceof SourceError && error.code === "microphone-gone" && options.deviceId !== "") {
          this.#replaced ||= isCurrent();
          continue;
        }
        throw error;
      }
      if (isCurrent()) {
        this.#opened = JSON.stringify(options);
        this.#showGranted(source.granted);
        return source;
      }
      // The person changed the settings while the browser asked for permission.
      source.close();
    }
  }

  get #options() {
    return {
      deviceId: this.#replaced ? "" : element("device").value,
      echoCancellation: element("echo").checked,
      noiseSuppression: element("noise").checked,
      autoGainControl: element("gain").checked,
    };
  }

  #remember() {
    const { value: device, label } = element("device").selectedOptions[0];
    const switches = Object.fromEntries(PROCESSING.map(([id]) => [id, element(id).checked]));
    remember(STORAGE_KEY, JSON.stringify({ ...switches, ...(device && { device, label }) }));
  }

  #recall() {
    const { device, label, ...switches } = JSON.parse(recall(STORAGE_KEY) ?? "{}");
    if (device) {
      element("device").add(new Option(label, device, false, true));
    }
    for (const [id] of PROCESSING) {
      element(id).checked = switches[id] === true && !element(id).disabled;
    }
  }

  /** Lists the devices, whose names are known once the person allows one. Returns whether the chosen one is present. */
  async list() {
    const select = element("device");
    const devices = await navigator.mediaDevices.enumerateDevices();
    const named = devices.filter(
      ({ kind, label, deviceId }) => kind === "audioinput" && label && !ALIASES.includes(deviceId),
    );
    const chosen = select.selectedOptions[0];
    // Some browsers give a device a new id at each visit, so its name identifies it as well.
    const found =
      named.find(({ deviceId }) => deviceId === chosen.value) ?? named.find(({ label }) => label === chosen.label);
    select.length = 1;
    for (const { deviceId, label } of named) {
      select.add(new Option(label, deviceId));
    }
    // The chosen device stays in the list while it is unplugged, so that it can be used again when it returns.
    if (chosen.value && !found) {
      select.add(chosen);
    }
    select.value = chosen.value && found ? found.deviceId : chosen.value;
    return Boolean(found);
  }

  /** Shows beside each switch, in the page's language, what the browser applied. */
  render() {
    this.#showGranted(this.#broadcaster.source?.granted ?? null);
  }

  /** @param {MediaTrackSettings | null} granted */
  #showGranted(granted) {
    for (const [id, name] of PROCESSING) {
      const [wanted, got] = [element(id).checked, granted?.[name]];
      // A setting that is on may also be a string, such as "all" or "remote-only" for echo cancellation.
      const said = got === undefined ? "" : t(`broadcast.granted.${verdict(wanted, got !== false)}`);
      element(`${id}-granted`).textContent = said;
    }
  }

  async #plugged() {
    const present = await this.list();
    if (present && this.#replaced) {
      this.#change(false);
    }
  }

  /**
   * Reopens the microphone. Changes run one after another; otherwise a slow change could override a later one.
   *
   * @param {boolean} replaced
   */
  #change(replaced) {
    this.#lastChange = this.#lastChange.then(async () => {
      this.#replaced = replaced;
      try {
        await this.#reopen();
      } catch {
        this.#replaced = true;
        await this.#reopen().catch((error) => this.#broadcaster.abort(error));
      }
    });
  }

  async #reopen() {
    const broadcaster = this.#broadcaster;
    let isLate = false;
    // The page may still load the audio module after the microphone is open. The broadcaster takes both at once.
    while (broadcaster.source === null && broadcaster.state === "starting") {
      isLate = true;
      await new Promise((resolve) => broadcaster.addEventListener("statechange", resolve, { once: true }));
    }
    if (isLate && JSON.stringify(this.#options) === this.#opened) {
      return;
    }
    const { source, state } = broadcaster;
    if (source !== null && state !== "stopping") {
      await this.#broadcaster.changeSource((context) => this.open(context));
    }
  }
}

/**
 * @param {boolean} wanted
 * @param {boolean} got
 */
function verdict(wanted, got) {
  if (wanted === got) {
    return got ? "on" : "off";
  }
  return wanted ? "refused" : "forced";
}
