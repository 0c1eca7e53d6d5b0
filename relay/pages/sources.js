/**
 * Opens the sources of a broadcast: microphones and files.
 *
 * @typedef {object} Source
 * @property {AudioNode} node Delivers the sound.
 * @property {() => void} begin Starts the sound.
 * @property {() => void} close Frees the microphone or the file.
 * @property {MediaTrackSettings | null} granted The settings that the browser granted, such as noise suppression; null
 *   for a file.
 */

/** When an audio element has ended, the last of its sound still passes the resampler and the last frame. */
const TAIL_MS = 200;

/** How long to wait between attempts to resume a file that the browser paused, for example during a call. */
const RESUME_MS = 500;

/** If no sound has been decoded after this much of a file, it has none. */
const SOUND_KNOWN_SECONDS = 1;

/**
 * Codes for the browser's errors, by the names of the errors.
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
 * A source cannot be opened, or is lost. The locales describe each `code` under `problem.CODE`. The message is a detail
 * such as the name of a file. It is no sentence, because a browser's sentences are in English.
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

/** @returns {string | null} A code that says why this page cannot broadcast; null if it can. */
export function unsupportedCode() {
  if (!globalThis.isSecureContext) {
    return "insecure";
  }
  return globalThis.AudioWorklet === undefined || navigator.mediaDevices === undefined ? "too-old" : null;
}

/**
 * Opens a microphone as a source.
 *
 * @param {AudioContext} context
 * @param {object} options
 * @param {string} options.deviceId The id of the device. If it is empty, the browser chooses.
 * @param {boolean} options.echoCancellation
 * @param {boolean} options.noiseSuppression
 * @param {boolean} options.autoGainControl
 * @param {() => void} onLost Called when the device disappears, or the user withdraws the permission.
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
 * Opens a file as a source. An audio element reads the file in pieces, so a long file starts as soon as a short one and
 * needs no more memory. Call it within a click or a key press, because some browsers play sound only then.
 *
 * @param {AudioContext} context
 * @param {File} file
 * @param {object} listener
 * @param {() => void} listener.onEnd Called when the whole file has been played.
 * @param {(error: SourceError) => void} listener.onLost Called when playback fails.
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
  // A media key or a call can pause the file.
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
 * Returns the error for a file that an audio element cannot play. The element does not say whether it cannot decode the
 * file or the file is gone, so this function reads the file to find out.
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
