/** What some browsers have and TypeScript's library does not. */

interface Navigator {
  /** Safari 16.4: https://www.w3.org/TR/audio-session/ */
  readonly audioSession?: { type: "auto" | "playback" };
  /** Chromium: https://wicg.github.io/savedata/ */
  readonly connection?: { readonly saveData?: boolean };
}

/** Chromium, and others of late: https://www.w3.org/TR/trusted-types/ */
declare var trustedTypes: unknown;

interface HTMLMediaElement {
  /** Chromium and Safari: 0 while no sound was decoded. */
  readonly webkitAudioDecodedByteCount?: number;
  /** Firefox. */
  readonly mozHasAudio?: boolean;
}
