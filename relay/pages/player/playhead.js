/**
 * Reads sound from a ring at the ring's own rate: plays, splices, stretches, conceals and fades it.
 *
 * Every change of place works the same way: the playhead copies the sound that would come next and blends it into the
 * sound at the new place. So there is no step in any mode, even inside a blend. Invariants: plain playback copies
 * samples exactly; `read` allocates nothing and always fills its output.
 */

import { Concealment } from "./concealment.js";
import { Similarity } from "./similarity.js";
import { Wsola } from "./wsola.js";

/** Nothing plays. New sound is kept until `startIn`. */
export const SILENT = 0;
export const PLAYING = 1;
/** The ring has run out, and `Concealment` fills the gap. */
export const CONCEALING = 2;

const JUMP_FADE_SECONDS = 0.02;
const FADE_SECONDS = 0.01;

/** A jump may land this much earlier or later, where the sound fits best. */
const JUMP_TOLERANCE_SECONDS = 0.01;

/** If less sound than this is left before a splice, it is too short to blend. It then ends as if nothing followed. */
const SHORTEST_JOIN_SECONDS = 0.002;

/** How often the playhead looks for a cut while it stretches. */
const HOP_SECONDS = 0.01;

export class Playhead {
  #ring;
  #concealment;
  #similarity;
  #wsola;
  #jumpFade;
  #fade;
  #tolerance;
  #shortestJoin;
  #hop;
  #untilHop;
  #tails;
  #spareTails;
  #tailAt = 0;
  #tailLength = 0;
  #resumeIn = -1;
  #stretch = 1;
  #stretchBy = 0;

  /** @param {import("./ring.js").Ring} ring @param {number} rate Samples per second. */
  constructor(ring, rate) {
    this.#ring = ring;
    this.#concealment = new Concealment(ring, rate);
    this.#similarity = new Similarity(ring, rate);
    this.#wsola = new Wsola(ring, rate);
    this.#jumpFade = Math.floor(JUMP_FADE_SECONDS * rate);
    this.#fade = Math.floor(FADE_SECONDS * rate);
    this.#tolerance = Math.floor(JUMP_TOLERANCE_SECONDS * rate);
    this.#shortestJoin = Math.floor(SHORTEST_JOIN_SECONDS * rate);
    this.#hop = Math.floor(HOP_SECONDS * rate);
    this.#untilHop = this.#hop;
    this.#tails = ring.planes.map(() => new Float32Array(this.#jumpFade));
    this.#spareTails = ring.planes.map(() => new Float32Array(this.#jumpFade));
    /** The next sample of the ring to play. */
    this.place = ring.end;
    this.mode = SILENT;
    /** Samples until playback starts; -1 if no start is scheduled. */
    this.startIn = -1;
    /** Whether running out of sound is an underrun. */
    this.isExpecting = true;
    this.underruns = 0;
    this.concealedSamples = 0;
  }

  /** Number of samples that have not been played. */
  get held() {
    return this.#ring.end - this.place;
  }

  /** Whether nothing is heard, not even the end of a fade. */
  get isQuiet() {
    return this.mode === SILENT && this.#tailAt >= this.#tailLength;
  }

  /**
   * Appends sound.
   *
   * @param {Int16Array} samples Interleaved.
   * @param {boolean} isSplice Whether they do not continue the samples before them.
   * @param {number} pause Silence before them, in samples.
   * @param {number} [overlap] How many of them repeat the end of the last sound in another codec.
   */
  write(samples, isSplice, pause, overlap = 0) {
    const ring = this.#ring;
    if (overlap > 0) {
      this.#appendOver(samples, overlap);
      return;
    }
    const join = isSplice || pause > 0;
    if (join && this.mode === PLAYING && this.held < this.#shortestJoin) {
      this.#runDry();
    }
    if (pause > 0) {
      // Each of the two joins shortens the silence by one such length.
      this.#appendJoined(0, () => ring.appendSilence(pause + 2 * this.#shortestJoin), this.#shortestJoin);
    }
    this.#appendJoined(
      isSplice && pause === 0 ? this.#tolerance : 0,
      () => ring.append(samples),
      join ? (pause > 0 ? this.#shortestJoin : this.#fade) : 0,
    );
    this.place = Math.max(this.place, ring.start);
  }

