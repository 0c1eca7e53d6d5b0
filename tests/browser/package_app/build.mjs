// node build.mjs APP: builds an app for production by three bundlers, each as it does by itself, into APP/out/BUNDLER.

import { cp, mkdir, writeFile } from "node:fs/promises";
import { promisify } from "node:util";

import * as esbuild from "esbuild";
import { build } from "vite";
import webpack from "webpack";

const [app] = process.argv.slice(2);
const PAGE = '<!doctype html><title>An app</title><body></body><script type="module" src="./main.js"></script>';

const bundlers = {
  async vite() {
    await writeFile(`${app}/index.html`, PAGE);
    await build({ root: app, configFile: false, logLevel: "warn", build: { outDir: `${app}/out/vite` } });
  },

  async webpack() {
    const path = `${app}/out/webpack`;
    const stats = await promisify(webpack)({ mode: "production", context: app, entry: "./main.js", output: { path } });
    if (stats.hasErrors() || stats.hasWarnings()) {
      throw new Error(stats.toString());
    }
    await writeFile(`${path}/index.html`, PAGE);
  },

  async esbuild() {
    const outdir = `${app}/out/esbuild`;
    const entryPoints = [`${app}/main.js`];
    const { warnings } = await esbuild.build({ entryPoints, outdir, bundle: true, format: "esm", minify: true });
    if (warnings.length > 0) {
      throw new Error(JSON.stringify(warnings));
    }
    // It leaves to the app what a module reaches by `new URL(…, import.meta.url)`, as the package's README says.
    for (const name of ["worker.js", "processor.js", "silence.flac", "opus-decoder.wasm"]) {
      await cp(`${app}/node_modules/audio-relay-player/dist/${name}`, `${outdir}/${name}`);
    }
    await writeFile(`${outdir}/index.html`, PAGE);
  },
};

await mkdir(`${app}/out`);
await Promise.all(Object.values(bundlers).map((bundle) => bundle()));
