import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { HandlerFeatures, parseAnswers } from '../../src/isolation/handler-features.ts';

let dir: string;
let sources: ConstructorParameters<typeof HandlerFeatures>[0];

beforeEach(() => {
  dir = mkdtempSync(path.join(tmpdir(), 'berth-features-'));
  writeRuntime('{}');
  const handler = { type: 'oci' as const, allowed_annotations: [], resource_view: false };
  sources = {
    runtimes: { runc: { ...handler, path: path.join(dir, 'runc') } },
    defaultRuntime: 'runc',
    root: dir,
    file: path.join(dir, 'features.json'),
    bootId: 'this boot',
  };
});
afterEach(() => rmSync(dir, { recursive: true }));

/** An OCI runtime that answers `features` with this text, and leaves a trace. */
function writeRuntime(text: string): void {
  const file = path.join(dir, 'runc');
  rmSync(file, { force: true });
  writeFileSync(file, `#!/bin/sh\necho asked >> ${dir}/trace\necho '${text}'\n`);
  chmodSync(file, 0o755);
}

const timesAsked = () => readFileSync(path.join(dir, 'trace'), 'utf8').trim().split('\n').length;

/** What an earlier daemon would have kept, had the kernel here done all. */
async function keep(answers: object): Promise<void> {
  const { key } = JSON.parse(readFileSync(sources.file, 'utf8')) as { key: string };
  writeFileSync(sources.file, JSON.stringify({ key, answers }));
}

it('tries once, when the first one asks', async () => {
  const features = new HandlerFeatures(sources);
  expect(existsSync(path.join(dir, 'trace'))).toBe(false);
  const all = await Promise.all([features.all(), features.missingIn('runc'), features.missingIn('')]);
  expect(timesAsked()).toBe(1);
  expect(all[0]).toEqual({ runc: all[1] });
  expect(all[2]).toBe(all[1]);
  expect(all[1].recursiveReadOnlyMounts).toMatch(/rro|kernel/);
  expect(await features.missingIn('unknown')).toEqual({});
});

it('knows of an earlier daemon, until the boot or the program is another', async () => {
  await new HandlerFeatures(sources).all();
  // Where this kernel or this user lacks something, nothing was kept.
  const isSure = existsSync(sources.file);
  expect(isSure ? parseAnswers(readFileSync(sources.file, 'utf8'), '') : undefined).toBeUndefined();
  if (!isSure) return;
  await keep({ runc: { userNamespaces: 'as kept' } });
  expect(await new HandlerFeatures(sources).all()).toEqual({ runc: { userNamespaces: 'as kept' } });
  expect(timesAsked()).toBe(1);
  const later = await new HandlerFeatures({ ...sources, bootId: 'another boot' }).all();
  expect([later.runc?.userNamespaces, timesAsked()]).toEqual([expect.stringContaining('runc'), 2]);
  writeRuntime('{ }');
  await new HandlerFeatures({ ...sources, bootId: 'another boot' }).all();
  expect(timesAsked()).toBe(3);
});

it('keeps nothing of a program that did not answer', async () => {
  writeRuntime('nonsense');
  await new HandlerFeatures(sources).all();
  expect(existsSync(sources.file)).toBe(false);
});

it.each(['', '{', '[]', 'null', '{"key":"other","answers":{}}'])('takes %j for no answers', (text) => {
  expect(parseAnswers(text, 'key')).toBeUndefined();
});
