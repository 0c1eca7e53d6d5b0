/**
 * The secret in a link's fragment: `#token=…` or `#key=…`.
 *
 * Browsers never send a fragment, so no server logs it. But the address bar shows it, perhaps on a projector. The page
 * therefore removes the secret from the address and keeps it for this tab and session, so that a reload works.
 */

import { isKey } from "./player/wire.js";

export class LinkSecret extends EventTarget {
  #name;
  #place;
  #value = "";

  /**
   * Takes the secret from the page's address. Fires `change` when the person later opens a link with a secret: the
   * browser does not reload the page if only the fragment differs.
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

  /** The secret of the latest link, even if malformed; else the secret kept for this tab; else "". */
  get value() {
    return this.#value;
  }

  /** Stops keeping the secret for this tab. The caller has replaced it. */
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
      // A truncated link does not replace a valid secret.
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
   * Stores the secret, or removes it if null. If storage is blocked, the secret lasts as long as the page.
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
      // Storage is blocked.
    }
  }
}
