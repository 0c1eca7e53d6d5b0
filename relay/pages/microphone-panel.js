/**
 * The choice of a microphone and of the browser's processing, before and while a page broadcasts.
 *
 * A device that goes away is replaced by the browser's choice until it is plugged in again; what a person chooses
 * later wins over that.
 */

import { t } from "./i18n.js";
import { openMicrophone } from "./sources.js";

/** Under these names Chromium lists a device a second time. */
const ALIASES = ["default", "communications"];

const element = (id) => document.getElementById(id);

/** From the switch's id to the name of the constraint. */
const PROCESSING = { echo: "echoCancellation", noise: "noiseSuppression", gain: "autoGainControl" };

export class MicrophonePanel {
  #broadcaster;
  #replaced = false;
  #lastChange = Promise.resolve();

  /** @param {import("./broadcaster.js").Broadcaster} broadcaster */
  constructor(broadcaster) {
    this.#broadcaster = broadcaster;
    for (const id of ["device", ...Object.keys(PROCESSING)]) {
      element(id).addEventListener("change", () => this.#change(false));
    }
    const supported = navigator.mediaDevices.getSupportedConstraints();
    for (const [id, name] of Object.entries(PROCESSING)) {
      element(id).disabled = !supported[name];
    }
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

  /** Opens the microphone as the panel says, as a source for a `Broadcaster`. */
  async open(context) {
    const deviceId = this.#replaced ? "" : element("device").value;
    const processing = Object.entries(PROCESSING).map(([id, name]) => [name, element(id).checked]);
    const options = { deviceId, ...Object.fromEntries(processing) };
    const source = await openMicrophone(context, options, () => this.#change(true));
    this.#showGranted(source.granted);
    return source;
  }

  /** Fills the list of devices; their names are known only once the person has allowed one. */
  async list() {
    const select = element("device");
    const devices = await navigator.mediaDevices.enumerateDevices();
    const named = devices.filter(
      ({ kind, label, deviceId }) => kind === "audioinput" && label && !ALIASES.includes(deviceId),
    );
    const chosen = select.selectedOptions[0];
    // One that is unplugged stays in the list while it is the chosen one, to be taken again when it is back.
    const kept = chosen.value && !named.some(({ deviceId }) => deviceId === chosen.value) ? [chosen] : [];
    select.length = 1;
    for (const { deviceId, label } of named) {
      select.add(new Option(label, deviceId));
    }
    kept.forEach((option) => select.add(option));
    select.value = chosen.value;
    return named.some(({ deviceId }) => deviceId === chosen.value);
  }

  /** Says beside each switch what the browser made of it, in the page's language. */
  render() {
    this.#showGranted(this.#broadcaster.source?.granted);
  }

  #showGranted(granted) {
    for (const [id, name] of Object.entries(PROCESSING)) {
      const [wanted, got] = [element(id).checked, granted?.[name]];
      element(`${id}-granted`).textContent = got === undefined ? "" : t(`broadcast.granted.${verdict(wanted, got)}`);
    }
  }

  async #plugged() {
    const present = await this.list();
    if (present && this.#replaced) {
      this.#change(false);
    }
  }

  /** Opens the microphone again; one after the other, or the slower of two changes would win over the later one. */
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
    if (["connecting", "live", "reconnecting"].includes(this.#broadcaster.state)) {
      await this.#broadcaster.changeSource((context) => this.open(context));
    }
  }
}

function verdict(wanted, got) {
  if (wanted === got) {
    return got ? "on" : "off";
  }
  return wanted ? "refused" : "forced";
}
