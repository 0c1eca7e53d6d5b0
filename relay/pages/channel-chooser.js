/**
 * The list of a session's channels: names each language in that language and marks live channels.
 *
 * @typedef {import("./player/types.js").Channel} Channel
 */

import { directionOf, nameOfLanguage, t } from "./i18n.js";

export class ChannelChooser extends EventTarget {
  #fieldset;
  /** @type {readonly Channel[]} */
  #channels = [];
  #chosen;

  /**
   * Fires `choose` when the person chooses another channel. `chosen` is then its id.
   *
   * @param {HTMLFieldSetElement} fieldset
   * @param {string} chosen The id of the initial channel.
   */
  constructor(fieldset, chosen) {
    super();
    this.#fieldset = fieldset;
    this.#chosen = chosen;
    fieldset.addEventListener("change", ({ target }) => {
      this.#chosen = /** @type {HTMLInputElement} */ (target).value;
      this.dispatchEvent(new Event("choose"));
    });
    fieldset.addEventListener("scroll", () => this.#showEnds());
    new ResizeObserver(() => this.#showEnds()).observe(fieldset);
  }

  get chosen() {
    return this.#chosen;
  }

  /** The chosen channel, or undefined while the list does not contain it. */
  get channel() {
    return this.#channels.find(({ id }) => id === this.#chosen);
  }

  /**
   * Selects a channel without firing `choose`.
   *
   * @param {string} id
   */
  choose(id) {
    this.#chosen = id;
    this.#mark();
    this.#reveal();
  }

  /** @param {readonly Channel[]} channels All channels of the session. */
  show(channels) {
    if (JSON.stringify(channels) !== JSON.stringify(this.#channels)) {
      this.#channels = channels;
      this.render();
    }
  }

  /** Rebuilds the list in the page's language. Call it only after a change: a screen reader loses its place. */
  render() {
    const focused = this.#inputs.find((input) => input === document.activeElement);
    this.#fieldset.replaceChildren(...this.#fieldset.querySelectorAll("legend"), ...this.#channels.map(makeChoice));
    this.#mark();
    this.#inputs.find(({ value }) => value === focused?.value)?.focus();
    this.#reveal();
  }

  #mark() {
    this.#fieldset.hidden = this.#channels.every(({ id }) => id === this.#chosen);
    for (const input of this.#inputs) {
      input.checked = input.value === this.#chosen;
    }
  }

  get #inputs() {
    return [...this.#fieldset.querySelectorAll("input")];
  }

  /** Scrolls a long list to the chosen channel. `scrollIntoView` would also scroll the page. */
  #reveal() {
    const list = this.#fieldset;
    const label = list.querySelector(":checked")?.closest("label");
    if (
      label &&
      (label.offsetTop < list.scrollTop || label.offsetTop + label.offsetHeight > list.scrollTop + list.clientHeight)
    ) {
      list.scrollTop = label.offsetTop - (list.clientHeight - label.offsetHeight) / 2;
    }
    this.#showEnds();
  }

  /** Marks the ends at which the list continues, because many devices hide the scroll bar. */
  #showEnds() {
    const { classList, scrollTop, scrollHeight, clientHeight } = this.#fieldset;
    classList.toggle("more-above", scrollTop > 1);
    classList.toggle("more-below", scrollHeight - clientHeight - scrollTop > 1);
  }
}

/**
 * Returns the id of the channel that suits a person best: a channel in the first of their languages that the session
 * has; otherwise `main`; otherwise the first live channel; otherwise the first channel.
 *
 * @param {readonly Channel[]} channels At least one.
 * @param {readonly string[]} languages BCP 47 tags, most preferred first.
 */
export function preferredChannel(channels, languages) {
  /** @param {string | null} tag */
  const base = (tag) => tag?.toLowerCase().split("-")[0];
  for (const language of languages) {
    const fitting = channels.filter(({ lang }) => lang && base(lang) === base(language));
    if (fitting.length > 0) {
      return (fitting.find(({ lang }) => lang?.toLowerCase() === language.toLowerCase()) ?? fitting[0]).id;
    }
  }
  const main = channels.find(({ id }) => id === "main");
  return (main ?? channels.find(({ state }) => state === "live") ?? channels[0]).id;
}

/** @param {Channel} channel */
function makeChoice({ id, name, lang, state }) {
  const input = document.createElement("input");
  Object.assign(input, { type: "radio", name: "channel", value: id });
  const choice = document.createElement("span");
  choice.className = state === "live" ? "choice live" : "choice";
  const title = lang ? nameOfLanguage(lang) : name || id;
  choice.append(makeText("span", title, lang));
  // The relay uses the id as the name of a channel without a name of its own.
  if (name && name !== id && name.toLowerCase() !== title.toLowerCase()) {
    const byName = makeText("small", name);
    byName.className = "by-name";
    choice.append(byName, " ");
  }
  const live = document.createElement("span");
  live.className = "visually-hidden";
  live.textContent = ` – ${t(`listen.channel-state.${state === "live" ? "live" : "waiting"}`)}`;
  choice.append(live);
  const label = document.createElement("label");
  label.append(input, choice);
  return label;
}

/**
 * Wraps text from outside the page in an element with its own language and direction.
 *
 * @template {"span" | "small"} Tag
 * @param {Tag} tag
 * @param {string} text
 * @param {string | null} [lang]
 */
function makeText(tag, text, lang = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  made.dir = lang ? directionOf(lang) : "auto";
  made.lang = lang || "";
  return made;
}
