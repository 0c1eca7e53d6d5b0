/** Lets the person choose a file to broadcast, by its field or by dropping the file anywhere on the page. */

import { element } from "./elements.js";
import { openFile } from "./sources.js";

/** Browsers fire `dragover` at least every 0.55 s during a drag, but not all of them report when it leaves the page. */
const GONE_MS = 800;

export class FilePanel {
  #broadcaster;
  #refuse;
  /** @type {number | undefined} */
  #gone;

  /**
   * @param {import("./broadcaster.js").Broadcaster} broadcaster
   * @param {(field: "file", key: string) => void} refuse Shows an error at a field.
   */
  constructor(broadcaster, refuse) {
    this.#broadcaster = broadcaster;
    this.#refuse = refuse;
    document.addEventListener("dragover", (event) => this.#hover(event));
    document.addEventListener("drop", (event) => this.#drop(event));
  }

  get file() {
    return element("file").files?.[0];
  }

  /**
   * Opens the file as a source for a `Broadcaster`.
   *
   * @param {AudioContext} context
   */
  open(context) {
    return openFile(context, /** @type {File} */ (this.file), {
      onEnd: () => this.#broadcaster.end(),
      onLost: (error) => this.#broadcaster.abort(error),
    });
  }

  /** @param {DragEvent} event */
  #hover(event) {
    if (belongsToField(event)) {
      return;
    }
    // Otherwise the browser would open the file in place of the page, even during a broadcast.
    event.preventDefault();
    const open = !element("file").disabled;
    if (event.dataTransfer !== null) {
      event.dataTransfer.dropEffect = open ? "copy" : "none";
    }
    this.#show(open && carriesFiles(event));
  }

  /**
   * Shows the drop area until the drag leaves the page.
   *
   * @param {boolean} shown
   */
  #show(shown) {
    clearTimeout(this.#gone);
    element("drop").hidden = !shown;
    this.#gone = setTimeout(() => {
      element("drop").hidden = true;
    }, GONE_MS);
  }

  /** @param {DragEvent} event */
  #drop(event) {
    this.#show(false);
    if (belongsToField(event)) {
      return;
    }
    event.preventDefault();
    const field = element("file");
    if (field.disabled || event.dataTransfer === null) {
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

/**
 * Whether the person drags text over a text field. The browser handles that drop.
 *
 * @param {DragEvent} event
 */
function belongsToField(event) {
  const isAboveField =
    event.target instanceof Element && event.target.matches("input:not([type=file], [type=radio], [type=checkbox])");
  return isAboveField && !carriesFiles(event);
}

/** @param {DragEvent} event */
function carriesFiles({ dataTransfer }) {
  return dataTransfer?.types.includes("Files") ?? false;
}
