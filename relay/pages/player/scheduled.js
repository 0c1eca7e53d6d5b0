/**
 * Plays sound without an AudioWorklet, which browsers deny to pages over plain HTTP from another machine.
 *
 * The same `Renderer` runs on the page's thread, some blocks ahead, and its blocks are scheduled as buffer sources. The
 * end of each block triggers the next. Unlike a timer, that event is on time in a hidden tab.
 */

import { Renderer } from "./renderer.js";

/** The page's thread may be busy for this long without a break in the sound. */
const AHEAD_SECONDS = 0.25;

const BLOCK_SECONDS = 0.05;

/**
 * @param {AudioContext} context
 * @returns {{node: AudioNode, port: MessagePort, latencyMs: () => number, close: () => void}} `port` is for the
 *   conductor. `latencyMs` returns the time from rendering to the context's own output.
 */
export function openScheduled(context) {
  const renderer = new Renderer(context.sampleRate);
  const node = new GainNode(context);
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = ({ data }) => {
    if (data.type === "report") {
      port1.postMessage({ id: data.id, report: renderer.report() });
    } else {
      renderer.obey(data);
    }
  };
  const { sampleRate } = context;
  const length = Math.round(BLOCK_SECONDS * sampleRate);
  // Count whole samples: a block that begins between two samples would be interpolated, and click.
  let next = 0;
  let isOpen = true;

  const aheadSeconds = () => next / sampleRate - context.currentTime;

  function fill() {
    next = Math.max(next, Math.ceil((context.currentTime + BLOCK_SECONDS / 2) * sampleRate));
    while (isOpen && aheadSeconds() < AHEAD_SECONDS) {
      const buffer = new AudioBuffer({ length, numberOfChannels: 2, sampleRate });
      renderer.render(buffer.getChannelData(0), buffer.getChannelData(1));
      const source = new AudioBufferSourceNode(context, { buffer });
      source.onended = fill;
      source.connect(node);
      source.start(next / sampleRate);
      next += length;
    }
  }

  fill();
  return {
    node,
    port: port2,
    latencyMs: () => Math.max(0, aheadSeconds()) * 1000,
    close() {
      isOpen = false;
      port1.close();
    },
  };
}
