/**
 * Where a broadcast's sound comes from.
 *
 * @typedef {object} Source
 * @property {AudioNode} node
 * @property {() => void} begin Lets it start.
 * @property {() => void} close Gives back what it holds.
 * @property {MediaTrackSettings | null} granted What the browser granted of the processing that was asked for; null for a
 *   file.
 */

/** The end of a file is still on its way through the resampler and the last frame when its element has ended. */
const TAIL_MS = 200;

/** A browser that pauses a file goes on pausing it while a call lasts. */
const RESUME_MS = 500;

/** A file of which so much was played, and no sound decoded, has none. */
const SOUND_KNOWN_SECONDS = 1;

/**
 * From the name of a browser's error to a code.
 *
 * @type {Record<string, string>}
 */
const MICROPHONE_CODES = {
  NotAllowedError: "microphone-not-allowed",
  NotFoundError: "microphone-not-found",
  NotReadableError: "microphone-not-readable",
  AbortError: "microphone-not-readable",
  OverconstrainedError: "microphone-gone",
};

/**
 * `code` names what is wrong, in words of the locales under `problem.CODE`; the message is what else is known, and no
 * sentence: a browser's are in English.
 */
export class SourceError extends Error {
  /**
   * @param {string} code
   * @param {string} message
   */
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/** @returns {string | null} the code of why this page can not broadcast at all. */
export function unsupportedCode() {
  if (!globalThis.isSecureContext) {
    return "insecure";
  }
  return globalThis.AudioWorklet === undefined || navigator.mediaDevices === undefined ? "too-old" : null;
}

/**
 * @param {AudioContext} context
 * @param {object} options
 * @param {string} options.deviceId Empty for the browser's choice.
 * @param {boolean} options.echoCancellation
 * @param {boolean} options.noiseSuppression
 * @param {boolean} options.autoGainControl
 * @param {() => void} onLost Called when the device goes away, or the person takes the permission back.
 * @returns {Promise<Source>}
 * @throws {SourceError}
 */
export async function openMicrophone(context, { deviceId, ...processing }, onLost) {
  const audio = { ...processing, ...(deviceId && { deviceId: { exact: deviceId } }) };
  /** @type {MediaStream | undefined} */
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio });
    const node = new MediaStreamAudioSourceNode(context, { mediaStream: stream });
    const [track] = stream.getAudioTracks();
    track.onended = onLost;
    return {
      node,
      granted: track.getSettings(),
      begin() {},
      close() {
        track.onended = null;
        track.stop();
      },
    };
  } catch (error) {
    stream?.getAudioTracks()[0]?.stop();
    const { name } = /** @type {{name: string}} */ (error);
    throw new SourceError(MICROPHONE_CODES[name] ?? "microphone-unusable", name);
  }
}

/**
 * Opens a file as a source. An element plays it into the graph, which reads it in pieces: a long file begins as soon as
 * a short one, and memory does not grow. Call it within a click or a key press; some browsers play nothing else.
 *
 * @param {AudioContext} context
 * @param {File} file
 * @param {object} listener
 * @param {() => void} listener.onEnd Called when all of it was played.
 * @param {(error: SourceError) => void} listener.onLost Called when it can not be played further.
 * @returns {Promise<Source>}
 * @throws {SourceError}
 */
export async function openFile(context, file, { onEnd, onLost }) {
  const audio = new Audio();
  const address = URL.createObjectURL(file);
  let begun = false;
  /** @type {number | undefined} */
  let timer;
  const close = () => {
    clearTimeout(timer);
    audio.onended = audio.onerror = audio.onpause = audio.ontimeupdate = null;
    audio.removeAttribute("src");
    audio.load();
    URL.revokeObjectURL(address);
  };
  /** @type {AudioNode} */
  let node;
  try {
    await load(audio, address);
    node = new MediaElementAudioSourceNode(context, { mediaElement: audio });
  } catch {
    close();
    throw await problemOf(file, "file-unreadable");
  }
  /** @param {string} code */
  const lose = async (code) => {
    const problem = await problemOf(file, code);
    if (audio.onerror !== null) {
      onLost(problem);
    }
  };
  const play = async () => {
    try {
      await audio.play();
    } catch (error) {
      if (error instanceof Error && error.name === "NotAllowedError") {
        lose("file-not-played");
      }
    }
  };
  audio.onerror = () => lose("file-broken");
  audio.onended = () => {
    timer = setTimeout(onEnd, TAIL_MS);
  };
  // A media key does it, or a call.
  audio.onpause = () => {
    if (!audio.ended) {
      timer = setTimeout(play, RESUME_MS);
    }
  };
  audio.ontimeupdate = () => {
    if (audio.currentTime > SOUND_KNOWN_SECONDS) {
      audio.ontimeupdate = null;
      if (audio.webkitAudioDecodedByteCount === 0 || audio.mozHasAudio === false) {
        lose("file-silent");
      }
    }
  };
  return {
    node,
    granted: null,
    begin() {
      if (!begun) {
        begun = true;
        play();
      }
    },
    close() {
      node.disconnect();
      close();
    },
  };
}

/**
 * @param {HTMLAudioElement} audio
 * @param {string} address
 */
function load(audio, address) {
  return new Promise((resolve, reject) => {
    audio.onloadedmetadata = resolve;
    audio.onerror = reject;
    audio.preload = "auto";
    audio.src = address;
    audio.load();
  });
}

/**
 * Of a file that is gone or was changed, an element says the same as of one that it can not decode.
 *
 * @param {File} file
 * @param {string} code
 */
async function problemOf(file, code) {
  const reader = file.stream().getReader();
  try {
    await reader.read();
    return new SourceError(code, file.name);
  } catch {
    return new SourceError("file-gone", file.name);
  } finally {
    reader.cancel().catch(() => {});
  }
}
