/**
 * The choice of a session's channel: languages in their own names, those that are live marked.
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
   * Fires `choose` when the person chose another channel; then `chosen` is its id.
   *
   * @param {HTMLFieldSetElement} fieldset
   * @param {string} chosen The id of the channel at first.
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

  /** What is known of the chosen channel, or undefined. */
  get channel() {
    return this.#channels.find(({ id }) => id === this.#chosen);
  }

  /**
   * Marks another channel as chosen.
   *
   * @param {string} id
   */
  choose(id) {
    this.#chosen = id;
    this.#mark();
    this.#reveal();
  }

  /** @param {readonly Channel[]} channels Those of the session. */
  show(channels) {
    if (JSON.stringify(channels) !== JSON.stringify(this.#channels)) {
      this.#channels = channels;
      this.render();
    }
  }

  /** Makes the choices anew, in the page's language. Not for each state: a screen reader among them loses its place. */
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

  /** Scrolls a long list, and never the page, to the chosen channel. */
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

  /** Marks where the list goes on; many devices show no scroll bar. */
  #showEnds() {
    const { classList, scrollTop, scrollHeight, clientHeight } = this.#fieldset;
    classList.toggle("more-above", scrollTop > 1);
    classList.toggle("more-below", scrollHeight - clientHeight - scrollTop > 1);
  }
}

/**
 * Gives the channel that suits a person best: of their first language that is there, else `main`, else the first that
 * is live, else the first.
 *
 * @param {readonly Channel[]} channels At least one.
 * @param {readonly string[]} languages BCP 47 tags, best first.
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
  // The relay gives a channel that nobody named its id as a name.
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
 * Text that others wrote, in its own language and direction.
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
