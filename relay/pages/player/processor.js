/**
 * The audio thread: passes the conductor's orders to a `Renderer`, which fills the blocks.
 *
 * The node's port delivers {port}, the MessagePort to the conductor's Worker. `process` must not allocate, so it posts
 * nothing. Instead, the message handler answers {type: "report", id} with {id, report}.
 */

import { Renderer } from "./renderer.js";

class RelayPlayerProcessor extends AudioWorkletProcessor {
  #renderer = new Renderer(sampleRate);

  constructor() {
    super();
    this.port.onmessage = ({ data }) => this.#connect(data.port);
  }

  /**
   * @param {Float32Array[][]} _inputs
   * @param {Float32Array[][]} outputs
   */
  process(_inputs, outputs) {
    const output = outputs[0];
    this.#renderer.render(output[0], output[1]);
    return true;
  }

  /** @param {MessagePort} port */
  #connect(port) {
    port.onmessage = ({ data }) => {
      if (data.type === "report") {
        port.postMessage({ id: data.id, report: this.#renderer.report() });
      } else {
        this.#renderer.obey(data);
      }
    };
  }
}

registerProcessor("relay-player", RelayPlayerProcessor);
