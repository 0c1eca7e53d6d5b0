// node unpack_wasm.mjs FILE: writes the WebAssembly module that the npm package opus-decoder embeds in its JavaScript.
// `relay/pages/player/opus-decoder.wasm` is its output, and a test compares the two.

import { writeFile } from "node:fs/promises";

import { WASMAudioDecoderCommon } from "@wasm-audio-decoders/common";

import EmscriptenWasm from "./node_modules/opus-decoder/src/EmscriptenWasm.js";

const [file] = process.argv.slice(2);
new WASMAudioDecoderCommon({});
new EmscriptenWasm(WASMAudioDecoderCommon);
await writeFile(file, await WASMAudioDecoderCommon.inflateDynEncodeString(EmscriptenWasm.wasm));
