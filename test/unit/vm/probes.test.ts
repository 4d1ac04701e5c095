import { mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { Probes } from '../../../src/vm/probes.ts';

let dir: string;
let file: string;
let program: string;
const find = vi.fn(async () => true);
beforeEach(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'berth-unit-'));
  file = path.join(dir, 'probes.json');
  program = path.join(dir, 'program');
  await writeFile(program, 'a');
  find.mockClear();
});
afterEach(() => rm(dir, { recursive: true }));
const ask = (name = 'kvm') => new Probes(file).ask(name, [program], find, [true, false]);

it('a question is tried once, also by others that come later', async () => {
  expect([await ask(), await ask()]).toEqual([true, true]);
  expect(find).toHaveBeenCalledTimes(1);
  await ask('another');
  await ask();
  expect(find).toHaveBeenCalledTimes(2);
});

it('again when the program is another one', async () => {
  await ask();
  await writeFile(path.join(dir, 'new'), 'a');
  await rename(path.join(dir, 'new'), program);
  await ask();
  await rm(program);
  await ask();
  expect(find).toHaveBeenCalledTimes(3);
});

it('again after a boot', async () => {
  await ask();
  const text = await readFile(file, 'utf8');
  const boot = (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim();
  await writeFile(file, text.replace(boot, 'another'));
  await ask();
  expect(find).toHaveBeenCalledTimes(2);
});

it.each(['', 'null', '[]', '{"kvm":7}', '{"kvm":{"key":', '{"kvm":{}}'])(
  'again with a file that says %s, which is replaced',
  async (text) => {
    await writeFile(file, text);
    await ask();
    await ask();
    expect(find).toHaveBeenCalledTimes(1);
  },
);

it('many at the same time leave one whole file', async () => {
  await Promise.all(Array.from({ length: 20 }, () => ask()));
  const tries = find.mock.calls.length;
  expect(await ask()).toBe(true);
  expect(find).toHaveBeenCalledTimes(tries);
  expect((await readdir(dir)).sort()).toEqual(['probes.json', 'program']);
});

it('what fails is tried again', async () => {
  find.mockRejectedValueOnce(new Error('no time'));
  await expect(ask()).rejects.toThrow('no time');
  expect(await ask()).toBe(true);
});
