// node unpack_wasm.mjs FILE: writes the WebAssembly module that the npm package opus-decoder carries inside its JavaScript.
// `relay/pages/player/opus-decoder.wasm` is made by this, and a test compares them.

import { writeFile } from "node:fs/promises";

import { WASMAudioDecoderCommon } from "@wasm-audio-decoders/common";

import EmscriptenWasm from "./node_modules/opus-decoder/src/EmscriptenWasm.js";

const [file] = process.argv.slice(2);
new WASMAudioDecoderCommon({});
new EmscriptenWasm(WASMAudioDecoderCommon);
await writeFile(file, await WASMAudioDecoderCommon.inflateDynEncodeString(EmscriptenWasm.wasm));
