import { openSync } from 'node:fs';
import { join } from 'node:path';
import { parentPort, workerData } from 'node:worker_threads';
import { moveTree, openTree } from './idmap.ts';
import { check, declare } from './libc.ts';
import { unmount } from './mount.ts';
import type { ReplaceMounts } from './replace-mounts.ts';

const CLONE_FS = 0x0200;
const CLONE_NEWNS = 0x0002_0000;

const cUnshare = declare<[number]>('unshare', ['int']);
const cSetns = declare<[number, number]>('setns', ['int', 'int']);

// Everything is opened before the thread leaves: afterwards no path leads back. It never returns, and ends.
const { pid, dir, files } = workerData as ReplaceMounts;
const trees = files.map((file) => openTree(join(dir, file), 'readonly'));
const namespace = openSync(`/proc/${pid}/ns/mnt`, 'r');
// A thread can enter a mount namespace only when it shares its root directory with no other (setns(2)).
check('unshare', cUnshare(CLONE_FS));
check('setns', cSetns(namespace, CLONE_NEWNS));
for (const [i, file] of files.entries()) {
  unmount(file, { lazy: true });
  moveTree(trees[i] ?? -1, file);
}
parentPort?.postMessage('done');
