// Functions that the tests add to a page. They are not part of the product.

// Encodes float samples as text, because browsers hand over a list of numbers slowly.
globalThis.encodeFloats = (samples) => {
  const bytes = new Uint8Array(Float32Array.from(samples).buffer);
  let text = "";
  for (let i = 0; i < bytes.length; i += 8192) {
    text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  }
  return btoa(text);
};

globalThis.recordPlayer = async (seconds) => {
  const { context, output } = window.relayPlayer;
  await context.audioWorklet.addModule("/assets/test-recorder.js");
  const recorder = new AudioWorkletNode(context, "test-recorder", { processorOptions: { seconds } });
  output.connect(recorder).connect(context.destination);
  const channels = await new Promise((resolve) => {
    recorder.port.onmessage = ({ data }) => resolve(data);
  });
  const join = (blocks) => encodeFloats(blocks.flatMap((block) => [...block]));
  return { rate: context.sampleRate, left: join(channels[0]), right: join(channels[1]) };
};
