import { existsSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Berthd } from '../support/berthd.ts';
import { busyboxArchive } from '../support/busybox.ts';
import { importArchive, type Pod, Pods, sh } from '../support/pods.ts';

const NAME = 'localhost/berth-test/volumes:1';

let berthd: Berthd;
let pods: Pods;
let pod: Pod;

beforeAll(async () => {
  berthd = await Berthd.start();
  pods = new Pods(berthd);
  const volumes = [
    '/root/',
    '/etc',
    '/data/new',
    '/linked',
    '/',
    '/proc',
    '/dev/x',
    '/etc/hosts',
    '/data/pod/',
  ];
  const config = { Volumes: Object.fromEntries(volumes.map((path) => [path, {}])) };
  await importArchive(
    berthd,
    await busyboxArchive(NAME, ['sh'], config, { linked: '/../../../../../../tmp' }),
  );
  pod = await pods.run();
});

afterAll(async () => {
  expect(await berthd.close()).toEqual([]);
});

const image = { image: { image: NAME } };

describe('volumes that an image declares', () => {
  it('are writable with a read-only root, hold what the image has there, and go with the container', async () => {
    const linux = { security_context: { readonly_rootfs: true } };
    const script = `
      set -e
      grep -q localhost /etc/hosts
      for dir in /root /data/new /data/pod /tmp; do echo x > $dir/file; done
      stat -c %a /tmp
      ! echo x > /file 2>/dev/null
      ! echo x > /etc/file 2>/dev/null
      ls /proc/self > /dev/null
      sleep 1000`;
    const id = await pods.start(pod, { ...sh(script), ...image, linux });
    expect(
      await pods.ask(id, 'until [ -e /tmp/file ]; do sleep 0.1; done; cat /data/new/file /root/file'),
    ).toBe('x\nx');
    expect(await pods.ask(id, 'stat -c %a /tmp')).toBe('1777');
    const folder = path.join(berthd.dir, 'root/containers', id, 'volumes');
    expect(existsSync(path.join(folder, '0'))).toBe(true);
    expect((await pods.status(id)).mounts).toEqual([]);
    await pods.removeContainer(id);
    expect(existsSync(path.dirname(folder))).toBe(false);
  });

  it('are fresh for each container, and give way to what the pod mounts', async () => {
    const mounts = [
      { container_path: '/data/pod', host_path: path.join(berthd.dir, 'certs.d'), readonly: true },
    ];
    const one = await pods.start(pod, { ...sh('echo one > /data/new/file; sleep 1000'), ...image });
    expect(await pods.ask(one, 'until [ -e /data/new/file ]; do sleep 0.1; done; cat /data/new/file')).toBe(
      'one',
    );
    const two = await pods.start(pod, {
      ...sh('sleep 1000'),
      ...image,
      metadata: { name: 'two', attempt: 0 },
      mounts,
    });
    expect(await pods.ask(two, 'ls /data/new | wc -l')).toBe('0');
    expect(await pods.ask(two, '! touch /data/pod/x 2>/dev/null && echo read-only')).toBe('read-only');
    await pods.removeContainer(one);
    await pods.removeContainer(two);
  });
});
