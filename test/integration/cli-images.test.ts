import { mkdir, readdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Berthd } from '../support/berthd.ts';
import { start } from '../support/cli.ts';
import { buildImage, layer } from '../support/images.ts';
import { BASIC_USER, type Registry, startRegistry } from '../support/registry.ts';

let berthd: Berthd;
let registry: Registry;
let authFile: string;

const berth = (...args: string[]) => start(berthd.endpoint, args);

/** With one pinned name. */
beforeAll(async () => {
  registry = await startRegistry({ basic: true });
  berthd = await Berthd.start({ keys: `pinned_images = ["${registry.host}/team/pinned:*"]` });
  const shared = await layer([{ name: 'base', content: 'x'.repeat(300_000) }]);
  for (const name of ['pinned', 'app', 'other']) {
    const own = await layer([{ name, content: name.repeat(50_000) }]);
    await registry.push(`team/${name}`, 'v1', buildImage([shared, own]));
  }
  authFile = path.join(berthd.dir, 'docker', 'config.json');
  await mkdir(path.dirname(authFile));
  const auth = Buffer.from(`${BASIC_USER.username}:${BASIC_USER.password}`).toString('base64');
  await writeFile(authFile, JSON.stringify({ auths: { [registry.host]: { auth } } }));
});

afterAll(async () => {
  expect(await berthd.close()).toEqual([]);
  await registry.stop();
});

const ref = (name: string): string => `${registry.host}/team/${name}:v1`;

describe('berth', () => {
  it("pulls with docker's credentials, and tells of each layer", async () => {
    const refused = await berth('pull', '--auth-file', '/dev/null', ref('app'));
    expect(refused).toMatchObject({ code: 2, stderr: expect.stringContaining('/dev/null: is no JSON') });
    const pulled = await berth('pull', '--auth-file', authFile, ref('pinned'), ref('app'), ref('other'));
    expect(pulled).toMatchObject({ code: 0 });
    expect(pulled.stdout).toMatch(/^(sha256:[0-9a-f]{64}\n){3}$/);
    expect(pulled.stderr.match(/downloading/g)).toHaveLength(4);
    expect(pulled.stderr.match(/already there/g)).toHaveLength(2);
    const again = await berth('pull', '--auth-file', authFile, ref('app'));
    expect(again.stderr.match(/already there/g)).toHaveLength(2);
    expect(again.stderr).not.toMatch(/downloading/);
  });

  it('shows what images share', async () => {
    const { stdout } = await berth('images', '--tree');
    const lines = stdout.split('\n');
    expect(lines[0]).toMatch(/^layer [0-9a-f]{12} {2}30\d KiB$/);
    expect(lines).toHaveLength(1 + 3 * 2 + 1);
    for (const name of ['pinned', 'app', 'other']) expect(stdout).toContain(`└─ ${ref(name)}`);
    expect(stdout).toMatch(/team\/pinned:v1 .*\(pinned\)/);
  });

  it('shows what they take of the disk, and removes what is not needed', async () => {
    const { stdout } = await berth('du');
    expect(stdout).toMatch(/^IMAGE +ID +SIZE +UNIQUE +LAYERS +STATE\n/);
    expect(stdout.match(/^\S+v1 .* 2 *(pinned)?$/gm)).toHaveLength(3);
    expect(stdout).toMatch(/^Garbage: +0 B$/m);
    expect(stdout).toMatch(/^Unused images: +2$/m);
    const usage = JSON.parse((await berth('du', '-o', 'json')).stdout);
    expect(usage.layers).toHaveLength(4);
    const { image_filesystems } = await berthd.client.image('ImageFsInfo', {});
    const sum = BigInt(usage.layer_bytes) + BigInt(usage.blob_bytes);
    expect(String(sum)).toBe(image_filesystems[0]?.used_bytes?.value);
    expect((await berth('gc')).stdout).toBe('freed 0 B\n');
    const removed = JSON.parse((await berth('gc', '--images', '-o', 'json')).stdout);
    expect(removed.images).toHaveLength(2);
    const unique = usage.images.filter(({ pinned }: { pinned: boolean }) => !pinned);
    expect(BigInt(removed.freed_bytes)).toBe(
      unique.reduce(
        (total: bigint, image: { unique_bytes: string }) => total + BigInt(image.unique_bytes),
        0n,
      ),
    );
    const left = await berth('images', '-o', 'json');
    expect(JSON.parse(left.stdout)).toMatchObject([{ repo_tags: [ref('pinned')], pinned: true }]);
  });

  it('exports images as archive and as directory, and takes both in again', async () => {
    const file = path.join(berthd.dir, 'images.tar');
    const layout = path.join(berthd.dir, 'layout');
    await berth('pull', '--auth-file', authFile, ref('app'), ref('other'));
    const before = JSON.parse((await berth('images', '-o', 'json')).stdout);
    expect(await berth('export', '-f', file, ref('app'), ref('other'))).toMatchObject({
      code: 0,
      stdout: '',
    });
    const id = before.find((image: { repo_tags: string[] }) => image.repo_tags.includes(ref('app'))).id;
    expect(await berth('export', '-d', layout, id.slice(7, 20))).toMatchObject({ code: 0, stderr: '' });
    expect(await berth('export', '-d', layout, id)).toMatchObject({ code: 2 });
    expect(await berth('export', '-f', `${file}2`, ref('none'))).toMatchObject({ code: 3 });
    expect((await readdir(berthd.dir)).filter((name) => name.startsWith('images.tar'))).toEqual([
      'images.tar',
    ]);
    expect((await readdir(layout)).sort()).toEqual(['blobs', 'index.json', 'oci-layout']);
    await berth('rmi', ref('app'), ref('other'));
    const [line] = (await berth('import', layout)).stdout.split('\n');
    expect(line).toContain(`${id} ${ref('app')} `);
    await berth('import', file);
    expect(JSON.parse((await berth('images', '-o', 'json')).stdout)).toEqual(before);
  });

  it('makes an image of a directory', async () => {
    const root = path.join(berthd.dir, 'made');
    await mkdir(root);
    await writeFile(path.join(root, 'file'), 'x');
    const args = [
      root,
      'localhost/made:1',
      '--cmd',
      'run --it',
      '--entrypoint',
      '["/e"]',
      '-l',
      'a=b',
      '-u',
      '7',
    ];
    const { stdout } = await berth('build-rootfs', ...args, '-e', 'A=1', '-e', 'B=2', '--workdir', '/w');
    expect(stdout).toMatch(/^sha256:[0-9a-f]{64} localhost\/made:1 localhost\/made@sha256:[0-9a-f]{64}\n$/);
    const { info, image } = await berthd.client.image('ImageStatus', {
      image: { image: 'localhost/made:1' },
      verbose: true,
    });
    expect(image?.uid?.value).toBe('7');
    expect(JSON.parse(info.info ?? '').imageSpec.config).toEqual({
      User: '7',
      Env: ['A=1', 'B=2'],
      Entrypoint: ['/e'],
      Cmd: ['/bin/sh', '-c', 'run --it'],
      WorkingDir: '/w',
      Labels: { a: 'b' },
    });
    expect(await berth('build-rootfs', path.join(root, 'file'), 'a')).toMatchObject({ code: 2 });
    expect(await berth('build-rootfs', root, 'a', '--cmd', '["no')).toMatchObject({ code: 2 });
  });
});