  /**
   * Appends sound whose beginning repeats the end of the ring. Blends both where the end has not been played yet.
   *
   * @param {Int16Array} samples
   * @param {number} overlap
   */
  #appendOver(samples, overlap) {
    const ring = this.#ring;
    const seam = ring.end;
    ring.append(samples);
    const doubled = Math.min(overlap, ring.end - seam);
    const length = Math.max(0, Math.min(doubled, seam - this.place, seam - ring.start));
    ring.join(seam, length, doubled - length);
    this.place = Math.max(this.place, ring.start);
  }

  /**
   * Fills `count` samples of every channel.
   *
   * @param {Float32Array[]} outputs
   * @param {number} count
   */
  read(outputs, count) {
    let done = 0;
    while (done < count) {
      done += this.#readSome(outputs, done, count - done);
    }
  }

  /**
   * Plays faster or slower at the same pitch.
   *
   * @param {number} speed 1 is the broadcaster's speed, and 1.05 is faster.
   * @param {number} by Samples to drop or repeat before the stretch ends by itself, to within half a pitch period.
   */
  stretch(speed, by) {
    this.#stretch = speed;
    this.#stretchBy = by;
  }

  /**
   * Skips that many samples, or a few more or less, in one soft cut.
   *
   * @param {number} samples
   */
  jump(samples) {
    const ring = this.#ring;
    if (this.mode !== PLAYING || this.held === 0) {
      this.place = Math.min(this.place + samples, ring.end);
      this.#resumeIn = -1;
      return;
    }
    const length = Math.min(this.#jumpFade, this.held);
    const last = ring.end - length;
    const aim = Math.min(this.place + samples, last);
    this.#similarity.search(
      this.place,
      Math.max(this.place, aim - this.#tolerance),
      Math.min(last, aim + this.#tolerance),
      length,
    );
    this.#moveTo(this.#similarity.place, length);
  }

  /** Fades out quickly and discards the held sound. */
  clear() {
    if (this.mode === PLAYING && this.held < this.#jumpFade) {
      this.#concealment.begin(true);
    }
    this.#keepTail(this.#jumpFade);
    this.place = this.#ring.end;
    this.#ring.forget(this.place);
    this.#fallSilent();
  }

  /**
   * @param {number} tolerance
   * @param {() => void} append
   * @param {number} wanted
   */
  #appendJoined(tolerance, append, wanted) {
    const ring = this.#ring;
    const seam = ring.end;
    append();
    const added = ring.end - seam;
    const length = Math.min(wanted, seam - this.place, seam - ring.start, Math.floor(added / 2));
    if (length <= 0) {
      return;
    }
    let skip = 0;
    if (tolerance > 0) {
      const last = seam + Math.min(tolerance, added - length);
      this.#similarity.search(seam - length, seam, last, length);
      skip = this.#similarity.place - seam;
    }
    ring.join(seam, length, skip);
  }

  /**
   * @param {Float32Array[]} outputs
   * @param {number} at
   * @param {number} room
   */
  #readSome(outputs, at, room) {
    switch (this.mode) {
      case PLAYING:
        return this.#play(outputs, at, room);
      case CONCEALING:
        return this.#conceal(outputs, at, room);
      default:
        return this.#wait(outputs, at, room);
    }
  }

  /**
   * @param {Float32Array[]} outputs
   * @param {number} at
   * @param {number} room
   */
  #play(outputs, at, room) {
    const ring = this.#ring;
    if (this.#untilHop === 0) {
      this.#untilHop = this.#hop;
      if (this.#tailAt >= this.#tailLength) {
        this.#considerStretch();
      }
    }
    const count = Math.min(room, this.held, this.#untilHop);
    if (count === 0) {
      this.#runDry();
      return 0;
    }
    for (let channel = 0; channel < ring.planes.length; channel += 1) {
      const plane = ring.planes[channel];
      const output = outputs[channel];
      for (let i = 0; i < count; i += 1) {
        output[at + i] = plane[(this.place + i) & ring.mask];
      }
    }
    this.place += count;
    this.#untilHop -= count;
    this.#blendTail(outputs, at, count);
    return count;
  }

  /**
   * @param {Float32Array[]} outputs
   * @param {number} at
   * @param {number} room
   */
  #conceal(outputs, at, room) {
    const concealment = this.#concealment;
    if (this.#resumeIn < 0 && this.held >= this.#fade && concealment.isFresh) {
      this.#resumeIn = concealment.bestWait(this.place, this.#fade);
    }
    if (this.#resumeIn === 0) {
      this.#keepTail(this.#fade);
      this.#beginPlaying();
      return 0;
    }
    if (concealment.isOver) {
      this.#fallSilent();
      return 0;
    }
    const count = this.#resumeIn > 0 ? Math.min(room, this.#resumeIn) : room;
    for (let channel = 0; channel < this.#ring.planes.length; channel += 1) {
      const output = outputs[channel];
      for (let i = 0; i < count; i += 1) {
        output[at + i] = concealment.sampleAt(channel, i);
      }
    }
    concealment.advance(count);
    if (this.isExpecting) {
      this.concealedSamples += count;
    }
    if (this.#resumeIn > 0) {
      this.#resumeIn -= count;
    }
    this.#blendTail(outputs, at, count);
    return count;
  }

  /**
   * @param {Float32Array[]} outputs
   * @param {number} at
   * @param {number} room
   */
  #wait(outputs, at, room) {
    if (this.startIn === 0 && this.held > 0) {
      this.#keepTail(Math.min(this.#fade, this.held));
      this.#beginPlaying();
      return 0;
    }
    const count = this.startIn > 0 ? Math.min(room, this.startIn) : room;
    for (let channel = 0; channel < this.#ring.planes.length; channel += 1) {
      outputs[channel].fill(0, at, at + count);
    }
    if (this.startIn > 0) {
      this.startIn -= count;
    }
    this.#blendTail(outputs, at, count);
    return count;
  }

  #beginPlaying() {
    this.mode = PLAYING;
    this.startIn = -1;
    this.#resumeIn = -1;
    this.#untilHop = this.#hop;
    this.#wsola.reset();
  }

  #fallSilent() {
    this.mode = SILENT;
    this.startIn = -1;
    this.#resumeIn = -1;
  }

  #runDry() {
    this.underruns += this.isExpecting ? 1 : 0;
    this.#resumeIn = -1;
    this.#concealment.begin(this.isExpecting);
    this.mode = CONCEALING;
  }

  #considerStretch() {
    const length = this.#wsola.propose(this.place, this.#stretch, this.#stretchBy, this.#hop);
    if (length > 0) {
      this.#stretchBy -= Math.abs(this.#wsola.place - this.place);
      this.#moveTo(this.#wsola.place, length);
    }
  }

  /**
   * @param {number} place
   * @param {number} length
   */
  #moveTo(place, length) {
    this.#keepTail(length);
    this.place = place;
  }

  /**
   * Copies the sound that would come next, in order to fade it out over `length` samples.
   *
   * @param {number} length
   */
  #keepTail(length) {
    const old = this.#tails;
    const kept = this.#spareTails;
    for (let channel = 0; channel < kept.length; channel += 1) {
      for (let i = 0; i < length; i += 1) {
        const sample = this.#upcoming(channel, i);
        const at = this.#tailAt + i;
        kept[channel][i] =
          at < this.#tailLength ? sample + (1 - weightAt(at, this.#tailLength)) * (old[channel][at] - sample) : sample;
      }
    }
    this.#tails = kept;
    this.#spareTails = old;
    this.#tailAt = 0;
    this.#tailLength = length;
  }

  /**
   * @param {number} channel
   * @param {number} later
   */
  #upcoming(channel, later) {
    if (this.mode === SILENT) {
      return 0;
    }
    if (this.mode === CONCEALING) {
      return this.#concealment.sampleAt(channel, later);
    }
    if (later < this.held) {
      return this.#ring.planes[channel][(this.place + later) & this.#ring.mask];
    }
    return this.#concealment.sampleAt(channel, later - this.held);
  }

  /**
   * @param {Float32Array[]} outputs
   * @param {number} at
   * @param {number} count
   */
  #blendTail(outputs, at, count) {
    const blended = Math.min(count, this.#tailLength - this.#tailAt);
    if (blended <= 0) {
      return;
    }
    for (let channel = 0; channel < this.#tails.length; channel += 1) {
      const tail = this.#tails[channel];
      const output = outputs[channel];
      for (let i = 0; i < blended; i += 1) {
        const kept = 1 - weightAt(this.#tailAt + i, this.#tailLength);
        output[at + i] += kept * (tail[this.#tailAt + i] - output[at + i]);
      }
    }
    this.#tailAt += blended;
  }
}

/**
 * Returns the weight of the incoming sound, `at` samples into a blend of `length`. The outgoing sound has the rest.
 *
 * @param {number} at
 * @param {number} length
 */
function weightAt(at, length) {
  return 0.5 - 0.5 * Math.cos((Math.PI * (at + 0.5)) / length);
}
