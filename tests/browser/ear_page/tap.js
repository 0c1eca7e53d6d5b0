// Records every block of its input, silent or not, with the time at which the block was rendered.
//
// It posts chunks of BLOCKS blocks as {frame, left, right, walls}: the context's number of the first frame, the
// samples, and Date.now() at each block. Any message to it flushes the last, shorter chunk. If one chunk does not
// continue the one before it, blocks are missing.
const BLOCKS = 32;

class Tap extends AudioWorkletProcessor {
  #chunk;
  #count = 0;

  constructor() {
    super();
    this.#begin();
    this.port.onmessage = () => this.#post();
  }

  process([[left, right]], [output]) {
    const blockLength = output[0].length;
    // The browser may call this once before the node is connected, and then not again for a while.
    if (this.#count === 0 || currentFrame !== this.#chunk.frame + this.#count * blockLength) {
      this.#count = 0;
      this.#chunk.frame = currentFrame;
    }
    this.#chunk.walls[this.#count] = Date.now();
    if (left !== undefined) {
      this.#chunk.left.set(left, this.#count * blockLength);
      this.#chunk.right.set(right ?? left, this.#count * blockLength);
    }
    this.#count += 1;
    if (this.#count === BLOCKS) {
      this.#post();
    }
    return true;
  }

  #begin() {
    this.#chunk = {
      frame: 0,
      left: new Float32Array(BLOCKS * 128),
      right: new Float32Array(BLOCKS * 128),
      walls: new Float64Array(BLOCKS),
    };
    this.#count = 0;
  }

  #post() {
    const { frame, left, right, walls } = this.#chunk;
    const length = this.#count * 128;
    this.port.postMessage({
      frame,
      left: left.subarray(0, length),
      right: right.subarray(0, length),
      walls: walls.subarray(0, this.#count),
    });
    this.#begin();
  }
}

registerProcessor("test-tap", Tap);
