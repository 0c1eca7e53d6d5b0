/** The start page: takes a session id and opens the listening or the broadcasting page. */

import { startTranslating, t } from "./i18n.js";
import { isName } from "./player/wire.js";

const form = document.getElementById("start");
const field = document.getElementById("session");
const error = document.getElementById("session-error");

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const session = field.value.trim();
  if (isName(session)) {
    location.assign(`${event.submitter?.value ?? "listen"}/${session}`);
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
