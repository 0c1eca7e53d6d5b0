/**
 * The pages' words, in the language of the person who reads them.
 *
 * A page's HTML holds the English words, so that it says something before any script runs. An element with
 * `data-i18n="key"` gets its text from the locale, `data-i18n-attributes="aria-label:key …"` names attributes that do.
 * Locales are flat JSON objects from key to text; `{name}` in a text is a place for a value.
 */

import { element } from "./elements.js";

/** Languages that the pages speak, each a file of `locales/`; the first one is what the HTML holds. */
export const LANGUAGES = ["en", "de", "fr", "es", "ar", "uk"];

const RIGHT_TO_LEFT = new Set(["ar", "ckb", "dv", "fa", "he", "ps", "sd", "ug", "ur", "yi"]);
const STORAGE_KEY = "relay.language";
const RETRY_MS = 1000;

let asked = LANGUAGES[0];
let language = LANGUAGES[0];
/** @type {Record<string, string>} */
let texts = {};
let renderPage = () => {};

/**
 * Loads the words, puts them into the page, and fills its language chooser.
 *
 * @param {() => void} render Puts into the page what depends on more than a key; called now, and again whenever the
 *   person chooses another language.
 */
export async function startTranslating(render) {
  renderPage = render;
  const chooser = element("language");
  for (const tag of LANGUAGES) {
    const option = new Option(nameOfLanguage(tag), tag);
    option.lang = tag;
    chooser.add(option);
  }
  chooser.addEventListener("change", () => {
    remember(STORAGE_KEY, chooser.value);
    speak(chooser.value);
  });
  chooser.value = chooseLanguage([recall(STORAGE_KEY), ...navigator.languages]);
  await speak(chooser.value);
}

/**
 * Gives the first of the person's languages that the pages speak.
 *
 * @param {(string | null)[]} wanted BCP 47 tags, best first.
 */
export function chooseLanguage(wanted) {
  const bases = wanted.map((tag) => tag?.toLowerCase().split("-")[0]);
  return bases.find((base) => base !== undefined && LANGUAGES.includes(base)) ?? LANGUAGES[0];
}

/**
 * Gives the text of a key; the key itself where there is none, which a test forbids.
 *
 * @param {string} key
 * @param {Record<string, string | number | null>} [values] For the places in the text.
 */
export function t(key, values = {}) {
  return (texts[key] ?? key).replace(/\{(\w+)\}/g, (place, name) => String(values[name] ?? place));
}

/**
 * Tells whether there is a text for `key`.
 *
 * @param {string} key
 */
export function knows(key) {
  return key in texts;
}

/**
 * Formats a number as the person's language does; `options` are those of `Intl.NumberFormat`.
 *
 * @param {number} value
 * @param {Intl.NumberFormatOptions} [options]
 */
export function formatNumber(value, options = {}) {
  return new Intl.NumberFormat(language, options).format(value);
}

/** @param {number} value */
export const formatMilliseconds = (value) =>
  formatNumber(value, { style: "unit", unit: "millisecond", maximumFractionDigits: 0 });

/** @param {number} value */
export const formatSeconds = (value) =>
  formatNumber(value, {
    style: "unit",
    unit: "second",
    unitDisplay: "narrow",
    minimumFractionDigits: 1,
    maximumFractionDigits: 1,
  });

/** @param {number} bitsPerSecond */
export const formatBitRate = (bitsPerSecond) =>
  formatNumber(bitsPerSecond / 1000, { style: "unit", unit: "kilobit-per-second", maximumFractionDigits: 0 });

/**
 * Gives a language's name in that language itself, with a capital: `de` is "Deutsch"; the tag where nobody knows it.
 *
 * @param {string} tag
 */
export function nameOfLanguage(tag) {
  try {
    const name = new Intl.DisplayNames([tag], { type: "language" }).of(tag) ?? tag;
    return name.charAt(0).toLocaleUpperCase(tag) + name.slice(1);
  } catch {
    return tag;
  }
}

/**
 * @param {string} tag
 * @returns {"ltr" | "rtl"} how a language is written.
 */
export function directionOf(tag) {
  return RIGHT_TO_LEFT.has(tag.toLowerCase().split("-")[0]) ? "rtl" : "ltr";
}

/**
 * Gives what `remember` stored, or null; storage can be forbidden by the person.
 *
 * @param {string} key
 */
export function recall(key) {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

/**
 * @param {string} key
 * @param {string} value
 */
export function remember(key, value) {
  try {
    localStorage.setItem(key, value);
  } catch {
    // Then it is just not remembered.
  }
}

/**
 * Puts the page into a language as soon as its words are there, unless another one is wanted by then.
 *
 * @param {string} tag
 */
async function speak(tag) {
  asked = tag;
  const loaded = await load(tag);
  if (tag !== asked) {
    return;
  }
  texts = loaded;
  language = tag;
  document.documentElement.lang = language;
  document.documentElement.dir = directionOf(language);
  translate(document);
  renderPage();
  document.documentElement.dataset.ready = "";
}

/**
 * Gives a language's words; while the network is broken it tries again, and the words that are there stay.
 *
 * @param {string} tag
 * @returns {Promise<Record<string, string>>}
 */
async function load(tag) {
  for (;;) {
    try {
      const response = await fetch(new URL(`locales/${tag}.json`, import.meta.url));
      return await response.json();
    } catch {
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }
}

/** @param {ParentNode} root */
function translate(root) {
  for (const named of root.querySelectorAll("[data-i18n]")) {
    put(named.getAttribute("data-i18n") ?? "", (text) => {
      named.textContent = text;
    });
  }
  for (const named of root.querySelectorAll("[data-i18n-attributes]")) {
    for (const pair of (named.getAttribute("data-i18n-attributes") ?? "").split(" ")) {
      const [attribute, key] = pair.split(":");
      put(key, (text) => named.setAttribute(attribute, text));
    }
  }
}

/**
 * @param {string} key
 * @param {(text: string) => void} set
 */
function put(key, set) {
  if (knows(key)) {
    set(t(key));
  }
}
