/**
 * The choice of a microphone and of the browser's processing, before and while a page broadcasts.
 *
 * A device that goes away is replaced by the browser's choice until it is plugged in again; what a person chooses
 * later wins over that, also while the browser asks for its permission. All of it is remembered for the next time.
 */

import { element } from "./elements.js";
import { recall, remember, t } from "./i18n.js";
import { SourceError, openMicrophone } from "./sources.js";

const STORAGE_KEY = "relay.microphone";

/** Under these names Chromium lists a device a second time. */
const ALIASES = ["default", "communications"];

/** From the switch's id to the name of the constraint. */
const PROCESSING = /** @type {const} */ ([
  ["echo", "echoCancellation"],
  ["noise", "noiseSuppression"],
  ["gain", "autoGainControl"],
]);

export class MicrophonePanel {
  #broadcaster;
  #replaced = false;
  #lastChange = Promise.resolve();

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

  /** Whether another microphone stands in for a chosen one, which is gone or can not be opened. */
  get replaced() {
    return this.#replaced && element("device").value !== "";
  }

  /** Begins anew: the chosen device, whatever happened before. */
  reset() {
    this.#replaced = false;
  }

  /**
   * Opens the microphone as the panel says, as a source for a `Broadcaster`.
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
        this.#showGranted(source.granted);
        return source;
      }
      // The person chose something else while the browser asked.
      source.close();
    }
  }

  /** What to open now, as the panel says. */
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

  /** Fills the list of devices; their names are known only once the person has allowed one. */
  async list() {
    const select = element("device");
    const devices = await navigator.mediaDevices.enumerateDevices();
    const named = devices.filter(
      ({ kind, label, deviceId }) => kind === "audioinput" && label && !ALIASES.includes(deviceId),
    );
    const chosen = select.selectedOptions[0];
    // Some browsers give a device another id at each visit.
    const found =
      named.find(({ deviceId }) => deviceId === chosen.value) ?? named.find(({ label }) => label === chosen.label);
    select.length = 1;
    for (const { deviceId, label } of named) {
      select.add(new Option(label, deviceId));
    }
    // One that is unplugged stays in the list while it is the chosen one, to be taken again when it is back.
    if (chosen.value && !found) {
      select.add(chosen);
    }
    select.value = chosen.value && found ? found.deviceId : chosen.value;
    return Boolean(found);
  }

  /** Says beside each switch what the browser made of it, in the page's language. */
  render() {
    this.#showGranted(this.#broadcaster.source?.granted ?? null);
  }

  /** @param {MediaTrackSettings | null} granted */
  #showGranted(granted) {
    for (const [id, name] of PROCESSING) {
      const [wanted, got] = [element(id).checked, granted?.[name]];
      // What is on may also be told as a word, as "all" or "remote-only" for the echo.
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
   * Opens the microphone again; one after the other, or the slower of two changes would win over the later one.
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
    const { source, state } = this.#broadcaster;
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
