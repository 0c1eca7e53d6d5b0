/** The parts of a browser that `RelayPlayer` uses. Importing this installs them; tests control Worker and contexts. */

export class FakeWorker {
  static made = [];
  posted = [];
  onmessage = null;
  isTerminated = false;

  constructor() {
    FakeWorker.made.push(this);
  }

  static get latest() {
    return FakeWorker.made[FakeWorker.made.length - 1];
  }

  postMessage(message) {
    this.posted.push(message);
  }

  terminate() {
    this.isTerminated = true;
  }

  /** Sends the page a message about its latest run. */
  tell(message) {
    const { run } = this.#all("play").pop();
    this.onmessage({ data: { run, ...message } });
  }

  /** The request of the latest run. */
  get request() {
    return this.#all("play").pop().request;
  }

  #all(wanted) {
    return this.posted.filter(({ type }) => type === wanted);
  }
}

export class FakeContext {
  static made = [];
  /** An error for the constructor to throw, or null. */
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
  /** An error with which `play` fails, or null. */
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
  // Recent versions of Node define some of these as read-only, so assignment would fail.
  Object.defineProperty(globalThis, name, { value, configurable: true });
}
