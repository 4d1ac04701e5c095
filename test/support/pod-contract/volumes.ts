import { mkdir, readFile, rename, stat, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { MS_BIND, mount, unmount } from '../../../src/sys/mount.ts';
import { BUSYBOX } from '../busybox.ts';
import { sharedDirectory } from '../host.ts';
import { IDLE, until } from '../pods.ts';
import type { Suite } from './suite.ts';

/** What the kubelet mounts into containers, and what both sides see of it. */
export function describeVolumes(suite: Suite): void {
  const dir = (name: string) => path.join(suite.berthd.dir, 'volumes', name);

  describe('volumes', () => {
    it('are directories and files of the node, writable or not, for several containers at once', async () => {
      const { pods, pod } = suite;
      await mkdir(dir('shared'), { recursive: true });
      await writeFile(dir('single'), 'of the host');
      await symlink('shared', dir('link'));
      const mounts = [
        { host_path: dir('shared'), container_path: '/deep/below/shared' },
        { host_path: dir('link'), container_path: '/ro', readonly: true },
        { host_path: dir('single'), container_path: '/dev/termination-log' },
        { host_path: dir('absent/made'), container_path: '/made' },
        {
          host_path: '',
          container_path: '/image',
          readonly: true,
          image: { image: BUSYBOX },
          image_sub_path: 'etc',
        },
      ];
      const one = await pods.start(pod, { ...IDLE, mounts });
      const two = await pods.start(pod, { ...IDLE, mounts });
      expect(
        await pods.ask(
          one,
          `cd /deep/below/shared; echo new >file; chown 1000:1001 file; chmod 640 file; ln -s file link; mkfifo fifo
          cat /dev/termination-log; echo why >/dev/termination-log; touch /made/x; touch /ro/x /image/x 2>&1; head -n 1 /image/passwd`,
        ),
      ).toMatch(/^of the host(touch: .*Read-only file system\n){2}root:/);
      expect(await readFile(dir('single'), 'utf8')).toBe('why\n');
      const { uid, gid, mode } = await stat(dir('shared/link'));
      expect([uid, gid, mode & 0o777]).toEqual([1000, 1001, 0o640]);
      await stat(dir('absent/made/x'));
      // Changes by the node and by another container are seen, in a file that is there, too.
      await writeFile(dir('shared/file'), 'changed on the node');
      expect(
        await Promise.all([
          pods.ask(one, 'cat /deep/below/shared/fifo; cat /ro/file'),
          pods.ask(two, 'cat /ro/file; echo through >/deep/below/shared/fifo'),
        ]),
      ).toEqual(['through\nchanged on the node', 'changed on the node']);
      const echoed = (await pods.status(one)).mounts;
      expect(echoed.map(({ container_path, readonly }) => [container_path, readonly])).toEqual(
        mounts.map(({ container_path, readonly = false }) => [container_path, readonly]),
      );
      // A socket that one has made is another's to connect to.
      await pods.ask(one, 'ln -s /made/log /dev/log; syslogd -O /made/messages');
      await pods.ask(two, 'ln -s /made/log /dev/log; logger said by two');
      await until('it was heard', async () =>
        (await readFile(dir('absent/made/messages'), 'utf8')).includes('said by two'),
      );
      await Promise.all([one, two].map((id) => pods.removeContainer(id)));
    });

    it('change in a running container as the kubelet updates a ConfigMap, but for what is mounted by sub path', async () => {
      const { pods, pod } = suite;
      await mkdir(dir('config/..1'), { recursive: true });
      await writeFile(dir('config/..1/key'), 'old');
      await symlink('..1', dir('config/..data'));
      await symlink('..data/key', dir('config/key'));
      // As the kubelet prepares a sub path: a bind mount of the file that the link means now.
      await writeFile(dir('subpath'), '');
      mount(dir('config/..1/key'), dir('subpath'), null, MS_BIND);
      try {
        const id = await pods.start(pod, {
          ...IDLE,
          mounts: [
            { host_path: dir('config'), container_path: '/config', readonly: true },
            { host_path: dir('subpath'), container_path: '/etc/key', readonly: true },
          ],
        });
        expect(await pods.ask(id, 'cat /config/key /etc/key')).toBe('oldold');
        await mkdir(dir('config/..2'));
        await writeFile(dir('config/..2/key'), 'new');
        await symlink('..2', dir('config/..tmp'));
        await rename(dir('config/..tmp'), dir('config/..data'));
        await until(
          'the new value',
          async () => (await pods.ask(id, 'cat /config/key /etc/key')) === 'newold',
        );
        await pods.removeContainer(id);
      } finally {
        unmount(dir('subpath'), { lazy: true });
      }
    });

    it('show what is mounted on the node later, if that was asked for', async () => {
      const { pods, pod } = suite;
      const shared = await sharedDirectory();
      try {
        await mkdir(path.join(shared.dir, 'later'));
        const id = await pods.start(pod, {
          ...IDLE,
          mounts: [
            { host_path: shared.dir, container_path: '/private' },
            { host_path: shared.dir, container_path: '/slave', propagation: 'PROPAGATION_HOST_TO_CONTAINER' },
          ],
        });
        const look = 'ls /private/later /slave/later';
        expect(await pods.ask(id, look)).toBe('/private/later:\n\n/slave/later:');
        mount('tmpfs', path.join(shared.dir, 'later'), 'tmpfs', 0);
        await writeFile(path.join(shared.dir, 'later/seen'), '');
        await until(
          'it is seen',
          async () => (await pods.ask(id, look)) === '/private/later:\n\n/slave/later:\nseen',
        );
        unmount(path.join(shared.dir, 'later'), { lazy: true });
        await until(
          'it is gone',
          async () => (await pods.ask(id, look)) === '/private/later:\n\n/slave/later:',
        );
        await pods.removeContainer(id);
      } finally {
        await shared.remove();
      }
    });

    if (suite.handler.cannot['recursive read-only mounts'] === undefined)
      it('are read-only with all below, when that is asked for', async () => {
        const { pods, pod } = suite;
        await mkdir(dir('tree/below'), { recursive: true });
        mount('tmpfs', dir('tree/below'), 'tmpfs', 0);
        try {
          const tree = { host_path: dir('tree'), readonly: true };
          const id = await pods.start(pod, {
            ...IDLE,
            mounts: [
              { ...tree, container_path: '/plain' },
              { ...tree, container_path: '/all', recursive_read_only: true },
            ],
          });
          expect(
            await pods.ask(id, 'touch /plain/below/x && echo written; touch /all/below/x 2>&1; true'),
          ).toMatch(/^written\ntouch: .*Read-only file system$/);
          await pods.removeContainer(id);
        } finally {
          unmount(dir('tree/below'), { lazy: true });
        }
      });
  });
}
