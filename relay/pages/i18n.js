/**
 * The pages' texts, in the reader's language.
 *
 * The HTML contains the English texts, so a page is readable before any script runs. `data-i18n="key"` translates an
 * element's text; `data-i18n-attributes="aria-label:key …"` translates its attributes. A locale is a flat JSON object
 * that maps keys to texts. `{name}` in a text is a placeholder for a value.
 */

import { element } from "./elements.js";

/** Languages of the pages. Each has a file in `locales/`; the first is the language of the HTML. */
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
 * Loads the texts, translates the page, and fills its language menu.
 *
 * @param {() => void} render Updates the texts that depend on more than a key. It runs after each translation: now, and
 *   whenever the person chooses another language.
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
 * Returns the first of the person's languages into which the pages are translated, or English.
 *
 * @param {(string | null)[]} wanted BCP 47 tags, most preferred first.
 */
export function chooseLanguage(wanted) {
  const bases = wanted.map((tag) => tag?.toLowerCase().split("-")[0]);
  return bases.find((base) => base !== undefined && LANGUAGES.includes(base)) ?? LANGUAGES[0];
}

/**
 * Returns the text of a key, or the key itself if the locale lacks it. A test checks that none is missing.
 *
 * @param {string} key
 * @param {Record<string, string | number | null>} [values] Values for the placeholders.
 */
export function t(key, values = {}) {
  return (texts[key] ?? key).replace(/\{(\w+)\}/g, (place, name) => String(values[name] ?? place));
}

/**
 * Whether the locale has a text for a key.
 *
 * @param {string} key
 */
export function knows(key) {
  return key in texts;
}

/**
 * Formats a number for the page's language.
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
 * Returns a language's name in that language, capitalized: "Deutsch" for `de`. Returns the tag if the browser does not
 * know the language.
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
 * @returns {"ltr" | "rtl"} The direction of the language's script.
 */
export function directionOf(tag) {
  return RIGHT_TO_LEFT.has(tag.toLowerCase().split("-")[0]) ? "rtl" : "ltr";
}

/**
 * Returns the value that `remember` stored, or null. The browser's settings may block storage.
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
    // Storage is blocked or full, so the choice lasts only as long as the page.
  }
}

/**
 * Switches the page to a language once its texts are loaded, unless the person has chosen another one meanwhile.
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
 * Loads a language's texts and retries until that succeeds. The page keeps its present texts meanwhile.
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
