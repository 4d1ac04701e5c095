// Runs vitest and closes with one line that counts: "N passed, N failed, N skipped". A test may be
// skipped only for a reason in its name, "[needs …]". With arguments vitest gets those; without, all tests
// run, in two lanes: the ones that boot a machine mostly wait for it, and share nothing with the others.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const LANES = [['--project=unit', '--project=integration'], ['--project=machines']];

const dir = mkdtempSync(join(tmpdir(), 'berth-test-'));
const given = process.argv.slice(2);
const runs = (given.length > 0 ? [given] : LANES).map(run);
const ends = await Promise.all(runs);
const tests = ends.flatMap(({ tests }) => tests);
rmSync(dir, { recursive: true });

const count = (...statuses) => tests.filter(({ status }) => statuses.includes(status)).length;
const skipped = tests.filter(({ status }) => status !== 'passed' && status !== 'failed');
const unexplained = skipped.filter(({ fullName }) => !fullName.includes('[needs '));
for (const { fullName } of unexplained) console.log(`skipped without a reason: ${fullName}`);
console.log(`${count('passed')} passed, ${count('failed')} failed, ${skipped.length} skipped`);
process.exit(ends.find(({ code }) => code !== 0)?.code ?? (unexplained.length > 0 ? 1 : 0));

/** One vitest. The first writes to the terminal as it goes, the others what they have when they have ended. */
async function run(args, lane) {
  const report = join(dir, `report-${lane}.json`);
  const child = spawn(
    'vitest',
    ['run', '--reporter=default', '--reporter=json', `--outputFile.json=${report}`, ...args],
    { stdio: lane === 0 ? 'inherit' : ['ignore', 'pipe', 'pipe'] },
  );
  const said = [];
  child.stdout?.on('data', (data) => said.push(data));
  child.stderr?.on('data', (data) => said.push(data));
  const [code] = await once(child, 'close');
  process.stdout.write(Buffer.concat(said));
  const { testResults } = JSON.parse(readFileSync(report, 'utf8'));
  return { code: code ?? 1, tests: testResults.flatMap((file) => file.assertionResults) };
}
