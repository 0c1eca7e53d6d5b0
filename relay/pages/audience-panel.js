/** The audience's link: as text to copy, as a QR code, as a large poster, and for printing. */

import { element } from "./elements.js";
import { t } from "./i18n.js";

const COPIED_SHOWN_MS = 2000;
const LOOPBACK = /^(localhost|127\.[\d.]+|\[::1\])$/;

export class AudiencePanel {
  #session;
  #channel = "";
  /** @type {string | null} */
  #problem = null;
  #drawing = 0;

  /** @param {string} session */
  constructor(session) {
    this.#session = session;
    element("reach").addEventListener("change", () => this.#draw());
    element("copy").addEventListener("click", () => this.#copy());
    element("enlarge").addEventListener("click", () => element("poster").showModal());
    element("poster-close").addEventListener("click", () => element("poster").close());
    element("print").addEventListener("click", () => print());
    this.showTitle(null);
    element("local-hint").hidden = !LOOPBACK.test(location.hostname);
  }

  /**
   * Shows the link of a channel. A link that names only the session leads to the channel `main`.
   *
   * @param {string} channel
   */
  showChannel(channel) {
    if (channel !== this.#channel) {
      this.#channel = channel;
      element("reach").hidden = channel === "main";
      this.#draw();
    }
  }

  /**
   * Shows the session's title on the poster, or its id if it has no title.
   *
   * @param {string | null} title
   */
  showTitle(title) {
    element("poster-title").textContent = title || this.#session;
  }

  /** Fills in the translated texts that the HTML does not name by key. */
  render() {
    element("code").alt = t("audience.code");
    element("poster-code").alt = t("audience.code");
    element("code-problem").textContent = this.#problem ? t(this.#problem) : "";
  }

  get #path() {
    const reach = /** @type {HTMLInputElement} */ (document.querySelector("[name=reach]:checked"));
    const whole = this.#channel === "main" || reach.value === "session";
    return whole ? `listen/${this.#session}` : `listen/${this.#session}/${this.#channel}`;
  }

  async #draw() {
    const drawing = ++this.#drawing;
    const { href: address, protocol } = new URL(this.#path, document.baseURI);
    element("audience").value = address;
    element("poster-link").textContent = address.replace(/^https?:\/\//, "");
    // A proxy may serve the relay under a path that only the page knows.
    const prefix = new URL(document.baseURI).pathname.slice(0, -1);
    const code = `qr/${this.#path}.svg?scheme=${protocol.slice(0, -1)}${prefix && `&prefix=${prefix}`}`;
    const problem = await findProblem(code, address);
    if (drawing !== this.#drawing) {
      return;
    }
    this.#problem = problem;
    for (const id of /** @type {const} */ (["code", "poster-code"])) {
      element(id).src = problem ? "" : code;
      element(id).hidden = Boolean(problem);
    }
    element("code-problem").hidden = !problem;
    this.render();
  }

  async #copy() {
    const button = element("copy");
    element("audience").select();
    try {
      await navigator.clipboard.writeText(element("audience").value);
      button.textContent = t("audience.copied");
    } catch {
      button.textContent = t("audience.copy-by-hand");
    }
    setTimeout(() => {
      button.textContent = t("audience.copy");
    }, COPIED_SHOWN_MS);
  }
}

/**
 * Returns the reason not to show a QR code, or null. A wrong code on a wall would mislead a whole audience.
 *
 * @param {string} code
 * @param {string} address
 */
async function findProblem(code, address) {
  try {
    const response = await fetch(code);
    const picture = new DOMParser().parseFromString(await response.text(), "image/svg+xml");
    if (!response.ok) {
      return "audience.code-failed";
    }
    return picture.querySelector("title")?.textContent === address ? null : "audience.code-differs";
  } catch {
    return "audience.code-failed";
  }
}
