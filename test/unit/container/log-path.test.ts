import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { containerLogPath, makeLogDirectory } from '../../../src/container/log-path.ts';
import { Paths } from '../../../src/paths.ts';
import { validateContainerConfig } from '../../../src/spec/validate.ts';
import { containerConfig, sandboxConfig } from '../spec/configs.ts';

const paths = new Paths('/r', '/s').container('c1');
const logPath = (logDirectory: string, log: string) =>
  containerLogPath(paths, sandboxConfig({ logDirectory }), containerConfig({ logPath: log }));

describe('containerLogPath', () => {
  it.each([
    ['/var/log/pods/web', 'app/0.log', '/var/log/pods/web/app/0.log'],
    ['/var/log/pods/web/', './app//0.log', '/var/log/pods/web/app/0.log'],
    // Without one of the two the log goes where the container's own files go, and with them.
    ['', 'app/0.log', '/r/containers/c1/container.log'],
    ['/var/log/pods/web', '', '/r/containers/c1/container.log'],
    ['', '', '/r/containers/c1/container.log'],
  ])('%j and %j give %s', (directory, log, expected) => {
    expect(logPath(directory, log)).toBe(expected);
  });

  it.each([
    '../x',
    'a/../../x',
    '..',
    '/etc/x',
    'a/',
    '.',
    './',
    'a/..',
    'a\0b',
    'a/.',
    `${'x'.repeat(5000)}`,
  ])('is never asked for %j, which is refused before', (log) => {
    expect(() => validateContainerConfig(containerConfig({ logPath: log }), sandboxConfig())).toThrow(
      expect.objectContaining({ kind: 'invalid', message: expect.stringMatching(/^config\.log_path: /) }),
    );
  });

  it.each(['0.log', 'app/0.log', 'a/b/c.log', '..app/0.log', 'app/0..log', './app/0.log'])(
    'takes %j, below the directory',
    (log) => {
      validateContainerConfig(containerConfig({ logPath: log }), sandboxConfig());
      expect(logPath('/logs', log)).toMatch(/^\/logs\/[^/]/);
    },
  );
});

describe('makeLogDirectory', () => {
  it('makes what is missing and takes what is there', async () => {
    const dir = await mkdtemp(path.join(tmpdir(), 'berth-log-'));
    try {
      const log = path.join(dir, 'pod/app/0.log');
      await makeLogDirectory(log);
      await makeLogDirectory(log);
      const made = await stat(path.dirname(log));
      expect([made.isDirectory(), made.mode & 0o777]).toEqual([true, 0o755]);
      await expect(stat(log)).rejects.toMatchObject({ code: 'ENOENT' });
    } finally {
      await rm(dir, { recursive: true });
    }
  });
});
