import { readdirSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Berthd } from '../support/berthd.ts';
import { BUSYBOX } from '../support/busybox.ts';
import { type BuiltImage, buildImage, type Entry, layer, ociArchive } from '../support/images.ts';
import { importArchive, refusal, until } from '../support/pods.ts';
import { type FakeRegistry, startFakeRegistry } from '../support/registry.ts';

let berthd: Berthd;

beforeAll(async () => {
  berthd = await Berthd.start();
  await berthd.importBusybox();
});
afterAll(async () => expect(await berthd.close()).toEqual([]));

describe('images', () => {
  let registry: FakeRegistry;
  beforeAll(async () => {
    registry = await startFakeRegistry();
    const dir = path.join(berthd.dir, 'certs.d', registry.host);
    await mkdir(dir, { recursive: true });
    await writeFile(path.join(dir, 'hosts.toml'), `server = "http://${registry.host}"\n`);
  });
  afterAll(() => registry.stop());

  const stored = () =>
    ['ingest', 'layers', 'content/sha256', 'content/sha512'].flatMap((dir) =>
      readdirSync(path.join(berthd.dir, 'root/images', dir)).map((name) => `${dir}/${name}`),
    );

  it.each([
    '',
    'docker.io/UPPER/case',
    'a b',
    '../../etc/passwd',
    'http://host/x',
    'a\0b',
    'long/'.repeat(99),
    'a@sha256:12',
  ])('the name %j is refused', async (image) => {
    for (const call of ['PullImage', 'ImageStatus', 'RemoveImage'] as const) {
      const said = await refusal(berthd.client.image(call, { image: { image } })).catch((e: unknown) => e);
      // What nobody can have pulled is absent; only PullImage has to say what is wrong with it.
      if (call !== 'PullImage' && image !== '' && said instanceof Error) continue;
      expect(said, call).toEqual({ kind: 'invalid', message: expect.stringMatching(/image/) });
    }
  });

  it('no image at all is refused', async () => {
    for (const call of ['PullImage', 'ImageStatus', 'RemoveImage'] as const)
      expect(await refusal(berthd.client.image(call, {})), call).toEqual({
        kind: 'invalid',
        message: expect.stringMatching(/^image/),
      });
  });

  const file = { content: 'evil' };
  const hostile: [string, Entry[], RegExp][] = [
    ['climbs out', [{ name: '../../etc/berth-evil', ...file }], /"\.\.\/\.\.\/etc\/berth-evil" climbs out/],
    [
      'climbs out by a symlink',
      [
        { name: 'l', type: 'symlink', linkname: '../../../../etc' },
        { name: 'l/berth-evil', ...file },
      ],
      /./,
    ],
    [
      'climbs out by a hardlink',
      [{ name: 'h', type: 'link', linkname: '../../../etc/passwd' }],
      /climbs out/,
    ],
    ['has an entry with a long name', [{ name: 'n'.repeat(256), ...file }], /255 bytes/],
  ];
  it.each(hostile)(
    'a layer that %s is refused, by import and by pull, and leaves nothing',
    async (_name, entries, why) => {
      const image = buildImage([await layer([{ name: 'fine', content: 'x' }]), await layer(entries)]);
      await refusedBothWays(image, why);
      expect(readdirSync('/etc')).not.toContain('berth-evil');
    },
  );

  it('a layer of other bytes than its digest says is refused, by import and by pull, and leaves nothing', async () => {
    const good = await layer([{ name: 'good', content: 'x' }]);
    const other = await layer([{ name: 'evil', content: 'y' }]);
    const image = buildImage([good]);
    const digest = [...image.blobs].find(([, blob]) => blob.equals(good.blob))?.[0] ?? '';
    image.blobs.set(digest, other.blob);
    await refusedBothWays(image, /digest|sha256/);
    // The same with other content than the configuration's diff ID.
    await refusedBothWays(buildImage([good], { diffIds: [`sha256:${'0'.repeat(64)}`] }), /diff ID|diff_id/i);
  });

  async function refusedBothWays(image: BuiltImage, why: RegExp): Promise<void> {
    const before = stored();
    const name = `${registry.host}/evil/image:1`;
    const archive = await ociArchive(image, { 'org.opencontainers.image.ref.name': name });
    const imported = await refusal(importArchive(berthd, archive));
    expect(imported.message).toMatch(why);
    registry.add('evil/image', '1', image);
    const pulled = await refusal(berthd.client.image('PullImage', { image: { image: name } }));
    expect(pulled.message).toMatch(why);
    // berth's own pull ends with the same words.
    const streamed = (async () => {
      for await (const _ of berthd.client.pullImage({ image: name })) {
        /* progress */
      }
    })();
    expect((await refusal(streamed)).message).toMatch(why);
    const { images } = await berthd.client.image('ListImages', {});
    expect(images.flatMap(({ repo_tags }) => repo_tags)).toEqual([BUSYBOX]);
    // Files of removed layers go after the answer.
    await until('nothing of it is stored', () => stored().join() === before.join());
  }
});
