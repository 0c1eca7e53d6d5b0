/**
 * The audio thread of the listening page: passes messages to a `Playout` and lets it fill the blocks.
 *
 * Messages in: {type: "format", rate, channels}, {type: "audio", samples}, {type: "drain"}, {type: "report"}.
 * Message out, only as an answer to "report", because posting from `process` would allocate: a `Playout` report.
 */

import { Playout } from "./playout.js";

class PlaybackProcessor extends AudioWorkletProcessor {
  #playout = new Playout(sampleRate);

  constructor() {
    super();
    this.port.onmessage = ({ data }) => this.#receive(data);
  }

  process(_inputs, outputs) {
    const output = outputs[0];
    this.#playout.render(output[0], output[1]);
    return true;
  }

  #receive(message) {
    switch (message.type) {
      case "format":
        this.#playout.setFormat(message.rate, message.channels);
        break;
      case "audio":
        this.#playout.write(message.samples);
        break;
      case "drain":
        this.#playout.drain();
        break;
      case "report":
        this.port.postMessage(this.#playout.report());
        break;
    }
  }
}

registerProcessor("relay-playback", PlaybackProcessor);
