/**
 * Where a broadcast's sound comes from. A source is {node, begin, close, granted}: an AudioNode, a function that lets
 * it start, one that gives back what it holds, and what the browser granted of the processing that was asked for:
 * {echoCancellation, noiseSuppression, autoGainControl}, or null for a file.
 */

/** The end of a file is still on its way through the resampler and the last frame when its node has finished. */
const TAIL_MS = 200;

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
 * @throws {SourceError}
 */
export async function openMicrophone(context, { deviceId, ...processing }, onLost) {
  const audio = { ...processing, ...(deviceId && { deviceId: { exact: deviceId } }) };
  let track;
  let node;
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ audio });
    [track] = stream.getAudioTracks();
    node = new MediaStreamAudioSourceNode(context, { mediaStream: stream });
  } catch (error) {
    track?.stop();
    throw new SourceError(MICROPHONE_CODES[error.name] ?? "microphone-unusable", error.name);
  }
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
}

/**
 * @param {AudioContext} context
 * @param {File} file
 * @param {() => void} onEnd Called when all of it was played.
 * @throws {SourceError}
 */
export async function openFile(context, file, onEnd) {
  let buffer;
  try {
    buffer = await context.decodeAudioData(await file.arrayBuffer());
  } catch {
    throw new SourceError("file-unreadable", file.name);
  }
  const node = new AudioBufferSourceNode(context, { buffer });
  let begun = false;
  let timer;
  node.onended = () => {
    timer = setTimeout(onEnd, TAIL_MS);
  };
  return {
    node,
    granted: null,
    begin() {
      if (!begun) {
        begun = true;
        node.start();
      }
    },
    close() {
      clearTimeout(timer);
      node.onended = null;
      node.disconnect();
    },
  };
}
