import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import Module, { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { Script } from 'node:vm';

// Runs the bundle of berthd with the code that V8 has made of it before. Node.js' own cache holds a file as it is before
// it has run: of each function that a start calls it has nothing but the place.

const MAIN = join(import.meta.dirname, 'berthd-main.cjs');
const COMPILED = join(import.meta.dirname, 'compiled', 'berthd-main');
/** Set by the build alone (cri/warm-up.ts): the code of this run is to be kept when it ends. */
const KEEP = 'BERTHD_KEEP_COMPILED';
/** Of SHA-256, in hex. */
const DIGEST_LENGTH = 64;

run();

function run(): void {
  const require = createRequire(MAIN);
  // Only what Node.js has loaded itself is traced back to the sources.
  if (process.sourceMapsEnabled) {
    require(MAIN);
    return;
  }
  const bundle = readFileSync(MAIN, 'latin1');
  const cachedData = compiled(bundle);
  // In its first line, or the lines of traces would not be those of the file.
  const text = `(function (exports, require, module, __filename, __dirname) { ${bundle}\n})`;
  const script = new Script(text, { filename: MAIN, ...(cachedData && { cachedData }) });
  if (process.env[KEEP] !== undefined) keep(script, digestIn(bundle));
  const main = new Module(MAIN);
  // What the bundle loads later requires it in turn.
  require.cache[MAIN] = main;
  script.runInThisContext()(main.exports, require, main, MAIN, dirname(MAIN));
}

/** The digest that the build has put at the end of a bundle (rolldown.config.ts). */
function digestIn(bundle: string): string {
  return /\/\/ digest=([0-9a-f]{64})/.exec(bundle.slice(-200))?.[1] ?? '';
}

/** V8 itself refuses what another V8 or other flags have made; of the text it compares the length alone. */
function compiled(bundle: string): Buffer | undefined {
  if (!existsSync(COMPILED)) return undefined;
  const kept = readFileSync(COMPILED);
  return kept.toString('latin1', 0, DIGEST_LENGTH) === digestIn(bundle)
    ? kept.subarray(DIGEST_LENGTH)
    : undefined;
}

/** Into the folder that Node.js makes for its own cache. */
function keep(script: Script, digest: string): void {
  delete process.env[KEEP];
  setFlagsFromString('--no-flush-bytecode');
  process.once('exit', () => {
    // They count among the flags that must be the same.
    for (const flag of ['--flush-bytecode', '--no-optimize-for-size']) setFlagsFromString(flag);
    writeFileSync(`${COMPILED}.new`, Buffer.concat([Buffer.from(digest), script.createCachedData()]));
    renameSync(`${COMPILED}.new`, COMPILED);
  });
}
