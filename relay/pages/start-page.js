/** The start page: asks for a session id and opens the listening or the broadcasting page. */

import { startTranslating, t } from "./i18n.js";
import { isName } from "./player/wire.js";

const form = /** @type {HTMLFormElement} */ (document.getElementById("start"));
const field = /** @type {HTMLInputElement} */ (document.getElementById("session"));
const error = /** @type {HTMLElement} */ (document.getElementById("session-error"));

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const session = field.value.trim();
  const submitter = /** @type {HTMLButtonElement | null} */ (event.submitter);
  if (isName(session)) {
    location.assign(`${submitter?.value ?? "listen"}/${session}`);
  } else {
    field.setAttribute("aria-invalid", "true");
    field.focus();
    render();
  }
});

field.addEventListener("input", () => {
  field.removeAttribute("aria-invalid");
  render();
});

function render() {
  error.textContent = field.hasAttribute("aria-invalid") ? t("start.wrong") : "";
}

await startTranslating(render);
