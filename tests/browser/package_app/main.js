// An app that plays the session in its query: …?src=http://RELAY/listen/SESSION

import { RelayPlayer } from "audio-relay-player";
import "audio-relay-player/element.js";

const element = document.createElement("relay-player");
element.setAttribute("src", new URLSearchParams(location.search).get("src"));
document.body.append(element);

globalThis.relayPlayer = element.player;
globalThis.isOfOnePackage = element.player instanceof RelayPlayer;
