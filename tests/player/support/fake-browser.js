/** As much of a browser as `RelayPlayer` touches, set up by importing this: what its Worker and contexts do, a test says. */

export class FakeWorker {
  static made = [];
  posted = [];
  onmessage = null;
  isTerminated = false;

  constructor() {
    FakeWorker.made.push(this);
  }

  /** The one that was made last. */
  static get latest() {
    return FakeWorker.made[FakeWorker.made.length - 1];
  }

  postMessage(message) {
    this.posted.push(message);
  }

  terminate() {
    this.isTerminated = true;
  }

  /** Tells the page something about its latest run. */
  tell(message) {
    const { run } = this.#all("play").pop();
    this.onmessage({ data: { run, ...message } });
  }

  /** What the latest run was asked to play. */
  get request() {
    return this.#all("play").pop().request;
  }

  #all(wanted) {
    return this.posted.filter(({ type }) => type === wanted);
  }
}

export class FakeContext {
  static made = [];
  /** What is thrown instead of making one. */
  static obstacle = null;
  state = "running";
  sampleRate = 48_000;
  destination = {};
  audioWorklet = { addModule: () => Promise.resolve() };
  onstatechange = null;

  constructor() {
    if (FakeContext.obstacle !== null) {
      throw FakeContext.obstacle;
    }
    FakeContext.made.push(this);
  }

  static get latest() {
    return FakeContext.made[FakeContext.made.length - 1];
  }

  get currentTime() {
    return performance.now() / 1000;
  }

  enter(state) {
    this.state = state;
    this.onstatechange?.();
  }

  resume() {
    return Promise.resolve();
  }

  close() {
    this.state = "closed";
    return Promise.resolve();
  }
}

class FakeNode {
  gain = { setTargetAtTime() {} };
  port = { postMessage() {} };

  connect() {}
}

export class FakeAudio extends EventTarget {
  static made = [];
  /** What `play` is refused with. */
  static obstacle = null;
  static canPlay = "maybe";
  volume = 1;
  isPaused = true;

  constructor(src = "") {
    super();
    this.src = src;
    FakeAudio.made.push(this);
  }

  static get latest() {
    return FakeAudio.made[FakeAudio.made.length - 1];
  }

  canPlayType() {
    return FakeAudio.canPlay;
  }

  play() {
    this.isPaused = false;
    return FakeAudio.obstacle === null ? Promise.resolve() : Promise.reject(FakeAudio.obstacle);
  }

  pause() {
    this.isPaused = true;
  }

  removeAttribute(name) {
    this[name] = "";
  }

  load() {}
}
const navigator = { audioSession: {}, mediaSession: { setActionHandler() {} } };

for (const [name, value] of Object.entries({
  Audio: FakeAudio,
  AudioContext: FakeContext,
  AudioWorkletNode: FakeNode,
  GainNode: FakeNode,
  MediaMetadata: Object,
  OfflineAudioContext: FakeContext,
  Worker: FakeWorker,
  location: { origin: "https://relay.example" },
  navigator,
})) {
  // Some of them a later Node has by itself, and not to be assigned.
  Object.defineProperty(globalThis, name, { value, configurable: true });
}
