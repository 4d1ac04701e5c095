import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFile, mkdir, readFile, realpath } from 'node:fs/promises';
import path from 'node:path';
import { buffer } from 'node:stream/consumers';
import { promisify } from 'node:util';
import { pack } from 'tar-stream';

const exec = promisify(execFile);

/** The name under which tests import the archive. */
export const BUSYBOX = 'localhost/berth-test/busybox:1';

/**
 * A docker archive of the host's busybox with the libraries that it needs, and all its applets. Beside root
 * and nobody it knows the user `app` (1000, group 1001, member of 2000); `config` adds to the image's, `links` are
 * symlinks by their paths in the image.
 */
export async function busyboxArchive(
  name: string,
  command: string[],
  config: object = {},
  links: Readonly<Record<string, string>> = {},
): Promise<Buffer> {
  const layer = pack();
  for (const dir of ['bin', 'etc', 'dev', 'proc', 'sys', 'root'])
    layer.entry({ name: dir, type: 'directory', mode: 0o755 });
  layer.entry({ name: 'tmp', type: 'directory', mode: 0o1777 });
  layer.entry(
    { name: 'etc/passwd' },
    'root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\napp:x:1000:1001::/tmp:/bin/sh\n',
  );
  layer.entry({ name: 'etc/group' }, 'root:x:0:\nnogroup:x:65534:\napp:x:1001:\nextra:x:2000:app\n');
  for (const file of ['/bin/busybox', ...(await libraries('/bin/busybox'))]) {
    layer.entry({ name: file.slice(1), mode: 0o755 }, await readFile(await realpath(file)));
  }
  const applets = (await exec('/bin/busybox', ['--list'])).stdout.split('\n');
  for (const applet of applets.filter((a) => a !== '' && a !== 'busybox')) {
    layer.entry({ name: `bin/${applet}`, type: 'symlink', linkname: 'busybox' });
  }
  for (const [name, linkname] of Object.entries(links)) layer.entry({ name, type: 'symlink', linkname });
  layer.finalize();
  const layerTar = await buffer(layer);
  const digest = createHash('sha256').update(layerTar).digest('hex');
  const image = {
    architecture: process.arch === 'arm64' ? 'arm64' : 'amd64',
    os: 'linux',
    config: { Env: ['PATH=/bin'], Cmd: command, ...config },
    rootfs: { type: 'layers', diff_ids: [`sha256:${digest}`] },
  };
  const archive = pack();
  archive.entry({ name: 'layer.tar' }, layerTar);
  archive.entry({ name: 'config.json' }, JSON.stringify(image));
  archive.entry(
    { name: 'manifest.json' },
    JSON.stringify([{ Config: 'config.json', RepoTags: [name], Layers: ['layer.tar'] }]),
  );
  archive.finalize();
  return buffer(archive);
}

/** Makes a root file system of nothing but busybox. */
export async function busyboxRoot(dir: string): Promise<void> {
  for (const file of ['/bin/busybox', ...(await libraries('/bin/busybox'))]) {
    await mkdir(path.join(dir, path.dirname(file)), { recursive: true });
    await copyFile(await realpath(file), path.join(dir, file));
  }
  for (const mountPoint of ['dev', 'proc', 'sys']) await mkdir(path.join(dir, mountPoint));
}

async function libraries(program: string): Promise<string[]> {
  const { stdout } = await exec('ldd', [program]);
  return [...stdout.matchAll(/(\/\S+) \(0x/g)].map(([, file]) => file ?? '');
}
