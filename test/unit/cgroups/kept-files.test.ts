import { mkdirSync, mkdtempSync, readdirSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { KeptFiles, mostKept } from '../../../cgroups/kept-files.ts';

let root = '';
let dir = '';
let files: KeptFiles;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'berth-kept-'));
  dir = join(root, 'pod');
  mkdirSync(dir);
  files = new KeptFiles(3);
});
afterEach(() => {
  files.retain(new Set());
  expect(openHere()).toBe(0);
  rmSync(root, { recursive: true });
});

/** Descriptors of this process on files below the root. */
function openHere(): number {
  return readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith(`${root}/`);
    } catch {
      return false;
    }
  }).length;
}
const put = (name: string, text: string) => writeFileSync(join(dir, name), text);

describe('KeptFiles', () => {
  it('opens a file once, and reads what it holds now', () => {
    put('a', '1\n');
    expect(files.read(dir, 'a')).toBe('1\n');
    put('a', '22\n');
    expect(files.read(dir, 'a')).toBe('22\n');
    expect([files.size, openHere()]).toEqual([1, 1]);
  });

  it('reads texts of any length whole', () => {
    for (const length of [0, 1, 3071, 3072, 16_383, 16_384, 16_385, 100_000]) {
      const text = 'x'.repeat(length);
      put('long', text);
      expect(files.read(dir, 'long')).toBe(text);
    }
    put('long', 'short');
    expect(files.read(dir, 'long')).toBe('short');
  });

  it('reads the others all the same when it has as many as it may', () => {
    for (const name of ['a', 'b', 'c', 'd', 'e']) put(name, name);
    for (let round = 0; round < 2; round++) {
      expect(['a', 'b', 'c', 'd', 'e'].map((name) => files.read(dir, name)).join('')).toBe('abcde');
      expect([files.size, openHere()]).toEqual([3, 3]);
    }
  });

  it.each([
    ['1024                 524288', 256],
    ['524288               524288', 2048],
    ['unlimited            unlimited', 2048],
  ])('may have a part of the descriptors of its process: %s', (limits, most) => {
    const lines = ['Max processes             126             126             processes', ''];
    expect(mostKept(lines.join(`\nMax open files            ${limits}               files     \n`))).toBe(
      most,
    );
  });

  it('knows what a cgroup does not have, until it is asked to look again', () => {
    expect(files.read(dir, 'b')).toBeUndefined();
    // Nothing was there at all: the cgroup may be on its way.
    put('b', '1');
    expect(files.read(dir, 'b')).toBe('1');
    expect(files.read(dir, 'a')).toBeUndefined();
    put('a', '1');
    expect(files.read(dir, 'a')).toBeUndefined();
    files.retain(new Set([dir]));
    expect(files.read(dir, 'a')).toBe('1');
    expect(files.size).toBe(2);
  });

  it('closes what it is told to forget', () => {
    const other = join(root, 'other');
    mkdirSync(other);
    writeFileSync(join(other, 'a'), '2');
    put('a', '1');
    expect([files.read(dir, 'a'), files.read(other, 'a')]).toEqual(['1', '2']);
    files.retain(new Set([other]));
    expect([files.size, openHere()]).toEqual([1, 1]);
    files.forget(other);
    files.forget(other);
    expect([files.size, openHere()]).toEqual([0, 0]);
  });

  it('closes what nobody reads any more', () => {
    put('a', '1');
    put('b', '2');
    for (const name of ['a', 'b']) files.read(dir, name);
    for (let round = 0; round < 13; round++) {
      expect(openHere()).toBe(2);
      files.read(dir, 'b');
      files.retain(new Set([dir]));
    }
    expect(openHere()).toBe(1);
    expect([files.read(dir, 'a'), files.read(dir, 'b')]).toEqual(['1', '2']);
    expect(files.size).toBe(2);
  });

  it('keeps no file open for limits, and reads them anew when it is told to forget', () => {
    put('a', '1');
    expect([files.readLimit(dir, 'a'), files.readLimit(dir, 'b')]).toEqual(['1', undefined]);
    put('a', '2');
    put('b', '3');
    expect([files.readLimit(dir, 'a'), files.readLimit(dir, 'b')]).toEqual(['1', undefined]);
    files.forget(dir);
    expect([files.readLimit(dir, 'a'), files.readLimit(dir, 'b')]).toEqual(['2', '3']);
    put('a', '4');
    files.retain(new Set());
    expect(files.readLimit(dir, 'a')).toBe('4');
    expect([files.size, openHere()]).toEqual([0, 0]);
  });

  it('names a file that cannot be read', () => {
    mkdirSync(join(dir, 'd'));
    expect(() => files.read(dir, 'd')).toThrow(`cannot read ${dir}/d: EISDIR`);
    expect(files.size).toBe(0);
  });
});
