import { createHash } from 'node:crypto';
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

/**
 * Has modules of Node.js loaded when something of them is first used, not all of them at the start. In the same lines, so
 * that maps stay true.
 */
function lazyBuiltins(): Plugin {
  return {
    name: 'lazy-builtins',
    renderChunk: (code) => {
      const names: string[] = [];
      const declared = code.replace(
        /^let (node_\w+) = require\("(node:[\w/]+)"\);$(?!\n\1 = )/gm,
        (_, name: string, module: string) => {
          names.push(name);
          return `const ${name} = { get it() { Object.defineProperty(this, "it", { value: require("${module}") }); return this.it; } };`;
        },
      );
      if (names.length === 0) return null;
      const used = new RegExp(`\\b(${names.join('|')})\\.`, 'g');
      return { code: declared.replace(used, '$1.it.'), map: null };
    },
  };
}

/** Puts a file's digest at its end, by which cri/start.ts knows what was compiled of it. */
function digestAtEnd(): Plugin {
  return {
    name: 'digest-at-end',
    generateBundle: (_, bundle) => {
      for (const made of Object.values(bundle))
        if (made.type === 'chunk' && made.isEntry)
          made.code += `\n// digest=${createHash('sha256').update(made.code).digest('hex')}\n`;
    },
  };
}

// One file for each program, with the libraries it uses, instead of some hundred modules: berthd then answers
// after half of the CPU time. Functions keep their names, and the maps lead traces back to the sources
// (NODE_OPTIONS=--enable-source-maps).
const output = {
  dir: MADE,
  chunkFileNames: '[name].js',
  sourcemap: true,
  sourcemapExcludeSources: true,
  // V8 keeps the text of what it runs, two bytes for each character where one is not of Latin-1: without comments
  // and in ASCII berthd takes 6 MB less.
  comments: false,
  minify: { compress: false, mangle: false, codegen: { removeWhitespace: false, asciiOnly: true } },
} as const;

const resolve = { alias: { koffi: join(import.meta.dirname, 'src/sys/koffi-host.ts') } };

/** As CommonJS, which Node.js loads with 15 ms less of CPU time: for the one whose start others wait for. */
const daemon = defineConfig({
  input: { 'berthd-main': 'cri/berthd.ts' },
  platform: 'node',
  resolve,
  plugins: [lazyBuiltins(), digestAtEnd()],
  output: {
    ...output,
    cleanDir: true,
    format: 'cjs',
    entryFileNames: '[name].cjs',
    chunkFileNames: 'berthd-[name].cjs',
  },
});

const daemonStart = defineConfig({
  input: { berthd: 'cri/start.ts' },
  platform: 'node',
  output: { ...output, format: 'cjs', entryFileNames: '[name].cjs' },
});

const programs = defineConfig({
  // All in one directory: src/image/unpack/run.ts looks for the helper beside itself, and so does
  // src/sys/replace-mounts.ts for its thread.
  input: {
    berth: 'src/cli/main.ts',
    helper: 'src/image/unpack/helper.ts',
    'vm-shim': 'src/vm/shim/main.ts',
    'replace-mounts-worker': 'src/sys/replace-mounts-worker.ts',
  },
  platform: 'node',
  resolve,
  plugins: [replacing(MADE, 'dist')],
  output: { ...output, format: 'esm' },
});

/**
 * The agent of virtual machines is in one file, by which it is copied into their image. As a CommonJS module, which
 * Node.js loads with less of its own code.
 */
const agent = defineConfig({
  input: 'src/vm/agent/main.ts',
  platform: 'node',
  resolve: { alias: { koffi: join(import.meta.dirname, 'src/sys/koffi-guest.ts') } },
  plugins: [replacing(MADE_GUEST, 'dist/guest')],
  output: { file: join(MADE_GUEST, 'agent.cjs'), format: 'cjs', minify: true },
});

// `programs` puts all that is in the folder into its place.
export default [daemon, daemonStart, programs, agent];
