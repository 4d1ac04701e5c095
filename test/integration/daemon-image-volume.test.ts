import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Mount } from '../../proto/gen/runtime/v1/Mount.ts';
import { Berthd } from '../support/berthd.ts';
import { buildImage, layer, ociArchive, streamOf } from '../support/images.ts';
import { type Pod, Pods, refusal } from '../support/pods.ts';

const NAME = 'localhost/berth-test/data:1';

let berthd: Berthd;
let pods: Pods;
let pod: Pod;
let imageId: string;
/** The image's archive. */
let data: Buffer;

beforeAll(async () => {
  berthd = await Berthd.start();
  pods = new Pods(berthd);
  await berthd.importBusybox();
  const image = buildImage([
    await layer([
      { name: 'models/a/weights', content: 'old' },
      { name: 'models/b', content: 'gone in the layer above' },
      { name: 'bin/hello', mode: 0o755, content: '#!/bin/sh\necho hello from the volume\n' },
    ]),
    await layer([
      { name: 'models/a/weights', content: 'new' },
      { name: 'models/.wh.b' },
      { name: 'current', type: 'symlink', linkname: '/models/a' },
      { name: 'outside', type: 'symlink', linkname: '/etc' },
    ]),
  ]);
  imageId = image.id;
  data = await ociArchive(image, { 'org.opencontainers.image.ref.name': NAME });
  await importImage(data);
  const empty = buildImage([]);
  await importImage(
    await ociArchive(empty, { 'org.opencontainers.image.ref.name': 'localhost/berth-test/empty:1' }),
  );
  pod = await pods.run();
});

afterAll(async () => {
  expect(await berthd.close()).toEqual([]);
});

async function importImage(archive: Buffer): Promise<void> {
  async function* chunks() {
    for await (const chunk of streamOf(archive)) yield { chunk: Buffer.from(chunk) };
  }
  await berthd.client.importImage(chunks());
}

function volume(more: Mount = {}): Mount {
  return {
    container_path: '/volume',
    readonly: true,
    image: { image: imageId, user_specified_image: NAME },
    ...more,
  };
}

describe('a mount of an image', () => {
  it('shows its layers as one, read-only, with programs that run', async () => {
    const id = await pods.start(pod, { command: ['sleep', '1000'], mounts: [volume()] });
    expect(await pods.ask(id, 'cat /volume/models/a/weights; ls /volume/models')).toBe('newa');
    expect(await pods.ask(id, '/volume/bin/hello')).toBe('hello from the volume');
    const write = await pods.exec(id, ['touch', '/volume/x']);
    expect(write.stderr).toContain('Read-only file system');
    expect((await pods.status(id)).mounts).toMatchObject([
      { container_path: '/volume', readonly: true, image: { image: imageId, image_ref: imageId } },
    ]);
    await pods.removeContainer(id);
  });

  it.each([
    ['models/a', 'weights'],
    ['current', 'weights'],
    ['bin', 'hello'],
  ])('shows only image_sub_path %s', async (image_sub_path, files) => {
    const id = await pods.start(pod, { command: ['sleep', '1000'], mounts: [volume({ image_sub_path })] });
    expect(await pods.ask(id, 'ls /volume')).toBe(files);
    await pods.removeContainer(id);
  });

  it('may be several, of an image without layers, too', async () => {
    const mounts = [
      volume(),
      volume({ container_path: '/other' }),
      volume({ container_path: '/empty', image: { image: 'localhost/berth-test/empty:1' } }),
    ];
    const id = await pods.start(pod, { command: ['sleep', '1000'], mounts });
    expect(await pods.ask(id, 'ls /volume /other; ls -A /empty')).toBe(
      '/other:\nbin\ncurrent\nmodels\noutside\n\n/volume:\nbin\ncurrent\nmodels\noutside',
    );
    await pods.removeContainer(id);
  });

  it('keeps its content when the image is removed, as long as the container is there', async () => {
    const id = await pods.start(pod, { command: ['sleep', '1000'], mounts: [volume()] });
    const { image } = await berthd.client.image('ImageStatus', { image: { image: NAME } });
    await berthd.client.image('RemoveImage', { image: { image: NAME } });
    expect((await berthd.client.image('ImageStatus', { image: { image: NAME } })).image).toBeNull();
    expect(await pods.ask(id, 'cat /volume/models/a/weights')).toBe('new');
    await importImage(data);
    expect((await berthd.client.image('ImageStatus', { image: { image: NAME } })).image).toEqual(image);
    await pods.removeContainer(id);
  });

  it('survives the daemon and goes with the container', async () => {
    const id = await pods.start(pod, { command: ['sleep', '1000'], mounts: [volume()] });
    await berthd.stop('SIGKILL');
    await berthd.start();
    expect(await pods.ask(id, 'cat /volume/models/a/weights')).toBe('new');
    await pods.removeContainer(id);
    expect(await berthd.removeAllPods()).toEqual([]);
    pod = await pods.run();
  });

  it.each<[string, Mount, string, string]>([
    [
      'a sub path that is not there',
      { image_sub_path: 'models/b' },
      'invalid',
      'config.mounts[0].image_sub_path',
    ],
    [
      'a sub path that leads out of the image',
      { image_sub_path: 'outside/hostname' },
      'invalid',
      'config.mounts[0].image_sub_path',
    ],
    ['a writable mount', { readonly: false }, 'invalid', 'config.mounts[0].readonly'],
    ['an absent image', { image: { image: 'localhost/none:1' } }, 'notFound', 'config.mounts[0].image.image'],
  ])('of %s is refused and leaves nothing', async (_, wrong, kind, field) => {
    const refused = await refusal(pods.create(pod, { command: ['true'], mounts: [volume(wrong)] }));
    expect(refused.kind).toBe(kind);
    expect(refused.message.startsWith(`ImageVolumeMountFailed: ${field}: `), refused.message).toBe(true);
  });
});
