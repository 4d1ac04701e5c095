import path from 'node:path';
import { mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { defineConfig, type Plugin } from 'rolldown';

/** Where files are written before they are put into their places: as deep, for the paths in maps. */
const [MADE, MADE_GUEST] = ['dist.made', 'dist.made.guest'];

/**
 * Puts each file that was made in the place of the one before, and removes those that are made no more. The place
 * is never empty: a berthd that runs from it starts its helper at any moment.
 */
function replacing(made: string, place: string): Plugin {
  return {
    name: 'replacing',
    writeBundle: () => {
      mkdirSync(place, { recursive: true });
      const names = readdirSync(made);
      for (const name of names) renameSync(join(made, name), join(place, name));
      rmSync(made, { recursive: true });
      for (const entry of readdirSync(place, { withFileTypes: true }))
        if (entry.isFile() && !names.includes(entry.name)) rmSync(join(place, entry.name));
    },
  };
}

// One file for each program, with the libraries it uses, instead of some hundred modules: berthd then answers
// after half of the CPU time. Functions keep their names, and the maps lead traces back to the sources
// (NODE_OPTIONS=--enable-source-maps).
const programs = defineConfig({
  // All in one directory: src/image/unpack/run.ts looks for the helper beside itself, and so does
  // src/sys/replace-mounts.ts for its thread.
  input: {
    berthd: 'cri/berthd.ts',
    berth: 'src/cli/main.ts',
    helper: 'src/image/unpack/helper.ts',
    'vm-shim': 'src/vm/shim/main.ts',
    'replace-mounts-worker': 'src/sys/replace-mounts-worker.ts',
  },
  platform: 'node',
  // It brings machine code, which it finds from where it is.
  external: ['koffi'],
  plugins: [replacing(MADE, 'dist')],
  output: {
    dir: MADE,
    cleanDir: true,
    format: 'esm',
    chunkFileNames: '[name].js',
    sourcemap: true,
    sourcemapExcludeSources: true,
    // V8 keeps the text of what it runs, two bytes for each character where one is not of Latin-1: without comments
    // and in ASCII berthd takes 6 MB less.
    comments: false,
    minify: { compress: false, mangle: false, codegen: { removeWhitespace: false, asciiOnly: true } },
  },
});

/**
 * The agent of virtual machines is in one file, by which it is copied into their image. As a CommonJS module, which
 * Node.js loads with less of its own code.
 */
const agent = defineConfig({
  input: 'src/vm/agent/main.ts',
  platform: 'node',
  resolve: { alias: { koffi: path.join(import.meta.dirname, 'src/sys/koffi-guest.ts') } },
  output: { file: 'dist/guest/agent.cjs', format: 'cjs', minify: true },
});

export default [programs, agent];
