/** The start page: takes a session id and opens the listening or the broadcasting page. */

import { isName } from "./wire.js";

const form = document.getElementById("start");
const field = document.getElementById("session");
const error = document.getElementById("session-error");

const WRONG = "A session id is 1 to 64 letters, digits or . _ ~ - without spaces, and not dots alone.";

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const session = field.value.trim();
  const valid = isName(session);
  field.setAttribute("aria-invalid", String(!valid));
  error.textContent = valid ? "" : WRONG;
  if (!valid) {
    field.focus();
    return;
  }
  location.assign(`/${event.submitter?.value ?? "listen"}/${session}`);
});

field.addEventListener("input", () => {
  field.removeAttribute("aria-invalid");
  error.textContent = "";
});
