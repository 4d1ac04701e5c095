import { execFile } from 'node:child_process';
import { mkdtemp, rmdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';

const exec = promisify(execFile);
const MAIN = path.resolve(import.meta.dirname, '../bench/main.ts');

it('compares berthd and containerd in a table and leaves nothing behind', async () => {
  const directory = await mkdtemp(path.join(tmpdir(), 'bench-'));
  const env = { ...process.env, TMPDIR: directory };
  const { stdout } = await exec(process.execPath, [MAIN, '--quick', '--pods', '1', '--only', 'lists'], {
    env,
  });
  const [head] = stdout.match(/^.*measure.*$/m) ?? [''];
  expect(head.split('│').map((cell) => cell.trim())).toEqual([
    '',
    ...['measure', 'berth', 'containerd', 'ratio', 'spread', 'bar', ''],
    '',
  ]);
  for (const name of ['ListContainers', 'ListPodSandbox', 'ContainerStatus']) {
    expect(stdout).toMatch(
      new RegExp(`${name}, 1 pods, p50 +│ +[\\d.]+ ms │ +[\\d.]+ ms │ +[\\d.]+ │ .* ≤ 1 │ (met|missed)`),
    );
  }
  expect(stdout).toContain('left behind: nothing');
  // Fails when it is not empty.
  await rmdir(directory);
});

it('refuses a measure that does not exist', async () => {
  const { code, stderr } = (await exec(process.execPath, [MAIN, '--only', 'nothing']).then(
    () => ({ code: 0, stderr: '' }),
    (e: unknown) => e,
  )) as { code: number; stderr: string };
  expect(code).toBe(1);
  expect(stderr).toContain('no measure "nothing"');
});
