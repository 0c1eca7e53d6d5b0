/**
 * Where a broadcast's sound comes from. A source is {node, begin, close}: an AudioNode, a function that lets it
 * start, and one that gives back what it holds.
 */

/** The end of a file is still on its way through the resampler and the last frame when its node has finished. */
const TAIL_MS = 200;

/** Its message is a sentence for the person who broadcasts. */
export class SourceError extends Error {}

const MICROPHONE_SENTENCES = {
  NotAllowedError:
    "The browser did not allow the microphone. Allow it in the settings beside the page's address, then press Go live.",
  NotFoundError: "No microphone was found. Connect one, then press Go live.",
  NotReadableError: "The microphone can not be used; perhaps another program has it. Close that, then press Go live.",
  OverconstrainedError: "That microphone is not there any more. Choose another one.",
};

/** @returns {string} why this page can not broadcast at all, or an empty string. */
export function unsupportedSentence() {
  if (!globalThis.isSecureContext) {
    return (
      "Browsers give a page the microphone only over HTTPS, or on this same computer. " +
      "Open this page through an https:// address, or broadcast from the command line with “relay broadcast”."
    );
  }
  if (globalThis.AudioWorklet === undefined || navigator.mediaDevices === undefined) {
    return "This browser is too old to broadcast. Use a current one.";
  }
  return "";
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
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio });
  } catch (error) {
    throw new SourceError(MICROPHONE_SENTENCES[error.name] ?? `The microphone can not be used: ${error.message}`);
  }
  const [track] = stream.getAudioTracks();
  track.onended = onLost;
  return {
    node: new MediaStreamAudioSourceNode(context, { mediaStream: stream }),
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
    throw new SourceError(`The browser can not read “${file.name}” as audio. Choose a WAV, MP3, Opus or FLAC file.`);
  }
  const node = new AudioBufferSourceNode(context, { buffer });
  let begun = false;
  let timer;
  node.onended = () => {
    timer = setTimeout(onEnd, TAIL_MS);
  };
  return {
    node,
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
