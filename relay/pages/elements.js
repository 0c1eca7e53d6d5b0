/**
 * The pages' elements by their ids. tests/unit/test_pages.py compares these types with the HTML.
 *
 * @typedef {Record<
 *   "copy" | "end" | "end-cancel" | "end-confirm" | "enlarge" | "go" | "mute" | "play" | "poster-close" | "print" |
 *   "rehearse" | "take-over",
 *   HTMLButtonElement
 * >} Buttons
 *
 * @typedef {Record<
 *   "audience" | "channel" | "echo" | "file" | "gain" | "key" | "name" | "noise" | "save-data" | "session-name" |
 *   "source-file" | "volume",
 *   HTMLInputElement
 * >} Inputs
 *
 * @typedef {Record<"device" | "language" | "tongue", HTMLSelectElement>} Selects
 * @typedef {Record<"channels" | "reach" | "source-choice", HTMLFieldSetElement>} FieldSets
 * @typedef {Record<"end-question" | "poster", HTMLDialogElement>} Dialogs
 * @typedef {Record<"code" | "poster-code", HTMLImageElement>} Images
 * @typedef {Record<"buffer-shape" | "delay-shape", SVGPathElement>} Paths
 *
 * @typedef {Buttons & Inputs & Selects & FieldSets & Dialogs & Images & Paths & {
 *   broadcast: HTMLFormElement,
 *   more: HTMLDetailsElement,
 *   picture: SVGSVGElement,
 * }} Controls
 */

/**
 * Returns an element that the page is known to have. Elements outside `Controls` hold text or other elements.
 *
 * @template {string} Id
 * @param {Id} id
 */
export function element(id) {
  return /** @type {Id extends keyof Controls ? Controls[Id] : HTMLElement} */ (document.getElementById(id));
}
