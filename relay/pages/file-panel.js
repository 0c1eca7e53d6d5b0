/** The choice of a file to broadcast, in its field or by dropping it anywhere on the page. */

import { openFile } from "./sources.js";

/** While something is above the page, a browser says so at least each 0.55 s; that it left, not every one says. */
const GONE_MS = 800;

const element = (id) => document.getElementById(id);

export class FilePanel {
  #broadcaster;
  #refuse;
  #gone;

  /**
   * @param {import("./broadcaster.js").Broadcaster} broadcaster
   * @param {(field: string, key: string) => void} refuse Tells what is wrong with a field.
   */
  constructor(broadcaster, refuse) {
    this.#broadcaster = broadcaster;
    this.#refuse = refuse;
    document.addEventListener("dragover", (event) => this.#hover(event));
    document.addEventListener("drop", (event) => this.#drop(event));
  }

  /** The chosen file, or undefined. */
  get file() {
    return element("file").files[0];
  }

  /** Opens the file, as a source for a `Broadcaster`. */
  open(context) {
    return openFile(context, this.file, {
      onEnd: () => this.#broadcaster.stop(),
      onLost: (error) => this.#broadcaster.abort(error),
    });
  }

  #hover(event) {
    if (belongsToField(event)) {
      return;
    }
    // Otherwise the browser would leave the page for the file, also while it is live.
    event.preventDefault();
    const open = !element("file").disabled;
    event.dataTransfer.dropEffect = open ? "copy" : "none";
    this.#show(open && event.dataTransfer.types.includes("Files"));
  }

  /** Shows where to drop, until nothing is above the page any more. */
  #show(shown) {
    clearTimeout(this.#gone);
    element("drop").hidden = !shown;
    this.#gone = setTimeout(() => (element("drop").hidden = true), GONE_MS);
  }

  #drop(event) {
    this.#show(false);
    if (belongsToField(event)) {
      return;
    }
    event.preventDefault();
    const field = element("file");
    if (field.disabled) {
      return;
    }
    element("source-file").click();
    const { files, items } = event.dataTransfer;
    if (files.length !== 1 || items[0].webkitGetAsEntry()?.isDirectory) {
      this.#refuse("file", "broadcast.file-one");
    } else {
      field.files = files;
      field.dispatchEvent(new Event("input"));
    }
  }
}

/** Tells whether what is dragged is a text above a field, which takes it by itself. */
function belongsToField({ target, dataTransfer }) {
  return (
    !dataTransfer.types.includes("Files") && target.matches("input:not([type=file], [type=radio], [type=checkbox])")
  );
}
