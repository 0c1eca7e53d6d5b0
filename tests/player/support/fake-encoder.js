/** Replaces a browser's Opus encoder (WebCodecs). It emits fake packets of the right duration, and fails on demand. */

const TOC_20_MS = 0x78;

export class FakeAudioData {
  constructor({ numberOfFrames, data }) {
    this.numberOfFrames = numberOfFrames;
    this.isSilent = data.every((sample) => sample === 0);
  }

  close() {}
}

/** Installs the encoder in the global scope. A test may change `behaviour` while it runs. */
export function installEncoder(behaviour = {}) {
  const encoders = [];
  class FakeAudioEncoder {
    state = "unconfigured";
    encodeQueueSize = 0;
    #count = 0;
    #waiting = [];

    constructor({ output, error }) {
      this.output = output;
      this.error = error;
      encoders.push(this);
    }

    static async isConfigSupported(config) {
      return { supported: behaviour.supported ?? true, config };
    }

    configure(config) {
      this.config = config;
      this.state = "configured";
    }

    encode(audio) {
      if (behaviour.fails === true) {
        this.fail("The encoder failed.");
        return;
      }
      this.encodeQueueSize += 1;
      this.#waiting.push(audio);
      if (behaviour.hangs !== true) {
        queueMicrotask(() => this.#work());
      }
    }

    async flush() {
      if (behaviour.hangs === true) {
        await new Promise(() => {});
      }
      this.#work();
    }

    close() {
      this.state = "closed";
    }

    fail(message) {
      this.state = "closed";
      this.error(new Error(message));
    }

    #work() {
      while (this.#waiting.length > 0 && this.state === "configured") {
        const audio = this.#waiting.shift();
        this.encodeQueueSize -= 1;
        const bytes = (behaviour.bytes ?? 80) - (audio.isSilent ? 60 : 0);
        const packet = new Uint8Array(bytes).fill(this.#count);
        packet[0] = behaviour.toc ?? TOC_20_MS;
        this.#count += 1;
        this.output({ byteLength: bytes, copyTo: (target) => target.set(packet) });
      }
    }
  }
  Object.assign(globalThis, { AudioEncoder: FakeAudioEncoder, AudioData: FakeAudioData });
  return encoders;
}
