// Runs vitest and closes with one line that counts: "N passed, N failed, N skipped". A test may be
// skipped only for a reason in its name, "[needs …]".
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const dir = mkdtempSync(join(tmpdir(), 'berth-test-'));
const report = join(dir, 'report.json');
const args = [
  'run',
  '--reporter=default',
  '--reporter=json',
  `--outputFile.json=${report}`,
  ...process.argv.slice(2),
];
const { status } = spawnSync('vitest', args, { stdio: 'inherit' });
const { testResults, numPassedTests, numFailedTests } = JSON.parse(readFileSync(report, 'utf8'));
rmSync(dir, { recursive: true });
const skipped = testResults
  .flatMap((file) => file.assertionResults)
  .filter((test) => test.status !== 'passed' && test.status !== 'failed');
const unexplained = skipped.filter((test) => !test.fullName.includes('[needs '));
for (const test of unexplained) console.log(`skipped without a reason: ${test.fullName}`);
console.log(`${numPassedTests} passed, ${numFailedTests} failed, ${skipped.length} skipped`);
process.exit(status !== 0 ? (status ?? 1) : unexplained.length > 0 ? 1 : 0);
