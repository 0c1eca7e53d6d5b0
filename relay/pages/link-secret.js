/**
 * The secret of a link: what stands behind the # of a page's address, as `#token=…` or `#key=…`.
 *
 * A fragment never leaves the browser, so no server writes it down. But an address is on the screen, and perhaps on
 * the wall beside the QR code. So the secret leaves it once it was taken, and is kept for this tab and this session: the
 * page can be reloaded.
 */

import { isKey } from "./player/wire.js";

export class LinkSecret extends EventTarget {
  #name;
  #place;
  #value = "";

  /**
   * Takes the secret of the page's address. Fires `change` when the person opens a link with a secret later, which loads
   * no page where only the fragment differs.
   *
   * @param {"token" | "key"} name
   * @param {string} session
   */
  constructor(name, session) {
    super();
    this.#name = name;
    this.#place = `relay.${name}.${session}`;
    this.#value = this.#recall();
    this.#take();
    addEventListener("hashchange", () => this.#take());
  }

  /** What the latest link said, even if it can be no secret, or what was kept for this tab; otherwise empty. */
  get value() {
    return this.#value;
  }

  /** Keeps it no longer for this tab, because something else takes its place. */
  forget() {
    this.#keep(null);
  }

  #take() {
    const parts = location.hash.slice(1).split("&");
    const rest = parts.filter((part) => !part.startsWith(`${this.#name}=`));
    if (rest.length === parts.length) {
      return;
    }
    const told = new URLSearchParams(location.hash.slice(1)).get(this.#name) ?? "";
    const fragment = rest.length > 0 ? `#${rest.join("&")}` : "";
    history.replaceState(history.state, "", location.pathname + location.search + fragment);
    if (isKey(told)) {
      this.#keep(told);
    } else if (this.#recall() !== "") {
      // A link that was cut off takes nothing away.
      return;
    }
    this.#value = told;
    this.dispatchEvent(new Event("change"));
  }

  #recall() {
    try {
      return sessionStorage.getItem(this.#place) ?? "";
    } catch {
      return "";
    }
  }

  /**
   * The person can forbid storage; then the page has the secret until it is left.
   *
   * @param {string | null} secret
   */
  #keep(secret) {
    try {
      if (secret === null) {
        sessionStorage.removeItem(this.#place);
      } else {
        sessionStorage.setItem(this.#place, secret);
      }
    } catch {
      // It is not kept.
    }
  }
}
