// An app in TypeScript. What `@ts-expect-error` stands above is wrong, and has to be found.

import type { Channel, PlayerCode, PlayerState, PlayerStats, RelayPlayerOptions, Silence } from "audio-relay-player";
import { FLOORS_MS, isKey, isName, RelayPlayer } from "audio-relay-player";
import { RelayPlayerElement } from "audio-relay-player/element.js";

const options: RelayPlayerOptions = { url: "wss://relay.example.org", session: "ev1", latency: "low", token: null };
const player = new RelayPlayer(options);
// @ts-expect-error A session is required.
new RelayPlayer({ channel: "de" });
new RelayPlayer({ session: "ev1", saveData: true, codec: "pcm_s16le" });
// @ts-expect-error No such codec.
new RelayPlayer({ session: "ev1", codec: "mp3" });
// @ts-expect-error No such preset.
new RelayPlayer({ session: "ev1", latency: "fast" });
// @ts-expect-error A misspelt option.
new RelayPlayer({ session: "ev1", chanel: "de" });

player.addEventListener("statechange", ({ detail }) => {
  const states: [PlayerState, PlayerState] = [detail.state, detail.previous];
  const code: PlayerCode | null = detail.code;
  const retryInMs: number | null = detail.retryInMs;
  console.log(states, code, retryInMs, detail.reason.length);
  if (detail.code === "unreachable" || detail.code === 4502) {
    player.stop();
  }
  // @ts-expect-error There is no such state.
  if (detail.state === "paused") {
    player.stop();
  }
  // @ts-expect-error There is no such code.
  if (detail.code === "full") {
    player.stop();
  }
});
player.addEventListener("stats", ({ detail }) => {
  const stats: PlayerStats = detail;
  // @ts-expect-error The delay may not be known.
  const delayMs: number = stats.delayMs;
  console.log(delayMs, stats.bufferMs.toFixed());
});
player.addEventListener("channels", ({ detail }) => {
  const [first]: readonly Channel[] = detail;
  console.log(first?.name, first?.lang ?? "");
});
const onSilence = ({ detail }: CustomEvent<{ silence: Silence | null }>) => console.log(detail.silence);
player.addEventListener("silence", onSilence, { once: true });
player.removeEventListener("silence", onSilence);
player.addEventListener("notice", { handleEvent: ({ detail }) => console.log(detail.code, detail.message) });
// @ts-expect-error There is no such event.
player.addEventListener("statechanged", () => {});

const started: Promise<void> = player.play();
player.latency = "stable";
player.volume = 0.5;
player.saveData = null;
player.codec = "opus";
player.token = isKey("a-token-12345") ? "a-token-12345" : null;
// @ts-expect-error It is to be read only.
player.channel = "de";
if (isName("de")) {
  player.switchChannel("de");
}
console.log(started, FLOORS_MS.balanced, player.context?.sampleRate, player.output?.gain, player.sessionName);

const element = document.createElement("relay-player");
const made: RelayPlayerElement = element;
const shown: HTMLElement = element;
element.src = "https://relay.example.org/listen/ev1";
element.channel = null;
element.addEventListener("statechange", ({ detail }) => console.log(detail.state));
element.addEventListener("error", ({ detail }) => console.log(detail.code, detail.reason));
element.addEventListener("click", ({ clientX }) => console.log(clientX));
document.querySelector("relay-player")?.play();
document.body.append(made, shown);
RelayPlayerElement.words.states.playing = "Läuft";
RelayPlayerElement.words.problems = { address: "Keine gültige Adresse." };
// @ts-expect-error There is no such state.
RelayPlayerElement.words.states.running = "Läuft";
// @ts-expect-error An attribute is text.
element.volume = 1;

const fromElement: RelayPlayer | null = element.player;
fromElement?.dispose();
