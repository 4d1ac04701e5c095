import { describe, expect, it } from 'vitest';
import {
  chainIds,
  choosePlatform,
  digestOf,
  parseConfig,
  parseDocument,
} from '../../../src/image/manifest.ts';
import { platformMatch } from '../../../src/image/platform.ts';
import { globMatcher } from '../../../src/util/globs.ts';

const digest = (n: number): string => `sha256:${String(n).repeat(64)}`;
const bytes = (json: unknown): Buffer => Buffer.from(JSON.stringify(json));
const entry = (n: number, architecture: string, variant?: string, os = 'linux') => ({
  mediaType: '',
  digest: digest(n),
  size: 1,
  platform: { os, architecture, variant },
});

describe('choosePlatform', () => {
  const choose = (entries: ReturnType<typeof entry>[], architecture: string, variant?: string): string =>
    choosePlatform(entries, { os: 'linux', architecture, ...(variant ? { variant } : {}) }, 'x').digest;

  it('takes what fits best', () => {
    expect(choose([entry(1, 'arm64'), entry(2, 'amd64')], 'amd64')).toBe(digest(2));
    expect(choose([entry(1, 'amd64', 'v3'), entry(2, 'amd64')], 'amd64')).toBe(digest(2));
    expect(choose([entry(1, 'amd64', 'v3'), entry(2, 'amd64', 'v2')], 'amd64')).toBe(digest(2));
    expect(choose([entry(1, 'arm64', 'v8')], 'arm64')).toBe(digest(1));
    expect(choose([entry(1, 'arm', 'v6'), entry(2, 'arm', 'v7'), entry(3, 'arm', 'v5')], 'arm', 'v7')).toBe(
      digest(2),
    );
    expect(choose([entry(1, 'arm', 'v6'), entry(2, 'arm', 'v5')], 'arm', 'v7')).toBe(digest(1));
    expect(choose([entry(1, 'amd64', undefined, 'windows'), entry(2, 'amd64')], 'amd64')).toBe(digest(2));
  });

  it('says what there is when nothing fits', () => {
    const entries = [entry(1, 'arm64', 'v8'), entry(2, 'unknown', undefined, 'unknown')];
    expect(() => choose(entries, 'amd64')).toThrow(
      /no image for linux\/amd64; there are linux\/arm64\/v8, unknown/,
    );
    expect(() => choose([entry(1, 'arm', 'v7')], 'arm', 'v6')).toThrow(/no image/);
  });

  it('takes an entry without a platform only when there is no other', () => {
    const bare = { mediaType: '', digest: digest(1), size: 1 };
    expect(
      choosePlatform([bare, entry(2, 'amd64')], { os: 'linux', architecture: 'amd64' }, 'x').digest,
    ).toBe(digest(2));
    expect(choosePlatform([bare], { os: 'linux', architecture: 'amd64' }, 'x').digest).toBe(digest(1));
  });

  it('knows other spellings', () => {
    expect(
      platformMatch({ os: 'linux', architecture: 'x86_64' }, { os: 'linux', architecture: 'amd64' }),
    ).toBe(100);
    expect(
      platformMatch({ os: 'linux', architecture: 'aarch64' }, { os: 'linux', architecture: 'arm64' }),
    ).toBe(100);
  });
});

describe('parseDocument', () => {
  const config = { mediaType: 'application/vnd.oci.image.config.v1+json', digest: digest(1), size: 2 };

  it('tells manifests from indexes without a media type', () => {
    expect(parseDocument(bytes({ schemaVersion: 2, config, layers: [] }), 'x').kind).toBe('manifest');
    expect(parseDocument(bytes({ schemaVersion: 2, manifests: [] }), 'x').kind).toBe('index');
  });

  it.each<[unknown, RegExp]>([
    [[], /no JSON object/],
    [{ manifests: [], layers: [] }, /both an index and a manifest/],
    [{ schemaVersion: 1, fsLayers: [] }, /schema 1/],
    [
      { config: { ...config, mediaType: 'application/x+json' }, layers: [] },
      /artifact of type "application\/x\+json"/,
    ],
    [{ config: { ...config, digest: 'sha256:../../x' }, layers: [] }, /config\.digest: must be a sha256/],
    [{ config: { ...config, size: -1 }, layers: [] }, /config\.size/],
    [{ config, layers: Array(501).fill(config) }, /layers/],
  ])('refuses %j', (json, message) => {
    expect(() => parseDocument(bytes(json), 'x')).toThrow(message);
  });
});

describe('parseConfig', () => {
  it('reads null and absent members as empty', () => {
    const json = {
      os: 'linux',
      architecture: 'amd64',
      rootfs: { type: 'layers', diff_ids: null },
      config: { Cmd: null },
    };
    expect(parseConfig(bytes(json), 'x', 0).config).toEqual({
      os: 'linux',
      architecture: 'amd64',
      user: '',
      env: [],
      entrypoint: [],
      cmd: [],
      workingDir: '',
      volumes: [],
      labels: {},
      stopSignal: '',
    });
  });

  it('wants as many diff IDs as the manifest has layers', () => {
    const json = { rootfs: { type: 'layers', diff_ids: [digest(1)] } };
    expect(() => parseConfig(bytes(json), 'x', 2)).toThrow('1 diff_ids, but the manifest 2 layers');
  });
});

it('chains layers as the specification says', () => {
  const [a = '', b = ''] = chainIds([digest(1), digest(2)]);
  expect(a).toBe(digest(1));
  expect(b).toBe(digestOf(Buffer.from(`${digest(1)} ${digest(2)}`)));
});

it('pins by globs of whole names', () => {
  const isPinned = globMatcher(['registry.example/*:v1', 'all.example/**', 'a?c.b']);
  expect(isPinned('registry.example/app:v1')).toBe(true);
  expect(isPinned('registry.example/team/app:v1')).toBe(false);
  expect(isPinned('all.example/team/app:v1')).toBe(true);
  expect(isPinned('x.all.example/app')).toBe(false);
  expect(isPinned('abc.b')).toBe(true);
  expect(isPinned('abcxb')).toBe(false);
  expect(globMatcher([])('anything')).toBe(false);
});

describe('a document of the size that is allowed', () => {
  const config = { mediaType: '', digest: `sha256:${'a'.repeat(64)}`, size: 1 };
  const document = (more: object): Buffer => Buffer.from(JSON.stringify({ config, layers: [], ...more }));
  const values = (count: number): number[] => Array.from({ length: count }, () => 1);

  it.each([
    ['elements', { more: values(20_000) }],
    ['lists', { more: values(10_000).map(() => []) }],
    ['members', { more: Object.fromEntries(values(20_000).map((_, i) => [i, ''])) }],
    [
      'annotations',
      { config: { ...config, annotations: Object.fromEntries(values(20_000).map((_, i) => [i, ''])) } },
    ],
  ])('is not read when it would take long, as it has too many %s', (_, more) => {
    expect(() => parseDocument(document(more), 'x')).toThrow('x: has more than 20000 values');
  });

  it('may have long texts, whatever is in them', () => {
    for (const text of [','.repeat(4_000_000), '"[{\\'.repeat(400_000)]) {
      expect(parseDocument(document({ text, more: values(10_000) }), 'x').kind).toBe('manifest');
    }
  });
});
